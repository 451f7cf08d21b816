"""What a teacher makes of the training pictures: a target with less chance in it than the truth.

The truth holds detail that no network can know from the LR image; a good network's output is nearly the mean of all
that may be true. The teacher always sees the clean LR image, whatever the student is shown.
"""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from def_hub.config import TeacherName
from def_hub.convert.checkpoint import load_strictly
from def_hub.data import Source
from def_hub.evaluation.baselines.hitsrf import HiTSRF
from def_hub.evaluation.baselines.rlfn import RLFN
from def_hub.evaluation.baselines.rrdb import RRDBNet, basicsr_name
from def_hub.training.given import degrade
from def_hub.writing import replacing


class Teacher:
    """A published network on whatever device the pictures are.

    Args:
        weights: its safetensors.
        network: "hitsrf", which is nearly the mean of all that may be true, "rlfn", which is nearly as good and takes a
            tenth of the time, or "rrdb", which looks sharp.
    """

    def __init__(self, weights: Path, network: TeacherName = "hitsrf") -> None:
        self.digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
        made = {"hitsrf": HiTSRF, "rlfn": RLFN, "rrdb": RRDBNet}[network]()
        rename = basicsr_name if network == "rrdb" else None
        self.network = load_strictly(made, weights, rename).requires_grad_(False)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """What it makes of the clean LR versions of `[B, 3, H, W]` in [0, 1]: of the same kind."""
        return self.network.to(images.device)(degrade(images)).clamp(0, 1)


class Taught:
    """A teacher's outputs for the fixed crops of a source, computed when one is first asked for and kept on disk.

    Beside each output stands the checksum of the picture that it belongs to: of a source that has changed, outputs are
    computed anew.

    Args:
        source: what is taught. size: side of its crops. folder: where the outputs are kept.
    """

    def __init__(self, source: Source, size: int, teacher: Teacher, folder: Path) -> None:
        self.source = source
        self.teacher = teacher
        path = folder / f"taught-{teacher.digest}-{source.name}-{len(source)}x{size}.npy"
        self.outputs = _opened(path, "uint8", (len(source), 3, size, size))
        self.checksums = _opened(path.with_suffix(".sums.npy"), "uint32", (len(source),))

    def __getitem__(self, index: int) -> Tensor:
        """Of crop `index`, uint8 `[3, size, size]`."""
        picture = self.source[index].image
        checksum = zlib.crc32(picture.numpy().tobytes())
        if self.checksums[index] != checksum:
            output = self.teacher(picture[None].float() / 255)[0]
            self.outputs[index] = (output * 255).round().byte().numpy()
            self.checksums[index] = checksum
        return torch.from_numpy(np.array(self.outputs[index]))


def _opened(path: Path, kind: str, shape: tuple[int, ...]) -> np.memmap:
    """The array of that file, which is made, of zeros, where there is none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            np.lib.format.open_memmap(temporary, mode="w+", dtype=kind, shape=shape).flush()
    return np.lib.format.open_memmap(path, mode="r+")

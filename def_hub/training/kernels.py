"""Training of the network that tells which filter shrank a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from def_hub.observation.degradation import Degradation, degrade
from def_hub.observation.kernel import KERNELS, KernelNetwork

FILE = "kernel.safetensors"
SPOILED = 0.25
"""Share of the pictures that are also blurred, noisy or saved as JPEG, a little: the network is asked about pictures
where nothing else was found, and a little is never found."""


class KernelTask(nn.Module):
    """Trains a `KernelNetwork` on pictures that are shrunk by each filter equally often."""

    def __init__(self) -> None:
        super().__init__()
        self.network = KernelNetwork()

    @property
    def learner(self) -> nn.Module:
        return self.network

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator, step: int) -> Tensor:
        seed = int(torch.randint(2**31, (), generator=generator))
        rng = np.random.default_rng(seed)
        kinds = rng.integers(len(KERNELS), size=len(batch["image"]))
        shrunk = [_shrunk(image, int(kind), rng) for image, kind in zip(batch["image"].cpu(), kinds, strict=True)]
        y = torch.cat(shrunk).to(batch["image"])
        return F.cross_entropy(self.network(y), torch.from_numpy(kinds).to(y.device))

    def start_from(self, folder: Path) -> None:
        self.network.load_state_dict(load_file(folder / FILE))

    def export(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in self.network.state_dict().items()}, folder / FILE)

    def validate(self) -> dict[str, float]:
        """Nothing: `tests/test_assessment.py` measures on the development files what the assessment makes of it."""
        return {}

    def pictures(self) -> Tensor | None:
        """None: there is nothing to look at."""
        return None


def _shrunk(image: Tensor, kind: int, rng: np.random.Generator) -> Tensor:
    """`[1, 3, h, w]` of `[3, H, W]`, by the filter of that number."""
    other = Degradation.random(rng) if rng.random() < SPOILED else Degradation()
    degradation = Degradation(KERNELS[kind], min(other.blur, 1.0), min(other.noise, 2.0), other.quality)  # type: ignore[arg-type]
    return degrade(image, degradation, rng=rng).picture

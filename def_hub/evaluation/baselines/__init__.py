"""Published networks for ×4 super-resolution, one file each, written from their papers.

Every network takes images `[B,3,h,w]` in `[0,1]` and returns `[B,3,4h,4w]` in the same range, not clipped. Those that
use references take a list of them, `[B,3,Hr,Wr]` each, as a second argument. The range and the mean colour that a
network was trained with are inside it. Modules bear the names of the authors' code: published weights load by name.

`def-hub train` trains a small form of each (`part = "baseline"`, see `examples/baselines/`). Its file says how large it
is, and is read as the authors' files are.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from def_hub.convert.checkpoint import load_strictly
from def_hub.evaluation.baselines.c2_matching import C2Matching
from def_hub.evaluation.baselines.edsr import EDSR, edsr_baseline
from def_hub.evaluation.baselines.hitsrf import HiTSRF
from def_hub.evaluation.baselines.masa import MASA
from def_hub.evaluation.baselines.rlfn import RLFN
from def_hub.evaluation.baselines.rrdb import RRDBNet
from def_hub.evaluation.baselines.rrdb import basicsr_name as rrdb_name
from def_hub.evaluation.baselines.srcnn import SRCNN
from def_hub.evaluation.baselines.srntt import SRNTT
from def_hub.evaluation.baselines.srresnet import SRResNet
from def_hub.evaluation.baselines.srresnet import basicsr_name as srresnet_name
from def_hub.evaluation.baselines.ttsr import TTSR

SIZES = "def_hub.sizes"
"""In the metadata of a file that was trained here: the arguments of its network, as JSON."""


@dataclass(frozen=True)
class Baseline:
    """A published network.

    Attributes:
        make: builds it, with random weights; arguments choose other sizes than the published ones.
        rename: from the names in the authors' checkpoint to those here, where they differ.
        parts: submodules that the authors keep in a file each, in order.
        needs_references: it cannot do without.
        read: builds it from the authors' file, where names alone do not say how.
    """

    make: Callable[..., nn.Module]
    rename: Callable[[str], str] | None = None
    parts: tuple[str, ...] = ()
    uses_references: bool = False
    needs_references: bool = False
    read: Callable[[str], nn.Module] | None = None

    def load(self, *paths: str) -> nn.Module:
        """The network with the weights of one file that holds all of them, or of one file for each of the `parts`.

        A file that was trained here has the sizes that it says.

        Raises ValueError for another number of files, and as `convert.checkpoint.load_strictly` does.
        """
        sizes = trained_here(paths[0]) if len(paths) == 1 else None
        if self.read is not None and len(paths) == 1 and sizes is None:
            return self.read(paths[0]).eval()
        network = self.make(**(sizes or {})).eval()
        if sizes is not None:
            return load_strictly(network, paths[0])
        if len(paths) == 1:
            return load_strictly(network, paths[0], self.rename)
        if len(paths) != len(self.parts):
            expected = f"one file, or one each for {', '.join(self.parts)}" if self.parts else "one file"
            raise ValueError(f"{type(network).__name__}: expected {expected}, got {len(paths)} files")
        for part, path in zip(self.parts, paths, strict=True):
            load_strictly(network.get_submodule(part), path, self.rename)
        return network


def trained_here(path: str | Path) -> Mapping[str, Any] | None:
    """The arguments of the network in a file that was trained here; None for any other file."""
    try:
        with safe_open(path, framework="pt") as file:
            sizes = (file.metadata() or {}).get(SIZES)
    except (OSError, SafetensorError):
        return None  # what is wrong with it is said by who reads its weights
    return None if sizes is None else json.loads(sizes)


BASELINES = {
    "srcnn": Baseline(SRCNN),
    "edsr": Baseline(EDSR),
    "edsr-baseline": Baseline(edsr_baseline),
    "srresnet": Baseline(SRResNet, srresnet_name),
    "ranksrgan": Baseline(SRResNet, srresnet_name),
    "rrdb": Baseline(RRDBNet),
    "esrgan": Baseline(RRDBNet, rrdb_name),
    "rlfn": Baseline(RLFN),
    "hitsrf": Baseline(HiTSRF),
    "srntt": Baseline(SRNTT, parts=("srntt", "vgg"), uses_references=True),
    "ttsr": Baseline(TTSR, uses_references=True, needs_references=True, read=TTSR.from_published),
    "masa": Baseline(MASA, uses_references=True, needs_references=True),
    "c2-matching": Baseline(
        C2Matching, parts=("net_g", "net_extractor", "vgg"), uses_references=True, needs_references=True
    ),
}
"""What `def-hub evaluate --method NAME=FILE` knows. VGG19's weights are what `def-hub convert vgg19` writes."""

"""Published networks for ×4 super-resolution, one file each, written from their papers.

Every network takes images `[B,3,h,w]` in `[0,1]` and returns `[B,3,4h,4w]` in the same range, not clipped. Those that
use references take a list of them, `[B,3,Hr,Wr]` each, as a second argument. The range and the mean colour that a
network was trained with are inside it. Modules bear the names of the authors' code: published weights load by name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from def_hub.convert.checkpoint import load_strictly
from def_hub.evaluation.baselines.hitsrf import HiTSRF
from def_hub.evaluation.baselines.rlfn import RLFN
from def_hub.evaluation.baselines.rrdb import RRDBNet, basicsr_name


@dataclass(frozen=True)
class Baseline:
    """A published network. `rename`: from the names in the authors' checkpoint to those here, where they differ."""

    make: Callable[[], nn.Module]
    rename: Callable[[str], str] | None = None
    uses_references: bool = False

    def load(self, path: str | Path) -> nn.Module:
        """The network with the weights of a file; errors as `convert.checkpoint.load_strictly`."""
        return load_strictly(self.make(), path, self.rename)


BASELINES = {
    "rlfn": Baseline(RLFN),
    "hitsrf": Baseline(HiTSRF),
    "rrdb": Baseline(RRDBNet),
    "esrgan": Baseline(RRDBNet, basicsr_name),
}
"""What `def-hub evaluate --method NAME=FILE` knows."""

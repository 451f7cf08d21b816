"""Training of the network that tells which filter shrank a picture."""

from __future__ import annotations

from dataclasses import replace
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
    """Trains a `KernelNetwork` on pictures that are shrunk by each filter in turn: the picture itself tells nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.network = KernelNetwork()

    @property
    def learner(self) -> nn.Module:
        return self.network

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator, step: int) -> Tensor:
        rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
        shrunk = [_shrunk(image, rng) for image in batch["image"].cpu()]
        y = torch.cat(shrunk).to(batch["image"])
        kinds = torch.arange(len(KERNELS), device=y.device).repeat(len(shrunk))
        return F.cross_entropy(self.network(y), kinds)

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


def _shrunk(image: Tensor, rng: np.random.Generator) -> Tensor:
    """`[5, 3, h, w]` of `[3, H, W]`, by each filter."""
    other = Degradation.random(rng) if rng.random() < SPOILED else Degradation()
    spoiled = Degradation("bicubic", min(other.blur, 1.0), min(other.noise, 2.0), other.quality)
    return torch.cat([degrade(image, replace(spoiled, kernel=kernel), rng=rng).picture for kernel in KERNELS])  # type: ignore[arg-type]

"""A small network that tells which filter shrank a picture.

What a filter leaves is a texture that is everywhere: aliasing after "nearest", a little of it after "box". A formula
that looks at one band of frequencies mistakes fine texture for aliasing; a network does so less.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from def_hub.observation.degradation import FILTERS
from def_hub.observation.downsample import Kernel

KERNELS = tuple(FILTERS)
"""The filters that are told apart, in the order of the network's outputs."""
WEIGHTS = Path(__file__).parents[1] / "weights" / "kernel.safetensors"
LARGEST = 384  # pixels: side of the part that is looked at


class KernelNetwork(nn.Module):
    """Convolutions over the picture and its fine detail, means and deviations of their features over all places, and
    two layers. `examples/def-mini/0-kernel.toml` trains it."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(6, width, 3),
            nn.ReLU(),
            nn.Conv2d(width, width, 3),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.Linear(4 * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, len(KERNELS)))

    def forward(self, y: Tensor) -> Tensor:
        """`[B, 3, h, w]` in [0, 1], at least 16 pixels a side → logits `[B, 5]` of `KERNELS`."""
        fine = y - F.avg_pool2d(F.pad(y, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        features = self.body(torch.cat((y - 0.5, 8 * fine), dim=1)).flatten(2)
        return self.head(torch.cat((features.mean(2), features.std(2)), dim=1))


@torch.no_grad()
def kernel_probabilities(picture: Tensor) -> dict[Kernel, float]:
    """How likely each filter is to have shrunk a picture `[1, 3, h, w]` in [0, 1], both sides at least 16 pixels."""
    top, left = (max(side - LARGEST, 0) // 2 for side in picture.shape[-2:])
    part = picture[..., top : top + LARGEST, left : left + LARGEST].float().cpu()
    with torch.autocast("cpu", enabled=False):  # the same answer whatever the networks of a call compute in
        probabilities = _shipped()(part)[0].softmax(0)
    return dict(zip(KERNELS, probabilities.tolist(), strict=True))  # type: ignore[return-value]


@cache
def _shipped() -> KernelNetwork:
    network = KernelNetwork().requires_grad_(False)
    network.load_state_dict(load_file(WEIGHTS))
    return network

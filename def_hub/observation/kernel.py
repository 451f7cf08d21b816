"""A small network that tells which filter shrank a picture.

A filter multiplies the picture's spectrum, so it shows in how much energy each frequency holds, beside what pictures
hold there anyway. What "nearest" leaves, jagged edges, looks like detail to a spectrum; convolutions see it.
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
from def_hub.observation.jpeg import FROM_RGB

KERNELS = tuple(FILTERS)
"""The filters that are told apart, in the order of the network's outputs."""
WEIGHTS = Path(__file__).parents[1] / "weights" / "kernel.safetensors"
LARGEST = 384  # pixels: side of the part that is looked at
BLOCK = 16  # pixels: side of the blocks whose spectra are taken
ROUNDING = BLOCK / 2
"""Energy that rounding to 8 bits leaves at each frequency, about; it keeps logarithms of empty frequencies away."""


class KernelNetwork(nn.Module):
    """Spectra of small blocks and a few convolutions over the fine detail, averaged over all places, then two layers.
    `examples/def-mini/0-kernel.toml` trains it."""

    def __init__(self, width: int = 16, hidden: int = 128) -> None:
        super().__init__()
        frequencies = BLOCK * (BLOCK // 2 + 1)
        self.body = nn.Sequential(
            nn.Conv2d(6, width, 3),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3),
            nn.ReLU(),
        )
        self.norm = nn.LayerNorm(2 * frequencies)
        self.head = nn.Sequential(
            nn.Linear(2 * frequencies + 4 * width, hidden),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, len(KERNELS)),
        )

    def forward(self, y: Tensor) -> Tensor:
        """`[B, 3, h, w]` in [0, 1], at least 32 pixels a side → logits `[B, 5]` of `KERNELS`."""
        fine = y - F.avg_pool2d(F.pad(y, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        features = self.body(torch.cat((y - 0.5, 8 * fine), dim=1)).flatten(2)
        return self.head(torch.cat((self.norm(spectrum(y)), features.mean(2), features.std(2)), dim=1))


def spectrum(y: Tensor) -> Tensor:
    """Logarithms of the mean and of the geometric mean energy of each frequency, over overlapping blocks of the luma
    under a sine window: pictures `[B, 3, h, w]` in [0, 1] → `[B, 2 · 16 · 9]`."""
    weights = FROM_RGB[0].to(y).view(1, 3, 1, 1)
    luma = 255 * (y * weights).sum(1, keepdim=True)
    blocks = F.unfold(luma, BLOCK, stride=BLOCK // 2).transpose(1, 2).unflatten(2, (BLOCK, BLOCK))
    window = torch.sin(torch.pi * (torch.arange(BLOCK, device=y.device) + 0.5) / BLOCK)
    blocks = (blocks - blocks.mean((2, 3), keepdim=True)) * torch.outer(window, window)
    energy = torch.fft.rfft2(blocks).abs().square() + ROUNDING  # [B,N,16,9]
    return torch.cat((energy.mean(1).log().flatten(1), energy.log().mean(1).flatten(1)), dim=1)


@torch.no_grad()
def kernel_probabilities(picture: Tensor) -> dict[Kernel, float]:
    """How likely each filter is to have shrunk a picture `[1, 3, h, w]` in [0, 1], both sides at least 32 pixels."""
    top, left = (max(side - LARGEST, 0) // 2 for side in picture.shape[-2:])
    part = picture[..., top : top + LARGEST, left : left + LARGEST].float().cpu()
    with torch.autocast("cpu", enabled=False):  # the same answer whatever the networks of a call compute in
        probabilities = _shipped()(part)[0].softmax(0)
    return dict(zip(KERNELS, probabilities.tolist(), strict=True))  # type: ignore[return-value]


@cache
def _shipped() -> KernelNetwork:
    network = KernelNetwork().eval().requires_grad_(False)
    network.load_state_dict(load_file(WEIGHTS))
    return network

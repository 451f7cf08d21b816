"""Closed convex sets of small pictures that a file allows: the table in `agreement`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

LEVEL = 1 / 255

WINDOW = 16
"""Side of the windows that are a ball each. JPEG's largest unit, so that its blocks never cross one."""
SLACK = 2.0
"""Standard deviations by which a window's noise may exceed σ√n."""


class KnownSet(Protocol):
    """A closed convex set of small pictures `[1, 3, h, w]`, in [0, 1]."""

    def nearest(self, z: Tensor) -> Tensor:
        """Π_C: the member nearest to `z` (for JPEG in Y, Cb, Cr; for the others in R, G, B)."""

    def core(self) -> KnownSet:
        """The part of it that survives rounding: where to aim at."""

    def share(self, z: Tensor) -> float:
        """How much of what the file says the picture `z` reproduces, 0 … 1."""


@dataclass(frozen=True)
class Exact:
    """The file is right to the last digit: C = {y}."""

    y: Tensor

    def nearest(self, z: Tensor) -> Tensor:
        return self.y

    def core(self) -> Exact:
        return self

    def share(self, z: Tensor) -> float:
        """Values that are the file's, to one level of 8 bits."""
        return within(z - self.y, 1.01 * LEVEL)


@dataclass(frozen=True)
class Rounded:
    """The file was rounded: every value lies within `half` of `y`."""

    y: Tensor
    half: float = 0.5 * LEVEL

    def nearest(self, z: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(z, self.y - self.half), self.y + self.half)

    def core(self) -> Rounded:
        return self

    def share(self, z: Tensor) -> float:
        """Values within `half` of the file's, and the rounding of `z` itself."""
        return within(z - self.y, self.half + 0.51 * LEVEL)


@dataclass(frozen=True)
class Ball:
    """The file is noisy: in every window of 16×16 pixels the noise is as strong as `sigma` (in [0, 1]) makes it."""

    y: Tensor
    sigma: float

    def nearest(self, z: Tensor) -> Tensor:
        away = z - self.y
        variance = torch.full_like(z[:, :1], 3 * self.sigma**2)
        return self.y + away * (1 - excess(away.square().sum(1, keepdim=True), variance, count=3))

    def core(self) -> Ball:
        return self

    def share(self, z: Tensor) -> float:
        """Windows in which the difference is noise of that strength."""
        away = (z - self.y).square().sum(1, keepdim=True)
        inside = excess(away, torch.full_like(away, 3 * self.sigma**2), count=3) <= 0.02  # rounding adds to it
        return float(inside.double().mean())


def within(difference: Tensor, bound: float) -> float:
    return float((difference.abs() <= bound).double().mean())


def excess(energy: Tensor, variance: Tensor, count: int) -> Tensor:
    """By what part each window's change has to be kept for it to end on its ball: 0 inside, towards 1 far outside.

    energy, variance: `[1, 1, h, w]`, of the change and of the noise in each pixel; count: how many numbers a pixel's
    noise is the sum of.
    """
    height, width = energy.shape[-2:]
    pad = (0, -width % WINDOW, 0, -height % WINDOW)
    sums = [F.avg_pool2d(F.pad(v, pad), WINDOW) * WINDOW**2 for v in (energy, variance, torch.ones_like(energy))]
    strength, noise, pixels = sums
    radius = noise.sqrt() * (1 + SLACK / (2 * count * pixels).sqrt())
    keep = (1 - radius / strength.sqrt().clamp(min=1e-12)).clamp(min=0)
    keep = keep.repeat_interleave(WINDOW, -1).repeat_interleave(WINDOW, -2)
    return keep[..., :height, :width]

"""What a run shows of itself: PSNR and pictures of pairs that are held out."""

from __future__ import annotations

import torch
from torch import Tensor

from def_hub.data import Pair

SHOWN = 6  # pairs in a picture of the validation


def mean_psnr(a: Tensor, b: Tensor) -> float:
    """Mean RGB PSNR in dB of a batch of images in [0, 1]; for watching a run, not for reporting."""
    error = (a.clamp(0, 1) - b).square().flatten(1).mean(1).clamp_min(1e-12)
    return float((-10 * error.log10()).mean())


def stacked(pairs: list[Pair]) -> dict[str, Tensor]:
    """Pairs as a batch in [0, 1]."""
    return {
        "image": torch.stack([p.image for p in pairs]).float() / 255,
        "reference": torch.stack([p.reference for p in pairs]).float() / 255,
    }


def grid(columns: list[Tensor]) -> Tensor:
    """Columns of pictures, each `[N, 3, H, W]`, → one picture `[3, N·H, columns·W]`."""
    return torch.cat([torch.cat(tuple(column), dim=1) for column in columns], dim=2)

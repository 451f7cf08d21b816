"""Learned whitening of descriptors: fewer numbers, and those that most pictures have in common count less."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

PROJECTION = Path(__file__).resolve().parents[2] / "weights" / "library.safetensors"
"""Made by `examples/def-mini/library_projection.py` from the training pictures."""


@dataclass(frozen=True)
class Whitening:
    """mean: `[S]`. basis: `[S, D]`, its columns are directions divided by a power of their variance."""

    mean: Tensor
    basis: Tensor

    def __call__(self, descriptors: Tensor) -> Tensor:
        """`[N, S]` → `[N, D]`, of norm one."""
        return F.normalize((descriptors - self.mean) @ self.basis, dim=1)


@cache
def whitening(kind: Literal["regions", "cells"]) -> Whitening:
    """The whitening of global descriptors ("regions"), or of local ones ("cells")."""
    stored = load_file(PROJECTION)
    return Whitening(stored[f"{kind}.mean"].float(), stored[f"{kind}.basis"].float())

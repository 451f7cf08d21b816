"""Descriptors: what a library keeps of its photos, to compare them with an image without opening them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor


def _none(*rest: int, dtype: torch.dtype) -> Tensor:
    return torch.zeros(0, *rest, dtype=dtype)


@dataclass(frozen=True)
class Descriptors:
    """The descriptors of N photos.

    regions: global descriptors `[N, R, D]`, float16, of norm one: of the whole photo and of parts of it.
    cells: local descriptors `[N, C, E]`, int8, row by row, with zeros after the last cell.
    grid: `[N, 2]`, int16: how many rows and columns of cells each photo has.
    """

    regions: Tensor = field(default_factory=lambda: _none(0, 0, dtype=torch.float16))
    cells: Tensor = field(default_factory=lambda: _none(0, 0, dtype=torch.int8))
    grid: Tensor = field(default_factory=lambda: _none(2, dtype=torch.int16))

    def __len__(self) -> int:
        return len(self.regions)

    def __iter__(self) -> Iterator[Descriptors]:
        """Those of each photo, N = 1."""
        for n in range(len(self)):  # slices, which copy nothing: the tensors of a library are mapped files
            yield Descriptors(*(getattr(self, f.name)[n : n + 1] for f in fields(self)))

    def take(self, numbers: Sequence[int]) -> Descriptors:
        """Those of some photos, in this order."""
        return Descriptors(*(getattr(self, f.name)[list(numbers)] for f in fields(self)))

    @classmethod
    def joined(cls, parts: Sequence[Descriptors]) -> Descriptors:
        """Those of all parts, which must have been made by the same embedder."""
        if not parts:
            return cls()
        return cls(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)))

"""What goes into matching and what comes out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub.observation.downsample import SCALE
from def_hub.tiling import Window

CELL = SCALE
"""HR pixels along one side of a cell: what one LR pixel becomes."""


def mean_around(x: Tensor, side: int) -> Tensor:
    """`[B,C,h,w]`: the mean over the `side`×`side` places (`side` is odd) around each, as far as they lie inside."""
    return F.avg_pool2d(x, side, stride=1, padding=side // 2, count_include_pad=False)


@dataclass(frozen=True)
class Views:
    """One picture as the matcher may look at it. All `[B,3,H,W]` in `[0,1]`, equal sizes, multiples of 4.

    A similarity only means something between images of one domain, so an input is seen `bicubic` (enlarged)
    and `enhanced`, and a reference is degraded and then treated in the same two ways. `sharp` is the
    reference itself. `usable` `[B,1,H/4,W/4]` in [0, 1] is the factor by which a match with a cell of a reference
    counts, 0 where it may not be used; None where all count in full.
    """

    bicubic: Tensor
    enhanced: Tensor
    sharp: Tensor | None = None
    usable: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("bicubic", "enhanced", "sharp"):
            view = getattr(self, name)
            if view is None and name == "sharp":
                continue
            if not isinstance(view, Tensor):
                raise TypeError(f"Views.{name}: expected a tensor, got {type(view).__name__}")
            if view.ndim != 4 or view.shape[1] != 3 or view.shape[2] % CELL or view.shape[3] % CELL:
                raise ValueError(
                    f"Views.{name}: expected [B,3,H,W], H and W multiples of {CELL}, got {list(view.shape)}"
                )
            if view.shape != self.bicubic.shape:
                raise ValueError(
                    f"Views.{name}: expected the size of the bicubic view {list(self.bicubic.shape)}, "
                    f"got {list(view.shape)}"
                )
        if self.usable is not None:
            batch, _, height, width = self.bicubic.shape
            expected = [batch, 1, height // CELL, width // CELL]
            if list(self.usable.shape) != expected:
                raise ValueError(f"Views.usable: expected {expected}, got {list(self.usable.shape)}")

    def counting(self, share: Tensor) -> Views:
        """The same, of which a match counts only by this share, `[B]`."""
        usable = torch.ones_like(self.bicubic[:, :1, ::CELL, ::CELL]) if self.usable is None else self.usable
        return replace(self, usable=usable * share.view(-1, 1, 1, 1))

    def halved(self) -> Views:
        """Half the size; an odd last row or column of cells gets a copy of its border for company."""
        bottom, right = (n % (2 * CELL) for n in self.bicubic.shape[2:])

        def half(image: Tensor) -> Tensor:
            return F.avg_pool2d(F.pad(image, (0, right, 0, bottom), mode="replicate"), 2)

        bicubic = half(self.bicubic)
        enhanced = bicubic if self.enhanced is self.bicubic else half(self.enhanced)
        usable = None if self.usable is None else F.max_pool2d(self.usable, 2, ceil_mode=True)
        return replace(
            self,
            bicubic=bicubic,
            enhanced=enhanced,
            sharp=None if self.sharp is None else half(self.sharp),
            usable=usable,
        )


class KeptViews(Views):
    """Views of an image that is compared with many references: its halves are made once."""

    @cached_property
    def _half(self) -> Views:
        return super().halved()

    def halved(self) -> Views:
        return self._half


@dataclass(frozen=True)
class Correspondence:
    """For every cell of the LR grid, where to look.

    reference   [B,h,w] long: which of the references
    position    [B,2,h,w] float: (x, y) of the centre of the cell's 4×4 block, in HR pixels of that reference
    confidence  [B,1,h,w] float in [0,1]
    frame       [B,2,2,h,w] float: what lies d HR pixels from the centre of the cell lies frame @ d from `position`;
                None where every cell moves as a whole

    Pixel centres lie at integers: cell (i, j) of an identical reference has the position (4j+1.5, 4i+1.5).
    """

    reference: Tensor
    position: Tensor
    confidence: Tensor
    frame: Tensor | None = None

    def __post_init__(self) -> None:
        batch, *grid = self.reference.shape
        if len(grid) != 2:
            raise ValueError(f"Correspondence.reference: expected [B,h,w], got {[batch, *grid]}")
        for name, channels in (("position", 2), ("confidence", 1)):
            expected, came = [batch, channels, *grid], list(getattr(self, name).shape)
            if came != expected:
                raise ValueError(f"Correspondence.{name}: expected {expected} like the others, got {came}")
        if self.frame is not None and list(self.frame.shape) != [batch, 2, 2, *grid]:
            raise ValueError(
                f"Correspondence.frame: expected {[batch, 2, 2, *grid]} like the others, got {list(self.frame.shape)}"
            )

    @property
    def frames(self) -> Tensor:
        """`frame`, or identities."""
        if self.frame is not None:
            return self.frame
        batch, h, w = self.reference.shape
        return torch.eye(2, device=self.position.device)[None, :, :, None, None].expand(batch, 2, 2, h, w)

    def trusted(self, share: Tensor | float) -> Correspondence:
        """The same, with the confidence times `share`, one number or `[B,1,h,w]`."""
        return replace(self, confidence=self.confidence * share)

    def cut(self, cells: Window) -> Correspondence:
        """The part under a window of the LR grid; it looks where it did."""
        frame = None if self.frame is None else cells.cut(self.frame)
        return Correspondence(cells.cut(self.reference), cells.cut(self.position), cells.cut(self.confidence), frame)

    @staticmethod
    def identity(batch: int, height: int, width: int, device: torch.device | str = "cpu") -> Correspondence:
        """Each cell of a `height`×`width` grid looks, fully sure, at its own place in the first reference."""
        y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
        position = torch.stack((x, y)) * float(CELL) + (CELL - 1) / 2
        return Correspondence(
            reference=torch.zeros(batch, height, width, dtype=torch.long, device=device),
            position=position.expand(batch, -1, -1, -1),
            confidence=torch.ones(batch, 1, height, width, device=device),
        )

"""ReferencePicture: one reference on its whole way, from the caller's file to the report."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from def_hub.reference.matching.correspondence import Views


@dataclass(frozen=True)
class ReferencePicture:
    """A reference as it is matched, and how to get back to the picture that the caller gave.

    pixels: `[1, 3, Hr, Wr]` in [0, 1], sides multiples of 4.
    usable: `[1, 1, Hr/4, Wr/4]`, 1 where it may be used, else 0; None where all of it may.
    scale: (x, y), its pixels per pixel of the picture as given.
    corner: (x, y), where it begins in the picture as given.
    views: how the matcher looks at it; None before it is degraded and enhanced, and after it is matched.
    """

    pixels: Tensor
    usable: Tensor | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    corner: tuple[int, int] = (0, 0)
    views: Views | None = None

    def to(self, device: torch.device) -> ReferencePicture:
        """The same on a device."""
        usable = None if self.usable is None else self.usable.to(device)
        return replace(self, pixels=self.pixels.to(device), usable=usable)

    def seen_as(self, bicubic: Tensor, enhanced: Tensor) -> ReferencePicture:
        """The same with its views: itself after it was degraded as the image was, enlarged plainly and enhanced."""
        return replace(self, views=Views(bicubic, enhanced, self.pixels, self.usable))

    @property
    def seen(self) -> Views:
        """Its views, once it has them."""
        assert self.views is not None, "a reference is seen before it is matched"
        return self.views

    def without_views(self) -> ReferencePicture:
        """The same, once it is matched: the views of a large photograph take a gigabyte."""
        return replace(self, views=None)

    def original(self, place: Tensor) -> Tensor:
        """`[2, ...]` (x, y) in pixels of `pixels` → in pixels of the picture as given; pixel centres at integers."""
        scale, corner = (place.new_tensor(v).view(2, *[1] * (place.ndim - 1)) for v in (self.scale, self.corner))
        return corner + (place + 0.5) / scale - 0.5

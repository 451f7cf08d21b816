"""ReferencePicture: a reference, from the caller's file through matching to the report."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from def_hub.reference.matching.correspondence import Views
from def_hub.reference.matching.placement import Placement


@dataclass(frozen=True)
class ReferencePicture:
    """A reference at the size at which it is matched, and its place in the original, which the caller gave.

    pixels: `[1, 3, Hr, Wr]` in [0, 1], with sides that are multiples of 4.
    usable: `[1, 1, Hr/4, Wr/4]`, 1 where the reference may be used, else 0. None if all of it may be used.
    placement: where its pixels lie in the original, through every cut, turn, mirror image and change of size.
    fitted: whether it is as large as the image shows things already, see `matching.fitting.fit`.
    views: the images that the matcher compares. None until `seen_as`, and again after `without_views`.
    """

    pixels: Tensor
    usable: Tensor | None = None
    placement: Placement = field(default_factory=Placement)
    fitted: bool = False
    views: Views | None = None

    def to(self, device: torch.device) -> ReferencePicture:
        """A copy with its pixels and mask on a device."""
        usable = None if self.usable is None else self.usable.to(device)
        return replace(self, pixels=self.pixels.to(device), usable=usable)

    def seen_as(self, bicubic: Tensor, enhanced: Tensor) -> ReferencePicture:
        """A copy with its views. `bicubic` and `enhanced` are made from the degraded reference: enlarged by bicubic
        interpolation, and enhanced by the prior. Both `[1, 3, Hr, Wr]`."""
        return replace(self, views=Views(bicubic, enhanced, self.pixels, self.usable))

    @property
    def seen(self) -> Views:
        """The views, after `seen_as` has set them."""
        assert self.views is not None, "seen_as comes before matching"
        return self.views

    def without_views(self) -> ReferencePicture:
        """A copy without views. After matching nobody needs them, and those of a large photograph take a gigabyte."""
        return replace(self, views=None)

    @property
    def scale(self) -> tuple[float, float]:
        """Its pixels per pixel of the picture as given, along its x and y."""
        return self.placement.scale

    def original(self, place: Tensor) -> Tensor:
        """`[2, ...]` (x, y) in pixels of `pixels` → in pixels of the picture as given; pixel centres at integers."""
        return self.placement.original(place)

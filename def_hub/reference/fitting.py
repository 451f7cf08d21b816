"""A reference as it is matched: in the orientation of the image, and as large as the enlarged image shows things.

A reference that shows the place half as large, four times as large or lying on its side would find nothing, for
matching compares windows of one size in both pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from def_hub.reference.features import in_own_precision
from def_hub.reference.matching import CELL
from def_hub.reference.matching.detail import stepped
from def_hub.reference.matching.light import light
from def_hub.reference.matching.placement import Placement
from def_hub.reference.matching.pose import Sighting, mask_of, resized, sight

LEAST = 0.08
"""Support from which a pose is believed; unrelated pictures reach 0.05 (see `Sighting`)."""
NOTHING = 1.75
"""Logarithm from which a reference has no detail that the image lacks, as the image itself has at 2: left as it is."""
SHRUNK, ENLARGED = -0.15, 0.1
"""Logarithms between which a reference stays as it is: every resampling costs detail, and alignment follows so far."""
FINER = 0.05
"""What is resized becomes so much finer than the result, as a logarithm: it was best between 0 and 0.1."""
MOST = 4.0
"""Area, in areas of the result, that a reference may have where its pose is not known."""
MARGIN = 0.15
"""Of the part that is matched, how much more on either side is kept."""


@dataclass(frozen=True)
class Fitted:
    """A reference as it is matched.

    picture: `[1, 3, H, W]`, sides multiples of 4; usable: `[1, 1, H/4, W/4]` or None, see `Views`. placement: where its
    pixels lie in the reference.
    """

    picture: Tensor
    usable: Tensor | None = None
    placement: Placement = field(default_factory=Placement)

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels per pixel of the reference, along x and y of `picture`."""
        return self.placement.scale

    def original(self, place: Tensor) -> Tensor:
        """`[2, ...]` (x, y) in pixels of `picture` → in pixels of the reference."""
        return self.placement.original(place)


@torch.no_grad()
def fitted(image: Tensor, picture: Tensor, usable: Tensor | None, extractor: nn.Module) -> Fitted:
    """The reference as it is matched: `sight`, and then `fit`.

    Args:
        image: LR image `[1, 3, h, w]`. picture: the reference `[1, 3, Hr, Wr]`, sides multiples of 4; usable: see
            `Views`. extractor: of the network that will match them.
    """
    return fit(image, picture, usable, sight(image, picture, usable, in_own_precision(extractor)))


@torch.no_grad()
def fit(image: Tensor, picture: Tensor, usable: Tensor | None, seen: Sighting) -> Fitted:
    """The reference in the orientation of the image, as large as the enlarged image shows things, and in its light.

    What is resized is also cut to the part that was matched. A reference that is finer than the result is made smaller
    with antialiasing. Where no pose is found the reference comes back as it is, or smaller where it is very large.

    Arguments as `fitted`; seen: the pose that was found.
    """
    if stepped(picture):  # what its steps add is not the scene's
        usable = picture.new_zeros(1, 1, picture.shape[2] // CELL, picture.shape[3] // CELL)
    pose, octave = seen.pose, seen.pose.octave
    if seen.support < LEAST or (pose.upright and octave > NOTHING):
        return _bounded(image, picture, usable)
    relit = light(seen)
    whole = (0, 0, *reversed(picture.shape[2:]))
    if SHRUNK < octave < ENLARGED:
        if pose.upright:
            return Fitted(picture if relit is None else relit.on(picture), usable)
        left, top, right, bottom = whole
        octave = 0.0
    else:
        left, top, right, bottom = _part(seen, picture)
    picture = pose.turned(picture[..., top:bottom, left:right])
    placement = Placement.of_turn(pose, (bottom - top, right - left)).moved(left, top)
    if usable is not None:
        cells = (slice(top // CELL, bottom // CELL), slice(left // CELL, right // CELL))
        usable = pose.turned(usable[..., cells[0], cells[1]])
    if octave != 0.0:
        height, width = picture.shape[2:]
        picture = resized(picture, 2 ** (octave + FINER))
        usable = None if usable is None else mask_of(usable, picture)
        placement = placement.after_resizing(picture.shape[3] / width, picture.shape[2] / height)
    return Fitted(picture.contiguous() if relit is None else relit.on(picture), usable, placement)


def _bounded(image: Tensor, picture: Tensor, usable: Tensor | None) -> Fitted:
    """The reference as it is, but of at most `MOST` areas of the result."""
    height, width = picture.shape[2:]
    area = height * width / (CELL**2 * image.shape[2] * image.shape[3])
    if area <= MOST:
        return Fitted(picture, usable)
    picture = resized(picture, (MOST / area) ** 0.5)
    usable = None if usable is None else mask_of(usable, picture)
    return Fitted(picture, usable, Placement().after_resizing(picture.shape[3] / width, picture.shape[2] / height))


def _part(seen: Sighting, picture: Tensor) -> tuple[int, int, int, int]:
    """Left, top, right and bottom, multiples of 4, of the part of the reference, unturned, in which the trusted matches
    lie."""
    height, width = picture.shape[2:]
    place = seen.matches.position[0][:, seen.trusted]  # [2,n]
    if place.shape[1] < 16:
        return 0, 0, width, height
    turned = Placement.of_turn(seen.pose, (height, width)).after_resizing(*seen.scale)
    place = turned.original(place)
    low, high = (torch.quantile(place, q, dim=1) for q in (0.02, 0.98))
    # of an LR image's cell there are as many pixels in the reference as it is finer than the image
    more = MARGIN * (high - low) + 8 * CELL / 2 ** min(seen.pose.octave, 0.0)
    left, top = (max(0, int(v) // CELL * CELL) for v in (low - more).tolist())
    right, bottom = (
        min(n, -(-int(v) // CELL) * CELL) for v, n in zip((high + more).tolist(), (width, height), strict=True)
    )
    return left, top, right, bottom

"""A reference as it is matched: in the orientation of the image, and as large as the enlarged image shows things.

A reference that shows the place half as large, four times as large or lying on its side would find nothing, for
matching compares windows of one size in both pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from def_hub.images import resized_part
from def_hub.reference.features import in_own_precision
from def_hub.reference.matching.correspondence import CELL
from def_hub.reference.matching.detail import stepped
from def_hub.reference.matching.light import light
from def_hub.reference.matching.placement import Placement, trusted_places
from def_hub.reference.matching.pose import (
    CONFIRMING,
    LARGER,
    LEAST,
    ImageCopies,
    Sighting,
    mask_of,
    resized,
    scaled_sides,
    seems_shown,
    sight,
)
from def_hub.reference.matching.slant import SLANTS, slanted
from def_hub.reference.picture import ReferencePicture

NOTHING = 1.75
"""Logarithm from which a reference has no detail that the image lacks, as the image itself has at 2: left as it is."""
SHRUNK, ENLARGED = -0.08, 0.03
"""Logarithms between which a reference stays as it is. Alignment would follow from -0.15 to 0.1, but then the result
depended on chance: of five enlargements of the reference of group 009 of MultiView, by 1.18 to 1.35, the worst one was
0.37 dB behind the best; with -0.05 to 0, where more of them are resized to one size, 0.14 (29 November 2026)."""
FINER = 0.05
"""What is resized becomes so much finer than the result, as a logarithm: it was best between 0 and 0.1."""
MOST = 4.0
"""Area, in areas of the result, that a reference may have where its pose is not known."""
STRAIGHT = 12.0
"""Degrees that are left to the alignment: at 20° half of the support is lost (street and robot, 28 November 2026)."""
MARGIN, BESIDE = 0.15, 8 * CELL
"""How much more is kept on either side of the part that is matched: so much of it, and so many pixels."""


@torch.no_grad()
def fitted(image: Tensor, reference: ReferencePicture, extractor: nn.Module) -> ReferencePicture:
    """The reference as it is matched: its pose is `found`, and it is brought to that of the image (`fit`).

    Args:
        image: LR image `[1, 3, h, w]`.
        reference: as the caller gave it.
        extractor: of the network that will match them.
    """
    return fit(image, *found(ImageCopies(image, in_own_precision(extractor)), reference))


@torch.no_grad()
def found(image: ImageCopies, reference: ReferencePicture) -> tuple[ReferencePicture, Sighting]:
    """The reference, turned straight if it hangs askew, and its pose.

    `sight` finds quarter turns and mirror images, and alignment follows another `STRAIGHT` degrees. Two cases are left:

    - The reference is found, but hangs further askew. It is turned by the angle that its matches measured.
    - Nothing is found. It is turned by each of `SLANTS` with which a small copy gets enough votes, unless references
      are only looked for upright.

    After the turn it is looked for again. The turn is kept if this finds the place with at least as much support;
    otherwise the reference is returned as it was given.

    Args:
        image: the LR image.
        reference: as the caller gave it.

    Returns:
        The reference, and what `sight` found in it. `fit` takes both.
    """
    seen = sight(image, reference.pixels, reference.usable)
    if seen.support >= LEAST:
        turns = [seen.askew] if abs(seen.askew) > STRAIGHT else []
    elif image.upright:
        turns = []
    else:
        # as large as the largest copy that is looked at, and as poses need: copies are enlarged four times at most
        side = max(CELL * CONFIRMING * LARGER**0.5, CELL / 2 * math.prod(image.image.shape[2:]) ** 0.5)
        factor = min(1.0, side / math.prod(reference.pixels.shape[2:]) ** 0.5)
        small = ReferencePicture(resized(reference.pixels, factor))
        turns = [d for d in SLANTS if seems_shown(image, slanted(small, d).pixels)]
    for degrees in turns:
        turned = slanted(reference, degrees)
        again = sight(image, turned.pixels, turned.usable)
        if again.support >= max(LEAST, seen.support):
            return turned, again
    return reference, seen


@torch.no_grad()
def fit(image: Tensor, reference: ReferencePicture, seen: Sighting) -> ReferencePicture:
    """The reference in the orientation of the image, as large as the enlarged image shows things, and in its light.

    What is resized is also cut to the part that was matched. A reference that is finer than the result is made smaller
    with antialiasing. Where no pose is found the reference comes back as it is, or smaller where it is very large.

    Args:
        image, reference: as for `fitted`.
        seen: the pose that was found.
    """
    picture, usable = reference.pixels, reference.usable
    if stepped(picture):  # what its steps add is not the scene's
        usable = picture.new_zeros(1, 1, picture.shape[2] // CELL, picture.shape[3] // CELL)
    pose, octave = seen.pose, seen.pose.octave
    if seen.support < LEAST or (pose.upright and octave > NOTHING):
        return _bounded(image, replace(reference, usable=usable))
    whole = (picture.shape[2], picture.shape[3])
    relit = light(seen, whole)
    if SHRUNK < octave < ENLARGED:
        if pose.upright:
            return replace(reference, pixels=picture if relit is None else relit.on(picture), usable=usable)
        sides, part = whole, (0, 0, whole[1], whole[0])
    else:
        # The cut lies on the cells of the whole picture at its new size: a reference that was enlarged before comes
        # out as it would have come out itself.
        sides = scaled_sides(whole, 2 ** (octave + FINER))
        part = _part(seen, whole, sides)
        picture = resized_part(picture, sides, part)
    left, top, right, bottom = part
    if usable is not None:
        usable = mask_of(usable, sides)[..., top // CELL : bottom // CELL, left // CELL : right // CELL]
        usable = pose.turned(usable)
    if relit is not None:
        picture = relit.on(picture, part, sides)
    picture = pose.turned(picture).contiguous()
    cut = Placement.of_turn(pose, (bottom - top, right - left)).moved(left, top)
    resizing = Placement().after_resizing(sides[1] / whole[1], sides[0] / whole[0])
    placement = reference.placement.after(resizing.after(cut))
    return replace(reference, pixels=picture, usable=usable, placement=placement)


def expected_sides(image: Sequence[int], picture: Sequence[int]) -> tuple[int, int]:
    """Height and width, about, that a reference will be matched at, beside an LR image; both of these sizes.

    One that is smaller than the result is enlarged where it shows the same, and left as it is where it shows a part,
    which its size does not tell: what lies between. One that is larger is reduced to `MOST` areas of the result.
    """
    result, own = CELL**2 * math.prod(image), math.prod(picture)
    enlarged = max(own, min(result, own * 4**NOTHING))
    factor = (min((enlarged * own) ** 0.5, MOST * result) / own) ** 0.5
    return round(picture[0] * factor), round(picture[1] * factor)


def _bounded(image: Tensor, reference: ReferencePicture) -> ReferencePicture:
    """The reference as it is, but of at most `MOST` areas of the result."""
    picture, usable = reference.pixels, reference.usable
    height, width = picture.shape[2:]
    area = height * width / (CELL**2 * image.shape[2] * image.shape[3])
    if area <= MOST:
        return reference
    picture = resized(picture, (MOST / area) ** 0.5)
    usable = None if usable is None else mask_of(usable, picture.shape[2:])
    placement = reference.placement.after_resizing(picture.shape[3] / width, picture.shape[2] / height)
    return replace(reference, pixels=picture, usable=usable, placement=placement)


def _part(seen: Sighting, whole: tuple[int, int], sides: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom, multiples of 4, of the part in which the trusted matches lie, in the reference,
    unturned, resized from `whole` to `sides` (height, width)."""
    height, width = sides
    place = trusted_places(seen, whole)  # [2,n]
    if place.shape[1] < 16:
        return 0, 0, width, height
    factor = place.new_tensor((width / whole[1], height / whole[0]))
    low, high = (torch.quantile(place, q, dim=1) * factor for q in (0.02, 0.98))
    more = MARGIN * (high - low) + BESIDE
    left, top = (max(0, int(v) // CELL * CELL) for v in (low - more).tolist())
    right, bottom = (
        min(n, -(-int(v) // CELL) * CELL) for v, n in zip((high + more).tolist(), (width, height), strict=True)
    )
    return left, top, right, bottom

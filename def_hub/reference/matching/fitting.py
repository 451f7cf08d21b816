"""How large, and which part of it, a reference must be seen to show what the image does as large as the image does.

Matching compares windows of one size in both pictures, and features know one scale. A reference that shows the place
half as large, which is common, would find nothing: on one development pair (022 of MultiView) it went from no gain to
0.6 dB.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from def_hub.reference.features import in_own_precision
from def_hub.reference.matching.correspondence import CELL, Correspondence, Views
from def_hub.reference.matching.pyramid import find
from def_hub.reference.picture import ReferencePicture

CELLS = 32
"""Side, in cells, of the square that has as many cells as the image is seen with while sizes are compared."""
OCTAVES = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
"""Logarithms of the factors that are tried; a parabola gives what lies between."""
LARGEST = 2**21
"""Pixels of a copy at most, but for those of octave zero and below: beside a tiny image, copies of a large reference
would cost far more than everything else."""
STEP = 4
"""Pixels between what is compared then, see `matching.align`."""
SERVED = 0.3
"""Confidence from which a cell counts as served."""
BETTER, LEAST = 1.08, 0.22
"""A factor other than one must have so much more confidence, and so much at all: unrelated pictures reach 0.18."""
NOTHING = 1.25
"""Logarithm from which a reference has no detail that the image lacks, as the image itself has at 2: left as it is."""
SHRUNK, ENLARGED = -0.4, 0.1
"""Logarithms between which a reference stays as it is: pixels that are made smaller are lost."""
MARGIN = 0.15
"""Of the part that is matched, how much more on either side is kept."""


@torch.no_grad()
def fitted(image: Tensor, reference: ReferencePicture, extractor: nn.Module) -> ReferencePicture:
    """The reference, resized so that it shows things as large as the enlarged image does.

    Small copies of both are matched, the reference's at several sizes; the size with the most confidence wins. What is
    enlarged is also cut to the part that was matched. Where no other size is clearly better, the reference comes back
    as it is.

    Args:
        image: LR image `[1, 3, h, w]`. reference: as the caller gave it. extractor: of the network that will match
            them.
    """
    picture, usable = reference.pixels, reference.usable
    extract = in_own_precision(extractor)
    shrunk, sides = _shrunk(image.shape[2:]), sides_tried(image.shape[2:], picture.shape[2:])
    query = resized(image, CELL * shrunk)
    found: list[Correspondence] = []
    key = picture
    for copy in reversed(sides):  # from large to small: each is made from the last
        key = _to(key, copy)
        mask = None if usable is None else _mask_of(usable, key)
        with torch.autocast(key.device.type, enabled=False):  # a place needs more digits than half precision has
            found.insert(0, find(Views(query, query), [Views(key, key, usable=mask)], extract, "bicubic", step=STEP))
    confidence = [float(f.confidence.mean()) for f in found]
    best = max(range(len(found)), key=confidence.__getitem__)
    unchanged = OCTAVES.index(0.0)
    if confidence[best] < max(LEAST, BETTER * confidence[unchanged]):
        best = unchanged
    octave = OCTAVES[best] + _peak(confidence, best) * (OCTAVES[1] - OCTAVES[0])
    if confidence[best] < LEAST or SHRUNK < octave < ENLARGED or octave > NOTHING:
        return reference

    height, width = picture.shape[2:]
    left, top, right, bottom = 0, 0, width, height
    if octave > 0:
        left, top, right, bottom = _part(found[best], shrunk * 2 ** OCTAVES[best], height, width)
        picture = picture[..., top:bottom, left:right]
        cells = (slice(top // CELL, bottom // CELL), slice(left // CELL, right // CELL))
        usable = None if usable is None else usable[..., cells[0], cells[1]]
    picture = resized(picture, 2**octave)
    usable = None if usable is None else _mask_of(usable, picture)
    scale_x, scale_y = picture.shape[3] / (right - left), picture.shape[2] / (bottom - top)
    return replace(reference, pixels=picture, usable=usable, scale=(scale_x, scale_y), corner=(left, top))


def sides_tried(image: Sequence[int], picture: Sequence[int]) -> list[list[int]]:
    """Height and width of the copies of a reference that are compared with an LR image, both of these sizes, in order
    of `OCTAVES`, the last of which may be missing: the smaller the image beside the reference, the larger they are."""
    sides = {octave: _sides(picture, _shrunk(image) * 2**octave) for octave in OCTAVES}
    return [copy for octave, copy in sides.items() if octave <= 0 or math.prod(copy) <= LARGEST]


def expected_sides(image: Sequence[int], picture: Sequence[int]) -> tuple[int, int]:
    """Height and width, about, that a reference will be matched at, beside an LR image; both of these sizes.

    One that is smaller than the result is enlarged where it shows the same, and left as it is where it shows a part,
    which its size does not tell: what lies between.
    """
    result, own = CELL**2 * math.prod(image), math.prod(picture)
    enlarged = max(own, min(result, own * 4**NOTHING))
    factor = (enlarged / own) ** 0.25
    return round(picture[0] * factor), round(picture[1] * factor)


def _shrunk(image: Sequence[int]) -> float:
    """How large an LR image of that size is seen while sizes are compared."""
    return min(1.0, CELLS / (image[0] * image[1]) ** 0.5)


def _part(found: Correspondence, scale: float, height: int, width: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom, multiples of 4, of what the trusted matches lie in, in a reference of that size of
    which they saw a copy `scale` times as large."""
    trusted = found.confidence[0, 0] >= SERVED
    place = found.position[0][:, trusted] / scale  # [2,n]
    if place.shape[1] < 16:
        return 0, 0, width, height
    low, high = (torch.quantile(place, q, dim=1) for q in (0.02, 0.98))
    more = MARGIN * (high - low) + 8 * CELL
    left, top = (max(0, int(v) // CELL * CELL) for v in (low - more).tolist())
    right, bottom = (
        min(n, -(-int(v) // CELL) * CELL) for v, n in zip((high + more).tolist(), (width, height), strict=True)
    )
    return left, top, right, bottom


def _peak(values: Sequence[float], best: int) -> float:
    """Where, in steps from `best`, a parabola through the largest of the values and its neighbours has its top."""
    if not 0 < best < len(values) - 1:
        return 0.0
    before, top, after = values[best - 1 : best + 2]
    curvature = before + after - 2 * top
    return 0.5 * (before - after) / curvature if curvature < 0 else 0.0


def resized(picture: Tensor, scale: float) -> Tensor:
    """`[1, 3, H, W]` → about `scale` times as large, sides whole cells, two at least."""
    return _to(picture, _sides(picture.shape[2:], scale))


def _sides(picture: Sequence[int], scale: float) -> list[int]:
    return [max(2, round(n * scale / CELL)) * CELL for n in picture]


def _mask_of(usable: Tensor, picture: Tensor) -> Tensor:
    """The mask for a picture of another size: a cell that may not be used wholly may not be used."""
    return (F.interpolate(usable, [n // CELL for n in picture.shape[2:]], mode="area") == 1).float()


def _to(picture: Tensor, sides: list[int]) -> Tensor:
    if list(picture.shape[2:]) == sides:
        return picture
    return F.interpolate(picture, sides, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)

"""What a reference can add: detail beyond what its own shrunk version already tells.

Agreement with the image says nothing about this. An enlarged copy of the image agrees perfectly and adds nothing; a
print agrees, too, and adds its dots. So a reference is shrunk to the resolution of the image and restored by the
network alone, and its detail is compared with what the network expected there:

- Detail that is weak beside what is a little coarser (an enlarged copy, a soft picture), or that the restored version
  already has (an earlier result), adds nothing.
- Detail that has nothing in common with what was expected (dots, a dither, a pixel grid, the steps of an enlargement by
  repeated pixels, heavy noise) does not belong to the scene. True detail is partly foreseeable: edges go on.

That a picture was over-sharpened can only be seen beside the image, where both show the same (`believed_beside`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub.observation.downsample import Downsample
from def_hub.reference.matching.correspondence import CELL, Correspondence, Views, mean_around
from def_hub.reference.matching.refinement import luma

ADDED = (0.35, 0.60)
"""Unforeseen detail, in amounts (root mean square) of the expected, from which a reference begins to count, and counts
in full. Sharp photographs have 0.8 … 1.4, our own results 0.2 … 0.4."""
FINE = (0.38, 0.50)
"""Detail, in amounts of the contrast between neighbouring pixels of the shrunk picture, likewise. Sharp photographs
have 0.8 … 1.5, after an enlargement by 2 0.5 … 0.8, by 2.5 0.45 and by 3 0.4, soft ones (σ = 2) 0.2, enlarged copies
0.1 … 0.37."""
STRONGEST = (4.0, 5.0)
"""Unforeseen detail, in amounts of the expected, from which it begins to be too strong to be the scene's, and counts
for nothing. Over-sharpened photographs have 2, with noise of σ = 25 levels 3, dots, dithers and grids 4 … 20."""
FORESEEN = (0.18, 0.28)
"""Correlation of detail with the expected, from which it begins to count, and counts in full: photographs have
0.5 … 0.8, with noise of σ = 25 levels 0.3, dots and grids 0.1."""
STEPS = 0.35
"""Slope across a column, or a row, of a picture, in shares of the largest near it: where four in ten are below this, it
has steps. Photographs have 0.6."""
OVERDONE = (1.25, 1.45)
"""Finest contrast of a reference that was shrunk to the image's resolution, in amounts of the image's where both show
the same, from which the reference is less believed, and not at all. Of the first references of `MultiView` 0.6 … 1.1
(one has 1.4, and gives nothing), JPEGs, grey and contrasty ones, too; of `WR-SR` 0.7 … 1.25; at most 1.15 beside images
that lost more than shrinking takes, but 1.3 … 1.6 where a blur was measured and not wholly undone; and 1.3 … 2.6 after
`ImageFilter.UnsharpMask(2, 250)`. A perfect match has 1.3 after 50 %, 1.5 … 1.7 after 100 %. The reference of
`examples/banana_lr.png`, with 1.35, gives 0.16 dB half believed, and -0.01 wholly (29 November 2026)."""
FEWEST = 64
"""Cells' worth of confidence that are needed to tell."""
LOOKED_AT = 1024
"""Side, in pixels, of the middle of a picture in which steps are looked for."""
BORDER = 2 * CELL
"""Pixels at the border of a picture in which the operator has no surroundings."""


@torch.no_grad()
def detail_worth(sharp: Tensor, restored: Tensor, operator: Downsample) -> float:
    """How far the detail of a reference is to be believed, 0 … 1.

    Args:
        sharp: the reference `[1, 3, H, W]`, sides multiples of 4. restored: what the network makes of it after
            `operator` has shrunk it, of the same size.
    """
    detail, expected = _detail(sharp, operator), _detail(restored, operator)
    power, foreseen = float(expected.square().mean()), float((detail * expected).mean())
    strength, contrast = float(detail.square().mean()), float(_contrast(operator.forward(luma(sharp)[:, None])))
    if min(power, strength, contrast) <= 0:
        return 0.0
    added = max(strength - foreseen**2 / power, 0.0) ** 0.5 / power**0.5
    correlation = foreseen / (strength * power) ** 0.5
    fine = _ramp((strength / contrast) ** 0.5, FINE)
    return fine * _ramp(added, ADDED) * (1 - _ramp(added, STRONGEST)) * _ramp(correlation, FORESEEN)


@torch.no_grad()
def believed(views: Views, operator: Downsample) -> Views:
    """A reference after it was degraded and restored, whose matches count as far as it adds detail."""
    assert views.sharp is not None
    pairs = zip(views.sharp.split(1), views.enhanced.split(1), strict=True)
    worth = [detail_worth(sharp, restored, operator) for sharp, restored in pairs]
    if min(worth) == 1.0:
        return views
    return views.counting(views.sharp.new_tensor(worth))


@torch.no_grad()
def believed_beside(query: Views, keys: Sequence[Views], found: Correspondence) -> list[Tensor]:
    """How far the detail of each reference is to be believed beside the image, 0 … 1: for each of `keys` `[B]`.

    Cameras and programs sharpen by adding to a picture what is fine in it. Some of it survives shrinking, and where the
    image shows the same place, it shows how much there should be. What light and contrast differ by is divided out: it
    changes what is a little coarser, too.

    Args:
        query, keys: the image and its references as they were matched. found: their matches.
    """
    ours = _bands(query.bicubic)
    x, y = (found.position / CELL).floor().long().unbind(1)
    shares = []
    for number, key in enumerate(keys):
        theirs = _bands(key.bicubic)
        rows, columns = theirs.shape[2:]
        cell = (y.clamp(0, rows - 1) * columns + x.clamp(0, columns - 1)).flatten(1)[:, None]
        there = theirs.flatten(2).gather(2, cell.expand(-1, 2, -1))  # [B,2,h·w]
        weight = (found.confidence[:, 0] * (found.reference == number)).flatten(1)[:, None]
        fine, coarse = ((weight * there).sum(2) / (weight * ours.flatten(2)).sum(2).clamp_min(1e-9)).unbind(1)
        low, high = OVERDONE
        share = ((high - fine / coarse.clamp_min(1e-9)) / (high - low)).clamp(0, 1)
        shares.append(torch.where(weight.sum((1, 2)) < FEWEST, torch.ones_like(share), share))
    return shares


def _bands(picture: Tensor) -> Tensor:
    """`[B, 2, h, w]` of `[B, 3, H, W]`: squares of what is fine in the luma of the picture, shrunk to a pixel per cell,
    and of what is coarser."""
    small = F.avg_pool2d(luma(picture)[:, None], CELL)
    near, far = (mean_around(small, side) for side in (3, 9))
    return torch.cat((small - near, near - far), dim=1).square()


def stepped(picture: Tensor) -> bool:
    """Whether a picture `[1, 3, H, W]` consists of repeated pixels, as one that was enlarged by the nearest neighbour,
    or lies under a pixel grid: its slopes are the same few columns', and rows', throughout."""
    top, left = (max(0, n - LOOKED_AT) // 2 for n in picture.shape[2:])
    plane = luma(picture[..., top : top + LOOKED_AT, left : left + LOOKED_AT])[0]
    return all(_combed(plane.diff(dim=axis).abs().mean(1 - axis)) for axis in (0, 1))


def _combed(slopes: Tensor) -> bool:
    """Whether most of the slopes `[n]` across the columns of a picture are small beside those next to them."""
    if len(slopes) < 16:
        return False
    largest = F.max_pool1d(slopes[None, None], 9, stride=1, padding=4)[0, 0]
    drawn = largest > 1e-4  # a black border has no slopes at all
    return int(drawn.sum()) >= 16 and float((slopes / largest)[drawn].quantile(0.4)) < STEPS


def _detail(picture: Tensor, operator: Downsample) -> Tensor:
    """What shrinking takes from the luma of a picture, `[1, 1, H', W']`: without a border where it is large enough."""
    plane = luma(picture)[:, None]
    rest = plane - operator.pinv(operator.forward(plane))
    if min(rest.shape[2:]) <= 4 * BORDER:
        return rest
    return rest[..., BORDER:-BORDER, BORDER:-BORDER]


def _contrast(small: Tensor) -> Tensor:
    """Mean square difference between the pixels of a plane `[1, 1, h, w]` and their surroundings."""
    return (small - mean_around(small, 3)).square().mean()


def _ramp(value: float, limits: tuple[float, float]) -> float:
    low, high = limits
    return min(max((value - low) / (high - low), 0.0), 1.0)

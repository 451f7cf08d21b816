"""What a reference can add: detail beyond what its own shrunk version already tells.

Agreement with the image says nothing about this. An enlarged copy of the image agrees perfectly and adds nothing; a
print agrees, too, and adds its dots. So a reference is shrunk to the resolution of the image and restored by the
network alone, and its detail is compared with what the network expected there:

- Detail that the restored version already has (an enlarged picture, a soft one, an earlier result) adds nothing.
- Detail that has nothing in common with what was expected (dots, a dither, a pixel grid, the steps of an enlargement by
  repeated pixels, heavy noise) does not belong to the scene. True detail is partly foreseeable: edges go on.
"""

from __future__ import annotations

import torch
from torch import Tensor

from def_hub.observation.downsample import Downsample
from def_hub.reference.matching.correspondence import CELL
from def_hub.reference.matching.refinement import luma

ADDED = (0.35, 0.60)
"""Unforeseen detail, in amounts (root mean square) of the expected, from which a reference begins to count, and counts
in full. Sharp photographs have 0.8 … 1.4, soft ones (σ = 2 pixels) 0.3, our own results 0.2, enlarged copies 0.1 …
0.3."""
FORESEEN = (0.15, 0.25)
"""Correlation of detail with the expected, likewise: photographs have 0.5 … 0.8, with noise of σ = 25 levels 0.3, dots
and grids 0.1."""
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
    strength = float(detail.square().mean())
    if min(power, strength) <= 0:
        return 0.0
    added = max(strength - foreseen**2 / power, 0.0) ** 0.5 / power**0.5
    correlation = foreseen / (strength * power) ** 0.5
    return _ramp(added, ADDED) * _ramp(correlation, FORESEEN)


def _detail(picture: Tensor, operator: Downsample) -> Tensor:
    """What shrinking takes from the luma of a picture, `[1, 1, H', W']`: without its border where it is large enough."""
    plane = luma(picture)[:, None]
    rest = plane - operator.pinv(operator.forward(plane))
    if min(rest.shape[2:]) <= 4 * BORDER:
        return rest
    return rest[..., BORDER:-BORDER, BORDER:-BORDER]


def _ramp(value: float, limits: tuple[float, float]) -> float:
    low, high = limits
    return min(max((value - low) / (high - low), 0.0), 1.0)

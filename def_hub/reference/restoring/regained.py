"""What the references show of what the image lost, where it lost more than shrinking takes.

The network adds to an image the detail that shrinking takes from every picture. Noise, JPEG, a blur or another filter
took more, also of what is coarser, and what the network says of that is a guess, too. References show it. How far they
are better than the guess can be measured, for they were degraded and restored like the image:

- Their restored versions are wrong by what the references themselves show: so, in the same places, is the image's.
- Where image and reference show the same, their restored versions agree. Where these differ, the reference shows
  something else, or the match is wrong, and its own pixels are wrong by as much.

The result is the mean of both, weighted by the inverse of these errors (Wiener).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub.reference.matching import CELL, Correspondence
from def_hub.reference.restoring.transfer import spread

SIDE = 17
"""Pixels along a side of the window in which errors are measured. 9 is a little worse, 13 to 21 are alike."""
DOUBT = 2.0
"""Error of a reference's own pixels, in amounts of the difference of the restored versions, which hides the finest of
it. Between 1 (best for a strong blur) and 3 little changes."""
FULL = 0.25
"""Confidence of a match from which the measured errors alone decide."""


def regained(
    x: Tensor, transferred: Tensor, alike: Tensor, estimate: Tensor, matches: Correspondence, strength: float
) -> Tensor:
    """The result with what the references show beyond it, `[1, 3, H, W]`. All pictures are of that size.

    Args:
        x: the result of the network.
        transferred: the references' pixels where they match, see `overlapped`.
        alike: the same of the references as they were degraded and restored like the image.
        estimate: the image, restored without references.
        matches: where the references were found.
        strength: the setting `reference_strength`.
    """
    guess, match = (_error(a, alike) for a in (transferred, estimate))
    share = strength * guess / (guess + DOUBT * match + 1e-7)
    trusted = F.interpolate((matches.confidence / FULL).clamp(max=1), scale_factor=CELL, mode="bilinear")
    return torch.lerp(x, transferred, share * trusted * spread((matches.confidence > 0).float(), 1))


def _error(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference around each pixel, `[1, 1, H, W]`."""
    square = (a - b).square().mean(1, keepdim=True)
    return F.avg_pool2d(square, SIDE, stride=1, padding=SIDE // 2, count_include_pad=False)

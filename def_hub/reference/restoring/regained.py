"""What the references show of what the image lost, where it lost more than shrinking takes.

The network adds to an image the detail that shrinking takes from every picture. Noise, JPEG, a blur or another filter
took more, also of what is coarser, and what the network says of that is a guess, too. References show it. How far they
are better than the guess can be measured, for they were degraded and restored like the image:

- Their restored versions are wrong by what the references themselves show: so, in the same places, is the image's.
- Where image and reference show the same, their restored versions agree. Where these differ, the reference shows
  something else, or the match is wrong, and its own pixels are wrong by as much.

The result is the mean of both, weighted by the inverse of these errors (Wiener), where matches keep each other company;
elsewhere, what the network itself took from the references is given up, too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub.reference.matching import CELL, Correspondence, mean_around
from def_hub.reference.restoring.transfer import spread

SIDE = 17
"""Pixels along a side of the window in which errors are measured. 9 is a little worse, 13 to 21 are alike."""
DOUBT = 1.5
"""Error of a reference's own pixels, in amounts of the difference of the restored versions, which hides the finest of
it. 1 is best for a strong blur and 2 for a weak JPEG; unrelated references cost more the lower it is."""
COMPANY = 9
"""Cells along a side of the window in which confidence is averaged. Of unrelated references single cells are matched,
of related ones whole regions."""
TRUSTED = (0.25, 0.5)
"""Mean confidence from which references count, and count fully. (All numbers: nine groups of MultiView, with true and
with unrelated references, 29 November 2026.)"""


def regained(
    x: Tensor,
    alone: Tensor,
    transferred: Tensor,
    restored: tuple[Tensor, Tensor],
    matches: Correspondence,
    strength: float,
) -> Tensor:
    """The result with what the references show beyond it, `[1, 3, H, W]`. All pictures are of that size.

    Args:
        x, alone: the network's results with and without references.
        transferred: the references' pixels where they match, see `overlapped`.
        restored: the degraded image, restored without references, and the degraded references, restored in the same
            way and transferred.
        matches: where the references were found.
        strength: the setting `reference_strength`, which is part of the confidence, too.
    """
    confidence = matches.confidence / max(strength, 1e-6)
    low, high = TRUSTED
    trusted = _smooth(((mean_around(confidence, COMPANY) - low) / (high - low)).clamp(0, 1))
    estimate, alike = restored
    guess, match = _error(transferred, alike), _error(estimate, alike)
    share = strength * guess / (guess + DOUBT * match + 1e-7) * spread((confidence > 0).float(), 1)
    return torch.lerp(alone, torch.lerp(x, transferred, share), trusted)


def _smooth(cells: Tensor) -> Tensor:
    """`[1, 1, h, w]` → `[1, 1, H, W]`."""
    return F.interpolate(cells, scale_factor=CELL, mode="bilinear")


def _error(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference around each pixel, `[1, 1, H, W]`."""
    return mean_around((a - b).square().mean(1, keepdim=True), SIDE)

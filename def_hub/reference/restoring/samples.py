"""What the pixels of a picture that was shrunk by "nearest" say: they are pixels of the scene itself, not means.

The other filters leave means, which hide the detail that a reference shows. A sample hides nothing: it says by how much
a result is wrong there, and by how much the references are. Every function here knows which pixels of the large picture
were taken from `Downsample("nearest")`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub.observation.downsample import Downsample
from def_hub.reference.matching import CELL, Correspondence, mean_around
from def_hub.reference.restoring.transfer import spread

ALIKE = (1.0, 0.7, 0.37, 0.2)
"""Correlation of a result's errors 0 … 3 pixels apart, measured on every third group of MultiView (29 November 2026).
The next sample is 4 pixels away."""
FITTED = 8.0
"""How much smaller the mean squared error of a network's result is at the samples, which it was given, than anywhere
else. References were not fitted to them: their error is the same everywhere. Anything from 4 to 15 does as well."""
AROUND = 3
"""Cells along a side of the window in which errors at samples are averaged."""
SAMPLING = Downsample("nearest")


def through_samples(x: Tensor, y: Tensor) -> Tensor:
    """A result `[B, C, H, W]` that shows the samples `y` `[B, C, H/4, W/4]` themselves.

    What is wrong at a sample is taken off the pixels around it, too, less the further they are, as errors of neighbours
    are alike (kriging). `Downsample.project` would change the samples alone.
    """
    return x + _interpolated(y - SAMPLING.forward(x))


def confirmed(
    x: Tensor, transferred: Tensor | None, y: Tensor, matches: Correspondence | None, strength: float
) -> Tensor:
    """A result through its samples, in which the references' own pixels count as far as the samples confirm them.

    Result and references are both brought through the samples, and blended by the inverse of the errors that were found
    at the samples around each cell. In matched cells only: elsewhere, what the samples confirm they confirm by chance.

    Args:
        x: the result, `[1, 3, H, W]`.
        transferred: the references' pixels where they match, see `overlapped`, `[1, 3, H, W]`.
        y: the samples, `[1, 3, H/4, W/4]`.
        matches: None, like `transferred`, without references.
        strength: the setting `reference_strength`.
    """
    result = through_samples(x, y)
    if transferred is None or matches is None:
        return result
    own, theirs = (
        mean_around((y - SAMPLING.forward(z)).square().mean(1, keepdim=True), AROUND) for z in (x, transferred)
    )
    matched = (matches.confidence > 0).float()  # [1,1,h,w]
    share = strength * FITTED * own / (FITTED * own + theirs + 1e-9) * mean_around(matched, AROUND)
    share = F.interpolate(share, scale_factor=CELL, mode="bilinear") * spread(matched, 1)
    return torch.lerp(result, through_samples(transferred, y), share)


def _interpolated(samples: Tensor) -> Tensor:
    """`[B, C, h, w]` → `[B, C, H, W]`: the samples where they belong, and what they make likely around them."""
    placed = SAMPLING.pinv(samples)
    profile = placed.new_tensor((*ALIKE[:0:-1], *ALIKE))
    planes = placed.flatten(0, 1)[:, None]
    across = F.conv2d(planes, profile.view(1, 1, 1, -1), padding=(0, len(ALIKE) - 1))
    return F.conv2d(across, profile.view(1, 1, -1, 1), padding=(len(ALIKE) - 1, 0)).view_as(placed)

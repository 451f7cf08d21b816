"""In what light a reference shows the place, and how to bring it into the light of the image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub.reference.matching.correspondence import CELL
from def_hub.reference.matching.pose import Sighting

FEWEST = 64
"""Trusted matches that are needed to tell."""
ALIKE = 0.8
"""Correlation of the colours of matched cells from which a difference is one of light."""
SLIGHT = 0.05
"""Mean difference, in [0, 1], that is left as it is."""
GAINS = (0.4, 2.5)
"""What a channel may be multiplied by."""


@dataclass(frozen=True)
class Light:
    """gain, offset: `[3]`, by which the channels of the reference become those of the image."""

    gain: Tensor
    offset: Tensor

    def on(self, picture: Tensor) -> Tensor:
        """The reference `[1, 3, H, W]` in the light of the image, in [0, 1]."""
        return (picture * self.gain.view(1, 3, 1, 1) + self.offset.view(1, 3, 1, 1)).clamp(0, 1)


def light(seen: Sighting) -> Light | None:
    """What the matched cells say; None where they are too few, or say that there is no difference worth a change.

    Mean and deviation of each channel over the matched cells become those of the image: exposure, white balance, haze
    and contrast are, nearly, a gain and an offset. Regression would take errors of matching for a lack of contrast.
    """
    trusted = seen.trusted
    if int(trusted.sum()) < FEWEST:
        return None
    ours = F.avg_pool2d(seen.query, CELL)[0][:, trusted]  # [3,n]
    theirs = _at(F.avg_pool2d(seen.key, CELL, stride=1), seen.matches.position - (CELL - 1) / 2)[0][:, trusted]
    (mean, deviation), (their_mean, their_deviation) = ((t.mean(1), t.std(1)) for t in (ours, theirs))
    alike = ((ours - mean[:, None]) * (theirs - their_mean[:, None])).mean(1) / (deviation * their_deviation)
    if not bool((alike > ALIKE).all()) or float((ours - theirs).abs().mean()) < SLIGHT:
        return None
    gain = (deviation / their_deviation).clamp(*GAINS)
    return Light(gain, mean - gain * their_mean)


def _at(picture: Tensor, place: Tensor) -> Tensor:
    """Values `[1, C, h, w]` of a picture at `[1, 2, h, w]` (x, y)."""
    height, width = picture.shape[2:]
    x, y = place.unbind(1)
    grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)
    return F.grid_sample(picture, grid, padding_mode="border", align_corners=False)

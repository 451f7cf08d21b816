"""The image that references are looked for, cleaned up: thumbnails are small, and mostly JPEGs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from def_hub.images import ImageLike, to_tensor
from def_hub.observation.downsample import Downsample
from def_hub.observation.jpeg import jpeg_of
from def_hub.observation.observed import observed
from def_hub.precision import float32_by_default
from def_hub.reference.matching.pose import resized
from def_hub.reference.network import ReferenceNetwork

ENOUGH = 192
"""Side, in pixels, of the square that has as many pixels as an image which is compared as it is. A smaller one is first
enlarged by the network: photos of a library are compared at about this size."""


@dataclass(frozen=True)
class Cleaned:
    """small: the LR image, without what degraded it, as far as that is known. large: the image to be embedded, which is
    the network's estimate where the LR image is small. Both `[1, 3, …, …]` in [0, 1]."""

    small: Tensor
    large: Tensor


@torch.no_grad()
@float32_by_default()
def cleaned(image: ImageLike, network: ReferenceNetwork, degradation: str = "auto") -> Cleaned:
    """The query for an image.

    What degraded it is measured (or told by `degradation`, see `observed`). An image that was enlarged before is shrunk
    to what it shows. A degraded one is replaced by what the network makes of it, agreeing with the file.

    Raises ValueError, TypeError, FileNotFoundError as `images.to_tensor`.
    """
    y = to_tensor(image).to(network.device)
    file = None if degradation == "clean" or isinstance(image, Tensor | np.ndarray) else jpeg_of(image)
    operator = Downsample(network.config.operator)
    known = observed(y, degradation, operator, file)
    if known.assessment.shrinkable > 1:
        y = resized(y, 1 / known.assessment.shrinkable)
        known = observed(y, "auto", operator)
    large = (y.shape[2] * y.shape[3]) ** 0.5 >= ENOUGH
    if large and known.clean:
        return Cleaned(y, y)
    if large:  # what degraded it disappears where it is shrunk to be compared
        y = resized(y, ENOUGH / (y.shape[2] * y.shape[3]) ** 0.5)
        known = observed(y, "auto", operator)
    told = known.seen_by(y, network.config.known)
    estimate = network.estimate(told, operator.pinv(y)).once.clamp(0, 1)
    estimate, _ = known.finish(estimate, operator)
    return Cleaned(y if known.clean else operator.forward(estimate).clamp(0, 1), estimate)

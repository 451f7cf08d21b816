"""Clean up the image before the search: a thumbnail is small, and mostly a JPEG."""

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
"""Side, in pixels, of a square. An image with fewer pixels than this square is enlarged by the network before it is
compared, because photos of a library are compared at about this size."""


@dataclass(frozen=True)
class Cleaned:
    """The image for the search. Both pictures are `[1, 3, …, …]` in [0, 1].

    small: the LR image, with its known degradation removed. large: what is embedded. It is the network's estimate if
    the LR image is small or degraded, and the LR image itself otherwise.
    """

    small: Tensor
    large: Tensor


@torch.no_grad()
@float32_by_default()
def cleaned(image: ImageLike, network: ReferenceNetwork, degradation: str = "auto") -> Cleaned:
    """An image, cleaned up for the search.

    Its degradation is measured, unless `degradation` names it (see `observed`). An image that was enlarged before is
    shrunk again. A degraded image is replaced by the network's estimate, which agrees with the file.

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
    if large:  # shrinking it to the size at which it is compared removes most of the degradation
        y = resized(y, ENOUGH / (y.shape[2] * y.shape[3]) ** 0.5)
        known = observed(y, "auto", operator)
    told = known.seen_by(y, network.config.known)
    estimate = network.estimate(told, operator.pinv(y)).once.clamp(0, 1)
    estimate, _ = known.finish(estimate, operator)
    return Cleaned(y if known.clean else operator.forward(estimate).clamp(0, 1), estimate)

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

ENOUGH = 96
"""Side, in pixels, of a square. A clean image with fewer pixels than this square is enlarged by the network before it
is compared. Photos of a library are compared at about twice this size. At 112 pixels the image itself found as many
photos as its estimate, which takes as long as all the rest of the search (27 groups of MultiView, 28 November 2026)."""
MOST = 192
"""The same, to which a degraded image is shrunk: this removes most of the degradation."""


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
    shrunk again. A large degraded image is shrunk, too. An image that is still degraded, or small, is replaced by the
    network's estimate, which agrees with the file.

    Raises ValueError, TypeError, FileNotFoundError as `images.to_tensor`.
    """
    y = to_tensor(image).to(network.device)
    file = None if degradation == "clean" or isinstance(image, Tensor | np.ndarray) else jpeg_of(image)
    operator = Downsample(network.config.operator)
    known = observed(y, degradation, operator, file)
    if known.assessment.shrinkable > 1:
        y = resized(y, 1 / known.assessment.shrinkable)
        known = observed(y, "auto", operator)
    side = (y.shape[2] * y.shape[3]) ** 0.5
    if side > MOST and not known.clean:
        y = resized(y, MOST / side)
        known = observed(y, "auto", operator)
    if side >= ENOUGH and known.clean:
        return Cleaned(y, y)
    told = known.seen_by(y, network.config.known)
    estimate = network.estimate(told, operator.pinv(y)).once.clamp(0, 1)
    estimate, _ = known.finish(estimate, operator)
    return Cleaned(y if known.clean else operator.forward(estimate).clamp(0, 1), estimate)

"""Estimating, matching and restoring in one call, as the pipeline does."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from def_hub import ReferenceNetwork
from def_hub.observation.downsample import Downsample
from def_hub.reference.matcher import Matcher
from def_hub.reference.matching import Correspondence, Views


@dataclass(frozen=True)
class Result:
    """sr: the result with references. without_reference: the result without."""

    sr: torch.Tensor
    without_reference: torch.Tensor
    matches: Correspondence | None = None


def restore(
    network: ReferenceNetwork,
    y: torch.Tensor,
    image: Views,
    references: Sequence[Views] = (),
    *,
    matching_image: str = "joint",
    refine: bool = True,
    strength: float = 1.0,
    turns: int = 1,
) -> Result:
    """The results of the network for an image and references, given as views."""
    estimate = network.estimate(y, image.enhanced, turns)
    if not references:
        return Result(estimate.mean, estimate.mean)
    operator, features = Downsample(network.config.operator), network.memory(y.device)
    seen = []
    for reference in references:
        small = operator.forward(reference.sharp).clamp(0, 1)
        seen.append(replace(reference, enhanced=network.estimate(small, reference.enhanced).matched))
    matcher = Matcher(features, matching_image, refine)  # type: ignore[arg-type]
    matches = matcher(Views(image.bicubic, estimate.matched), seen).trusted(strength)
    restored = network.restored(y, estimate, [s.sharp for s in seen], matches, features)
    return Result(restored.sr, estimate.mean, matches)

"""Which of many candidate references to use: each with the share of the image that it can serve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub.operators import Downsample
from def_hub.reference.matching import CELL, Views, align, match

CELLS = 64
"""Side, in cells, of the square that has as many cells as either picture is shrunk to."""
EVERY = 3


@dataclass(frozen=True)
class RankedReference:
    """index: of the candidate, as given. score: how much of the image it can serve, 0 … 1; chance gives up to about
    0.1."""

    index: int
    score: float


@torch.no_grad()
def rank_references(
    image: Tensor, candidates: Sequence[Tensor], extractor: Callable[[Tensor], Sequence[Tensor]]
) -> list[RankedReference]:
    """Order candidates by how much of `image` they can serve, best first.

    Image and candidates are shrunk to a few thousand cells, matched and aligned; the score is the mean square of the
    confidence: of matches that agree with the image and with their neighbours, wherever they lie. A picture that
    merely looks alike, in colour or in kind, scores low, and a part that is shown large scores by the part it serves.

    Args:
        image: LR image `[1,3,h,w]` in [0, 1]. candidates: each `[1,3,Hk,Wk]`, of any size from 8×8.
        extractor: as for `matching.match`.

    Raises:
        ValueError: for an image or a candidate of another shape, named by its number.
    """
    for name, picture in [("image", image), *((f"candidates[{i}]", c) for i, c in enumerate(candidates))]:
        if picture.ndim != 4 or picture.shape[:2] != (1, 3) or min(picture.shape[2:]) < 8:
            raise ValueError(f"{name}: expected [1,3,H,W], sides of 8 or more, got {list(picture.shape)}")
    query = _small(Downsample().upsample(image))
    scores = []
    for candidate in candidates:
        key = _small(candidate)
        found = match(Views(query, query), [Views(key, key)], extractor, "bicubic", every=EVERY)
        scores.append(float(align(found, query, [key]).confidence.square().mean()))
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    return [RankedReference(i, scores[i]) for i in order]


def _small(picture: Tensor) -> Tensor:
    """Shrunk to at most `CELLS`² cells, sides multiples of a cell."""
    height, width = picture.shape[2:]
    scale = min(1.0, CELLS * CELL / (height * width) ** 0.5)
    size = [max(2, round(n * scale / CELL)) * CELL for n in (height, width)]
    return F.interpolate(picture, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)

"""Which of many candidate references to use: each with the share of the image that it can serve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

from def_hub.images import ImageLike, to_tensor
from def_hub.precision import float32_by_default
from def_hub.reference.features import in_own_precision
from def_hub.reference.matching import CELL, Views, find
from def_hub.reference.matching.fitting import SERVED, resized
from def_hub.reference.network import ReferenceNetwork

CELLS = 64
"""Side, in cells, of the square that has as many cells as either picture is shrunk to."""
ENLARGED = 2.0
"""The image is seen twice as large as it is, as far as `CELLS` allow; and a candidate half as large, which is as if the
image showed as much."""
LIKELY, UNLIKELY = 0.20, 0.16
"""Scores from and below which a reference is called likely and unlikely to help; see `rank_references`."""


@dataclass(frozen=True)
class RankedReference:
    """index: of the candidate, as given. score: share of the image that it can serve, 0 … 1; chance gives about 0.13.

    verdict: "likely", "possible" or "unlikely" to help.
    """

    index: int
    score: float

    @property
    def verdict(self) -> str:
        return "likely" if self.score >= LIKELY else "possible" if self.score >= UNLIKELY else "unlikely"


@torch.no_grad()
@float32_by_default()
def rank_references(
    image: ImageLike, candidates: Sequence[ImageLike], extractor: nn.Module | None = None
) -> list[RankedReference]:
    """Order candidates by how much of `image` they can serve, best first.

    The candidates are shrunk so far that both pictures show about as much, then matched and aligned from coarse to
    fine; the score is the share of cells with a match to be trusted, one that agrees with the image and with its
    neighbours, wherever it lies. A picture that merely looks alike, in colour or in kind, scores low, and a part that
    is shown large scores by the part it serves. Candidates are opened one at a time.

    A score of `LIKELY` is reached by 78 % of true references and 6 % of unrelated pictures; 11 % and 73 % stay below
    `UNLIKELY` (45 and 162 of them, on 27 photographs of places seen several times, many with little in common;
    `examples/ranking.py`).

    Args:
        image: the LR image. candidates: of any size from 8×8. Paths, Pillow images, arrays or tensors, as for
            `def_hub.images.to_tensor`.
        extractor: as for `matching.match`, on its own device; the embedded model's by default.

    Raises:
        ValueError, TypeError, FileNotFoundError: for an image or a candidate that cannot be read, named by its number.
    """
    extractor = _embedded() if extractor is None else extractor
    extract, device = in_own_precision(extractor), next(extractor.parameters()).device
    scores = []
    query = _small(to_tensor(image).to(device), ENLARGED)
    for number, candidate in enumerate(candidates):
        key = _small(to_tensor(candidate, f"candidates[{number}]").to(device), ENLARGED / CELL)
        found = find(Views(query, query), [Views(key, key)], extract, "bicubic", step=4)
        scores.append(float((found.confidence >= SERVED).float().mean()))
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    return [RankedReference(i, scores[i]) for i in order]


@lru_cache(maxsize=1)
def _embedded() -> nn.Module:
    """The extractor of the embedded default model."""
    folder = Path(__file__).resolve().parents[1] / "weights" / "def-mini" / "refsr"
    return ReferenceNetwork.from_pretrained(str(folder)).feature_extractor


def _small(picture: Tensor, scale: float) -> Tensor:
    """`scale` times as large, but of at most `CELLS`² cells."""
    return resized(picture, min(scale, CELLS * CELL / (picture.shape[2] * picture.shape[3]) ** 0.5))

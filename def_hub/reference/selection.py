"""Which of many candidate references to use: each with the share of the image that it can serve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from def_hub.images import ImageLike, to_tensor
from def_hub.operators import Downsample
from def_hub.reference.matching import CELL, Correspondence, Views, align, match
from def_hub.reference.network import ReferenceNetwork

CELLS = 64
"""Side, in cells, of the square that has as many cells as either picture is shrunk to."""
EVERY = 3
FAR = (4, 8)
"""Distances, in cells, at which matches must still move together. Chance agrees with its neighbours, seldom farther."""
WEIGHT = 10.0
"""What agreement at a distance counts, against a cell's own confidence."""
LIKELY, UNLIKELY = 0.13, 0.10
"""Scores from and below which a reference is called likely and unlikely to help; see `rank_references`."""


@dataclass(frozen=True)
class RankedReference:
    """index: of the candidate, as given. score: share of the image that it can serve, 0 … 1; chance gives about 0.09.

    verdict: "likely", "possible" or "unlikely" to help.
    """

    index: int
    score: float

    @property
    def verdict(self) -> str:
        return "likely" if self.score >= LIKELY else "possible" if self.score >= UNLIKELY else "unlikely"


@torch.no_grad()
def rank_references(
    image: ImageLike, candidates: Sequence[ImageLike], extractor: nn.Module | None = None
) -> list[RankedReference]:
    """Order candidates by how much of `image` they can serve, best first.

    Image and candidates are shrunk to a few thousand cells, matched and aligned. A cell counts as served by as much as
    its match is trusted, more where matches some cells away move along with it; the score is the mean. A picture
    that merely looks alike, in colour or in kind, scores low, and a part that is shown large scores by the part it
    serves. Candidates are opened one at a time.

    A score of `LIKELY` is reached by 60 % of true references and 3 % of unrelated pictures; 18 % and 72 % stay below
    `UNLIKELY` (45 and 144 of them, on 27 photographs of places seen several times, many with little in common).

    Args:
        image: the LR image. candidates: of any size from 8×8. Paths, Pillow images, arrays or tensors, as for
            `def_hub.images.to_tensor`.
        extractor: as for `matching.match`, on its own device; the embedded model's by default.

    Raises:
        ValueError, TypeError, FileNotFoundError: for an image or a candidate that cannot be read, named by its number.
    """
    extract = _embedded() if extractor is None else extractor
    weight = next(extract.parameters())
    scores = []
    with torch.autocast(weight.device.type, weight.dtype, enabled=weight.dtype != torch.float32):
        query = _small(Downsample().upsample(to_tensor(image).to(weight.device)))
        for number, candidate in enumerate(candidates):
            key = _small(to_tensor(candidate, f"candidates[{number}]").to(weight.device))
            found = match(Views(query, query), [Views(key, key)], extract, "bicubic", every=EVERY)
            found = align(found, query, [key])
            own = found.confidence[:, 0]
            scores.append(float((own * (own + WEIGHT * _support(found))).clamp_max(1).mean()))
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    return [RankedReference(i, scores[i]) for i in order]


def _support(found: Correspondence) -> Tensor:
    """`[B,h,w]`: mean confidence of the cells some way off, of those whose frames, carried on, agree with here."""
    confidence, position = found.confidence[:, 0], found.position
    total, count = torch.zeros_like(confidence), torch.zeros_like(confidence)
    h, w = confidence.shape[1:]
    for far in FAR:
        for rows, columns in ((r * far, c * far) for r in (-1, 0, 1) for c in (-1, 0, 1) if r or c):
            here = (
                ...,
                slice(max(rows, 0), max(h + min(rows, 0), 0)),
                slice(max(columns, 0), max(w + min(columns, 0), 0)),
            )
            there = (
                ...,
                slice(max(-rows, 0), max(h - max(rows, 0), 0)),
                slice(max(-columns, 0), max(w - max(columns, 0), 0)),
            )
            step = position.new_tensor((CELL * columns, CELL * rows))
            carried = position[there] + torch.einsum("bijhw,j->bihw", found.frames[there], step)
            agrees = (carried - position[here]).norm(dim=1) < far  # pixels: a quarter of the distance
            total[here] += confidence[there] * agrees
            count[here] += 1
    return total / count.clamp_min(1)


@lru_cache(maxsize=1)
def _embedded() -> nn.Module:
    """The extractor of the embedded default model."""
    folder = Path(__file__).resolve().parents[1] / "weights" / "def-mini" / "refsr"
    return ReferenceNetwork.from_pretrained(str(folder)).feature_extractor


def _small(picture: Tensor) -> Tensor:
    """Shrunk to at most `CELLS`² cells, sides multiples of a cell."""
    height, width = picture.shape[2:]
    scale = min(1.0, CELLS * CELL / (height * width) ** 0.5)
    size = [max(2, round(n * scale / CELL)) * CELL for n in (height, width)]
    return F.interpolate(picture, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)

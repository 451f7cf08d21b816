"""Which of many candidate references to use: each with the share of the image that it can serve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

from def_hub.images import ImageLike, to_photo, to_tensor
from def_hub.precision import float32_by_default
from def_hub.reference.features import in_own_precision
from def_hub.reference.matching import CELL
from def_hub.reference.matching.fitting import fit, found
from def_hub.reference.matching.pose import ImageCopies, Sighting, enough
from def_hub.reference.network import ReferenceNetwork
from def_hub.reference.picture import ReferencePicture

SEEN = 320
"""Side, in pixels, of the part of a candidate whose detail is looked at."""
LIKELY, UNLIKELY = 0.10, 0.06
"""Scores from and below which a reference is called likely and unlikely to help. Of nine development photographs
(`examples/ranking.py --every 3 --strangers 3 --gain`, 28 November 2026) every reference from 0.10 on gave 0.10 dB or
more, those of 0.09 gave 0.00 and 0.02 dB, and no unrelated picture of two such samples reached 0.06."""


@dataclass(frozen=True)
class RankedReference:
    """index: of the candidate, as given. score: share of the image that it can serve, 0 … 1; chance gives about 0.03.

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

    Each candidate is brought to the scale and orientation of the image by the search that a run makes, too
    (`matching.pose`). The score is the mean confidence of the matches that lie among confident ones, times how far the
    detail of the candidate is believed (`matching.detail`): an enlarged copy of the image, a soft picture or a print
    scores nothing. A picture that merely looks alike, in colour or in kind, scores low, and a part that is shown large
    scores by the part it serves. Candidates are opened one at a time.

    Args:
        image: the LR image. candidates: of any size from 8×8. Paths, Pillow images, arrays or tensors, as for
            `def_hub.images.to_tensor`.
        extractor: as for `matching.match`, on its own device; the embedded model's by default.

    Raises:
        ValueError, TypeError, FileNotFoundError: for an image or a candidate that cannot be read, named by its number.
    """
    network = embedded_network()
    extractor = network.feature_extractor if extractor is None else extractor
    device = next(extractor.parameters()).device
    scores = []
    y = to_tensor(image).to(device)
    copies = ImageCopies(y, in_own_precision(extractor))
    for number, candidate in enumerate(candidates):
        photo = to_photo(candidate, f"candidates[{number}]", enough(y.shape[2:]))
        picture = photo.over_white().to(device)
        height, width = (n // CELL * CELL for n in picture.shape[2:])
        picture = picture[..., :height, :width]
        reference, seen = found(copies, ReferencePicture(picture))
        # what is not found is not looked at for detail, which would take as long as the search
        scores.append(seen.support * (_worth(network, y, reference, seen) if seen.support >= UNLIKELY else 1.0))
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    return [RankedReference(i, scores[i]) for i in order]


def _worth(network: ReferenceNetwork, image: Tensor, reference: ReferencePicture, seen: Sighting) -> float:
    """How far the detail in the middle of the matched part of a candidate is believed."""
    fitted = fit(image, reference, seen)
    if fitted.usable is not None and not bool(fitted.usable.any()):
        return 0.0
    part = fitted.pixels
    top, left = (max(0, (n - SEEN) // 2) // CELL * CELL for n in part.shape[2:])
    part = part[..., top : top + SEEN, left : left + SEEN].to(network.device)
    return network.worth(part)


@lru_cache(maxsize=1)
def embedded_network() -> ReferenceNetwork:
    """The network of the embedded default model."""
    folder = Path(__file__).resolve().parents[1] / "weights" / "def-mini" / "refsr"
    return ReferenceNetwork.from_pretrained(str(folder))

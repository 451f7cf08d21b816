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
from def_hub.reference.matching.pose import ImageCopies, Sighting, agreement, enough
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
    extractor = embedded_network().feature_extractor if extractor is None else extractor
    ranker = Ranker(to_tensor(image), extractor)
    scores = [ranker.score(candidate, f"candidates[{number}]") for number, candidate in enumerate(candidates)]
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    return [RankedReference(i, scores[i]) for i in order]


class Ranker:
    """Scores candidates for one image, one at a time, as `rank_references`.

    Args:
        image: LR, `[1, 3, h, w]` in [0, 1].
        extractor: as for `matching.match`.
        upright: candidates are looked for as they stand, neither turned nor mirrored. This takes less than half of the
            time, nearly all of which goes into candidates that show something else.
    """

    def __init__(self, image: Tensor, extractor: nn.Module, upright: bool = False) -> None:
        self._image = image.to(next(extractor.parameters()).device)
        self._copies = ImageCopies(self._image, in_own_precision(extractor), upright)

    @torch.no_grad()
    @float32_by_default()
    def glance(self, candidate: ImageLike, name: str = "candidate") -> float:
        """How many small cells of the candidate agree with the image, in multiples of what chance gives: says which
        candidates are worth a score. Raises as `rank_references`; `name` is said in errors."""
        return agreement(self._copies, self._opened(candidate, name))

    @torch.no_grad()
    @float32_by_default()
    def score(self, candidate: ImageLike, name: str = "candidate") -> float:
        """See `RankedReference`. Raises as `rank_references`; `name` is said in errors."""
        reference, seen = found(self._copies, ReferencePicture(self._opened(candidate, name)))
        # what is not found is not looked at for detail, which would take as long as the search
        return seen.support * (self._worth(reference, seen) if seen.support >= UNLIKELY else 1.0)

    def _opened(self, candidate: ImageLike, name: str) -> Tensor:
        """The candidate `[1, 3, H, W]`, with whole cells, as large as poses need at most."""
        photo = to_photo(candidate, name, enough(self._image.shape[2:]))
        picture = photo.over_white().to(self._image.device)
        height, width = (n // CELL * CELL for n in picture.shape[2:])
        return picture[..., :height, :width]

    def _worth(self, reference: ReferencePicture, seen: Sighting) -> float:
        """How far the detail in the middle of the matched part of a candidate is believed."""
        fitted = fit(self._image, reference, seen)
        if fitted.usable is not None and not bool(fitted.usable.any()):
            return 0.0
        part = fitted.pixels
        top, left = (max(0, (n - SEEN) // 2) // CELL * CELL for n in part.shape[2:])
        network = embedded_network()
        return network.worth(part[..., top : top + SEEN, left : left + SEEN].to(network.device))


@lru_cache(maxsize=1)
def embedded_network() -> ReferenceNetwork:
    """The network of the embedded default model."""
    folder = Path(__file__).resolve().parents[1] / "weights" / "def-mini" / "refsr"
    return ReferenceNetwork.from_pretrained(str(folder))

"""Matcher: finds the most similar place in the references for each cell of the image (paper 4.3, eq. 10-12)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn as nn
from torch import Tensor

from def_hub.reference.features import Pyramid, in_bands
from def_hub.reference.matching import Correspondence, Views, match, match_coarse_to_fine, supported
from def_hub.reference.matching.detail import believed_beside
from def_hub.settings import MatchingImage


class FeatureMemory:
    """A cache of the frozen extractor. Matching and transfer need the features of some of the same images; they are
    computed once.

    The extractor computes in the precision (autocast state) that is set when the cache is created.

    Args:
        levels: keep only this many last levels of each pyramid; the first level is the largest.
    """

    def __init__(self, extractor: nn.Module, device: torch.device, levels: int) -> None:
        self.extractor, self.levels = extractor, levels
        kind = device.type
        self.precision = torch.autocast(kind, torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind))
        self.seen: dict[int, tuple[Tensor, Pyramid]] = {}

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Pyramid:
        """The pyramid of `image` `[B, 3, H, W]`. A second call with the same tensor returns the stored pyramid."""
        if id(image) not in self.seen:  # the image is stored, too: no other tensor can get its id meanwhile
            self.seen[id(image)] = image, self.once(image)
        return self.seen[id(image)][1]

    @torch.no_grad()
    def once(self, image: Tensor) -> Pyramid:
        """The pyramid of `image`, not stored."""
        image = image.contiguous(memory_format=torch.channels_last)  # the layout in which features are read
        with self.precision:
            return in_bands(self.extractor, image, self.levels)


class Matcher:
    """Matches the image with its references: a place and a confidence for each cell.

    Args:
        features: cache of the extractor; the restoring network reads from the same cache.
        matching_image: which images are compared, see `matching.match`.
        refine: search coarse to fine and align to fractions of a pixel (`match_coarse_to_fine`); otherwise use
            the paper's search alone (`matching.match`).
        step: HR pixels between the samples that the alignment compares, see `matching.align`.
        judged: look for over-sharpened references, see `believed_beside`. Beside an image whose blur was not wholly
            found, every sharp reference would look so.
    """

    def __init__(
        self,
        features: FeatureMemory,
        matching_image: MatchingImage = "joint",
        refine: bool = True,
        step: int = 2,
        judged: bool = True,
    ) -> None:
        self.features, self.matching_image, self.refine, self.step = features, matching_image, refine, step
        self.judged = judged

    @torch.no_grad()
    def __call__(self, image: Views, references: Sequence[Views]) -> Correspondence:
        """The match of every cell among the cells of all references. Errors as `matching.match`, `refine`, `align`."""
        # half precision cannot represent positions accurately enough
        with torch.autocast(image.enhanced.device.type, enabled=False):
            if not self.refine:
                return match(image, references, self.features, self.matching_image)
            matches = match_coarse_to_fine(image, references, self.features, self.matching_image, step=self.step)
            shares = believed_beside(image, references, matches) if self.judged else []
            if (
                shares and min(float(share.min()) for share in shares) < 1
            ):  # what is over-sharpened shall not win over others
                references = [key.counting(share) for key, share in zip(references, shares, strict=True)]
                matches = match_coarse_to_fine(image, references, self.features, self.matching_image, step=self.step)
            return replace(matches, confidence=supported(matches.confidence))

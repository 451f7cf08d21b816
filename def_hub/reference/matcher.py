"""Matcher: where each cell of the image finds its like in the references (paper 4.3, eq. 10-12)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn as nn
from torch import Tensor

from def_hub.reference.features import Pyramid, in_bands
from def_hub.reference.matching import Correspondence, Views, find, match, supported
from def_hub.settings import MatchingImage


class FeatureMemory:
    """The frozen extractor, which sees some pictures both in matching and in transfer, run once for each.

    It computes in the precision that is set where it is made. Of each pyramid the last `levels` are kept: the first is
    the largest.
    """

    def __init__(self, extractor: nn.Module, device: torch.device, levels: int) -> None:
        self.extractor, self.levels = extractor, levels
        kind = device.type
        self.precision = torch.autocast(kind, torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind))
        self.seen: dict[int, tuple[Tensor, Pyramid]] = {}

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Pyramid:
        """The pyramid of `image` `[B, 3, H, W]`; the same tensor is computed once."""
        if id(image) not in self.seen:  # the picture is kept beside its pyramid, so that its id stays taken
            self.seen[id(image)] = image, self.once(image)
        return self.seen[id(image)][1]

    @torch.no_grad()
    def once(self, image: Tensor) -> Pyramid:
        """The pyramid of a picture that is not seen again."""
        last = image.contiguous(memory_format=torch.channels_last)  # as features are gathered
        with self.precision:
            return in_bands(self.extractor, last, self.levels)


class Matcher:
    """Compares the image with its references and says where to look, and how sure.

    Args:
        features: the extractor's memory; the network that restores reads from the same.
        matching_image: what is compared, see `matching.match`.
        refine: align matches below a pixel (`matching.find`), or take the plain `matching.match` of the paper.
        step: HR pixels between the samples of the alignment, see `matching.align`.
    """

    def __init__(
        self, features: FeatureMemory, matching_image: MatchingImage = "joint", refine: bool = True, step: int = 2
    ) -> None:
        self.features, self.matching_image, self.refine, self.step = features, matching_image, refine, step

    @torch.no_grad()
    def __call__(self, image: Views, references: Sequence[Views]) -> Correspondence:
        """The match of every cell among all cells of all references. Errors as `matching.match`, `refine`, `align`."""
        # a place needs more digits than half precision has
        with torch.autocast(image.enhanced.device.type, enabled=False):
            if not self.refine:
                return match(image, references, self.features, self.matching_image)
            found = find(image, references, self.features, self.matching_image, step=self.step)
            return replace(found, confidence=supported(found.confidence))

"""ReferenceNetwork: features, matching, transfer, aggregation, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn as nn
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from def_hub.operators import Downsample
from def_hub.reference.aggregation import STRIDES, Aggregator, FoldedAggregator, Texture
from def_hub.reference.features import ExtractorName, Pyramid, make_extractor
from def_hub.reference.matching import Correspondence, Views, align, match, refine
from def_hub.reference.transfer import DeformableTransfer, overlapped, spread

EVERY = 4
"""Of the cells along a side, one in so many is searched for where alignment follows; the others learn from it."""


@dataclass(frozen=True)
class ReferenceOutput:
    """sr, alone: the results with and without the references, `[B, 3, H, W]`, not clipped; the same where there are
    none.
    correspondence: where the detail came from, or None without references.
    """

    sr: Tensor
    alone: Tensor
    correspondence: Correspondence | None = None


class ReferenceNetwork(ModelMixin, ConfigMixin):
    """The Ref-SR half: from an enhanced image and references to the super-resolved image.

    Args:
        extractor: "vgg19" (def-base, the paper) or "mini" (def-mini).
        features, blocks: sizes of the `Aggregator`; the defaults are the paper's.
        folded: use the `FoldedAggregator`, whose finest texture is the reference's own pixels as matched, and whose
            residual is added to `A†y` instead of the enhanced image.
        match_estimate: match and refine by what the network makes of each picture alone, instead of by I_DE itself: the
            better the estimate, the better the match.
        operator: name of the degradation, for what is known and what is missing.
    """

    @register_to_config
    def __init__(
        self,
        extractor: ExtractorName = "vgg19",
        features: tuple[int, int, int] = (64, 64, 64),
        blocks: tuple[int, int, int, int] = (16, 16, 8, 4),
        folded: bool = False,
        match_estimate: bool = False,
        operator: Literal["bicubic", "box", "matlab"] = "bicubic",
    ) -> None:
        super().__init__()
        self.feature_extractor = make_extractor(extractor).requires_grad_(False)
        self._operator = Downsample(operator)
        sources = tuple(reversed(self.feature_extractor.channels))  # coarse to fine
        self.transfer = nn.ModuleList(
            DeformableTransfer(inputs, outputs, inputs)
            for inputs, outputs in zip(sources, features[:2] if folded else features, strict=False)
        )
        self.aggregator: nn.Module
        if folded:
            self.aggregator = FoldedAggregator((features[0], features[1], 3), features[0], blocks)
        else:
            self.aggregator = Aggregator(features, features, blocks)

    def forward(
        self,
        y: Tensor,
        image: Views,
        references: Sequence[Views] = (),
        *,
        matching_image: str = "joint",
        refined: bool = True,
        strength: float | Tensor = 1.0,
        usable: Sequence[Tensor | None] = (),
    ) -> ReferenceOutput:
        """Find, carry over and lay in the detail of the references.

        Args:
            y: LR image `[B, 3, h, w]`; image: its views; references: the views of each, `sharp` included.
            matching_image: see `matching.match`. refined: whether `matching.refine` and `matching.align` follow.
            strength: factor on the confidence: one, `[B, 1, 1, 1]`, or `[B, 1, h, w]` for each cell. With 0, as without
                references, they have no influence.
            usable: for each reference None, or `[1, 1, Hr, Wr]` with 0 where matches must not land.

        Raises:
            ValueError: as `matching.match`, `refine` and `align` do.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not references):
            alone = self._base(y, image.enhanced) + self.aggregator(y, image.enhanced, None)
        if not references:
            return ReferenceOutput(alone, alone)
        sharp = [r.sharp for r in references if r.sharp is not None]
        seen, keys = image, list(references)
        if self.config.match_estimate:
            seen = Views(image.bicubic, alone.clamp(0, 1))
            keys = [self._estimated(r) for r in references]
        extract = _Memo(self.feature_extractor)
        found = match(seen, keys, extract, matching_image, every=EVERY if refined else 1)  # eq. 10-12
        if refined:
            # like with like: the correlation then measures the match, not what the estimate lacks
            treated = [key.enhanced for key in keys]
            found = align(refine(found, seen.enhanced, treated), seen.enhanced, treated)
        found = replace(found, confidence=found.confidence * strength * _landing(found, usable))
        texture = self._transfer(extract(seen.enhanced), [extract(s) for s in sharp], sharp, found)  # eq. 13
        sr = self._base(y, image.enhanced) + self.aggregator(y, image.enhanced, texture)  # eq. 7
        return ReferenceOutput(sr, alone, found)

    def _base(self, y: Tensor, enhanced: Tensor) -> Tensor:
        return self._operator.pinv(y) if self.config.folded else enhanced

    @torch.no_grad()
    def _estimated(self, reference: Views) -> Views:
        """The reference as the network itself would restore it: what the image's own estimate is compared with."""
        assert reference.sharp is not None
        small = self._operator.forward(reference.sharp).clamp(0, 1)
        estimate = self._base(small, reference.enhanced) + self.aggregator(small, reference.enhanced, None)
        return replace(reference, enhanced=estimate.clamp(0, 1))

    def _transfer(
        self, guides: Pyramid, pyramids: Sequence[Pyramid], references: Sequence[Tensor], found: Correspondence
    ) -> Texture:
        features = [
            transfer([p[2 - i] for p in pyramids], guides[2 - i], found, stride)
            for i, (transfer, stride) in enumerate(zip(self.transfer, STRIDES, strict=False))
        ]
        if self.config.folded:
            pixels = overlapped(references, found)
            features.append(pixels - self._operator.pinv(self._operator.forward(pixels)))  # its null-space part
        return Texture(features, [spread(found.confidence, stride) for stride in STRIDES])


def _landing(found: Correspondence, usable: Sequence[Tensor | None]) -> Tensor:
    """`[B, 1, h, w]`: the value of its reference's mask where each match lands, 1 without a mask."""
    result = torch.ones_like(found.confidence)
    x, y = found.position.round().long().unbind(1)
    for number, mask in enumerate(usable):
        if mask is not None:
            lands = mask[0, 0][y.clamp(0, mask.shape[2] - 1), x.clamp(0, mask.shape[3] - 1)].to(result)
            result = torch.where((found.reference == number)[:, None], lands[:, None], result)
    return result


class _Memo:
    """The frozen extractor, which sees some pictures both when matching and when transferring, run once for each."""

    def __init__(self, extractor: nn.Module) -> None:
        self.extractor = extractor
        self.seen: dict[int, tuple[Tensor, Pyramid]] = {}

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Pyramid:
        if id(image) not in self.seen:  # the picture is kept beside its pyramid, so that its id stays taken
            self.seen[id(image)] = image, self.extractor(image)
        return self.seen[id(image)][1]

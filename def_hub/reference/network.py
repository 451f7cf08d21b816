"""ReferenceNetwork: the learned part of Ref-SR. What it makes of the image alone, and what the references add."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor

from def_hub.observation.downsample import Downsample, Kernel
from def_hub.reference.build import make_parts
from def_hub.reference.features import ExtractorName
from def_hub.reference.matcher import FeatureMemory
from def_hub.reference.matching import CELL, Correspondence
from def_hub.reference.restoring.aggregation import STRIDES, Texture
from def_hub.reference.restoring.transfer import overlapped, spread
from def_hub.tiling import Window, tiled

TILE = 1024
"""HR pixels along a side that are aggregated at a time."""


@dataclass(frozen=True)
class Estimate:
    """What the network makes of one picture alone. All `[B, 3, H, W]`.

    enhanced: I_DE, which it was made from. once: the result in the picture's own orientation, not clipped. mean: the
    mean over orientations, which is better than each (EDSR's self-ensemble, Lim et al. 2017). matched: what stands for
    the picture when it is compared with others, in [0, 1].
    """

    enhanced: Tensor
    once: Tensor
    mean: Tensor
    matched: Tensor


@dataclass(frozen=True)
class Restored:
    """sr: the result, `[B, 3, H, W]`, not clipped. transferred: the references' own pixels laid out like the image by
    the matches (`overlapped`); None without references."""

    sr: Tensor
    transferred: Tensor | None = None


class ReferenceNetwork(ModelMixin, ConfigMixin):
    """The Ref-SR half: from an enhanced image, references and matches to the super-resolved image.

    Args:
        extractor: "vgg19" or "vgg19_imagenet" (def-base, the paper) or "mini" (def-mini); see `make_extractor`.
        features, blocks: sizes of the `Aggregator`; the defaults are the paper's.
        folded: use the `FoldedAggregator`, whose finest texture is the reference's own pixels as matched, and whose
            residual is added to `A†y` instead of the enhanced image.
        match_estimate: compare pictures by what the network makes of each alone, instead of by I_DE itself: the better
            the estimate, the better the match.
        operator: name of the degradation, for what is known and what is missing.
        deformable: transfer by deformable convolution (eq. 13), or else by the match alone.
        ttsr: TTSR's own transfer and integration, for its published weights (`def_hub.convert.ttsr`); all features are
            then equal. It returns the image itself, whatever I_DE is.

    Raises:
        ValueError: for an unknown extractor or operator, or with `ttsr` for `folded` or features that differ.
    """

    @register_to_config
    def __init__(
        self,
        extractor: ExtractorName = "vgg19",
        features: tuple[int, int, int] = (64, 64, 64),
        blocks: tuple[int, int, int, int] = (16, 16, 8, 4),
        folded: bool = False,
        match_estimate: bool = False,
        operator: Kernel = "bicubic",
        deformable: bool = True,
        ttsr: bool = False,
    ) -> None:
        super().__init__()
        parts = make_parts(extractor, features, blocks, folded=folded, deformable=deformable, ttsr=ttsr)
        self.feature_extractor = parts.extractor
        self.transfer = parts.transfer
        self.aggregator = parts.aggregator
        self._operator = Downsample(operator)

    @classmethod
    def from_pretrained(cls, name: Any, **options: Any) -> ReferenceNetwork:
        """Load the network from a folder or the Hub (`subfolder="refsr"` within a pipeline), from safetensors only.

        Raises:
            ValueError: for `use_safetensors=False`, or weights that are not all of this network's and no others.
            OSError: where there is no such network, or only a pickle of it.
        """
        if not options.pop("use_safetensors", True):
            raise ValueError(
                "use_safetensors=False: weights are read from safetensors only, unpickling can run any code"
            )
        try:
            network, info = super().from_pretrained(name, use_safetensors=True, output_loading_info=True, **options)
        except OSError as error:
            if "safetensors" not in str(error):
                raise
            raise OSError(f"{error} A pickle (.bin) is not read: it can run any code when it is") from error
        # the base class warns, and goes on with random weights
        for what, key in (("lacks", "missing_keys"), ("has no place for", "unexpected_keys")):
            if info[key]:
                raise ValueError(f"{name}: {what} {sorted(info[key])[0]}; these are not weights of this network")
        return network

    # With CPU offload, a decorated method brings the weights to the device as `forward` does.

    def memory(self, device: torch.device) -> FeatureMemory:
        """A new memory of features, for the matcher and for `restored`."""
        return FeatureMemory(self.feature_extractor, device, len(self.transfer))

    @apply_forward_hook
    def estimate(self, y: Tensor, enhanced: Tensor, turns: int = 1) -> Estimate:
        """What the network makes of a picture alone.

        Args:
            y: LR image `[B, 3, h, w]`. enhanced: I_DE `[B, 3, H, W]`.
            turns: orientations whose mean is taken. A network that was published for one takes one.
        """
        once = mean = self._alone(y, enhanced)
        turns = min(turns, self.aggregator.most_turns)
        if turns > 1:
            others = (self._turned(y, enhanced, 4 // turns * k) for k in range(1, turns))
            mean = sum(others, once) / turns
        matched = once.detach().clamp(0, 1) if self.config.match_estimate else enhanced
        return Estimate(enhanced, once, mean, matched)

    @apply_forward_hook
    def restored(
        self,
        y: Tensor,
        estimate: Estimate,
        references: Sequence[Tensor],
        matches: Correspondence | None,
        features: FeatureMemory,
    ) -> Restored:
        """The image with the references' texture carried over by the matches and blended in (4.4, eq. 7, 13).

        Where no reference is trusted, the mean over orientations stands: what a reference brings is that of one.

        Args:
            y: LR image `[B, 3, h, w]`. estimate: of the image alone.
            references: pixels `[B, 3, Hr, Wr]` of each. matches: where to look in them, and how sure; with confidence
                zero they have no influence. None where there are no references.
            features: memory of the extractor; pictures that the matcher saw are not computed again.
        """
        if matches is None:
            return Restored(estimate.mean)
        texture = _Lender(self, estimate.matched, references, matches, features)
        residual, transferred = self._residual(y, estimate.enhanced, texture).split(3, dim=1)
        sr = self._base(y, estimate.enhanced) + residual  # eq. 7
        if estimate.mean is not estimate.once:
            sr = sr + (1 - spread(matches.confidence, 1)) * (estimate.mean - estimate.once)
        return Restored(sr, transferred)

    def forward(self, *arguments: Any, **options: Any) -> Restored:
        """`restored`."""
        return self.restored(*arguments, **options)

    def _alone(self, y: Tensor, enhanced: Tensor) -> Tensor:
        return self._base(y, enhanced) + self._residual(y, enhanced)

    def _turned(self, y: Tensor, enhanced: Tensor, quarters: int) -> Tensor:
        """The same of the picture turned by some quarters, turned back."""
        return self._alone(*(x.rot90(quarters, (-2, -1)) for x in (y, enhanced))).rot90(-quarters, (-2, -1))

    def _base(self, y: Tensor, enhanced: Tensor) -> Tensor:
        return self.aggregator.base(self._operator, y, enhanced)

    def _residual(
        self, y: Tensor, enhanced: Tensor, lender: Callable[[Window], tuple[Texture, Tensor]] | None = None
    ) -> Tensor:
        """What the aggregator adds, `[B, 3, H, W]`, tile by tile where the picture is larger than one. `lender` gives
        the texture of a window, in HR pixels, and the pixels it is of, which then come along: `[B, 6, H, W]`."""

        def residual(window: Window) -> Tensor:
            texture, *pixels = (None,) if lender is None else lender(window)
            added = self.aggregator(_cells(window).cut(y), window.cut(enhanced), texture).float()
            return torch.cat((added, *pixels), dim=1) if pixels else added

        height, width = enhanced.shape[2:]
        return tiled(residual, height, width, TILE, CELL * self._reach, multiple=CELL)

    @property
    def _reach(self) -> int:
        """How far a pixel's influence reaches, in cells: two for every block, and what comes before and after."""
        return 2 * sum(self.config.blocks) + 16


class _Lender:
    """The texture that the references lend to a window of the image, and their pixels there."""

    def __init__(
        self,
        network: ReferenceNetwork,
        guide: Tensor,
        references: Sequence[Tensor],
        matches: Correspondence,
        features: FeatureMemory,
    ) -> None:
        self.network, self.guide, self.references, self.matches = network, guide, references, matches
        self.features = features
        self.pyramids = [features(reference) for reference in references]

    def __call__(self, window: Window) -> tuple[Texture, Tensor]:
        # a part is seen once: nothing to remember, and memory stays bounded by the window
        whole = (window.height, window.width) == self.guide.shape[2:]
        guides = self.features(self.guide) if whole else self.features.once(window.cut(self.guide))
        found = self.matches.cut(_cells(window))
        maps = [
            transfer([pyramid[-1 - i] for pyramid in self.pyramids], guides[-1 - i], found, stride)  # eq. 13
            for i, (transfer, stride) in enumerate(zip(self.network.transfer, STRIDES, strict=False))
        ]
        pixels = overlapped(self.references, found)
        maps += self.network.aggregator.finest_texture(self.network._operator, pixels)
        return Texture(maps, [spread(found.confidence, stride) for stride in STRIDES]), pixels


def _cells(window: Window) -> Window:
    """The same place on the LR grid."""
    return Window(window.top // CELL, window.left // CELL, window.height // CELL, window.width // CELL)

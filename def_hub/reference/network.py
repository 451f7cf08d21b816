"""ReferenceNetwork: features, matching, transfer, aggregation, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn as nn
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor

from def_hub.observation.downsample import Downsample
from def_hub.reference.aggregation import STRIDES, Aggregator, FoldedAggregator, Texture
from def_hub.reference.features import ExtractorName, Pyramid, in_bands, make_extractor
from def_hub.reference.fitting import Fitted, fitted
from def_hub.reference.matching import CELL, Correspondence, Views, find, match, supported
from def_hub.reference.matching.detail import detail_worth
from def_hub.reference.transfer import DeformableTransfer, HardTransfer, overlapped, spread
from def_hub.reference.ttsr import CellTransfer, TTSRAggregator
from def_hub.tiling import Window, tiled

TILE = 1024
"""HR pixels along a side that are aggregated at a time."""


@dataclass(frozen=True)
class ReferenceOutput:
    """sr, alone: the results with and without the references, `[B, 3, H, W]`, not clipped; the same where there are
    none.
    correspondence: where the detail came from; transferred: the references' own pixels laid out like the image by it
    (`transfer.overlapped`), `[B, 3, H, W]`. Both None without references.
    """

    sr: Tensor
    alone: Tensor
    correspondence: Correspondence | None = None
    transferred: Tensor | None = None


class ReferenceNetwork(ModelMixin, ConfigMixin):
    """The Ref-SR half: from an enhanced image and references to the super-resolved image.

    Args:
        extractor: "vgg19" or "vgg19_imagenet" (def-base, the paper) or "mini" (def-mini); see `make_extractor`.
        features, blocks: sizes of the `Aggregator`; the defaults are the paper's.
        folded: use the `FoldedAggregator`, whose finest texture is the reference's own pixels as matched, and whose
            residual is added to `A†y` instead of the enhanced image.
        match_estimate: match and refine by what the network makes of each picture alone, instead of by I_DE itself: the
            better the estimate, the better the match.
        operator: name of the degradation, for what is known and what is missing.
        deformable: transfer by deformable convolution (eq. 13), or else by the match alone.
        ttsr: TTSR's own transfer and integration, for its published weights (`def_hub.convert.ttsr`); all features are
            then equal. It returns the image itself, whatever I_DE is.

    Raises:
        ValueError: for an unknown extractor, or with `ttsr` for `folded` or features that differ.
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
        deformable: bool = True,
        ttsr: bool = False,
    ) -> None:
        super().__init__()
        if ttsr and (folded or len(set(features)) != 1):
            raise ValueError(f"ttsr: expected three equal features and folded=False, got {features}, {folded=}")
        self.feature_extractor = make_extractor(extractor).requires_grad_(False)
        self._operator = Downsample(operator)
        sources = tuple(reversed(self.feature_extractor.channels))  # coarse to fine

        def carrier(inputs: int, outputs: int) -> nn.Module:
            if ttsr:
                return CellTransfer()
            return DeformableTransfer(inputs, outputs, inputs) if deformable else HardTransfer(inputs, outputs)

        self.transfer = nn.ModuleList(
            carrier(inputs, outputs)
            for inputs, outputs in zip(sources, features[:2] if folded else features, strict=False)
        )
        self.aggregator: nn.Module
        if ttsr:
            self.aggregator = TTSRAggregator((sources[0], sources[1], sources[2]), features[0], blocks)
        elif folded:
            self.aggregator = FoldedAggregator((features[0], features[1], 3), features[0], blocks)
        else:
            self.aggregator = Aggregator(features, features, blocks)

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

    @apply_forward_hook  # as if it were `forward`: with CPU offload, weights come to the device when they are asked for
    def fitted(self, image: Tensor, picture: Tensor, usable: Tensor | None = None) -> Fitted:
        """The reference as large as the image shows things, by the network's own features: see `fitting.fitted`."""
        return fitted(image, picture, usable, self.feature_extractor)

    def forward(
        self,
        y: Tensor,
        image: Views,
        references: Sequence[Views] = (),
        *,
        matching_image: str = "joint",
        refined: bool = True,
        step: int = 2,
        strength: float | Tensor = 1.0,
        turns: Literal[1, 2, 4] = 1,
        found: Correspondence | None = None,
        on_match: Callable[[Correspondence], object] | None = None,
    ) -> ReferenceOutput:
        """Find, carry over and lay in the detail of the references.

        Args:
            y: LR image `[B, 3, h, w]`; image: its views; references: the views of each, `sharp` included.
            matching_image: see `matching.match`. refined: `matching.find`, or the plain `matching.match` of the paper.
            step: of `matching.align`, where the matches are refined.
            strength: factor on the confidence, one, `[B, 1, 1, 1]` or `[B, 1, h, w]`. With 0, as without references,
                they have no influence.
            turns: in how many of its four orientations the image is restored; the mean of them, which is better than
                each (EDSR's self-ensemble, Lim et al. 2017), stands where no reference is trusted. TTSR's network is
                left as it was published: in one.
            found: the matches, where they are known already (in training, which sees a pair many times).
            on_match: called with what was found, before anything is carried over.

        Raises:
            ValueError: as `matching.match`, `refine` and `align` do.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not references):
            once = self._alone(y, image.enhanced)
            turns = 1 if self.config.ttsr else turns
            others = (self._turned(y, image.enhanced, 4 // turns * k) for k in range(1, turns))
            alone = sum(others, once) / turns if turns > 1 else once
        if not references:
            return ReferenceOutput(alone, alone)
        sharp = [r.sharp for r in references if r.sharp is not None]
        seen = self._seen(image, once)
        extract = _Memo(self.feature_extractor, y.device.type, len(self.transfer))
        if found is None:
            found = self._match(seen, references, extract, matching_image, refined, step)  # eq. 10-12
        found = replace(found, confidence=found.confidence * strength)
        if on_match is not None:
            on_match(found)
        pyramids = [extract(s) for s in sharp]

        def lend(window: Window) -> tuple[Texture, Tensor]:
            # a part is seen once: nothing to remember, and memory stays bounded by the window
            whole = (window.height, window.width) == seen.enhanced.shape[2:]
            guides = extract(seen.enhanced) if whole else extract.once(window.cut(seen.enhanced))
            return self._transfer(guides, pyramids, sharp, found.cut(_cells(window)))  # eq. 13

        residual, transferred = self._residual(y, image.enhanced, lend).split(3, dim=1)
        sr = self._base(y, image.enhanced) + residual  # eq. 7
        if turns > 1:  # features are those of one orientation: what comes with them is not averaged
            sr = sr + (1 - spread(found.confidence, 1)) * (alone - once)
        return ReferenceOutput(sr, alone, found, transferred)

    @torch.no_grad()
    def match(
        self,
        y: Tensor,
        image: Views,
        references: Sequence[Views],
        *,
        matching_image: str = "joint",
        refined: bool = True,
    ) -> Correspondence:
        """The first half alone: where `forward` would look. Arguments and errors as there."""
        seen = self._seen(image, self._alone(y, image.enhanced))
        extract = _Memo(self.feature_extractor, y.device.type, len(self.transfer))
        return self._match(seen, references, extract, matching_image, refined)

    def _seen(self, image: Views, alone: Tensor) -> Views:
        """The image as it is matched."""
        return Views(image.bicubic, alone.clamp(0, 1)) if self.config.match_estimate else image

    def _match(
        self,
        seen: Views,
        references: Sequence[Views],
        extract: _Memo,
        matching_image: str,
        refined: bool,
        step: int = 2,
    ) -> Correspondence:
        keys = [self._believed(self._estimated(r)) for r in references] if self.config.match_estimate else references
        # a place needs more digits than half precision has
        with torch.autocast(seen.enhanced.device.type, enabled=False):
            if not refined:
                return match(seen, keys, extract, matching_image)
            found = find(seen, keys, extract, matching_image, step=step)
            return replace(found, confidence=supported(found.confidence))

    def _alone(self, y: Tensor, enhanced: Tensor) -> Tensor:
        """What is made of a picture without references."""
        return self._base(y, enhanced) + self._residual(y, enhanced)

    def _turned(self, y: Tensor, enhanced: Tensor, quarters: int) -> Tensor:
        """The same of the picture turned so many quarters, turned back."""
        return self._alone(*(x.rot90(quarters, (-2, -1)) for x in (y, enhanced))).rot90(-quarters, (-2, -1))

    def _residual(
        self, y: Tensor, enhanced: Tensor, lend: Callable[[Window], tuple[Texture, Tensor]] | None = None
    ) -> Tensor:
        """What the aggregator adds, [B,3,H,W], tile by tile where the picture is larger than one. `lend` gives the
        texture of a window, in HR pixels, and the pixels it is of, which then come along: [B,6,H,W]."""

        def residual(window: Window) -> Tensor:
            texture, *pixels = (None,) if lend is None else lend(window)
            added = self.aggregator(_cells(window).cut(y), window.cut(enhanced), texture).float()
            return torch.cat((added, *pixels), dim=1) if pixels else added

        height, width = enhanced.shape[2:]
        return tiled(residual, height, width, TILE, CELL * self._reach, multiple=CELL)

    @property
    def _reach(self) -> int:
        """How far a pixel's influence reaches, in cells: two for every block, and what comes before and after."""
        return 2 * sum(self.config.blocks) + 16

    def _base(self, y: Tensor, enhanced: Tensor) -> Tensor:
        return self._operator.pinv(y) if self.config.folded else enhanced

    @torch.no_grad()
    def _estimated(self, reference: Views) -> Views:
        """The reference as the network itself would restore it: what the image's own estimate is compared with."""
        assert reference.sharp is not None
        small = self._operator.forward(reference.sharp).clamp(0, 1)
        return replace(reference, enhanced=self._alone(small, reference.enhanced).clamp(0, 1))

    def _believed(self, reference: Views) -> Views:
        """The reference, whose matches count as far as it adds detail: see `detail_worth`."""
        assert reference.sharp is not None
        pairs = zip(reference.sharp.split(1), reference.enhanced.split(1), strict=True)
        worth = [detail_worth(sharp, restored, self._operator) for sharp, restored in pairs]
        if min(worth) == 1.0:
            return reference
        usable = (
            torch.ones_like(reference.sharp[:, :1, ::CELL, ::CELL]) if reference.usable is None else reference.usable
        )
        return replace(reference, usable=usable * usable.new_tensor(worth).view(-1, 1, 1, 1))

    @torch.no_grad()
    def worth(self, sharp: Tensor) -> float:
        """How far the detail of a reference `[1, 3, H, W]`, as it is matched, is believed, 0 … 1; without a prior."""
        small = self._operator.forward(sharp).clamp(0, 1)
        restored = self._alone(small, self._operator.pinv(small)).clamp(0, 1)
        return detail_worth(sharp, restored, self._operator)

    def _transfer(
        self,
        guides: Sequence[Tensor],
        pyramids: Sequence[Sequence[Tensor]],
        references: Sequence[Tensor],
        found: Correspondence,
    ) -> tuple[Texture, Tensor]:
        """The texture that the references lend, and their pixels."""
        features = [
            transfer([p[-1 - i] for p in pyramids], guides[-1 - i], found, stride)
            for i, (transfer, stride) in enumerate(zip(self.transfer, STRIDES, strict=False))
        ]
        pixels = overlapped(references, found)
        if self.config.folded:
            features.append(pixels - self._operator.pinv(self._operator.forward(pixels)))  # their null-space part
        return Texture(features, [spread(found.confidence, stride) for stride in STRIDES]), pixels


def _cells(window: Window) -> Window:
    """The same place on the LR grid."""
    return Window(window.top // CELL, window.left // CELL, window.height // CELL, window.width // CELL)


class _Memo:
    """The frozen extractor, which sees some pictures both when matching and when transferring, run once for each, in
    the precision that is set where it is made. Of each pyramid the last `levels` are kept: the first is the
    largest."""

    def __init__(self, extractor: nn.Module, device: str, levels: int) -> None:
        self.extractor, self.levels = extractor, levels
        self.precision = torch.autocast(
            device, torch.get_autocast_dtype(device), enabled=torch.is_autocast_enabled(device)
        )
        self.seen: dict[int, tuple[Tensor, Pyramid]] = {}

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Pyramid:
        if id(image) not in self.seen:  # the picture is kept beside its pyramid, so that its id stays taken
            self.seen[id(image)] = image, self.once(image)
        return self.seen[id(image)][1]

    @torch.no_grad()
    def once(self, image: Tensor) -> Pyramid:
        """The pyramid of a picture that is not seen again."""
        last = image.contiguous(memory_format=torch.channels_last)  # as features are gathered
        with self.precision:
            return in_bands(self.extractor, last, self.levels)

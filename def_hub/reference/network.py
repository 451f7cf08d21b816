"""ReferenceNetwork: the learned part of Ref-SR. It restores an image without references (`estimate`) and with them
(`restored`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor

from def_hub.hub.contents import check_config, check_network
from def_hub.hub.fetch import OPTIONS
from def_hub.observation.downsample import Downsample, Kernel
from def_hub.reference.build import make_parts
from def_hub.reference.features import ExtractorName
from def_hub.reference.matcher import FeatureMemory
from def_hub.reference.matching import CELL, Correspondence
from def_hub.reference.matching.detail import detail_worth
from def_hub.reference.restoring.aggregation import STRIDES, Texture
from def_hub.reference.restoring.transfer import overlapped, spread
from def_hub.tiling import Window, tiled

TILE = 1024
"""Side of the tiles that the aggregator processes, in HR pixels."""


@dataclass(frozen=True)
class Estimate:
    """The network's results for one image without references. All `[B, 3, H, W]`.

    enhanced: I_DE, the input of the network.
    once: the result in the image's own orientation, not clipped.
    mean: the mean of the results in several orientations, which is better than each of them (EDSR's self-ensemble,
        Lim et al. 2017).
    matched: the image that the matcher compares, in [0, 1].
    """

    enhanced: Tensor
    once: Tensor
    mean: Tensor
    matched: Tensor


@dataclass(frozen=True)
class Restored:
    """The network's result.

    sr: `[B, 3, H, W]`, not clipped.
    transferred: the references' pixels, moved to where they match the image (see `overlapped`), `[B, 3, H, W]`; None
        without references.
    """

    sr: Tensor
    transferred: Tensor | None = None


class ReferenceNetwork(ModelMixin, ConfigMixin):
    """The Ref-SR half: from an enhanced image, references and matches to the super-resolved image.

    Args:
        extractor: "vgg19" or "vgg19_imagenet" (def-base, the paper) or "mini" (def-mini); see `make_extractor`.
        features, blocks: sizes of the `Aggregator`; the defaults are the paper's.
        folded: use the `FoldedAggregator`. It blends in the references' own pixels, and its residual is added to `A†y`
            instead of I_DE.
        match_estimate: match with the network's results without references instead of I_DE. They are closer to the
            truth, and better images give better matches.
        operator: name of the degradation A.
        deformable: transfer by deformable convolution (eq. 13); otherwise by `HardTransfer`.
        ttsr: use TTSR's own transfer and integration, for its published weights (`def_hub.convert.ttsr`). The three
            `features` must be equal. The result does not depend on I_DE.
        known: planes that describe the degradation, which LR images may carry behind their three channels.

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
        known: int = 0,
    ) -> None:
        super().__init__()
        parts = make_parts(extractor, features, blocks, folded=folded, deformable=deformable, ttsr=ttsr, known=known)
        self.feature_extractor = parts.extractor
        self.transfer = parts.transfer
        self.aggregator = parts.aggregator
        self._operator = Downsample(operator)

    @classmethod
    def from_pretrained(cls, name: Any, **options: Any) -> ReferenceNetwork:
        """Load the network from a folder or the Hub (`subfolder="refsr"` within a pipeline), from safetensors only.

        Raises:
            ValueError: for `use_safetensors=False`, or if a tensor is missing or does not belong to this network.
            OSError: if there is no such network, or only a pickle of it.
        """
        if not options.pop("use_safetensors", True):
            raise ValueError(
                "use_safetensors=False: weights are read from safetensors only, unpickling can run any code"
            )
        _check_files(name, options)
        try:
            network, info = super().from_pretrained(name, use_safetensors=True, output_loading_info=True, **options)
        except OSError as error:
            if "safetensors" not in str(error):
                raise
            raise OSError(f"{error} A pickle (.bin) is not read: it can run any code when it is") from error
        # the base class only warns and continues with random weights
        for what, key in (("lacks", "missing_keys"), ("has no place for", "unexpected_keys")):
            if info[key]:
                raise ValueError(f"{name}: {what} {sorted(info[key])[0]}; these are not weights of this network")
        return network

    def memory(self, device: torch.device) -> FeatureMemory:
        """A new cache of features, for the matcher and for `restored`."""
        return FeatureMemory(self.feature_extractor, device, len(self.transfer))

    # `apply_forward_hook`: with CPU offload the method moves the weights to the device, as `forward` does.

    @apply_forward_hook
    def estimate(self, y: Tensor, enhanced: Tensor, turns: int = 1) -> Estimate:
        """The network's results without references.

        Args:
            y: LR image `[B, 3, h, w]`.
            enhanced: I_DE `[B, 3, H, W]`.
            turns: number of orientations (1, 2 or 4) in the mean, at most the aggregator's `most_turns`.
        """
        once = mean = self._without_reference(y, enhanced)
        turns = min(turns, self.aggregator.most_turns)
        if turns > 1:
            others = (self._turned(y, enhanced, 4 // turns * k) for k in range(1, turns))
            mean = sum(others, once) / turns
        matched = once.detach().clamp(0, 1) if self.config.match_estimate else enhanced
        return Estimate(enhanced, once, mean, matched)

    @torch.no_grad()
    def worth(self, sharp: Tensor) -> float:
        """How far the detail of a reference `[1, 3, H, W]` is believed, 0 … 1, without a prior: see `detail_worth`."""
        small = self._operator.forward(sharp).clamp(0, 1)
        restored = self.estimate(small, self._operator.pinv(small)).once.clamp(0, 1)
        return detail_worth(sharp, restored, self._operator)

    @apply_forward_hook
    def restored(
        self,
        y: Tensor,
        estimate: Estimate,
        references: Sequence[Tensor],
        matches: Correspondence | None,
        features: FeatureMemory,
    ) -> Restored:
        """The image with the references' texture, transferred along the matches and blended in (4.4, eq. 7, 13).

        The references change the result of one orientation only. Where no reference is trusted, the mean over
        orientations replaces it.

        Args:
            y: LR image `[B, 3, h, w]`.
            estimate: the results for the image without references.
            references: pixels `[B, 3, Hr, Wr]` of each reference.
            matches: the place and the confidence of each cell; cells of confidence 0 take nothing from the references.
                None without references.
            features: cache of the extractor; the features of images that the matcher has seen are in it.
        """
        if matches is None:
            return Restored(estimate.mean)
        texture = _TextureReader(self, estimate.matched, references, matches, features)
        residual, transferred = self._residual(y, estimate.enhanced, texture).split(3, dim=1)
        sr = self._base(y, estimate.enhanced) + residual  # eq. 7
        if estimate.mean is not estimate.once:
            sr = sr + (1 - spread(matches.confidence, 1)) * (estimate.mean - estimate.once)
        return Restored(sr, transferred)

    def forward(self, *arguments: Any, **options: Any) -> Restored:
        """The same as `restored`."""
        return self.restored(*arguments, **options)

    def _without_reference(self, y: Tensor, enhanced: Tensor) -> Tensor:
        """The result `[B, 3, H, W]` in one orientation, not clipped."""
        return self._base(y, enhanced) + self._residual(y, enhanced)

    def _turned(self, y: Tensor, enhanced: Tensor, quarters: int) -> Tensor:
        """The result for the image turned by some quarter turns, turned back."""
        turned = (x.rot90(quarters, (-2, -1)) for x in (y, enhanced))
        return self._without_reference(*turned).rot90(-quarters, (-2, -1))

    def _base(self, y: Tensor, enhanced: Tensor) -> Tensor:
        """The image that the residual is added to."""
        return self.aggregator.base(self._operator, y[:, :3], enhanced)

    def _residual(self, y: Tensor, enhanced: Tensor, texture: _TextureReader | None = None) -> Tensor:
        """The aggregator's residual `[B, 3, H, W]`, computed in tiles. With `texture`, three more channels hold the
        transferred pixels of the references: `[B, 6, H, W]`."""

        def residual(window: Window) -> Tensor:
            lr, hr = _cells(window).cut(y), window.cut(enhanced)
            if texture is None:
                return self.aggregator(lr, hr, None).float()
            transferred, pixels = texture.read(window)
            return torch.cat((self.aggregator(lr, hr, transferred).float(), pixels), dim=1)

        height, width = enhanced.shape[2:]
        return tiled(residual, height, width, TILE, CELL * self._receptive_radius, multiple=CELL)

    @property
    def _receptive_radius(self) -> int:
        """Radius of the aggregator's receptive field in cells: two for each block, and 16 for all other layers."""
        return 2 * sum(self.config.blocks) + 16


class _TextureReader:
    """Transfers the references' texture to windows of the image."""

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

    def read(self, window: Window) -> tuple[Texture, Tensor]:
        """The texture for a window (in HR pixels), and the references' pixels there, `[B, 3, height, width]`."""
        # The features of a part of the image are needed once. They are not cached, so the window bounds the memory.
        whole = (window.height, window.width) == self.guide.shape[2:]
        guides = self.features(self.guide) if whole else self.features.once(window.cut(self.guide))
        matches = self.matches.cut(_cells(window))
        maps = [
            transfer([pyramid[-1 - i] for pyramid in self.pyramids], guides[-1 - i], matches, stride)  # eq. 13
            for i, (transfer, stride) in enumerate(zip(self.network.transfer, STRIDES, strict=False))
        ]
        pixels = overlapped(self.references, matches)
        maps += self.network.aggregator.finest_texture(self.network._operator, pixels)
        return Texture(maps, [spread(matches.confidence, stride) for stride in STRIDES]), pixels


def _check_files(name: Any, options: dict[str, Any]) -> None:
    """Raise ValueError for a folder or a repository whose files say what they may not, see `def_hub.hub.contents`."""
    folder = Path(name) / (options.get("subfolder") or "").strip("/")
    if (folder / "config.json").is_file():
        check_network(folder, ReferenceNetwork.__name__, options.get("variant"))
    elif not Path(name).is_dir():
        where = {key: options[key] for key in OPTIONS if key in options}
        check_config(ReferenceNetwork.load_config(name, **where), str(name), ReferenceNetwork.__name__)


def _cells(window: Window) -> Window:
    """A window in HR pixels → the same window in cells (LR pixels)."""
    return Window(window.top // CELL, window.left // CELL, window.height // CELL, window.width // CELL)

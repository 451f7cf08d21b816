"""Aggregator: image features + transferred features + confidence → residual (paper 4.4, eq. 7; TTSR's cross-scale
integration).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from def_hub.observation.downsample import SCALE, Downsample

STRIDES = (SCALE, SCALE // 2, SCALE // 4)
"""HR pixels per feature along a side, for each level of features, coarse to fine."""


@dataclass(frozen=True)
class Texture:
    """The transferred features and their confidence, coarse to fine.

    features: `[B, C_i, H/s, W/s]` for the strides s = 4, 2, 1.
    confidence: `[B, 1, H/s, W/s]` for the same strides, in [0, 1].
    """

    features: Sequence[Tensor]
    confidence: Sequence[Tensor]


class Aggregator(nn.Module):
    """Blends transferred texture into the image, coarse to fine. Returns the residual for the enhanced image.

    The trunk sees the LR image and the enhanced image, folded onto the LR grid. Stage 1 works at one scale; stages 2
    and 3 each add a finer one. A stage adds the texture of its finest scale, weighted by the confidence:
    `x + C · conv([x, T])`. Then its scales exchange features. With confidence 0, or without texture, the result does
    not depend on the references.

    Args:
        texture: channels of the transferred features at the three scales, coarse to fine.
        features: channels of the three scales, coarse to fine (64, 64, 64 in the paper).
        blocks: numbers of residual blocks: of the trunk, then of each scale in stage 1, 2 and 3 (16, 16, 8, 4 in the
            paper).
        known: planes of `observation.degradation.planes` that `y` may carry behind its three channels. Their weights
            start at zero, and absent planes count as zeros: a clean picture.
    """

    def __init__(
        self,
        texture: tuple[int, int, int],
        features: tuple[int, int, int],
        blocks: tuple[int, int, int, int],
        known: int = 0,
    ) -> None:
        super().__init__()
        self.head = _head(features[0], known)
        self.trunk = _residual_blocks(features[0], blocks[0])
        self.inject = nn.ModuleList(_conv3(n + t, n) for n, t in zip(features, texture, strict=True))
        self.grow = nn.ModuleList(Resample(a, b, 2, 1) for a, b in zip(features, features[1:], strict=False))
        self.exchange = nn.ModuleList(CrossScale(features[:n]) for n in (2, 3))
        self.stages = nn.ModuleList(
            nn.ModuleList(_residual_blocks(width, blocks[stage + 1]) for width in features[: stage + 1])
            for stage in range(3)
        )
        self.merge = nn.ModuleList(Resample(n, features[2], s, 1) for n, s in zip(features, STRIDES, strict=True))
        self.tail = nn.Sequential(_conv3(features[2], features[2]), nn.ReLU(), _conv3(features[2], 3))
        _zero(self.tail[-1])

    most_turns = 4

    @staticmethod
    def base(operator: Downsample, y: Tensor, enhanced: Tensor) -> Tensor:
        """The image that the residual is added to: the enhanced image."""
        return enhanced

    @staticmethod
    def finest_texture(operator: Downsample, pixels: Tensor) -> list[Tensor]:
        """Texture in addition to the features: none, because the features already have full resolution."""
        return []

    def forward(self, y: Tensor, enhanced: Tensor, texture: Texture | None) -> Tensor:
        """LR image `[B, 3 + known, h, w]` (or `[B, 3, h, w]`), enhanced image `[B, 3, H, W]` and the texture → residual
        `[B, 3, H, W]`."""
        x = self.head(_on_the_grid(y, enhanced, self.head.in_channels))
        scales = [x + self.trunk(x)]  # [B,C1,h,w]
        for stage in range(3):
            if stage > 0:
                scales.append(self.grow[stage - 1](scales[-1]))
            if texture is not None:
                both = torch.cat((scales[-1], texture.features[stage]), dim=1)
                scales[-1] = scales[-1] + texture.confidence[stage] * self.inject[stage](both)
            if stage > 0:
                scales = self.exchange[stage - 1](scales)
            scales = [self.stages[stage][i](s) for i, s in enumerate(scales)]  # type: ignore[index]
        merged = sum(merge(s) for merge, s in zip(self.merge, scales, strict=True))
        return self.tail(F.relu(merged))


class FoldedAggregator(nn.Module):
    """The aggregator of def-mini. It works on the LR grid only; finer textures are folded into channels.

    This deviation from the paper makes it fast on two CPU cores: only the last blend runs at full resolution.

    The finest texture is the null-space part `d` of the matched reference pixels: their detail without what the
    degradation keeps. The output blends `d` with the network's residual `r` by a mask per pixel: `r + M · (d - r)` with
    `M = C · sigmoid(·)`.

    Arguments and interface as `Aggregator`, except that all scales have the same number of channels (`features`).
    """

    def __init__(
        self, texture: tuple[int, int, int], features: int, blocks: tuple[int, int, int, int], known: int = 0
    ) -> None:
        super().__init__()
        cell = STRIDES[0] ** 2
        self.head = _head(features, known)
        self.trunk = _residual_blocks(features, blocks[0])
        folded = [t * (STRIDES[0] // s) ** 2 for t, s in zip(texture, STRIDES, strict=True)]
        self.inject = nn.ModuleList(_conv3(features + t, features) for t in folded)
        self.stages = nn.ModuleList(_residual_blocks(features, n) for n in blocks[1:])
        self.tail = _conv3(features, 3 * cell)
        self.mask = _conv3(features, cell)
        _zero(self.tail)
        _zero(self.mask)

    most_turns = 4

    @staticmethod
    def base(operator: Downsample, y: Tensor, enhanced: Tensor) -> Tensor:
        """The image that the residual is added to: `A†y`, which depends on the input alone."""
        return operator.pinv(y)

    @staticmethod
    def finest_texture(operator: Downsample, pixels: Tensor) -> list[Tensor]:
        """Texture in addition to the features: the null-space part of the matched pixels `[B, 3, H, W]`."""
        return [pixels - operator.pinv(operator.forward(pixels))]

    def forward(self, y: Tensor, enhanced: Tensor, texture: Texture | None) -> Tensor:
        """As `Aggregator.forward`."""
        x = self.head(_on_the_grid(y, enhanced, self.head.in_channels, middle=0.5))
        x = x + self.trunk(x)  # [B,C,h,w]
        for stage, blocks in enumerate(self.stages):
            if texture is not None:
                folded = F.pixel_unshuffle(texture.features[stage], STRIDES[0] // STRIDES[stage])
                x = x + texture.confidence[0] * self.inject[stage](torch.cat((x, folded), dim=1))
            x = blocks(x)
        residual = F.pixel_shuffle(self.tail(x), STRIDES[0])
        if texture is None:
            return residual
        mask = texture.confidence[2] * F.pixel_shuffle(self.mask(x), STRIDES[0]).sigmoid()
        return residual + mask * (texture.features[2] - residual)


class CrossScale(nn.Module):
    """Each scale adds the features of the other scales, resampled by one 1×1 convolution each (TTSR's CSFI)."""

    def __init__(self, features: Sequence[int]) -> None:
        super().__init__()
        strides = STRIDES[: len(features)]
        self.paths = nn.ModuleList(
            nn.ModuleList(Resample(a, b, s, t) for a, s in zip(features, strides, strict=True) if s != t)
            for b, t in zip(features, strides, strict=True)
        )

    def forward(self, scales: list[Tensor]) -> list[Tensor]:
        mixed = []
        for target, paths in enumerate(self.paths):
            others = scales[:target] + scales[target + 1 :]
            mixed.append(scales[target] + sum(paths[i](s) for i, s in enumerate(others)))  # type: ignore[index]
        return mixed


class Resample(nn.Module):
    """A 1×1 convolution from `inputs` channels at stride `source` to `outputs` channels at stride `target`.

    Pixels are folded into channels or unfolded from channels; there is no interpolation.
    """

    def __init__(self, inputs: int, outputs: int, source: int, target: int) -> None:
        super().__init__()
        self.up, self.down = max(source // target, 1), max(target // source, 1)
        self.conv = nn.Conv2d(inputs * self.down**2, outputs * self.up**2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(F.pixel_unshuffle(x, self.down)), self.up)


class ResidualBlock(nn.Module):
    """conv, ReLU, conv, skip. It is initialised as the identity, so that deep stacks train from the first step."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = _conv3(width, width)
        self.conv2 = _conv3(width, width)
        _zero(self.conv2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


def _head(features: int, known: int) -> nn.Conv2d:
    """From the LR image, the folded enhanced image and planes of what is known, whose weights start at zero."""
    images = 3 + 3 * STRIDES[0] ** 2
    head = _conv3(images + known, features)
    nn.init.zeros_(head.weight[:, images:])
    return head


def _on_the_grid(y: Tensor, enhanced: Tensor, channels: int, middle: float = 0.0) -> Tensor:
    """LR image and folded enhanced image, both less `middle`, and planes of what is known: `[B, channels, h, w]`.

    Channels last: convolutions keep that layout, which is the fastest for them, in half precision by far.
    """
    images = torch.cat((y[:, :3], F.pixel_unshuffle(enhanced, STRIDES[0])), dim=1)
    images = images - middle if middle else images
    if y.shape[1] > 3:
        images = torch.cat((images, y[:, 3:]), dim=1)
    images = F.pad(images, (0, 0, 0, 0, 0, channels - images.shape[1]))  # absent planes: clean
    return images.contiguous(memory_format=torch.channels_last)


def _residual_blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width) for _ in range(count)))


def _conv3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _zero(conv: nn.Module) -> None:
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)

"""FeatureExtractor: image → pyramid of three feature maps at 1, ½ and ¼ resolution; frozen (paper 4.3, eq. 10)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from def_hub.precision import compute_in

Pyramid = Sequence[Tensor]
ExtractorName = Literal["vgg19", "vgg19_imagenet", "mini"]
BAND, BAND_MARGIN = 256, 32
"""Rows of a picture whose features are computed at a time, and how many on either side influence them, at most:
multiples of 4."""


class FeatureExtractor(nn.Module):
    """Maps images `[B, 3, H, W]` in [0, 1], sides multiples of 4, to `[B, C1, H, W]`, `[B, C2, H/2, W/2]`, `[B, C3,
    H/4, W/4]`.
    """

    channels: tuple[int, int, int]

    def forward(self, image: Tensor) -> Pyramid:
        raise NotImplementedError


class VGG19Features(FeatureExtractor):
    """VGG19 cut at relu1_1, relu2_1 and relu3_1 (the paper's).

    `conv0` is the 1×1 convolution that brings images in [0, 1] RGB into the range of the weights. Two kinds of weights
    exist: the channel-normalised ones of style transfer pad by reflection, those of ImageNet (`def_hub.convert.vgg`)
    with zeros. Pooling keeps odd sizes.
    """

    channels = (64, 128, 256)

    def __init__(self, padding_mode: Literal["reflect", "zeros"] = "reflect") -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 3, 1)
        self.conv1_1 = _conv3(3, 64, padding_mode=padding_mode)
        self.conv1_2 = _conv3(64, 64, padding_mode=padding_mode)
        self.conv2_1 = _conv3(64, 128, padding_mode=padding_mode)
        self.conv2_2 = _conv3(128, 128, padding_mode=padding_mode)
        self.conv3_1 = _conv3(128, 256, padding_mode=padding_mode)

    def forward(self, image: Tensor) -> Pyramid:
        first = F.relu(self.conv1_1(self.conv0(image)))
        second = F.relu(self.conv2_1(_pool(F.relu(self.conv1_2(first)))))
        third = F.relu(self.conv3_1(_pool(F.relu(self.conv2_2(second)))))
        return first, second, third

    @classmethod
    def from_safetensors(cls, path: str | Path) -> VGG19Features:
        """Load a file with exactly this module's tensors. Raises RuntimeError where a name or a shape differs."""
        extractor = cls()
        extractor.load_state_dict(load_file(path))
        return extractor


class MiniFeatures(FeatureExtractor):
    """A fortieth of VGG19's arithmetic, trained for correspondence (`def_hub.training.tasks.ExtractorTask`).

    The first level carries the pixels themselves beside its filters, so that what is transferred at full resolution
    can be the reference's own texture; the third has no rectifier, because cosine similarity separates better with
    both signs.
    """

    def __init__(self, channels: tuple[int, int, int] = (16, 32, 64)) -> None:
        super().__init__()
        self.channels = channels
        first, second, third = channels
        self.conv1 = _conv3(3, first - 3)
        self.conv2_down = _conv3(first, second, stride=2)
        self.conv2 = _conv3(second, second)
        self.conv3_down = _conv3(second, third, stride=2)
        self.conv3 = _conv3(third, third)

    def forward(self, image: Tensor) -> Pyramid:
        image = image - 0.5
        first = torch.cat((image, F.relu(self.conv1(image))), dim=1)
        second = F.relu(self.conv2(F.relu(self.conv2_down(first))))
        third = self.conv3(F.relu(self.conv3_down(second)))
        return first, second, third


def in_bands(extractor: nn.Module, image: Tensor, levels: int) -> Pyramid:
    """The last `levels` of the pyramid of `image` `[B, 3, H, W]`, sides multiples of 4, computed in bands of rows: the
    first level of a large picture, which is several times the picture, is never held as a whole.
    """
    height = image.shape[2]
    bands = []
    for top in range(0, height, BAND):
        bottom, first = min(top + BAND, height), max(top - BAND_MARGIN, 0)
        pyramid = extractor(image[:, :, first : bottom + BAND_MARGIN])
        strides = [2**level for level in range(len(pyramid))]
        rows = [slice((top - first) // s, (bottom - first) // s) for s in strides]
        bands.append([level[:, :, r] for level, r in zip(pyramid, rows, strict=True)][-levels:])
    return tuple(torch.cat(level, dim=2) for level in zip(*bands, strict=True))


def in_own_precision(extractor: nn.Module) -> Callable[[Tensor], Pyramid]:
    """The extractor for images of any precision, outside of `torch.autocast`: what is made of the features is not to be
    rounded as they are."""
    weight = next(extractor.parameters())

    def extract(image: Tensor) -> Pyramid:
        with compute_in("float32", image.device, weight.dtype):
            return extractor(image)

    return extract


def make_extractor(name: ExtractorName) -> FeatureExtractor:
    """An extractor by the name that a checkpoint's configuration records. Raises ValueError for an unknown name."""
    if name == "vgg19":
        return VGG19Features()
    if name == "vgg19_imagenet":
        return VGG19Features(padding_mode="zeros")
    if name == "mini":
        return MiniFeatures()
    raise ValueError(f"extractor must be 'vgg19', 'vgg19_imagenet' or 'mini', got {name!r}")


def _conv3(
    inputs: int, outputs: int, stride: int = 1, padding_mode: Literal["reflect", "zeros"] = "reflect"
) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, padding_mode=padding_mode)


def _pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, ceil_mode=True)

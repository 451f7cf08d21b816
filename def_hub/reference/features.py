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
"""Features are computed in bands of `BAND` rows of the image. No feature depends on rows further than `BAND_MARGIN`
from its band. Both are multiples of 4."""


class FeatureExtractor(nn.Module):
    """Maps images `[B, 3, H, W]` in [0, 1] with sides that are multiples of 4 to three feature maps: `[B, C1, H, W]`,
    `[B, C2, H/2, W/2]` and `[B, C3, H/4, W/4]`. `channels` holds C1, C2, C3.
    """

    channels: tuple[int, int, int]

    def forward(self, image: Tensor) -> Pyramid:
        raise NotImplementedError


class VGG19Features(FeatureExtractor):
    """VGG19 up to relu3_1, with its outputs at relu1_1, relu2_1 and relu3_1 (the paper's extractor).

    `conv0` is a 1×1 convolution that maps RGB images in [0, 1] to the range that the weights expect. There are two
    kinds of weights. The channel-normalised ones of style transfer pad by reflection; those of ImageNet
    (`def_hub.convert.vgg`) pad with zeros. Pooling rounds odd sizes up.
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
        """Load a file with exactly this module's tensors. Raises RuntimeError if a name or a shape differs."""
        extractor = cls()
        extractor.load_state_dict(load_file(path))
        return extractor


class MiniFeatures(FeatureExtractor):
    """A small extractor with a fortieth of VGG19's arithmetic, trained by `def_hub.training.extractor.ExtractorTask`.

    The first level contains the pixels themselves in addition to its filters: the transfer at full resolution can then
    copy the reference's own texture. The third level ends without ReLU, because cosine similarity separates features of
    both signs better.
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
    """The last `levels` levels of the pyramid of `image` `[B, 3, H, W]`, with sides that are multiples of 4.

    They are computed in bands of rows. The first level of a large image takes several times the image's memory, and is
    therefore never held as a whole unless all levels are asked for.
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
    """The extractor as a function that computes in the precision of its own weights. It is called outside of
    `torch.autocast`, so that autocast does not round what the caller computes from the features."""
    weight = next(extractor.parameters())

    def extract(image: Tensor) -> Pyramid:
        with compute_in("float32", image.device, weight.dtype):
            return extractor(image)

    return extract


def make_extractor(name: ExtractorName) -> FeatureExtractor:
    """The extractor called `name` in a checkpoint's configuration. Raises ValueError for an unknown name."""
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

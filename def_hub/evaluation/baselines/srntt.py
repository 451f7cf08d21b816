"""SRNTT: Zhang et al., "Image Super-Resolution by Neural Texture Transfer", CVPR 2019.

VGG19 features of the reference are swapped in for those of the image, patch by patch, and blended in at three scales.
5.75 million parameters without VGG19. The authors' release is in TensorFlow with a file format of its own; modules are
named as in the PyTorch port of S-aiueo32, whose variant without normalisation later papers count.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from def_hub.evaluation.baselines.patches import match, transfer
from def_hub.observation.downsample import Downsample
from def_hub.reference.features import VGG19Features

SLOPE = 0.1
"""Of the leaky ReLU."""


class SRNTT(nn.Module):
    """Content extractor, matching in VGG19 at relu3_1, texture transfer.

    Args:
        features: channels.
        blocks: residual blocks of every part.
    """

    def __init__(self, features: int = 64, blocks: int = 16) -> None:
        super().__init__()
        self.vgg = VGG19Features(padding_mode="zeros").requires_grad_(False)
        self.srntt = _Restoration(features, blocks)

    def forward(self, image: Tensor, references: Sequence[Tensor] = ()) -> Tensor:
        """`[B,3,h,w]` and at most one reference `[B,3,Hr,Wr]`, in `[0,1]` → `[B,3,4h,4w]`.

        Of several references the first is used. Sides must be 3 at least in the image, and 12 in the reference.
        """
        if not references:
            return self.srntt(image, None)
        operator = Downsample("bicubic", 4)
        height, width = (side - side % 4 for side in references[0].shape[-2:])
        reference = references[0][..., :height, :width]
        blurred = operator.upsample(operator.forward(reference).clamp(0, 1))
        with torch.no_grad():
            index, _ = match(self.vgg(operator.upsample(image))[2], self.vgg(blurred)[2])
            pyramid = self.vgg(reference)
            swapped = [transfer(pyramid[level], index, 2 ** (2 - level), border=0) for level in (2, 1, 0)]
        return self.srntt(image, swapped)


class _Restoration(nn.Module):
    def __init__(self, features: int, blocks: int) -> None:
        super().__init__()
        self.content_extractor = _Content(features, blocks)
        self.texture_transfer = _Texture(features, blocks)

    def forward(self, image: Tensor, swapped: Sequence[Tensor] | None) -> Tensor:
        base = F.interpolate(image, scale_factor=4, mode="bilinear", align_corners=False)
        content = self.content_extractor(image)
        if swapped is None:
            return base + self.content_extractor.tail(content)
        return base + self.texture_transfer(content, swapped)


class _Content(nn.Module):
    """Features of the image; `tail` makes a picture of them where there is no reference."""

    def __init__(self, features: int, blocks: int) -> None:
        super().__init__()
        self.head = nn.Sequential(_conv3(3, features), nn.LeakyReLU(SLOPE))
        self.body = nn.Sequential(*(_Block(features) for _ in range(blocks)))
        self.tail = nn.Sequential(
            *_double(features),
            *_double(features),
            _conv3(features, features),
            nn.LeakyReLU(SLOPE),
            _conv3(features, 3),
        )

    def forward(self, image: Tensor) -> Tensor:
        x = self.head(image)
        return x + self.body(x)


class _Texture(nn.Module):
    """Swapped features blended in at ¼, ½ and full resolution."""

    def __init__(self, features: int, blocks: int) -> None:
        super().__init__()
        self.head_small = nn.Sequential(_conv3(features + 256, features), nn.LeakyReLU(SLOPE))
        self.body_small = nn.Sequential(*(_Block(features) for _ in range(blocks)))
        self.tail_small = nn.Sequential(*_double(features))
        self.head_medium = nn.Sequential(_conv3(features + 128, features), nn.LeakyReLU(SLOPE))
        self.body_medium = nn.Sequential(*(_Block(features) for _ in range(blocks)))
        self.tail_medium = nn.Sequential(*_double(features))
        self.head_large = nn.Sequential(_conv3(features + 64, features), nn.LeakyReLU(SLOPE))
        self.body_large = nn.Sequential(*(_Block(features) for _ in range(blocks)))
        self.tail_large = nn.Sequential(_conv3(features, features // 2), nn.LeakyReLU(SLOPE), _conv3(features // 2, 3))

    def forward(self, x: Tensor, swapped: Sequence[Tensor]) -> Tensor:
        parts = (
            (self.head_small, self.body_small, self.tail_small),
            (self.head_medium, self.body_medium, self.tail_medium),
            (self.head_large, self.body_large, self.tail_large),
        )
        for texture, (head, body, tail) in zip(swapped, parts, strict=True):
            x = tail(x + body(head(torch.cat((x, texture), dim=1))))
        return x


class _Block(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv3(features, features), nn.ReLU(), _conv3(features, features))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _double(features: int) -> list[nn.Module]:
    return [_conv3(features, 4 * features), nn.PixelShuffle(2), nn.LeakyReLU(SLOPE)]


def _conv3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)

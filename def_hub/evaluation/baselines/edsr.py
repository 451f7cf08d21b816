"""EDSR: Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPR Workshops 2017.

Residual blocks without normalisation: 43 million parameters, or 1.5 million in the baseline variant.
"""

import torch
from torch import Tensor, nn

MEAN = (0.4488, 0.4371, 0.4040)
"""Mean colour of DIV2K, which is subtracted."""


class EDSR(nn.Module):
    """The paper's network at ×4; modules are named as in the authors' PyTorch release.

    Args:
        features: channels.
        blocks: residual blocks.
        residual_scale: what the result of a block is multiplied by, before its input is added.
    """

    def __init__(self, features: int = 256, blocks: int = 32, residual_scale: float = 0.1) -> None:
        super().__init__()
        self.sub_mean = _shift(-255)
        self.add_mean = _shift(255)
        self.head = nn.Sequential(_conv3(3, features))
        residual_blocks = (_Block(features, residual_scale) for _ in range(blocks))
        self.body = nn.Sequential(*residual_blocks, _conv3(features, features))
        self.tail = nn.Sequential(
            nn.Sequential(
                _conv3(features, 4 * features),
                nn.PixelShuffle(2),
                _conv3(features, 4 * features),
                nn.PixelShuffle(2),
            ),
            _conv3(features, 3),
        )

    def forward(self, image: Tensor) -> Tensor:
        """`[B,3,h,w]` in `[0,1]` → `[B,3,4h,4w]`."""
        x = self.head(self.sub_mean(255 * image))  # it was trained on 0 to 255
        return self.add_mean(self.tail(self.body(x) + x)) / 255


def edsr_baseline(features: int = 64, blocks: int = 16) -> EDSR:
    """The small variant: 16 blocks of 64 channels, nothing scaled."""
    return EDSR(features, blocks, residual_scale=1.0)


class _Block(nn.Module):
    def __init__(self, features: int, residual_scale: float) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv3(features, features), nn.ReLU(), _conv3(features, features))
        self.residual_scale = residual_scale

    def forward(self, x: Tensor) -> Tensor:
        return x + self.residual_scale * self.body(x)


def _shift(by: float) -> nn.Conv2d:
    """Adds `by` times the mean colour. The authors' checkpoints hold it as a fixed convolution."""
    shift = nn.Conv2d(3, 3, 1).requires_grad_(False)
    shift.weight.copy_(torch.eye(3)[..., None, None])
    shift.bias = nn.Parameter(by * torch.tensor(MEAN), requires_grad=False)
    return shift


def _conv3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)

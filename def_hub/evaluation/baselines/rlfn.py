"""RLFN: Kong et al., "Residual Local Feature Network for Efficient Super-Resolution", CVPR Workshops 2022.

The paper's larger variant: 52 channels, six blocks, 0.54 million parameters at ×4.
"""

import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.05
"""Of the leaky ReLU."""
SMALLEST = 15
"""Side below which the pooling of the attention would have nothing left."""


class RLFN(nn.Module):
    """Six residual local feature blocks between two convolutions, then sub-pixel enlargement.

    Args:
        features: channels.
        attention: channels inside the attention of each block.
        scale: how many times larger the result is.
    """

    def __init__(self, features: int = 52, attention: int = 16, scale: int = 4) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(3, features, 3, padding=1)
        self.block_1 = _Block(features, attention)
        self.block_2 = _Block(features, attention)
        self.block_3 = _Block(features, attention)
        self.block_4 = _Block(features, attention)
        self.block_5 = _Block(features, attention)
        self.block_6 = _Block(features, attention)
        self.conv_2 = nn.Conv2d(features, features, 3, padding=1)
        self.upsampler = nn.Sequential(nn.Conv2d(features, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, image: Tensor) -> Tensor:
        """`[B,3,h,w]` in `[0,1]` → `[B,3,4h,4w]`. Raises ValueError for sides under 15, which the attention needs."""
        if min(image.shape[-2:]) < SMALLEST:
            raise ValueError(f"RLFN needs at least {SMALLEST}×{SMALLEST} pixels, got {list(image.shape)}")
        shallow = self.conv_1(255 * image)  # it was trained on 0 to 255
        x = shallow
        for block in (self.block_1, self.block_2, self.block_3, self.block_4, self.block_5, self.block_6):
            x = block(x)
        return self.upsampler(self.conv_2(x) + shallow) / 255


class _Block(nn.Module):
    """Three convolutions with a shortcut, then attention."""

    def __init__(self, features: int, attention: int) -> None:
        super().__init__()
        self.c1_r = nn.Conv2d(features, features, 3, padding=1)
        self.c2_r = nn.Conv2d(features, features, 3, padding=1)
        self.c3_r = nn.Conv2d(features, features, 3, padding=1)
        self.c5 = nn.Conv2d(features, features, 1)
        self.esa = _SpatialAttention(features, attention)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for conv in (self.c1_r, self.c2_r, self.c3_r):
            y = F.leaky_relu(conv(y), SLOPE)
        return self.esa(self.c5(y + x))


class _SpatialAttention(nn.Module):
    """Enhanced spatial attention (ESA): each pixel is weighted by what a wide surrounding holds."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, width, 1)
        self.conv_f = nn.Conv2d(width, width, 1)
        self.conv2 = nn.Conv2d(width, width, 3, stride=2)
        self.conv3 = nn.Conv2d(width, width, 3, padding=1)
        self.conv4 = nn.Conv2d(width, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.conv1(x)  # [B,16,h,w]
        wide = self.conv3(F.max_pool2d(self.conv2(narrow), 7, stride=3))  # [B,16,~h/6,~w/6]
        wide = F.interpolate(wide, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return x * self.conv4(wide + self.conv_f(narrow)).sigmoid()

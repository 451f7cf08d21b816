"""RRDB: Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks", ECCV Workshops 2018.

The generator of ESRGAN, and of many that followed (RealSR, Real-ESRGAN): 23 residual-in-residual dense blocks,
16.7 million parameters at ×4.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2
"""Of the leaky ReLU."""
RESIDUAL = 0.2
"""By how much the result of a block is multiplied before its input is added."""


class RRDBNet(nn.Module):
    """Dense blocks on the LR grid, then nearest-neighbour enlargement by 2, twice, each followed by a convolution.

    Modules are named as in BasicSR; `basicsr_name` translates the names of the original release.

    Args:
        features: channels.
        blocks: how many residual-in-residual dense blocks.
        growth: channels that each convolution in a dense block adds.
    """

    def __init__(self, features: int = 64, blocks: int = 23, growth: int = 32) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(3, features, 3, padding=1)
        self.body = nn.Sequential(*(_ResidualInResidual(features, growth) for _ in range(blocks)))
        self.conv_body = nn.Conv2d(features, features, 3, padding=1)
        self.conv_up1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv_up2 = nn.Conv2d(features, features, 3, padding=1)
        self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
        self.conv_last = nn.Conv2d(features, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """`[B,3,h,w]` in `[0,1]` → `[B,3,4h,4w]`."""
        x = self.conv_first(image)
        x = x + self.conv_body(self.body(x))
        for conv in (self.conv_up1, self.conv_up2):
            x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2, mode="nearest")), SLOPE)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), SLOPE))


class _ResidualInResidual(nn.Module):
    """Three dense blocks in a row and a shortcut around them."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = _Dense(features, growth)
        self.rdb2 = _Dense(features, growth)
        self.rdb3 = _Dense(features, growth)

    def forward(self, x: Tensor) -> Tensor:
        return x + RESIDUAL * self.rdb3(self.rdb2(self.rdb1(x)))


class _Dense(nn.Module):
    """Five convolutions, each of which sees the results of all before it."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, growth, 3, padding=1)
        self.conv2 = nn.Conv2d(features + growth, growth, 3, padding=1)
        self.conv3 = nn.Conv2d(features + 2 * growth, growth, 3, padding=1)
        self.conv4 = nn.Conv2d(features + 3 * growth, growth, 3, padding=1)
        self.conv5 = nn.Conv2d(features + 4 * growth, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen = torch.cat((seen, F.leaky_relu(conv(seen), SLOPE)), dim=1)
        return x + RESIDUAL * self.conv5(seen)


def basicsr_name(name: str) -> str:
    """The name of a tensor in the original release of ESRGAN → in BasicSR, which this file follows."""
    for theirs, ours in (
        ("RRDB_trunk.", "body."),
        (".RDB", ".rdb"),
        ("trunk_conv", "conv_body"),
        ("upconv", "conv_up"),
        ("HRconv", "conv_hr"),
    ):
        name = name.replace(theirs, ours)
    return name

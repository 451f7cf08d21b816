"""SRResNet: the generator of SRGAN (Ledig et al., CVPR 2017) without normalisation, as BasicSR has it, and of RankSRGAN
(Zhang et al., "RankSRGAN: Generative Adversarial Networks with Ranker for Image Super-Resolution", ICCV 2019).

1.5 million parameters at ×4. Only the weights differ between the two; no checkpoint of either was at hand to check this
definition by its numbers.
"""

import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.1
"""Of the leaky ReLU."""


class SRResNet(nn.Module):
    """Residual blocks on the LR grid, sub-pixel enlargement by 2, twice, and a residual on bilinear enlargement.

    Args:
        features: channels.
        blocks: residual blocks.
    """

    def __init__(self, features: int = 64, blocks: int = 16) -> None:
        super().__init__()
        self.conv_first = _conv3(3, features)
        self.body = nn.Sequential(*(ResidualBlock(features) for _ in range(blocks)))
        self.upconv1 = _conv3(features, 4 * features)
        self.upconv2 = _conv3(features, 4 * features)
        self.conv_hr = _conv3(features, features)
        self.conv_last = _conv3(features, 3)

    def forward(self, image: Tensor) -> Tensor:
        """`[B,3,h,w]` in `[0,1]` → `[B,3,4h,4w]`."""
        x = self.body(F.leaky_relu(self.conv_first(image), SLOPE))
        for conv in (self.upconv1, self.upconv2):
            x = F.leaky_relu(F.pixel_shuffle(conv(x), 2), SLOPE)
        x = self.conv_last(F.leaky_relu(self.conv_hr(x), SLOPE))
        return x + F.interpolate(image, scale_factor=4, mode="bilinear", align_corners=False)


class ResidualBlock(nn.Module):
    """Two convolutions with a ReLU between them, and a shortcut."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = _conv3(features, features)
        self.conv2 = _conv3(features, features)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


def basicsr_name(name: str) -> str:
    """The name of a tensor in MMSR, on which RankSRGAN builds → in BasicSR, which this file follows."""
    return name.replace("recon_trunk.", "body.").replace("HRconv", "conv_hr")


def _conv3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)

"""SRCNN: Dong et al., "Image Super-Resolution Using Deep Convolutional Networks", TPAMI 2016.

Three convolutions (9×9, 5×5, 5×5) that sharpen the luma of a bicubic enlargement: 57 thousand parameters.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from def_hub.evaluation.metrics import luma
from def_hub.observation.downsample import Downsample

CHROMA = ((-37.797, -74.203, 112.0), (112.0, -93.786, -18.214))
"""Cb and Cr of BT.601 as MATLAB's `rgb2ycbcr`, which rows of RGB in [0, 1] give, before 128 is added."""


class SRCNN(nn.Module):
    """The variant 9-5-5 of the paper. Colour is what bicubic enlargement makes of it."""

    to_rgb: Tensor

    def __init__(self) -> None:
        super().__init__()
        # the authors filter with replicated borders when they test
        self.conv1 = nn.Conv2d(1, 64, 9, padding=4, padding_mode="replicate")
        self.conv2 = nn.Conv2d(64, 32, 5, padding=2, padding_mode="replicate")
        self.conv3 = nn.Conv2d(32, 1, 5, padding=2, padding_mode="replicate")
        to_ycbcr = torch.tensor([[65.481, 128.553, 24.966], *CHROMA]) / 255
        self.register_buffer("to_rgb", torch.linalg.inv(to_ycbcr), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """`[B,3,h,w]` in `[0,1]` → `[B,3,4h,4w]`."""
        large = Downsample("bicubic", 4).upsample(image)
        y = luma(large) / 255  # [B,1,4h,4w], 16/255 to 235/255
        sharp = self.conv3(F.relu(self.conv2(F.relu(self.conv1(y)))))
        # a change of Y alone moves R, G and B by the first column of the inverse
        return large + (sharp - y) * self.to_rgb[:, 0].view(1, 3, 1, 1)

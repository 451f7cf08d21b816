"""LPIPS v0.1 with SqueezeNet: how different two pictures look, by learned weights.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018. The published weights
are read from a file; neither `lpips` nor `torchvision` is needed. Numbers are called "LPIPS (squeeze)": they cannot be
compared with those of the AlexNet or VGG variants.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from def_hub.convert.checkpoint import load_strictly

FIRES = {3: (64, 16, 64), 4: (128, 16, 64), 6: (128, 32, 128), 7: (256, 32, 128)} | {
    9: (256, 48, 192),
    10: (384, 48, 192),
    11: (384, 64, 256),
    12: (512, 64, 256),
}
"""Place in SqueezeNet 1.1 → channels of its fire module: in, squeezed, and of each of the two expanded halves."""
POOLS = (2, 5, 8)
"""Places of the poolings."""
TAPS = {1: 64, 4: 128, 7: 256, 9: 384, 10: 384, 11: 512, 12: 512}
"""Places after which features are compared, and their channels."""
SMALLEST = 17
"""Side below which the last pooling would have nothing left."""


class LPIPS(nn.Module):
    """Squared distance of unit-length features, weighted by learned heads, summed over seven levels.

    Modules are named as in the reference implementation, so that its weights load by name.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: dict[int, nn.Module] = {0: nn.Conv2d(3, 64, 3, stride=2), 1: nn.ReLU()}
        layers |= {place: nn.MaxPool2d(3, stride=2, ceil_mode=True) for place in POOLS}
        layers |= {place: _Fire(*channels) for place, channels in FIRES.items()}
        self.features = nn.Sequential(*(layers[place] for place in sorted(layers)))
        for level, channels in enumerate(TAPS.values()):
            self.add_module(f"lin{level}", _Head(channels))
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def from_file(cls, path: str | Path) -> "LPIPS":
        """The metric with the published weights, which `path` holds: SqueezeNet's features and the seven heads.

        Raises FileNotFoundError for a missing file and ValueError for one with other tensors.
        """
        return load_strictly(cls(), path).requires_grad_(False)

    def forward(self, image: Tensor, truth: Tensor) -> Tensor:
        """Two `[B,3,H,W]` in `[0,1]` → `[B]`, 0 where they are equal. Lower is better.

        Raises ValueError for shapes that differ and for sides under 17 pixels.
        """
        if image.shape != truth.shape or image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(f"expected two [B,3,H,W] of one shape, got {list(image.shape)} and {list(truth.shape)}")
        if min(image.shape[-2:]) < SMALLEST:
            raise ValueError(f"LPIPS needs at least {SMALLEST}×{SMALLEST} pixels, got {list(image.shape[-2:])}")
        x, y = self._standardised(image), self._standardised(truth)
        total = x.new_zeros(x.shape[0])
        level = 0
        for place, layer in enumerate(self.features):
            x, y = layer(x), layer(y)
            if place in TAPS:
                difference = (_unit(x) - _unit(y)).square()
                total = total + self.get_submodule(f"lin{level}")(difference).mean(dim=(1, 2, 3))
                level += 1
        return total

    def _standardised(self, image: Tensor) -> Tensor:
        return (2 * image - 1 - self.shift) / self.scale


class _Fire(nn.Module):
    """SqueezeNet's building block: fewer channels, then 1×1 and 3×3 convolutions side by side."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat((self.expand1x1(x), self.expand3x3(x)), dim=1))


class _Head(nn.Module):
    """A weight for every channel. Place 0 is the dropout of the reference implementation, used only in its training."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Identity(), nn.Conv2d(channels, 1, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def _unit(x: Tensor) -> Tensor:
    """Feature vectors divided by their lengths."""
    return x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)

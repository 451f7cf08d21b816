"""HiT-SRF: Zhang et al., "HiT-SR: Hierarchical Transformer for Efficient Image Super-Resolution", ECCV 2024.

Windows grow from block to block. Correlations among pixels and among channels replace softmax attention, at a cost
linear in the window's area. 0.87 million parameters at ×4.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEAN = (0.4488, 0.4371, 0.4040)
"""Mean colour of DIV2K, which is subtracted."""
BASE = 8
"""Side of the base window: keys of larger windows are reduced to so many in each direction."""
WINDOWS = (4, 8, 16, 32, 48, 64)
"""Sides of the windows of the six blocks of a layer."""


class HiTSRF(nn.Module):
    """Four layers of six transformer blocks on the LR grid, then sub-pixel enlargement.

    Args:
        features: channels.
        layers: how many layers.
        heads: groups of channels whose pixels are correlated apart.
        scale: how many times larger the result is.
    """

    mean: Tensor

    def __init__(self, features: int = 60, layers: int = 4, heads: int = 6, scale: int = 4) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.conv_first = nn.Conv2d(3, features, 3, padding=1)
        self.patch_embed = _Norm(features)
        self.layers = nn.ModuleList(_Layer(features, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(features)
        self.conv_after_body = nn.Conv2d(features, features, 3, padding=1)
        self.upsample = nn.Sequential(nn.Conv2d(features, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, image: Tensor) -> Tensor:
        """`[B,3,h,w]` in `[0,1]`, of any size → `[B,3,4h,4w]`."""
        shallow = self.conv_first(image - self.mean)
        x = self.patch_embed(shallow.permute(0, 2, 3, 1))  # [B,h,w,C] from here on
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x).permute(0, 3, 1, 2)
        return self.upsample(self.conv_after_body(x) + shallow) + self.mean


class _Norm(nn.Module):
    """A layer normalisation under the name that the authors' patch embedding gives it."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class _Layer(nn.Module):
    """Blocks, a convolution, and a shortcut around both."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.residual_group = _Blocks(features, heads)
        self.conv = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.residual_group(x)
        return x + self.conv(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class _Blocks(nn.Module):
    """One block for each window size."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(_Block(features, heads, window) for window in WINDOWS))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class _Block(nn.Module):
    """Correlation inside windows, then a small network for each pixel; both normalised after, not before."""

    def __init__(self, features: int, heads: int, window: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(features)
        self.correlation = _Correlation(features, heads, window)
        self.norm2 = nn.LayerNorm(features)
        self.mlp = _Mlp(features, 2 * features)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.norm1(self.correlation(x))
        return x + self.norm2(self.mlp(x))


class _Correlation(nn.Module):
    """Spatial-channel correlation (SCC): queries and values from one projection, in windows, without softmax."""

    def __init__(self, features: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window, self.base = heads, window, min(window, BASE)
        self.qv = _DualFeatures(features)
        self.spatial_linear = nn.Linear((window // self.base) ** 2, 1)
        self.pos = _PositionBias(features // 16, heads)
        self.proj = nn.Linear(features, features)

    def forward(self, x: Tensor) -> Tensor:
        """`[B,h,w,C]` → the same shape."""
        height, width = x.shape[1:3]
        padded = _reflect(x.permute(0, 3, 1, 2), self.window)  # [B,C,H,W]
        qv = _partition(self.qv(padded), self.window)  # [n,L,C], L pixels in each of n windows
        query, value = qv.unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [n,heads,L,c] each
        both = torch.cat((self._among_pixels(query, value), self._among_channels(query, value)), dim=2)  # [n,L,C]
        return self.proj(_merge(both, self.window, padded.shape[-2], padded.shape[-1])[:, :height, :width])

    def _among_pixels(self, query: Tensor, value: Tensor) -> Tensor:
        """S-SC: every pixel against the values of the window, reduced to the base window."""
        ratio = self.window // self.base
        cells = value.unflatten(2, (self.base, ratio, self.base, ratio)).permute(0, 1, 2, 4, 6, 3, 5)
        reduced = self.spatial_linear(cells.flatten(5)).flatten(2, 3)[..., 0]  # [n,heads,base²,c]
        correlation = query @ reduced.mT / query.shape[3] + self._bias()
        return (correlation @ reduced).transpose(1, 2).flatten(2)

    def _bias(self) -> Tensor:
        """What position alone adds: `[heads,L,base²]`, mean over the pixels that a value stands for."""
        side, ratio = self.window, self.window // self.base
        steps = torch.arange(side, device=self.proj.weight.device)
        table = self.pos(side).unflatten(0, (2 * side - 1, 2 * side - 1))  # [2·side-1, 2·side-1, heads]
        offset = steps[:, None] - steps + side - 1  # [query, key]
        # mean over key pixels of a cell, rows and columns: the table is looked up for every pair of pixels
        rows = table[offset].unflatten(1, (self.base, ratio)).mean(2)  # [row, base, 2·side-1, heads]
        both = rows[:, :, offset].unflatten(3, (self.base, ratio)).mean(4)  # [row, base, column, base, heads]
        return both.permute(4, 0, 2, 1, 3).flatten(3).flatten(1, 2)

    def _among_channels(self, query: Tensor, value: Tensor) -> Tensor:
        """C-SC: every channel against every channel over the whole window, in one group."""
        query, value = (x.transpose(1, 2).flatten(2) for x in (query, value))  # [n,L,C/2]
        correlation = query.mT @ value / query.shape[1]
        return (correlation @ value.mT).mT


class _DualFeatures(nn.Module):
    """Dual feature extraction (DFE): a path of convolutions times a linear one."""

    def __init__(self, features: int) -> None:
        super().__init__()
        narrow = features // 5
        self.conv = nn.Sequential(
            nn.Conv2d(features, narrow, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(narrow, narrow, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(narrow, features, 1),
        )
        self.linear = nn.Conv2d(features, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.linear(x)


class _PositionBias(nn.Module):
    """A small network from the distance of two pixels to a bias for every head."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.pos_proj = nn.Linear(2, width)
        self.pos1 = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, width))
        self.pos2 = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, width))
        self.pos3 = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, heads))

    def forward(self, side: int) -> Tensor:
        """For all distances in a window of side×side pixels, rows first: `[(2·side-1)², heads]`."""
        weight = self.pos_proj.weight
        steps = torch.arange(1 - side, side, device=weight.device).to(weight.dtype)
        return self.pos3(self.pos2(self.pos1(self.pos_proj(torch.cartesian_prod(steps, steps)))))


class _Mlp(nn.Module):
    """Two linear layers with a depthwise 5×5 convolution between them."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, hidden)
        self.dwconv = _Depthwise(hidden)
        self.fc2 = nn.Linear(hidden, features)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.fc1(x))
        return self.fc2(x + self.dwconv(x))


class _Depthwise(nn.Module):
    """A 5×5 convolution of each channel apart: `[B,h,w,C]` → the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise_conv = nn.Sequential(nn.Conv2d(channels, channels, 5, padding=2, groups=channels), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        return self.depthwise_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _reflect(x: Tensor, window: int) -> Tensor:
    """Pad `[B,C,h,w]` below and right to whole windows by reflection, repeatedly where one reflection is too short."""
    height, width = (-(-side // window) * window for side in x.shape[-2:])
    while x.shape[-2:] != (height, width):
        below, right = min(height - x.shape[-2], x.shape[-2] - 1), min(width - x.shape[-1], x.shape[-1] - 1)
        x = F.pad(x, (0, right, 0, below), mode="reflect")
    return x


def _partition(x: Tensor, window: int) -> Tensor:
    """`[B,C,H,W]` → `[B·windows, window², C]`."""
    batch, channels, height, width = x.shape
    x = x.view(batch, channels, height // window, window, width // window, window)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(-1, window**2, channels)


def _merge(x: Tensor, window: int, height: int, width: int) -> Tensor:
    """`[B·windows, window², C]` → `[B,H,W,C]`."""
    x = x.view(-1, height // window, width // window, window, window, x.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, x.shape[-1])

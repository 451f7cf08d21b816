"""TTSR's own transfer and integration. TTSR's published weights give the same results here as in TTSR's code.

The paper of DEF builds on TTSR. The differences to our `Aggregator`: bicubic interpolation between the scales, 3×3
convolutions with stride 2 downwards, concatenation instead of sums, and the enhanced image is not an input. Source:
Yang et al., "Learning Texture Transformer Network for Image Super-Resolution", section 3.3, and the published code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from def_hub.observation.downsample import Downsample
from def_hub.reference.matching import CELL, Correspondence
from def_hub.reference.restoring.aggregation import STRIDES, ResidualBlock, Texture


class CellTransfer(nn.Module):
    """TTSR's hard transfer. It has no weights.

    Each cell copies the 3×3 cells around its match to the 3×3 cells around itself. Each cell of the result is the mean
    of the nine copies that cover it; beyond the borders the copies are zero. Matches are rounded to whole cells.
    """

    def forward(self, features: Sequence[Tensor], guide: Tensor, correspondence: Correspondence, stride: int) -> Tensor:
        """The transferred features `[B, C, Hl, Wl]`, from one map `[B, C, Hk, Wk]` for each reference. `guide` is not
        used."""
        size = CELL // stride
        cells = [F.pixel_unshuffle(f, size) for f in features]  # [B, C·size², hr, wr]
        column, row = ((correspondence.position - (CELL - 1) / 2) / CELL).round().long().unbind(1)  # [B, h, w] each
        batch, h, w = column.shape
        total = cells[0].new_zeros(batch, cells[0].shape[1], h, w)
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                # The neighbour at (`down`, `right`) copies onto this cell the cell at (-`down`, -`right`) of its match.
                there = _Shift(h, w, down, right)
                k, r, c = there(correspondence.reference), there(row) - down, there(column) - right
                for number, map_ in enumerate(cells):
                    height, width = map_.shape[2:]
                    valid = (k == number) & (r >= 0) & (r < height) & (c >= 0) & (c < width) & there.inside(k.device)
                    index = (r.clamp(0, height - 1) * width + c.clamp(0, width - 1)).flatten(1)[:, None]
                    taken = map_.flatten(2).gather(2, index.expand(-1, map_.shape[1], -1)).view_as(total)
                    total = total + taken * valid[:, None]
        return F.pixel_shuffle(total / 9, size)


class _Shift:
    """Values of the cell at (`down`, `right`) from each cell. Beyond the border, values are repeated and `inside` is
    false."""

    def __init__(self, h: int, w: int, down: int, right: int) -> None:
        self.rows, self.columns = torch.arange(h) + down, torch.arange(w) + right
        self.h, self.w = h, w

    def __call__(self, cells: Tensor) -> Tensor:
        rows, columns = self.rows.clamp(0, self.h - 1), self.columns.clamp(0, self.w - 1)
        return cells[..., rows.to(cells.device), :][..., columns.to(cells.device)]

    def inside(self, device: torch.device) -> Tensor:
        rows, columns = (self.rows >= 0) & (self.rows < self.h), (self.columns >= 0) & (self.columns < self.w)
        return (rows[:, None] & columns).to(device)


class TTSRAggregator(nn.Module):
    """TTSR's main network; the same interface as `Aggregator`.

    Args:
        texture: channels of the transferred features, coarse to fine.
        features: channels of all scales (64 in TTSR).
        blocks: numbers of residual blocks: of the trunk, then of each scale in stage 1, 2 and 3 (16, 16, 8, 4 in TTSR).
    """

    def __init__(self, texture: tuple[int, int, int], features: int, blocks: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.head = _conv3(3, features)
        self.trunk = _Tower(features, blocks[0])
        self.inject = nn.ModuleList(_conv3(features + t, features) for t in texture)
        self.grow = nn.ModuleList(_conv3(features, 4 * features) for _ in range(2))
        self.exchange = nn.ModuleList(
            nn.ModuleList(_Gather(features, scales, target) for target in range(scales)) for scales in (0, 2, 3)
        )
        self.stages = nn.ModuleList(
            nn.ModuleList(_Tower(features, blocks[stage + 1]) for _ in range(stage + 1)) for stage in range(3)
        )
        self.merge = _Gather(features, 3, 2)
        self.tail = nn.Sequential(_conv3(features, features // 2), nn.Conv2d(features // 2, 3, 1))

    most_turns = 1  # as published, without the mean over orientations

    @staticmethod
    def base(operator: Downsample, y: Tensor, enhanced: Tensor) -> Tensor:
        """The image that the residual is added to: the enhanced image. `forward` subtracts it, so that the sum does not
        depend on it."""
        return enhanced

    @staticmethod
    def finest_texture(operator: Downsample, pixels: Tensor) -> list[Tensor]:
        """Texture in addition to the features: none."""
        return []

    def forward(self, y: Tensor, enhanced: Tensor, texture: Texture | None) -> Tensor:
        """LR image `[B, 3, h, w]`, enhanced image `[B, 3, H, W]` and the texture → residual `[B, 3, H, W]`."""
        x = F.relu(self.head(2 * y - 1))  # TTSR's images are in [-1, 1]
        scales = [x + self.trunk(x)]
        for stage in range(len(STRIDES)):
            if stage > 0:
                scales.append(F.relu(F.pixel_shuffle(self.grow[stage - 1](scales[-1]), 2)))
            if texture is not None:
                confidence = _enlarge(texture.confidence[0], 2**stage)
                both = torch.cat((scales[-1], texture.features[stage]), dim=1)
                scales[-1] = scales[-1] + confidence * self.inject[stage](both)
            gathers: Any = self.exchange[stage]
            exchanged = [gather(scales) for gather in gathers] or scales
            towers: Any = self.stages[stage]
            scales = [s + tower(e) for s, tower, e in zip(scales, towers, exchanged, strict=True)]
        image = self.tail(self.merge(scales)).clamp(-1, 1)
        return (image + 1) / 2 - enhanced


class _Tower(nn.Sequential):
    """Residual blocks and a last convolution."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__(*(ResidualBlock(width) for _ in range(count)), _conv3(width, width))


class _Gather(nn.Module):
    """Merges one scale with the other scales, resampled to it. The inputs of the merging convolution are this scale,
    then the others, coarse to fine."""

    def __init__(self, width: int, scales: int, target: int) -> None:
        super().__init__()
        self.target = target
        self.paths = nn.ModuleList(_Path(width, target - s) for s in range(scales) if s != target)
        self.merge = _conv3(scales * width, width)

    def forward(self, scales: list[Tensor]) -> Tensor:
        others = scales[: self.target] + scales[self.target + 1 :]
        resampled = [path(s) for path, s in zip(self.paths, others, strict=True)]
        return F.relu(self.merge(torch.cat([scales[self.target], *resampled], dim=1)))


class _Path(nn.Module):
    """Resampling by `octaves` powers of two. Upwards: bicubic interpolation and a 1×1 convolution. Downwards: a 3×3
    convolution with stride 2 for each octave."""

    def __init__(self, width: int, octaves: int) -> None:
        super().__init__()
        self.up = 2 ** max(octaves, 0)
        convs = [nn.Conv2d(width, width, 1)] if octaves > 0 else [_conv3(width, width, 2) for _ in range(-octaves)]
        self.convs = nn.ModuleList(convs)

    def forward(self, x: Tensor) -> Tensor:
        x = _enlarge(x, self.up)
        for conv in self.convs:
            x = F.relu(conv(x))
        return x


def _enlarge(x: Tensor, factor: int) -> Tensor:
    return x if factor == 1 else F.interpolate(x, scale_factor=factor, mode="bicubic")


def _conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)

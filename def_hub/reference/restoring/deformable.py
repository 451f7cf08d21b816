"""Deformable convolution at places that are given: feature maps are read where a level's pixels look, one reference or
several, and weighted (the sum of eq. 13).

`N` counts the pixels of a level, all samples one after the other. Places are in pixels of the map that is read, pixel
centres at integers; what lies outside is clamped to the border.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

GATHERED = 2**20
"""Numbers, nine features for each pixel, that are gathered at a time: no ninefold copy of a level exists, and what
there is stays in the cache."""
TAPS = 9

Operator = Callable[..., Tensor]


class Reader:
    """Reads `features`, one [B,C,Hk,Wk] for each reference, where pixels look at the one that `reference` [B,Hl,Wl]
    names. Fastest where their channels are last. Gradients flow to features, places and shares."""

    def __init__(self, features: Sequence[Tensor], reference: Tensor) -> None:
        self.channels = features[0].shape[1]
        self.shape = reference.shape
        self.dtype, self.device = features[0].dtype, features[0].device
        self.parts = list(_parts(features, reference, max(1, GATHERED // (TAPS * self.channels))))

    def at(self, x: Tensor, y: Tensor) -> Tensor:
        """Bilinear values [B,C,Hl,Wl] at one place (x, y) for each pixel, [N,1]."""
        return self._laid_out(self.channels, lambda part: part.at(x[part.pixels], y[part.pixels]))

    def convolved(self, x: Tensor, y: Tensor, share: Tensor, weight: Tensor) -> Tensor:
        """→ [B,out,Hl,Wl]: bilinear values at nine places (x, y) for each pixel, times their `share`, all [N,9], times
        the taps of `weight` [out,C,3,3], row by row, summed up."""
        operator = _torchvision(self.device)
        taps = weight.permute(0, 2, 3, 1).flatten(1)  # [out,9C], as the gathered values lie

        def of(part: _Part) -> Tensor:
            px, py, shared = (t[part.pixels] for t in (x, y, share))
            if operator is not None:
                return part.by_torchvision(operator, px, py, shared, weight)
            return _product(part.at(px, py, shared), taps)

        return self._laid_out(len(weight), of)

    def _laid_out(self, channels: int, of: Callable[[_Part], Tensor]) -> Tensor:
        """[B,channels,Hl,Wl] from what each part has for its pixels, [n,channels]."""
        values = torch.empty(self.shape.numel(), channels, dtype=self.dtype, device=self.device)
        for part in self.parts:
            # Under autocast the product of float32 features is half precision, and an index assignment casts nothing.
            values[part.pixels] = of(part).to(self.dtype)
        return values.view(*self.shape, -1).movedim(-1, 1)


@dataclass(frozen=True)
class _Part:
    """Some pixels of a level that look at one reference, whose pixels are the rows of a table. Four rows are gathered,
    weighted and added in one pass: several times faster on a CPU than `F.grid_sample` for many channels."""

    pixels: slice | Tensor  # n of the N
    table: Tensor  # [B·Hk·Wk,C]
    height: int
    width: int
    first: int | Tensor  # row of the first pixel of their sample, [n,1]

    def at(self, x: Tensor, y: Tensor, share: Tensor | None = None) -> Tensor:
        """Bilinear values [n,k·C] at k places (x, y) for each of the pixels, times `share`; all [n,k]."""

        def parted(place: Tensor, length: int) -> tuple[Tensor, Tensor]:
            place = place.clamp(0, length - 1)
            whole = place.detach().int().clamp_(0, length - 2)  # of what is no number, too
            return whole, place - whole

        (left, across), (top, down) = parted(x, self.width), parted(y, self.height)
        index = (self.first + top * self.width + left)[..., None] + torch.tensor(
            [0, 1, self.width, self.width + 1], dtype=torch.int32, device=x.device
        )
        upper, lower = (1 - down, down) if share is None else ((1 - down) * share, down * share)
        upper_right, lower_right = across * upper, across * lower
        shares = torch.stack((upper - upper_right, upper_right, lower - lower_right, lower_right), dim=-1)
        index, shares = index.flatten(0, 1), shares.flatten(0, 1).to(self.table.dtype)
        return F.embedding_bag(index, self.table, mode="sum", per_sample_weights=shares).view(len(x), -1)

    def by_torchvision(self, operator: Operator, x: Tensor, y: Tensor, share: Tensor, weight: Tensor) -> Tensor:
        """`_product` of the values `at` nine places, [n,out], by torchvision's operator.

        It reads one map, around the places of a grid that it lays over that map. So samples stand below each other as
        one map, the pixels are laid on a grid of at least as many places, and the grid is taken off their places.
        """
        height, rows = len(self.table) // self.width, -(-len(x) // self.width)
        map_ = self.table.view(1, height, self.width, -1).movedim(-1, 1)
        if rows > height:
            map_ = F.pad(map_, (0, 0, 0, rows - height))
        height = max(height, rows)
        step = (height - 1) // (rows - 1) if rows > 1 else height
        rows = (height - 1) // step + 1  # of the grid; not fewer than before

        top = self.first // self.width  # of the sample
        tap = torch.arange(TAPS, device=x.device)
        row, column = tap // 3 - 1, tap % 3 - 1
        place = torch.arange(rows * self.width, device=x.device)[:, None]

        def grid(values: Tensor) -> Tensor:
            return F.pad(values.float(), (0, 0, 0, len(place) - len(x)))

        down = grid(y.clamp(0, self.height - 1) + top) - (place // self.width * step + row)
        right = grid(x.clamp(0, self.width - 1)) - (place % self.width + column)
        offset = torch.stack((down, right), dim=-1).flatten(1)  # [places,18]
        offset, mask = (t.T.view(1, -1, rows, self.width) for t in (offset, grid(share)))
        found = operator(map_.float(), offset, weight.float(), stride=(step, 1), padding=1, mask=mask)
        return found[0].flatten(1).T[: len(x)]


def _product(values: Tensor, taps: Tensor) -> Tensor:
    """[n,9C] × [out,9C] → [n,out]. On a CPU as a convolution of 1×1: its kernels are up to one and a half times as fast
    as those of the matrix product where that is so narrow."""
    if values.device.type != "cpu":
        return values @ taps.T
    pixels = values[None, None].movedim(-1, 1)  # [1,9C,1,n], channels last
    return F.conv2d(pixels, taps[..., None, None])[0, :, 0].T


def _torchvision(device: torch.device) -> Operator | None:
    """`torchvision.ops.deform_conv2d` where that imports, for GPUs: on two cores of a CPU it took 1.0 s for what is
    done here in 0.07."""
    return _imported() if device.type == "cuda" else None


@cache
def _imported() -> Operator | None:
    try:
        from torchvision.ops import deform_conv2d
    except (ImportError, RuntimeError):  # not there, or built for another torch
        return None
    return deform_conv2d


def _parts(features: Sequence[Tensor], reference: Tensor, count: int) -> Iterator[_Part]:
    """All pixels of a level, at most `count` at a time."""
    numbers = reference.flatten()
    for number, map_ in enumerate(features):
        if 1 in map_.shape[2:]:  # bilinear needs two pixels along each side
            map_ = F.pad(map_, (0, int(map_.shape[3] == 1), 0, int(map_.shape[2] == 1)), "replicate")
        height, width = map_.shape[2:]
        table = map_.movedim(1, -1).flatten(0, 2).contiguous()  # no copy where channels are last
        looking = (numbers == number).nonzero()[:, 0]
        for some in looking.split(count) if len(looking) else ():
            sample = some[:, None] // (len(numbers) // len(reference))
            first = (sample * (height * width)).int() if len(reference) > 1 else 0
            # a slice where it will do: it copies nothing
            yield _Part(
                slice(int(some[0]), int(some[-1]) + 1) if len(looking) == len(numbers) else some,
                table,
                height,
                width,
                first,
            )

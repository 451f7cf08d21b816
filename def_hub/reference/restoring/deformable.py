"""Deformable convolution (the sum of eq. 13): features of one or several references are read at given places, weighted
and added.

`N` is the number of pixels of a level, over all samples of the batch. Places are in pixels of the feature map that is
read; pixel centres are at integers, and places outside are clamped to the border.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

GATHERED = 2**20
"""How many numbers are gathered at a time (nine features for each pixel and channel). A whole level would need nine
times the memory of its features; this many fit into the processor's cache."""
TAPS = 9

Operator = Callable[..., Tensor]


class Reader:
    """Reads features at given places. Gradients flow to features, places and shares.

    Args:
        features: one map [B,C,Hk,Wk] for each reference; channels last is the fastest layout.
        reference: [B,Hl,Wl], the number of the map that each pixel of the level reads from.
    """

    def __init__(self, features: Sequence[Tensor], reference: Tensor) -> None:
        self.channels = features[0].shape[1]
        self.shape = reference.shape
        self.dtype, self.device = features[0].dtype, features[0].device
        self.parts = list(_parts(features, reference, max(1, GATHERED // (TAPS * self.channels))))

    def at(self, x: Tensor, y: Tensor) -> Tensor:
        """Bilinear values [B,C,Hl,Wl] at one place (x, y) for each pixel; x and y are [N,1]."""
        return self._assembled(self.channels, lambda part: part.at(x[part.pixels], y[part.pixels]))

    def convolved(self, x: Tensor, y: Tensor, share: Tensor, weight: Tensor) -> Tensor:
        """The convolution [B,out,Hl,Wl] over nine places for each pixel.

        Args:
            x, y, share: [N,9], the nine places of each pixel, and the factors of the bilinear values there.
            weight: [out,C,3,3]; its taps belong to the nine places in row-major order.
        """
        operator = _torchvision(self.device)
        taps = weight.permute(0, 2, 3, 1).flatten(1)  # [out,9C], in the order of the gathered values

        def convolve(part: _Part) -> Tensor:
            part_x, part_y, part_share = (t[part.pixels] for t in (x, y, share))
            if operator is not None:
                return part.by_torchvision(operator, part_x, part_y, part_share, weight)
            return _product(part.at(part_x, part_y, part_share), taps)

        return self._assembled(len(weight), convolve)

    def _assembled(self, channels: int, compute: Callable[[_Part], Tensor]) -> Tensor:
        """The level [B,channels,Hl,Wl], put together from the values [n,channels] that `compute` returns for each
        part."""
        values = torch.empty(self.shape.numel(), channels, dtype=self.dtype, device=self.device)
        for part in self.parts:
            # Under autocast the product of float32 features is half precision. Index assignment does not cast.
            values[part.pixels] = compute(part).to(self.dtype)
        return values.view(*self.shape, -1).movedim(-1, 1)


@dataclass(frozen=True)
class _Part:
    """Some pixels of a level that read from the same reference.

    The reference's features are the rows of a table. Bilinear interpolation gathers, weights and adds four rows in one
    pass. For many channels this is several times faster on a CPU than `F.grid_sample`.
    """

    pixels: slice | Tensor  # indices of these n pixels among the N
    table: Tensor  # [B·Hk·Wk,C]
    height: int
    width: int
    first: int | Tensor  # [n,1], the table's row where the sample of each pixel begins

    def at(self, x: Tensor, y: Tensor, share: Tensor | None = None) -> Tensor:
        """Bilinear values [n,k·C] at k places for each pixel, times `share`; x, y and share are [n,k]."""
        (left, across), (top, down) = _split(x, self.width), _split(y, self.height)
        index = (self.first + top * self.width + left)[..., None] + torch.tensor(
            [0, 1, self.width, self.width + 1], dtype=torch.int32, device=x.device
        )
        upper, lower = (1 - down, down) if share is None else ((1 - down) * share, down * share)
        upper_right, lower_right = across * upper, across * lower
        shares = torch.stack((upper - upper_right, upper_right, lower - lower_right, lower_right), dim=-1)
        index, shares = index.flatten(0, 1), shares.flatten(0, 1).to(self.table.dtype)
        return F.embedding_bag(index, self.table, mode="sum", per_sample_weights=shares).view(len(x), -1)

    def by_torchvision(self, operator: Operator, x: Tensor, y: Tensor, share: Tensor, weight: Tensor) -> Tensor:
        """`_product(self.at(x, y, share), taps)`, [n,out], computed by torchvision's operator.

        The operator reads one feature map, at offsets from the points of a regular grid. So the samples of the batch
        are stacked vertically into one map, the n pixels are assigned to the points of a grid, and each place is
        expressed as its offset from its grid point. Surplus points are cut off.
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
        convolved = operator(map_.float(), offset, weight.float(), stride=(step, 1), padding=1, mask=mask)
        return convolved[0].flatten(1).T[: len(x)]


def _split(place: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Coordinates, clamped to the map → the index of the lower neighbour, and the fraction above it. The index is valid
    for NaN, too."""
    place = place.clamp(0, length - 1)
    whole = place.detach().int().clamp_(0, length - 2)
    return whole, place - whole


def _product(values: Tensor, taps: Tensor) -> Tensor:
    """[n,9C] × [out,9C] → [n,out]. On a CPU it is computed as a 1×1 convolution: for so few outputs this is up to 1.5
    times as fast as a matrix product (timed by hand on two cores)."""
    if values.device.type != "cpu":
        return values @ taps.T
    pixels = values[None, None].movedim(-1, 1)  # [1,9C,1,n], channels last
    return F.conv2d(pixels, taps[..., None, None])[0, :, 0].T


def _torchvision(device: torch.device) -> Operator | None:
    """`torchvision.ops.deform_conv2d` on GPUs, if torchvision is installed. On two CPU cores it took 1.0 s where this
    module takes 0.07 s (timed by hand)."""
    return _imported() if device.type == "cuda" else None


@cache
def _imported() -> Operator | None:
    try:
        from torchvision.ops import deform_conv2d
    except (ImportError, RuntimeError):  # not there, or built for another torch
        return None
    return deform_conv2d


def _parts(features: Sequence[Tensor], reference: Tensor, count: int) -> Iterator[_Part]:
    """All pixels of a level, in parts of at most `count` pixels that read from the same reference."""
    numbers = reference.flatten()
    for number, map_ in enumerate(features):
        if 1 in map_.shape[2:]:  # bilinear interpolation needs two pixels along each side
            map_ = F.pad(map_, (0, int(map_.shape[3] == 1), 0, int(map_.shape[2] == 1)), "replicate")
        height, width = map_.shape[2:]
        table = map_.movedim(1, -1).flatten(0, 2).contiguous()  # no copy where channels are last
        own = (numbers == number).nonzero()[:, 0]
        for some in own.split(count) if len(own) else ():
            sample = some[:, None] // (len(numbers) // len(reference))
            first = (sample * (height * width)).int() if len(reference) > 1 else 0
            # Pixels that are contiguous are named by a slice: indexing with it copies nothing.
            pixels = slice(int(some[0]), int(some[-1]) + 1) if len(own) == len(numbers) else some
            yield _Part(pixels, table, height, width, first)

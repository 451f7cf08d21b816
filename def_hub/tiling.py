"""Cut a tensor into overlapping windows and blend them back, so that memory is bounded by the window and not by the
image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels: the top left corner and the size."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, x: Tensor) -> Tensor:
        """The view of `x` `[..., H, W]` under this window."""
        return x[..., self.top : self.top + self.height, self.left : self.left + self.width]

    def grown(self, margin: int, height: int, width: int) -> Window:
        """This window and `margin` pixels around it, as far as they lie in `height`×`width`."""
        top, left = max(self.top - margin, 0), max(self.left - margin, 0)
        bottom, right = min(self.top + self.height + margin, height), min(self.left + self.width + margin, width)
        return Window(top, left, bottom - top, right - left)


def windows(height: int, width: int, size: int, overlap: int, multiple: int = 1) -> list[Window]:
    """Evenly spread windows of `size`×`size` (less where the image is smaller) that cover `height`×`width`, row by row.

    Neighbours share at least `overlap` pixels; corners lie on multiples of `multiple`.
    """
    return [
        Window(top, left, min(size, height), min(size, width))
        for top in _starts(height, size, overlap, multiple)
        for left in _starts(width, size, overlap, multiple)
    ]


def _starts(length: int, size: int, overlap: int, multiple: int) -> list[int]:
    if not 0 <= overlap < size:
        raise ValueError(f"the overlap must be at least 0 and less than the window's {size}, got {overlap}")
    if length <= size:
        return [0]
    count = math.ceil((length - overlap) / (size - overlap))
    return [round(i * (length - size) / (count - 1) / multiple) * multiple for i in range(count)]


def blend(
    predict: Callable[[list[Window]], Tensor],
    height: int,
    width: int,
    size: int,
    overlap: int,
    *,
    batch: int = 1,
    multiple: int = 1,
    replace: bool = False,
) -> Tensor:
    """Put windows together into one tensor `[B, C, height, width]`.

    Args:
        predict: maps a list of n windows to their contents, `[n·B, C, size, size]` with the windows outermost.
        replace: instead of blending, later windows overwrite earlier ones (the paper's section 4.2, for comparison).

    Each window is weighted by a ramp that rises from its edges over `overlap` pixels; the weights are normalised, so
    they sum to one everywhere and a constant stays that constant.
    """
    total: Tensor | None = None
    weights: Tensor | None = None
    for group in _batched(windows(height, width, size, overlap, multiple), batch):
        pieces = predict(group).chunk(len(group))
        for window, piece in zip(group, pieces, strict=True):
            if total is None or weights is None:
                total = piece.new_zeros((*piece.shape[:2], height, width))
                weights = piece.new_zeros((height, width))
            if replace:
                window.cut(total).copy_(piece)
                continue
            ramp = torch.outer(_ramp(window.height, overlap, piece), _ramp(window.width, overlap, piece))
            window.cut(total).add_(piece * ramp)
            window.cut(weights).add_(ramp)
    assert total is not None and weights is not None  # windows() returns at least one
    return total if replace else total / weights


def tiled(
    predict: Callable[[Window], Tensor], height: int, width: int, size: int, margin: int, *, multiple: int = 1
) -> Tensor:
    """Put a tensor `[B, C, height, width]` together from tiles of at most `size`×`size`, each computed with `margin`
    more pixels around it, as far as there are any.

    Where `predict` (window → `[B, C, window.height, window.width]`) looks no further than `margin`, the result is that
    of the whole in one piece: there is no seam to blend. All corners lie on multiples of `multiple`; `size` and
    `margin` must be such.
    """
    if height <= size and width <= size:
        return predict(Window(0, 0, height, width))
    result: Tensor | None = None
    for top, bottom in pairwise(_parts(height, size, multiple)):
        for left, right in pairwise(_parts(width, size, multiple)):
            tile = Window(top, left, bottom - top, right - left)
            seen = tile.grown(margin, height, width)
            piece = predict(seen)
            if result is None:
                result = piece.new_empty((*piece.shape[:2], height, width))
            inner = Window(top - seen.top, left - seen.left, tile.height, tile.width)
            tile.cut(result).copy_(inner.cut(piece))
    assert result is not None
    return result


def _parts(length: int, size: int, multiple: int) -> list[int]:
    """Where to cut a length into the fewest equal parts of at most `size`, on multiples."""
    count = math.ceil(length / size)
    return [round(i * length / count / multiple) * multiple for i in range(count)] + [length]


def _batched(items: list[Window], size: int) -> Iterator[list[Window]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _ramp(length: int, overlap: int, like: Tensor) -> Tensor:
    """From nothing at either edge to one over `overlap` pixels, as sin⁸: most of the change happens in the middle of an
    overlap, so what a window does not know about its edges weighs least. Never zero: borders of the image divide
    safely."""
    position = torch.arange(length, device=like.device, dtype=like.dtype) + 0.5
    edge = torch.minimum(position, length - position) / max(overlap, 1)
    return (torch.sin(edge.clamp(max=1.0) * (torch.pi / 2)) ** 8).clamp_min(1e-12)


def sampled(x: Tensor, size: int, multiple: int = 1) -> Tensor:
    """`x` `[..., h, w]` as it is where no side is longer than `size`; of longer sides four pieces of a quarter of
    `size`, evenly spread and beginning on multiples: a small picture of the same texture."""
    for dim in (-2, -1):
        length, piece = x.shape[dim], size // 4
        if length > size:
            starts = [round(i * (length - piece) / 3 / multiple) * multiple for i in range(4)]
            x = torch.cat([x.narrow(dim, min(start, length - piece), piece) for start in starts], dim)
    return x


def reflect_pad(x: Tensor, height: int, width: int) -> Tensor:
    """Extend `x` `[..., h, w]` to the right and downwards to `height`×`width` by reflection, repeated as often as
    needed.
    """
    for dim, target in ((-2, height), (-1, width)):
        length = x.shape[dim]
        if target > length:
            period = max(2 * length - 2, 1)
            index = torch.arange(target, device=x.device) % period
            x = x.index_select(dim, torch.where(index < length, index, period - index))
    return x

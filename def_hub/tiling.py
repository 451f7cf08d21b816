"""Cut a tensor into overlapping windows and blend them back. Memory is then bounded by the window, not by the image."""

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
        """This window extended by `margin` pixels on each side, clipped to `height`×`width`."""
        top, left = max(self.top - margin, 0), max(self.left - margin, 0)
        bottom, right = min(self.top + self.height + margin, height), min(self.left + self.width + margin, width)
        return Window(top, left, bottom - top, right - left)


def windows(height: int, width: int, size: int, overlap: int, multiple: int = 1) -> list[Window]:
    """Evenly spaced windows of `size`×`size` that cover `height`×`width`, row by row. A smaller image gets one smaller
    window.

    Neighbours share at least `overlap` pixels. Corners lie on multiples of `multiple`. Raises ValueError unless
    0 ≤ `overlap` < `size`.
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
    """Combine windows into one tensor `[B, C, height, width]`.

    Each window is weighted by a ramp that rises from its edges over `overlap` pixels. The weights are normalised to
    sum to one at every pixel, so a constant stays constant.

    Args:
        predict: maps n windows to their contents, `[n·B, C, size, size]`: the whole batch of the first window comes
            first.
        size, overlap, multiple: see `windows`.
        batch: the most windows in one call of `predict`.
        replace: do not blend; later windows overwrite earlier ones (the paper's section 4.2, for comparison).
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
    """Compute a tensor `[B, C, height, width]` in tiles of at most `size`×`size`.

    Each tile is computed with a margin of `margin` pixels, clipped to the image, and the margin is cut off. If
    `predict` depends on no pixel further away than `margin`, the result equals that of one piece and has no seams.

    Args:
        predict: maps a window to its content, `[B, C, window.height, window.width]`.
        size, margin: in pixels; both must be multiples of `multiple`.
        multiple: all corners of windows lie on multiples of this number.
    """
    if height <= size and width <= size:
        return predict(Window(0, 0, height, width))
    result: Tensor | None = None
    for top, bottom in pairwise(_parts(height, size, multiple)):
        for left, right in pairwise(_parts(width, size, multiple)):
            tile = Window(top, left, bottom - top, right - left)
            padded = tile.grown(margin, height, width)
            piece = predict(padded)
            if result is None:
                result = piece.new_empty((*piece.shape[:2], height, width))
            inner = Window(top - padded.top, left - padded.left, tile.height, tile.width)
            tile.cut(result).copy_(inner.cut(piece))
    assert result is not None
    return result


def _parts(length: int, size: int, multiple: int) -> list[int]:
    """The borders, 0 and `length` included, that cut `length` into the fewest nearly equal parts of about `size`. The
    inner borders lie on multiples of `multiple`."""
    count = math.ceil(length / size)
    return [round(i * length / count / multiple) * multiple for i in range(count)] + [length]


def _batched(items: list[Window], size: int) -> Iterator[list[Window]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _ramp(length: int, overlap: int, like: Tensor) -> Tensor:
    """Weights `[length]` that rise from either edge to one over `overlap` pixels, as sin⁸.

    Pixels at the edge of a window are predicted with the least context and get the least weight. No weight is zero, so
    dividing by the sum is safe at the border of the image.
    """
    position = torch.arange(length, device=like.device, dtype=like.dtype) + 0.5
    edge = torch.minimum(position, length - position) / max(overlap, 1)
    return (torch.sin(edge.clamp(max=1.0) * (torch.pi / 2)) ** 8).clamp_min(1e-12)


def sampled(x: Tensor, size: int, multiple: int = 1) -> Tensor:
    """A sample of `x` `[..., h, w]` with sides of at most `size` and the same texture.

    A longer side is replaced by four evenly spaced pieces of `size`/4 pixels, put together; each starts on a multiple
    of `multiple`. A side of at most `size` stays as it is.
    """
    for dim in (-2, -1):
        length, piece = x.shape[dim], size // 4
        if length > size:
            starts = [round(i * (length - piece) / 3 / multiple) * multiple for i in range(4)]
            x = torch.cat([x.narrow(dim, min(start, length - piece), piece) for start in starts], dim)
    return x


def reflect_pad(x: Tensor, height: int, width: int) -> Tensor:
    """Extend `x` `[..., h, w]` to the right and downwards to `height`×`width` by (repeated) reflection."""
    for dim, target in ((-2, height), (-1, width)):
        length = x.shape[dim]
        if target > length:
            period = max(2 * length - 2, 1)
            index = torch.arange(target, device=x.device) % period
            x = x.index_select(dim, torch.where(index < length, index, period - index))
    return x

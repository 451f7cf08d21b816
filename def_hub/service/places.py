"""Where the parts of a result lie in its references, coarsely: for pictures that are looked at side by side."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from def_hub.service.result import Result

GRID = 24
"""Places along each side of a result, at most."""
TRUSTED = 0.3
"""Confidence from which a match counts, as `matching.pose.SERVED`."""
FEWEST = 16
"""Neighbouring matches that say how a reference lies; with fewer it is taken as upright and as wide as the result."""

Frame = tuple[float, float, float, float]


@dataclass(frozen=True)
class Places:
    """rows, columns: of the grid. cells: for each place, row by row, the index of a reference and (x, y) as shares of
    its width and height; None without a trusted match. frames: of each reference, (x by x, y by x, x by y, y by y): how
    far its place moves, in its pixels, when that in the result moves one pixel to the right, and one down.
    """

    rows: int
    columns: int
    cells: list[tuple[int, float, float] | None]
    frames: list[Frame]


def places_of(result: Result) -> Places | None:
    """None where the result has no references."""
    if not result.sizes or result.correspondence is None or result.confidence is None:
        return None
    number, position, confidence = result.correspondence[0], result.correspondence[1:], result.confidence
    h, w = confidence.shape
    rows, columns = min(h, GRID), min(w, GRID)
    trusted = (confidence >= TRUSTED) & (number >= 0)
    cells: list[tuple[int, float, float] | None] = []
    for i in range(rows):
        for j in range(columns):
            y, x = (2 * i + 1) * h // (2 * rows), (2 * j + 1) * w // (2 * columns)
            cells.append(_place(result, number[y, x], position[:, y, x]) if bool(trusted[y, x]) else None)
    scale = result.call.options.settings.scale
    frames = []
    for index, (width, _) in enumerate(result.sizes):
        frame = _frame(position / scale, trusted & (number == index))
        frames.append(frame or (width / (w * scale), 0.0, 0.0, width / (w * scale)))
    return Places(rows, columns, cells, frames)


def _place(result: Result, number: Tensor, position: Tensor) -> tuple[int, float, float]:
    width, height = result.sizes[int(number)]
    x, y = (position + 0.5).tolist()
    return int(number), round(x / width, 4), round(y / height, 4)


def _frame(position: Tensor, served: Tensor) -> Frame | None:
    """The median of how neighbouring places `[2, h, w]` differ, where both are `served` `[h, w]`."""
    right = (position[:, :, 1:] - position[:, :, :-1])[:, served[:, 1:] & served[:, :-1]]
    down = (position[:, 1:] - position[:, :-1])[:, served[1:] & served[:-1]]
    if min(right.shape[1], down.shape[1]) < FEWEST:
        return None
    (a, b), (c, d) = right.median(1).values.tolist(), down.median(1).values.tolist()
    return (a, b, c, d) if abs(a * d - b * c) > 1e-3 else None

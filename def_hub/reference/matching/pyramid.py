"""From search to aligned match, from coarse to fine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from def_hub.reference.matching.alignment import align
from def_hub.reference.matching.correspondence import CELL, Correspondence, Views
from def_hub.reference.matching.refinement import refine
from def_hub.reference.matching.search import match

EVERY = 4
"""Every fourth cell along a side is searched for. The others learn from it when they are aligned."""
PAIRS = 2**25
"""A level with more pairs of a searched cell and a reference cell is only aligned, not searched. This costs no detail
(`examples/matching_table.py`)."""
SMALLEST = 8
"""Cells along the shortest side of the smallest level. Fewer leave no surroundings to compare."""


@dataclass(frozen=True)
class Level:
    """One size that pictures are compared at. query, keys: cells (h, w) of the image and of each reference. searched:
    whether matches are searched for, or only taken over from the next smaller level and aligned."""

    query: tuple[int, int]
    keys: tuple[tuple[int, int], ...]
    searched: bool


def levels(query: tuple[int, int], keys: Sequence[tuple[int, int]], pairs: int = PAIRS) -> list[Level]:
    """The levels of `match_coarse_to_fine`, fine to coarse, for pictures of these numbers of cells (h, w)."""
    h, w = query
    smallest = min(min(grid) for grid in (query, *keys)) < 2 * SMALLEST
    compared = h * w // EVERY**2 * sum(hr * wr for hr, wr in keys)
    here = Level(query, tuple(keys), searched=smallest or compared <= pairs)
    if smallest:
        return [here]
    halves = [(-(-rows // 2), -(-columns // 2)) for rows, columns in (query, *keys)]
    return [here, *levels(halves[0], halves[1:], pairs)]


@torch.no_grad()
def match_coarse_to_fine(
    query: Views,
    keys: Sequence[Views],
    extractor: Callable[[Tensor], Sequence[Tensor]],
    matching_image: str = "joint",
    *,
    pairs: int = PAIRS,
    step: int = 2,
    rounds: int = 3,
) -> Correspondence:
    """The aligned match of every cell: `match`, `refine` and `align`, from coarse to fine.

    All pictures are halved repeatedly, down to `SMALLEST` cells. On each level a cell has two candidates: the match of
    the next smaller level, carried up, and the match of a search on this level. The better one is aligned. Small levels
    say where to look, large ones where exactly.

    The cost of a search grows with the product of the two pictures. A level with more than `pairs` comparisons is only
    aligned, so that the total cost grows with the pixels.

    Args:
        query, keys, extractor, matching_image: as for `match`.
        pairs: see above.
        step: HR pixels between the samples of `align`. Smaller steps are more reliable and slower.
        rounds: of propagation, see `align`.

    Result and errors as `match`.
    """
    grids = [_grid(v) for v in (query, *keys)]
    here, *coarser = levels(grids[0], grids[1:], pairs)
    treated = [k.enhanced for k in keys]
    starts = []
    if coarser:
        coarse = match_coarse_to_fine(
            query.halved(), [k.halved() for k in keys], extractor, matching_image, pairs=pairs, step=step, rounds=rounds
        )
        starts.append(_doubled(coarse, grids))
    if here.searched:
        found = match(query, keys, extractor, matching_image, every=EVERY)  # eq. 10-12
        starts.append(refine(found, query.enhanced, treated))
    found = align(starts, query.enhanced, treated, step=step, rounds=rounds)
    return replace(found, confidence=found.confidence * _usable(keys, found))


def _usable(keys: Sequence[Views], found: Correspondence) -> Tensor:
    """[B,1,h,w]: whether a match may be used where it came to lie."""
    result = torch.ones_like(found.confidence)
    x, y = (found.position / CELL).floor().long().unbind(1)
    for number, key in enumerate(keys):
        if key.usable is not None:
            hr, wr = key.usable.shape[2:]
            cell = (y.clamp(0, hr - 1) * wr + x.clamp(0, wr - 1)).flatten(1)
            there = key.usable.flatten(1).gather(1, cell).view_as(result)
            result = torch.where((found.reference == number)[:, None], there, result)
    return result


def _grid(views: Views) -> tuple[int, int]:
    height, width = views.bicubic.shape[2:]
    return height // CELL, width // CELL


def _doubled(coarse: Correspondence, grids: Sequence[tuple[int, int]]) -> Correspondence:
    """The same matches for cells half as wide: `grids` are the cells of the query and of each reference."""
    (h, w), *sizes = grids

    def spread(cells: Tensor) -> Tensor:
        return cells.repeat_interleave(2, -1).repeat_interleave(2, -2)[..., :h, :w]

    frame = spread(coarse.frames)
    device = frame.device
    # a cell's centre lies half a cell from that of the four it is one of
    away = torch.stack(torch.meshgrid(*(torch.arange(n, device=device) % 2 - 0.5 for n in (w, h)), indexing="xy"))
    moved = torch.einsum("bijhw,jhw->bihw", frame, CELL * away)
    reference = spread(coarse.reference)
    last = torch.tensor([(wr, hr) for hr, wr in sizes], device=device) * CELL - (CELL + 1) / 2
    position = (2 * spread(coarse.position) + 0.5 + moved).clamp_min((CELL - 1) / 2)
    position = position.minimum(last[reference].movedim(-1, 1))
    return Correspondence(reference, position, spread(coarse.confidence), frame)

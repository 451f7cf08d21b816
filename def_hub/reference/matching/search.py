"""Search on the grid of the LR image (eq. 10-12), with bounded memory.

`h w` is the LR grid of the input (one cell = 4×4 HR pixels), `hr wr` that of a reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub.precision import fast_bfloat16
from def_hub.reference.matching.correspondence import CELL, Correspondence, Views

PAIRINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "bicubic": (("bicubic", "bicubic"),),
    "enhanced": (("enhanced", "sharp"),),
    "joint": (("enhanced", "sharp"), ("enhanced", "enhanced"), ("bicubic", "bicubic")),
}
"""matching_image → pairs (view of the query, view of the key) whose cosine similarities are added."""
EXACT_ROWS, ROUGH = 8, {torch.bfloat16: 3e-3, torch.float32: 1e-5}
"""For each cell at most `EXACT_ROWS` rows of a reference are compared exactly. `ROUGH`: two cosines that differ by less
cannot be told apart in that precision."""
BLOCK = {torch.bfloat16: (1, 28), torch.float32: (8, 28)}
"""Rows of the query and rows of a reference in one product. Larger products leave the cache; smaller ones are too small
for the cores to share (`examples/benchmarks/run.py`)."""


@torch.no_grad()
def match(
    query: Views,
    keys: Sequence[Views],
    extractor: Callable[[Tensor], Sequence[Tensor]],
    matching_image: str = "joint",
    *,
    every: int = 1,
    memory: int = 2**26,
) -> Correspondence:
    """Best match of every cell among all cells of all references (eq. 10-12).

    The similarity is the cosine between 3×3 patches of the extractor's third level, with zeros beyond the border. It is
    added over the pairs of views that `PAIRINGS` lists for `matching_image`; the confidence is its mean over these
    pairs. References may differ in size: the keys are the union of their cells.

    Args:
        query: the views of the image.
        keys: the views of each reference.
        extractor: image → pyramid of features.
        matching_image: a key of `PAIRINGS`.
        every: search only every n-th cell along both sides and move the cells around it alike. This is enough of a
            start for `align`, at a fraction of the cost (`examples/matching_table.py`).
        memory: bound of the working storage in bytes. One row of the query against three of a reference may exceed it.

    Raises:
        ValueError: for an unknown `matching_image`, no reference, a missing view, batches that differ, or `every` below
            one.
    """
    if matching_image not in PAIRINGS:
        raise ValueError(f"matching_image: expected one of {sorted(PAIRINGS)}, got {matching_image!r}")
    if not keys:
        raise ValueError("keys: expected at least one reference, got none")
    if every < 1:
        raise ValueError(f"every: expected at least 1, got {every}")
    pairing = PAIRINGS[matching_image]
    for number, key in enumerate(keys):
        if key.bicubic.shape[0] != query.bicubic.shape[0]:
            raise ValueError(
                f"keys[{number}]: expected a batch of {query.bicubic.shape[0]} like the query, "
                f"got {key.bicubic.shape[0]}"
            )
        if key.sharp is None and any(view == "sharp" for _, view in pairing):
            raise ValueError(f"keys[{number}]: matching_image {matching_image!r} needs the sharp view, got None")

    def patches(views: Views, name: str) -> _Patches:
        return _Patches.of(extractor(getattr(views, name))[-1], views.usable)

    seen = {name: patches(query, name) for name, _ in pairing}  # each view of the query once
    queries = [seen[name] for name, _ in pairing]
    h, w = queries[0].scale.shape[1:]
    rows, columns = (torch.arange(every // 2, max(n, every // 2 + 1), every).clamp_max(n - 1) for n in (h, w))
    score = torch.full_like(queries[0].scale[:, rows][..., columns], -torch.inf)  # [B, searched rows, and columns]
    index = torch.zeros_like(score, dtype=torch.long)
    reference = torch.zeros_like(index)
    width = torch.ones_like(index)
    for number, key in enumerate(keys):
        looked_at = [patches(key, name) for _, name in pairing]
        # Sample by sample: one is work enough for a matrix product, and storage does not grow with the batch.
        for b in range(len(score)):
            ours, theirs = [q.sample(b) for q in queries], [k.sample(b) for k in looked_at]
            found, where = _search(ours, theirs, rows, columns, memory)
            better = found > score[b]
            score[b] = torch.where(better, found, score[b])
            index[b] = torch.where(better, where, index[b])
            reference[b].masked_fill_(better, number)
            width[b].masked_fill_(better, looked_at[0].width)

    cell = torch.stack((index % width, index // width), dim=1)  # [B,2,...]
    # Every cell moves as the searched one next to it does, but not out of its reference.
    down, right = ((torch.arange(n) // every).clamp_max(len(searched) - 1) for n, searched in ((h, rows), (w, columns)))
    device = cell.device
    away = torch.stack(
        torch.meshgrid(torch.arange(w) - columns[right], torch.arange(h) - rows[down], indexing="xy")
    ).to(device)
    reference, cell, score = (t[..., down, :][..., right] for t in (reference, cell, score))
    last = torch.tensor([(k.bicubic.shape[3] // CELL - 1, k.bicubic.shape[2] // CELL - 1) for k in keys], device=device)
    cell = (cell + away).clamp_min(0).minimum(last[reference].movedim(-1, 1))
    return Correspondence(
        reference=reference,
        position=cell * float(CELL) + (CELL - 1) / 2,
        confidence=(score / len(pairing)).clamp(0, 1)[:, None],
    )


@dataclass(frozen=True)
class _Patches:
    """All 3×3 patches of a feature map, not unfolded: one column of zeros to the left, one row above and below and two
    last zeros, all flat, so that a neighbour in the picture is a constant step in memory whatever the border."""

    features: Tensor  # [..., (h+2)(w+1)+2, C]
    scale: Tensor  # [..., h, w]: 1 / norm of the patch; 0 where it shall resemble nothing

    @classmethod
    def of(cls, features: Tensor, usable: Tensor | None) -> _Patches:
        features = features.float()  # [B,C,h,w]
        energy = features.square().sum(1, keepdim=True)
        norm = F.avg_pool2d(energy, 3, stride=1, padding=1, divisor_override=1).sqrt()
        flat = F.pad(F.pad(features, (1, 0, 1, 1)).flatten(2), (0, 2)).mT.contiguous()
        scale = 1 / norm.clamp_min(1e-6)
        return cls(flat, (scale if usable is None else scale * usable)[:, 0])

    @property
    def width(self) -> int:
        return self.scale.shape[-1]

    def sample(self, number: int) -> _Patches:
        return _Patches(self.features[number], self.scale[number])

    def at(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """The patches of one sample's `cells` [n] (flat), [n,9C], and their `scale` [n]."""
        rows, columns = (torch.arange(3, device=cells.device) * step for step in (self.width + 1, 1))
        shifts = (rows[:, None] + columns).flatten()
        first = _first(cells, self.width)[:, None]
        found = self.features.index_select(0, (first + shifts).flatten())
        return found.view(len(cells), -1), self.scale.flatten()[cells]


def _search(
    queries: Sequence[_Patches], keys: Sequence[_Patches], rows: Tensor, columns: Tensor, memory: int
) -> tuple[Tensor, Tensor]:
    """Largest sum of cosines of the query patches in `rows` and `columns` over all key patches, and the flat index of
    that key: both [rows,columns].

    First roughly, in bfloat16 where that is fast, the best in every row of the key; then exactly, in float32, all in
    the rows that may hold the best.
    """
    device = queries[0].scale.device
    low = torch.bfloat16 if fast_bfloat16(device) else torch.float32
    pairs = [_Pair.of(query, key, low) for query, key in zip(queries, keys, strict=True)]
    # A band of the query at a time: the best in every row of the key shall fit, too.
    band = max(1, memory // (4 * len(columns) * keys[0].scale.shape[0]))
    found = []
    for some in rows.split(band):
        cells = (some[:, None] * queries[0].width + columns).flatten().to(device)
        rough = _rough(pairs, cells, memory)
        found.append(_settle(queries, keys, cells, rough, len(pairs) * ROUGH[low], memory))
    best, index = (torch.cat(parts).view(len(rows), -1) for parts in zip(*found, strict=True))
    return best, index


@dataclass(frozen=True)
class _Pair:
    """A view of the query and one of the key, to be compared roughly.

    Features that are never negative all resemble each other, too much for half precision. There, their parts along the
    mean of the key, one number per pixel, stay in float32 and are multiplied apart from the rest.
    """

    width: int  # of the query
    query: Tensor  # what is left of the features, [(h+2)(w+1)+2,C]
    key: Tensor  # [(hr+2)(wr+1)+2,C]
    query_scale: Tensor  # [hw]
    key_scale: Tensor  # [hr,wr+1], with zeros for patches that straddle two rows of the picture
    along: tuple[Tensor, Tensor] | None = None  # parts along the mean: [(h+2)(w+1)+2] and [(hr+2)(wr+1)+2]

    @classmethod
    def of(cls, query: _Patches, key: _Patches, low: torch.dtype) -> _Pair:
        pair = cls(query.width, query.features, key.features, query.scale.flatten(), F.pad(key.scale, (0, 1)))
        if low == torch.float32:
            return pair
        mean = F.normalize(key.features.mean(0), dim=0)
        ours, theirs = query.features @ mean, key.features @ mean
        return replace(
            pair,
            query=(query.features - torch.outer(ours, mean)).to(low),
            key=(key.features - torch.outer(theirs, mean)).to(low),
            along=(ours, theirs),
        )

    def by_rows(self, first: int, last: int, start: int, stop: int, together: int) -> Iterator[Tensor]:
        """Products [w,(stop-start)(wr+1)] of each row `first … last` of the query with rows `start … stop` of the key;
        so many rows of the query are multiplied at a time.

        The product of two patches is the sum, over nine shifts of both, of pointwise products, and separates into
        three horizontal and three vertical shifts. So a row costs one matrix product instead of nine, and is added up
        with the two before it.
        """
        w, step = self.width, self.key_scale.shape[1]
        part = slice(start * step, (stop + 2) * step + 2)
        theirs = self.key[part].T
        if theirs.dtype == torch.float32:  # there, products of rows with rows are slower than of rows with columns
            theirs = theirs.contiguous()
        # Buffers serve all rows: fresh ones would cost more in the allocator than the arithmetic does.
        pointwise = _aligned(theirs, together * (w + 1) + 1, theirs.shape[1])
        full = pointwise if pointwise.dtype == torch.float32 else torch.empty_like(pointwise, dtype=torch.float32)
        across = full.new_empty(_kept(together), w + 1, theirs.shape[1] - 2)
        product = full.new_empty((w, (stop - start) * step))
        for row in range(first, last + 2, together):  # the query has one more above and below
            rows = range(row, min(row + together, last + 2))
            lines = len(rows) * (w + 1) + 1
            here = slice(row * (w + 1), row * (w + 1) + lines)
            torch.mm(self.query[here], theirs, out=pointwise[:lines])
            if self.along is not None:
                full[:lines].copy_(pointwise[:lines]).addcmul_(self.along[0][here, None], self.along[1][part])
            now = across.flatten(0, 1)[(row - first) % len(across) * (w + 1) :][: lines - 2]
            torch.add(full[: lines - 2, :-2], full[1 : lines - 1, 1:-1], out=now).add_(full[2:lines, 2:])
            for lowest in rows[max(0, first + 2 - row) :]:
                above, same, below = (
                    across[(lowest - 2 + i - first) % len(across), :w, i * step :][:, : product.shape[1]]
                    for i in range(3)
                )
                yield torch.add(above, same, out=product).add_(below)

    def by_cells(self, parts: Sequence[Tensor], start: int, stop: int) -> Iterator[Tensor]:
        """The same for `parts` of any cells of the query, so few that unfolding their rows and those of the key costs
        less than comparing all."""
        step = self.key_scale.shape[1]
        size = (stop - start) * step
        beside = [slice(start * step + column, (stop + 2) * step + column) for column in range(3)]
        theirs = torch.cat([self.key[b] for b in beside], dim=1).T
        along = None if self.along is None else (self.along[0], torch.stack([self.along[1][b] for b in beside]))
        columns = torch.arange(3, device=self.key.device)
        for cells in parts:
            first = _first(cells, self.width)[:, None] + columns
            product = _aligned(self.key_scale, len(cells), size).zero_()
            for row in range(3):
                here, there = first + row * (self.width + 1), slice(row * step, row * step + size)
                ours = self.query[here].flatten(1)
                if ours.dtype == product.dtype:
                    product.addmm_(ours, theirs[:, there])
                else:
                    product += ours @ theirs[:, there]
                if along is not None:
                    product.addmm_(along[0][here], along[1][:, there])
            yield product


def _kept(together: int) -> int:
    """Rows of sums that are held: those that are made together, and the two before them; a multiple of the former."""
    return max(2 * together, 3)


def _aligned(like: Tensor, rows: int, columns: int) -> Tensor:
    """Room for a product, each of whose rows begins where a line of the cache does: it is up to twice as fast."""
    line = 32  # in half precision; in float32 it is two
    return like.new_empty((rows, -columns // line * -line))[:, :columns]


def _rough(pairs: Sequence[_Pair], cells: Tensor, memory: int) -> Tensor:
    """The best sum of cosines of the query's `cells` [n] in every row of the key, [n,hr]."""
    w, (hr, step) = pairs[0].width, pairs[0].key_scale.shape
    whole = len(cells) % w == 0 and bool((cells.diff() == 1).all())  # rows of the query
    parts = cells.split(w if whole else 256)

    def rows_of_the_key(together: int) -> int:
        held = together + _kept(together) + 1  # rows' worth of products, see `by_rows`
        return memory // (4 * len(parts[0]) * (held * len(pairs) + 1)) // step - 2

    together, block = BLOCK[pairs[0].key.dtype]
    while together > 1 and rows_of_the_key(together) < block:  # the fewer there are, the more is done twice
        together //= 2
    best = pairs[0].key_scale.new_empty((len(cells), hr))
    first_scale = pairs[0].query_scale.clamp_min(1e-12)  # multiplied last, where least is left
    for start, stop in _spans(hr, max(1, min(rows_of_the_key(together), block))):
        if whole:
            streams = [p.by_rows(int(cells[0]) // w, int(cells[-1]) // w + 1, start, stop, together) for p in pairs]
        else:
            streams = [p.by_cells(parts, start, stop) for p in pairs]
        for part, into, *products in zip(parts, best.split(len(parts[0])), *streams, strict=True):
            for pair, product in zip(pairs, products, strict=True):
                product *= pair.key_scale[start:stop].flatten()
            for pair, product in zip(pairs[1:], products[1:], strict=True):
                products[0].addcmul_(product, (pair.query_scale[part] / first_scale[part])[:, None])
            torch.amax(products[0].view(len(part), -1, step)[..., :-1], -1, out=into[:, start:stop])
    return best.mul_(first_scale[cells, None])


def _settle(
    queries: Sequence[_Patches], keys: Sequence[_Patches], cells: Tensor, rough: Tensor, doubt: float, memory: int
) -> tuple[Tensor, Tensor]:
    """The best similarity of `cells` and its flat index, both [n], compared exactly in the `EXACT_ROWS` best rows of
    the key, if they are within `doubt` of the best in `rough` [n,hr]."""
    hr, wr = keys[0].scale.shape
    value, likely = rough.topk(min(EXACT_ROWS, hr), dim=1)
    likely.masked_fill_(value < value[:, :1] - doubt, -1)
    best = torch.full(cells.shape, -torch.inf, device=cells.device)
    index = torch.zeros_like(cells)
    for row in range(hr):
        here = (likely == row).any(1).nonzero()[:, 0]
        if not len(here):
            continue
        theirs = [k.at(torch.arange(row * wr, (row + 1) * wr, device=cells.device)) for k in keys]
        for some in here.split(max(1, memory // (4 * len(theirs[0][0])))):
            ours = [q.at(cells[some]) for q in queries]
            # the scales last: there are fewer products than numbers in the patches
            products = [
                (query @ key.T) * scale[:, None] * key_scale
                for (query, scale), (key, key_scale) in zip(ours, theirs, strict=True)
            ]
            exact, column = torch.stack(products).sum(0).max(1)
            better = exact > best[some]
            best[some] = torch.where(better, exact, best[some])
            index[some] = torch.where(better, row * wr + column, index[some])
    return best, index


def _first(cells: Tensor, width: int) -> Tensor:
    """Where the patches of cells begin in flat features: one row and one column before the cell, which is where the
    cell would lie unpadded, but for the columns of zeros."""
    return cells + cells // width


def _spans(length: int, step: int) -> Iterator[tuple[int, int]]:
    for start in range(0, length, step):
        yield start, min(start + step, length)

"""Search on the grid of the LR image (eq. 10-12), with bounded memory.

`h w` is the LR grid of the input (one cell = 4×4 HR pixels), `hr wr` that of a reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub.reference.matching.correspondence import CELL, Correspondence, Views

PAIRINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "bicubic": (("bicubic", "bicubic"),),
    "enhanced": (("enhanced", "sharp"),),
    "joint": (("enhanced", "sharp"), ("enhanced", "enhanced"), ("bicubic", "bicubic")),
}
"""matching_image → pairs (view of the query, view of the key) whose cosine similarities are added."""


@torch.no_grad()
def match(
    query: Views,
    keys: Sequence[Views],
    extractor: Callable[[Tensor], Sequence[Tensor]],
    matching_image: str = "joint",
    *,
    every: int = 1,
    memory: int = 2**24,
) -> Correspondence:
    """Best match of every cell among all cells of all references (eq. 10-12).

    The similarity is the cosine between 3×3 patches of the extractor's third level (zeros beyond the border),
    added over the pairs of views that `matching_image` names in `PAIRINGS`; the confidence is its mean over
    those pairs. References may differ in size: the keys are the union of their cells.

    With `every` above one, only every so many-th cell along both sides is searched for, and its surroundings move with
    it: enough of a start for `align`, whose neighbours teach each other, at a fraction of the cost
    (examples/matching_table.py).

    `memory` bounds the working storage in bytes; only where three rows of cells of the query against three of
    a reference need more is it exceeded. Raises ValueError for an unknown `matching_image`, no reference, a
    missing view, batches that differ, or `every` below one.
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
        return _Patches.of(extractor(getattr(views, name))[2], views.usable)

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
            if every == 1:
                found, where = _search_all(ours, theirs, memory)
            else:
                found, where = _search_some(ours, theirs, rows, columns, memory)
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
    """All 3×3 patches of a feature map, not unfolded: one column of zeros to the left, one row above and
    below and one last zero, all flat, so that a neighbour in the picture is a constant step in memory
    whatever the border."""

    features: Tensor  # [..., C, (h+2)(w+1)+1]
    scale: Tensor  # [..., h, w]: 1 / norm of the patch; 0 where it shall resemble nothing

    @classmethod
    def of(cls, features: Tensor, usable: Tensor | None) -> _Patches:
        features = features.float()  # [B,C,h,w]
        energy = features.square().sum(1, keepdim=True)
        norm = F.avg_pool2d(energy, 3, stride=1, padding=1, divisor_override=1).sqrt()
        flat = F.pad(F.pad(features, (1, 0, 1, 1)).flatten(2), (0, 1))
        scale = 1 / norm.clamp_min(1e-6)
        return cls(flat, (scale if usable is None else scale * usable)[:, 0])

    @property
    def height(self) -> int:
        return self.scale.shape[-2]

    @property
    def width(self) -> int:
        return self.scale.shape[-1]

    def sample(self, number: int) -> _Patches:
        return _Patches(self.features[number], self.scale[number])

    def rows(self, start: int, stop: int) -> Tensor:
        """Features of the rows `start … stop` of the grid and of their neighbours above and below."""
        step = self.width + 1
        return self.features[..., start * step : (stop + 2) * step + 1]

    def at(self, index: Tensor) -> Tensor:
        """The normalised patches of one sample's cells `index` [n] (flat), [9C,n]."""
        step = self.width + 1
        # The patch of a cell begins one row and one column before it, which is where the cell would lie unpadded.
        first = index // self.width * step + index % self.width
        shifts = torch.tensor([row * step + column for row in range(3) for column in range(3)], device=index.device)
        found = self.features.index_select(-1, (shifts[:, None] + first).flatten())
        return found.view(-1, len(index)) * self.scale.flatten()[index]

    def scales(self, start: int, stop: int) -> Tensor:
        """`scale` of those rows, flat, with zeros for the patches that straddle two rows of the picture."""
        return F.pad(self.scale[..., start:stop, :], (0, 1)).flatten(-2)[..., :-1]


def _search_all(queries: Sequence[_Patches], keys: Sequence[_Patches], memory: int) -> tuple[Tensor, Tensor]:
    """Largest sum of cosines of each query patch over all key patches, and the flat index of that key: both
    [h,w].

    The product of two patches is the sum, over nine shifts of both, of pointwise products, and separates into
    three horizontal and three vertical shifts. So a block costs one matrix product per pair of views instead
    of nine, and a shift of both query and key is one constant step through the flat product matrix.
    """
    (h, w), (hr, wr) = queries[0].scale.shape, keys[0].scale.shape
    query_rows, key_rows = _block(h, w, hr, wr, memory // (3 * 4))
    size = ((query_rows + 2) * (w + 1) + 1) * ((key_rows + 2) * (wr + 1) + 1)
    # Three buffers serve all blocks: fresh ones would cost more in the allocator than the arithmetic does.
    buffers = [queries[0].features.new_empty(size) for _ in range(3)]

    best = torch.full_like(queries[0].scale, -torch.inf)
    index = torch.zeros_like(best, dtype=torch.long)
    for top, bottom in _spans(h, query_rows):
        for start, stop in _spans(hr, key_rows):
            n, m = (bottom - top + 2) * (w + 1) + 1, (stop - start + 2) * (wr + 1) + 1
            pairs = (bottom - top) * (w + 1) - 1, m
            across, down = m + 1, (w + 1) * m + wr + 1  # steps that move query and key by one column, one row
            total = buffers[2][: pairs[0] * m].view(pairs).zero_()
            for query, key in zip(queries, keys, strict=True):
                product = buffers[0][: n * m]
                torch.mm(query.rows(top, bottom).T, key.rows(start, stop), out=product.view(n, m))
                horizontal = buffers[1][: n * m - 2 * across]
                torch.add(product[: -2 * across], product[across:-across], out=horizontal)
                horizontal += product[2 * across :]
                # The product is spent; its storage takes the sums, from the first true pair to the last.
                similarity = buffers[0][: pairs[0] * m].fill_(0)
                vertical = similarity[: len(horizontal) - 2 * down]
                torch.add(horizontal[: -2 * down], horizontal[down:-down], out=vertical)
                vertical += horizontal[2 * down :]
                key_scale = key.scales(start, stop)
                key_scale = F.pad(key_scale, (0, m - len(key_scale)))
                total.addcmul_(similarity.view(pairs).mul_(query.scales(top, bottom)[:, None]), key_scale)
            blocks = (bottom - top, w, stop - start, wr)
            value, x = total.as_strided(blocks, ((w + 1) * m, m, wr + 1, 1)).max(-1)
            value, y = value.max(-1)
            x = x.gather(-1, y[..., None])[..., 0]
            better = value > best[top:bottom]
            best[top:bottom] = torch.where(better, value, best[top:bottom])
            index[top:bottom] = torch.where(better, (start + y) * wr + x, index[top:bottom])
    return best, index


def _search_some(
    queries: Sequence[_Patches], keys: Sequence[_Patches], rows: Tensor, columns: Tensor, memory: int
) -> tuple[Tensor, Tensor]:
    """The same for the cells in `rows` and `columns` of the query: both [rows,columns]. So few patches are unfolded,
    and all views are one matrix product."""
    device = queries[0].scale.device
    chosen = (rows[:, None] * queries[0].width + columns).flatten().to(device)
    all_keys = torch.arange(keys[0].scale.numel(), device=device)
    length = sum(9 * q.features.shape[0] for q in queries)
    step = max(64, int((memory / 4 + length**2) ** 0.5) - length)  # of either: two sides of patches and their product
    best = torch.full(chosen.shape, -torch.inf, device=device)
    index = torch.zeros_like(chosen)
    for start, stop in _spans(len(chosen), step):
        ours = torch.cat([q.at(chosen[start:stop]) for q in queries]).T.contiguous()
        for first, last in _spans(len(all_keys), step):
            theirs = torch.cat([k.at(all_keys[first:last]) for k in keys])
            value, where = (ours @ theirs).max(1)
            better = value > best[start:stop]
            best[start:stop] = torch.where(better, value, best[start:stop])
            index[start:stop] = torch.where(better, first + where, index[start:stop])
    return best.view(len(rows), -1), index.view(len(rows), -1)


def _block(h: int, w: int, hr: int, wr: int, numbers: int) -> tuple[int, int]:
    """Rows of the query and of the key in one block whose product matrix has at most `numbers` entries."""

    def fits(query_rows: int, key_rows: int) -> bool:
        return ((query_rows + 2) * (w + 1) + 1) * ((key_rows + 2) * (wr + 1) + 1) <= numbers

    # A row on either side is computed twice: split the longer side first, and evenly, to lose least.
    query_rows, key_rows = h, hr
    while not fits(query_rows, key_rows) and (query_rows, key_rows) != (1, 1):
        if query_rows >= key_rows:
            query_rows = (query_rows + 1) // 2
        else:
            key_rows = (key_rows + 1) // 2
    return query_rows, key_rows


def _spans(length: int, step: int) -> Iterator[tuple[int, int]]:
    for start in range(0, length, step):
        yield start, min(start + step, length)

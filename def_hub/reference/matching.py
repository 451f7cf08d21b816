"""Where in the references to look, and how sure: `match`, exhaustive on the grid of the LR image (eq. 10-12),
then `refine`, a local search at HR-pixel precision.

`h w` is the LR grid of the input (one cell = 4×4 HR pixels), `hr wr` that of a reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

CELL = 4
"""HR pixels along one side of a cell: the scale of the enlargement."""

PAIRINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "bicubic": (("bicubic", "bicubic"),),
    "enhanced": (("enhanced", "sharp"),),
    "joint": (("enhanced", "sharp"), ("enhanced", "enhanced"), ("bicubic", "bicubic")),
}
"""matching_image → pairs (view of the query, view of the key) whose cosine similarities are added."""


@dataclass(frozen=True)
class Views:
    """One picture as the matcher may look at it. All `[B,3,H,W]` in `[0,1]`, equal sizes, multiples of 4.

    A similarity only means something between images of one domain, so an input is seen `bicubic` (enlarged)
    and `enhanced`, and a reference is degraded and then treated in the same two ways. `sharp` is the
    reference itself.
    """

    bicubic: Tensor
    enhanced: Tensor
    sharp: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("bicubic", "enhanced", "sharp"):
            view = getattr(self, name)
            if view is None and name == "sharp":
                continue
            if not isinstance(view, Tensor):
                raise TypeError(f"Views.{name}: expected a tensor, got {type(view).__name__}")
            if view.ndim != 4 or view.shape[1] != 3 or view.shape[2] % CELL or view.shape[3] % CELL:
                raise ValueError(
                    f"Views.{name}: expected [B,3,H,W], H and W multiples of {CELL}, got {list(view.shape)}"
                )
            if view.shape != self.bicubic.shape:
                raise ValueError(
                    f"Views.{name}: expected the size of the bicubic view {list(self.bicubic.shape)}, "
                    f"got {list(view.shape)}"
                )


@dataclass(frozen=True)
class Correspondence:
    """For every cell of the LR grid, where to look.

    reference   [B,h,w] long: which of the references
    position    [B,2,h,w] float: (x, y) of the centre of the cell's 4×4 block, in HR pixels of that reference
    confidence  [B,1,h,w] float in [0,1]

    Pixel centres lie at integers: cell (i, j) of an identical reference has the position (4j+1.5, 4i+1.5).
    """

    reference: Tensor
    position: Tensor
    confidence: Tensor

    def __post_init__(self) -> None:
        batch, *grid = self.reference.shape
        if len(grid) != 2:
            raise ValueError(f"Correspondence.reference: expected [B,h,w], got {[batch, *grid]}")
        for name, channels in (("position", 2), ("confidence", 1)):
            expected, came = [batch, channels, *grid], list(getattr(self, name).shape)
            if came != expected:
                raise ValueError(f"Correspondence.{name}: expected {expected} like the others, got {came}")

    @staticmethod
    def identity(batch: int, height: int, width: int, device: torch.device | str = "cpu") -> Correspondence:
        """Each cell of a `height`×`width` grid looks, fully sure, at its own place in the first reference."""
        y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
        position = torch.stack((x, y)) * float(CELL) + (CELL - 1) / 2
        return Correspondence(
            reference=torch.zeros(batch, height, width, dtype=torch.long, device=device),
            position=position.expand(batch, -1, -1, -1),
            confidence=torch.ones(batch, 1, height, width, device=device),
        )


# ---------------------------------------------------------------- exhaustive search on the LR grid


@torch.no_grad()
def match(
    query: Views,
    keys: Sequence[Views],
    extractor: Callable[[Tensor], Sequence[Tensor]],
    matching_image: str = "joint",
    *,
    memory: int = 2**26,
) -> Correspondence:
    """Best match of every cell among all cells of all references (eq. 10-12).

    The similarity is the cosine between 3×3 patches of the extractor's third level (zeros beyond the border),
    added over the pairs of views that `matching_image` names in `PAIRINGS`; the confidence is its mean over
    those pairs. References may differ in size: the keys are the union of their cells.

    `memory` bounds the working storage in bytes; only where three rows of cells of the query against three of
    a reference need more is it exceeded. Raises ValueError for an unknown `matching_image`, no reference, a
    missing view, or batches that differ.
    """
    if matching_image not in PAIRINGS:
        raise ValueError(f"matching_image: expected one of {sorted(PAIRINGS)}, got {matching_image!r}")
    if not keys:
        raise ValueError("keys: expected at least one reference, got none")
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
        return _Patches.of(extractor(getattr(views, name))[2])

    seen = {name: patches(query, name) for name, _ in pairing}  # each view of the query once
    queries = [seen[name] for name, _ in pairing]
    score = torch.full_like(queries[0].scale, -torch.inf)  # [B,h,w]
    index = torch.zeros_like(score, dtype=torch.long)
    reference = torch.zeros_like(index)
    width = torch.ones_like(index)
    for number, key in enumerate(keys):
        looked_at = [patches(key, name) for _, name in pairing]
        # Sample by sample: one is work enough for a matrix product, and storage does not grow with the batch.
        for b in range(len(score)):
            found, where = _search([q.sample(b) for q in queries], [k.sample(b) for k in looked_at], memory)
            better = found > score[b]
            score[b] = torch.where(better, found, score[b])
            index[b] = torch.where(better, where, index[b])
            reference[b].masked_fill_(better, number)
            width[b].masked_fill_(better, looked_at[0].width)

    cell = torch.stack((index % width, index // width), dim=1)  # [B,2,h,w]
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
    scale: Tensor  # [..., h, w]: 1 / norm of the patch

    @classmethod
    def of(cls, features: Tensor) -> _Patches:
        features = features.float()  # [B,C,h,w]
        energy = features.square().sum(1, keepdim=True)
        norm = F.avg_pool2d(energy, 3, stride=1, padding=1, divisor_override=1).sqrt()
        flat = F.pad(F.pad(features, (1, 0, 1, 1)).flatten(2), (0, 1))
        return cls(flat, (1 / norm.clamp_min(1e-6))[:, 0])

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

    def scales(self, start: int, stop: int) -> Tensor:
        """`scale` of those rows, flat, with zeros for the patches that straddle two rows of the picture."""
        return F.pad(self.scale[..., start:stop, :], (0, 1)).flatten(-2)[..., :-1]


def _search(queries: Sequence[_Patches], keys: Sequence[_Patches], memory: int) -> tuple[Tensor, Tensor]:
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


# -------------------------------------------------------------- local search at HR-pixel precision

LUMA = (0.299, 0.587, 0.114)
TRUST = 3
"""A correlation to this power is about the share of a match's detail that is worth taking
(examples/matching_table.py).
"""


@torch.no_grad()
def refine(
    correspondence: Correspondence,
    query: Tensor,
    references: Sequence[Tensor],
    *,
    radius: int = 4,
    patch: int = 12,
    memory: int = 2**24,
) -> Correspondence:
    """Move each match to the best place within ±`radius` HR pixels, then below a pixel.

    A match on the LR grid is right to four HR pixels; the high frequencies that a reference is wanted for
    need one. The `patch`×`patch` pixels around each cell of `query` [B,3,H,W] (the enhanced image) are
    compared with `references` (each [B,3,Hr,Wr]; the sharp ones) by zero-mean normalised cross-correlation of
    luma; a parabola through the best correlation and its neighbours gives the fraction. The correlation
    becomes, to the power of `TRUST`, the confidence.

    Not in the paper, which leaves it to the learned offsets. `memory` bounds the working storage in bytes,
    beside two planes per image. Raises ValueError when query or references do not fit the correspondence, or
    for an impossible `radius` or `patch`.
    """
    batch, h, w = correspondence.reference.shape
    if query.shape != (batch, 3, CELL * h, CELL * w):
        raise ValueError(f"query: expected {[batch, 3, CELL * h, CELL * w]} for these cells, got {list(query.shape)}")
    for number, image in enumerate(references):
        if image.ndim != 4 or image.shape[:2] != (batch, 3) or min(image.shape[2:]) < CELL:
            raise ValueError(
                f"references[{number}]: expected [{batch},3,Hr,Wr], sides >= {CELL}, got {list(image.shape)}"
            )
    named = int(correspondence.reference.max()) + 1
    if named > len(references):
        raise ValueError(f"references: expected the {named} that the correspondence names, got {len(references)}")
    if radius < 1 or patch < CELL or patch % 2:
        raise ValueError(f"expected radius >= 1 and an even patch >= {CELL}, got radius {radius}, patch {patch}")

    before = (patch - CELL) // 2  # the patch around a cell begins so many pixels above and to the left of it
    centre = (CELL - 1) / 2  # of a cell, from its first pixel
    reference = correspondence.reference.flatten()
    sample = torch.arange(batch, device=query.device).repeat_interleave(h * w)
    cell = torch.cartesian_prod(*(CELL * torch.arange(length, device=query.device) for length in (h, w)))
    cell = cell.flip(-1).repeat(batch, 1)  # (x, y) of the first pixel
    start = (correspondence.position.permute(0, 2, 3, 1).reshape(-1, 2) - centre).round().long()
    queries = _Windows([query], patch, before)
    keys = _Windows(references, patch, before + radius)

    position, similarity = [], []
    for low, high in _spans(len(reference), max(1, memory // (4 * 4 * (patch + 2 * radius) ** 2))):
        part = slice(low, high)
        limit = keys.limit[reference[part]]
        corner = start[part].clamp_min(0).minimum(limit) - radius
        cells, scale = queries.at(torch.zeros_like(sample[part]), sample[part], cell[part] - before, patch)
        regions, scales = keys.at(reference[part], sample[part], corner - before, patch + 2 * radius)
        cells = (cells - cells.mean((1, 2), keepdim=True)) * scale
        # One group per cell: every offset of every cell in one call.
        correlation = F.conv2d(regions[None], cells[:, None], groups=len(cells))[0] * scales
        for axis in (0, 1):  # a match stays inside its reference
            place = corner[:, axis, None] + torch.arange(2 * radius + 1, device=query.device)
            outside = (place < 0) | (place > limit[:, axis, None])
            correlation.masked_fill_(outside[:, None, :] if axis == 0 else outside[:, :, None], -torch.inf)
        offset, value = _peak(correlation)
        position.append(corner + offset + centre)
        similarity.append(value)
    return Correspondence(
        correspondence.reference,
        torch.cat(position).view(batch, h, w, 2).permute(0, 3, 1, 2).contiguous(),
        torch.cat(similarity).clamp(0, 1).pow(TRUST).view(batch, 1, h, w),
    )


class _Windows:
    """Square windows of the luma of several batched images of different sizes, gathered in one call."""

    def __init__(self, images: Sequence[Tensor], patch: int, margin: int) -> None:
        """Windows may begin `margin` pixels outside an image; its border is repeated there."""
        planes, norms, start, row = [], [], [], []
        length = 0
        for image in images:
            # Centred, so that the variances below keep their precision.
            plane = torch.einsum("bchw,c->bhw", image.float() - 0.5, image.new_tensor(LUMA, dtype=torch.float32))
            plane = F.pad(plane, (margin,) * 4, mode="replicate")
            mean, square = (F.avg_pool2d(F.avg_pool2d(x, (1, patch), 1), (patch, 1), 1) for x in (plane, plane**2))
            energy = (square - mean**2).clamp_min(0) * patch**2
            # Half a grey level of noise: without it flat patches correlate with anything.
            norm = (energy + (0.5 / 255 * patch) ** 2).rsqrt()
            planes.append(plane.flatten())
            norms.append(F.pad(norm, (0, patch - 1, 0, patch - 1)).flatten())
            start.append([length + b * plane[0].numel() for b in range(len(plane))])
            row.append(plane.shape[2])
            length += plane.numel()
        device = images[0].device
        self.margin, self.patch = margin, patch
        self.plane, self.norm = torch.cat(planes), torch.cat(norms)
        self.start, self.row = torch.tensor(start, device=device), torch.tensor(row, device=device)
        self.limit = torch.tensor([(i.shape[3] - CELL, i.shape[2] - CELL) for i in images], device=device)
        """Last (x, y) at which a cell of the images may begin."""

    def at(self, image: Tensor, sample: Tensor, corner: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Windows [n,side,side] that begin at `corner` [n,2] (x, y), and, for each `patch`×`patch` window
        inside them, 1 / norm of its deviation from its mean: [n, side-patch+1, side-patch+1]."""
        x, y = (corner + self.margin).unbind(-1)
        first = self.start[image, sample] + y * self.row[image] + x
        lines = first[:, None] + self.row[image][:, None] * torch.arange(side, device=corner.device)
        places = side - self.patch + 1
        return self.plane.unfold(0, side, 1)[lines], self.norm.unfold(0, places, 1)[lines[:, :places]]


def _peak(values: Tensor) -> tuple[Tensor, Tensor]:
    """Place (x, y) [n,2] of the largest of `values` [n,d,d], to a fraction of a step, and the value there
    [n].

    The fraction is that of a parabola through the largest value and its two neighbours, where both exist.
    """
    n, side, _ = values.shape
    best, index = values.flatten(1).max(1)
    place = torch.stack((index % side, index // side), dim=1)
    padded = F.pad(values, (1, 1, 1, 1), value=-torch.inf)
    number = torch.arange(n, device=values.device)
    fraction = []
    for dx, dy in ((1, 0), (0, 1)):
        x, y = place[:, 0] + 1, place[:, 1] + 1
        left, right = padded[number, y - dy, x - dx], padded[number, y + dy, x + dx]
        shift = 0.5 * (left - right) / (left + right - 2 * best)
        fraction.append(shift.nan_to_num(0, 0, 0).clamp(-0.5, 0.5))
    return place + torch.stack(fraction, dim=1), best

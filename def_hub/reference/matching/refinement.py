"""Local search at HR-pixel precision around each match."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub.reference.matching.correspondence import CELL, Correspondence

NOISE = 0.5 / 255
"""Half a grey level. A patch with less contrast correlates with nothing, or flat ones would correlate with anything."""
TRUST = 3
"""A correlation to this power is about the share of a match's detail that is true (`examples/matching_table.py`)."""


@torch.no_grad()
def refine(
    correspondence: Correspondence,
    query: Tensor,
    references: Sequence[Tensor],
    *,
    radius: int = 4,
    patch: int = 16,
    memory: int = 2**24,
) -> Correspondence:
    """Move each match to the best place within ±`radius` HR pixels, then below a pixel.

    A match on the LR grid is right to four HR pixels; the high frequencies that a reference is wanted for need one.
    The `patch`×`patch` pixels around each cell of `query` [B,3,H,W] (the enhanced image) are compared with
    `references` (each [B,3,Hr,Wr]) by zero-mean normalised cross-correlation of luma; a parabola
    through the best correlation and its neighbours gives the fraction. The correlation becomes, to the power of
    `TRUST`, the confidence.

    Not in the paper, which leaves all this to the learned offsets. `memory` bounds the working storage in bytes, beside
    two planes per image. Raises ValueError when query or references do not fit the correspondence, or for an
    impossible `radius` or `patch`.
    """
    check_images(correspondence, query, references)
    if radius < 1 or patch < CELL or patch % 2:
        raise ValueError(f"expected radius >= 1 and an even patch >= {CELL}, got {radius} and {patch}")

    comparison = _Comparison(query, references, patch, radius, memory)
    reference = correspondence.reference
    position, _ = comparison.best(reference, correspondence.position, radius)
    # Once more, so that each place has both its neighbours and with them its fraction.
    position, similarity = comparison.best(reference, position, 1)
    return Correspondence(reference, position, similarity.clamp(0, 1).pow(TRUST)[:, None])


def check_images(correspondence: Correspondence, query: Tensor, references: Sequence[Tensor]) -> None:
    """Raise ValueError where the pictures do not fit the cells, or a reference is named that is not there."""
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


class _Comparison:
    """The patches around the cells of a query against windows of the references."""

    def __init__(self, query: Tensor, references: Sequence[Tensor], patch: int, radius: int, memory: int) -> None:
        """`radius` is the largest that `best` will be asked for."""
        self.patch, self.memory = patch, memory
        self.before = (patch - CELL) // 2  # a patch begins so many pixels above and to the left of its cell
        self.queries = _PatchWindows([query], patch, self.before)
        self.keys = _PatchWindows(references, patch, self.before + radius)

    def best(self, reference: Tensor, position: Tensor, radius: int) -> tuple[Tensor, Tensor]:
        """Best place [B,2,h,w] within ±`radius` pixels of `position`, to a fraction, and the correlation [B,h,w]."""
        batch, h, w = reference.shape
        device = position.device
        sample, y, x = torch.meshgrid(*(torch.arange(n, device=device) for n in (batch, h, w)), indexing="ij")
        cell = torch.stack((x, y), dim=-1) * CELL
        start = (position.movedim(1, -1) - (CELL - 1) / 2).round().long()
        flat = [t.flatten(0, 2) for t in (reference, sample, cell, start)]
        step = max(1, self.memory // (4 * 4 * (self.patch + 2 * radius) ** 2))
        parts = [self._best(*part, radius=radius) for part in zip(*(t.split(step) for t in flat), strict=True)]
        corner, similarity = (torch.cat(part) for part in zip(*parts, strict=True))
        found = corner.view(batch, h, w, 2).movedim(-1, 1) + (CELL - 1) / 2
        return found.contiguous(), similarity.view(batch, h, w)

    def _best(
        self, reference: Tensor, sample: Tensor, cell: Tensor, start: Tensor, *, radius: int
    ) -> tuple[Tensor, Tensor]:
        """The same for n cells given by their first pixels: [n], [n], [n,2], [n,2] → [n,2], [n]."""
        limit = self.keys.limit[reference]
        corner = start.clamp_min(0).minimum(limit) - radius
        patches, scale = self.queries.at(torch.zeros_like(sample), sample, cell - self.before, self.patch)
        regions, scales = self.keys.at(reference, sample, corner - self.before, self.patch + 2 * radius)
        patches = (patches - patches.mean((1, 2), keepdim=True)) * scale
        # One group per cell: every place for every cell in one call.
        correlation = F.conv2d(regions[None], patches[:, None], groups=len(patches))[0] * scales
        for axis in (0, 1):  # a match stays inside its reference
            place = corner[:, axis, None] + torch.arange(2 * radius + 1, device=corner.device)
            outside = (place < 0) | (place > limit[:, axis, None])
            correlation.masked_fill_(outside[:, None, :] if axis == 0 else outside[:, :, None], -torch.inf)
        place, similarity = _peak(correlation)
        return corner + place, similarity


class _PatchWindows:
    """Square windows of the luma of several batched images of different sizes, gathered in one call."""

    def __init__(self, images: Sequence[Tensor], patch: int, margin: int) -> None:
        """Windows may begin `margin` pixels outside an image; its border is repeated there."""
        planes, norms, start, row = [], [], [], []
        length = 0
        for image in images:
            # Centred, so that the variances below keep their precision.
            plane = luma(image.float() - 0.5)
            plane = F.pad(plane, (margin,) * 4, mode="replicate")
            energy = (_box(plane**2, patch) - _box(plane, patch) ** 2).clamp_min(0) * patch**2
            norm = (energy + (NOISE * patch) ** 2).rsqrt()
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


def luma(image: Tensor) -> Tensor:
    """[B,3,H,W] → [B,H,W] float32."""
    return torch.einsum("bchw,c->bhw", image.float(), image.new_tensor((0.299, 0.587, 0.114), dtype=torch.float32))


def _box(x: Tensor, side: int) -> Tensor:
    """Mean over each `side`×`side` window: [B,H,W] → [B,H-side+1,W-side+1]."""
    return F.avg_pool2d(F.avg_pool2d(x, (1, side), 1), (side, 1), 1)


def _peak(values: Tensor) -> tuple[Tensor, Tensor]:
    """Place (x, y) [n,2] of the largest of `values` [n,d,d], to a fraction of a step, and the value there [n].

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

"""Reference features laid out like the image: by the match alone (`warp`), or by a deformable convolution
that starts from it (`DeformableTransfer`, eq. 13).

A pyramid level of stride s has one pixel per s×s HR pixels: 4 is the LR grid, 1 the HR image. `Hl Wl` is its
size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from def_hub.reference.matching import CELL, Correspondence
from def_hub.reference.restoring.deformable import TAPS, Reader


def sample(features: Sequence[Tensor], reference: Tensor, x: Tensor, y: Tensor, mode: str = "bilinear") -> Tensor:
    """Values [B,C,Hl,Wl], "bilinear" or "bicubic", at (x, y), clamped to the border, of the feature map that
    `reference` names.

    `features` holds one [B,C,Hk,Wk] for each reference, `reference` [B,Hl,Wl] long its number, `x`, `y`
    [B,Hl,Wl] the place in pixels of that map (pixel centres at integers). Gradients flow to features, x and
    y.
    """
    if len(features) == 1:
        return _interpolated(features[0], x, y, mode)
    # Each map is asked only for the places that look at it: the cost does not grow with the number of
    # references.
    batch, channels = features[0].shape[:2]
    values = x.new_zeros(batch, channels, x[0].numel())
    for b in range(batch):
        for number, map_ in enumerate(features):
            here = (reference[b] == number).flatten().nonzero()[:, 0]
            if len(here):
                there = [t[b].flatten()[here][None, None] for t in (x, y)]
                found = _interpolated(map_[b : b + 1], there[0], there[1], mode)
                values[b, :, here] = found[0, :, 0]
    return values.view(batch, channels, *x.shape[1:])


def warp(features: Sequence[Tensor], correspondence: Correspondence, stride: int) -> Tensor:
    """Hard transfer of one pyramid level: every pixel of a cell moves as the cell does. [B,C,Hl,Wl].

    `features` holds one [B,C,Hk,Wk] for each reference, at that reference's own size; images are the level of
    stride 1. Raises ValueError when features or stride do not fit the correspondence.
    """
    _check(features, correspondence, stride)
    return sample(features, *_places(correspondence, stride)[:3])


def spread(cells: Tensor, stride: int) -> Tensor:
    """[...,h,w] → [...,Hl,Wl]: each pixel of a level takes the value of its cell."""
    per_cell = CELL // stride
    return cells.repeat_interleave(per_cell, -1).repeat_interleave(per_cell, -2)


def overlapped(images: Sequence[Tensor], correspondence: Correspondence) -> Tensor:
    """Transfer of pixels, each predicted by its own cell and the eight around it, in their frames. [B,C,H,W].

    Where a cell looks is right for its neighbourhood too, or wrong for reasons of its own: the mean of nine
    predictions, weighted by a triangle over 12×12 pixels, has 1.3 times the correlation with the true detail that one
    has (examples/matching_table.txt). Between pixels the reference is bicubic: what is linear there is blurred.
    Arguments and errors as `warp`, at stride 1.
    """
    _check(images, correspondence, 1)
    total, weights = torch.zeros((), device=images[0].device), torch.zeros((), device=images[0].device)
    for row in (-1, 0, 1):
        for column in (-1, 0, 1):
            reference, x, y, dx, dy = _places(correspondence, 1, row, column)
            weight = torch.outer(1 - dy.abs() / (1.5 * CELL), 1 - dx.abs() / (1.5 * CELL))
            total = total + sample(images, reference, x, y, "bicubic") * weight
            weights = weights + weight
    return total / weights


class HardTransfer(nn.Module):
    """What a match brings, as it is: a 3×3 convolution of the matched features, times the confidence (TTSR's, and the
    base of the paper's ablation). It starts as the identity."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_channels, in_channels, 3, 3))
        nn.init.dirac_(self.weight)

    def forward(self, features: Sequence[Tensor], guide: Tensor, correspondence: Correspondence, stride: int) -> Tensor:
        """As `DeformableTransfer`, but nothing is made of `guide`."""
        warped = warp(features, correspondence, stride)
        return F.conv2d(warped, self.weight, padding=1) * spread(correspondence.confidence, stride)


class DeformableTransfer(nn.Module):
    """Modulated deformable 3×3 convolution whose sampling starts from the match (eq. 13):

        T(p) = C(p) · Σ_j w_j · F_ref(P(p) + p_j + Δp_j) · m_j,   j = 1 … 9

    One convolution of [matched reference features, features of the enhanced image] gives the offsets Δp and
    the masks m = 2·sigmoid(·). It starts at zero, so Δp = 0 and m = 1, and `weight` starts as the identity in
    its centre tap: T starts as the plain hard transfer times the confidence. There is no bias: without
    confidence nothing is transferred.

    Plain torch, some pixels at a time, so no ninefold copy of the features exists when gradients are off
    (`reference/deformable.py`). Features are read in the precision they come in, and fastest where channels are last.
    """

    def __init__(self, in_channels: int, out_channels: int, guide_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_channels, in_channels, 3, 3))
        nn.init.dirac_(self.weight)
        self.offsets = nn.Conv2d(in_channels + guide_channels, 3 * TAPS, 3, padding=1)
        nn.init.zeros_(self.offsets.weight)
        assert self.offsets.bias is not None
        nn.init.zeros_(self.offsets.bias)

    def forward(self, features: Sequence[Tensor], guide: Tensor, correspondence: Correspondence, stride: int) -> Tensor:
        """→ [B,out_channels,Hl,Wl].

        `features` holds one [B,in_channels,Hk,Wk] for each reference, `guide` [B,guide_channels,Hl,Wl] the
        features of the enhanced image at this level. Raises ValueError when they or `stride` do not fit the
        correspondence.
        """
        _check(features, correspondence, stride)
        reference, x, y, *_ = _places(correspondence, stride)
        expected = (len(reference), self.offsets.in_channels - features[0].shape[1], *reference.shape[1:])
        if guide.shape != expected:
            raise ValueError(f"guide: expected {list(expected)} at stride {stride}, got {list(guide.shape)}")

        x, y = (t.reshape(-1, 1) for t in (x, y))  # [N,1], for all N pixels of the level
        read = Reader(features, reference)
        matched = read.at(x, y)
        guide = guide.contiguous(memory_format=torch.channels_last)  # as `matched` is
        # the layer itself is called, not its weights used: with offloading it has none before
        moved = self.offsets(torch.cat((matched, guide.to(matched.dtype)), dim=1))
        dx, dy, mask = moved.float().movedim(1, -1).reshape(-1, 3, TAPS).unbind(1)  # [N,9] each
        share = 2 * mask.sigmoid() * spread(correspondence.confidence, stride).reshape(-1, 1)

        tap = torch.arange(TAPS, device=x.device)
        return read.convolved(x + tap % 3 - 1 + dx, y + tap // 3 - 1 + dy, share, self.weight)


def _check(features: Sequence[Tensor], correspondence: Correspondence, stride: int) -> None:
    if stride not in (1, 2, 4):
        raise ValueError(f"stride: expected 1, 2 or 4, got {stride}")
    if not features:
        raise ValueError("features: expected those of one reference at least, got none")
    batch = len(correspondence.reference)
    for number, map_ in enumerate(features):
        if map_.ndim != 4 or map_.shape[:2] != (batch, features[0].shape[1]):
            raise ValueError(
                f"features[{number}]: expected [{batch},{features[0].shape[1]},Hk,Wk], got {list(map_.shape)}"
            )
    named = int(correspondence.reference.max()) + 1
    if named > len(features):
        raise ValueError(f"features: expected those of the {named} references that are named, got {len(features)}")


def _places(
    correspondence: Correspondence, stride: int, row: int = 0, column: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """For each pixel of a level, the reference [B,Hl,Wl] and the place x, y [B,Hl,Wl] in pixels of its level, as its
    cell has it, or the cell `row`, `column` further where there is one; and how far the pixels lie from the centre of
    that cell, dx [Wl] and dy [Hl], in HR pixels."""
    h, w = correspondence.reference.shape[1:]
    device = correspondence.position.device
    centre = (stride - 1) / 2  # of pixel 0 of the level, in HR pixels

    def along(cells: int, shift: int) -> tuple[Tensor, Tensor]:
        index = (torch.arange(cells, device=device) + shift).clamp(0, cells - 1)
        index = index.repeat_interleave(CELL // stride)
        home = torch.arange(len(index), device=device) * stride + centre
        return index, home - (index * CELL + (CELL - 1) / 2)

    rows, dy = along(h, row)
    columns, dx = along(w, column)

    def of(cells: Tensor) -> Tensor:
        return cells.index_select(-2, rows).index_select(-1, columns)

    x, y = of(correspondence.position).unbind(1)
    if correspondence.frame is None:
        x, y = x + dx, y + dy[:, None]
    else:
        (xx, xy), (yx, yy) = (line.unbind(1) for line in of(correspondence.frame).unbind(1))
        x, y = x + xx * dx + xy * dy[:, None], y + yx * dx + yy * dy[:, None]
    return of(correspondence.reference), (x - centre) / stride, (y - centre) / stride, dx, dy


def _interpolated(features: Tensor, x: Tensor, y: Tensor, mode: str) -> Tensor:
    """`F.grid_sample` in pixels. For few channels nothing beats it on a CPU."""
    height, width = features.shape[2:]
    grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)
    # Half precision cannot name a pixel of a large image, and both arguments must have one type.
    return F.grid_sample(features.float(), grid.float(), mode, padding_mode="border", align_corners=False)

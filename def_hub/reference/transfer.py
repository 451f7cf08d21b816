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


def sample(features: Sequence[Tensor], reference: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Bilinear values [B,C,Hl,Wl] at (x, y), clamped to the border, of the feature map that `reference`
    names.

    `features` holds one [B,C,Hk,Wk] for each reference, `reference` [B,Hl,Wl] long its number, `x`, `y`
    [B,Hl,Wl] the place in pixels of that map (pixel centres at integers). Gradients flow to features, x and
    y.
    """
    if len(features) == 1:
        return _bilinear(features[0], x, y)
    # Each map is asked only for the places that look at it: the cost does not grow with the number of
    # references.
    batch, channels = features[0].shape[:2]
    values = x.new_zeros(batch, channels, x[0].numel())
    for b in range(batch):
        for number, map_ in enumerate(features):
            here = (reference[b] == number).flatten().nonzero()[:, 0]
            if len(here):
                found = _bilinear(map_[b : b + 1], x[b].flatten()[here][None, None], y[b].flatten()[here][None, None])
                values[b, :, here] = found[0, :, 0]
    return values.view(batch, channels, *x.shape[1:])


def warp(features: Sequence[Tensor], correspondence: Correspondence, stride: int) -> Tensor:
    """Hard transfer of one pyramid level: every pixel of a cell moves as the cell does. [B,C,Hl,Wl].

    `features` holds one [B,C,Hk,Wk] for each reference, at that reference's own size; images are the level of
    stride 1. Raises ValueError when features or stride do not fit the correspondence.
    """
    _check(features, correspondence, stride)
    return sample(features, *_places(correspondence, stride))


def spread(cells: Tensor, stride: int) -> Tensor:
    """[...,h,w] → [...,Hl,Wl]: each pixel of a level takes the value of its cell."""
    per_cell = CELL // stride
    return cells.repeat_interleave(per_cell, -1).repeat_interleave(per_cell, -2)


def overlapped(images: Sequence[Tensor], correspondence: Correspondence) -> Tensor:
    """Transfer of pixels, each predicted by its own cell and the eight around it. [B,C,H,W].

    Where a cell looks is right for its neighbourhood too, or wrong for reasons of its own: the mean of nine
    predictions, weighted by a triangle over 12×12 pixels, has nearly one and a half times the correlation with the
    true detail that one has (examples/matching_table.py). Arguments and errors as `warp`, at stride 1.
    """
    _check(images, correspondence, 1)
    batch, height, width = correspondence.reference.shape
    home = Correspondence.identity(batch, height, width, correspondence.position.device).position
    moved = F.pad(correspondence.position - home, (1, 1, 1, 1), mode="replicate")
    reference = F.pad(correspondence.reference[:, None].float(), (1, 1, 1, 1), mode="replicate")[:, 0].long()
    total, weights = torch.zeros((), device=home.device), torch.zeros((), device=home.device)
    within = torch.arange(CELL, device=home.device) - (CELL - 1) / 2  # of a pixel, from the centre of its cell
    for row in range(3):
        for column in range(3):
            neighbour = Correspondence(
                reference[:, row : row + height, column : column + width],
                home + moved[:, :, row : row + height, column : column + width],
                correspondence.confidence,
            )
            vertical, horizontal = (1 - (within - CELL * (n - 1)).abs() / (1.5 * CELL) for n in (row, column))
            weight = torch.outer(vertical, horizontal).repeat(height, width)
            total = total + warp(images, neighbour, stride=1) * weight
            weights = weights + weight
    return total / weights


class DeformableTransfer(nn.Module):
    """Modulated deformable 3×3 convolution whose sampling starts from the match (eq. 13):

        T(p) = C(p) · Σ_j w_j · F_ref(P(p) + p_j + Δp_j) · m_j,   j = 1 … 9

    One convolution of [matched reference features, features of the enhanced image] gives the offsets Δp and
    the masks m = 2·sigmoid(·). It starts at zero, so Δp = 0 and m = 1, and `weight` starts as the identity in
    its centre tap: T starts as the plain hard transfer times the confidence. There is no bias: without
    confidence nothing is transferred.

    Plain torch, one tap at a time, so no ninefold copy of the features exists when gradients are off.
    """

    def __init__(self, in_channels: int, out_channels: int, guide_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_channels, in_channels, 3, 3))
        nn.init.dirac_(self.weight)
        self.offsets = nn.Conv2d(in_channels + guide_channels, 3 * 9, 3, padding=1)
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
        reference, x, y = _places(correspondence, stride)
        expected = (len(reference), self.offsets.in_channels - features[0].shape[1], *reference.shape[1:])
        if guide.shape != expected:
            raise ValueError(f"guide: expected {list(expected)} at stride {stride}, got {list(guide.shape)}")

        warped = sample(features, reference, x, y)
        dx, dy, mask = self.offsets(torch.cat((warped, guide), dim=1)).float().chunk(3, dim=1)  # [B,9,Hl,Wl] each
        mask = 2 * mask.sigmoid()
        transferred = torch.zeros((), device=guide.device)
        for j in range(9):
            row, column = divmod(j, 3)
            tap = sample(features, reference, x + (column - 1) + dx[:, j], y + (row - 1) + dy[:, j])
            transferred = transferred + F.conv2d(tap * mask[:, j, None], self.weight[:, :, row, column, None, None])
        return transferred * spread(correspondence.confidence, stride)


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


def _places(correspondence: Correspondence, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each pixel of a level, the reference [B,Hl,Wl] and the place x, y [B,Hl,Wl] in pixels of its
    level."""
    reference = spread(correspondence.reference, stride)
    position = spread(correspondence.position, stride)
    # Where a pixel's centre lies within its cell, in HR pixels from the centre of the cell.
    per_cell = CELL // stride
    within = (torch.arange(per_cell, device=position.device) + 0.5) * stride - CELL / 2
    height, width = reference.shape[1:]
    centre = (stride - 1) / 2  # of pixel 0 of the level, in HR pixels
    x = (position[:, 0] + within.repeat(width // per_cell) - centre) / stride
    y = (position[:, 1] + within.repeat(height // per_cell)[:, None] - centre) / stride
    return reference, x, y


def _bilinear(features: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """`F.grid_sample` in pixels. It beats gathers of the four neighbours two- to fivefold on a CPU, both
    ways."""
    height, width = features.shape[2:]
    grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)
    # Half precision cannot name a pixel of a large image, and both arguments must have one type.
    return F.grid_sample(features.float(), grid.float(), padding_mode="border", align_corners=False)

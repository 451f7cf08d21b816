"""Transfer: reference features are moved to where they match the image, by the match alone (`warp`, `HardTransfer`) or
by a deformable convolution that starts from the match (`DeformableTransfer`, eq. 13).

A pyramid level of stride s has one feature per s×s HR pixels: stride 4 is the LR grid, stride 1 the HR image. `Hl Wl`
is the size of a level.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from def_hub.reference.matching import CELL, Correspondence
from def_hub.reference.restoring.deformable import TAPS, Reader


def sample(features: Sequence[Tensor], reference: Tensor, x: Tensor, y: Tensor, mode: str = "bilinear") -> Tensor:
    """Features [B,C,Hl,Wl] interpolated at given places. Gradients flow to features, x and y.

    Args:
        features: one map [B,C,Hk,Wk] for each reference.
        reference: [B,Hl,Wl] long, the number of the map to read from.
        x, y: [B,Hl,Wl], the place in pixels of that map; pixel centres are at integers, places outside are clamped.
        mode: "bilinear" or "bicubic".
    """
    if len(features) == 1:
        return _interpolated(features[0], x, y, mode)
    # Each map is read only at its own places, so the cost does not grow with the number of references.
    batch, channels = features[0].shape[:2]
    values = x.new_zeros(batch, channels, x[0].numel())
    for b in range(batch):
        for number, map_ in enumerate(features):
            here = (reference[b] == number).flatten().nonzero()[:, 0]
            if len(here):
                there = [t[b].flatten()[here][None, None] for t in (x, y)]
                read = _interpolated(map_[b : b + 1], there[0], there[1], mode)
                values[b, :, here] = read[0, :, 0]
    return values.view(batch, channels, *x.shape[1:])


def warp(features: Sequence[Tensor], correspondence: Correspondence, stride: int) -> Tensor:
    """Hard transfer of one pyramid level, [B,C,Hl,Wl]: all pixels of a cell move with the cell.

    Args:
        features: one map [B,C,Hk,Wk] for each reference, each of its own size. Images are the level of stride 1.

    Raises:
        ValueError: if features or stride do not fit the correspondence.
    """
    _check(features, correspondence, stride)
    return sample(features, *_places(correspondence, stride)[:3])


def spread(cells: Tensor, stride: int) -> Tensor:
    """[...,h,w] → [...,Hl,Wl]: each pixel of a level gets the value of its cell."""
    per_cell = CELL // stride
    return cells.repeat_interleave(per_cell, -1).repeat_interleave(per_cell, -2)


def overlapped(images: Sequence[Tensor], correspondence: Correspondence) -> Tensor:
    """Pixels of the references, moved to where they match, [B,C,H,W]. Each is a mean over overlapping cells.

    Nine cells predict each pixel: its own and the eight around it, each with its own match. The predictions are
    weighted by a triangle over 12×12 pixels. A good match also holds in its neighbourhood, while the errors of
    neighbouring matches are independent. The mean has 1.3 times the correlation with the true detail that a single
    prediction has (measured by examples/matching_table.py). Interpolation is bicubic: bilinear interpolation blurs.

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
    """Hard transfer: a 3×3 convolution of the matched features, times the confidence. It starts as the identity.

    This is TTSR's transfer, and the baseline of the paper's ablation.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_channels, in_channels, 3, 3))
        nn.init.dirac_(self.weight)

    def forward(self, features: Sequence[Tensor], guide: Tensor, correspondence: Correspondence, stride: int) -> Tensor:
        """As `DeformableTransfer.forward`; `guide` is not used."""
        warped = warp(features, correspondence, stride)
        return F.conv2d(warped, self.weight, padding=1) * spread(correspondence.confidence, stride)


class DeformableTransfer(nn.Module):
    """Modulated deformable 3×3 convolution whose sampling starts from the match (eq. 13):

        T(p) = C(p) · Σ_j w_j · F_ref(P(p) + p_j + Δp_j) · m_j,   j = 1 … 9

    One convolution of [matched reference features, features of the enhanced image] predicts the offsets Δp and the
    masks m = 2·sigmoid(·). It is initialised to zero, so Δp = 0 and m = 1. `weight` is initialised as the identity in
    its centre tap. T therefore starts as the hard transfer times the confidence. There is no bias: at confidence 0
    nothing is transferred.

    The sum is computed by `def_hub.reference.restoring.deformable` in the precision of the features; channels last is
    the fastest layout.
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
        """The transferred features of one level, [B,out_channels,Hl,Wl].

        Args:
            features: one map [B,in_channels,Hk,Wk] for each reference.
            guide: [B,guide_channels,Hl,Wl], the features of the enhanced image at this level.
            stride: of the level, 1, 2 or 4.

        Raises:
            ValueError: if features, guide or stride do not fit the correspondence.
        """
        _check(features, correspondence, stride)
        reference, x, y, *_ = _places(correspondence, stride)
        expected = (len(reference), self.offsets.in_channels - features[0].shape[1], *reference.shape[1:])
        if guide.shape != expected:
            raise ValueError(f"guide: expected {list(expected)} at stride {stride}, got {list(guide.shape)}")

        x, y = (t.reshape(-1, 1) for t in (x, y))  # [N,1], for all N pixels of the level
        read = Reader(features, reference)
        matched = read.at(x, y)
        guide = guide.contiguous(memory_format=torch.channels_last)  # the layout of `matched`
        # The layer is called as a module: with CPU offload its weights are loaded only then.
        moved = self.offsets(torch.cat((matched, guide.to(matched.dtype)), dim=1))
        dx, dy, mask = moved.float().movedim(1, -1).reshape(-1, 3, TAPS).unbind(1)  # [N,9] each
        share = 2 * mask.sigmoid() * spread(correspondence.confidence, stride).reshape(-1, 1)

        tap = torch.arange(TAPS, device=x.device)
        return read.convolved(x + tap % 3 - 1 + dx, y + tap // 3 - 1 + dy, share, self.weight)


def _check(features: Sequence[Tensor], correspondence: Correspondence, stride: int) -> None:
    """Raise ValueError if features or stride do not fit the correspondence."""
    if stride not in (1, 2, 4):
        raise ValueError(f"stride: expected 1, 2 or 4, got {stride}")
    if not features:
        raise ValueError("features: expected those of at least one reference, got none")
    batch = len(correspondence.reference)
    for number, map_ in enumerate(features):
        if map_.ndim != 4 or map_.shape[:2] != (batch, features[0].shape[1]):
            raise ValueError(
                f"features[{number}]: expected [{batch},{features[0].shape[1]},Hk,Wk], got {list(map_.shape)}"
            )
    named = int(correspondence.reference.max()) + 1
    if named > len(features):
        raise ValueError(f"features: expected those of {named} references, got {len(features)}")


def _places(
    correspondence: Correspondence, stride: int, row: int = 0, column: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Where each pixel of a level reads, according to the match of its own cell or of a neighbouring cell.

    Args:
        row, column: offset of the neighbouring cell; clamped at the border of the image.

    Returns:
        reference [B,Hl,Wl]: the number of the reference.
        x, y [B,Hl,Wl]: the place, in pixels of the reference's level.
        dx [Wl], dy [Hl]: the distance of the pixels from the centre of the cell, in HR pixels.
    """
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

    def per_pixel(cells: Tensor) -> Tensor:
        return cells.index_select(-2, rows).index_select(-1, columns)

    x, y = per_pixel(correspondence.position).unbind(1)
    if correspondence.frame is None:
        x, y = x + dx, y + dy[:, None]
    else:
        (xx, xy), (yx, yy) = (line.unbind(1) for line in per_pixel(correspondence.frame).unbind(1))
        x, y = x + xx * dx + xy * dy[:, None], y + yx * dx + yy * dy[:, None]
    return per_pixel(correspondence.reference), (x - centre) / stride, (y - centre) / stride, dx, dy


def _interpolated(features: Tensor, x: Tensor, y: Tensor, mode: str) -> Tensor:
    """`F.grid_sample` with places in pixels. For few channels it is the fastest way on a CPU."""
    height, width = features.shape[2:]
    grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)
    # Half precision cannot represent the positions in a large image, and both arguments must have the same type.
    return F.grid_sample(features.float(), grid.float(), mode, padding_mode="border", align_corners=False)

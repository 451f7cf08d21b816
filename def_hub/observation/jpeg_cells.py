"""What a JPEG file allows: the pictures whose coefficients, quantised with its tables, are the file's."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from def_hub.observation.jpeg import BLOCK, FROM_RGB, JpegComponent, JpegFile, dct, from_blocks, idct, to_blocks
from def_hub.observation.kept import kept
from def_hub.observation.sets import LEVEL, excess

MARGIN = 1.0
"""Levels by which `Observation.finish` aims into a cell, so that rounding the result to 8 bits does not leave it."""
BORDER_ROUNDS = 300  # of alternation in blocks that the picture's border cuts


@dataclass(frozen=True)
class JpegCells:
    """The file is a JPEG: every coefficient lies within half a step of its table around the decoded one.

    Where colour is stored smaller, the set is that of the pictures whose shrunk colour lies in the cells; shrinking is
    libjpeg's, a mean. Blocks that the border cuts are continued as libjpeg's encoder does. "Nearest" is measured in Y,
    Cb and Cr.

    Attributes:
        file: what it says.
        noise: standard deviation, in levels, of noise that was there before saving: the cells are widened by it.
        margin: levels by which each cell is smaller on both sides.
    """

    file: JpegFile
    noise: float = 0.0
    margin: float = 0.0

    def nearest(self, z: Tensor) -> Tensor:
        planes = self._planes(z)
        change = torch.stack(
            [
                _component_change(plane, component, self.margin)
                for plane, component in zip(planes, self.file.components, strict=False)
            ]
            + [-plane for plane in planes[len(self.file.components) :]]  # a grey file has no colour
        )
        if self.noise:
            change = change * excess(change.square().sum(0)[None, None], self._variance(z), count=2)[0]
        change = torch.einsum("cd,dhw->chw", _matrix(z, inverse=True), change)
        return z + self.file.upright(change)[None] * LEVEL

    def core(self) -> JpegCells:
        return replace(self, margin=0.0 if self.noise else MARGIN)

    def share(self, z: Tensor) -> float:
        """Coefficients that are the file's when `z` is quantised with its tables."""
        equal, count = 0.0, 0
        for plane, component in zip(self._planes(z), self.file.components, strict=False):
            rows, columns = component.sure
            coefficients = dct(_stored_blocks(plane, *_axes(plane, component))) / component.steps.to(z)
            same = (coefficients - component.levels.to(z)).abs()[:rows, :columns] <= 0.5 + 1e-4
            equal, count = equal + float(same.double().sum()), count + same.numel()
        return equal / max(count, 1)

    def _planes(self, z: Tensor) -> Tensor:
        """`z` → Y, Cb, Cr `[3, h, w]` as the file stores them, in levels, 128 subtracted."""
        stored = self.file.stored(z)[0]
        if stored.shape[-2:] != (self.file.height, self.file.width):
            raise ValueError(
                f"the file shows {self.file.width}×{self.file.height} pixels, the picture is "
                f"{stored.shape[-1]}×{stored.shape[-2]}"
            )
        planes = torch.einsum("cd,dhw->chw", _matrix(z), stored * 255)
        return planes - torch.tensor([128, 0, 0]).to(z)[:, None, None]

    def _variance(self, z: Tensor) -> Tensor:
        """Of the noise that a pixel's stored planes hold together, `[1, 1, h, w]`."""
        share = _matrix(z).square().sum(1)
        stored = [1 / (c.shrunk[0] * c.shrunk[1]) for c in self.file.components] + [1.0, 1.0]
        total = sum(float(s) * f for s, f in zip(share, stored, strict=False))
        return torch.full((1, 1, self.file.height, self.file.width), total * self.noise**2).to(z)


@kept(16)
def _color_matrix(inverse: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    return (torch.linalg.inv(FROM_RGB) if inverse else FROM_RGB).to(device=device, dtype=dtype)


def _matrix(like: Tensor, inverse: bool = False) -> Tensor:
    return _color_matrix(inverse, like.dtype, like.device)


@dataclass(frozen=True)
class _Axis:
    """How one axis of the picture becomes one axis of a stored plane, and is continued to whole blocks.

    Means of `factor` pixels up to pixel `head`; then `tail` `[8, remaining pixels]` makes the last block, `inverse`
    takes it back, and `onto` `[8, 8]` projects onto what it can be.
    """

    factor: int
    head: int
    tail: Tensor
    inverse: Tensor
    onto: Tensor

    @property
    def whole(self) -> bool:
        """The border does not cut the last block."""
        return self.tail.shape[1] == BLOCK * self.factor

    def shrink(self, plane: Tensor) -> Tensor:
        """M along the last axis: `[..., n]` → `[..., 8·blocks]`."""
        front = plane[..., : self.head].unflatten(-1, (-1, self.factor)).mean(-1)
        return torch.cat((front, plane[..., self.head :] @ self.tail.mT), -1)

    def undo(self, plane: Tensor) -> Tensor:
        """M† along the last axis."""
        front = plane[..., : self.head // self.factor].repeat_interleave(self.factor, -1)
        return torch.cat((front, plane[..., self.head // self.factor :] @ self.inverse.mT), -1)


@kept(64)
def _axis(n: int, factor: int, vertical: bool, dtype: torch.dtype, device: torch.device) -> _Axis:
    """The axis of `n` pixels. libjpeg repeats the last column before it shrinks colour; of rows it repeats the last
    one that it stores.
    """
    head = (n - 1) // (BLOCK * factor) * BLOCK * factor
    left = n - head
    position = torch.arange(BLOCK * factor)
    if vertical:
        stored = -(-left // factor)
        position = position.view(BLOCK, factor)[torch.arange(BLOCK).clamp(max=stored - 1)].flatten()
    tail = torch.zeros(BLOCK, left, dtype=torch.float64)
    index = (torch.arange(BLOCK * factor) // factor, position.clamp(max=left - 1))
    tail.index_put_(index, torch.tensor(1 / factor, dtype=torch.float64), accumulate=True)
    inverse = torch.linalg.pinv(tail)
    return _Axis(factor, head, *(m.to(device=device, dtype=dtype) for m in (tail, inverse, tail @ inverse)))


def _axes(plane: Tensor, component: JpegComponent) -> tuple[_Axis, _Axis]:
    return tuple(  # type: ignore[return-value]
        _axis(plane.shape[axis], component.shrunk[axis], axis == 0, plane.dtype, plane.device) for axis in (0, 1)
    )


def _stored_blocks(plane: Tensor, rows: _Axis, columns: _Axis) -> Tensor:
    """The blocks `[rows, columns, 8, 8]` that libjpeg makes of a plane `[h, w]`."""
    return to_blocks(rows.shrink(columns.shrink(plane).mT).mT)


def _component_change(plane: Tensor, component: JpegComponent, margin: float) -> Tensor:
    """What to add to a stored plane `[h, w]` (levels, 128 subtracted) so that its blocks lie in the file's cells."""
    rows, columns = _axes(plane, component)
    blocks = _stored_blocks(plane, rows, columns)
    steps = component.steps.to(plane)
    half = steps / 2 - torch.full_like(steps, margin).minimum(0.4 * steps)
    middle = component.levels.to(plane) * steps
    low, high = middle - half, middle + half
    wanted = idct(dct(blocks).clamp(low, high))
    cut = torch.zeros(blocks.shape[:2], dtype=torch.bool, device=plane.device)
    cut[-1, :] |= not rows.whole
    cut[:, -1] |= not columns.whole
    if cut.any():
        wanted[cut] = _nearest_continued(blocks[cut], low[cut], high[cut], *_continuations(cut, rows, columns))
    change = wanted - blocks
    sure = component.sure
    change[sure[0] :], change[:, sure[1] :] = 0, 0
    change = from_blocks(change)
    return rows.undo(columns.undo(change).mT).mT


def _continuations(cut: Tensor, rows: _Axis, columns: _Axis) -> tuple[Tensor, Tensor]:
    """For each block that the border cuts, what projects its columns and its rows onto continued ones, `[N, 8, 8]`."""
    row, column = cut.nonzero().T
    same = torch.eye(BLOCK, dtype=rows.onto.dtype, device=cut.device)
    left = torch.where((row == cut.shape[0] - 1)[:, None, None], rows.onto, same)
    right = torch.where((column == cut.shape[1] - 1)[:, None, None], columns.onto, same)
    return left, right


def _nearest_continued(blocks: Tensor, low: Tensor, high: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """The nearest blocks that lie in their cells and are continued beyond the border as the encoder does it: Dykstra's
    alternation between the two. `blocks` `[N, 8, 8]` are continued already.
    """
    found, correction = blocks, torch.zeros_like(blocks)
    for _ in range(BORDER_ROUNDS):
        inside = idct(dct(found + correction).clamp(low, high))
        correction = found + correction - inside
        found = left @ inside @ right
        if (found - inside).abs().max() < 0.01:
            break
    return found

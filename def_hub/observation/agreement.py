"""What agrees with the file that was given: closed convex sets C(y) of small pictures, and the way onto them.

The paper's eq. 1 knows `A x = y`. A photograph that was rounded, saved as JPEG or is noisy says less: `A x` lies in a
set C that also holds the truth. Eq. 8-9 become `P(x) = x + A†(Π_C(A x) - A x)`, which is today's projection where
`C = {y}`. Projecting onto a convex set that holds the truth never takes an estimate further from it.

    file              C(y)                                       Π_C(z)
    clean             {y}: `Exact`                               y
    rounded           y ± half a level: `Rounded`                clip
    noise σ           a ball around every window: `Ball`         towards y until inside
    JPEG              a box for every coefficient: `JpegCells`   clip every coefficient
    JPEG of noise     the boxes, widened by a ball               towards the boxes until near enough
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from def_hub.observation.degradation import Degradation
from def_hub.observation.downsample import Downsample, consistency_error, project_clipped
from def_hub.observation.jpeg import BLOCK, FROM_RGB, JpegComponent, JpegFile, dct, from_blocks, idct, to_blocks

LEVEL = 1 / 255

WINDOW = 16
"""Side of the windows that are a ball each. JPEG's largest unit, so that its blocks never cross one."""
SLACK = 2.0
"""Standard deviations by which a window's noise may exceed σ√n."""
MARGIN = 1.0
"""Levels by which `finish` aims into a JPEG cell, so that rounding the result to 8 bits does not leave it."""
BORDER_ROUNDS = 300  # of alternation in blocks that the picture's border cuts


class KnownSet(Protocol):
    """A closed convex set of small pictures `[1, 3, h, w]`, in [0, 1]."""

    def nearest(self, z: Tensor) -> Tensor:
        """Π_C: the member nearest to `z` (for JPEG in Y, Cb, Cr; for the others in R, G, B)."""

    def core(self) -> KnownSet:
        """The part of it that survives rounding: where to aim at."""

    def share(self, z: Tensor) -> float:
        """How much of what the file says the picture `z` reproduces, 0 … 1."""


@dataclass(frozen=True)
class Exact:
    """The file is right to the last digit: C = {y}."""

    y: Tensor

    def nearest(self, z: Tensor) -> Tensor:
        return self.y

    def core(self) -> Exact:
        return self

    def share(self, z: Tensor) -> float:
        """Values that are the file's, to one level of 8 bits."""
        return _within(z - self.y, 1.01 * LEVEL)


@dataclass(frozen=True)
class Rounded:
    """The file was rounded: every value lies within `half` of `y`."""

    y: Tensor
    half: float = 0.5 * LEVEL

    def nearest(self, z: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(z, self.y - self.half), self.y + self.half)

    def core(self) -> Rounded:
        return self

    def share(self, z: Tensor) -> float:
        """Values within `half` of the file's, and the rounding of `z` itself."""
        return _within(z - self.y, self.half + 0.51 * LEVEL)


@dataclass(frozen=True)
class Ball:
    """The file is noisy: in every window of 16×16 pixels the noise is as strong as `sigma` (in [0, 1]) makes it."""

    y: Tensor
    sigma: float

    def nearest(self, z: Tensor) -> Tensor:
        away = z - self.y
        variance = torch.full_like(z[:, :1], 3 * self.sigma**2)
        return self.y + away * (1 - _excess(away.square().sum(1, keepdim=True), variance, count=3))

    def core(self) -> Ball:
        return self

    def share(self, z: Tensor) -> float:
        """Windows in which the difference is noise of that strength."""
        away = (z - self.y).square().sum(1, keepdim=True)
        inside = _excess(away, torch.full_like(away, 3 * self.sigma**2), count=3) <= 0.02  # rounding adds to it
        return float(inside.double().mean())


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
            change = change * _excess(change.square().sum(0)[None, None], self._variance(z), count=2)[0]
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


@dataclass(frozen=True)
class Agreement:
    """How well a result agrees with its file, both in sRGB: converted to another colour space, and rounded there, it
    agrees about as well.

    share: what part of the file's numbers the result reproduces, shrunk and rounded to 8 bits: pixels, or the
        coefficients of a JPEG.
    error: largest distance of the shrunk result from what agrees, over pixels and channels, in [0, 1].
    words: both for people.
    """

    share: float
    error: float
    words: str


@dataclass(frozen=True)
class Observation:
    """What is known of one picture: `y` `[1, 3, h, w]`, the operator `A` that shrank it, and the set that `A x` lies
    in. What it assumes is `degradation`.
    """

    y: Tensor
    operator: Downsample
    known: KnownSet
    degradation: Degradation

    @property
    def pinv(self) -> Tensor:
        """`A† y`, `[1, 3, H, W]`: where the diffusion starts."""
        return self.operator.pinv(self.y)

    def project(self, x: Tensor) -> Tensor:
        """`P(x) = x + A†(Π_C(A x) - A x)`, `[1, 3, H, W]`; where `C = {y}` it is `Downsample.project`, to the
        letter."""
        shrunk = self.operator.forward(x)
        return x - self.operator.pinv(shrunk - self.known.nearest(shrunk))

    def finish(self, x: Tensor, *, iterations: int = 60) -> tuple[Tensor, Agreement]:
        """Bring `x` to agree and to lie in [0, 1] at once, by alternation: `project_clipped` where `C = {y}`, and the
        same steps towards the core of C elsewhere. Returns the picture in [0, 1] and how well it agrees.
        """
        if isinstance(self.known, Exact):
            x, error = project_clipped(self.operator, x, self.y, iterations=iterations)
            return x, self._agreement(x, error)
        core = self.known.core()
        x = self.project(x).clamp(0, 1)
        for _ in range(iterations):
            x = x - self.operator.undo_overshoot(self.operator.overshoot(x))
            shrunk = self.operator.forward(x)
            residual = shrunk - core.nearest(shrunk)
            if residual.abs().max() <= 0.2 * LEVEL:
                break
            x = (x - 1.8 * self.operator.pinv(residual)).clamp(0, 1)  # the longer step of `project_clipped`
        x = x.clamp(0, 1)
        return x, self.agreement(x)

    def agreement(self, x: Tensor) -> Agreement:
        """How well the 8-bit picture that `x` becomes agrees with the file."""
        return self._agreement(
            x, consistency_error(self.operator, x, self.y) if isinstance(self.known, Exact) else None
        )

    def _agreement(self, x: Tensor, error: float | None) -> Agreement:
        """The same, where the error of an exact agreement is known already."""
        shrunk = self.operator.forward((x.clamp(0, 1) * 255).round() / 255)
        if error is None:
            error = float((shrunk - self.known.nearest(shrunk)).abs().max())
        share = self.known.share((shrunk.clamp(0, 1) * 255).round() / 255)
        return Agreement(share, error, _agreement_words(self.known, share, error))

    @property
    def words(self) -> str:
        """What was assumed, for people."""
        return f"{describe(self.degradation)}; {_SET_WORDS[type(self.known)]}"


def observe(
    picture: Tensor,
    degradation: Degradation = Degradation(),  # noqa: B008 - frozen
    operator: Downsample = Downsample(),  # noqa: B008 - frozen
    file: JpegFile | None = None,
) -> Observation:
    """What is known of a picture of which `degradation` is known.

    Args:
        picture: `[1, 3, h, w]` in [0, 1], upright.
        degradation: what was told or measured. Its kernel counts where it is not "bicubic", else the operator's.
        operator: the scale, and the kernel of a clean picture.
        file: the JPEG file that `picture` was read from. Without it (a picture that was saved again elsewhere) what
            JPEG did is taken for noise.

    Raises ValueError where `file` is not of the picture's size.
    """
    kernel = operator.kernel if degradation.kernel == "bicubic" else degradation.kernel
    operator = replace(operator, kernel=kernel, blur=degradation.blur)
    known: KnownSet
    if file is not None and degradation.quality is not None:
        known = JpegCells(file, noise=degradation.noise)
        known.nearest(picture)  # raises where the sizes differ
    else:
        lost = 0.0 if degradation.quality is None else jpeg_noise(degradation.quality)
        sigma = (degradation.noise**2 + lost**2) ** 0.5
        if sigma:
            known = Ball(picture, sigma * LEVEL)
        elif degradation.blur:
            known = Rounded(picture, BLUR_TOLERANCE * LEVEL)
        else:
            known = Exact(picture)
    return Observation(picture, operator, known, degradation)


BLUR_TOLERANCE = 1.5
"""Levels: Pillow blurs and shrinks in several passes over 8-bit pixels."""


def jpeg_noise(quality: int) -> float:
    """About how far JPEG of a quality takes pixels, as a standard deviation in levels. On quarter copies of training
    photographs (4:2:0) the mean was 4.1 at quality 90, 6.3 at 70 and 8.2 at 40; this line is within a twentieth of it.
    """
    factor = 50 / quality if quality < 50 else 2 - quality / 50
    return 1.4 + 6.0 * factor**0.5


def describe(degradation: Degradation) -> str:
    """A degradation for people: "clean", or "blurred by 1.5 pixels, noise of about 6 levels, JPEG, quality about
    60"."""
    parts = [] if degradation.kernel in ("bicubic", "matlab") else [f"shrunk by {degradation.kernel}"]
    if degradation.blur:
        parts.append(f"blurred by {degradation.blur:.2g} pixels of the result")
    if degradation.noise:
        parts.append(f"noise of about {degradation.noise:.2g} levels")
    if degradation.quality is not None:
        parts.append(f"JPEG, quality about {degradation.quality}")
    return ", ".join(parts) or "clean"


_SET_WORDS = {
    Exact: "the result shrinks back to it",
    Rounded: "the result shrinks back to it but for rounding",
    Ball: "the result shrinks back to it but for the noise",
    JpegCells: "the result, shrunk and saved as this file was, gives its coefficients",
}


def _agreement_words(known: KnownSet, share: float, error: float) -> str:
    if isinstance(known, JpegCells):
        return f"{share:.1%} of the file's JPEG coefficients are reproduced"
    if isinstance(known, Ball):
        return f"differs from the file by no more than its noise in {share:.1%} of the windows"
    return f"{share:.1%} of the file's pixels are reproduced; the largest difference is {error * 255:.1f} levels"


def _within(difference: Tensor, bound: float) -> float:
    return float((difference.abs() <= bound).double().mean())


def _excess(energy: Tensor, variance: Tensor, count: int) -> Tensor:
    """By what part each window's change has to be kept for it to end on its ball: 0 inside, towards 1 far outside.

    energy, variance: `[1, 1, h, w]`, of the change and of the noise in each pixel; count: how many numbers a pixel's
    noise is the sum of.
    """
    height, width = energy.shape[-2:]
    pad = (0, -width % WINDOW, 0, -height % WINDOW)
    sums = [
        torch.nn.functional.avg_pool2d(torch.nn.functional.pad(v, pad), WINDOW) * WINDOW**2
        for v in (energy, variance, torch.ones_like(energy))
    ]
    strength, noise, pixels = sums
    radius = noise.sqrt() * (1 + SLACK / (2 * count * pixels).sqrt())
    keep = (1 - radius / strength.sqrt().clamp(min=1e-12)).clamp(min=0)
    keep = keep.repeat_interleave(WINDOW, -1).repeat_interleave(WINDOW, -2)
    return keep[..., :height, :width]


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # it is kept, and training may use it later
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


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # it is kept, and training may use it later
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

"""Known degradations as objects: `forward` (A), `pinv` (A†), `project` (onto the images that agree with the input).

Every operator here is separable, `A X = W_h X W_wᵀ`. The two-dimensional pseudo-inverse is therefore a product with
two small matrices, `A† Y = W_h† Y W_w†ᵀ` with `W† = Wᵀ(WWᵀ)⁻¹`. W has full row rank (two-dimensional condition number
2.1 for bicubic ×4), so this formula is exact. It needs no singular values and no threshold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import torch
from torch import Tensor

from def_hub.observation.kept import kept

Kernel = Literal["bicubic", "box", "matlab", "lanczos", "bilinear", "nearest"]

SCALE = 4
"""How many times larger the result is along each side. No other place defines this number."""

BLOCK, SUPPORT = 32, 24
"""Matrix products are computed in blocks. A block has `BLOCK` LR pixels along a side and reads `SUPPORT` or more on
either side of them. The entries of bicubic's W† fall by a factor of nine every two pixels: beyond 24 pixels they are
below `SMALLEST_ENTRY`. Lanczos and blurred kernels reach further, which `_Matrix` knows."""
SMALLEST_ENTRY = 1e-12
"""Matrix entries below this are set to zero. Otherwise the tails of the inverse contain denormal numbers, which
processors compute about twenty times slower."""
DAMPING = 0.01
"""With a blur, this share of the largest eigenvalue of WWᵀ is added to all of them. Detail that A shows at a tenth of
its strength is then brought back by half."""


@dataclass(frozen=True)
class Downsample:
    """×`scale` downsampling `A` of images `[B, C, H, W]`, its pseudo-inverse and the projection built from them
    (paper eq. 1-5).

    Attributes:
        kernel: "bicubic" is Pillow's `Image.resize(..., BICUBIC)` on float data (a = -0.5, antialiased, weights
            renormalised at the border). "matlab" is the same kernel with the symmetric border of `imresize`. "box"
            averages `scale`×`scale` pixels. "lanczos" and "bilinear" are Pillow's, antialiased. "nearest" takes the
            pixel that Pillow takes.
        scale: the whole number, at least 2, that both sides are divided by, or two fractions of at least 1, for the
            rows and for the columns (`Downsample.between`). A† is exact to 1e-7: the condition number is 2 to 10.
        blur: standard deviation of a Gaussian blur before shrinking, in pixels of the large picture. It hides fine
            detail almost wholly, so that A† would multiply rounding errors by hundreds: with a blur `pinv` is damped
            (`DAMPING`), and `project` goes most of the way instead of all of it.
    """

    kernel: Kernel = "bicubic"
    scale: int | tuple[Fraction, Fraction] = SCALE
    blur: float = 0.0

    def __post_init__(self) -> None:
        if self.kernel not in get_args(Kernel):
            raise ValueError(f"kernel must be one of {get_args(Kernel)}, got {self.kernel!r}")
        if isinstance(self.scale, int) and self.scale < 2:
            raise ValueError(f"scale must be a whole number of at least 2, got {self.scale!r}")
        if min(self.factors) < 1:
            raise ValueError(f"scale must be at least 1 along both sides, got {self.scale!r}")
        if not 0 <= self.blur <= 16:
            raise ValueError(f"blur must lie between 0 and 16, got {self.blur!r}")

    @classmethod
    def between(cls, large: tuple[int, int], small: tuple[int, int], kernel: Kernel = "bicubic") -> Downsample:
        """The operator from pictures of one size to those of another, both (height, width).

        Raises ValueError where a side of `small` is larger than that of `large`.
        """
        return cls(kernel, (Fraction(large[0], small[0]), Fraction(large[1], small[1])))

    @property
    def factors(self) -> tuple[Fraction, Fraction]:
        """By how much the rows and the columns shrink."""
        return (Fraction(self.scale),) * 2 if isinstance(self.scale, int) else self.scale

    def forward(self, x: Tensor) -> Tensor:
        """`A x`: `[B, C, H, W]` → `[B, C, H/scale, W/scale]`. Raises ValueError if a side is not a multiple of
        `scale`.
        """
        height, width = (side / factor for side, factor in zip(x.shape[-2:], self.factors, strict=True))
        if height.denominator != 1 or width.denominator != 1:
            raise ValueError(f"both sides must be multiples of {self.scale}, got {x.shape[-2]}x{x.shape[-1]}")
        return self._apply("forward", x, int(height), int(width))

    def pinv(self, y: Tensor) -> Tensor:
        """`A† y`: `[B, C, h, w]` → `[B, C, h·scale, w·scale]`, the image of least norm that downsamples to `y`. Near
        edges its values exceed [0, 1].
        """
        return self._apply("pinv", y, *y.shape[-2:])

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        """`x - A†(A x - y)`: the nearest image to `x` that downsamples to `y` (eq. 8, 9). Shapes as in `forward`."""
        return x - self.pinv(self.forward(x) - y)

    def upsample(self, y: Tensor) -> Tensor:
        """Pillow's bicubic enlargement, clipped to [0, 1]: `[B, C, h, w]` → `[B, C, h·scale, w·scale]`."""
        return self._apply("upsample", y, *y.shape[-2:]).clamp(0, 1)

    def overshoot(self, x: Tensor) -> Tensor:
        """By how much `x` leaves [0, 1] after shrinking along its rows alone, `[B, C, H, W/scale]`.

        Pillow shrinks an 8-bit picture along the rows first, clips, and then shrinks along the columns. What it clips
        in between is lost.
        """
        columns = self.factors[1]
        halfway = _across(self._matrix("forward", int(x.shape[-1] / columns), columns, x), x)
        return halfway - halfway.clamp(0, 1)

    def undo_overshoot(self, overshoot: Tensor) -> Tensor:
        """The change of least norm, `[B, C, H, W]`, that shrinks along the rows to `overshoot`."""
        return _across(self._matrix("pinv", overshoot.shape[-1], self.factors[1], overshoot), overshoot)

    def _matrix(self, role: str, small: int, factor: Fraction, like: Tensor) -> _Matrix:
        return _cached_matrix(role, self.kernel, small, int(small * factor), self.blur, like.dtype, like.device)

    def _apply(self, role: str, x: Tensor, rows: int, columns: int) -> Tensor:
        left, right = (
            self._matrix(role, n, factor, x) for n, factor in zip((rows, columns), self.factors, strict=True)
        )
        with torch.autocast(x.device.type, enabled=False):  # in half precision the result would not be exact
            return _across(right, _down(left, x))


def make_operator(name: Kernel = "bicubic", scale: int = SCALE) -> Downsample:
    """The degradation called `name`. Raises ValueError for an unknown name."""
    return Downsample(name, scale)


def project_clipped(operator: Downsample, x: Tensor, y: Tensor, *, iterations: int = 60) -> tuple[Tensor, float]:
    """Change `x` so that it agrees with `y` and lies in [0, 1], by alternating the two projections.

    One projection alone leaves [0, 1] at hard edges, and clipping its result breaks the agreement by up to 35/255. The
    loop also removes what Pillow would clip between rows and columns (see `Downsample.overshoot`). It stops when the
    8-bit picture agrees within half a level of 8 bits, or after `iterations`.

    Args:
        x: `[B, C, H, W]`.
        y: `[B, C, h, w]` in [0, 1].

    Returns:
        The image in [0, 1], and its `consistency_error`.
    """
    x = operator.project(x, y).clamp(0, 1)
    for _ in range(iterations):
        overshoot = operator.overshoot(x)
        x = x - operator.undo_overshoot(overshoot)
        residual = operator.forward(x) - y
        if residual.abs().max() <= 0.2 / 255 and overshoot.abs().max() <= 0.5 / 255:
            break
        # Over-relaxation: the clip undoes part of every correction, so a longer step needs a third of the rounds.
        x = (x - 1.8 * operator.pinv(residual)).clamp(0, 1)
    x = x.clamp(0, 1)
    return x, consistency_error(operator, x, y)


def consistency_error(operator: Downsample, x: Tensor, y: Tensor) -> float:
    """Largest |A round₈(x) - y| over all pixels and channels, in units of [0, 1].

    This is the error that a user measures on the saved 8-bit file. The file may be shrunk in floating point or by
    Pillow's two passes over 8-bit pixels; the larger of the two errors counts.
    """
    rounded = (x.clamp(0, 1) * 255).round() / 255
    exact = operator.forward(rounded)
    cut = operator.forward(rounded - operator.undo_overshoot(operator.overshoot(rounded)))
    return max(float((z - y).abs().max()) for z in (exact, cut))


@dataclass(frozen=True)
class _Matrix:
    """A matrix as blocks along its diagonal: rows, the columns that matter for them, and the values there.

    Far from its diagonal a matrix holds nothing. Time and memory, also of what is cached, grow with the pixels of a
    side and not with their square.
    """

    blocks: tuple[tuple[slice, slice, Tensor], ...]

    @staticmethod
    def of(values: Tensor, reach: int) -> _Matrix:
        """The blocks of `values` `[rows, columns]`, zero where a column is more than `reach` LR pixels from the row."""
        rows, columns = values.shape
        cells = min(rows, columns)
        blocks = []
        for start in range(0, cells, BLOCK):
            stop, low, high = min(start + BLOCK, cells), max(start - reach, 0), start + BLOCK + reach
            out = slice(start * rows // cells, stop * rows // cells)
            into = slice(low * columns // cells, min(high, cells) * columns // cells)
            blocks.append((out, into, values[out, into].clone()))  # not a view, which would keep the whole
        return _Matrix(tuple(blocks))


def _across(matrix: _Matrix, x: Tensor) -> Tensor:
    """`x matrixᵀ`: every row of `x` `[..., columns]` → `[..., rows]`."""
    return _joined([x[..., into] @ values.mT for _, into, values in matrix.blocks], -1)


def _down(matrix: _Matrix, x: Tensor) -> Tensor:
    """`matrix x`: every column of `x` `[..., columns, N]` → `[..., rows, N]`."""
    return _joined([values @ x[..., into, :] for _, into, values in matrix.blocks], -2)


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


@kept(64)
def _cached_matrix(
    role: str, kernel: Kernel, small: int, large: int, blur: float, dtype: torch.dtype, device: torch.device
) -> _Matrix:
    """One-dimensional matrix of an operator. Built in float64 and rounded once, so that float32 is exact to 1e-6."""
    if role == "upsample":
        matrix = resize_matrix("bicubic", small, large)
    else:
        matrix = resize_matrix(kernel, large, small)
        if blur:
            matrix = matrix @ _blur_matrix(blur, large)
        if role == "pinv":
            square = matrix @ matrix.mT
            if blur:
                square += DAMPING * torch.linalg.matrix_norm(square, 2) * torch.eye(small, dtype=square.dtype)
            matrix = torch.linalg.solve(square, matrix).mT
        matrix = torch.where(matrix.abs() < SMALLEST_ENTRY, 0.0, matrix)
    row, column = matrix.nonzero().T
    across = (row * small // matrix.shape[0] - column * small // matrix.shape[1]).abs()
    return _Matrix.of(matrix.to(device=device, dtype=dtype), max(SUPPORT, int(across.max()) + 1))


def _blur_matrix(sigma: float, n: int) -> Tensor:
    """`[n, n]` float64 Gaussian weights; the border pixel is repeated outside, as Pillow does it."""
    reach = int(4 * sigma) + 1
    offset = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weight = torch.exp(-0.5 * (offset / sigma) ** 2)
    position = (torch.arange(n)[:, None] + offset.long()).clamp(0, n - 1)
    return torch.zeros(n, n, dtype=torch.float64).scatter_add_(1, position, (weight / weight.sum()).expand(n, -1))


def resize_matrix(kernel: Kernel, n_in: int, n_out: int) -> Tensor:
    """`[n_out, n_in]` float64 resampling weights; each row sums to one."""
    ratio = n_in / n_out
    stretch = max(ratio, 1.0)  # antialiasing: the kernel grows with the step when shrinking
    centre = (torch.arange(n_out, dtype=torch.float64) + 0.5) * ratio - 0.5
    reach = int((3 if kernel == "lanczos" else 2) * stretch) + 2
    position = centre.floor()[:, None] + torch.arange(-reach, reach + 1, dtype=torch.float64)
    distance = (position - centre[:, None]).abs() / stretch
    if kernel == "nearest":  # not antialiased: the pixel at the centre, or the one after it where it falls between two
        weight = (position == (centre + 0.5).floor()[:, None]).to(torch.float64)
    else:
        weight = _WEIGHTS[kernel](distance)
    inside = (position >= 0) & (position < n_in)
    if kernel == "matlab":  # mirror, repeating the border pixel; a very short side is mirrored several times
        position = position % (2 * n_in)
        position = torch.where(position < n_in, position, 2 * n_in - 1 - position)
    else:
        weight = weight * inside
    weight = weight / weight.sum(1, keepdim=True)
    matrix = torch.zeros(n_out, n_in, dtype=torch.float64)
    return matrix.scatter_add_(1, position.clamp(0, n_in - 1).long(), weight)


def _cubic(t: Tensor, a: float = -0.5) -> Tensor:
    """Keys' cubic convolution kernel of |t|."""
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = a * (((t - 5) * t + 8) * t - 4)
    return torch.where(t < 1, near, torch.where(t < 2, far, torch.zeros_like(t)))


def _box(t: Tensor) -> Tensor:
    return (t < 0.5).to(t.dtype)


def _lanczos(t: Tensor) -> Tensor:
    return torch.where(t < 3, torch.sinc(t) * torch.sinc(t / 3), torch.zeros_like(t))


def _triangle(t: Tensor) -> Tensor:
    return (1 - t).clamp(min=0)


_WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "bicubic": _cubic,
    "matlab": _cubic,
    "box": _box,
    "lanczos": _lanczos,
    "bilinear": _triangle,
}
"""Each antialiased kernel as a function of the distance in pixels of the small picture."""

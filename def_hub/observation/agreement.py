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

from torch import Tensor

from def_hub.observation.degradation import Degradation
from def_hub.observation.downsample import Downsample, consistency_error, project_clipped
from def_hub.observation.jpeg import JpegFile
from def_hub.observation.jpeg_cells import JpegCells
from def_hub.observation.sets import LEVEL, Ball, Exact, KnownSet, Rounded

BLUR_TOLERANCE = 1.5
"""Levels: Pillow blurs and shrinks in several passes over 8-bit pixels."""


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

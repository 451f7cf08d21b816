"""What degraded this file: read from a JPEG's tables, measured in the pixels of others.

Each measurement ends in a threshold, set by hand from training photographs and development files together: what is
reported for the development files is no held-out result. A wrong alarm costs the user of a clean file, a missed one
only what could have been gained: in doubt a picture is called clean, and `unsure` says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub.observation.agreement import describe
from def_hub.observation.degradation import Degradation
from def_hub.observation.downsample import Kernel, resize_matrix
from def_hub.observation.jpeg import FROM_RGB, JpegFile, dct, standard_table, to_blocks
from def_hub.observation.kernel import kernel_probabilities

GRID_GAP = 0.04
"""By how much more of the coefficients are near zero on JPEG's own grid than on any other of the 64 grids. Clean
pictures: at most 0.008; JPEG of quality 30 to 90: at least 0.14."""
QUALITIES = range(20, 99)  # that are looked for in pixels
NOISE_LEAST, NOISE_EVEN = 1.7, 2.9
"""Levels of noise, and how much larger the middle one of the directions of small patches may be than the smallest:
noise is the same in all of them, texture is not. Of 185 clean pictures three come near to that level, all of them with
3.1 and more; 95 % of those with noise of 2 levels have 2.6 and less."""
MOST_PATCHES = 2**17  # in which noise is measured
TEXTURE = 0.7  # levels that the texture and the rounding of a clean picture look like; taken off the noise
BLUR_SLOPE, BLUR_LEAST = 0.5, -6.7
"""How the highest band falls with the square of a blur, and where clean pictures end (see `_highest_band`)."""
SHARP_HIGHEST = -4.75  # the highest band of clean pictures
MEASURED, UNDONE = (2.7, 3.0, 4.0), (1.2, 2.2, 2.8)
"""Blur that is measured, and what of it is undone. Photographs are soft at their own pixels, and so is the larger one
that is sought: of 48 that a shorter lens made smaller (RealSR, DRealSR), 37 measure 2.0 to 3.5. Told of 2.2 and of no
noise, six of each fell 1.3 dB below bicubic enlargement on the mean. Pictures that a blur of 3 softened before they
were shrunk measure 2.8 to 3.3, and gain most when told of all."""
SOFT_NOISE = 4.0
"""Levels of noise that are assumed beside a blur, though none is measured: no lens blurs as evenly as a Gaussian, and
what is sharpened too far looks like noise. With this noise, more of the blur can be undone than without (0.9, 1.8 and
2.6 in `UNDONE`). Gains over bicubic by `def-hub evaluate`, no reference: RealSR 0.62 instead of 0.55 dB, DRealSR 0.18
instead of 0.03, pictures blurred by 3 1.76 instead of 1.66. Both were chosen with these pictures in view."""
KERNEL_DOUBT, BOX_DOUBT = 0.01, 0.065
"""Another filter than bicubic, and "box", are believed where bicubic is less likely than this. Of 241 clean development
and 38 training pictures, which were all looked at to set both, three then raise a wrong alarm; of those shrunk by "box"
57 %, by Lanczos 5 % are told rightly. Not to be told of "box" costs 0.15 to 1.3 dB; seven clean pictures that look most
like it lost 0.04 to 0.37 dB when told of it. Of Lanczos more would be told, but as many wrong as right, and 0.1 to 0.5
dB are at stake either way. A network trained anew, on larger crops, tells no more: some scenes do look like that."""
NEAREST_LEAST = 0.2
"""From this likelihood on that filter is "nearest", even if another one is likelier. To take "nearest" for "box" costs
1.6 dB, below bicubic enlargement; the other way round it costs 0.6 dB and stays above it."""
ALIASED, ALIASING_MOST = 0.95, 6.0
"""The aliasing that "nearest" leaves looks like a little noise. It is not called noise where "nearest" is at least so
likely and there are fewer levels of it. Noise of 5 levels: at most 0.66 likely; of 15 levels: 0.92."""
RESOLUTIONS = (4.0, 3.0, 2.0, 1.5)
LOSSLESS = 0.8  # levels: root mean square of what shrinking and enlarging may change
MIDDLE = 384  # pixels: side of the part in which that is measured


@dataclass(frozen=True)
class Assessment:
    """What degraded a picture, as far as can be told.

    Attributes:
        degradation: what to assume. Where something is unsure, it is left out; of a blur, what no lens would leave,
            with some noise that was not measured (`SOFT_NOISE`).
        unsure: what could not be told: of "JPEG", "noise", "blur", "kernel". The kernel is where bicubic is assumed:
            Lanczos and bilinear leave nearly the same.
        file: the JPEG's own tables, which are certain; None where the pixels alone were looked at.
        grid: row and column at which JPEG's first whole block begins in a picture that was saved again.
        shrinkable: by what factor the picture could be shrunk without losing anything: more than 1 for pictures that
            were enlarged before.
    """

    degradation: Degradation
    unsure: tuple[str, ...] = ()
    file: JpegFile | None = None
    grid: tuple[int, int] | None = None
    shrinkable: float = 1.0

    @property
    def words(self) -> str:
        """For people, as "JPEG, quality about 70 (from the file); unsure about noise, blur, kernel"."""
        text = describe(self.degradation)
        if self.file is not None:
            text += f" (from the file, colour {self.file.subsampling})"
        elif self.grid is not None:
            text += " (saved again since)"
        if self.shrinkable > 1:
            text += f"; enlarged before: a picture {self.shrinkable:g} times smaller would show as much"
        if self.unsure:
            text += f"; unsure about {', '.join(self.unsure)}"
        return text


def assess(picture: Tensor, file: JpegFile | None = None) -> Assessment:
    """What degraded a picture.

    Args:
        picture: `[1, 3, h, w]` in [0, 1], upright. Below 32 pixels a side nothing is measured.
        file: what the JPEG file says that it was read from, see `jpeg_of`.
    """
    if min(picture.shape[-2:]) < 32:
        told = Degradation() if file is None else _told(file)
        return Assessment(told, ("noise", "blur", "kernel") if file else ("JPEG", "noise", "blur", "kernel"), file)
    shrinkable = effective_resolution(picture)
    if file is not None:
        return Assessment(_told(file), ("noise", "blur", "kernel"), file, shrinkable=shrinkable)
    history = jpeg_history(picture)
    if history is not None:
        quality, grid = history
        return Assessment(Degradation(quality=quality), ("noise", "blur", "kernel"), None, grid, shrinkable)
    noise, evenness = noise_level(picture)
    noisy = noise >= NOISE_LEAST and evenness <= NOISE_EVEN
    unsure = ("noise",) if noise >= NOISE_LEAST and not noisy else ()
    if noisy and (noise >= ALIASING_MOST or kernel_probabilities(picture)["nearest"] < ALIASED):
        return Assessment(
            Degradation(noise=round((noise**2 - TEXTURE**2) ** 0.5, 1)), ("blur", "kernel"), shrinkable=shrinkable
        )
    kernel, blur = _kernel_and_blur(picture)
    if blur:
        unsure = ("noise",)
    if kernel == "bicubic":
        unsure = (*unsure, "kernel")
    return Assessment(Degradation(kernel, blur, SOFT_NOISE if blur else 0.0), unsure, shrinkable=shrinkable)


def jpeg_history(picture: Tensor) -> tuple[int, tuple[int, int]] | None:
    """(quality, (row, column) of the first whole block) of a picture `[1, 3, h, w]` that was a JPEG and was saved again
    without loss, perhaps cropped; None where its pixels show no JPEG grid.
    """
    luma = _luma(picture)
    near_zero = torch.stack(
        [(_coefficients(luma[row:, column:]).abs() < 1).double().mean() for row in range(8) for column in range(8)]
    )
    best = int(near_zero.argmax())
    others = torch.cat((near_zero[:best], near_zero[best + 1 :]))
    if near_zero[best] - others.max() < GRID_GAP:
        return None
    grid = divmod(best, 8)
    return _quality(luma[grid[0] :, grid[1] :]), grid


def noise_level(picture: Tensor) -> tuple[float, float]:
    """(standard deviation of white noise in levels, unevenness) of a picture `[1, 3, h, w]`.

    Small patches of texture lie near a plane of few dimensions; white noise fills all of them alike. Its variance is
    the mean of the smallest eigenvalues of the patches' covariance, as many as have their mean where their median is
    (Chen, Zhu and Heng, "An Efficient Statistical Method for Image Noise Level Estimation", ICCV 2015), here over all
    colours at once and over the smoother half of the patches. Unevenness is how much larger the middle eigenvalue's
    root is than one of the smallest: about 1 for noise, 2 and more for texture alone.
    """
    side = 4
    # from a large picture every second patch along both sides, or every third: memory does not grow with its size
    apart = math.ceil((picture.shape[2] * picture.shape[3] / MOST_PATCHES) ** 0.5)
    patches = F.unfold(picture.double() * 255, side, stride=apart)[0]
    inside = ((patches > 2) & (patches < 253)).all(0)  # what was cut at black and white says less than there was
    if inside.sum() > 500:
        patches = patches[:, inside]
    texture = patches.view(3, side * side, -1).var(1).sum(0)
    smooth = patches[:, texture.argsort()[: max(texture.numel() // 2, 400)]]
    values = torch.linalg.eigvalsh(torch.cov(smooth)).clamp(min=0)
    count = values.numel()
    while count > 1 and 2 * int((values[:count] <= values[:count].mean()).sum()) > count:
        count -= 1
    # A strong texture reaches into the mean; the third smallest is hardly touched by it.
    least = float(values[2]) ** 0.5
    level = min(float(values[:count].mean()) ** 0.5, 1.08 * least)
    return level, float(values[len(values) // 2]) ** 0.5 / max(least, 1e-3)


def effective_resolution(picture: Tensor) -> float:
    """By what factor, of `RESOLUTIONS`, a picture `[1, 3, h, w]` can be shrunk and enlarged again without a change that
    anybody sees; 1 where by none, and for pictures that show next to nothing.
    """
    luma = _luma(picture)
    top, left = (max(side - MIDDLE, 0) // 2 for side in luma.shape)
    luma = luma[top : top + MIDDLE, left : left + MIDDLE]
    if luma.std() < 8:
        return 1.0
    for factor in RESOLUTIONS:
        # The nearest picture that is a bicubic enlargement: a projection along each axis.
        rows, columns = (
            torch.linalg.qr(resize_matrix("bicubic", round(side / factor), side)).Q.to(luma) for side in luma.shape
        )
        nearest = rows @ (rows.mT @ luma @ columns) @ columns.mT
        if (nearest - luma).square().mean().sqrt() <= LOSSLESS:
            return factor
    return 1.0


def _told(file: JpegFile) -> Degradation:
    subsampling = file.subsampling if file.subsampling in ("4:4:4", "4:2:2", "4:2:0") else "4:4:4"
    return Degradation(quality=file.quality, subsampling=subsampling)  # type: ignore[arg-type]


def _kernel_and_blur(picture: Tensor) -> tuple[Kernel, float]:
    highest = _highest_band(picture)
    if highest < BLUR_LEAST:
        measured = ((SHARP_HIGHEST - highest) / BLUR_SLOPE) ** 0.5
        return "bicubic", round(float(np.interp(measured, MEASURED, UNDONE)), 1)
    likely = kernel_probabilities(picture)
    kernel: Kernel = max(likely, key=lambda kernel: likely[kernel])
    if likely["nearest"] >= NEAREST_LEAST:
        kernel = "nearest"
    doubt = BOX_DOUBT if kernel == "box" else KERNEL_DOUBT
    return (kernel if likely["bicubic"] < doubt else "bicubic"), 0.0


def _highest_band(picture: Tensor) -> float:
    """Logarithm of the energy of the highest frequencies (the corner of 8×8 blocks) against the lowest, in the fifth
    of the blocks that show most: about -4.75 for sharp pictures, lower by σ²/2 after a blur of σ large pixels.
    """
    energy = _coefficients(_luma(picture)).square()
    shown = energy.sum((1, 2)) - energy[:, 0, 0]
    energy = energy[shown.argsort(descending=True)[: max(len(shown) // 5, 12)]].mean(0) - 0.04  # 8-bit rounding
    frequency = (torch.arange(8)[:, None] ** 2 + torch.arange(8) ** 2).sqrt()
    high, low = energy[frequency >= 6.5].mean(), energy[(frequency >= 1) & (frequency < 3)].mean()
    return float((high.clamp(min=0.01) / low.clamp(min=0.01)).log())


def _quality(luma: Tensor) -> int:
    """libjpeg's quality whose steps the coefficients `[h, w]`, on the grid, are multiples of most surely: likelihood
    against a smooth distribution, with rounding noise of half a level and some that fit nothing.
    """
    coefficients = _coefficients(luma, whole=True).flatten(1)[:, 1:]
    tables = torch.stack([standard_table(quality)[1:] for quality in QUALITIES]).double()
    present = coefficients.abs() > 1.5  # zeros are multiples of everything
    if not present.any():
        return QUALITIES[-1]
    index = present.nonzero()[:, 1]
    values = coefficients[present]
    scores = []
    for table in tables:
        steps = table[index]
        rest = values - steps * (values / steps).round()
        density = torch.exp(-2 * rest.square()) / (0.5 * (2 * torch.pi) ** 0.5)
        scores.append((0.9 * steps * density + 0.1).log().mean())
    return QUALITIES[int(torch.stack(scores).argmax())]


def _luma(picture: Tensor) -> Tensor:
    """`[1, 3, h, w]` → `[h, w]` float64, in levels, 128 subtracted."""
    return torch.einsum("c,chw->hw", FROM_RGB[0].to(picture.device), picture[0].double() * 255) - 128


def _coefficients(luma: Tensor, whole: bool = False) -> Tensor:
    """`[N, 8, 8]` of the whole blocks of `[h, w]`; with `whole` without those that touch black or white, where the
    decoder cut (unless they are nearly all)."""
    blocks = to_blocks(luma[: luma.shape[0] // 8 * 8, : luma.shape[1] // 8 * 8]).flatten(0, 1)
    if whole:
        inside = ((blocks > -126) & (blocks < 125)).all(-1).all(-1)
        blocks = blocks[inside] if inside.sum() >= 12 else blocks
    return dct(blocks)

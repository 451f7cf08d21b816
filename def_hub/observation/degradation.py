"""Degraded pictures: what may have happened to a photograph, and making such files.

Training and the evaluator's named degradations share this code: "jpeg70" in a table is what the networks have seen.
Pillow's own filters and encoder do the work, since they define the files that people have.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from def_hub import images
from def_hub.observation.downsample import SCALE, Downsample, Kernel

Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]

FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}
"""Pillow's filter for every kernel but "matlab"."""

PLANES = ("noise", "luma step", "chroma step", "subsampled", "blur", "box", "lanczos", "bilinear", "nearest")
"""What `planes` says, in this order; checkpoints depend on it, so new entries go to the end."""

STANDARD_STEPS = (57.625, 86.015625)
"""Means of the luma and the chroma quantisation table that the JPEG standard suggests (Annex K), which libjpeg calls
quality 50."""


@dataclass(frozen=True)
class Degradation:
    """What happened to a photograph, in this order: blurred, shrunk, noise added, saved as JPEG.

    Attributes:
        kernel: the filter that shrank it, see `Downsample`.
        blur: standard deviation of a Gaussian blur before shrinking, in pixels of the large picture.
        noise: standard deviation of white Gaussian noise, in levels of 8 bits.
        quality: libjpeg's quality, 1 … 100; None where it was not saved as JPEG.
        subsampling: how JPEG stored colour; without meaning where `quality` is None.

    Raises ValueError for values outside their range.
    """

    kernel: Kernel = "bicubic"
    blur: float = 0.0
    noise: float = 0.0
    quality: int | None = None
    subsampling: Subsampling = "4:2:0"  # as Pillow's `save` chooses

    def __post_init__(self) -> None:
        if self.kernel not in get_args(Kernel):
            raise ValueError(f"kernel must be one of {get_args(Kernel)}, got {self.kernel!r}")
        if self.subsampling not in get_args(Subsampling):
            raise ValueError(f"subsampling must be one of {get_args(Subsampling)}, got {self.subsampling!r}")
        for name, limit in (("blur", 16.0), ("noise", 100.0)):
            if not 0 <= getattr(self, name) <= limit:
                raise ValueError(f"{name} must lie between 0 and {limit:g}, got {getattr(self, name)!r}")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ValueError(f"quality must lie between 1 and 100, got {self.quality!r}")

    @property
    def clean(self) -> bool:
        """Nothing happened but the shrinking."""
        return self.blur == 0 and self.noise == 0 and self.quality is None

    @staticmethod
    def parse(name: str) -> Degradation:
        """The degradation called `name`: "clean", "jpeg70", "noise5", "blur3", "phone", a kernel such as "nearest", or
        several joined by "+", as "box+blur1.5+noise6+jpeg60".

        Raises ValueError for any other name.
        """
        result = Degradation()
        for part in name.split("+"):
            if part == "phone":
                result = replace(result, blur=1.5, noise=6.0, quality=60)
            elif part in get_args(Kernel):
                result = replace(result, kernel=part)  # type: ignore[arg-type]
            elif match := re.fullmatch(r"jpeg(\d+)", part):
                result = replace(result, quality=int(match[1]))
            elif match := re.fullmatch(r"noise(\d+(?:\.\d+)?)", part):
                result = replace(result, noise=float(match[1]))
            elif match := re.fullmatch(r"blur(\d+(?:\.\d+)?)", part):
                result = replace(result, blur=float(match[1]))
            elif part != "clean":
                raise ValueError(
                    f"degradation: expected clean, jpegQ, noiseS, blurS, phone, one of {', '.join(get_args(Kernel))}, "
                    f"or several of them joined by '+', got {name!r}"
                )
        return result

    @staticmethod
    def random(rng: np.random.Generator) -> Degradation:
        """One to train with: a third is clean; of the others each kernel, blur of 0.3 to 4 large pixels, noise of 1 to
        20 levels, JPEG of quality 30 to 95, alone or together as phones do it.
        """
        if rng.random() < 1 / 3:
            return Degradation()
        kernel = str(rng.choice(list(FILTERS), p=[0.6, 0.12, 0.1, 0.08, 0.1]))
        blurred, noisy, saved = _CAUSES[int(rng.integers(len(_CAUSES)))] if kernel == "bicubic" else rng.random(3) < 0.2
        # Small values are the common ones: drawn evenly on a scale of ratios.
        return Degradation(
            kernel,  # type: ignore[arg-type]
            blur=_between(rng, 0.3, 4.0) if blurred else 0.0,
            noise=_between(rng, 1.0, 20.0) if noisy else 0.0,
            quality=int(rng.integers(30, 96)) if saved else None,
            subsampling="4:4:4" if rng.random() < 0.4 else "4:2:0",
        )

    def __str__(self) -> str:
        """The name that `parse` reads (subsampling is left out)."""
        parts: list[str] = [] if self.kernel == "bicubic" else [self.kernel]
        parts += [f"blur{self.blur:g}"] if self.blur else []
        parts += [f"noise{self.noise:g}"] if self.noise else []
        parts += [f"jpeg{self.quality}"] if self.quality is not None else []
        return "+".join(parts) or "clean"


_CAUSES = (  # blurred, noisy, saved as JPEG
    (True, False, False),
    (False, True, False),
    (False, False, True),
    (False, False, True),
    (False, True, True),
    (True, True, True),
)


@dataclass(frozen=True)
class Degraded:
    """A degraded picture, 8-bit: `picture` float `[1, 3, h, w]` in [0, 1] as decoded; `file` the JPEG's bytes, or
    None."""

    picture: Tensor
    file: bytes | None = None

    def opened(self) -> Image.Image | Tensor:
        """The JPEG as Pillow opens it, still knowing its tables, or the picture where there is no file."""
        return self.picture if self.file is None else Image.open(io.BytesIO(self.file))


def degrade(
    original: Image.Image | Tensor,
    degradation: Degradation,
    scale: int = SCALE,
    rng: np.random.Generator | None = None,
) -> Degraded:
    """What `degradation` leaves of a picture, `scale` times smaller.

    Args:
        original: a Pillow image, or a tensor as `images.to_pil` takes it; both sides multiples of `scale`.
        rng: where the noise comes from; `default_rng(0)` where None, as the named degradations are defined.

    Raises:
        TypeError: for a tensor of whole numbers, which would be taken for white.
        ValueError: where a side is not a multiple of `scale`.
    """
    if isinstance(original, Tensor) and not original.is_floating_point():
        raise TypeError(f"expected a picture in [0, 1], got a tensor of {original.dtype}")
    large = images.to_pil(original) if isinstance(original, Tensor) else original.convert("RGB")
    if large.width % scale or large.height % scale:
        raise ValueError(f"both sides must be multiples of {scale}, got {large.width}×{large.height}")
    if degradation.blur:
        large = large.filter(ImageFilter.GaussianBlur(degradation.blur))
    small = _shrink(large, degradation.kernel, scale)
    if degradation.noise:
        rng = np.random.default_rng(0) if rng is None else rng
        pixels = np.asarray(small) + rng.normal(0, degradation.noise, (small.height, small.width, 3))
        small = Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))
    file = None
    if degradation.quality is not None:
        stream = io.BytesIO()
        small.save(stream, "JPEG", quality=degradation.quality, subsampling=degradation.subsampling)
        file = stream.getvalue()
        small = Image.open(stream).convert("RGB")
    return Degraded(torch.from_numpy(np.asarray(small) / np.float32(255)).permute(2, 0, 1)[None].contiguous(), file)


def planes(degradation: Degradation) -> Tensor:
    """What networks are told: float32 `[K]`, about 0 … 1, as `PLANES` names them; all zero for a clean picture.

    noise: σ/20. Steps: the root of the quantisation table's mean step, divided by 8: what JPEG loses grows about so.
    subsampled: 1 where colour was stored at half the size. blur: σ/4. The kernels: 1 for the one that was used.
    """
    values = dict.fromkeys(PLANES, 0.0)
    values["noise"], values["blur"] = degradation.noise / 20, degradation.blur / 4
    if degradation.quality is not None:
        # libjpeg: tables are scaled by 50/quality below 50 and by 2 - quality/50 from there.
        factor = 50 / degradation.quality if degradation.quality < 50 else 2 - degradation.quality / 50
        luma, chroma = (max(step * factor, 1.0) for step in STANDARD_STEPS)
        values["luma step"], values["chroma step"] = luma**0.5 / 8, chroma**0.5 / 8
        values["subsampled"] = float(degradation.subsampling != "4:4:4")
    if degradation.kernel in values:
        values[degradation.kernel] = 1.0
    return torch.tensor(list(values.values()))


def _shrink(large: Image.Image, kernel: Kernel, scale: int) -> Image.Image:
    if kernel == "matlab":
        return images.to_pil(Downsample("matlab", scale).forward(images.to_tensor(large)))
    return large.resize((large.width // scale, large.height // scale), FILTERS[kernel])


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))

"""A part of a picture, or a shrunk copy: what is enlarged where the whole is too large."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor

from def_hub.formats import MIN_SIDE
from def_hub.images import Photo

Size = tuple[int, int]
"""(height, width)"""


@dataclass(frozen=True)
class Crop:
    """A part of a picture, in pixels of the upright picture."""

    left: int
    top: int
    width: int
    height: int

    @staticmethod
    def parse(text: str) -> Crop:
        """The part called "WIDTHxHEIGHT+LEFT+TOP", as in ImageMagick. Raises `ValueError` for anything else."""
        match = re.fullmatch(r"(\d+)x(\d+)\+(\d+)\+(\d+)", text.strip()) if isinstance(text, str) else None
        if match is None:
            raise ValueError(f"crop: expected WIDTHxHEIGHT+LEFT+TOP, such as 800x600+120+0, got {text!r}")
        width, height, left, top = map(int, match.groups())
        return Crop(left, top, width, height)

    def __str__(self) -> str:
        return f"{self.width}x{self.height}+{self.left}+{self.top}"

    def of(self, photo: Photo) -> Photo:
        """The part of a photo, with a copy of its pixels. Raises `ValueError` where it leaves the photo, or is less
        than `MIN_SIDE` pixels wide or high."""
        height, width = photo.picture.shape[2:]
        right, bottom = self.left + self.width, self.top + self.height
        if min(self.width, self.height) < MIN_SIDE or min(self.left, self.top) < 0 or right > width or bottom > height:
            raise ValueError(
                f"crop: expected a part of at least {MIN_SIDE}x{MIN_SIDE} pixels inside {width}x{height}, got {self}"
            )
        rows, columns = slice(self.top, bottom), slice(self.left, right)
        alpha = None if photo.alpha is None else photo.alpha[..., rows, columns].clone()
        return replace(photo, picture=photo.picture[..., rows, columns].clone(), alpha=alpha)


def shrunk(photo: Photo, size: Size) -> Photo:
    """A photo at a smaller size, shrunk by the filter that the networks take small pictures to be made by."""
    own = photo.picture.shape[2], photo.picture.shape[3]
    if own == size:
        return photo
    alpha = None if photo.alpha is None else _shrunk(photo.alpha, size)
    return replace(photo, picture=_shrunk(photo.picture, size), alpha=alpha)


def within(size: Size, pixels: int) -> Size:
    """The largest size of the same shape that has at most so many pixels; `size` itself where it has."""
    height, width = size
    if height * width <= pixels:
        return size
    factor = (pixels / (height * width)) ** 0.5
    return max(int(height * factor), 1), max(int(width * factor), 1)


def _shrunk(x: Tensor, size: Size) -> Tensor:
    # `Downsample` is the same filter as matrices, which take more memory than a large photo itself
    return F.interpolate(x, size, mode="bicubic", antialias=True).clamp(0, 1)

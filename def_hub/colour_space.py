"""The colour space that a file's numbers are in, and the way back into it: sRGB → the numbers of that file.

Profiles of curves and primaries are inverted in floating point, so a 16-bit result keeps its precision. Profiles of
tables go through Little CMS in 8 bits, and only where they hold tables of both directions.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from def_hub.colour import GREY, colours_of, parsed, srgb_profile, tags_of

_BACK = (b"B2A0", b"B2A1", b"B2A2")


@dataclass(frozen=True)
class ColourSpace:
    """mode: Pillow's, of the file. profile: its ICC profile; empty where it has none. bare: whether its colours are
    told without one, by PNG's gAMA and cHRM or by EXIF.
    """

    mode: str = "RGB"
    profile: bytes = b""
    bare: bool = False

    @classmethod
    def of(cls, image: Image.Image) -> ColourSpace:
        """That of an image as it was opened."""
        profile = image.info.get("icc_profile") or b""
        return cls(image.mode, profile, not profile and colours_of(image) is not None)

    def check(self, name: str, bits: int = 8) -> None:
        """Raise `ValueError`, beginning with `name`, where a result of so many bits cannot be written in this space."""
        if obstacle := self.obstacle(bits):
            raise ValueError(f"{name}: the result cannot be kept in the input's colour space, {obstacle}")

    def obstacle(self, bits: int = 8) -> str:
        """Why a result cannot be written in this space, in words; empty where it can."""
        if self.mode in ("CMYK", "LAB"):
            return f"which is {self.mode}: a result has red, green and blue"
        if self.bare:
            return "which gAMA, cHRM or EXIF name: there is no profile that a result could be tagged with"
        if self.is_srgb:
            return ""
        colours = parsed(self.profile)
        if colours is None and not _back(self.profile):
            return "whose profile has tables for reading only"
        if colours is None and bits > 8:
            return "whose profile consists of tables, which are evaluated in 8 bits: ask for 8"
        if colours is not None and colours.matrix is None:
            return "which is grey: a result has red, green and blue"
        if colours is not None and not colours.invertible:
            return "whose profile cannot be inverted"
        return ""

    @property
    def is_srgb(self) -> bool:
        """Whether its numbers are sRGB, or were taken as sRGB, because its profile cannot be read or is no colour's."""
        if not self.profile:
            return not self.bare and self.mode not in ("CMYK", "LAB")
        colours = parsed(self.profile)
        if colours is None:
            return self.profile[16:20] != b"RGB " or _transform(self.profile, False) is None
        return colours.is_srgb() or (colours.matrix is None and self.mode not in GREY)

    @property
    def tag(self) -> bytes:
        """The ICC profile of a result in this space."""
        colours = parsed(self.profile)
        named = not self.is_srgb or (colours is not None and colours.matrix is not None)
        return self.profile if named else srgb_profile()

    def from_srgb(self, pixels: np.ndarray) -> np.ndarray:
        """`[H, W, 3]` of sRGB in [0, 1] → the numbers of this space, float32, clipped to [0, 1].

        A space that is smaller than sRGB clips. Call `check` first.
        """
        if self.is_srgb:
            return pixels
        colours = parsed(self.profile)
        if colours is not None:
            return colours.from_srgb(pixels)
        transform = _transform(self.profile, True)
        assert transform is not None
        picture = Image.fromarray(np.rint(pixels * 255).astype(np.uint8))
        converted = ImageCms.applyTransform(picture, transform)
        assert converted is not None
        return np.asarray(converted) / np.float32(255)


def _back(profile: bytes) -> bool:
    """Whether a profile of tables has those of the way back. Little CMS would take other parts of it instead, which
    need not be the inverse."""
    try:
        return any(name in tags_of(profile) for name in _BACK) and _transform(profile, True) is not None
    except struct.error:
        return False


@lru_cache(maxsize=4)
def _transform(profile: bytes, back: bool) -> ImageCms.ImageCmsTransform | None:
    """Little CMS between sRGB and a profile of red, green and blue; None where it cannot."""
    srgb = ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile()))
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    try:
        other = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        ends = (srgb, other) if back else (other, srgb)
        return ImageCms.buildTransform(*ends, "RGB", "RGB", renderingIntent=intent)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None

"""What the numbers of a file mean as colours → sRGB, in which everything here is computed.

Profiles that consist of curves and primaries (Display P3, Adobe RGB, grey gamma …), and PNG's gAMA and cHRM, are
evaluated in floating point, so 16-bit files keep their precision. Other profiles (CMYK, tables) go through Little CMS
in 8 bits.
"""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

SRGB_TO_D50 = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
"""Linear sRGB → XYZ relative to D50, the white of ICC profiles."""
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
D50 = np.array([0.9642, 1.0, 0.8249])
SRGB_CHROMATICITY = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)  # x, y of white, red, green, blue
ADOBE_CHROMATICITY = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
ADOBE_GAMMA = 563 / 256

SAMPLES = 4096  # of a curve that is given as a formula
GREY = ("L", "LA", "I", "I;16", "I;16B")  # modes of Pillow
ROWS = 2**20  # pixels that are converted at a time: the intermediate values are four times as large as the picture
EXIF_IFD, COLOUR_SPACE, INTEROP_IFD, INTEROP_INDEX = 0x8769, 0xA001, 0xA005, 1

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Colours:
    """curves: for each channel, values in [0, 1] at even distances over [0, 1]: file → linear. matrix: `[3, 3]`, linear
    → linear sRGB; None for grey.
    """

    curves: tuple[np.ndarray, ...]
    matrix: np.ndarray | None = None

    def to_srgb(self, pixels: np.ndarray) -> np.ndarray:
        """`[H, W, 1]` or `[H, W, 3]` in [0, 1] → sRGB, float32 of the same shape, clipped to [0, 1]."""
        result = np.empty(pixels.shape, np.float32)
        rows = max(1, ROWS // pixels.shape[1])
        for top in range(0, len(pixels), rows):
            result[top : top + rows] = self._converted(pixels[top : top + rows])
        return result

    def _converted(self, pixels: np.ndarray) -> np.ndarray:
        channels = pixels.shape[2]
        curves = self.curves if len(self.curves) == channels else self.curves[:1] * channels
        linear = np.stack(
            [np.interp(pixels[..., c], np.linspace(0, 1, len(curve)), curve) for c, curve in enumerate(curves)], -1
        )
        if self.matrix is not None and channels == 3:
            linear = linear @ self.matrix.T
        linear = linear.clip(0, 1)
        return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)

    def from_srgb(self, pixels: np.ndarray) -> np.ndarray:
        """The way back: `[H, W, 3]` of sRGB in [0, 1] → the file's own numbers, float32, clipped to [0, 1]. Only where
        they are `invertible`."""
        assert self.matrix is not None
        back = np.linalg.inv(self.matrix).T
        result = np.empty(pixels.shape, np.float32)
        rows = max(1, ROWS // pixels.shape[1])
        for top in range(0, len(pixels), rows):
            linear = (_srgb_decoded(pixels[top : top + rows].astype(np.float64)) @ back).clip(0, 1)
            for c, curve in enumerate(self.curves):
                result[top : top + rows, :, c] = np.interp(linear[..., c], curve, np.linspace(0, 1, len(curve)))
        return result

    @property
    def invertible(self) -> bool:
        """Whether the curves rise and the primaries differ, so that every colour has numbers."""
        if self.matrix is None or not np.isfinite(self.matrix).all() or abs(np.linalg.det(self.matrix)) < 1e-6:
            return False
        return all(bool((np.diff(curve) >= 0).all()) and curve[0] < curve[-1] for curve in self.curves)

    def is_srgb(self) -> bool:
        """Whether no colour would change by a whole 8-bit step: tables of sRGB differ in their last digits."""
        steps = np.linspace(0, 1, 18)
        cube = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 1, 3)
        grid = cube if self.matrix is not None else steps[:, None, None]
        return bool(np.abs(self.to_srgb(grid) - grid).max() < 1 / 255)


@lru_cache(maxsize=1)
def srgb_profile() -> bytes:
    """An ICC profile of sRGB, without the date at which it was made: the same picture is the same bytes."""
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    made[24:36] = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    made[84:100] = bytes(16)  # the checksum, which may be left out
    return bytes(made)


def through_tables(image: Image.Image) -> Image.Image:
    """The image as 8-bit sRGB where only Little CMS can tell its colours (CMYK, LAB, profiles with tables), else the
    same image. A profile that cannot be read counts as none.
    """
    if image.mode == "LAB":
        return _by_lcms(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    profile = image.info.get("icc_profile")
    if not profile or parsed(profile) is not None:
        return image
    space = profile[16:20]
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
    modes = {b"RGB ": ("RGB", "RGBA", "RGBX"), b"CMYK": ("CMYK",), b"GRAY": ("L", "LA")}.get(space, ())
    if image.mode not in modes:
        return image
    try:
        return _by_lcms(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        _log.warning("a colour profile cannot be read (%s): the colours are taken as sRGB", error)
        return image


def colours_of(image: Image.Image) -> Colours | None:
    """What the image's profile, or PNG's gAMA and cHRM, say; None for sRGB, and where nothing is said."""
    info = image.info
    if profile := info.get("icc_profile"):
        found = parsed(profile)
        if found is not None and found.matrix is None and image.mode not in GREY:
            return None  # a grey profile in a colour picture
    elif "srgb" in info:
        return None
    elif "gamma" in info or "chromaticity" in info:
        found = from_chromaticity(info.get("chromaticity", SRGB_CHROMATICITY), info.get("gamma", 0) or 1 / 2.2)
    elif _is_adobe(image):
        found = from_chromaticity(ADOBE_CHROMATICITY, 1 / ADOBE_GAMMA)
    else:
        return None
    return None if found is None or found.is_srgb() else found


def from_chromaticity(xy: Sequence[float], gamma: float) -> Colours | None:
    """The colours of primaries and an exponent, as PNG writes them; None for values that no screen can have.

    Args:
        xy: of white, red, green and blue. gamma: the encoding exponent; 1/2.2 is how encoders write sRGB's curve.
    """
    if len(xy) != 8 or not 0.05 < gamma < 10 or min(xy[1::2]) <= 0:
        return None
    steps = np.linspace(0, 1, SAMPLES)
    curve = _srgb_decoded(steps) if abs(gamma - 1 / 2.2) < 1e-4 else steps ** (1 / gamma)
    white, *primaries = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in zip(xy[::2], xy[1::2], strict=True))
    mixed = np.stack(primaries, 1)
    if abs(np.linalg.det(mixed)) < 1e-6:
        return None
    to_xyz = mixed * np.linalg.solve(mixed, white)
    adapted = np.linalg.inv(BRADFORD) @ np.diag((BRADFORD @ D50) / (BRADFORD @ white)) @ BRADFORD @ to_xyz
    return Colours((curve,) * 3, _to_srgb_matrix(adapted))


@lru_cache(maxsize=16)
def parsed(profile: bytes) -> Colours | None:
    """The colours of an ICC profile of curves and primaries; None for any other, and for a damaged one."""
    try:
        tags = tags_of(profile)
        if any(name in tags for name in (b"A2B0", b"A2B1")) or profile[20:24] != b"XYZ ":
            return None
        if profile[16:20] == b"GRAY":
            return Colours((_curve(tags[b"kTRC"]),))
        if profile[16:20] != b"RGB ":
            return None
        columns = [struct.unpack_from(">3i", tags[name], 8) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
        matrix = _to_srgb_matrix(np.array(columns).T / 65536)
        return Colours(tuple(_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")), matrix)
    except (KeyError, struct.error, ValueError, IndexError):
        return None


def tags_of(profile: bytes) -> dict[bytes, bytes]:
    """The parts of an ICC profile by their names of four letters. Raises `struct.error` for a damaged one."""
    return {
        profile[at : at + 4]: profile[start : start + size]
        for at in range(132, 132 + 12 * struct.unpack_from(">I", profile, 128)[0], 12)
        for start, size in [struct.unpack_from(">II", profile, at + 4)]
    }


def _to_srgb_matrix(to_d50: np.ndarray) -> np.ndarray:
    matrix = np.linalg.inv(SRGB_TO_D50) @ to_d50
    return matrix / matrix.sum(1, keepdims=True)  # white stays white to the last bit


def _curve(tag: bytes) -> np.ndarray:
    """An ICC curve, a table or one of its five formulas, as `Colours.curves` has them."""
    x = np.linspace(0, 1, SAMPLES)
    if tag[:4] == b"curv":
        count = struct.unpack_from(">I", tag, 8)[0]
        if count == 0:
            return np.array([0.0, 1.0])
        if count == 1:
            return x ** (struct.unpack_from(">H", tag, 12)[0] / 256)
        return np.frombuffer(tag, ">u2", count, 12) / 65535
    if tag[:4] != b"para":
        raise ValueError(f"unknown curve {tag[:4]!r}")
    kind = struct.unpack_from(">H", tag, 8)[0]
    count = (1, 3, 4, 5, 7)[kind]
    g, a, b, c, d, e, f = [v / 65536 for v in struct.unpack_from(f">{count}i", tag, 12)] + [0.0] * (7 - count)
    if kind == 0:
        return x**g
    if kind in (1, 2):  # c is the offset of the power, below -b/a the curve is flat
        return np.where(x >= -b / a, (a * x + b).clip(0) ** g, 0) + (c if kind == 2 else 0)
    return np.where(x >= d, (a * x + b).clip(0) ** g + e, c * x + f).clip(0, 1)


def _srgb_decoded(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _by_lcms(image: Image.Image, profile: Any) -> Image.Image:
    """By Little CMS, relative to the white as everything here; transparency stays."""
    colour = image.convert("RGB") if image.mode in ("RGBA", "RGBX") else image
    colour = image.getchannel("L") if image.mode == "LA" else colour
    target = ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile()))
    converted = ImageCms.profileToProfile(
        colour, profile, target, renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB"
    )
    assert converted is not None
    if image.mode in ("RGBA", "LA"):
        converted.putalpha(image.getchannel("A"))
    converted.info = {"srgb": 0}  # whatever else the file said of colours is done with
    return converted


def _is_adobe(image: Image.Image) -> bool:
    """Whether a camera says Adobe RGB in EXIF alone, as many do: by colour space 2, or by the index R03."""
    try:
        exif = image.getexif()
        camera = exif.get_ifd(EXIF_IFD) if exif else {}
        index = exif.get_ifd(INTEROP_IFD).get(INTEROP_INDEX) if INTEROP_IFD in camera else ""
        return camera.get(COLOUR_SPACE) == 2 or str(index).startswith("R03")
    except Exception:  # damaged EXIF raises anything
        return False

"""A Pillow image that was just opened → an upright one, and all the bits of its values."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from def_hub.formats import UnreadableImage
from def_hub.metadata import Metadata, metadata_of

_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")
_STILLS = ("MPO", "HEIF")  # hold several pictures of which the first is the photograph

# Pillow decodes 16-bit colour to the high byte. Decoded with the opposite byte order it hands out the low
# byte of the same samples, so two passes give all 16 bits without a second decoder.
_OTHER_BYTE = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBX", "RGBA")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B" if np.little_endian else "L"))
}
_log = logging.getLogger(__name__)


def decoded(image: Image.Image, name: str) -> tuple[Image.Image, np.ndarray | None, Metadata]:
    """The image upright, its pixels where they have 16-bit colour, and its metadata."""
    try:
        _tell_frames(image, name)
        pixels = _from_wide_file(image)
        image.load()
        return image if pixels is not None else _upright(image), pixels, metadata_of(image)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever they like on bad files
        raise UnreadableImage(name, error, Path(getattr(image, "filename", "")).name) from error


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF says. Damaged EXIF says nothing."""
    image.load()
    try:
        image.getexif()
    except Exception:  # damaged EXIF raises anything
        return image
    return ImageOps.exif_transpose(image)


def _tell_frames(image: Image.Image, name: str) -> None:
    """Say which picture is taken where there are several."""
    try:
        frames = getattr(image, "n_frames", 1)
    except Exception:  # of a file that is cut off after the first
        return
    if frames > 1 and image.format not in _STILLS and image.tell() == 0:
        kind = "an animation of {} frames" if image.format in _ANIMATED else "a file of {} pages"
        _log.warning("%s: %s, the first is taken", name, kind.format(frames))


def values_of(image: Image.Image, name: str) -> np.ndarray:
    """An upright Pillow image as a float array `HxWx1`, `HxWx3` or `HxWx4` in `[0,1]`."""
    if image.mode.startswith("I"):  # I;16, I;16B, or 16-bit values held in 32-bit integers
        values = np.asarray(image).astype(np.float64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"{name}: expected 16-bit grey values, got {values.min():.0f} to {values.max():.0f}")
        return values[..., None] / 65535
    if image.mode == "F":
        return np.asarray(image)[..., None]
    if image.mode == "L" and "transparency" not in image.info:
        return np.asarray(image)[..., None] / np.float32(255)
    transparent = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    return np.asarray(image.convert("RGBA" if transparent else "RGB")) / np.float32(255)


def _from_wide_file(image: Image.Image) -> np.ndarray | None:
    """All 16 bits of a file with 16-bit colour that has not been decoded yet; None for every other image."""
    tiles = getattr(image, "tile", None)
    path = getattr(image, "filename", "")
    file = path if path and Path(path).is_file() else getattr(image, "fp", None)
    if not tiles or not all(_raw_mode(tile.args) in _OTHER_BYTE for tile in tiles) or file is None:
        return None
    if not isinstance(file, str | Path):  # in memory: both passes need a position of their own
        file = io.BytesIO(file.getvalue()) if isinstance(file, io.BytesIO) else None
    if file is None:
        return None
    with Image.open(file) as low:
        if len(low.tile) != len(tiles) or not all(_raw_mode(tile.args) in _OTHER_BYTE for tile in low.tile):
            return None
        low.tile = [tile._replace(args=_with_other_byte(tile.args)) for tile in low.tile]
        low_bytes, high_bytes = np.asarray(_upright(low)), np.asarray(_upright(image))
    return (high_bytes.astype(np.float32) * 256 + low_bytes) / np.float32(65535)


def _raw_mode(args: object) -> str:
    return args if isinstance(args, str) else str(args[0]) if isinstance(args, tuple) and args else ""


def _with_other_byte(args: object) -> str | tuple:
    other = _OTHER_BYTE[_raw_mode(args)]
    return (other, *args[1:]) if isinstance(args, tuple) else other

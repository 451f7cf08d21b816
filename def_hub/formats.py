"""Files of pictures: which there are, what is opened and what is refused before it is decoded."""

from __future__ import annotations

import copyreg
import struct
from collections.abc import Collection
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from def_hub import png

MIN_SIDE = 8  # pixels; below this a feature pyramid with three levels has nothing to look at
MAX_PIXELS = 68_000_000  # bound on one picture, checked before it is decoded; phones make photographs of 64 million

ORIENTATION = 0x0112  # of EXIF
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height

_NEVER = ("EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5")  # start other programs, or cannot be decoded by Pillow
_SIGNED = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIF", "JPEG2000")  # known by their first bytes
_HEIC = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")  # brands at byte 8
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


class UnreadableImage(ValueError):
    """A picture that cannot be decoded. `file`: the name of its file, empty where it did not come as one."""

    def __init__(self, label: str, error: BaseException | str, file: str = "") -> None:
        reason = error if isinstance(error, str) else _reason(error)
        super().__init__(f"{label}: not a readable picture ({reason})")
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        """As it is, so that it can come out of another process; `__init__` would make a message of the message."""
        return copyreg.__newobj__, (type(self), str(self)), self.__dict__  # type: ignore[attr-defined]


class MissingDecoder(UnreadableImage):
    """A picture of a format for which an optional package is missing; the message says which."""


def check_size(width: int, height: int, name: str) -> None:
    """Raise `ValueError`, beginning with `name`, for a side under `MIN_SIDE` or more than `MAX_PIXELS` pixels."""
    if min(width, height) < MIN_SIDE:
        raise ValueError(f"{name}: expected at least {MIN_SIDE}×{MIN_SIDE} pixels, got {width}×{height}")
    if width * height > MAX_PIXELS:
        limit = MAX_PIXELS // 1_000_000
        raise ValueError(f"{name}: expected at most {limit} million pixels, got {width}×{height}")


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """Names of the formats that are opened, HEIC among them where it can be."""
    if find_spec("pillow_heif") is not None:
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(name for name in Image.OPEN if name not in _NEVER)


@lru_cache(maxsize=1)
def _suffixes(known: tuple[str, ...]) -> frozenset[str]:
    """Suffixes of files in these formats."""
    return frozenset(suffix for suffix, format in Image.registered_extensions().items() if format in known)


def is_picture(path: Path) -> bool:
    """Whether a file has the suffix of a format that can be opened, or begins like one of the common formats."""
    if path.suffix.lower() in _suffixes(_formats()) or path.suffix.lower() in (".heic", ".heif"):
        return True
    try:
        with Image.open(path, formats=[name for name in _formats() if name in _SIGNED]):
            return True
    except Exception:  # decoders raise whatever they like on bad files
        return False


def open_header(path: Path, label: str, only: Collection[str] | None = None) -> Image.Image:
    """Open a file, of which only the header is read. Raises `ValueError`, beginning with `label`, if that fails.

    only: Pillow's names of the formats that are taken; by default all that are safe to open.
    """
    formats = [name for name in _formats() if only is None or name in only]
    try:
        source: Path | BinaryIO = png.without_large_chunks(path) or path
        return Image.open(source, formats=formats)
    except Image.DecompressionBombError as error:
        limit = MAX_PIXELS // 1_000_000
        raise ValueError(f"{label}: expected at most {limit} million pixels, got far more") from error
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever they like on bad files
        if isinstance(error, Image.UnidentifiedImageError) and "HEIF" not in _formats() and _is_heic(path):
            hint = "HEIC needs one more package: pip install 'def-hub[heic]'"
            raise MissingDecoder(label, hint, path.name) from error
        raise UnreadableImage(label, error, path.name) from error


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of an image whose header was read, turned as its EXIF says. Damaged EXIF says nothing.

    A PNG without EXIF before its pixels is decoded to look for it behind them. Raises `OSError` if that fails.
    """
    try:
        sideways = image.format != "TIFF" and image.getexif().get(ORIENTATION) in SIDEWAYS  # Pillow turns TIFF itself
    except OSError:
        raise
    except Exception:  # damaged EXIF raises anything
        sideways = False
    return image.size[::-1] if sideways else image.size


def _is_heic(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(12)
    return start[4:8] == b"ftyp" and start[8:12] in _HEIC


def _reason(error: BaseException) -> str:
    """The first line of an error that a decoder raised on purpose. What fails inside one says nothing to people."""
    if isinstance(error, Image.UnidentifiedImageError):  # its text has an address in memory
        return "unknown format"
    meant = isinstance(error, OSError | SyntaxError | ValueError | Image.DecompressionBombError)
    if not meant or isinstance(error, UnicodeError) or "unpack" in str(error):
        return "damaged"
    return (str(error).splitlines() or [type(error).__name__])[0]

"""What is kept of a photograph beside its pixels: when, with what and where it was taken, and its resolution."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from typing import Any

from PIL import Image

ORIENTATION, EXIF_IFD, GPS_IFD = 0x0112, 0x8769, 0x8825
DESCRIBING = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)
"""Tags of the picture that are kept: description, make, model, software, date, artist, copyright. Others are about how
its pixels were stored."""
DROPPED = (0x927C, 0xA005, 0xA002, 0xA003, 0xA001)
"""Tags of the camera that are not: the maker's notes, which point into the old file, and former sizes and colours."""
LARGEST = 60_000
"""Bytes: more does not fit into a JPEG."""


@dataclass(frozen=True)
class Metadata:
    """exif: as Pillow and `png.write16` take it, upright, without thumbnail; may be empty. dpi: 0 where not known."""

    exif: bytes = b""
    dpi: float = 0.0

    def options(self) -> dict[str, Any]:
        """Keywords for `Image.save`."""
        found: dict[str, Any] = {"exif": self.exif} if self.exif else {}
        return found | ({"dpi": (self.dpi, self.dpi)} if self.dpi else {})


NO_METADATA = Metadata()


def metadata_of(image: Image.Image) -> Metadata:
    """Of an image as it was opened. What is damaged is left out."""
    return Metadata(_kept(image), _dpi(image.info.get("dpi")))


def _kept(image: Image.Image) -> bytes:
    try:
        given = image.getexif()
        kept = Image.Exif()
        for tag in DESCRIBING:
            if tag in given:
                kept[tag] = given[tag]
        camera = {tag: value for tag, value in given.get_ifd(EXIF_IFD).items() if tag not in DROPPED}
        place = dict(given.get_ifd(GPS_IFD))
        for ifd, values in ((EXIF_IFD, camera), (GPS_IFD, place)):
            if values:
                kept.get_ifd(ifd).update(values)
                kept[ifd] = kept.get_ifd(ifd)
        if not len(kept):
            return b""
        kept[ORIENTATION] = 1
        data = kept.tobytes()
        return data if len(data) <= LARGEST else b""
    except Exception:  # damaged EXIF raises anything
        return b""


def _dpi(given: Any) -> float:
    try:
        value = float(Fraction(given[0])) if isinstance(given, tuple) else 0.0
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return 0.0
    return value if isfinite(value) and 1 <= value <= 100_000 else 0.0

"""What visitors give: pictures whose header is checked before anything is decoded."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from def_hub.formats import MAX_PIXELS, open_header
from def_hub.settings import SCALES

MAX_BYTES = 40_000_000  # of one file
MAX_PHOTO_PIXELS = 1_000_000
MAX_RESULT_PIXELS = 16_000_000  # ×4 of the largest photo; what is larger takes minutes to draw, save and send
MAX_REFERENCE_PIXELS = 16_000_000
MAX_CANDIDATES = 20
MAX_REFERENCES = 8  # of those, in one run

# Formats whose decoders start no other program and fetch nothing (Pillow's EPS, for one, runs Ghostscript).
SUFFIXES = {
    "PNG": ".png",
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "WEBP": ".webp",
    "AVIF": ".avif",
    "TIFF": ".tif",
    "BMP": ".bmp",
    "GIF": ".gif",
    "PPM": ".ppm",
    "JPEG2000": ".jp2",
}
SHOWN = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "BMP", "GIF")  # by every browser
SMALLER = (
    "Make it smaller, cut out the part that matters, or use the def-hub command, which takes pictures of up to "
    f"{MAX_PIXELS / 1e6:g} million pixels, however large the file."
)
READABLE = "Save it as PNG, JPEG, WEBP, AVIF or TIFF first."
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
ORIENTATION = 0x0112


@dataclass(frozen=True)
class Upload:
    """A checked file. height, width: upright. format: Pillow's name."""

    path: Path
    height: int
    width: int
    format: str

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width

    def copy_to(self, stem: Path) -> Path:
        """Copy the file, unchanged, under a name that no visitor chose; returns it."""
        return Path(shutil.copyfile(self.path, stem.with_suffix(SUFFIXES[self.format])))


def check_photo(path: str | Path | None) -> Upload:
    """The photograph to enlarge. Raises `ValueError` where it is missing, no picture, or too large."""
    if path is None:
        raise ValueError("Upload a small photograph first.")
    return _check(Path(path), MAX_PHOTO_PIXELS, "The photograph")


def check_references(paths: list[str] | None, limit: int = MAX_CANDIDATES) -> list[Upload]:
    """The references. Raises `ValueError` for the first that is no picture or too large, or for more than `limit`."""
    given = paths or []
    if len(given) > limit:
        raise ValueError(f"At most {limit} references are taken at a time, got {len(given)}.")
    return [check_reference(path, f"Reference {n}") for n, path in enumerate(given, start=1)]


def check_reference(path: str, name: str | None = None) -> Upload:
    """One reference, called by its file's name unless it has another. Raises `ValueError` like `check_references`."""
    return _check(Path(path), MAX_REFERENCE_PIXELS, name or Path(path).name)


def check_original(path: str | Path, photo: Upload) -> Upload:
    """A sharp original to compare with. Raises `ValueError` where its size is that of no result of the photo."""
    original = _check(Path(path), MAX_RESULT_PIXELS, "The original")
    if original.size not in [(scale * photo.height, scale * photo.width) for scale in SCALES]:
        sizes = ", ".join(f"{scale * photo.width}×{scale * photo.height}" for scale in SCALES)
        raise ValueError(
            f"The original must have the size of a result ({sizes}), got {original.width}×{original.height}."
        )
    return original


def unreadable(name: str) -> str:
    """What is said of a file that is no picture, whole or in part."""
    return f"{name} is not a picture that can be read. {READABLE}"


def _check(path: Path, limit: int, name: str) -> Upload:
    if not path.is_file():
        raise ValueError(f"{name} is not here any more: uploads are deleted after an hour. Upload it again.")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{name} has more than {MAX_BYTES // 10**6} MB. {SMALLER}")
    try:
        with open_header(path, name, SUFFIXES) as opened:
            width, height = opened.size
            if width * height <= limit and opened.getexif().get(ORIENTATION) in SIDEWAYS:
                width, height = height, width
            format = opened.format or ""
    except Exception as error:  # decoders raise whatever they like on bad files
        raise ValueError(unreadable(name)) from error
    if width * height > limit:
        raise ValueError(f"{name} has {width}×{height} pixels; at most {limit / 1e6:g} million are taken. {SMALLER}")
    if min(width, height) < 8:
        raise ValueError(f"{name} must have at least 8×8 pixels, got {width}×{height}.")
    return Upload(path, height, width, format)

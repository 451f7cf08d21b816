"""What visitors give: pictures whose header is checked before anything is decoded."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from def_hub.crop import Size, within
from def_hub.formats import MAX_PIXELS, MissingDecoder, open_header, upright_size
from def_hub.settings import SCALES

MAX_BYTES = 40_000_000  # of one file
MAX_PHOTO_PIXELS = 1_000_000
MAX_RESULT_PIXELS = 16_000_000  # ×4 of the largest photo; what is larger takes minutes to draw, save and send
MAX_GIVEN_PIXELS = 50_000_000  # of a reference, or of a photograph of which a part or a shrunk copy is enlarged
MAX_CANDIDATES = 20
MAX_REFERENCES = 8  # of those, in one run

# Formats whose decoders start no other program and fetch nothing (Pillow's EPS, for one, runs Ghostscript).
SUFFIXES = {
    "PNG": ".png",
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "WEBP": ".webp",
    "AVIF": ".avif",
    "HEIF": ".heic",  # where the optional package for it is installed
    "TIFF": ".tif",
    "BMP": ".bmp",
    "GIF": ".gif",
    "PPM": ".ppm",
    "JPEG2000": ".jp2",
}
SMALLER = (
    "Make it smaller, cut out the part that matters, or use the def-hub command, which takes pictures of up to "
    f"{MAX_PIXELS / 1e6:g} million pixels, however large the file."
)
READABLE = "Save it as PNG, JPEG, WEBP, AVIF or TIFF first."
NO_HEIC = "is a HEIC photograph; reading it needs the package pillow-heif here (pip install 'def-hub[heic]')."


@dataclass(frozen=True)
class Upload:
    """A checked file. height, width: upright. format: Pillow's name.

    source: the photograph that it was made of, and made: how.
    """

    path: Path
    height: int
    width: int
    format: str
    source: Upload | None = None
    made: str = ""

    @property
    def name(self) -> str:
        """What the visitor called it, or the photograph that it was made of."""
        return self.source.name if self.source else self.path.name

    @property
    def size(self) -> Size:
        return self.height, self.width

    @property
    def is_large(self) -> bool:
        """Whether only a part of it, or a shrunk copy, can be enlarged here."""
        return self.height * self.width > MAX_PHOTO_PIXELS

    def copy_to(self, stem: Path) -> Path:
        """Copy the file, unchanged, under a name that no visitor chose; returns it."""
        return Path(shutil.copyfile(self.path, stem.with_suffix(SUFFIXES[self.format])))


def check_photo(path: str | Path | None, most: int = MAX_PHOTO_PIXELS) -> Upload:
    """The photograph to enlarge. Raises `ValueError` where it is missing, no picture, or has more than `most` pixels.

    most: `MAX_GIVEN_PIXELS` where a part of it, or a shrunk copy, is made next (`service.fitted`).
    """
    if path is None:
        raise ValueError("Upload a small photograph first.")
    return _check(Path(path), most, "The photograph")


def check_references(paths: list[str] | None, limit: int = MAX_CANDIDATES) -> list[Upload]:
    """The references. Raises `ValueError` for the first that is no picture or too large, or for more than `limit`."""
    given = paths or []
    if len(given) > limit:
        raise ValueError(f"At most {limit} references are taken at a time, got {len(given)}.")
    return [check_reference(path, f"Reference {n}") for n, path in enumerate(given, start=1)]


def check_reference(path: str, name: str | None = None) -> Upload:
    """One reference, called by its file's name unless it has another. Raises `ValueError` like `check_references`."""
    return _check(Path(path), MAX_GIVEN_PIXELS, name or Path(path).name)


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
            if width * height <= limit:
                width, height = upright_size(opened)
            format = opened.format or ""
    except MissingDecoder as error:
        raise ValueError(f"{name} {NO_HEIC} {READABLE}") from error
    except Exception as error:  # decoders raise whatever they like on bad files
        raise ValueError(unreadable(name)) from error
    if width * height > limit:
        raise ValueError(_too_large(name, (height, width), limit))
    if min(width, height) < 8:
        raise ValueError(f"{name} must have at least 8×8 pixels, got {width}×{height}.")
    return Upload(path, height, width, format)


def _too_large(name: str, size: Size, limit: int) -> str:
    words = f"{name} has {size[1]}×{size[0]} pixels; at most {limit / 1e6:g} million are taken."
    if limit != MAX_PHOTO_PIXELS or size[0] * size[1] > MAX_GIVEN_PIXELS:
        return f"{words} {SMALLER}"
    height, width = within(size, limit)
    return (
        f"{words} Shrink it to {width}×{height} first (fit), or cut out a part (crop), or use the def-hub command, "
        f"which takes pictures of up to {MAX_PIXELS / 1e6:g} million pixels."
    )

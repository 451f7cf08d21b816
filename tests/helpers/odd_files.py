"""Files of pictures that are odd or hostile, each with what is right for it. All are made here; none is stored.

The picture in most of them is `BASE`, so what they should show is known without any decoder.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image, ImageCms

from .profiles import lab
from .raw_files import inserted, png, png16, tiff16


@dataclass(frozen=True)
class Case:
    """One input.

    make: writes it into an empty folder and returns its path, or returns a Pillow image, an array or a tensor.
    expected: `[H, W, 3]` in [0, 1]; None where it may be a picture or an error (a file that is cut off may do).
    tolerance: largest mean difference, in 1/255. words: part of the error, where there must be one. says: part of the
    warning, where one is due. page: whether the page takes it, too, as a photograph.
    """

    name: str
    make: Callable[[Path], Any]
    expected: np.ndarray | None = None
    tolerance: float = 0.01
    words: str | None = None
    says: str | None = None
    page: bool = False


def base(height: int = 16, width: int = 24) -> np.ndarray:
    """A smooth picture of few colours without symmetry, uint8 `[height, width, 3]`."""
    noise = np.random.default_rng(3).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


BASE = base()
GREY = BASE[..., 1]
ALPHA = np.linspace(0, 255, 24).astype(np.uint8)[None].repeat(16, 0)

# name of the format → (suffix, mode it keeps, options of Pillow, tolerance in 1/255)
WRITTEN: dict[str, tuple[str, str, dict[str, Any], float]] = {
    "PNG": (".png", "RGB", {}, 0.01),
    "JPEG": (".jpg", "RGB", {"quality": 95, "subsampling": 0}, 3),
    "WEBP": (".webp", "RGB", {"lossless": True}, 0.01),
    "GIF": (".gif", "L", {}, 0.01),
    "TIFF": (".tif", "RGB", {}, 0.01),
    "BMP": (".bmp", "RGB", {}, 0.01),
    "DIB": (".dib", "RGB", {}, 0.01),
    "AVIF": (".avif", "RGB", {"quality": 95, "subsampling": "4:4:4"}, 3),
    "JPEG2000": (".jp2", "RGB", {"irreversible": False}, 0.01),
    "PPM": (".ppm", "RGB", {}, 0.01),
    "TGA": (".tga", "RGB", {}, 0.01),
    "ICO": (".ico", "RGBA", {"sizes": [(24, 16)]}, 0.01),
    "PCX": (".pcx", "RGB", {}, 0.01),
    "SGI": (".sgi", "RGB", {}, 0.01),
    "IM": (".im", "RGB", {}, 0.01),
    "QOI": (".qoi", "RGB", {}, 0.01),
    "DDS": (".dds", "RGB", {}, 0.01),
    "BLP": (".blp", "P", {}, 4),
    "SPIDER": (".spi", "F", {}, 0.01),
    "MSP": (".msp", "1", {}, 0.01),
    "XBM": (".xbm", "1", {}, 0.01),
}


def formats() -> Iterator[Case]:
    """Every format that Pillow writes and opens: whole, renamed, with something behind it, and damaged."""
    for format, (suffix, mode, _, tolerance) in WRITTEN.items():
        whole = encoded(format)
        shown = np.asarray(_in_mode("L" if mode == "F" else mode).convert("RGB")) / 255
        page = format in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM")
        known = page or format not in ("TGA", "PCX", "SPIDER", "ICO", "DDS", "QOI")
        yield Case(f"{format} whole", written(f"a{suffix}", whole), shown, tolerance, page=page)
        if format != "BLP":
            other = ".tif" if suffix == ".png" else ".png"
            yield Case(f"{format} called {other}", written(f"a{other}", whole), shown, tolerance, page=page)
        yield Case(f"{format} without suffix", written("a", whole), shown, tolerance, page=page)
        if format not in ("BLP", "SPIDER", "ICO"):  # of which the end counts
            yield Case(f"{format} and more behind it", written(f"a{suffix}", whole + b"PK\3\4" * 40), shown, tolerance)
        for share in (0.02, 0.1, 0.5, 0.95):
            cut = written(f"a{suffix}", whole[: int(len(whole) * share)])
            # a decoder may make something of what is there, but not of the first bytes alone
            yield Case(f"{format} cut at {share:.0%}", cut, words="not a readable picture" if share < 0.05 else None)
        for seed in range(4):
            yield Case(f"{format} with bytes changed, {seed}", written(f"a{suffix}", _changed(whole, seed)))
        yield Case(f"{format} of zeros", written(f"a{suffix}", bytes(len(whole))), words="readable picture" * known)
        yield Case(f"{format} of no bytes", written(f"a{suffix}", b""), words="not a readable picture")


def no_pictures() -> Iterator[Case]:
    """Other things with the name of a picture, and names of nothing."""
    for name, data in {
        "text": b"not a picture",
        "HTML": b"<!doctype html><html><body>404</body></html>",
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "PDF": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
        "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n(/etc/passwd) (r) file\n",
        "WMF": b"\xd7\xcd\xc6\x9a" + bytes(200),
        "ZIP": b"PK\3\4" + bytes(100),
        "ELF": b"\x7fELF" + bytes(100),
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(100),
        "pickle": b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.",
        "one byte": b"\x89",
        "signature of PNG": b"\x89PNG\r\n\x1a\n",
        "signature of JPEG": b"\xff\xd8\xff\xe0",
        "signature of HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "signature of RIFF": b"RIFF\xff\xff\xff\xffWEBPVP8 ",
    }.items():
        yield Case(f"no picture: {name}", written("a.png", data), words="not a readable picture")
    yield Case("a folder", _folder, words="expected a picture file, got a folder")
    yield Case("nothing", lambda folder: folder / "absent.png", words="no such file")
    yield Case("a link to nothing", _link, words="no such file")
    yield Case("a pipe", _pipe, words="expected a picture file")


def sizes() -> Iterator[Case]:
    """Too small, very long, prime; and headers that promise more than anyone has memory for."""
    for width, height in ((1, 1), (7, 8), (8, 7), (1, 4000), (3, 3)):
        small = encoded("PNG", Image.new("RGB", (width, height)))
        yield Case(f"{width}×{height}", written("a.png", small), words=f"at least 8×8 pixels, got {width}×{height}")
    for height, width in ((8, 8), (11, 13), (97, 101), (8, 1009), (257, 9)):
        pixels = base(height, width)
        whole = encoded("PNG", Image.fromarray(pixels))
        yield Case(f"{width}×{height}", written("a.png", whole), pixels / 255, page=True)
    for size in ((8, 100_000), (100_000, 8)):
        long = encoded("PNG", Image.new("RGB", size, (9, 90, 200)))
        shown = np.broadcast_to(np.array([9, 90, 200]) / 255, (*size[::-1], 3))
        yield Case(f"{size[0]}×{size[1]}", written("a.png", long), shown, page=True)
    too_many = "expected at most 68 million pixels"
    for name, data in {
        "PNG": png((30_000, 30_000)),
        "PNG of 4 billion": png((2**31 - 1, 2)),
        "PNG over the limit": png((8_300, 8_300)),
        "GIF": b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + b"\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\2\0",
        "BMP": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
        "PPM": b"P6 40000 40000 255\n",
        "TGA": struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 40_000, 40_000, 24, 0),
        "QOI": b"qoif" + struct.pack(">IIBB", 60_000, 60_000, 3, 0),
        "WebP": b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff\x3f\0" * 2,
        "TIFF": encoded("TIFF")
        .replace(struct.pack("<HHIHH", 256, 4, 1, 24, 0), struct.pack("<HHII", 256, 4, 1, 10**6))
        .replace(struct.pack("<HHIHH", 257, 4, 1, 16, 0), struct.pack("<HHII", 257, 4, 1, 10**6)),
    }.items():
        words = too_many if name not in ("WebP", "GIF", "TIFF") else ""  # decoders may refuse these before we do
        yield Case(f"bomb: {name}", written("a.png", data), words=words or "a.png: ")
    rows = zlib.compress(bytes(300_000_000 // 64), 9)
    yield Case("bomb: more data than rows", written("a.png", png((16, 16), rows)), page=True)


def turned() -> Iterator[Case]:
    """EXIF's eight orientations, and two that there are none of, in every format that has EXIF."""
    for format in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF"):
        suffix, _, options, tolerance = WRITTEN[format]
        for orientation in range(10):
            stored = Image.fromarray(_stored(BASE, orientation))
            exif = Image.Exif()
            exif[0x0112] = orientation
            # AVIF keeps the turn beside EXIF
            data = encoded(format, stored, **options, exif=exif.tobytes())
            name = f"{format} of orientation {orientation}"
            yield Case(name, written(f"a{suffix}", data), BASE / 255, max(tolerance, 0.01), page=True)


def modes() -> Iterator[Case]:
    """Every kind of pixel, in files, with what it shows on a white page."""
    rgb = Image.fromarray(BASE)
    yield from _png("1 bit", Image.fromarray(GREY).convert("1"))
    yield from _png("8-bit grey", Image.fromarray(GREY))
    yield from _png("palette", rgb.quantize(16))
    for bits in (1, 2, 4):
        yield from _png(f"palette of {bits} bits", rgb.quantize(2**bits), bits=bits)
    over = BASE / 255 * (ALPHA / 255)[..., None] + 1 - (ALPHA / 255)[..., None]
    alpha = Image.fromarray(np.dstack((BASE, ALPHA)))
    for format in ("PNG", "WEBP", "TIFF", "TGA", "JPEG2000", "ICO", "DDS", "QOI"):
        suffix, _, options, _ = WRITTEN[format]
        if format == "WEBP":
            options = options | {"exact": True}
        yield Case(f"RGBA {format}", written(f"a{suffix}", encoded(format, alpha, **options)), over, 0.6)
    grey_over = GREY / 255 * (ALPHA / 255) + 1 - ALPHA / 255
    grey_alpha = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)])
    yield Case("LA PNG", written("a.png", encoded("PNG", grey_alpha)), _grey(grey_over))
    yield Case("LA TIFF", written("a.tif", encoded("TIFF", grey_alpha)), _grey(grey_over))
    palette = rgb.quantize(16)
    shown = np.asarray(palette.convert("RGB")) / 255
    shown[np.asarray(palette) == 3] = 1
    for format in ("PNG", "GIF"):
        data = encoded(format, palette, transparency=3)
        yield Case(f"palette with transparency {format}", written(f"a.{format.lower()}", data), shown, page=True)
    keyed = Image.fromarray(np.where((GREY > 128)[..., None], BASE, np.uint8(7)))
    white = np.where((GREY > 128)[..., None], BASE / 255, 1)
    yield Case(
        "a transparent colour", written("a.png", encoded("PNG", keyed, transparency=(7, 7, 7))), white, page=True
    )
    deep = np.arange(16 * 24, dtype=np.uint16).reshape(16, 24) * 170
    for format in ("PNG", "TIFF"):
        data = encoded(format, Image.fromarray(deep))
        yield Case(f"16-bit grey {format}", written(f"a.{format.lower()}", data), _grey(deep / 65535), 0.002, page=True)
    wide = np.dstack([np.roll(deep, n, 1) for n in range(3)])
    yield Case("16-bit RGB PNG", written("a.png", png16(wide)), wide / 65535, 0.002, page=True)
    for order in "<>":
        for method, packed in (("raw", False), ("deflate", True)):
            data = tiff16(wide, order, packed)
            yield Case(f"16-bit RGB TIFF {order} {method}", written("a.tif", data), wide / 65535, 0.002, page=True)
    for name, values in (("float", GREY / 255), ("float of edges", (GREY > 128).astype(float))):
        data = encoded("TIFF", Image.fromarray(values.astype(np.float32)))
        yield Case(f"TIFF of {name}", written("a.tif", data), _grey(values))
    for name, value in (("NaN", np.nan), ("infinity", np.inf), ("255", 255), ("less than 0", -1)):
        values = (GREY / 255).astype(np.float32)
        values[3, 4] = value
        data = encoded("TIFF", Image.fromarray(values))
        yield Case(f"TIFF of floats with {name}", written("a.tif", data), words="expected values from 0 to 1, got ")
    for mode, format in (("CMYK", "JPEG"), ("CMYK", "TIFF"), ("LAB", "TIFF"), ("L", "JPEG")):
        suffix = WRITTEN[format][0]
        made = lab(rgb) if mode == "LAB" else rgb.convert(mode)
        shown = np.asarray(made.convert("RGB") if mode != "LAB" else rgb) / 255
        options = {"quality": 95} if format == "JPEG" else {}
        case = f"{mode} {format}"
        yield Case(case, written(f"a{suffix}", encoded(format, made, **options)), shown, 4, page=True)
    for name, options in {"progressive": {"progressive": True}, "restarts": {"restart_marker_blocks": 1}}.items():
        data = encoded("JPEG", rgb, quality=95, subsampling=0, **options)
        yield Case(f"JPEG, {name}", written("a.jpg", data), BASE / 255, 3, page=True)
    for compression in ("tiff_lzw", "tiff_deflate", "packbits", "tiff_adobe_deflate", "zstd", "jpeg"):
        lossy = 12 if compression == "jpeg" else 0.01
        if compression == "zstd" and int(PIL.__version__.partition(".")[0]) < 12:
            continue  # the libtiff of these wheels cannot write it, and ends the program when it is asked to
        data = encoded("TIFF", rgb, compression=compression)
        yield Case(f"TIFF {compression}", written("a.tif", data), BASE / 255, lossy, page=True)


def several() -> Iterator[Case]:
    """Animations and pages: the first is taken, and this is said."""
    frames = [Image.fromarray(np.roll(BASE, n, 1)) for n in range(3)]
    for format, word in (
        ("GIF", "frames"),
        ("PNG", "frames"),
        ("WEBP", "frames"),
        ("AVIF", "frames"),
        ("TIFF", "pages"),
    ):
        suffix, _, options, tolerance = WRITTEN[format]
        tolerance = 12 if format == "GIF" else tolerance  # 256 colours
        data = encoded(format, frames[0], save_all=True, append_images=frames[1:], **options)
        says = f"of 3 {word}, the first is taken"
        yield Case(f"animated {format}", written(f"a{suffix}", data), BASE / 255, tolerance, says=says, page=True)


def chunks() -> Iterator[Case]:
    """PNG files with chunks that are damaged, huge, or change what the numbers mean."""
    whole = encoded("PNG")
    huge = zlib.compress(b"a" * 3_000_000)
    for name, kind, data in (
        ("a huge text", b"zTXt", b"Comment\0\0" + huge),
        ("a huge international text", b"iTXt", b"Comment\0\1\0\0\0" + huge),
        ("a huge profile", b"iCCP", b"icc\0\0" + huge),
        ("a profile that is none", b"iCCP", b"icc\0\0" + zlib.compress(b"nonsense" * 30)),
        ("a profile that is not compressed", b"iCCP", b"icc\0\0nonsense"),
        ("a profile of grey", b"iCCP", b"icc\0\0" + zlib.compress(_profile(b"GRAY"))),
        ("gamma 0", b"gAMA", bytes(4)),
        ("primaries of 0", b"cHRM", bytes(32)),
        ("EXIF that is none", b"eXIf", b"nonsense"),
        ("EXIF in circles", b"eXIf", b"MM\0*\0\0\0\x08\0\1\x87\x69\0\4\0\0\0\1\0\0\0\x08\0\0\0\x08"),
        ("an unknown chunk", b"teST", b"nonsense"),
        ("a text that is no text", b"tEXt", b"\xff\xfe\0\xff"),
    ):
        yield Case(f"PNG with {name}", written("a.png", inserted(whole, kind, data)), BASE / 255, page=True)
    linear = BASE / 255
    encoded_linear = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    gamma = inserted(whole, b"gAMA", struct.pack(">I", 100_000))
    yield Case("PNG of linear light", written("a.png", gamma), encoded_linear, 0.3, page=True)
    wrong = bytearray(whole)
    wrong[29] ^= 255
    yield Case(
        "PNG with a wrong checksum of the header", written("a.png", bytes(wrong)), words="not a readable picture"
    )
    wrong = bytearray(whole)
    wrong[whole.index(b"IDAT") + 9] ^= 255
    yield Case("PNG with wrong pixels", written("a.png", bytes(wrong)), words="not a readable picture")


def written(name: str, data: bytes) -> Callable[[Path], Path]:
    """A function that writes `data` into a folder."""

    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def encoded(format: str, image: Image.Image | None = None, **options: Any) -> bytes:
    """The image, or `BASE` in the mode that the format keeps, as a file of that format."""
    if image is None:
        return _whole(format)
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@lru_cache
def _whole(format: str) -> bytes:
    _, mode, options, _ = WRITTEN[format]
    return encoded(format, _in_mode(mode), **options)


def _in_mode(mode: str) -> Image.Image:
    if mode == "F":
        return Image.fromarray((GREY / 255).astype(np.float32))
    if mode in ("L", "1"):
        return Image.fromarray(GREY).convert(mode)
    return Image.fromarray(BASE).quantize(200) if mode == "P" else Image.fromarray(BASE).convert(mode)


def _changed(data: bytes, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    changed = bytearray(data)
    for at in rng.integers(0, len(data), 1 + 3 * seed):
        changed[at] = rng.integers(256)
    return bytes(changed)


def _stored(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels as a file of this EXIF orientation stores them, by its definition: 6, for one, says that the first row of
    the file is the right side of the picture, and the first column its top."""
    sideways = pixels.transpose(1, 0, 2) if orientation in (5, 6, 7, 8) else pixels
    rows = -1 if orientation in (3, 4, 6, 7) else 1
    columns = -1 if orientation in (2, 3, 7, 8) else 1
    return np.ascontiguousarray(sideways[::rows, ::columns])


def _png(name: str, image: Image.Image, **options: Any) -> Iterator[Case]:
    shown = np.asarray(image.convert("RGB")) / 255
    yield Case(f"{name} PNG", written("a.png", encoded("PNG", image, **options)), shown, page=True)
    if not options:
        yield Case(f"{name} Pillow", lambda folder: image.copy(), shown)


def _grey(values: np.ndarray) -> np.ndarray:
    return values[..., None].repeat(3, 2)


def _profile(space: bytes) -> bytes:
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    made[16:20] = space
    return bytes(made)


def _folder(folder: Path) -> Path:
    (folder / "a.png").mkdir()
    return folder / "a.png"


def _link(folder: Path) -> Path:
    (folder / "a.png").symlink_to(folder / "absent.png")
    return folder / "a.png"


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "a.png")
    return folder / "a.png"

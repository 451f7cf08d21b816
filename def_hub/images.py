"""The border: files, Pillow images and arrays on one side, float tensors `[B,3,H,W]` in `[0,1]` on the other.

This is the only place that knows 8-bit values, alpha, palettes, EXIF orientation and file formats.
"""

import io
import os
import struct
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

ImageLike = str | Path | Image.Image | np.ndarray | Tensor

MIN_SIDE = 8  # pixels; below this a feature pyramid with three levels has nothing to look at
MAX_PIXELS = 50_000_000  # bound on one picture, checked before it is decoded

SUFFIXES = (".png", ".webp", ".jpg", ".jpeg", ".tif", ".tiff")  # what `save_image` writes
_READABLE = (*SUFFIXES, ".bmp", ".gif", ".ppm", ".pgm")  # which files of a folder count as pictures

# Pillow decodes 16-bit colour to the high byte. Decoded with the opposite byte order it hands out the low
# byte of the same samples, so two passes give all 16 bits without a second decoder.
_OTHER_BYTE = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBX", "RGBA")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B" if np.little_endian else "L"))
}
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


class UnreadableImage(ValueError):
    """A picture that cannot be decoded. `file`: the name of its file, empty where it did not come as one."""

    def __init__(self, label: str, error: BaseException, file: str = "") -> None:
        super().__init__(f"{label}: not a readable picture ({_reason(error)})")
        self.file = file


def list_pictures(folder: str | Path) -> list[Path]:
    """The files of a folder that look like pictures by their suffix, sorted, without hidden ones."""
    found = (path for path in Path(folder).iterdir() if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in found if path.suffix.lower() in _READABLE)


def to_tensor(image: ImageLike, name: str = "image") -> Tensor:
    """One picture as `[1,3,H,W]`, float32 in `[0,1]`.

    Files and Pillow images are turned upright (EXIF), laid over white where they are transparent and
    converted to RGB; 16-bit grey and RGB keep their precision. Arrays are `HxW`, `HxWx1`, `HxWx3` or `HxWx4`,
    of uint8, uint16 or float in `[0,1]`; tensors are `[3,H,W]`, `[1,3,H,W]` or `[1,H,W]`, of uint8 or float
    in `[0,1]`.

    Raises `FileNotFoundError` for a missing file, `TypeError` for another kind of object and `ValueError` for
    a file that is not a picture, a wrong shape or range, a side under `MIN_SIDE` or more than `MAX_PIXELS`
    pixels; each message starts with `name`.
    """
    if isinstance(image, str | Path):
        return _from_file(Path(image), name)
    if isinstance(image, Image.Image):
        return _from_pil(image, name)
    if isinstance(image, np.ndarray):
        return _from_array(image, name)
    if isinstance(image, Tensor):
        return _from_tensor(image, name)
    raise TypeError(f"{name}: expected a path, a Pillow image, an array or a tensor, got {type(image).__name__}")


def to_list(images: ImageLike | Sequence[ImageLike], name: str = "image") -> list[Tensor]:
    """One picture, a sequence of them, a tensor `[B,3,H,W]` or an array `[B,H,W,C]` as a list of `[1,3,H,W]`.

    Raises as `to_tensor` does, and `ValueError` for an empty sequence.
    """
    if isinstance(images, Tensor | np.ndarray):
        items: Sequence[ImageLike] = list(images) if images.ndim == 4 else [images]
    elif isinstance(images, str | Path | Image.Image):
        items = [images]
    elif isinstance(images, Sequence):
        items = images
    else:
        return [to_tensor(images, name)]
    if not items:
        raise ValueError(f"{name}: expected at least one picture, got an empty {type(images).__name__}")
    if len(items) == 1:
        return [to_tensor(items[0], name)]
    return [to_tensor(item, f"{name} {index}") for index, item in enumerate(items, start=1)]


def to_pil(tensor: Tensor) -> Image.Image:
    """A tensor `[1,3,H,W]`, `[3,H,W]` (→ RGB), `[1,1,H,W]` or `[1,H,W]` (→ L), clipped and rounded to 8 bits.

    Raises `ValueError` for another shape and for values that are not finite.
    """
    pixels = _planes(tensor).mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def to_array16(tensor: Tensor) -> np.ndarray:
    """The same shapes as `to_pil` takes, as a `HxWx3` or `HxWx1` array of uint16, rounded to 16 bits."""
    scaled = _planes(tensor).double().mul(65535).round()  # float32 products are not exact at this scale
    return scaled.permute(1, 2, 0).contiguous().numpy().astype(np.uint16)


def save_image(image: Tensor | Image.Image, path: str | Path, bits: int = 8, compression: int = 6) -> None:
    """Write a picture completely or not at all: to a temporary name beside `path`, then renamed.

    The suffix decides the format: `.png`, `.webp` (lossless), `.jpg` (quality 95, full colour resolution) or
    `.tif`. `bits=16` needs a tensor and `.png`; `compression` is that of a `.png`, 0 … 9. Raises `ValueError` for any
    other suffix or combination, `OSError` when the folder cannot be written.
    """
    path = Path(path)
    suffix = check_suffix(path)
    if bits not in (8, 16):
        raise ValueError(f"bits: expected 8 or 16, got {bits!r}")
    if bits == 16 and (suffix != ".png" or not isinstance(image, Tensor)):
        raise ValueError(f"{path}: 16 bits can be written from a tensor to .png only")

    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{threading.get_ident()}{path.suffix}")
    try:
        if bits == 16:
            assert isinstance(image, Tensor)
            temporary.write_bytes(_png16(to_array16(image), compression))
        else:
            _save8(image if isinstance(image, Image.Image) else to_pil(image), temporary, suffix, compression)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def shrink(x: Tensor, scale: int = 4) -> Tensor:
    """`x` `[1,3,H,W]` as an 8-bit picture that Pillow itself made `scale` times smaller.

    Benchmarks define their LR files by this very call, whose 8-bit rounding between the two passes
    `operators` leaves out. Raises `ValueError` where a side is not a multiple of `scale`.
    """
    height, width = x.shape[-2:]
    if height % scale or width % scale:
        raise ValueError(f"both sides must be multiples of {scale}, got {width}×{height}")
    small = to_pil(x).resize((width // scale, height // scale), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(small) / np.float32(255)).permute(2, 0, 1)[None].contiguous()


def check_suffix(path: Path) -> str:
    """The lower-case suffix of a file to be written; raises `ValueError` if `save_image` does not know it."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: expected a file name ending in {', '.join(SUFFIXES)}")
    return suffix


def drawn_mask(drawing: bytes, height: int, width: int) -> Tensor:
    """Where a PNG drawing is opaque, as a mask `[1,height,width]` of zeros and ones.

    Raises `ValueError` for anything but a PNG with transparency, and for more than `MAX_PIXELS` pixels.
    """
    try:
        with Image.open(io.BytesIO(drawing), formats=["PNG"]) as opened:
            _check_size(*opened.size, "drawing")
            if "A" not in opened.getbands():
                raise ValueError(f"drawing: expected a transparent PNG, got mode {opened.mode}")
            alpha = opened.getchannel("A").resize((width, height), Image.Resampling.NEAREST)
    except _UNREADABLE as error:
        raise UnreadableImage("drawing", error) from error
    return torch.from_numpy((np.asarray(alpha) >= 128).astype(np.float32))[None]


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """`x` `[B,C,H,W]` grown at the right and the bottom until both sides are multiples of `multiple`.

    Reflection comes first because it continues texture; a side too short to be reflected that far (it has
    only `side - 1` pixels to give) is filled up with copies of its last line.
    """
    height, width = x.shape[-2:]
    right, bottom = -width % multiple, -height % multiple
    reflect_right, reflect_bottom = min(right, width - 1), min(bottom, height - 1)
    if reflect_right or reflect_bottom:
        x = F.pad(x, (0, reflect_right, 0, reflect_bottom), mode="reflect")
    if right > reflect_right or bottom > reflect_bottom:
        x = F.pad(x, (0, right - reflect_right, 0, bottom - reflect_bottom), mode="replicate")
    return x


def _check_size(width: int, height: int, name: str) -> None:
    if min(width, height) < MIN_SIDE:
        raise ValueError(f"{name}: expected at least {MIN_SIDE}×{MIN_SIDE} pixels, got {width}×{height}")
    if width * height > MAX_PIXELS:
        limit = MAX_PIXELS // 1_000_000
        raise ValueError(f"{name}: expected at most {limit} million pixels, got {width}×{height}")


def _from_file(path: Path, name: str) -> Tensor:
    label = f"{name} {path}"
    if not path.exists():
        raise FileNotFoundError(f"{label}: no such file")
    if not path.is_file():
        raise ValueError(f"{label}: expected a picture file, got a folder")
    try:
        opened = Image.open(path)
    except _UNREADABLE as error:
        raise UnreadableImage(label, error, path.name) from error
    with opened:
        return _from_pil(opened, label)


def _from_pil(image: Image.Image, name: str) -> Tensor:
    _check_size(*image.size, name)
    try:
        pixels = _from_wide_file(image)
        if pixels is None:
            pixels = _pixels(ImageOps.exif_transpose(image), name)
    except _UNREADABLE as error:
        if str(error).startswith(name):  # it says what was expected
            raise ValueError(str(error)) from error
        raise UnreadableImage(name, error, Path(getattr(image, "filename", "")).name) from error
    return _finish(pixels, name)


def _reason(error: BaseException) -> str:
    """The first line of an error, without the memory address that Pillow puts into some of them."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "unknown format"
    return (str(error).splitlines() or [type(error).__name__])[0]


def _pixels(image: Image.Image, name: str) -> np.ndarray:
    """An upright Pillow image as a float array `HxWx1`, `HxWx3` or `HxWx4` in `[0,1]`."""
    if image.mode.startswith("I"):  # I;16, I;16B, or 16-bit values held in 32-bit integers
        values = np.asarray(image).astype(np.float64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"{name}: expected 16-bit grey values, got {values.min():.0f} to {values.max():.0f}")
        return values[..., None] / 65535
    if image.mode == "F":
        return np.asarray(image)[..., None]
    transparent = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    return np.asarray(image.convert("RGBA" if transparent else "RGB")) / np.float32(255)


def _from_wide_file(image: Image.Image) -> np.ndarray | None:
    """All 16 bits of a file with 16-bit colour that has not been decoded yet; None for every other image."""
    tiles = getattr(image, "tile", None)
    path = getattr(image, "filename", "")
    if not tiles or not path or not Path(path).is_file():
        return None
    with Image.open(path) as low:
        if len(low.tile) != len(tiles) or not all(_raw_mode(tile.args) in _OTHER_BYTE for tile in low.tile):
            return None
        low.tile = [tile._replace(args=_with_other_byte(tile.args)) for tile in low.tile]
        low_bytes = np.asarray(ImageOps.exif_transpose(low))
        high_bytes = np.asarray(ImageOps.exif_transpose(image))
    return (high_bytes.astype(np.float64) * 256 + low_bytes) / 65535


def _raw_mode(args: object) -> str:
    return args if isinstance(args, str) else str(args[0]) if isinstance(args, tuple) and args else ""


def _with_other_byte(args: object) -> str | tuple:
    other = _OTHER_BYTE[_raw_mode(args)]
    return (other, *args[1:]) if isinstance(args, tuple) else other


def _from_array(array: np.ndarray, name: str) -> Tensor:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise ValueError(f"{name}: expected an array HxW, HxWx1, HxWx3 or HxWx4, got shape {array.shape}")
    _check_size(array.shape[1], array.shape[0], name)
    if array.dtype == np.uint8:
        return _finish(array / np.float32(255), name)
    if array.dtype == np.uint16:
        return _finish(array / np.float64(65535), name)
    if np.issubdtype(array.dtype, np.floating):
        return _finish(array, name)
    raise TypeError(f"{name}: expected an array of uint8, uint16 or float, got {array.dtype}")


def _from_tensor(tensor: Tensor, name: str) -> Tensor:
    shape = tuple(tensor.shape)
    planes = tensor[0] if tensor.ndim == 4 and shape[0] == 1 else tensor
    if planes.ndim != 3 or planes.shape[0] not in (1, 3):
        raise ValueError(f"{name}: expected a tensor [3,H,W], [1,3,H,W] or [1,H,W], got shape {list(shape)}")
    if not (tensor.dtype == torch.uint8 or tensor.is_floating_point()):
        raise TypeError(f"{name}: expected a tensor of uint8 or float, got {tensor.dtype}")
    _check_size(planes.shape[2], planes.shape[1], name)
    values = planes.detach().cpu()
    values = values.float() / 255 if values.dtype == torch.uint8 else values.float()
    return _finish(values.permute(1, 2, 0).numpy(), name)


def _finish(pixels: np.ndarray, name: str) -> Tensor:
    """Float `HxWxC` → `[1,3,H,W]`: range checked, alpha laid over white, grey repeated."""
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= -1e-5 and high <= 1 + 1e-5):  # also refuses NaN; the slack is rounding of a caller's own arithmetic
        raise ValueError(f"{name}: expected values from 0 to 1, got {low:.4g} to {high:.4g}")
    if pixels.shape[2] == 4:
        colour, alpha = pixels[..., :3], pixels[..., 3:]
        pixels = colour * alpha + (1 - alpha)
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)
    return torch.from_numpy(planes).clone().clamp_(0, 1)[None]


def _planes(tensor: Tensor) -> Tensor:
    """`[1,C,H,W]` or `[C,H,W]`, C of 1 or 3 → `[C,H,W]` float32 on the CPU, clipped to `[0,1]`."""
    planes = tensor[0] if tensor.ndim == 4 and tensor.shape[0] == 1 else tensor
    if planes.ndim != 3 or planes.shape[0] not in (1, 3):
        raise ValueError(f"expected a tensor [1,3,H,W], [3,H,W], [1,1,H,W] or [1,H,W], got {list(tensor.shape)}")
    planes = planes.detach().cpu().float()
    if not torch.isfinite(planes).all():
        raise ValueError("expected finite values, got NaN or infinity")
    return planes.clamp(0, 1)


def _save8(image: Image.Image, path: Path, suffix: str, compression: int) -> None:
    if suffix == ".webp":
        image.save(path, lossless=True, method=4)
    elif suffix in (".jpg", ".jpeg"):
        image.convert("RGB").save(path, quality=95, subsampling=0)
    elif suffix in (".tif", ".tiff"):
        image.save(path, compression="tiff_lzw")
    else:
        image.save(path, compress_level=compression)


def _png16(pixels: np.ndarray, compression: int) -> bytes:
    """A PNG file of `HxWx1` or `HxWx3` uint16, which Pillow cannot write; rows are stored as differences."""
    height, width, channels = pixels.shape
    rows = pixels.astype(">u2").view(np.uint8).reshape(height, -1)
    above = np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])
    filtered = np.concatenate([np.full((height, 1), 2, np.uint8), rows - above], axis=1)  # 2: PNG's filter "up"

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, 0 if channels == 1 else 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(filtered.tobytes(), compression)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body

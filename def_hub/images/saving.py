"""Pictures to files, and to 8 and 16 bits."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from def_hub import png
from def_hub.colour import srgb_profile
from def_hub.colour_space import ColourSpace
from def_hub.metadata import NO_METADATA, Metadata
from def_hub.writing import replacing

SUFFIXES = (".png", ".webp", ".jpg", ".jpeg", ".tif", ".tiff")  # what `save_image` writes


def check_suffix(path: Path, bits: int = 8) -> str:
    """The lower-case suffix of a file to be written; raises `ValueError` if `save_image` does not know it."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: expected a file name ending in {', '.join(SUFFIXES)}")
    if bits not in (8, 16):
        raise ValueError(f"bits: expected 8 or 16, got {bits!r}")
    if bits == 16 and suffix != ".png":
        raise ValueError(f"{path}: 16 bits can be written from a tensor to .png only")
    return suffix


def check_writable(path: Path) -> None:
    """Raise `OSError` now rather than after minutes of computing, for a folder, a file where a folder has to be, a
    folder that cannot be written, or a name that the file system does not allow. Creates nothing."""
    if os.path.isdir(path):  # `Path.is_dir` fails on names that are too long
        raise IsADirectoryError(f"{path}: is a folder, expected a file name")
    absolute = path.absolute()
    folder = next(parent for parent in absolute.parents if os.path.lexists(parent))
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{path}: cannot be written, {folder} is not a folder that allows it")
    for part in absolute.relative_to(folder).parts:
        try:
            os.lstat(folder / part)
        except FileNotFoundError:
            continue
        except OSError as error:
            reason = "the name is too long" if error.errno == errno.ENAMETOOLONG else error.strerror
            raise OSError(f"{path}: cannot be written, {reason}") from error


def save_image(
    image: Tensor | Image.Image,
    path: str | Path,
    bits: int = 8,
    compression: int = 6,
    metadata: Metadata = NO_METADATA,
    space: ColourSpace | None = None,
) -> None:
    """Write a picture completely or not at all: to a temporary name beside `path`, then renamed.

    The suffix decides the format: `.png`, `.webp` (lossless), `.jpg` (quality 95, full colour resolution, transparent
    parts over white) or `.tif`. `bits=16` needs a tensor and `.png`; `compression` is that of a `.png`, 0 … 9.

    Colours are tagged as sRGB. `space=read_photo(file).space` converts a tensor of colours (`output_type="pt"`) to the
    space of that file, and tags it with the file's profile. Everything is computed in sRGB: what a wider space could
    show beyond it is cut off there, channel by channel, and it is the sRGB picture that agrees with the input.

    Raises `ValueError` for any other suffix or combination and for a space that cannot be written (CMYK, LAB, grey,
    tables for reading only), `OSError` when the folder cannot be written.
    """
    path = Path(path)
    suffix = check_suffix(path, bits)
    if bits == 16 and not isinstance(image, Tensor):
        raise ValueError(f"{path}: 16 bits can be written from a tensor to .png only")
    profile = srgb_profile()
    if space is not None:
        if not isinstance(image, Tensor):
            raise ValueError(
                f'{path}: another colour space than sRGB can be written from a tensor only (output_type="pt")'
            )
        space.check(str(path), bits)
        image, profile = _in_space(image, space), space.tag
    with replacing(path) as temporary:
        if bits == 16:
            assert isinstance(image, Tensor)
            pixels = to_array16(image)
            temporary.write_bytes(png.write16(pixels, compression, profile, metadata.exif, metadata.dpi))
        else:
            picture = image if isinstance(image, Image.Image) else to_pil(image)
            _save8(picture, temporary, suffix, compression, metadata, profile)


def to_pil(tensor: Tensor) -> Image.Image:
    """A tensor `[1,C,H,W]` or `[C,H,W]`, clipped and rounded to 8 bits: C of 1 → L, 3 → RGB, 4 → RGBA.

    Colours are tagged as sRGB, which `Image.save` writes into the file. Raises `ValueError` for another shape and for
    values that are not finite.
    """
    pixels = _planes(tensor).mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    if pixels.shape[2] == 1:
        return Image.fromarray(pixels[..., 0])
    image = Image.fromarray(pixels)
    image.info["icc_profile"] = srgb_profile()
    return image


def to_array16(tensor: Tensor) -> np.ndarray:
    """The same shapes as `to_pil` takes, as a `HxWxC` array of uint16, rounded to 16 bits."""
    scaled = _planes(tensor).double().mul(65535).round()  # float32 products are not exact at this scale
    return scaled.permute(1, 2, 0).contiguous().numpy().astype(np.uint16)


def with_alpha(picture: Tensor, alpha: Tensor | None) -> Tensor:
    """`picture` `[3,H,W]` with its transparency `[1,H,W]`, where it has some, as a fourth channel."""
    return picture if alpha is None else torch.cat((picture.cpu(), alpha.cpu()))


def _planes(tensor: Tensor) -> Tensor:
    """`[1,C,H,W]` or `[C,H,W]`, C of 1, 3 or 4 → `[C,H,W]` float32 on the CPU, clipped to `[0,1]`."""
    planes = tensor[0] if tensor.ndim == 4 and tensor.shape[0] == 1 else tensor
    if planes.ndim != 3 or planes.shape[0] not in (1, 3, 4):
        raise ValueError(f"expected a tensor [1,C,H,W] or [C,H,W] of 1, 3 or 4 channels, got {list(tensor.shape)}")
    planes = planes.detach().cpu().float()
    if not torch.isfinite(planes).all():
        raise ValueError("expected finite values, got NaN or infinity")
    return planes.clamp(0, 1)


def _in_space(tensor: Tensor, space: ColourSpace) -> Tensor:
    """sRGB `[1,C,H,W]` or `[C,H,W]` → `[C,H,W]` of another space, C of 3 or 4; transparency stays."""
    planes = _planes(tensor)
    if len(planes) == 1:
        raise ValueError("a colour space other than sRGB: expected 3 or 4 channels, got 1")
    converted = space.from_srgb(planes[:3].permute(1, 2, 0).numpy())
    return torch.cat((torch.from_numpy(converted).permute(2, 0, 1), planes[3:]))


def _save8(image: Image.Image, path: Path, suffix: str, compression: int, metadata: Metadata, profile: bytes) -> None:
    options = metadata.options()
    if image.mode in ("RGB", "RGBA"):
        options["icc_profile"] = profile
    if suffix == ".webp":
        image.save(path, lossless=True, method=4, **options)
    elif suffix in (".jpg", ".jpeg"):
        if image.mode == "RGBA":
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image.convert("RGB").save(path, quality=95, subsampling=0, **options)
    elif suffix in (".tif", ".tiff"):
        # Pillow cannot write the camera's part of EXIF beside compressed pixels
        image.save(path, compression="raw" if metadata.exif else "tiff_lzw", **options)
    else:
        image.save(path, compress_level=compression, **options)

"""The border: files, Pillow images and arrays on one side, float tensors `[B,3,H,W]` in `[0,1]` on the other.

This is the only place that opens pictures, for inference, training, page and command line alike, and that knows 8-bit
values, alpha, palettes, orientation, colour profiles and file formats. Inside, colours are sRGB.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from def_hub import png
from def_hub.colour import colours_of, srgb_profile, through_tables
from def_hub.colour_space import ColourSpace
from def_hub.decoding import decoded, values_of
from def_hub.formats import MAX_PIXELS, MIN_SIDE, UNREADABLE, UnreadableImage, check_size, is_picture, open_header
from def_hub.metadata import NO_METADATA, Metadata
from def_hub.writing import replacing

__all__ = [
    "MAX_PIXELS",
    "MIN_SIDE",
    "SUFFIXES",
    "ColourSpace",
    "ImageLike",
    "Photo",
    "UnreadableImage",
    "check_suffix",
    "check_writable",
    "drawn_mask",
    "list_pictures",
    "open_rgb",
    "pad_to_multiple",
    "read_photo",
    "resized_part",
    "save_image",
    "shrink",
    "sort_files",
    "to_array16",
    "to_photo",
    "to_photos",
    "to_pil",
    "to_tensor",
    "with_alpha",
]

ImageLike = str | Path | Image.Image | np.ndarray | Tensor

SUFFIXES = (".png", ".webp", ".jpg", ".jpeg", ".tif", ".tiff")  # what `save_image` writes


@dataclass(frozen=True)
class Photo:
    """A picture as its file holds it, upright and in sRGB.

    picture: `[1,3,H,W]`, float32 in `[0,1]`; where it is transparent, colours that continue the opaque ones around.
    alpha: `[1,1,H,W]`, 0 where it is transparent; None where it is opaque everywhere.
    metadata: date, camera, place and resolution.
    space: what its file's numbers are in, for a result that is to be kept in it: see `save_image`.
    reduced: how many times smaller than its file, along each side, a JPEG was decoded: 1, 2, 4 or 8.
    """

    picture: Tensor
    alpha: Tensor | None = None
    metadata: Metadata = NO_METADATA
    reduced: int = 1
    space: ColourSpace = ColourSpace()

    def over_white(self) -> Tensor:
        """`[1,3,H,W]` as a white page shows it."""
        return self.picture if self.alpha is None else self.picture * self.alpha + (1 - self.alpha)


def list_pictures(folder: str | Path) -> list[Path]:
    """The pictures of a folder, sorted, without hidden files: see `sort_files`."""
    return sort_files(folder)[0]


def sort_files(folder: str | Path) -> tuple[list[Path], list[Path]]:
    """The files of a folder that are pictures, and all others, sorted, without hidden ones.

    A picture is what has the suffix of a format that can be opened, or begins like one of the common formats.
    """
    found = sorted(path for path in Path(folder).iterdir() if not path.is_dir() and not path.name.startswith("."))
    known = [path.is_file() and is_picture(path) for path in found]  # a pipe is not, nor is a link to nothing
    return (
        [path for path, yes in zip(found, known, strict=True) if yes],
        [path for path, yes in zip(found, known, strict=True) if not yes],
    )


def read_photo(path: str | Path, name: str = "image", shorter_side: int | None = None) -> Photo:
    """Open a file: any format that Pillow decodes itself, and HEIC where `pillow-heif` is installed.

    Of an animation, and of a file with several pages, the first picture is taken, and a warning is logged. Texts and
    colour profiles that are too large are left out.

    Args:
        name: what the picture is called in messages. shorter_side: pixels that are enough; a JPEG is then decoded at a
            half, a quarter or an eighth of its size as long as its shorter side keeps that many.

    Raises:
        FileNotFoundError: for a missing file.
        ValueError: for a folder, a file that is no picture, a side under `MIN_SIDE`, more than `MAX_PIXELS` pixels.
    """
    path = Path(path)
    label = f"{name} {path}".strip()
    if not os.path.exists(path):  # `Path.exists` fails on names that are too long
        raise FileNotFoundError(f"{label}: no such file")
    if not path.is_file():
        raise ValueError(f"{label}: expected a picture file, got {'a folder' if path.is_dir() else 'a device or pipe'}")
    with open_header(path, label) as image:
        whole = image.width
        if shorter_side is not None:
            check_size(*image.size, label)
            factor = shorter_side / min(image.size)
            image.draft(None, (int(image.width * factor), int(image.height * factor)))
        reduced = round(whole / image.width)
        return replace(_photo(image, label), reduced=reduced)


def open_rgb(path: str | Path, name: str = "") -> Image.Image:
    """A file as an 8-bit RGB image of Pillow, opened by the rules of `read_photo`, over white where transparent."""
    return to_pil(read_photo(path, name).over_white())


def to_tensor(image: ImageLike, name: str = "image") -> Tensor:
    """One picture as `[1,3,H,W]`, float32 in `[0,1]`.

    Files and Pillow images are turned upright (EXIF), converted to sRGB by their profile and laid over white where
    they are transparent; 16-bit grey and RGB keep their precision. See `read_photo` for files.
    Arrays are `HxW`, `HxWx1`, `HxWx3` or `HxWx4`, of uint8, uint16 or float in `[0,1]`.
    Tensors are `[3,H,W]`, `[1,3,H,W]` or `[1,H,W]`, of uint8 or float in `[0,1]`.

    Raises `FileNotFoundError` for a missing file, `TypeError` for another kind of object and `ValueError` for
    a file that is not a picture, a wrong shape or range, a side under `MIN_SIDE` or more than `MAX_PIXELS`
    pixels; each message starts with `name`.
    """
    return to_photo(image, name).over_white()


def to_photo(image: ImageLike, name: str = "image", shorter_side: int | None = None) -> Photo:
    """One picture in any of the forms, and with the errors, of `to_tensor`. shorter_side: of a file, see
    `read_photo`."""
    if isinstance(image, str | Path):
        return read_photo(image, name, shorter_side)
    if isinstance(image, Image.Image):
        return _photo(image, name)
    if isinstance(image, np.ndarray):
        return _from_array(image, name)
    if isinstance(image, Tensor):
        return _from_tensor(image, name)
    raise TypeError(f"{name}: expected a path, a Pillow image, an array or a tensor, got {type(image).__name__}")


def to_photos(
    images: ImageLike | Sequence[ImageLike], name: str = "image", shorter_side: int | None = None
) -> list[Photo]:
    """One picture, a sequence of them, a tensor `[B,3,H,W]` or an array `[B,H,W,C]` as a list.

    shorter_side: of files, see `read_photo`. Raises as `to_tensor` does, and `ValueError` for an empty sequence.
    """
    if isinstance(images, Tensor | np.ndarray):
        items: Sequence[ImageLike] = list(images) if images.ndim == 4 else [images]
    elif isinstance(images, str | Path | Image.Image):
        items = [images]
    elif isinstance(images, Sequence):
        items = images
    else:
        return [to_photo(images, name)]
    if not items:
        raise ValueError(f"{name}: expected at least one picture, got an empty {type(images).__name__}")
    if len(items) == 1:
        return [to_photo(items[0], name, shorter_side)]
    return [to_photo(item, f"{name} {index}", shorter_side) for index, item in enumerate(items, start=1)]


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


def resized_part(picture: Tensor, sides: Sequence[int], part: tuple[int, int, int, int]) -> Tensor:
    """Part of a picture `[1, C, H, W]` resized to `sides` (height, width), without computing the rest.

    Args:
        part: left, top, right and bottom in the resized picture; on its grid, so that the result is the same as that
            of resizing everything and cutting. Pillow's bicubic, antialiased, clipped to [0, 1].
    """
    (height, width), (left, top, right, bottom) = picture.shape[2:], part
    x, y = width / sides[1], height / sides[0]
    box = (left * x, top * y, min(right * x, width), min(bottom * y, height))
    size = (right - left, bottom - top)
    planes = [
        np.asarray(Image.fromarray(plane.numpy()).resize(size, Image.Resampling.BICUBIC, box=box))
        for plane in picture[0].float().cpu()
    ]
    return torch.from_numpy(np.stack(planes))[None].clamp(0, 1).to(picture.device)


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


def drawn_mask(drawing: bytes, height: int, width: int) -> Tensor:
    """Where a PNG drawing is opaque, as a mask `[1,height,width]` of zeros and ones.

    Raises `ValueError` for anything but a PNG with transparency, and for more than `MAX_PIXELS` pixels.
    """
    try:
        with Image.open(io.BytesIO(drawing), formats=["PNG"]) as opened:
            check_size(*opened.size, "drawing")
            if "A" not in opened.getbands():
                raise ValueError(f"drawing: expected a transparent PNG, got mode {opened.mode}")
            alpha = opened.getchannel("A").resize((width, height), Image.Resampling.NEAREST)
    except UNREADABLE as error:
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


def _photo(image: Image.Image, name: str) -> Photo:
    check_size(*image.size, name)
    upright, pixels, metadata = decoded(image, name)
    try:
        space = ColourSpace.of(upright)
        if pixels is None:
            upright = through_tables(upright)
            pixels = values_of(upright, name)
        if colours := colours_of(upright):
            opaque = min(pixels.shape[2], 3)
            pixels = np.concatenate([colours.to_srgb(pixels[..., :opaque]), pixels[..., opaque:]], 2)
    except UNREADABLE as error:
        if str(error).startswith(name):  # it says what was expected
            raise ValueError(str(error)) from error
        raise UnreadableImage(name, error, Path(getattr(image, "filename", "")).name) from error
    return replace(_finish(pixels, name, metadata), space=space)


def _from_array(array: np.ndarray, name: str) -> Photo:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise ValueError(f"{name}: expected an array HxW, HxWx1, HxWx3 or HxWx4, got shape {array.shape}")
    check_size(array.shape[1], array.shape[0], name)
    if array.dtype == np.uint8:
        return _finish(array / np.float32(255), name)
    if array.dtype == np.uint16:
        return _finish(array / np.float64(65535), name)
    if np.issubdtype(array.dtype, np.floating):
        return _finish(array, name)
    raise TypeError(f"{name}: expected an array of uint8, uint16 or float, got {array.dtype}")


def _from_tensor(tensor: Tensor, name: str) -> Photo:
    shape = tuple(tensor.shape)
    planes = tensor[0] if tensor.ndim == 4 and shape[0] == 1 else tensor
    if planes.ndim != 3 or planes.shape[0] not in (1, 3):
        raise ValueError(f"{name}: expected a tensor [3,H,W], [1,3,H,W] or [1,H,W], got shape {list(shape)}")
    if not (tensor.dtype == torch.uint8 or tensor.is_floating_point()):
        raise TypeError(f"{name}: expected a tensor of uint8 or float, got {tensor.dtype}")
    if tensor.layout != torch.strided or tensor.is_meta:
        raise TypeError(f"{name}: expected a dense tensor with values, got {tensor.layout} on {tensor.device}")
    check_size(planes.shape[2], planes.shape[1], name)
    values = planes.detach().cpu()
    values = values.float() / 255 if values.dtype == torch.uint8 else values.float()
    return _finish(values.permute(1, 2, 0).numpy(), name)


def _finish(pixels: np.ndarray, name: str, metadata: Metadata = NO_METADATA) -> Photo:
    """Float `HxWxC`, C of 1, 3 or 4: range checked, grey repeated, transparent colours continued."""
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= -1e-5 and high <= 1 + 1e-5):  # also refuses NaN; the slack is rounding of a caller's own arithmetic
        raise ValueError(f"{name}: expected values from 0 to 1, got {low:.4g} to {high:.4g}")
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    copied = np.array(pixels.transpose(2, 0, 1), dtype=np.float32, order="C")  # the caller's memory is not shared
    planes = torch.from_numpy(copied).clamp_(0, 1)[None]
    if planes.shape[1] == 3 or bool((planes[:, 3] == 1).all()):
        return Photo(planes[:, :3].contiguous(), metadata=metadata)
    colour, alpha = planes[:, :3], planes[:, 3:]
    return Photo(_continued(colour, (alpha > 0).float()), alpha.contiguous(), metadata)


def _continued(colour: Tensor, known: Tensor) -> Tensor:
    """`colour` `[1,3,H,W]` with smooth colours where `known` `[1,1,H,W]` is 0: means of ever larger squares around."""
    height, width = colour.shape[-2:]
    if known.all() or not known.any():
        return colour
    weight = F.avg_pool2d(known, 2, ceil_mode=True)
    mean = F.avg_pool2d(colour * known, 2, ceil_mode=True) / weight.clamp_min(1e-6)
    coarse = _continued(mean, (weight > 0).float())
    return torch.where(known > 0, colour, F.interpolate(coarse, (height, width), mode="bilinear"))


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

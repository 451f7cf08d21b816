"""Files, Pillow images, arrays and tensors → float tensors `[B,3,H,W]` in `[0,1]`, upright and in sRGB."""

from __future__ import annotations

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

from def_hub.colour import colours_of, through_tables
from def_hub.colour_space import ColourSpace
from def_hub.decoding import decoded, values_of
from def_hub.formats import UNREADABLE, UnreadableImage, check_size, is_picture, open_header
from def_hub.images.saving import to_pil
from def_hub.metadata import NO_METADATA, Metadata

ImageLike = str | Path | Image.Image | np.ndarray | Tensor


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

"""A photograph that is too large to be enlarged: a part of it, or a shrunk copy, as a file of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

import torch

from def_hub import images
from def_hub.crop import Crop, Size, shrunk
from def_hub.service.uploads import MAX_PHOTO_PIXELS, Upload, check_photo


def smaller(upload: Upload, folder: Path, crop: Crop | None = None, size: Size | None = None) -> Upload:
    """Write a part of a photograph (the whole without `crop`), shrunk to `size` (not at all without), as a PNG.

    folder: where it is kept, in a folder of its own, under the name of the photograph.

    Raises `ValueError` for a part that leaves the photograph, and where too many pixels are left.
    """
    photo = images.read_photo(upload.path)
    made = [f"{upload.width}x{upload.height}"]
    if crop is not None:
        photo = crop.of(photo)
        made.append(f"the part {crop}")
    if size is not None:
        photo = shrunk(photo, size)
        made.append(f"shrunk to {size[1]}x{size[0]}")
    if photo.picture[0, 0].numel() > MAX_PHOTO_PIXELS:
        raise ValueError(f"crop: at most {MAX_PHOTO_PIXELS / 1e6:g} million pixels are enlarged here, got {crop}")
    picture = photo.picture if photo.alpha is None else torch.cat((photo.picture, photo.alpha), 1)
    path = Path(mkdtemp(dir=folder)) / f"{upload.path.stem[:80]}.png"
    images.save_image(picture, path, compression=1)
    return replace(check_photo(path), source=upload, made=", ".join(made))

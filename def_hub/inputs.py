"""The pipeline's arguments → one `Request` per image: the image, its mask, its references and their masks. Everything
is checked here, before anything is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub.images import ImageLike, Photo, to_photos, to_tensor
from def_hub.observation.jpeg import JpegFile, bytes_of, jpeg_of
from def_hub.reference.library import Choice, ReferenceLibrary
from def_hub.reference.matching import CELL
from def_hub.reference.matching.placement import Placement
from def_hub.reference.matching.pose import enough
from def_hub.reference.network import ReferenceNetwork
from def_hub.reference.picture import ReferencePicture

OneReference = ImageLike | ReferencePicture
ReferenceLike = OneReference | Sequence[OneReference] | Sequence[Sequence[ImageLike]] | None
"""Forms of the argument `reference`: none, one, several for all images, or one list for each image."""
MaskLike = ImageLike | Sequence[ImageLike | None] | Sequence[Sequence[ImageLike | None]] | None
"""Forms of the arguments `mask` and `reference_mask`, in the same order."""


@dataclass(frozen=True)
class Request:
    """One image to enlarge.

    image: `[1, 3, h, w]` in [0, 1]. Where it is transparent, its colours go on: white would leave a rim.
    references: its references, possibly none.
    allowed: `[1, 1, h, w]`, 1 where references may be used, else 0.
    file: what the image's JPEG file says; None where it was not asked for, for other files, and for pictures that no
        longer know their file.
    alpha: `[1, 1, h, w]`, 0 where the image is transparent; None where it is opaque everywhere.
    """

    image: Tensor
    references: tuple[ReferencePicture, ...]
    allowed: Tensor
    file: JpegFile | None = None
    alpha: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image."""
        return self.image.shape[-2], self.image.shape[-1]


def requests_of(
    image: ImageLike | Sequence[ImageLike],
    reference: ReferenceLike = None,
    mask: MaskLike = None,
    reference_mask: MaskLike = None,
    *,
    with_files: bool = False,
) -> list[Request]:
    """One request for each image. `DEFPipeline.__call__` describes the forms of the arguments.

    with_files: also read the coefficients of JPEG files, which costs another decoding.

    Raises:
        ValueError, TypeError: as `images.to_tensor`, and for numbers or sizes of masks that do not fit.
    """
    sources = _sources(image) if with_files else []  # first: decoding makes Pillow forget a file without a name
    photos = to_photos(image)
    count = len(photos)
    files = [None if s is None else jpeg_of(s) for s in sources] if with_files else [None] * count
    references = _per_image(reference, reference_mask, count, max(enough(p.picture.shape[2:]) for p in photos))
    masks = _listed(mask, count, "mask", "one for each of {} images")
    names = ["mask"] if count == 1 else [f"mask {number}" for number in range(1, count + 1)]
    return [
        Request(photo.picture, own, _allowed(m, photo.picture, name), file, photo.alpha)
        for photo, own, m, name, file in zip(photos, references, masks, names, files, strict=True)
    ]


def choices_of(
    library: ReferenceLibrary,
    image: ImageLike | Sequence[ImageLike],
    most: int,
    network: ReferenceNetwork,
    degradation: str,
) -> list[Choice]:
    """What a library offers for each image, `most` references at most; see `ReferenceLibrary.choose`."""
    batch = isinstance(image, list | tuple) or (isinstance(image, Tensor | np.ndarray) and image.ndim == 4)
    images: list[Any] = list(image) if batch else [image]  # type: ignore[arg-type]
    return [library.choose(one, most, network, degradation) for one in images]


def check_call(output_type: str, *callbacks: object) -> None:
    """Raise what `DEFPipeline.__call__` does for an unknown `output_type`, and for callbacks that are no functions."""
    if output_type not in ("pil", "np", "pt"):
        raise ValueError(f"output_type must be 'pil', 'np' or 'pt', got {output_type!r}")
    for name, callback in zip(("callback_on_step_end", "callback_on_stage"), callbacks, strict=True):
        if callback is not None and not callable(callback):
            raise TypeError(f"{name}: expected a function, got {type(callback).__name__}")


def generators_of(generator: Any, count: int) -> list[torch.Generator]:
    """One generator for each of `count` images. A single generator serves all images."""
    if generator is None:  # the seed comes from torch's global state, which advances and is not reseeded
        seed = int(torch.randint(2**63 - 1, (), dtype=torch.int64))
        return [torch.Generator().manual_seed(seed)] * count
    given = list(generator) if isinstance(generator, list | tuple) else [generator] * count
    for one in given:
        if not isinstance(one, torch.Generator):
            raise TypeError(f"generator: expected a torch.Generator or a list of them, got {type(one).__name__}")
    if len(given) != count:
        raise ValueError(f"generator: expected one for each of {count} images, got {len(given)}")
    return given


def _sources(image: ImageLike | Sequence[ImageLike]) -> list[Any]:
    """What the JPEG file of each image is read from. Tensors and arrays know no file."""
    if isinstance(image, Tensor | np.ndarray):
        return [None] * (len(image) if image.ndim == 4 else 1)
    given: list[Any] = list(image) if isinstance(image, list | tuple) else [image]
    return [None if isinstance(one, Tensor | np.ndarray) else bytes_of(one) for one in given]


def _per_image(
    reference: ReferenceLike, masks: MaskLike, count: int, shorter_side: int
) -> list[tuple[ReferencePicture, ...]]:
    """The references of each of `count` images. shorter_side: pixels that are enough (`matching.pose.enough`)."""
    if _is_nested(reference):
        assert isinstance(reference, list | tuple)
        if len(reference) != count or not all(r is None or isinstance(r, list | tuple) for r in reference):
            raise ValueError(f"reference: expected one list for each of {count} images, got {len(reference)} entries")
        if masks is not None and (not isinstance(masks, list | tuple) or len(masks) != count):
            raise ValueError(f"reference_mask: expected one list for each of {count} images, like reference")
        per_image: Any = masks or [None] * count
        return [_per_image(r or None, m, 1, shorter_side)[0] for r, m in zip(reference, per_image, strict=True)]
    masked = any(m is not None for m in (masks if isinstance(masks, list | tuple) else [masks]))
    if reference is None or (isinstance(reference, list | tuple) and not reference):
        if masked:
            raise ValueError("reference_mask: expected a reference for it, got none")
        return [()] * count
    given: Any = reference if isinstance(reference, list | tuple) else [reference]
    if all(isinstance(one, ReferencePicture) for one in given):  # with their own masks
        return [tuple(given)] * count
    # a mask has the size of the whole picture
    photos = to_photos(reference, "reference", None if masked else shorter_side)  # type: ignore[arg-type]
    each = _listed(masks, len(photos), "reference_mask", "one (or None) for each of {} references")
    shared = tuple(_reference(p, m, number) for number, (p, m) in enumerate(zip(photos, each, strict=True), start=1))
    return [shared] * count


def _listed(masks: MaskLike, count: int, name: str, expected: str) -> list[Any]:
    """One mask, or None, for each of `count` pictures. Raises ValueError for another number of masks."""
    if masks is None:
        return [None] * count
    given = list(masks) if isinstance(masks, list | tuple) else [masks]
    if len(given) != count:
        raise ValueError(f"{name}: expected {expected.format(count)}, got {len(given)}")
    return given


def _is_nested(reference: ReferenceLike) -> bool:
    """Whether there is one list of references for each image."""
    return isinstance(reference, list | tuple) and any(isinstance(r, list | tuple) for r in reference)


def _reference(photo: Photo, mask: Any, number: int) -> ReferencePicture:
    """A reference, cropped to whole cells, with its mask on the grid of cells."""
    picture = photo.over_white()
    usable = _mask(mask, picture, f"reference_mask {number}")
    height, width = (n // CELL * CELL for n in picture.shape[-2:])
    if usable is not None:  # a cell is usable only if all of its pixels are
        usable = (F.avg_pool2d(usable[..., :height, :width], CELL) == 1).float()
    placement = Placement().after_resizing(1 / photo.reduced, 1 / photo.reduced)
    return ReferencePicture(picture[..., :height, :width], usable, placement)


def _allowed(mask: Any, picture: Tensor, name: str) -> Tensor:
    """`[1, 1, h, w]`: the mask, or ones if there is none."""
    allowed = _mask(mask, picture, name)
    return torch.ones(1, 1, *picture.shape[-2:]) if allowed is None else allowed


def _mask(mask: Any, picture: Tensor, name: str) -> Tensor | None:
    """The mask of a picture `[1, 3, H, W]` as `[1, 1, H, W]` of 0 and 1. Raises ValueError for another size."""
    if mask is None:
        return None
    values = to_tensor(mask, name)
    if values.shape[-2:] != picture.shape[-2:]:
        expected, got = ("x".join(map(str, t.shape[-1:-3:-1])) for t in (picture, values))
        raise ValueError(f"{name}: expected the size {expected} of its picture, got {got}")
    return (values.mean(1, keepdim=True) > 0.5).float()

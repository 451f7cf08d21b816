"""What a caller hands to the pipeline, checked before any work and brought into one form: per image, its mask and its
references with theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub.images import ImageLike, to_list, to_tensor
from def_hub.reference.matching import CELL

References = ImageLike | Sequence[ImageLike] | Sequence[Sequence[ImageLike]] | None
Masks = ImageLike | Sequence[ImageLike | None] | Sequence[Sequence[ImageLike | None]] | None


@dataclass(frozen=True)
class Reference:
    """picture: `[1, 3, Hr, Wr]`, cut at the right and at the bottom to multiples of 4. usable: `[1, 1, Hr/4, Wr/4]`, 1
    where it may be used, else 0; None where all of it may.
    """

    picture: Tensor
    usable: Tensor | None = None

    def to(self, device: torch.device) -> Reference:
        """The same on a device."""
        return Reference(self.picture.to(device), None if self.usable is None else self.usable.to(device))


@dataclass(frozen=True)
class Request:
    """One image to enlarge. image: `[1, 3, h, w]`. allowed: `[1, 1, h, w]`, 1 where references may lend, else 0; None
    where they may everywhere.
    """

    image: Tensor
    references: tuple[Reference, ...] = ()
    allowed: Tensor | None = None


def requests_of(
    image: ImageLike | Sequence[ImageLike],
    reference: References = None,
    mask: Masks = None,
    reference_mask: Masks = None,
) -> list[Request]:
    """The images, each with what belongs to it; see `DEFPipeline.__call__` for the forms that the arguments may have.

    Raises:
        ValueError, TypeError: as `images.to_tensor`, and for masks that do not fit, named by their number.
    """
    images = to_list(image)
    references = _per_image(reference, reference_mask, len(images))
    masks = _listed(mask, len(images), "mask", "one for each of {} images")
    return [
        Request(picture, lent, _mask(m, picture, "mask" if len(images) == 1 else f"mask {number}"))
        for number, (picture, lent, m) in enumerate(zip(images, references, masks, strict=True), start=1)
    ]


def _per_image(reference: References, masks: Masks, count: int) -> list[tuple[Reference, ...]]:
    """The references of each of `count` images."""
    if _is_nested(reference):
        assert isinstance(reference, list | tuple)
        if len(reference) != count or not all(isinstance(r, list | tuple) for r in reference):
            raise ValueError(f"reference: expected one list for each of {count} images, got {len(reference)} entries")
        if masks is not None and (not isinstance(masks, list | tuple) or len(masks) != count):
            raise ValueError(f"reference_mask: expected one list for each of {count} images, like reference")
        per_image: Any = masks or [None] * count
        return [_per_image(r or None, m, 1)[0] for r, m in zip(reference, per_image, strict=True)]
    if reference is None or (isinstance(reference, list | tuple) and not reference):
        if any(m is not None for m in (masks if isinstance(masks, list | tuple) else [masks])):
            raise ValueError("reference_mask: there is no reference that it could belong to")
        return [()] * count
    pictures = to_list(reference, "reference")  # type: ignore[arg-type]
    given = _listed(masks, len(pictures), "reference_mask", "one (or None) for each of {} references")
    lent = tuple(_reference(p, m, number) for number, (p, m) in enumerate(zip(pictures, given, strict=True), start=1))
    return [lent] * count


def _listed(masks: Masks, count: int, name: str, expected: str) -> list[Any]:
    """One mask, or None, for each of `count` pictures."""
    if masks is None:
        return [None] * count
    given = list(masks) if isinstance(masks, list | tuple) else [masks]
    if len(given) != count:
        raise ValueError(f"{name}: expected {expected.format(count)}, got {len(given)}")
    return given


def _is_nested(reference: References) -> bool:
    return isinstance(reference, list | tuple) and any(isinstance(r, list | tuple) for r in reference)


def _reference(picture: Tensor, mask: Any, number: int) -> Reference:
    usable = _mask(mask, picture, f"reference_mask {number}")
    height, width = (n // CELL * CELL for n in picture.shape[-2:])
    if usable is not None:  # a cell that may not be seen wholly may not be used
        usable = (F.avg_pool2d(usable[..., :height, :width], CELL) == 1).float()
    return Reference(picture[..., :height, :width], usable)


def _mask(mask: Any, picture: Tensor, name: str) -> Tensor | None:
    """`[1, 1, H, W]` of 0 and 1 for a picture of that size."""
    if mask is None:
        return None
    values = to_tensor(mask, name)
    if values.shape[-2:] != picture.shape[-2:]:
        expected, came = ("x".join(map(str, t.shape[-1:-3:-1])) for t in (picture, values))
        raise ValueError(f"{name}: expected the size {expected} of its picture, got {came}")
    return (values.mean(1, keepdim=True) > 0.5).float()

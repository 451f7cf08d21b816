"""Results of any size up to ×8: one pass of the networks, which enlarge ×4, and then reduced, or two passes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, overload

import torch.nn.functional as F
from torch import Tensor

from def_hub.inputs import Request
from def_hub.observation.downsample import SCALE, Downsample
from def_hub.observation.observed import Observed
from def_hub.settings import Settings

Size = tuple[int, int]
"""(height, width)"""
LARGEST = 8
"""A third pass would enlarge what two passes invented."""


def target_size(image: Size, scale: int, size: tuple[int | None, int | None] | None = None) -> Size:
    """(height, width) of a result: `scale` times the image, or `size` (width, height), of which one may be None.

    Raises:
        TypeError: for a size that is no pair of whole numbers.
        ValueError: for a result that is smaller than the image along a side, or more than ×8.
    """
    if size is None:
        return image[0] * scale, image[1] * scale
    if not isinstance(size, list | tuple) or len(size) != 2 or size[0] is size[1] is None:
        raise TypeError(f"size: expected (width, height), one of which may be None, got {size!r}")
    for side in size:
        if side is not None and (isinstance(side, bool) or not isinstance(side, int)):
            raise TypeError(f"size: expected whole numbers of pixels, got {size!r}")
    width, height = size
    if width is None:
        assert height is not None
        width = max(round(image[1] * height / image[0]), 1)
    if height is None:
        height = max(round(image[0] * width / image[1]), 1)
    if not all(small <= large <= LARGEST * small for small, large in zip(image, (height, width), strict=True)):
        most = f"{image[1] * LARGEST}x{image[0] * LARGEST}"
        raise ValueError(f"size: expected {image[1]}x{image[0]} to {most} for this image, got {width}x{height}")
    return height, width


def size_between(image: Size, target: Size) -> Size | None:
    """(height, width) of the first of two passes; None where one suffices."""
    if all(large <= SCALE * small for small, large in zip(image, target, strict=True)):
        return None
    rows, columns = (max(math.ceil(large / SCALE), small) for small, large in zip(image, target, strict=True))
    return rows, columns


def operator_between(operator: Downsample, large: Size, small: Size) -> Downsample:
    """The networks' own `operator` where they enlarge to that size, or one of its kernel."""
    same = large == (SCALE * small[0], SCALE * small[1])
    return operator if same else Downsample.between(large, small, operator.kernel)


@overload
def reduced(x: Tensor, target: Size) -> Tensor: ...
@overload
def reduced(x: None, target: Size) -> None: ...
def reduced(x: Tensor | None, target: Size) -> Tensor | None:
    """`x` `[..., H, W]` shrunk to `target` with antialiasing; itself where it has that size, or is nothing."""
    if x is None or tuple(x.shape[-2:]) == target:
        return x
    return Downsample.between((x.shape[-2], x.shape[-1]), target).forward(x)


def enlarged_alpha(alpha: Tensor | None, target: Size) -> Tensor | None:
    """The transparency `[1, 1, h, w]` of an image as that of its result, `[1, H, W]`; None where there is none."""
    if alpha is None:
        return None
    small = alpha.shape[-2], alpha.shape[-1]
    return Downsample.between(target, small).upsample(alpha)[0].clamp(0, 1)


def in_two_passes(
    enlarge: Callable[[Request, Size, Settings], dict[str, Any]],
    request: Request,
    target: Size,
    settings: Settings,
    operator: Downsample,
) -> dict[str, Any]:
    """One image enlarged twice by `enlarge`; the same entries as of one pass.

    The second pass sees the first's result, and the references again at its finer scale. What counts as known is the
    image alone: the second pass need not agree with the first, and the result agrees with the image.
    """
    between = size_between(request.size, target)
    assert between is not None
    first = enlarge(request, between, settings)
    allowed = F.interpolate(request.allowed, between)
    again = replace(request, image=first["images"].clamp(0, 1).cpu(), allowed=allowed, file=None)
    second = enlarge(again, target, replace(settings, degradation="clean", consistency=False))

    known = Observed.of(first["observation"], request.image.to(second["images"]), operator)
    shrinks = Downsample.between(target, request.size, operator.kernel)
    result, agreement = known.finish(second["images"], shrinks, settings.consistency)
    came = F.interpolate(first["provenance"][None], target, mode="bilinear")[0]
    shares = second["provenance"].clone()
    shares[1:] += shares[0] * came[1:]  # what the second pass took from its input, the first took from somewhere
    shares[0] *= came[0]
    # confidence and correspondence are of the image's own pixels, and its file is what was observed
    kept = {name: first[name] for name in ("confidence", "correspondence", "observation")}
    changed = {"images": result, "provenance": shares, "agreement": agreement}
    return second | kept | changed | {"consistency_error": 255 * agreement.error}

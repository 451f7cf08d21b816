"""Pictures made smaller, cut and grown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from def_hub.images.saving import to_pil


def shrink(x: Tensor, scale: int = 4) -> Tensor:
    """`x` `[1,3,H,W]` as an 8-bit picture that Pillow itself made `scale` times smaller.

    Benchmarks define their LR files by this very call, whose 8-bit rounding between the two passes
    `observation.downsample` leaves out. Raises `ValueError` where a side is not a multiple of `scale`.
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
            of resizing everything and cutting. Enlarged by Pillow's Lanczos, which keeps more detail than its bicubic
            (as references, ten pictures then gave 0.04 dB more); made smaller by its bicubic, for Lanczos would
            sharpen it. Clipped to [0, 1].
    """
    (height, width), (left, top, right, bottom) = picture.shape[2:], part
    x, y = width / sides[1], height / sides[0]
    box = (left * x, top * y, min(right * x, width), min(bottom * y, height))
    size = (right - left, bottom - top)
    kernel = Image.Resampling.LANCZOS if sides[0] > height else Image.Resampling.BICUBIC
    planes = [
        np.asarray(Image.fromarray(plane.numpy()).resize(size, kernel, box=box)) for plane in picture[0].float().cpu()
    ]
    return torch.from_numpy(np.stack(planes))[None].clamp(0, 1).to(picture.device)


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

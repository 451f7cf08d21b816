"""References that hang askew: turned by an angle that no quarter turn undoes.

Features recognise a place that is turned by some 15°, and alignment follows it from there. A reference in which nothing
was found is therefore tried again turned by 30° either way: with quarter turns, these reach every angle. One that was
found askew is turned straight (`fitting.found`).
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub.reference.matching.correspondence import CELL
from def_hub.reference.matching.placement import Placement
from def_hub.reference.picture import ReferencePicture

SLANTS = (30.0, -30.0)
"""Degrees by which a reference is turned when nothing is found in it."""


def slanted(reference: ReferencePicture, degrees: float) -> ReferencePicture:
    """The reference turned about its middle, on a canvas that holds all of it. The empty corners are not usable."""
    height, width = reference.pixels.shape[2:]
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    wide, high = (
        -(-int(abs(a) * width + abs(b) * height + 0.5) // CELL) * CELL for a, b in ((c, s), (s, c))
    )  # a multiple of 4 that is large enough
    usable = reference.usable
    whole = torch.ones_like(reference.pixels[:, :1]) if usable is None else F.interpolate(usable, scale_factor=CELL)
    scale = torch.tensor([[c * wide / width, -s * high / width, 0], [s * wide / height, c * high / height, 0]])
    grid = F.affine_grid(scale[None].to(whole), [1, 1, high, wide], align_corners=False)
    inside = F.avg_pool2d(F.grid_sample(whole, grid, align_corners=False), CELL)
    x, y = (width - 1) / 2, (height - 1) / 2
    right, down = (wide - 1) / 2, (high - 1) / 2
    turn = Placement(((c, -s), (s, c)), (x - c * right + s * down, y - s * right - c * down))
    return replace(
        reference,
        pixels=_sampled(reference.pixels, grid),
        usable=(inside > 0.999).float(),
        placement=reference.placement.after(turn),
    )


def _sampled(picture: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(picture, grid, mode="bicubic", padding_mode="border", align_corners=False).clamp(0, 1)

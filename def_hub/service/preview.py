"""A part of a result, computed before the whole is: with every preset, and with the same settings, references and seed.

What the whole photo says of each reference, its pose and its light, is found once and kept for the next part. A part is
computed with a margin, which is cut away, and with the parts of the references in which the photo's matches lie.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from def_hub import images
from def_hub.inputs import Request, requests_of
from def_hub.observation.downsample import SCALE, Downsample
from def_hub.observation.observed import observed
from def_hub.pipeline import DEFPipeline
from def_hub.reference.features import in_own_precision
from def_hub.reference.matching import CELL
from def_hub.reference.matching.fitting import fit, found
from def_hub.reference.matching.placement import Placement
from def_hub.reference.matching.pose import ImageCopies, Sighting, mask_of
from def_hub.reference.matching.slant import slanted
from def_hub.reference.picture import ReferencePicture
from def_hub.service.call import Call, RunOptions
from def_hub.settings import PRESETS

SIDE = 256
"""Pixels of the result along each side of a preview."""
MARGIN = 8
"""Pixels of the photo around a part that are computed with it: what lies further away changes a pixel little."""
BLOCK = 8
"""Parts begin where a block of a JPEG does, in pixels of the photo."""
FEWEST = 4
"""Matches inside a part that are needed to say where it lies in a reference; with fewer all of it is searched."""

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


@dataclass(frozen=True)
class Part:
    """A part of the photo. box: in its pixels. size: (height, width) of the photo."""

    box: Box
    size: tuple[int, int]

    @classmethod
    def around(cls, x: float, y: float, size: tuple[int, int], scale: int) -> Part:
        """The part whose result has `SIDE` pixels a side, around a place given as shares of the width and height.

        Raises `ValueError` for a place outside of the photo.
        """
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise ValueError(f"expected a point with shares in [0, 1], got ({x}, {y})")
        height, width = size
        (left, right), (top, bottom) = _span(x, width, scale), _span(y, height, scale)
        return cls((left, top, right, bottom), size)

    @property
    def shares(self) -> tuple[float, float, float, float]:
        """Left, top, width and height as shares of the photo's."""
        (left, top, right, bottom), (height, width) = self.box, self.size
        return left / width, top / height, (right - left) / width, (bottom - top) / height

    @property
    def wider(self) -> Box:
        """The box with its margin, as far as the photo reaches."""
        (left, top, right, bottom), (height, width) = self.box, self.size
        return max(left - MARGIN, 0), max(top - MARGIN, 0), min(right + MARGIN, width), min(bottom + MARGIN, height)


@dataclass(frozen=True)
class Found:
    """Where a reference shows the whole photo. degrees: by which it is turned first, see `fitting.found`. The turned
    picture itself is not kept: it may be of 50 megapixels."""

    degrees: float
    sighting: Sighting

    @classmethod
    def of(cls, image: ImageCopies, reference: ReferencePicture) -> Found:
        """As a run finds it."""
        turned, sighting = found(image, reference)
        (cosine, _), (sine, _) = turned.placement.matrix
        return cls(math.degrees(math.atan2(sine, cosine)), sighting)


@dataclass
class Preview:
    """A part with every preset, as far as it is computed.

    folder: deleted when nothing holds the preview any more. inputs: what was given, see `Session.inputs`.
    pictures, seconds: of each preset that is done. seen: each reference beside the whole photo.
    """

    folder: TemporaryDirectory
    part: Part
    options: RunOptions
    inputs: Any = None
    pictures: dict[str, Path] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    seen: list[Found] | None = None

    def add(self, preset: str, picture: Tensor, seconds: float) -> None:
        """Keep a picture `[3, H, W]` that is done."""
        path = Path(self.folder.name) / f"{preset}.png"
        images.save_image(picture, path, compression=1)
        self.pictures[preset], self.seconds[preset] = path, seconds


def each_preset(options: RunOptions) -> Iterator[RunOptions]:
    """The visitor's options with every preset. What the visitor changed of one preset is changed of each."""
    own = PRESETS[options.preset].as_dict()
    changed = {name: value for name, value in options.settings.as_dict().items() if value != own[name]}
    for preset in PRESETS:
        yield RunOptions.of(preset, options.seed, **changed)


def compute(
    pipeline: DEFPipeline, call: Call, part: Part, seen: list[Found] | None
) -> tuple[Tensor, float, list[Found]]:
    """The part of a call's result, `[3, H, W]`, the seconds that it took, and the references beside the whole photo.

    seen: these, where they are known; that is not counted in the seconds.
    """
    settings = call.options.settings
    request = _request(call)
    references = request.references if settings.reference_strength > 0 else ()
    if seen is None:
        on = pipeline.device
        copies = ImageCopies(request.image.to(on), in_own_precision(pipeline.refsr.feature_extractor))
        seen = [Found.of(copies, reference.to(on)) for reference in references]
    started = time.perf_counter()
    left, top, right, bottom = part.wider
    inside = (..., slice(top, bottom), slice(left, right))
    near = [_near(request.image, r, s, part, settings.scale) for r, s in zip(references, seen, strict=True)]
    parameters = call.parameters | {"degradation": _degradation(request, settings.degradation, pipeline)}
    output = pipeline(
        request.image[inside],
        near or None,
        mask=request.allowed[inside],
        generator=torch.Generator().manual_seed(call.options.seed),
        output_type="pt",
        **parameters,
    )
    scale, (x, y) = settings.scale, (part.box[0] - left, part.box[1] - top)
    height, width = part.box[3] - part.box[1], part.box[2] - part.box[0]
    cut = output.images[0][:, scale * y : scale * (y + height), scale * x : scale * (x + width)]
    return cut, time.perf_counter() - started, seen


def _span(share: float, length: int, scale: int) -> tuple[int, int]:
    side = min(SIDE // scale, length)
    start = min(max(share * length - side / 2, 0), length - side)
    start = int(start) // BLOCK * BLOCK
    return start, start + side


def _request(call: Call) -> Request:
    """The inputs of a call. The JPEG's own coefficients do not fit a part of it, but say what happened to it."""

    def at(name: str | None) -> Path | None:
        return None if name is None else call.folder / name

    masks = [at(name) for name in call.reference_masks] if any(call.reference_masks) else None
    references = [call.folder / name for name in call.references] or None
    known = call.options.settings.degradation != "clean"
    return requests_of(call.folder / call.photo, references, at(call.mask), masks, with_files=known)[0]


def _degradation(request: Request, name: str, pipeline: DEFPipeline) -> str:
    """What is measured is measured of the whole photo."""
    if name != "auto":
        return name
    operator = Downsample(pipeline.config.operator)
    return str(observed(request.image, name, operator, request.file).assessment.degradation)


def _near(image: Tensor, reference: ReferencePicture, seen: Found, part: Part, scale: int) -> ReferencePicture:
    """The part of a reference in which the matches of a part of the photo lie, fitted as for the whole photo.

    Beyond ×4 the reference is looked at twice, at two sizes: then the pipeline fits the part itself.
    """
    sighting = seen.sighting
    if seen.degrees:
        reference = slanted(reference, seen.degrees)
    place = _places(sighting, reference, part)
    picture = reference
    if scale <= SCALE:
        on = sighting.query.device
        picture = replace(fit(image.to(on), reference.to(on), sighting), fitted=True)
    if place is None:
        return picture
    there = _inside(picture.placement, place)
    low, high = there.min(1).values, there.max(1).values  # [2]
    # to either side half as much again, and two cells of the small copies
    resized = max(picture.placement.scale) / max(reference.placement.scale)
    more = 0.5 * (high - low) + 2 * CELL * resized / min(sighting.scale)
    return _cut(picture, torch.stack((low - more, high + more), dim=1))


def _places(seen: Sighting, reference: ReferencePicture, part: Part) -> Tensor | None:
    """`[2, n]` (x, y) in pixels of the original: where the trusted matches of a part of the photo lie, if enough do."""
    rows, columns = seen.trusted.shape
    x, y, width, height = part.shares
    column = (torch.arange(columns) + 0.5) / columns
    row = (torch.arange(rows) + 0.5) / rows
    there = ((row >= y) & (row <= y + height))[:, None] & ((column >= x) & (column <= x + width))
    chosen = seen.trusted.cpu() & there
    if int(chosen.sum()) < FEWEST:
        return None
    size = (reference.pixels.shape[2], reference.pixels.shape[3])
    turned = Placement.of_turn(seen.pose, size).after_resizing(*seen.scale)
    return reference.placement.after(turned).original(seen.matches.position[0].cpu()[:, chosen])


def _inside(placement: Placement, place: Tensor) -> Tensor:
    """The inverse of `Placement.original`: `[2, n]` in pixels of the original → of the picture."""
    matrix, offset = place.new_tensor(placement.matrix), place.new_tensor(placement.offset)
    return torch.linalg.solve(matrix, place - offset[:, None])


def _cut(picture: ReferencePicture, corners: Tensor) -> ReferencePicture:
    """The part of a reference between two corners `[2, 2]`, in whole cells, two at least."""
    height, width = picture.pixels.shape[2:]
    edges = []
    for axis, length in ((0, width), (1, height)):
        low, high = float(corners[axis].min()), float(corners[axis].max())
        start = min(max(int(low) // CELL, 0), length // CELL - 2)
        stop = max(min(-(-int(high) // CELL), length // CELL), start + 2)
        edges.append((start, stop))
    (left, right), (top, bottom) = edges
    pixels = picture.pixels[..., CELL * top : CELL * bottom, CELL * left : CELL * right].contiguous()
    usable = None if picture.usable is None else mask_of(picture.usable[..., top:bottom, left:right], pixels.shape[2:])
    matrix, (x, y) = picture.placement.matrix, (CELL * left, CELL * top)
    moved = tuple(o + row[0] * x + row[1] * y for o, row in zip(picture.placement.offset, matrix, strict=True))
    return replace(picture, pixels=pixels, usable=usable, placement=Placement(matrix, moved))  # type: ignore[arg-type]

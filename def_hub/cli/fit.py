"""Pictures that are larger than this machine can take: said what fits, and with `--fit` and `--crop` made to fit."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from def_hub import settings
from def_hub.cli.console import warn
from def_hub.crop import Crop, Size, shrunk
from def_hub.estimate import estimate, gigabytes, largest_that_fits, total_memory
from def_hub.images import Photo
from def_hub.scales import target_size


@dataclass(frozen=True)
class Fitted:
    """photo: what is enlarged. made: how it was made of the file's picture; empty where it is all of it."""

    photo: Photo
    made: str = ""


def fitted(photo: Photo, references: Sequence[Tensor], options: argparse.Namespace, name: str) -> Fitted:
    """The part of a photo that `--crop` names, shrunk to what fits into memory where `--fit` allows it.

    Raises `ValueError`, before anything is computed, where it does not fit; the message says what would.
    """
    made = []
    if options.crop:
        photo = Crop.parse(options.crop).of(photo)
        made.append(f"the part {options.crop}")
    size: Size = (photo.picture.shape[2], photo.picture.shape[3])
    most = _largest(size, references, options)
    if most != size:
        photo = shrunk(photo, most)
        made.append(f"shrunk from {_words(size)} to {_words(most)}")
        warn(f"{name}: {made[-1]}, which fits into {gigabytes(_limit(options) or 0)} of memory")
    return Fitted(photo, ", ".join(made))


def _largest(size: Size, references: Sequence[Tensor], options: argparse.Namespace) -> Size:
    """The size that is enlarged: `size` itself, or with `--fit` the largest of its shape that memory suffices for."""
    known = [(x.shape[2], x.shape[3]) for x in references]
    call = (options.preset, options.steps, _scale(size, options))
    limit = _limit(options)
    needed = estimate(size, known, *call).bytes
    if limit is None or needed <= limit:
        return size
    said = f"this would need about {gigabytes(needed)} of memory, {gigabytes(limit)} are allowed"
    most = largest_that_fits(size, known, limit, *call)
    if most is None:
        raise ValueError(f"{said}: use fewer or smaller references")
    if options.width or options.height:
        raise ValueError(f"{said}: choose a smaller result, a part (--crop), or fewer or smaller references")
    if not options.fit:
        raise ValueError(
            f"{said}: {_words(most)} would fit. Shrink the picture so far (--fit), cut out a part of that size "
            f"(--crop {most[1]}x{most[0]}+LEFT+TOP), or use fewer or smaller references"
        )
    return most


def _limit(options: argparse.Namespace) -> int | None:
    return total_memory() if options.max_memory is None else int(options.max_memory * 1e9)


def _scale(size: Size, options: argparse.Namespace) -> float:
    scale = settings.resolve(options.preset, scale=options.scale).scale
    if not options.width and not options.height:
        return scale
    target = target_size(size, scale, (options.width, options.height))
    return max(target[0] / size[0], target[1] / size[1])


def _words(size: Size) -> str:
    return f"{size[1]}x{size[0]}"

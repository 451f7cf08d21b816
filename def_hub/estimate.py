"""What a call will cost on this machine, before it is made: for the embedded default, or one of its size."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F

from def_hub.pipeline import Stage
from def_hub.precision import compute_in
from def_hub.reference.fitting import MOST, NOTHING
from def_hub.reference.matching import CELL, EVERY, PAIRINGS, PAIRS
from def_hub.reference.matching.pose import CONFIRMING as CELLS
from def_hub.reference.matching.pose import STEP, sides_tried
from def_hub.reference.network import TILE
from def_hub.settings import PRESETS, Precision

MEGA = 1e6
LAID_IN = 1 / 3
"""Of the time that an image takes whatever its references, the share before the last projection."""
CARRIED = 1 / 4
"""Of the time that goes with the alignment of the matches, the share that what they lend is carried over in."""


class Amounts(NamedTuple):
    """What there is to do in a call, or what each costs. All but `calls` in millions.

    calls: one. image: HR pixels of the result. part: of these, what is laid in at a time. turned: the same, for each
    orientation it is restored in. matched: the same, where there is a reference, by how fine the alignment is, and of
    what the scale of each reference is sought for. reference: pixels of the references as they are matched. step: of
    image and references, for each step of the diffusion. searched: pixels in which matches are searched for, with those
    of the copies of a reference in which its scale is sought (`reference.fitting`). copy: of the largest of these.
    """

    calls: float = 0.0
    image: float = 0.0
    part: float = 0.0
    turned: float = 0.0
    matched: float = 0.0
    reference: float = 0.0
    step: float = 0.0
    searched: float = 0.0
    copy: float = 0.0

    def of(self, other: Amounts) -> float:
        """Costs of what there is to do."""
        return sum(a * b for a, b in zip(self, other, strict=True))

    def only(self, *names: str) -> Amounts:
        """Nothing but these."""
        return Amounts(**{name: getattr(self, name) for name in names})


# Seconds for a machine on which `probe` says `PROBE`, one part in the precision of the networks and one in float32: by
# hand, to 27 calls of 0.03 to 16 megapixels on one machine, with one thread and with two, near to what
# `examples/benchmarks/growth.py --fit` had printed on two others, of which one is ten times as slow as the other.
# Bytes: by hand, to the same calls.
PROBE = (0.0014, 0.0014)
NETWORKS = Amounts(turned=0.08, step=0.06, searched=0.09)  # a search is matrix products, as the networks are
REST = Amounts(calls=0.01, image=1.7, matched=7.2, reference=0.4)
BYTES = Amounts(calls=55e6, image=105e6, part=170e6, reference=140e6, copy=190e6)


@dataclass(frozen=True)
class Estimate:
    """seconds: how long the call will take. bytes: the most memory it will hold beside the loaded model.

    stages: the seconds as they are spread over the stages of the call, in order.
    """

    seconds: float
    bytes: int
    stages: dict[Stage, float] = field(default_factory=dict)


def estimate(
    image_size: tuple[int, int],
    reference_sizes: Sequence[tuple[int, int]] = (),
    preset: str = "balanced",
    num_inference_steps: int | None = None,
) -> Estimate:
    """Time and memory of a call for an image and references of the given (height, width), in pixels.

    How fast this machine is, is measured once, in a few hundredths of a second.

    Raises:
        ValueError: for an unknown preset, fewer than one step, or a side below one pixel.
    """
    work = load(image_size, reference_sizes, preset, num_inference_steps)
    networks, rest = (now / then for now, then in zip(probe(), PROBE, strict=True))
    stages = {stage: networks * NETWORKS.of(part) + rest * REST.of(part) for stage, part in _stages(work).items()}
    return Estimate(sum(stages.values()), int(BYTES.of(work)), stages)


def load(
    image_size: tuple[int, int],
    reference_sizes: Sequence[tuple[int, int]] = (),
    preset: str = "balanced",
    num_inference_steps: int | None = None,
) -> Amounts:
    """What there is to do in a call. Arguments and errors as `estimate`."""
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    settings = PRESETS[preset]
    steps = settings.num_inference_steps if num_inference_steps is None else num_inference_steps
    if steps < 1:
        raise ValueError(f"num_inference_steps must be at least 1, got {steps}")
    for side in (*image_size, *(side for size in reference_sizes for side in size)):
        if side < 1:
            raise ValueError(f"expected sizes of at least 1x1 pixels, got {image_size} and {list(reference_sizes)}")
    image = CELL**2 * image_size[0] * image_size[1] / MEGA
    reference = sum(_fitted(image, height * width / MEGA) for height, width in reference_sizes)
    small = min(image, (CELL * CELLS) ** 2 / MEGA)  # the image as it is compared with the copies
    copies = [_searched(small, h * w / MEGA) for size in reference_sizes for h, w in sides_tried(image_size, size)]
    return Amounts(
        calls=1,
        image=image,
        part=min(image, TILE**2 / MEGA),
        turned=settings.turns * image,
        matched=2 / settings.step * (image if reference else 0) + 2 / STEP * small * len(copies),
        reference=reference,
        step=steps * (image + reference),
        searched=len(PAIRINGS[settings.matching_image]) * sum(_searched(image, reference)) + sum(map(sum, copies)),
        copy=max(map(max, copies), default=0.0),
    )


def _stages(work: Amounts) -> dict[Stage, Amounts]:
    """What is to do in each stage, in order. The turned images belong to what precedes the laying in, the diffusion of
    the references to their matching."""
    own = work.only("calls", "image")
    first, last = (Amounts(*(share * a for a in own)) for share in (LAID_IN, 1 - LAID_IN))
    step = work.step * work.image / (work.image + work.reference)
    stages: dict[Stage, Amounts] = {"enhance": Amounts(step=step)}
    if work.reference:
        others = work.only("turned", "reference", "searched")
        stages["match"] = others._replace(step=work.step - step, matched=(1 - CARRIED) * work.matched)
        first = first._replace(matched=CARRIED * work.matched)
    else:
        first = first._replace(turned=work.turned)
    return stages | {"transfer": first, "restore": last}


def _fitted(image: float, reference: float) -> float:
    """Pixels of a reference as it is matched. One that is smaller than the result is enlarged where it shows the same,
    and left as it is where it shows a part, which its size does not tell: what lies between."""
    enlarged = max(reference, min(image, reference * 4**NOTHING))
    return min((reference * enlarged) ** 0.5, MOST * image)


def _searched(image: float, references: float) -> list[float]:
    """Of so many (million) pixels of references, those in which `matching.find` searches for matches of the image: on
    every level, each side half the last one's, that is small enough."""
    levels, pairs = [0.0], image / CELL**2 / EVERY**2 * references / CELL**2 * MEGA**2
    while pairs >= 1:
        if pairs <= PAIRS:
            levels.append(references)
        references, pairs = references / 4, pairs / 16
    return levels


@lru_cache
def probe(precision: Precision = "auto") -> tuple[float, float]:
    """Seconds that a convolution of the networks' kind takes here in that precision, and that it takes to look at many
    places of a picture in float32: the best of a few, the others were disturbed."""
    x, weight = torch.rand(1, 64, 192, 192), torch.rand(64, 64, 3, 3)
    x = x.contiguous(memory_format=torch.channels_last)
    plane, places = torch.rand(1, 3, 256, 256), torch.rand(1, 512, 512, 2)

    def look() -> object:
        return F.grid_sample(plane, places, align_corners=False).square().sum(1)

    with torch.no_grad(), compute_in(precision, x.device):
        return _best(lambda: F.conv2d(x, weight, padding=1)), _best(look)


def _best(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(7):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def total_memory() -> int | None:
    """Bytes of this machine, None where it does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def gigabytes(number: float) -> str:
    """A number of bytes, to be read."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{max(number, 1e7) / 1e6:.0f} MB"

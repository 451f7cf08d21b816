"""Time and memory of a call on this machine, estimated before the call. The constants fit the embedded default and
networks of its size.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F

from def_hub.formats import MIN_SIDE
from def_hub.observation.downsample import SCALE
from def_hub.pipeline import Stage
from def_hub.precision import compute_in
from def_hub.reference.matching import CELL, PAIRINGS, levels
from def_hub.reference.matching.fitting import expected_sides
from def_hub.reference.matching.pose import CONFIRMING, STEP, sides_tried
from def_hub.reference.network import TILE
from def_hub.settings import Precision, resolve

MEGA = 1e6
RESTORED_BEFORE_PROJECTION = 1 / 3
"""Share of the time per image pixel that passes before the last projection. Chosen by hand."""
TRANSFER_OF_MATCHED = 1 / 4
"""Share of the time for `Amounts.matched` that the stage "transfer" takes; "match" takes the rest. Chosen by hand."""


class Amounts(NamedTuple):
    """The amounts of work in a call, or the cost of one unit of each. All but `calls` are counted in millions.

    calls: 1 for one call.
    image: HR pixels of the result.
    part: HR pixels of the largest tile that is aggregated at a time.
    turned: HR pixels of the result, times the orientations that it is restored in.
    matched: HR pixels that are aligned, times the samples per pixel. The copies count, too, that the scale of each
        reference is sought with (`matching.pose`). 0 without references.
    reference: pixels of the references at the size at which they are matched.
    step: pixels of image and references, times the steps of the diffusion.
    searched: pixels of references in which matches are searched for, the copies included.
    copy: pixels of the largest of these copies.
    given: pixels of the references as they are given.
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
    given: float = 0.0

    def of(self, work: Amounts) -> float:
        """The total cost of `work`, with this as the cost of one unit of each amount."""
        return sum(cost * amount for cost, amount in zip(self, work, strict=True))

    def only(self, *names: str) -> Amounts:
        """The named amounts; the others are 0."""
        return Amounts(**{name: getattr(self, name) for name in names})


# Seconds per unit of work on a machine where `probe` returns `PROBE`. NETWORKS is the work in the precision of the
# networks, REST the work in float32. `examples/benchmarks/growth.py --fit` prints such constants. It ran on two
# machines, one ten times slower than the other. The values here were then adjusted by hand to 27 calls of 0.03 to 16
# megapixels on a third machine, with one thread and with two. BYTES, bytes per unit of work, was adjusted by hand to
# the same calls; `given` is what a reference takes as float32.
PROBE = (0.0014, 0.0014)
NETWORKS = Amounts(turned=0.08, step=0.06, searched=0.09)  # a search consists of matrix products, as the networks do
REST = Amounts(calls=0.01, image=1.7, matched=7.2, reference=0.4)
BYTES = Amounts(calls=55e6, image=105e6, part=170e6, reference=140e6, copy=190e6, given=12e6)


@dataclass(frozen=True)
class Estimate:
    """The expected cost of a call.

    seconds: the time that it takes.
    bytes: its peak memory in addition to the loaded model.
    passes: for each time that the networks run, the seconds of its stages, in the order of the call.
    """

    seconds: float
    bytes: int
    passes: tuple[dict[Stage, float], ...] = ()

    @property
    def stages(self) -> dict[Stage, float]:
        """The seconds of each stage in all passes."""
        names = dict.fromkeys(name for one in self.passes for name in one)
        return {name: sum(one.get(name, 0.0) for one in self.passes) for name in names}


def estimate(
    image_size: tuple[int, int],
    reference_sizes: Sequence[tuple[int, int]] = (),
    preset: str = "balanced",
    num_inference_steps: int | None = None,
    scale: float = SCALE,
) -> Estimate:
    """Time and memory of a call for an image and references of the given (height, width), in pixels.

    The first call in a process measures the speed of this machine, in a few hundredths of a second.

    Args:
        scale: of the result. Beyond ×4 the networks run twice, the second time on a larger image.

    Raises:
        ValueError: for an unknown preset, a negative number of steps, or a side below one pixel.
    """
    sizes = [image_size]
    if scale > SCALE:
        sizes.append((math.ceil(image_size[0] * scale / SCALE), math.ceil(image_size[1] * scale / SCALE)))
    networks, rest = (here / fitted_for for here, fitted_for in zip(probe(), PROBE, strict=True))
    passes: list[dict[Stage, float]] = []
    most = 0
    for size in sizes:
        work = load(size, reference_sizes, preset, num_inference_steps)
        most = max(most, int(BYTES.of(work)))
        stages = _stages(work).items()
        passes.append({stage: networks * NETWORKS.of(part) + rest * REST.of(part) for stage, part in stages})
    return Estimate(sum(sum(one.values()) for one in passes), most, tuple(passes))


def largest_that_fits(
    image_size: tuple[int, int],
    reference_sizes: Sequence[tuple[int, int]],
    limit: int | None,
    preset: str = "balanced",
    num_inference_steps: int | None = None,
    scale: float = SCALE,
) -> tuple[int, int] | None:
    """The (height, width) of the largest copy of an image, of the same shape, that a call can enlarge in `limit` bytes.

    The size itself where it fits or `limit` is None; None where not even a copy of `MIN_SIDE` pixels does, because the
    references are too large. Arguments and errors as `estimate`.
    """

    def bytes_of(factor: float) -> int:
        height, width = _times(image_size, factor)
        return estimate((height, width), reference_sizes, preset, num_inference_steps, scale).bytes

    low, high = min(1.0, MIN_SIDE / min(image_size)), 1.0
    if limit is None or bytes_of(high) <= limit:
        return image_size
    if bytes_of(low) > limit:
        return None
    while min(image_size) * (high - low) > 0.5:  # half a pixel
        middle = (low + high) / 2
        low, high = (middle, high) if bytes_of(middle) <= limit else (low, middle)
    return _times(image_size, low)


def _times(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(int(size[0] * factor), 1), max(int(size[1] * factor), 1)


def load(
    image_size: tuple[int, int],
    reference_sizes: Sequence[tuple[int, int]] = (),
    preset: str = "balanced",
    num_inference_steps: int | None = None,
) -> Amounts:
    """The work in a call. Arguments and errors as `estimate`."""
    settings = resolve(preset, num_inference_steps=num_inference_steps)
    for side in (*image_size, *(side for size in reference_sizes for side in size)):
        if side < 1:
            raise ValueError(f"expected sizes of at least 1x1 pixels, got {image_size} and {list(reference_sizes)}")
    image = CELL**2 * math.prod(image_size) / MEGA
    fitted = [expected_sides(image_size, size) for size in reference_sizes]
    reference = sum(map(math.prod, fitted)) / MEGA
    small = [n * min(1.0, CONFIRMING / math.prod(image_size) ** 0.5) for n in image_size]  # the image beside the copies
    copies = [sides for size in reference_sizes for sides in sides_tried(image_size, size)]
    searches = [_searched(small, [sides]) for sides in copies]
    compared = len(PAIRINGS[settings.matching_image]) * sum(_searched(image_size, fitted)) if fitted else 0.0
    return Amounts(
        calls=1,
        image=image,
        part=min(image, TILE**2 / MEGA),
        turned=settings.turns * image,
        matched=2 / settings.step * (image if reference else 0)
        + 2 / STEP * CELL**2 * math.prod(small) * len(copies) / MEGA,
        reference=reference,
        step=settings.num_inference_steps * (image + reference),
        searched=compared + sum(map(sum, searches)),
        copy=max(map(max, searches), default=0.0),
        given=sum(map(math.prod, reference_sizes)) / MEGA,
    )


def _stages(work: Amounts) -> dict[Stage, Amounts]:
    """The work in each stage, in the order of the call. The diffusion of the references belongs to "match"."""
    before, after = (
        Amounts(*(share * amount for amount in work.only("calls", "image")))
        for share in (RESTORED_BEFORE_PROJECTION, 1 - RESTORED_BEFORE_PROJECTION)
    )
    step = work.step * work.image / (work.image + work.reference)
    stages: dict[Stage, Amounts] = {"enhance": Amounts(step=step, turned=work.turned)}
    if work.reference:
        references = work.only("reference", "searched")
        stages["match"] = references._replace(step=work.step - step, matched=(1 - TRANSFER_OF_MATCHED) * work.matched)
        before = before._replace(matched=TRANSFER_OF_MATCHED * work.matched)
    return stages | {"transfer": before, "restore": after}


def _searched(image: Sequence[float], references: Sequence[Sequence[int]]) -> list[float]:
    """Megapixels of references that a search for matches of an LR image compares with, on each of its levels."""
    keys = [(max(height // CELL, 1), max(width // CELL, 1)) for height, width in references]
    plan = levels((max(round(image[0]), 1), max(round(image[1]), 1)), keys)
    return [CELL**2 * sum(map(math.prod, level.keys)) / MEGA * level.searched for level in plan]


@lru_cache
def probe(precision: Precision = "auto") -> tuple[float, float]:
    """Seconds on this machine of a convolution like the networks', in that precision, and of sampling an image at many
    places, in float32."""
    x, weight = torch.rand(1, 64, 192, 192), torch.rand(64, 64, 3, 3)
    x = x.contiguous(memory_format=torch.channels_last)
    plane, places = torch.rand(1, 3, 256, 256), torch.rand(1, 512, 512, 2)

    def sampling() -> object:
        return F.grid_sample(plane, places, align_corners=False).square().sum(1)

    with torch.no_grad(), compute_in(precision, x.device):
        return _fastest(lambda: F.conv2d(x, weight, padding=1)), _fastest(sampling)


def _fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of a few runs. The slower ones shared the processor with something else."""
    seconds = []
    for _ in range(7):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def total_memory() -> int | None:
    """Bytes of memory of this machine, or that a container may use; None if the system does not say."""
    try:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    return min(there, _of_container("memory.max", there))


def free_memory() -> int | None:
    """Bytes of memory that a program can take now; None if the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
    most = _of_container("memory.max", 0)
    return max(min(free, most - _of_container("memory.current", 0)), 0) if most else free


def _of_container(name: str, otherwise: int) -> int:
    """A number that the system keeps for the container that this process is in (cgroup version 2)."""
    try:
        return int(Path("/sys/fs/cgroup", name).read_text())
    except (OSError, ValueError):  # no container, or "max"
        return otherwise


def gigabytes(number: float) -> str:
    """A number of bytes for people, such as "1.2 GB" or "340 MB"."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{max(number, 1e7) / 1e6:.0f} MB"

"""What a call will cost on this machine, before it is made: for the embedded default, or one of its size."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
import torch.nn.functional as F

from def_hub.pipeline import PRESETS, Stage
from def_hub.reference.matching import CELL, EVERY, PAIRS

MEGAPIXEL = 1e6


@dataclass(frozen=True)
class Cost:
    """A linear model: `start` for any call; then for every million HR pixels of the result (`image`), of the
    references (`reference`), of both in every step of the diffusion beyond the first (`step`); and for every million
    comparisons of a search (`pairs`)."""

    start: float
    image: float
    reference: float
    step: float
    pairs: float

    def of(self, image: float, references: float, steps: int, pairs: float) -> float:
        """Pixels and pairs in millions."""
        pixels = self.image * image + self.reference * references + self.step * (steps - 1) * (image + references)
        return self.start + pixels + self.pairs * pairs


# Near what `examples/benchmarks/growth.py --fit` printed, moved so that small and large calls are off alike.
PROBE = 0.0107
SECONDS = Cost(start=0.0, image=2.7, reference=3.8, step=0.44, pairs=0.03)
BYTES = Cost(start=60e6, image=250e6, reference=380e6, step=20e6, pairs=13e6)


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
    numbers = load(image_size, reference_sizes, preset, num_inference_steps)
    slower = probe() / PROBE
    stages = {stage: seconds * slower for stage, seconds in _stages(*numbers).items()}
    return Estimate(SECONDS.of(*numbers) * slower, int(BYTES.of(*numbers)), stages)


def load(
    image_size: tuple[int, int],
    reference_sizes: Sequence[tuple[int, int]] = (),
    preset: str = "balanced",
    num_inference_steps: int | None = None,
) -> tuple[float, float, int, float]:
    """What `Cost.of` takes for a call. Arguments and errors as `estimate`."""
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    steps = PRESETS[preset].steps if num_inference_steps is None else num_inference_steps
    if steps < 1:
        raise ValueError(f"num_inference_steps must be at least 1, got {steps}")
    for side in (*image_size, *(side for size in reference_sizes for side in size)):
        if side < 1:
            raise ValueError(f"expected sizes of at least 1x1 pixels, got {image_size} and {list(reference_sizes)}")
    image = CELL**2 * image_size[0] * image_size[1]
    references = sum(height * width for height, width in reference_sizes)
    return image / MEGAPIXEL, references / MEGAPIXEL, steps, _pairs(image, references) / MEGAPIXEL


def _stages(image: float, references: float, steps: int, pairs: float) -> dict[Stage, float]:
    """`SECONDS.of` the same numbers, by stage: every step of the diffusion costs what a later one does, the rest of a
    reference is matching, and of the rest of an image about a third is laying in."""
    rest = SECONDS.start + (SECONDS.image - SECONDS.step) * image
    stages: dict[Stage, float] = {"enhance": SECONDS.step * steps * (image + references)}
    if references:
        stages["match"] = (SECONDS.reference - SECONDS.step) * references + SECONDS.pairs * pairs
    return stages | {"transfer": rest / 3, "restore": rest * 2 / 3}


def _pairs(image: float, references: float) -> float:
    """What `matching.find` compares: on every level, each side half the last one's, that is small enough."""
    pairs, total = image / CELL**2 / EVERY**2 * references / CELL**2, 0.0
    while pairs >= 1:
        total += pairs if pairs <= PAIRS else 0.0
        pairs /= 16
    return total


@lru_cache(maxsize=1)
def probe() -> float:
    """Seconds that a convolution of the network's kind takes here: the best of a few, the others were disturbed."""
    x, weight = torch.rand(1, 64, 192, 192), torch.rand(64, 64, 3, 3)
    seconds = []
    with torch.no_grad():
        for _ in range(5):
            started = time.perf_counter()
            F.conv2d(x, weight, padding=1)
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

"""What a call will cost on this machine, before it is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from def_hub.pipeline import PRESETS


@dataclass(frozen=True)
class Estimate:
    """seconds: how long the call will take. bytes: how much memory it will need beside the weights."""

    seconds: float
    bytes: int


def estimate(
    image_size: tuple[int, int],
    reference_sizes: Sequence[tuple[int, int]] = (),
    preset: str = "balanced",
    num_inference_steps: int | None = None,
) -> Estimate:
    """Time and memory of a call for an image and references of the given (height, width).

    Raises:
        ValueError: for an unknown preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    steps = PRESETS[preset].steps if num_inference_steps is None else num_inference_steps
    cells = image_size[0] * image_size[1]
    key_cells = sum(height * width / 16 for height, width in reference_sizes)
    seconds = 0.5 + (cells + key_cells) * (30 + 25 * steps) * 1e-6 + cells * key_cells / 16 * 2e-9
    return Estimate(seconds, int((cells + key_cells) * 16 * 600))

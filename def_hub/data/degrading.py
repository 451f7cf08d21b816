"""Degraded LR images for training: drawn at random, with as much as can be known of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from def_hub.config import DegradationConfig
from def_hub.data.sources import Source
from def_hub.observation.degradation import PLANES, Degradation, degrade, planes

AMOUNTS = PLANES.index("blur") + 1
"""The first planes are amounts; the others are kernels."""
DRAWN = 97
"""Keeps the degradation of a pair apart from everything else that is drawn from its number."""


def drawn(config: DegradationConfig, rng: np.random.Generator) -> Degradation:
    """One that a run file asks for. Raises ValueError for a name that `Degradation.parse` refuses."""
    if not config.names:
        return Degradation.random(rng)
    name = config.names[int(rng.integers(len(config.names)))]
    factor = float(np.exp(rng.normal(0, config.spread)))
    if rng.random() < config.clean:
        return Degradation()
    named = Degradation.parse(name)
    quality = None if named.quality is None else round(100 - (100 - named.quality) * factor)
    return replace(
        named,
        blur=min(named.blur * factor, 16.0),
        noise=min(named.noise * factor, 100.0),
        quality=None if quality is None else min(max(quality, 1), 100),
    )


def observed(image: Tensor, degradation: Degradation, rng: np.random.Generator | None = None) -> dict[str, Tensor]:
    """The LR version of a picture `[3, H, W]` and all that can be known of it: `y`, `known` and `clean` of a sample."""
    y = degrade(image, degradation, rng=rng).picture[0]
    known = planes(degradation).view(-1, 1, 1).repeat(1, *y.shape[1:])
    return {"y": y, "known": known, "clean": torch.tensor(degradation == Degradation())}


def observed_at_random(image: Tensor, config: DegradationConfig, rng: np.random.Generator) -> dict[str, Tensor]:
    """A random LR version of a picture, and as much as can be found out of it."""
    sample = observed(image, drawn(config, rng), rng)
    return sample | {"known": _about(sample["known"], rng)}


def degraded_pair(source: Source, index: int, config: DegradationConfig) -> dict[str, Tensor]:
    """What is left of pair `index` after a degradation that is drawn from its number, and what is known of it: `y`,
    `known`, `clean` and `y_reference` of a sample, but `y` and `y_reference` uint8."""
    rng, pair = np.random.default_rng((index, DRAWN)), source[index]
    degradation = drawn(config, rng)
    image, reference = (picture.float() / 255 for picture in (pair.image, pair.reference))
    sample = observed(image, degradation, rng)
    sample["known"] = _about(sample["known"], rng)
    sample["y_reference"] = degrade(reference, degradation, rng=rng).picture[0]
    return sample | {name: (sample[name] * 255).round().byte() for name in ("y", "y_reference")}


def _about(known: Tensor, rng: np.random.Generator) -> Tensor:
    """Planes as a measurement gives them: amounts to about a tenth, and not always the kernel, which is hard to see."""
    known[:AMOUNTS] *= float(np.exp(rng.normal(0, 0.1)))
    if rng.random() < 0.3:
        known[AMOUNTS:] = 0
    return known

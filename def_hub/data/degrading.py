"""Degraded LR images for training: drawn at random, with as much as can be known of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from def_hub.config import DegradationConfig
from def_hub.data.sources import Source
from def_hub.observation.degradation import FILTERS, PLANES, Degradation, degrade, planes

AMOUNTS = PLANES.index("blur") + 1
"""The first planes are amounts; the others are kernels."""
UNSEEN = 0.3  # share of the kernels that no measurement finds
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
    """The LR version of a picture `[3, H, W]` and all that can be known of it: `y`, `known` and `exact` of a sample.

    exact: number of the filter, in `FILTERS`, where the picture was shrunk and nothing else; -1 for the others.
    """
    y = degrade(image, degradation, rng=rng).picture[0]
    known = planes(degradation).view(-1, 1, 1).repeat(1, *y.shape[1:])
    exact = tuple(FILTERS).index(degradation.kernel) if degradation.clean else -1
    return {"y": y, "known": known, "exact": torch.tensor(exact)}


def observed_at_random(image: Tensor, config: DegradationConfig, rng: np.random.Generator) -> dict[str, Tensor]:
    """A random LR version of a picture, and as much as can be found out of it."""
    return _as_found(observed(image, drawn(config, rng), rng), rng)


def degraded_pair(source: Source, index: int, config: DegradationConfig) -> dict[str, Tensor]:
    """What is left of pair `index` after a degradation that is drawn from its number, and what is known of it: `y`,
    `known`, `exact` and `y_reference` of a sample, but `y` and `y_reference` uint8."""
    rng, pair = np.random.default_rng((index, DRAWN)), source[index]
    degradation = drawn(config, rng)
    image, reference = (picture.float() / 255 for picture in (pair.image, pair.reference))
    sample = _as_found(observed(image, degradation, rng), rng)
    sample["y_reference"] = degrade(reference, degradation, rng=rng).picture[0]
    return sample | {name: (sample[name] * 255).round().byte() for name in ("y", "y_reference")}


def _as_found(sample: dict[str, Tensor], rng: np.random.Generator) -> dict[str, Tensor]:
    """What a measurement finds of all that can be known: amounts to about a tenth, and not always the kernel. Where it
    is not found the picture is taken for one shrunk by the bicubic filter, as the pipeline takes it."""
    known = sample["known"]
    known[:AMOUNTS] *= float(np.exp(rng.normal(0, 0.1)))
    if rng.random() < UNSEEN:
        known[AMOUNTS:] = 0
        sample["exact"] = sample["exact"].clamp(max=0)  # the number of bicubic is 0
    return sample

"""An endless stream of training samples from several sources.

Sample `i` depends on the seed and on `i` alone. A resumed run and a run with two processes therefore see exactly the
samples that one uninterrupted process sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from def_hub.config import DataConfig, DegradationConfig
from def_hub.data.degrading import degraded_pair, observed_at_random
from def_hub.data.sources import Source


@dataclass(frozen=True)
class Prepared:
    """Results that are computed once for all N pairs of a source.

    enhanced: uint8 `[N, 2, 3, size, size]`, the enhanced image and the enhanced reference.
    matches: float32 `[N, 7, size/4, size/4]`, the match of each cell of the image in its own reference: place (x, y),
        frame in row-major order (4 numbers), confidence. None if training matches anew in every step.
    mismatches: the same for the reference of the pair `unrelated`, for every `SPARE`-th pair.
    """

    enhanced: np.ndarray
    matches: np.ndarray | None = None
    mismatches: np.ndarray | None = None


SPARE = 4
"""Every `SPARE`-th pair is also matched with an unrelated reference. Few samples use one, so these pairs suffice."""


def unrelated(index: int, count: int) -> int:
    """The index of the pair whose reference serves as the unrelated reference of pair `index`: half the list away."""
    return (index + count // 2) % count


class Targets(Protocol):
    """What is learned from instead of the pictures of a source, by the index of the pair."""

    def __getitem__(self, index: int) -> Tensor: ...


class SampleStream(Dataset[dict[str, Tensor]]):
    """An endless, seeded stream of augmented samples.

    A sample holds these tensors:

    image: float `[3, size, size]` in [0, 1].
    reference, present: only if `paired`. `reference` is like `image`; `present` is 1 if it may be used, else 0.
    enhanced, enhanced_reference: like `image`, only if `prepared` is given (one for each source).
    match: `[7, size/4, size/4]`, only if the pairs were matched, see `Prepared`.
    y, known, clean: only if the run file degrades samples. `y` `[3, size/4, size/4]` is the LR image; `known`
        `[K, size/4, size/4]` is what is known of its degradation, about as well as `observation.assessment` finds it;
        `clean` says that it was shrunk by the bicubic kernel and nothing else happened.
    y_reference: like `y`, only if pairs are degraded: what the same degradation leaves of the reference. A pair is
        always degraded in the same way, so what is prepared of it fits.
    taught: like `image`, only if `taught` is given (one for each source, see `training.teacher.Taught`): what a teacher
        makes of the clean LR image, or the image itself where the teacher was not asked.
    """

    def __init__(
        self,
        sources: list[Source],
        config: DataConfig,
        seed: int,
        prepared: Sequence[Prepared] = (),
        paired: bool = True,
        taught: Sequence[Targets] = (),
        taught_share: float = 0.0,
        degradation: DegradationConfig | None = None,
    ) -> None:
        self.sources = sources
        self.config = config
        self.seed = seed
        self.prepared = prepared
        self.paired = paired
        self.taught = taught
        self.taught_share = taught_share
        self.degradation = degradation
        share = np.array([s.weight for s in config.sources], dtype=np.float64)
        self.share = share / share.sum()
        self.weights = [s.weights / s.weights.sum() for s in sources]

    def __len__(self) -> int:
        return 2**62

    def describe(self, i: int) -> str:
        """The source and the pair of sample `i`, for error messages."""
        source, index = self._draw(np.random.default_rng((self.seed, i)))
        return self.sources[source].describe(index)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, i))
        source, index = self._draw(rng)
        if self.paired:
            sample, present = self._pair(source, index, rng)
        else:
            sample, present = self._single(source, index, rng), None
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        match = sample.pop("match", None)
        given = {name: sample.pop(name) for name in ("known", "exact") if name in sample}
        sample = {name: _turn(x, turns, flip).float() / 255 for name, x in sample.items()} | given
        if match is not None:
            sample["match"] = turned_match(match, self.config.size, turns, flip)
        if present is not None:
            sample["present"] = torch.tensor(float(present))
        if self.degradation is not None and not self.paired:
            sample |= observed_at_random(sample["image"], self.degradation, rng)
        return sample

    def _single(self, source: int, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """A picture, and what the teacher makes of it where there is one."""
        if not self.taught:
            return {"image": self.sources[source].picture(index, rng)}
        if rng.random() < self.taught_share:
            return {"image": self.sources[source][index].image, "taught": self.taught[source][index]}
        image = self.sources[source].picture(index, rng)
        return {"image": image, "taught": image}

    def _pair(self, source: int, index: int, rng: np.random.Generator) -> tuple[dict[str, Tensor], bool]:
        """A sample without augmentation, and whether its reference may be used."""
        chance = rng.random()
        wrong = chance < self.config.unrelated
        pairs = self.sources[source]
        index = index - index % SPARE if wrong else index
        other = unrelated(index, len(pairs)) if wrong else index
        sample = {"image": pairs[index].image, "reference": pairs[other].reference}
        if self.degradation is not None:
            sample |= degraded_pair(pairs, index, self.degradation)
            sample["y_reference"] = degraded_pair(pairs, other, self.degradation)["y_reference"]
        if self.taught:
            sample["taught"] = self.taught[source][index]
        if self.prepared:
            prepared = self.prepared[source]
            sample["enhanced"] = torch.from_numpy(prepared.enhanced[index, 0])
            sample["enhanced_reference"] = torch.from_numpy(prepared.enhanced[other, 1])
            if prepared.matches is not None and prepared.mismatches is not None:
                match = prepared.mismatches[index // SPARE] if wrong else prepared.matches[index]
                sample["match"] = torch.from_numpy(match)
        return sample, chance < 1 - self.config.missing

    def _draw(self, rng: np.random.Generator) -> tuple[int, int]:
        source = int(rng.choice(len(self.sources), p=self.share))
        return source, int(rng.choice(len(self.sources[source]), p=self.weights[source]))


def _turn(x: Tensor, turns: int, flip: bool) -> Tensor:
    """`x` rotated by quarter turns, then mirrored if `flip`."""
    x = x.rot90(turns, (-2, -1))
    return x.flip(-1) if flip else x


def turned_match(match: Tensor, size: int, turns: int, flip: bool) -> Tensor:
    """The match `[7, h, w]` (see `Prepared`) after `_turn` has turned both the image and the reference."""
    match = _turn(match, turns, flip)
    (x, y), (a, b, c, d), confidence = match[:2], match[2:6], match[6]
    for _ in range(turns % 4):  # a quarter turn maps (x, y) to (y, size - 1 - x)
        x, y = y, size - 1 - x
        a, b, c, d = d, -c, -b, a
    if flip:
        x, b, c = size - 1 - x, -b, -c
    return torch.stack((x, y, a, b, c, d, confidence))

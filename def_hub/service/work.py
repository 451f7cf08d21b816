"""What the pipeline computes for visitors. Arguments and results can travel between processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from def_hub.evaluation.benchmark import fingerprint
from def_hub.pipeline import DEFPipeline
from def_hub.reference.library import Choice, ReferenceLibrary
from def_hub.reference.selection import RankedReference, rank_references
from def_hub.service import preview
from def_hub.service.call import Call, Setup
from def_hub.service.memory import give_back
from def_hub.service.offers import MOST
from def_hub.service.preview import Found, Part
from def_hub.service.run import Event, run
from def_hub.settings import PRESETS

Glimpse = tuple[Tensor, float, list[Found]]


@dataclass(frozen=True)
class About:
    """What computes. weights: for each preset the fingerprint of those that it uses. photos: how many the library has
    that visitors are offered."""

    setup: Setup
    weights: dict[str, str]
    photos: int = 0


class Work(Protocol):
    """`Here`, or the same in another process."""

    def about(self) -> About: ...
    def compute(self, call: Call) -> Iterator[Event | None]: ...
    def rank(self, image: Path, candidates: Sequence[Path]) -> list[RankedReference]: ...
    def glimpse(self, call: Call, part: Part, seen: list[Found] | None) -> Glimpse: ...
    def choose(self, image: Path) -> Choice: ...


@dataclass(frozen=True)
class Here:
    """In this process. library: references that visitors are offered."""

    pipeline: DEFPipeline
    library: ReferenceLibrary | None = None

    @classmethod
    def load(cls, name: str | None, revision: str | None, library: str | None) -> Here:
        """The model of that name and version, silent, on a GPU where there is one; without a name the embedded one."""
        import torch

        pipeline = DEFPipeline.from_pretrained(name, revision=revision)
        pipeline.set_progress_bar_config(disable=True)
        pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
        return cls(pipeline, ReferenceLibrary(library) if library else None)

    def about(self) -> About:
        weights = {preset: fingerprint(self.pipeline.parts(preset)) for preset in PRESETS}
        photos = 0 if self.library is None else len(self.library.index.entries)
        return About(Setup.of(self.pipeline), weights, photos)

    def compute(self, call: Call) -> Iterator[Event | None]:
        """A run. See `service.run`."""
        try:
            yield from run(self.pipeline, call)
        finally:
            give_back()

    def rank(self, image: Path, candidates: Sequence[Path]) -> list[RankedReference]:
        """Candidates, best first."""
        try:
            return rank_references(image, candidates, self.pipeline.refsr.feature_extractor)
        finally:
            give_back()

    def glimpse(self, call: Call, part: Part, seen: list[Found] | None) -> Glimpse:
        """A part of a result. See `service.preview`."""
        try:
            return preview.compute(self.pipeline, call, part, seen)
        finally:
            give_back()

    def choose(self, image: Path) -> Choice:
        """References out of the library."""
        assert self.library is not None
        return self.library.choose(image, MOST, self.pipeline.refsr)

"""What a library offers for an image: the photos that were found, those of them that are chosen, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from def_hub import video
from def_hub.images import ImageLike
from def_hub.reference.library.building import UNUSABLE, problem
from def_hub.reference.library.index import Entry
from def_hub.reference.selection import LIKELY, RankedReference, Ranker

MISSES, FEWEST = 10, 2
"""After `MISSES` photos in a row that are not likely to help, no more are ranked: one less for each that is, but
`FEWEST` at least. A photo of something else takes the most time to rank."""
HELPFUL = 0.05
"""Score from which a photo may be chosen. It is less than `selection.UNLIKELY`, because the search has already found
the photo (`examples/library_recall.txt`)."""


@dataclass(frozen=True)
class Found:
    """A photo of a library, and what speaks for it.

    path: of the file.
    similarity: of the global descriptors, -1 … 1.
    evidence: how far similarity and agreement of the cells stand out among the similar photos, added; see
        `cells.standing`. 0 for photos whose cells were not compared.
    ranked: by `rank_references`; None after `ReferenceLibrary.search`.
    why: why it was chosen, or was not; empty after `search`.
    """

    entry: Entry
    path: Path
    similarity: float
    evidence: float = 0.0
    ranked: RankedReference | None = None
    why: str = ""

    @property
    def name(self) -> str:
        """Relative to the library's root; with "#" and a time stamp for a frame of a video."""
        return self.entry.name

    @property
    def score(self) -> float:
        """Share of the image that it can serve, 0 … 1; 0 after `search`."""
        return 0.0 if self.ranked is None else self.ranked.score

    def picture(self) -> ImageLike:
        """The photo's path, or the frame `[1, 3, H, W]`. Raises ValueError for a video that has changed."""
        frame = self.entry.frame
        return self.path if frame is None else video.frame_at(self.path, frame)


@dataclass(frozen=True)
class Choice:
    """What a library offers for an image.

    chosen: best first, perhaps none. others: ranked but not chosen, best first, each with the reason. problems: one
    line for each similar photo that is missing, has changed or can no longer be read.
    """

    chosen: tuple[Found, ...] = ()
    others: tuple[Found, ...] = ()
    problems: tuple[str, ...] = ()

    def pictures(self) -> list[ImageLike]:
        """The chosen photos, as references for `DEFPipeline`."""
        return [found.picture() for found in self.chosen]

    def record(self) -> dict[str, Any]:
        """Ready for JSON: name, score, similarity and reason of all that were ranked, and the problems."""
        kinds = {"chosen": self.chosen, "others": self.others}
        listed = {
            kind: [
                {"name": f.name, "score": round(f.score, 4), "similarity": round(f.similarity, 4), "why": f.why}
                for f in some
            ]
            for kind, some in kinds.items()
        }
        return {**listed, "problems": list(self.problems)}

    def lines(self, others: int = 3) -> list[str]:
        """For people: the chosen photos, the next ones with the reason why they were not chosen, and the problems."""
        listed = [*self.chosen, *self.others[:others]]
        return [f"{f.score:.3f}  {f.name}: {f.why}" for f in listed] + list(self.problems)


def by_turns(similar: Sequence[Found], ranker: Ranker, root: Path) -> tuple[list[Found], list[str]]:
    """The photos in the order in which they are ranked, and one line for each that cannot be read.

    They are taken by turns from the order of the search and from that of a glance at the photos themselves: one knows
    the kind of picture, the other sees more detail.
    """
    agreement, problems = {}, []
    for found in similar:
        try:
            agreement[found] = ranker.glance(found.picture())
        except UNUSABLE as error:
            problems.append(problem(found.name, root, error))
    glanced = sorted(agreement, key=lambda found: -agreement[found])
    turns = (found for pair in zip(agreement, glanced, strict=True) for found in pair)
    return list(dict.fromkeys(turns)), problems


def ranked_until_misses(similar: Sequence[Found], ranker: Ranker, root: Path) -> tuple[list[Found], list[str]]:
    """The photos with their scores, best first, until so many do not help that the others will not either (`MISSES`);
    and one line for each that cannot be read."""
    ranked, problems, misses, likely = [], [], 0, 0
    for found in similar:
        try:
            score = ranker.score(found.picture())
        except UNUSABLE as error:
            problems.append(problem(found.name, root, error))
            continue
        ranked.append(replace(found, ranked=RankedReference(0, score)))
        misses = 0 if score >= LIKELY else misses + 1
        likely += score >= LIKELY
        if misses >= max(FEWEST, MISSES - likely):
            break
    return sorted(ranked, key=lambda found: -found.score), problems


def choice_of(ranked: Sequence[Found], most: int, problems: Sequence[str]) -> Choice:
    """The best `most` of those that may help, of photos that were ranked, best first."""
    helpful = [found for found in ranked if found.score >= HELPFUL]
    chosen = tuple(replace(found, why=_served(found)) for found in helpful[:most])
    others = tuple(replace(found, why=_why_not(found, chosen)) for found in ranked if found not in helpful[:most])
    return Choice(chosen, others, tuple(problems))


def _served(found: Found) -> str:
    verdict = "likely to help" if found.score >= LIKELY else "may help"
    return f"serves {100 * found.score:.0f} % of the image, {verdict}"


def _why_not(found: Found, chosen: Sequence[Found]) -> str:
    if found.score < HELPFUL:
        return f"shows too little of the image to help (under {HELPFUL:g})"
    return f"serves {100 * found.score:.0f} % of the image, less than the {len(chosen)} chosen"

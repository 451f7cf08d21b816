"""How far a run is: each stage tells when it begins, and time counts only inside a stage."""

from __future__ import annotations

import time
from dataclasses import dataclass

from def_hub.pipeline import Stage

DOUBT = 0.1
"""A part of the plan that counts as done on time: a first stage of a few hundredths of a second says little of the
rest."""
LATE = 0.8
"""From this share of a stage's planned time on, the stage may well take longer than planned."""
RISE = 1.25
"""The time left may rise by this factor before a run counts as late."""


@dataclass(frozen=True)
class Reading:
    """stages: of this run, in order. stage: the present one, None before the first. share: of the whole run, 0 … 1; it
    never falls. left: seconds; they never rise. late: whether the run takes much longer than `left` says."""

    stages: tuple[Stage, ...]
    stage: Stage | None
    share: float
    left: float
    late: bool = False


class Clock:
    """Starts when it is made. The pace of what is done tells how long the rest will take.

    passes: for each time that the networks run, the seconds that its stages are expected to take, in order.
    """

    def __init__(self, *passes: dict[Stage, float]) -> None:
        self.plan = [step for one in passes for step in one.items()]
        self.total = sum(seconds for _, seconds in self.plan)
        self.at: int | None = None  # the present stage, as an index into the plan
        self.done, self.pace, self.share, self.left = 0.0, 1.0, 0.0, self.total
        self.started = self.since = time.perf_counter()

    def begin(self, stage: Stage) -> None:
        """A stage begins, in the present pass or the next; all before it are done."""
        after = -1 if self.at is None else self.at
        later = (i for i, (name, _) in enumerate(self.plan) if name == stage and i > after)
        self.at = next(later, max(after, 0))
        self._mark(self._before)

    def reached(self, share: float) -> None:
        """This share of the present stage, the diffusion of the photograph, is done, 0 … 1."""
        at = 0 if self.at is None else self.at
        self._mark(self._before + share * self.plan[at][1])

    def read(self) -> Reading:
        stages = tuple(dict.fromkeys(name for name, _ in self.plan))
        if self.at is None:
            return Reading(stages, None, 0.0, self.total)
        (stage, planned), before = self.plan[self.at], self._before
        inside = self.done - before + (time.perf_counter() - self.since) / self.pace
        # The longer a stage lasts beyond its plan, the longer it will still last. Its share goes on, ever more slowly.
        rest = max(planned - inside, inside * (1 - LATE) / LATE)
        if inside > LATE * planned:
            inside = planned - (1 - LATE) * LATE * planned**2 / inside
        self.share = max(self.share, (before + inside) / self.total)
        expected = self.pace * (rest + self.total - before - planned)
        self.left = min(self.left, expected)
        late = expected > max(RISE * self.left, self.left + 2)
        return Reading(stages, stage, self.share, self.left, late)

    def _mark(self, done: float) -> None:
        """`done` seconds of the plan are done now."""
        self.done, self.since = done, time.perf_counter()
        doubt = DOUBT * self.total
        self.pace = (self.since - self.started + doubt) / (done + doubt)

    @property
    def _before(self) -> float:
        return sum(seconds for _, seconds in self.plan[: self.at or 0])

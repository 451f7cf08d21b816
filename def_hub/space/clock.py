"""How far a run is: the stages that really began say so, and time only within one of them."""

from __future__ import annotations

import time
from dataclasses import dataclass

from def_hub.pipeline import Stage

DOUBT = 0.1
"""Share of the whole plan that counts as having taken what was planned: a first stage of a few hundredths of a second
says little about the rest."""
LATE = 0.8
"""Share of a stage's plan from which on it may well take longer."""


@dataclass(frozen=True)
class Reading:
    """stages: of this run, in order. stage: the one at work, None before the first. share: of the whole run, 0 … 1; it
    never falls. left: seconds."""

    stages: tuple[Stage, ...]
    stage: Stage | None
    share: float
    left: float


class Clock:
    """Started when it is made. What was done so far says how much faster or slower than planned the rest will be.

    plan: seconds that each stage is expected to take, in order.
    """

    def __init__(self, plan: dict[Stage, float]) -> None:
        self.plan, self.total = plan, sum(plan.values())
        self.stage: Stage | None = None
        self.done, self.pace, self.share = 0.0, 1.0, 0.0
        self.started = self.since = time.perf_counter()

    def begin(self, stage: Stage) -> None:
        """A stage begins; all before it are done."""
        self.stage = stage
        self._mark(self._before)

    def reached(self, share: float) -> None:
        """So much of the diffusion of the photograph is done, 0 … 1."""
        self._mark(self._before + share * self.plan["enhance"])

    def read(self) -> Reading:
        if self.stage is None:
            return Reading(tuple(self.plan), None, 0.0, self.total)
        planned, before = self.plan[self.stage], self._before
        inside = self.done - before + (time.perf_counter() - self.since) / self.pace
        # The longer a stage lasts beyond its plan, the longer it will still last; its share goes on, ever more slowly.
        rest = max(planned - inside, inside * (1 - LATE) / LATE)
        if inside > LATE * planned:
            inside = planned - (1 - LATE) * LATE * planned**2 / inside
        self.share = max(self.share, (before + inside) / self.total)
        return Reading(tuple(self.plan), self.stage, self.share, self.pace * (rest + self.total - before - planned))

    def _mark(self, done: float) -> None:
        """So many seconds of the plan are done now."""
        self.done, self.since = done, time.perf_counter()
        doubt = DOUBT * self.total
        self.pace = (self.since - self.started + doubt) / (done + doubt)

    @property
    def _before(self) -> float:
        stages = list(self.plan)
        return sum(self.plan[s] for s in stages[: stages.index(self.stage)]) if self.stage else 0.0

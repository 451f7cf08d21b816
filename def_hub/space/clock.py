"""How far a run is: the stages that really began say so, and time only within one of them."""

from __future__ import annotations

import time
from dataclasses import dataclass

from def_hub.pipeline import Stage


@dataclass(frozen=True)
class Reading:
    """stages: of this run, in order. stage: the one at work, None before the first. share: of the whole run, 0 … 1.
    left: seconds."""

    stages: tuple[Stage, ...]
    stage: Stage | None
    share: float
    left: float


class Clock:
    """Started when it is made. What was done so far says how much faster or slower than planned the rest will be.

    plan: seconds that each stage is expected to take, in order. own: of "enhance", the share that is the photograph's.
    """

    def __init__(self, plan: dict[Stage, float], own: float = 1.0) -> None:
        self.plan, self.own = plan, own
        self.stage: Stage | None = None
        self.pace = 1.0
        self.started = self.since = time.perf_counter()

    def begin(self, stage: Stage) -> None:
        """A stage begins; all before it are done."""
        self.stage, self.since = stage, time.perf_counter()
        if before := self._before:
            self.pace = (self.since - self.started) / before

    def reached(self, share: float) -> None:
        """So much of the photograph's own diffusion is done, 0 … 1; that of the references follows."""
        self.pace = (time.perf_counter() - self.since) / (share * self.own * self.plan["enhance"])

    def read(self) -> Reading:
        stages = tuple(self.plan)
        if self.stage is None:
            return Reading(stages, None, 0.0, sum(self.plan.values()))
        planned, total = self.plan[self.stage], sum(self.plan.values())
        inside = min((time.perf_counter() - self.since) / self.pace, 0.95 * planned)
        done = self._before + inside
        return Reading(stages, self.stage, done / total, self.pace * (total - done))

    @property
    def _before(self) -> float:
        stages = list(self.plan)
        return sum(self.plan[s] for s in stages[: stages.index(self.stage)]) if self.stage else 0.0

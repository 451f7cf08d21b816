"""What the page and the endpoints do with the pipeline: rank, run to the end, and say what went wrong."""

from __future__ import annotations

import contextlib
import logging
import statistics
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from def_hub.evaluation.benchmark import fingerprint
from def_hub.images import UnreadableImage
from def_hub.pipeline import DEFPipeline
from def_hub.reference.selection import RankedReference, rank_references
from def_hub.settings import PRESETS
from def_hub.space.clock import Clock, Reading
from def_hub.space.outcome import Outcome, begin, explain
from def_hub.space.run import Begun, Call, Event, Finished, Settings, Setup, Step, on_device, run, stoppable
from def_hub.space.uploads import unreadable
from def_hub.space.visit import Visit

log = logging.getLogger(__name__)

ODD = 20.0
"""How many times slower, or faster, than estimated a run counts at most."""


@dataclass(frozen=True)
class Progress:
    """reading: how far the run is; None once the outcome is there.

    step: the latest estimate, where there is a new one. outcome: at last; `drawn` once all its pictures are there.
    """

    reading: Reading | None = None
    step: Step | None = None
    outcome: Outcome | None = None
    drawn: bool = False


class Studio:
    """A pipeline at work for many visitors, one run at a time."""

    def __init__(self, pipeline: DEFPipeline) -> None:
        # looked at once, and here: on a ZeroGPU Space this process has no weights to look at once it serves
        self.setup = Setup.of(pipeline)
        self.weights = {preset: fingerprint(pipeline.parts(preset)) for preset in PRESETS}  # as the card names them
        self.ratios = deque([1.0], maxlen=5)  # of the last runs, how much longer each took than estimated

        def compute(call: Call, seconds: float) -> Iterator[Event | None]:
            yield from run(pipeline, call)

        def ranked(image: Path, candidates: Sequence[Path]) -> list[RankedReference]:
            return rank_references(image, candidates, pipeline.refsr.feature_extractor)

        self._compute = on_device(compute, lambda call, seconds: min(300, 15 + int(2 * seconds)))
        self.rank = on_device(ranked, lambda image, candidates: 10 + len(candidates))

    @property
    def pace(self) -> float:
        """How much slower this machine is, just now, than estimated. One odd run says nothing."""
        return statistics.median_low(self.ratios)

    def seconds(self, visit: Visit, settings: Settings) -> float:
        """How long a run is expected to take."""
        return visit.cost(settings).seconds * self.pace

    def run(self, visit: Visit, settings: Settings) -> Iterator[Progress]:
        """Run; the outcome replaces the visit's as soon as it is there. Closing the iterator stops the computation.

        Raises `ValueError` where the inputs do not allow it, and whatever the pipeline raises.
        """
        folder, call = visit.call(settings)
        pace, cost = self.pace, visit.cost(settings)
        clock = Clock({stage: pace * seconds for stage, seconds in cost.stages.items()})
        yield from self._run(visit, folder, call, clock, cost.seconds)

    def _run(
        self, visit: Visit, folder: TemporaryDirectory, call: Call, clock: Clock, estimated: float
    ) -> Iterator[Progress]:
        steps: list[tuple[str, Tensor]] = []
        inputs, names = visit.inputs, visit.names  # there may be others when this ends
        with contextlib.closing(self._compute(call, clock.total)) as events:
            for event in events:
                if isinstance(event, Finished):
                    finished = event
                    continue
                if isinstance(event, Begun):
                    clock.begin(event.stage)
                if isinstance(event, Step):
                    clock.reached(event.number / event.total)
                    steps.append((f"step {event.number} of {event.total}", event.picture))
                yield Progress(clock.read(), event if isinstance(event, Step) else None)
        self.ratios.append(min(max(finished.seconds / estimated, 1 / ODD), ODD))
        outcome = Outcome(folder, call, self.setup, self.weights[call.settings.preset], finished.seconds, inputs, names)
        for _ in stoppable(lambda: begin(outcome, finished.output), "def-begin"):
            yield Progress(clock.read())
        visit.outcome = outcome
        yield Progress(outcome=outcome)
        try:
            for _ in stoppable(lambda: explain(outcome, finished.output, steps), "def-draw"):
                yield Progress(outcome=outcome)
        except Exception:  # the result is there and stays
            log.exception("explaining a result failed")
        yield Progress(outcome=outcome, drawn=True)


def complaint(error: Exception) -> str:
    """What a visitor is told: for a wrong input what was expected, for anything else that the log knows more.

    Folders of this server are left out.
    """
    if isinstance(error, UnreadableImage) and error.file:  # found when it is decoded, not by its header as in `uploads`
        return unreadable(error.file)
    if isinstance(error, (ValueError, TypeError)):
        words = str(error).split()
        return " ".join(Path(word).name if word.startswith("/") and len(word) > 1 else word for word in words)
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error):
        return "There is not enough memory for pictures of this size: use fewer or smaller references, or a cut-out."
    log.error("a request failed", exc_info=error)
    return "Something went wrong on the server; its log says what. Earlier results are still there."

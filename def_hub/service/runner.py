"""One model that serves many visitors: it ranks, runs to the end, and says in words what went wrong."""

from __future__ import annotations

import contextlib
import logging
import signal
import statistics
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from def_hub.images import UnreadableImage
from def_hub.pipeline import DEFPipeline
from def_hub.service import preview
from def_hub.service.call import Call, RunOptions
from def_hub.service.clock import Clock, Reading
from def_hub.service.elsewhere import Killed
from def_hub.service.memory import give_back
from def_hub.service.preview import Part, Preview
from def_hub.service.result import Result, begin, explain
from def_hub.service.run import Begun, Event, Finished, Step
from def_hub.service.session import Session
from def_hub.service.uploads import unreadable
from def_hub.service.work import Here, Work
from def_hub.service.workers import heartbeats

log = logging.getLogger(__name__)

MAX_RATIO = 20.0
"""A run counts as at most so many times slower, or faster, than estimated."""


@dataclass(frozen=True)
class Progress:
    """reading: how far the run is; None once the result is there.

    step: the latest estimate of the diffusion, where there is a new one. result: set at the end; `drawn` once all its
    pictures are there.
    """

    reading: Reading | None = None
    step: Step | None = None
    result: Result | None = None
    drawn: bool = False


class Runner:
    """Who computes, and what is known of its speed. work: a pipeline computes in this process."""

    def __init__(self, work: Work | DEFPipeline) -> None:
        if isinstance(work, DEFPipeline):
            work = Here(work)
        # Asked once, and now: on a ZeroGPU Space this process has no weights to read once it serves.
        self.about = work.about()
        self.ratios = deque([1.0], maxlen=5)  # of the last runs: seconds taken / seconds estimated
        self.taken: deque[float] = deque(maxlen=5)  # of the last runs: seconds

        # On a ZeroGPU Space the seconds are told, too, for which a GPU is wanted.
        def compute(call: Call, seconds: float) -> Iterator[Event | None]:
            yield from work.compute(call)

        self.choose = on_device(work.choose, lambda image: 60)
        self._glimpse = on_device(work.glimpse, lambda call, part, seen: 30 + 5 * len(call.references))
        self._compute = on_device(compute, lambda call, seconds: min(300, 15 + int(2 * seconds)))
        self.rank = on_device(work.rank, lambda image, candidates: 10 + len(candidates))

    @property
    def pace(self) -> float:
        """How many times slower than estimated this machine is at present. The median ignores one odd run."""
        return statistics.median_low(self.ratios)

    @property
    def usual_seconds(self) -> float | None:
        """How long a run has taken of late; None before the first."""
        return statistics.median(self.taken) if self.taken else None

    def seconds(self, session: Session, options: RunOptions) -> float:
        """How long a run is expected to take."""
        return session.cost(options).seconds * self.pace

    def run(self, session: Session, options: RunOptions) -> Iterator[Progress]:
        """Run. The session has the new result as soon as it is there. Closing the iterator stops the computation.

        Raises:
            ValueError: where the inputs do not allow a run. Also whatever the pipeline raises.
            NotEnoughMemory: where memory was used up, also where the process that computes was killed for it.
        """
        try:
            yield from self._run(session, options)
        except Exception as error:
            if is_of_memory(error):
                raise NotEnoughMemory(session.advice(options)) from error
            raise
        finally:
            give_back()  # the tensors of the run have gone with its frame

    def _run(self, session: Session, options: RunOptions) -> Iterator[Progress]:
        folder, call = session.call(options)
        result = Result(
            folder, call, self.about.setup, self.about.weights[options.preset], session.inputs, session.names
        )
        pace, cost = self.pace, session.cost(options)
        clock = Clock(*({stage: pace * seconds for stage, seconds in one.items()} for one in cost.passes))
        steps: list[tuple[str, Tensor]] = []
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
        self.ratios.append(min(max(finished.seconds / cost.seconds, 1 / MAX_RATIO), MAX_RATIO))
        self.taken.append(finished.seconds)
        result.seconds = finished.seconds
        for _ in heartbeats(lambda: begin(result, finished.output), "def-begin"):
            yield Progress(clock.read())
        session.result = result
        yield Progress(result=result)
        try:
            for _ in heartbeats(lambda: explain(result, finished.output, steps), "def-draw"):
                yield Progress(result=result)
        except Exception:  # the result is there and stays
            log.exception("explaining a result failed")
        yield Progress(result=result, drawn=True)

    def preview(self, session: Session, part: Part, options: RunOptions) -> Iterator[Preview]:
        """A part of the result with every preset. The session has the preview from the beginning.

        Yields it at every heartbeat. Closing the iterator stops the computation. Raises as `run`.
        """
        folder, call = session.call(options)
        last, seen = session.previewed, None
        if last is not None and last.inputs == session.inputs:
            seen = last.seen
        shown = session.previewed = Preview(folder, part, options, session.inputs, seen=seen)
        yield shown
        for chosen in preview.each_preset(options):
            for _ in heartbeats(partial(self._add_glimpse, shown, replace(call, options=chosen)), "def-preview"):
                yield shown
            yield shown

    def _add_glimpse(self, shown: Preview, call: Call) -> None:
        picture, seconds, shown.seen = self._glimpse(call, shown.part, shown.seen)
        shown.add(call.options.preset, picture, seconds)


def on_device(function: Callable[..., Any], seconds: Callable[..., int]) -> Callable[..., Any]:
    """On a ZeroGPU Space: `function` with a GPU for `seconds(*arguments)`. Elsewhere: `function` itself.

    There, arguments and results travel between processes, so the pipeline must not be one of them.
    """
    try:
        import spaces
    except ImportError:
        return function
    return spaces.GPU(duration=seconds)(function)


class NotEnoughMemory(ValueError):
    """Says what would fit."""


def is_of_memory(error: Exception) -> bool:
    """Whether memory was used up."""
    killed = isinstance(error, Killed) and error.signal == signal.SIGKILL  # by the system, in all likelihood
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return killed or isinstance(error, MemoryError) or any(part in str(error) for part in words)


def complaint(error: Exception) -> str:
    """What a visitor reads: for a wrong input what was expected, for anything else that the log knows more.

    Folders of this server are left out.
    """
    if isinstance(error, UnreadableImage) and error.file:  # found by decoding; `uploads` reads the header only
        return unreadable(error.file)
    if isinstance(error, (ValueError, TypeError)):
        words = str(error).split()
        return " ".join(Path(word).name if word.startswith("/") and len(word) > 1 else word for word in words)
    if is_of_memory(error):
        return "There is not enough memory for pictures of this size: use fewer or smaller references, or a cut-out."
    log.error("a request failed", exc_info=error)
    return "Something went wrong on the server; its log says what. Earlier results are still there."

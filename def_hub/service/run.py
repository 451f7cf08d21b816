"""One call of the pipeline in a thread of its own: live, and stopped as soon as nobody waits for it."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from def_hub.output import DEFOutput
from def_hub.pipeline import DEFPipeline, Stage
from def_hub.service.call import Call
from def_hub.service.workers import HEARTBEAT, Cancelled, start

LIVE = 8
"""Estimates of the diffusion that are shown, and kept for the strip, at most."""


@dataclass(frozen=True)
class Step:
    """The diffusion's estimate after step `number` of `total`; `picture` `[1, 3, H, W]` in [0, 1]."""

    number: int
    total: int
    picture: torch.Tensor


@dataclass(frozen=True)
class Begun:
    """A stage of the pipeline began."""

    stage: Stage


@dataclass(frozen=True)
class Finished:
    """output: with tensors. seconds: how long the call took."""

    output: DEFOutput
    seconds: float


Event = Begun | Step | Finished


def run(pipeline: DEFPipeline, call: Call) -> Iterator[Event | None]:
    """Make the call and yield what happens: None every `HEARTBEAT` seconds in between, `Finished` at the end.

    Closing the iterator stops the computation, inside any stage, and returns when it has stopped.

    Raises:
        Whatever the call raises.
    """
    events: queue.Queue[Event | Exception] = queue.Queue()
    total = call.options.settings.num_inference_steps
    shown = shown_steps(total)

    def on_step(pipe: DEFPipeline, step: int, timestep: int, tensors: dict[str, torch.Tensor]) -> None:
        if step in shown:
            events.put(Step(step + 1, total, tensors["x0"][:1].clamp(0, 1).float().cpu()))

    def on_stage(pipe: DEFPipeline, stage: Stage) -> None:
        events.put(Begun(stage))

    def work() -> None:
        started = time.perf_counter()
        try:
            output = call.make(pipeline, output_type="pt", callback_on_step_end=on_step, callback_on_stage=on_stage)
            events.put(Finished(output, time.perf_counter() - started))
        except Exception as error:  # raised again in the thread that waits
            events.put(error)

    worker, stop = start(work, "def-run")
    try:
        while True:
            try:
                event = events.get(timeout=HEARTBEAT)
            except queue.Empty:
                if not worker.is_alive() and events.empty():
                    raise Cancelled from None  # the program ends
                yield None
                continue
            if isinstance(event, Exception):
                raise event
            yield event
            if isinstance(event, Finished):
                return
    finally:
        stop.set()
        worker.join()


def shown_steps(total: int) -> set[int]:
    """At most `LIVE` of the steps 0 … total - 1, evenly spread, with the first and the last."""
    every = max(-(-(total - 1) // (LIVE - 1)), 1)
    return {*range(0, total, every), total - 1}

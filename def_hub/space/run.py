"""One call of the pipeline: described by files and settings, run in a thread of its own, live and cancellable."""

from __future__ import annotations

import atexit
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from def_hub.hub.fetch import origin
from def_hub.pipeline import EMBEDDED, DEFOutput, DEFPipeline, Stage
from def_hub.precision import fast_bfloat16
from def_hub.settings import PRESETS

MAX_STEPS = 50
HEARTBEAT = 0.4  # seconds between two looks at whether the visitor is still there
LIVE = 8  # estimates shown, and kept for the strip, at most

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What a visitor may choose; see `DEFPipeline.__call__`. Raises `ValueError` where that would."""

    preset: str = "balanced"
    num_inference_steps: int = PRESETS["balanced"].num_inference_steps
    eta: float = PRESETS["balanced"].eta
    seed: int = 0
    reference_strength: float = 1.0
    matching_image: str = PRESETS["balanced"].matching_image
    consistency: bool = True

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {self.preset!r}")
        if not 1 <= self.num_inference_steps <= MAX_STEPS:
            raise ValueError(f"steps must be a whole number in 1 … {MAX_STEPS}, got {self.num_inference_steps}")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be a whole number in 0 … 2147483647, got {self.seed}")
        for name, number in (("η", self.eta), ("reference strength", self.reference_strength)):
            if not 0 <= number <= 1:
                raise ValueError(f"{name} must lie in 0 … 1, got {number}")

    @staticmethod
    def of(preset: str) -> Settings:
        """What goes with a preset."""
        if preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
        standard = PRESETS[preset]
        return Settings(preset, standard.num_inference_steps, standard.eta, matching_image=standard.matching_image)


@dataclass(frozen=True)
class Setup:
    """What computes, beside a call's arguments: only the same gives the same bytes.

    model: arguments of `from_pretrained`; none for the embedded default. precision: see `DEFPipeline.__call__`.
    threads: sums are split among them, and rounded.
    """

    model: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"
    precision: str = "float32"
    threads: int = 1

    @staticmethod
    def of(pipeline: DEFPipeline) -> Setup:
        """The pipeline, here and now. Of a folder of this machine only the last name is told."""
        folder = str(getattr(pipeline, "name_or_path", None) or "MODEL")
        model = {} if folder == str(EMBEDDED) else origin(folder) or {"name": Path(folder).name}
        precision = "bfloat16" if fast_bfloat16(pipeline.device) else "float32"
        return Setup(model, pipeline.device.type, precision, torch.get_num_threads())

    @property
    def name(self) -> str:
        return self.model.get("name", "embedded default")


@dataclass(frozen=True)
class Call:
    """The arguments of one call. `folder` holds the inputs: `photo`, `references` and masks are names in it."""

    folder: Path
    photo: str
    references: tuple[str, ...] = ()
    settings: Settings = field(default_factory=Settings)
    mask: str | None = None
    reference_masks: tuple[str | None, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments, but for files and generator."""
        return {name: value for name, value in asdict(self.settings).items() if name != "seed"}

    def make(self, pipeline: DEFPipeline, **more: Any) -> DEFOutput:
        """Make the call."""

        def at(name: str | None) -> Path | None:
            return None if name is None else self.folder / name

        references = [self.folder / name for name in self.references] or None
        masks: dict[str, Any] = {"mask": at(self.mask)}
        if any(self.reference_masks):
            masks["reference_mask"] = [at(name) for name in self.reference_masks]
        generator = torch.Generator().manual_seed(self.settings.seed)
        return pipeline(self.folder / self.photo, references, generator=generator, **self.options, **masks, **more)

    def as_python(self, setup: Setup) -> str:
        """A script that makes the same call, run in `folder`. All in it is ours or checked: names, numbers, choices."""
        model = ", ".join(repr(v) if k == "name" else f"{k}={v!r}" for k, v in setup.model.items())
        given = (
            [f"    {self.photo!r},", f"    {list(self.references)!r},"] if self.references else [f"    {self.photo!r},"]
        )
        options: dict[str, Any] = self.options | {"precision": setup.precision}
        if self.mask:
            options["mask"] = self.mask
        if any(self.reference_masks):
            options["reference_mask"] = list(self.reference_masks)
        return "\n".join(
            [
                "import torch",
                "",
                "from def_hub import DEFPipeline",
                "",
                f"torch.set_num_threads({setup.threads})",
                f"pipe = DEFPipeline.from_pretrained({model}).to({setup.device!r})",
                "result = pipe(",
                *given,
                *(f"    {name}={value!r}," for name, value in options.items()),
                f"    generator=torch.Generator().manual_seed({self.settings.seed}),",
                ")",
                'result.images[0].save("result.png")',
                "",
            ]
        )


@dataclass(frozen=True)
class Step:
    """What the diffusion believes after step `number` of `total`; `picture` `[1, 3, H, W]` in [0, 1]."""

    number: int
    total: int
    picture: torch.Tensor


@dataclass(frozen=True)
class Begun:
    """A stage of the pipeline began."""

    stage: Stage


@dataclass(frozen=True)
class Finished:
    """output: with tensors. seconds: what the call took."""

    output: DEFOutput
    seconds: float


Event = Begun | Step | Finished


def run(pipeline: DEFPipeline, call: Call) -> Iterator[Event | None]:
    """Make the call; yields what happens, None every `HEARTBEAT` seconds in between, and `Finished` at last.

    Closing the iterator stops the computation, inside whatever stage it is, and returns when it has stopped.

    Raises:
        Whatever the call raises.
    """
    events: queue.Queue[Event | Exception] = queue.Queue()
    total = call.settings.num_inference_steps
    shown = shown_steps(total)

    def on_step(pipe: DEFPipeline, step: int, timestep: int, tensors: dict[str, torch.Tensor]) -> None:
        if step in shown:
            events.put(Step(step + 1, total, tensors["x0"][:1].clamp(0, 1).float().cpu()))

    def work() -> None:
        started = time.perf_counter()
        try:
            output = call.make(
                pipeline,
                output_type="pt",
                callback_on_step_end=on_step,
                callback_on_stage=lambda pipe, stage: events.put(Begun(stage)),
            )
            events.put(Finished(output, time.perf_counter() - started))
        except Exception as error:  # raised again where the visitor is
            events.put(error)

    worker, stop = start(work, "def-run")
    try:
        while True:
            try:
                event = events.get(timeout=HEARTBEAT)
            except queue.Empty:
                if not worker.is_alive() and events.empty():
                    raise RuntimeError("the computation was stopped: the program is ending") from None
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
    """At most `LIVE` of the steps 0 … total - 1, evenly spread: the first, to be seen at once, and the last."""
    every = max(-(-(total - 1) // (LIVE - 1)), 1)
    return {*range(0, total, every), total - 1}


def start(work: Callable[[], object], name: str) -> tuple[threading.Thread, threading.Event]:
    """Do work with torch in a thread; the event stops it at its next call of a torch function.

    So does the end of the program: a thread that computes on while the interpreter goes would make it crash.
    """
    stop = threading.Event()

    def guarded() -> None:
        try:
            with _Cancellable(stop):
                work()
        except _Cancelled:
            log.info("%s was cancelled", name)
        finally:
            _WORKERS.pop(threading.current_thread(), None)

    worker = threading.Thread(target=guarded, name=name, daemon=True)
    _WORKERS[worker] = stop
    worker.start()
    return worker, stop


def stoppable(work: Callable[[], object], name: str) -> Iterator[None]:
    """Do work with torch in a thread; yields every `HEARTBEAT` seconds until it is done. Closing stops it.

    Raises:
        Whatever the work raises.
    """
    failed: list[Exception] = []

    def watched() -> None:
        try:
            work()
        except Exception as error:  # raised again where the visitor is
            failed.append(error)

    worker, stop = start(watched, name)
    try:
        while worker.is_alive():
            worker.join(HEARTBEAT)
            if worker.is_alive():
                yield
    finally:
        stop.set()
        worker.join()
    if failed:
        raise failed[0]


_WORKERS: dict[threading.Thread, threading.Event] = {}


@atexit.register
def _stop_all() -> None:
    running = dict(_WORKERS)
    for stop in running.values():
        stop.set()
    for worker in running:
        worker.join(10)


def on_device(function: Callable[..., Any], seconds: Callable[..., int]) -> Callable[..., Any]:
    """On a ZeroGPU Space, `function` with a GPU lent for `seconds(*arguments)`; elsewhere `function` itself.

    Arguments and results travel between processes there, so the pipeline must not be one of them.
    """
    try:
        import spaces
    except ImportError:
        return function
    return spaces.GPU(duration=seconds)(function)


class _Cancelled(BaseException):
    """Not an `Exception`, so that nothing on the way takes it for a failure of its own."""


class _Cancellable(TorchFunctionMode):
    """Every call of a torch function in this thread first looks whether it is still wanted."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__()
        self.stop = stop

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.stop.is_set():
            raise _Cancelled
        return func(*args, **(kwargs or {}))

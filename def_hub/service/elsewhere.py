"""`work.Here` in a process of its own: one that the system kills, because memory is used up, costs one run.

The process is started again for the next call. It ends with the server, however that ends: the pipe is closed then.
The model is loaded there only.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import logging
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from inspect import isgenerator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tqdm import tqdm

from def_hub.reference.library import Choice
from def_hub.reference.selection import RankedReference
from def_hub.service import workers
from def_hub.service.call import Call
from def_hub.service.preview import Found, Part
from def_hub.service.run import Event
from def_hub.service.work import About, Glimpse, Work
from def_hub.service.workers import Cancelled

log = logging.getLogger(__name__)

STOP, YIELDED, RETURNED, FAILED = "stop", "yielded", "returned", "failed"
KILLED_FIRST = 500
"""Linux kills processes with a larger number first when memory is used up: this one before the server."""


class Killed(RuntimeError):
    """The process ended in the middle of a call. signal: what ended it, where it was one."""

    def __init__(self, code: int | None) -> None:
        super().__init__(code)
        self.signal = -code if code is not None and code < 0 else None

    def __str__(self) -> str:
        return f"the process that computes ended with status {self.args[0]}"


class Elsewhere:
    """load: makes what does the work, in the other process, with the first call; it is pickled. What it raises, that
    call raises. Methods as those of `work.Here`."""

    def __init__(self, load: Callable[[], Work]) -> None:
        self.load = load
        self.process: Any = None
        self._pipe: Connection | None = None
        self._closed = False
        self._answered = False  # at least once
        self._calls: dict[int, tuple[Connection, queue.Queue[tuple[str, Any]]]] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        atexit.register(self.close)
        with self._lock:
            self._start()

    def about(self) -> About:
        return self._answer("about")

    def compute(self, call: Call) -> Iterator[Event | None]:
        yield from self._asked("compute", call)

    def rank(self, image: Path, candidates: Sequence[Path]) -> list[RankedReference]:
        return self._answer("rank", image, candidates)

    def glimpse(self, call: Call, part: Part, seen: list[Found] | None) -> Glimpse:
        return self._answer("glimpse", call, part, seen)

    def choose(self, image: Path) -> Choice:
        return self._answer("choose", image)

    def close(self) -> None:
        """End the process. Who waits for an answer is cancelled."""
        atexit.unregister(self.close)
        with self._lock:
            self._pipe, self._closed = None, True
            self.process.kill()
        self._reader.join()  # it joins the process: of two threads that do, one does not learn that it has ended

    def _answer(self, name: str, *arguments: Any) -> Any:
        asked = self._asked(name, *arguments)
        while True:
            try:
                next(asked)
            except StopIteration as end:
                return end.value

    def _asked(self, name: str, *arguments: Any) -> Iterator[Any]:
        """What the call yields, and None at every heartbeat. Closing it, or stopping this thread, stops the call.

        Raises what the call raises, and `Killed`.
        """
        number, answers = next(self._numbers), queue.Queue[tuple[str, Any]]()
        kind = ""
        self._send(number, answers, name, arguments)
        try:
            while kind not in (RETURNED, FAILED):
                workers.check()
                try:
                    kind, value = answers.get(timeout=workers.HEARTBEAT)
                except queue.Empty:
                    yield None
                    continue
                if kind == YIELDED:
                    yield value
            if kind == FAILED:
                raise value
            return value
        finally:
            if kind not in (RETURNED, FAILED):
                self._stop(number, answers)

    def _send(self, number: int, answers: queue.Queue[tuple[str, Any]], name: str, arguments: Any) -> None:
        with self._lock:
            if self._closed:
                raise Cancelled
            if self._pipe is None:
                self._start()
            assert self._pipe is not None
            self._calls[number] = self._pipe, answers
            with contextlib.suppress(OSError):  # it has just ended: the thread that reads tells all who wait
                self._pipe.send_bytes(pickle.dumps((number, name, arguments)))

    def _stop(self, number: int, answers: queue.Queue[tuple[str, Any]]) -> None:
        """Stop a call, and wait until it has stopped."""
        with self._lock:
            if number in self._calls:
                with contextlib.suppress(OSError):
                    self._calls[number][0].send_bytes(pickle.dumps((number, STOP, ())))
        while answers.get()[0] not in (RETURNED, FAILED):
            pass

    def _start(self) -> None:
        ours, theirs = multiprocessing.Pipe()
        # A fork would have the locks and the OpenMP threads of this process in whatever state they are in.
        process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, self.load), daemon=True)
        process.start()
        theirs.close()
        self.process, self._pipe = process, ours
        self._reader = threading.Thread(target=self._read, args=(ours, process), name="def-answers", daemon=True)
        self._reader.start()

    def _read(self, pipe: Connection, process: Any) -> None:
        """Hand answers on to those who wait, until the process ends."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                number, kind, value = pickle.loads(pipe.recv_bytes())
                self._calls[number][1].put((kind, value))
                if kind in (RETURNED, FAILED):
                    del self._calls[number]
                self._answered = True
        process.join()
        with self._lock:
            if self._pipe is pipe:
                self._pipe = None
                if self._answered:  # else who starts the server says it
                    log.error("%s", Killed(process.exitcode))
            for number in [number for number, (used, _) in self._calls.items() if used is pipe]:
                error = Cancelled() if self._closed else Killed(process.exitcode)
                self._calls.pop(number)[1].put((FAILED, error))


def _serve(pipe: Connection, load: Callable[[], Work]) -> None:
    """What the other process does: each call in a thread, until the server is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server
    tqdm.set_lock(threading.RLock())  # its own is shared between processes: this one, killed, would leave it behind
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(KILLED_FIRST))
    work: Work | None = None
    sending, stops = threading.Lock(), dict[int, threading.Event]()
    while True:
        try:
            number, name, arguments = pickle.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)
        if name == STOP:
            if number in stops:
                stops[number].set()
            continue
        try:
            work = work or _in_passing(load)
        except Exception as error:  # of the model that was named; the next call tries again
            _tell(pipe, sending, number, FAILED, _portable(error))
        else:
            stops[number] = _begin(pipe, sending, number, getattr(work, name), arguments)


def _in_passing(load: Callable[[], Work]) -> Work:
    """What `load` returns, computed by a thread that ends.

    OpenMP keeps a team of threads for each thread that computes. Beside the team of a main thread that has loaded a
    model, all teams together have more threads than there are cores, and OpenMP lets them sleep between any two loops:
    calls took 1.8 times as long.
    """
    with ThreadPoolExecutor(1) as passing:
        return passing.submit(load).result()


def _begin(
    pipe: Connection, sending: threading.Lock, number: int, function: Callable[..., Any], arguments: Any
) -> threading.Event:
    """Start a call in a thread; returns what stops it. However it ends, the last thing sent says so."""

    def work() -> None:
        last: tuple[str, Any] = (RETURNED, None)  # also where it was stopped
        try:
            result = function(*arguments)
            if isgenerator(result):
                with closing(result):
                    for value in result:
                        _tell(pipe, sending, number, YIELDED, value)
                        workers.check()
            else:
                last = RETURNED, result
        except Exception as error:
            last = FAILED, _portable(error)
        finally:
            _tell(pipe, sending, number, *last)

    return workers.start(work, f"def-{number}")[1]


def _tell(pipe: Connection, sending: threading.Lock, number: int, kind: str, value: Any) -> None:
    with sending, contextlib.suppress(OSError):  # the server is gone
        pipe.send_bytes(pickle.dumps((number, kind, value)))


def _portable(error: Exception) -> Exception:
    """The error with its traceback as a note, which is lost between processes; another one where it cannot travel."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error

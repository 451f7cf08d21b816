"""Threads that compute with torch and can be stopped at any time."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

from torch.overrides import TorchFunctionMode

HEARTBEAT = 0.4
"""Seconds between two looks at whether the visitor is still there."""

WORKERS: dict[threading.Thread, threading.Event] = {}
"""The threads that compute now, each with the event that stops it."""

log = logging.getLogger(__name__)


def start(work: Callable[[], object], name: str) -> tuple[threading.Thread, threading.Event]:
    """Do `work` in a thread. Setting the event stops it at its next call of a torch function.

    The end of the program stops it too: a thread that computes while the interpreter shuts down would crash it.
    """
    stop = threading.Event()

    def guarded() -> None:
        try:
            with _Cancellable(stop):
                work()
        except Cancelled:
            log.info("%s was cancelled", name)
        finally:
            WORKERS.pop(threading.current_thread(), None)

    worker = threading.Thread(target=guarded, name=name, daemon=True)
    WORKERS[worker] = stop
    worker.start()
    return worker, stop


def check() -> None:
    """End this thread where it has been stopped. For a thread that waits, and calls no torch function."""
    stop = WORKERS.get(threading.current_thread())
    if stop is not None and stop.is_set():
        raise Cancelled


def heartbeats(work: Callable[[], object], name: str) -> Iterator[None]:
    """Do `work` in a thread and yield every `HEARTBEAT` seconds until it is done. Closing the iterator stops it.

    Raises:
        Whatever the work raises.
    """
    failed: list[Exception] = []

    def watched() -> None:
        try:
            work()
        except Exception as error:  # raised again in the thread that waits
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


@atexit.register
def _stop_all() -> None:
    running = dict(WORKERS)
    for stop in running.values():
        stop.set()
    for worker in running:
        worker.join(10)


class Cancelled(BaseException):
    """The work is no longer wanted, or the program ends.

    Not an `Exception`: no handler on the way may take it for a failure of its own.
    """


class _Cancellable(TorchFunctionMode):
    """Before each call of a torch function in this thread, look whether the work is still wanted."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__()
        self.stop = stop

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.stop.is_set():
            raise Cancelled
        return func(*args, **(kwargs or {}))

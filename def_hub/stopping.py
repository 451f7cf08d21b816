"""SIGTERM ends a program as Ctrl-C does, so that temporary files are deleted on the way."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

AGAIN = 0.05  # seconds


class Terminated(KeyboardInterrupt):
    """SIGTERM came. Not an `Exception`: it stops a folder as well."""


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM raise `Terminated` in the main thread. Elsewhere nothing is done.

    Python drops what is raised while it deletes an object, and a program that was told to stop would run on. So a
    signal whose exception was dropped is sent once more.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler, hook = signal.signal(signal.SIGTERM, _terminate), sys.unraisablehook

    def dropped(what: Any) -> None:
        if not isinstance(what.exc_value, KeyboardInterrupt):
            hook(what)
            return
        number = signal.SIGTERM if isinstance(what.exc_value, Terminated) else signal.SIGINT
        threading.Timer(AGAIN, os.kill, (os.getpid(), number)).start()  # not now: here it would be dropped, too

    sys.unraisablehook = dropped
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        sys.unraisablehook = hook


def _terminate(*_: object) -> None:
    raise Terminated

"""The examples of the repository, with results that are computed before anyone asks for them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from def_hub.service.runner import Progress
from def_hub.service.session import Rank, Session
from def_hub.service.uploads import check_photo, check_references
from def_hub.service.workers import HEARTBEAT

FOLDER = Path(__file__).resolve().parents[2] / "examples"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """name: prefix of the files in `FOLDER`. title: says what to look at. place: where that is, as shares of the width
    and the height."""

    name: str
    title: str
    place: tuple[float, float] = (0.5, 0.5)

    @property
    def photo(self) -> Path:
        return next(FOLDER.glob(f"{self.name}_lr.*"), FOLDER / f"{self.name}_lr.png")

    @property
    def references(self) -> list[Path]:
        return sorted(FOLDER.glob(f"{self.name}_ref*.jpg"))

    @property
    def original(self) -> Path:
        return FOLDER / f"{self.name}_hr.webp"


SHIPPED = (
    Example("street", "Cathedral · look at the mosaic", (0.41, 0.27)),
    Example("sign", "Road sign · read the letters", (0.80, 0.80)),
    Example("lund", "Street · roofs and windows", (0.68, 0.52)),
    Example("facade", "Façade, a JPEG · the portal", (0.5, 0.43)),
)
"""On the page: those whose references add 1 dB or more, see `tests/test_examples.py`."""


def examples() -> list[Example]:
    """Those whose files are there: all in a clone, none in an installed package."""
    return [example for example in SHIPPED if example.photo.exists()]


class PreparedExamples:
    """One session for each example, computed once and copied for every visitor who opens it.

    run: computes a session; at its end the session has its result.
    """

    def __init__(self, rank: Rank, run: Callable[[Session], Iterator[Progress]]) -> None:
        self._rank, self._run = rank, run
        self._done: dict[str, Session] = {}
        self._coming: dict[str, Progress] = {}  # what is or will be prepared, and how far it is
        self._wanted: set[str] = set()  # somebody waits for these
        self._lock = threading.Lock()

    def session(self, example: Example) -> Session:
        """A visitor's own copy of the example's session; it has no result while none is computed."""
        if example.name in self._done:
            return self._done[example.name].copy()
        session = Session()
        session.set_photo(check_photo(example.photo))
        session.set_uploads(check_references([str(path) for path in example.references]))
        if example.original.exists():
            session.set_original(example.original)
        session.example, session.look_at = example.name, example.place
        return session

    def follow(self, example: Example) -> Iterator[Progress]:
        """How far the preparation of an example is, every `HEARTBEAT` seconds until it ends.

        Somebody waits for it, so it is prepared next. Where nobody prepares it, nothing is yielded.
        """
        while (progress := self._coming.get(example.name)) is not None:
            self._wanted.add(example.name)
            yield progress
            time.sleep(HEARTBEAT)

    def prepare(self, chosen: list[Example]) -> None:
        """Compute what is missing. A failure is only logged: a visitor can still run the example."""
        missing = [example for example in chosen if example.name not in self._done]
        for example in missing:
            self._coming.setdefault(example.name, Progress())
        try:
            while missing:
                example = next((e for e in missing if e.name in self._wanted), missing[0])
                missing.remove(example)
                with self._lock:
                    self._prepare(example)
        finally:  # the program may be ending
            for example in missing:
                self._coming.pop(example.name, None)

    def _prepare(self, example: Example) -> None:
        try:
            if example.name not in self._done:
                session = self.session(example)
                session.assess()
                session.rank(self._rank)
                for progress in self._run(session):
                    self._coming[example.name] = progress
                self._done[example.name] = session
        except Exception:
            log.exception("the example %s could not be prepared", example.name)
        finally:
            self._coming.pop(example.name, None)

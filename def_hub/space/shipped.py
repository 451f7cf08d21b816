"""The examples that ship with the repository, with results that are computed before anyone asks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from def_hub.space.run import HEARTBEAT
from def_hub.space.studio import Progress
from def_hub.space.uploads import check_photo, check_references
from def_hub.space.visit import Rank, Visit

FOLDER = Path(__file__).resolve().parents[2] / "examples"
TITLES = {
    "street": "Cathedral: two photographs of it",
    "robot": "Robot: from two sides",
    "banana": "Bananas: one close-up",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """name: prefix of the files in `FOLDER`."""

    name: str
    title: str

    @property
    def photo(self) -> Path:
        return FOLDER / f"{self.name}_lr.png"

    @property
    def references(self) -> list[Path]:
        return sorted(FOLDER.glob(f"{self.name}_ref*.jpg"))

    @property
    def truth(self) -> Path:
        return FOLDER / f"{self.name}_hr.webp"


def examples() -> list[Example]:
    """Those whose files are there: all in a clone, none in an installed package."""
    return [e for e in (Example(name, title) for name, title in TITLES.items()) if e.photo.exists()]


class Prepared:
    """Visits to the examples, each computed once and shared by all who look.

    run: the computation of a visit, which ends with its outcome in it.
    """

    def __init__(self, rank: Rank, run: Callable[[Visit], Iterator[Progress]]) -> None:
        self._rank, self._run = rank, run
        self._done: dict[str, Visit] = {}
        self._coming: dict[str, Progress] = {}  # what is being prepared, or will be, and how far it is
        self._wanted: set[str] = set()  # those that somebody waits for
        self._lock = threading.Lock()

    def visit(self, example: Example) -> Visit:
        """A visitor's own copy of a visit to the example; without an outcome where none is computed yet."""
        if example.name in self._done:
            return self._done[example.name].own()
        visit = Visit()
        visit.set_photo(check_photo(example.photo))
        visit.set_uploads(check_references([str(path) for path in example.references]))
        if example.truth.exists():
            visit.set_truth(example.truth)
        return visit

    def follow(self, example: Example) -> Iterator[Progress]:
        """How far the example's preparation is, every `HEARTBEAT` seconds while it is under way or to come.

        It comes next, because it is waited for. Nothing is yielded where nobody prepares it.
        """
        while (progress := self._coming.get(example.name)) is not None:
            self._wanted.add(example.name)
            yield progress
            time.sleep(HEARTBEAT)

    def prepare(self, chosen: list[Example]) -> None:
        """Compute what is missing. A failure is logged: visitors can still run the example themselves."""
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
                visit = self.visit(example)
                visit.rank(self._rank)
                for progress in self._run(visit):
                    self._coming[example.name] = progress
                self._done[example.name] = visit
        except Exception:
            log.exception("the example %s could not be prepared", example.name)
        finally:
            self._coming.pop(example.name, None)

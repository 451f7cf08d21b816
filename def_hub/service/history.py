"""The results of one visit, each with all that it was made from, so that it can be opened again."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from def_hub import images
from def_hub.visualization import thumbnail

if TYPE_CHECKING:
    from def_hub.service.session import Session

MOST = 10
MAX_KEPT = 400_000_000  # bytes of all results together; the newest stays in any case
SIDE = 240  # pixels, longest side of a small picture


@dataclass(frozen=True)
class Entry:
    """session: a copy, as it was when its result was there. picture: the result, small. bytes: of its files."""

    session: Session
    picture: Path
    bytes: int


@dataclass
class History:
    """entries: newest first. Files are deleted with the last entry, or session, that holds them."""

    entries: list[Entry] = field(default_factory=list)

    def add(self, session: Session) -> None:
        """Keep a session's result. The oldest results go where there are too many, or too many bytes."""
        result = session.result
        if result is None or any(entry.session.result is result for entry in self.entries):
            return
        picture = result.root / "small.png"
        images.save_image(thumbnail(result.root / "result.png", SIDE), picture, compression=1)
        size = sum(path.stat().st_size for path in result.root.rglob("*") if path.is_file())
        kept = replace(_detached(session), history=History())
        self.entries = [Entry(kept, picture, size), *self.entries][:MOST]
        while len(self.entries) > 1 and sum(entry.bytes for entry in self.entries) > MAX_KEPT:
            self.entries.pop()

    def reopened(self, number: int) -> Session:
        """The session of an entry, to go on with; it keeps this history.

        Raises `ValueError` where there is no such entry, or where its photo is no longer here.
        """
        if not 0 <= number < len(self.entries):
            raise ValueError("This result is not kept any more.")
        session = self.entries[number].session
        if session.photo is None or not session.photo.path.is_file():
            raise ValueError("The photo of this result is gone: uploads are deleted after an hour.")
        return replace(_detached(session), history=self)


def _detached(session: Session) -> Session:
    """A copy that later changes of the other do not reach. The folder is shared: it holds the original."""
    return replace(
        session,
        uploads=[*session.uploads],
        ranked=[*session.ranked],
        chosen=[*session.chosen],
        drawings=dict(session.drawings),
        previewed=None,
        batch=None,
        cancelled=0.0,
    )

"""From folders of photos to entries with vectors: shared over processes, and never done twice.

What is finished is written beside the library every few photos, in `parts/`. A run that was killed is simply started
again: it reads the parts, and continues. At the end the parts become the library.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import file_digest
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from def_hub import images, video
from def_hub.reference.library.embedding import Embedder
from def_hub.reference.library.index import (
    Entry,
    Index,
    check_path,
    entries_from_json,
    entries_to_json,
    located,
    read_vectors,
    write_index,
    write_vectors,
)
from def_hub.sharing import Processes
from def_hub.writing import sweep

PARTS = "parts"
SAVE_EVERY, SAVE_SECONDS = 16, 10.0
"""A part is written after so many entries, or so many seconds."""
UNUSABLE = (ValueError, OSError, ModuleNotFoundError)
"""What a photo or a video that cannot be read raises."""


@dataclass
class Changes:
    """What an update did: how many entries were taken in, read again because their content changed, found under another
    name, and dropped because their file is gone. problems: one line for each file that was left out, and why."""

    added: int = 0
    changed: int = 0
    moved: int = 0
    gone: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = {"added": self.added, "changed": self.changed, "moved": self.moved, "gone": self.gone}
        return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "nothing changed"


def files_in(root: Path, folders: Iterable[str], left_out: Sequence[str] = ()) -> list[str]:
    """The pictures and videos of folders and of the folders in them, relative to `root`, each once, sorted. Hidden ones
    are left out, and so is what begins with a name in `left_out`."""
    found: dict[str, None] = {}
    for folder in folders:
        for path in _walk(root / folder):
            name = Path(os.path.normpath(path)).relative_to(root).as_posix()
            if not any(within(name, other) for other in left_out):
                found[name] = None
    return list(found)


def within(name: str, folder: str) -> bool:
    """Whether a file is a folder's, or that file itself."""
    return folder == "." or name == folder or name.startswith(folder + "/")


def problem(name: str, root: Path, error: Exception) -> str:
    """What is wrong with a file, in one line that begins with its name in the library."""
    words = str(error).replace(f"{root}/", "").removeprefix("candidates[0] ")
    return words if words.startswith(name) else f"{name}: {words}"


def _walk(folder: Path) -> Iterable[Path]:
    if folder.is_file():
        yield folder
        return
    pictures, others = images.sort_files(folder)
    yield from sorted([*pictures, *(path for path in others if video.is_video(path))])
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if not inner.is_symlink() and not (inner / "library.json").exists():
            yield from _walk(inner)


class Known:
    """Entries whose vectors are there: those of the library, and those of the parts that an ended run left."""

    def __init__(self, index: Index, parts: Iterable[tuple[Entry, Tensor]]) -> None:
        rows = [*zip(index.entries, index.vectors, strict=True), *parts]
        self._files: dict[tuple[str, int, int], dict[int | None, tuple[Entry, Tensor]]] = defaultdict(dict)
        self._contents: dict[str, dict[int | None, tuple[Entry, Tensor]]] = defaultdict(dict)
        for entry, vector in rows:
            self._files[entry.path, entry.size, entry.modified][entry.frame] = entry, vector
            self._contents[entry.digest][entry.frame] = entry, vector

    def unchanged(self, root: Path, path: str) -> list[tuple[Entry, Tensor]]:
        """What is known of a file whose size and time are those of last time."""
        try:
            status = (root / path).stat()
        except OSError:
            return []
        return list(self._files.get((path, status.st_size, status.st_mtime_ns), {}).values())

    def same_content(self, digest: str) -> list[tuple[Entry, Tensor]]:
        return list(self._contents.get(digest, {}).values())


@dataclass(frozen=True)
class Reader:
    """Makes entries and vectors of the files of a root. every: of so many frames of a video the sharpest is taken."""

    root: Path
    embedder: Embedder
    known: Known
    every: int

    def read(self, path: str) -> list[tuple[Entry, Tensor]]:
        """The entries of one file. Only content that is not known yet is looked at. Raises one of `UNUSABLE`."""
        file = located(self.root, check_path("", path))
        status = file.stat()
        with file.open("rb") as opened:
            digest = file_digest(opened, "sha256").hexdigest()
        entry = Entry(path, digest, status.st_size, status.st_mtime_ns)
        if known := self.known.same_content(digest):
            return [(replace(entry, frame=old.frame), vector) for old, vector in known]
        if video.is_video(file):
            frames = video.sharp_frames(file, self.every)
            return [(replace(entry, frame=at), self._vectors(picture)) for at, picture in frames]
        photo = images.read_photo(file, "", shorter_side=self.embedder.side)
        return [(entry, self._vectors(photo.over_white()))]

    def _vectors(self, picture: Tensor) -> Tensor:
        return self.embedder.photo(picture).half().cpu()


class Journal:
    """The parts that one process writes."""

    def __init__(self, folder: Path, embedder: str) -> None:
        self.folder, self.embedder = folder / PARTS, embedder
        self.rows: list[tuple[Entry, Tensor]] = []
        self.saved = time.monotonic()

    def add(self, rows: Iterable[tuple[Entry, Tensor]]) -> None:
        self.rows += rows
        if len(self.rows) >= SAVE_EVERY or time.monotonic() > self.saved + SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        if self.rows:
            self.folder.mkdir(parents=True, exist_ok=True)
            metadata = {"embedder": self.embedder, "entries": entries_to_json([entry for entry, _ in self.rows])}
            path = self.folder / f"{uuid.uuid4().hex}.safetensors"
            write_vectors(path, torch.stack([vector for _, vector in self.rows]), metadata)
        self.rows, self.saved = [], time.monotonic()

    def read(self) -> list[tuple[Entry, Tensor]]:
        """What the parts of all processes hold. A part of another embedder, or a damaged one, is read again from the
        photos."""
        found: list[tuple[Entry, Tensor]] = []
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                vectors, metadata = read_vectors(path)
                entries = entries_from_json(path, metadata.get("entries", ""))
            except ValueError:
                continue
            if metadata.get("embedder") == self.embedder and len(entries) == len(vectors):
                found += zip(entries, vectors, strict=True)
        return found


def bring_up_to_date(
    folder: Path, index: Index, root: Path, wanted: Sequence[str], embedder: Embedder, every: int
) -> tuple[Index, Changes]:
    """Write a library that holds exactly the files that are wanted; see the top of this file.

    Args:
        folder: of the library. index: what it holds. root: folder of the photos. wanted: paths relative to it.
        embedder: the one that made the vectors of `index`. every: see `Reader`.
    """
    processes = Processes()
    for written in (folder, folder / PARTS):
        sweep(written)
    journal = Journal(folder, embedder.name)
    known = Known(index, journal.read())
    processes.wait()  # nobody writes before all have read
    todo = [path for path in wanted if not known.unchanged(root, path)]
    reader = Reader(root, embedder, known, every)
    problems = []
    own = processes.share(todo)
    for path in tqdm(own, unit="file", desc="reading", disable=None if processes.first else True):
        try:
            journal.add(reader.read(path))
        except UNUSABLE as error:
            problems.append(problem(path, root, error))
    journal.save()
    problems = processes.gather(problems)
    processes.wait()
    if processes.first:
        _finish(folder, index, root, wanted, journal)
    processes.wait()
    return _result(folder, index, problems)


def _finish(folder: Path, index: Index, root: Path, wanted: Sequence[str], journal: Journal) -> None:
    """The parts become the library."""
    known = Known(index, journal.read())
    rows: dict[tuple[str, int | None], tuple[Entry, Tensor]] = {}
    for path in wanted:
        for entry, vector in known.unchanged(root, path):
            rows.setdefault((entry.digest, entry.frame), (entry, vector))  # a copy of a photo is no second reference
    entries = tuple(entry for entry, _ in rows.values())
    vectors = torch.stack([v for _, v in rows.values()]) if rows else index.vectors[:0]
    write_index(folder, replace(index, entries=entries, vectors=vectors))
    shutil.rmtree(journal.folder, ignore_errors=True)


def _result(folder: Path, before: Index, problems: list[str]) -> tuple[Index, Changes]:
    """The library as it is now, and what is new in it."""
    from def_hub.reference.library.index import read_index

    after = read_index(folder)
    old, new = ({(e.digest, e.frame): e for e in index.entries} for index in (before, after))
    changes = Changes(problems=problems)
    paths = {entry.path for entry in before.entries}
    present = {entry.path for entry in after.entries}
    for key, entry in new.items():
        if key in old:
            changes.moved += old[key].path != entry.path
        elif entry.path in paths:
            changes.changed += 1
        else:
            changes.added += 1
    changes.gone = sum(key not in new and entry.path not in present for key, entry in old.items())
    return after, changes

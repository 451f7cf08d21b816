"""Read folders of photos into a library: shared over processes, and no photo is read twice.

Every few photos, what is finished is written to `parts/` in the library's folder. A run that was killed is started
again by the same command; it reads the parts and continues. At the end the parts become the library.
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
from def_hub.reference.library.cells import cells_of
from def_hub.reference.library.descriptors import Descriptors
from def_hub.reference.library.embedding import Embedder
from def_hub.reference.library.index import (
    Entry,
    Index,
    check_path,
    entries_from_json,
    entries_to_json,
    located,
    read_descriptors,
    read_index,
    write_descriptors,
    write_index,
)
from def_hub.sharing import Processes
from def_hub.writing import sweep

PARTS, PART = "parts", "[0-9a-f]*.safetensors"
"""The folder of the parts, and what they are called: temporary files begin with a dot."""
SAVE_EVERY, SAVE_SECONDS = 16, 10.0
"""A part is written after this many entries, or this many seconds."""
UNUSABLE = (ValueError, OSError, ModuleNotFoundError)
"""Raised by a photo or a video that cannot be read."""


@dataclass
class Changes:
    """What an update did.

    added: new entries. changed: entries read again because their content is another one. renewed: entries read again
    because the embedder is another one. moved: entries whose file has another name now. gone: entries whose file is no
    longer there. problems: one line for each file that was left out, with the reason.
    """

    added: int = 0
    changed: int = 0
    renewed: int = 0
    moved: int = 0
    gone: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = {
            "added": self.added,
            "changed": self.changed,
            "read again for another embedder": self.renewed,
            "moved": self.moved,
            "gone": self.gone,
        }
        return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "nothing changed"


def files_in(root: Path, folders: Iterable[str], left_out: Sequence[str] = ()) -> list[str]:
    """The pictures and videos in folders and their subfolders, relative to `root`, each once, sorted. Hidden ones are
    left out, and so is everything in `left_out`."""
    found: dict[str, None] = {}
    for folder in folders:
        for path in _walk(root / folder):
            name = Path(os.path.normpath(path)).relative_to(root).as_posix()
            if not any(within(name, other) for other in left_out):
                found[name] = None
    return list(found)


def within(name: str, folder: str) -> bool:
    """Whether a file is in a folder, or is that file itself."""
    return folder == "." or name == folder or name.startswith(folder + "/")


def problem(name: str, root: Path, error: Exception) -> str:
    """An error about a file in one line, which begins with the file's name in the library."""
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


Row = tuple[Entry, Descriptors]
"""An entry with its descriptors, which are those of one photo."""


class Known:
    """Entries whose descriptors are there already: those of the library, and those that an interrupted run left."""

    def __init__(self, index: Index, parts: Iterable[Row]) -> None:
        rows = [*zip(index.entries, index.descriptors, strict=True), *parts]
        self._files: dict[tuple[str, int, int], dict[int | None, Row]] = defaultdict(dict)
        self._contents: dict[str, dict[int | None, Row]] = defaultdict(dict)
        for entry, descriptors in rows:
            self._files[entry.path, entry.size, entry.modified][entry.frame] = entry, descriptors
            self._contents[entry.digest][entry.frame] = entry, descriptors

    def unchanged(self, root: Path, path: str) -> list[Row]:
        """The entries of a file that still has the size and time that it had."""
        try:
            status = (root / path).stat()
        except OSError:
            return []
        return list(self._files.get((path, status.st_size, status.st_mtime_ns), {}).values())

    def same_content(self, digest: str) -> list[Row]:
        """The entries of any file with this content."""
        return list(self._contents.get(digest, {}).values())


@dataclass(frozen=True)
class Reader:
    """Makes the entries of files in `root`. Of every `every` frames of a video the sharpest becomes an entry."""

    root: Path
    embedder: Embedder
    known: Known
    every: int

    def read(self, path: str) -> list[Row]:
        """The entries of one file. Content that is known already is not embedded again. Raises one of `UNUSABLE`."""
        file = located(self.root, check_path("", path))
        status = file.stat()
        with file.open("rb") as opened:
            digest = file_digest(opened, "sha256").hexdigest()
        entry = Entry(path, digest, status.st_size, status.st_mtime_ns)
        if known := self.known.same_content(digest):
            return [(replace(entry, frame=old.frame), descriptors) for old, descriptors in known]
        if video.is_video(file):
            frames = video.sharp_frames(file, self.every)
            return [(replace(entry, frame=at), self._described(picture)) for at, picture in frames]
        photo = images.read_photo(file, "", shorter_side=self.embedder.side)
        return [(entry, self._described(photo.over_white()))]

    def _described(self, picture: Tensor) -> Descriptors:
        cells, grid = cells_of(picture)
        regions = self.embedder.photo(picture).half().cpu()
        return Descriptors(regions[None], cells[None], torch.tensor([grid], dtype=torch.int16))


class Journal:
    """What processes have finished but not yet put into the library: the files in `parts/`."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder, self.fingerprint = folder / PARTS, fingerprint
        self.rows: list[Row] = []
        self.saved = time.monotonic()

    def add(self, rows: Iterable[Row]) -> None:
        self.rows += rows
        if len(self.rows) >= SAVE_EVERY or time.monotonic() > self.saved + SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        if self.rows:
            self.folder.mkdir(parents=True, exist_ok=True)
            entries = entries_to_json([entry for entry, _ in self.rows])
            descriptors = Descriptors.joined([one for _, one in self.rows])
            path = self.folder / f"{uuid.uuid4().hex}.safetensors"
            write_descriptors(path, descriptors, {"embedder": self.fingerprint, "entries": entries})
        self.rows, self.saved = [], time.monotonic()

    def read(self) -> list[Row]:
        """The parts of all processes. A damaged part, or one of another embedder, is left out: its photos are read
        again."""
        found: list[Row] = []
        for path in sorted(self.folder.glob(PART)):
            try:
                descriptors, metadata = read_descriptors(path)
                entries = entries_from_json(path, metadata.get("entries", ""))
            except ValueError:
                continue
            if metadata.get("embedder") == self.fingerprint and len(entries) == len(descriptors):
                found += zip(entries, descriptors, strict=True)
        return found


def bring_up_to_date(
    folder: Path, before: Index, wanted: Sequence[str], root: Path, embedder: Embedder, every: int
) -> tuple[Index, Changes]:
    """Write a library that holds exactly the wanted files; see the top of this file.

    Args:
        folder: of the library.
        before: what it holds. Photos are read again if another embedder made its descriptors.
        wanted: paths of files, relative to `root`.
        every: see `Reader`.
    """
    processes = Processes()
    for written in (folder, folder / PARTS):
        sweep(written)
    index = replace(before, embedder=embedder.name, fingerprint=embedder.fingerprint)
    if before.fingerprint != embedder.fingerprint:
        index = replace(index, entries=(), descriptors=Descriptors())
    journal = Journal(folder, embedder.fingerprint)
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
        _finish(folder, index, wanted, root, journal)
    processes.wait()
    after = read_index(folder)
    return after, _changes(before, after, problems)


def _finish(folder: Path, index: Index, wanted: Sequence[str], root: Path, journal: Journal) -> None:
    """Put the parts into the library."""
    known = Known(index, journal.read())
    rows: dict[tuple[str, int | None], Row] = {}
    for path in wanted:
        for entry, descriptors in known.unchanged(root, path):
            # a copy of a photo is no second reference
            rows.setdefault((entry.digest, entry.frame), (entry, descriptors))
    entries = tuple(entry for entry, _ in rows.values())
    descriptors = Descriptors.joined([one for _, one in rows.values()])
    write_index(folder, replace(index, entries=entries, descriptors=descriptors))
    shutil.rmtree(journal.folder, ignore_errors=True)


def _changes(before: Index, after: Index, problems: list[str]) -> Changes:
    """What is new in a library."""
    old, new = ({(e.digest, e.frame): e for e in index.entries} for index in (before, after))
    changes = Changes(problems=problems)
    paths = {entry.path for entry in before.entries}
    present = {entry.path for entry in after.entries}
    for key, entry in new.items():
        if key in old:
            changes.moved += old[key].path != entry.path
            changes.renewed += before.fingerprint != after.fingerprint
        elif entry.path in paths:
            changes.changed += 1
        else:
            changes.added += 1
    changes.gone = sum(key not in new and entry.path not in present for key, entry in old.items())
    return changes

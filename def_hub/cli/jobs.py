"""Which file becomes which, and whether all of it may be written: decided before anything is computed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from def_hub import images
from def_hub.naming import distinct

EXPLAINING = ("enhanced.png", "transferred.png", "confidence.png", "matches.png", "provenance.png", "report.json")
"""What is written into the folder of `--save-intermediates`, see `visualization.pictures`."""


@dataclass(frozen=True)
class Job:
    """One picture to enlarge. explanation: folder for what explains the result."""

    source: Path
    target: Path
    explanation: Path | None = None

    def writes(self) -> tuple[Path, ...]:
        """Every file that it will write."""
        folder = self.explanation
        return (self.target, *(folder / name for name in EXPLAINING)) if folder is not None else (self.target,)


def plan(source: Path, output: str, explanation: Path | None, recursive: bool) -> list[Job]:
    """A folder goes to a folder; a file to a file, or into a folder as a PNG.

    Args:
        output: as it was written: with a separator at its end it is a folder, whatever its name looks like.

    Raises:
        FileNotFoundError: where there is no such file or folder.
        ValueError: for a folder without pictures, or one that would be enlarged into a file.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file or folder")
    target = Path(output)
    is_folder = os.path.isdir(target) or output.endswith(("/", os.sep))
    if source.is_file():
        into = is_folder or not target.suffix
        return [Job(source, target / f"{source.stem}.png" if into else target, explanation)]
    if os.path.isfile(target) or (not is_folder and target.suffix.lower() in images.SUFFIXES):
        raise ValueError(f"{target}: a folder is enlarged into a folder, got a file name")
    pictures = [path for folder in _folders(source, target, explanation, recursive) for path in _sorted(folder)[0]]
    if not pictures:
        raise ValueError(f"{source}: no pictures in this folder")
    names = distinct([path.relative_to(source) for path in pictures])
    return [
        Job(path, target / f"{name}.png", None if explanation is None else explanation / name)
        for path, name in zip(pictures, names, strict=True)
    ]


def left_out(source: Path, output: str, explanation: Path | None, recursive: bool) -> list[Path]:
    """The files of a folder that `plan` does not take, because they are no pictures."""
    folders = _folders(source, Path(output), explanation, recursive)
    return [path for folder in folders for path in _sorted(folder)[1]]


def check(jobs: Sequence[Job], references: Sequence[Path], bits: int) -> None:
    """Every path that will be written, against every input and every other output.

    Raises:
        ValueError: where one would overwrite an input or another one, or has a suffix that cannot be written.
        OSError: where one cannot be written.
    """
    inputs = [*references, *(job.source for job in jobs)]
    given = {key for path in inputs for key in _keys(path)}
    written: dict[object, Path] = {}
    for job in jobs:
        images.check_suffix(job.target, bits)
        for path in job.writes():
            images.check_writable(path)
            for key in _keys(path):
                if key in given:
                    raise ValueError(f"{path}: would overwrite an input; choose another name")
                if key in written:
                    raise ValueError(f"{path}: would be written twice, also as {written[key]}; choose another name")
            written |= dict.fromkeys(_keys(path), path)


def _folders(source: Path, target: Path, explanation: Path | None, recursive: bool) -> Iterator[Path]:
    """The folder and, where asked for, those in it, but for hidden ones and those that results are written to."""
    yield source
    if not recursive:
        return
    results = {path.resolve() for path in (target, explanation) if path is not None}
    for folder in sorted(path for path in source.iterdir() if path.is_dir() and not path.is_symlink()):
        if not folder.name.startswith(".") and folder.resolve() not in results:
            yield from _folders(folder, target, explanation, recursive)


def _sorted(folder: Path) -> tuple[list[Path], list[Path]]:
    return images.sort_files(folder)


def _keys(path: Path) -> list[object]:
    """What tells a file from others: its name, links followed, and, where it exists, its number on its device."""
    keys: list[object] = [str(path.resolve())]
    try:
        found = path.stat()
    except OSError:
        return keys
    return [*keys, (found.st_dev, found.st_ino)] if found.st_ino else keys

"""Several photos with the same references: one run after the other, a table of what came out, one ZIP."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from def_hub.naming import distinct
from def_hub.service.call import RunOptions
from def_hub.service.result import Result
from def_hub.service.runner import Progress, Runner, complaint
from def_hub.service.session import Session
from def_hub.service.temporary import PREFIX
from def_hub.service.uploads import MAX_REFERENCES, MAX_RESULT_PIXELS, Upload, check_photo

MAX_PHOTOS = 20
MAX_PIXELS = 4 * MAX_RESULT_PIXELS
"""Of all results of a batch together."""

State = Literal["waiting", "running", "done", "failed", "cancelled"]


@dataclass
class Item:
    """One photo. upload: None where it was refused. words: what went wrong.

    size: of the result, as "width×height". share: of the detail that came from the references, None without
    references. error: by how much the shrunken result differs from the photo, in levels of 255. seconds: of the run.
    """

    name: str
    upload: Upload | None = None
    state: State = "waiting"
    words: str = ""
    size: str = ""
    share: float | None = None
    error: float | None = None
    seconds: float | None = None


@dataclass
class Batch:
    """folder: the results and the ZIP; deleted when nothing holds the batch any more. archive: None while nothing is
    done. made_with: the options and references of what is done."""

    folder: TemporaryDirectory
    items: list[Item] = field(default_factory=list)
    archive: Path | None = None
    made_with: Any = None

    @classmethod
    def of(cls, paths: Sequence[str]) -> Batch:
        """Photos that were given. One that cannot be taken is listed, with the reason, and costs no other."""
        if len(paths) > MAX_PHOTOS:
            raise ValueError(f"At most {MAX_PHOTOS} photos are taken at a time, got {len(paths)}.")
        folder = TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
        return cls(folder, [_item(path) for path in paths])

    def run(self, runner: Runner, session: Session, options: RunOptions) -> Iterator[Progress]:
        """Enlarge those that are not done, with the references of the session. Yields the progress of the one at work.

        A photo that fails costs no other. Closing the iterator stops inside the one at work; what is done stays.

        Raises `ValueError` where the results would be too large together.
        """
        self._check_size(options)
        folder = Path(self.folder.name) / "results"
        made_with = (options, session.inputs[1:])
        if made_with != self.made_with:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        for item in self.items:
            if item.upload is not None and (item.state != "done" or made_with != self.made_with):
                item.state, item.words = "waiting", ""
        self.made_with = made_with
        names = distinct([Path(item.name) for item in self.items])
        try:
            for item, name in zip(self.items, names, strict=True):
                if item.upload is None or item.state != "waiting":
                    continue
                yield from self._one(item, runner, with_photo(session, item.upload), options, folder / name.name)
        finally:
            for item in self.items:
                item.state = "cancelled" if item.state in ("waiting", "running") else item.state
            self._pack(folder)

    def _one(
        self, item: Item, runner: Runner, session: Session, options: RunOptions, target: Path
    ) -> Iterator[Progress]:
        item.state = "running"
        try:
            with closing(runner.run(session, options)) as steps:  # type: ignore[type-var]
                yield from steps
        except Exception as error:
            item.state, item.words = "failed", complaint(error)
            return
        assert session.result is not None
        _fill(item, session.result)
        kept = target.with_name(f"{target.name}_x{options.settings.scale}.png")
        shutil.copyfile(session.result.root / "result.png", kept)

    def _check_size(self, options: RunOptions) -> None:
        pixels = sum(item.upload.height * item.upload.width for item in self.items if item.upload is not None)
        if (large := pixels * options.settings.scale**2) > MAX_PIXELS:
            raise ValueError(
                f"The results would have {large / 1e6:.0f} million pixels together; at most {MAX_PIXELS / 1e6:g} "
                "million are made at a time. Give fewer photos or choose a smaller scale."
            )

    def _pack(self, folder: Path) -> None:
        """All results that are done in one ZIP. PNG files are compressed already."""
        files = sorted(folder.iterdir())
        self.archive = Path(self.folder.name) / f"{len(files)} photos.zip" if files else None
        if self.archive is not None:
            with zipfile.ZipFile(self.archive, "w", zipfile.ZIP_STORED) as archive:
                for path in files:
                    archive.write(path, path.name)


def with_photo(session: Session, photo: Upload) -> Session:
    """A copy of a session with another photo and the same references: those chosen, or all where none is."""
    mine = session.copy()
    chosen = mine.chosen or list(range(len(mine.uploads)))[:MAX_REFERENCES]
    mine.example = mine.result = None
    mine.set_photo(photo)
    mine.chosen = chosen
    return mine


def _item(path: str) -> Item:
    try:
        upload = check_photo(path)
        return Item(upload.path.name, upload)
    except Exception as error:
        return Item(Path(path).name, None, "failed", complaint(error))


def _fill(item: Item, result: Result) -> None:
    """What the table says of a result."""
    item.state, item.seconds = "done", result.seconds
    item.share = result.from_references if result.call.references else None
    if result.report:  # else the pictures that explain it could not be drawn
        item.size = result.report["sizes"]["output"].replace("x", "×")
        item.error = result.report["scores"]["consistency_error"]

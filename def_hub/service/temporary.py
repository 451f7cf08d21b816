"""One folder for everything temporary while the page is served, so that no visitor's picture outlives the process.

Gradio deletes uploads after an hour, and a session deletes its folder with itself. Files of a process that was killed
are found by their folder's name when the page is served the next time.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there, and nothing swept
    fcntl = None  # type: ignore[assignment]

PREFIX = "def_hub-"
SERVED = f"{PREFIX}served-"
GRADIO = "GRADIO_TEMP_DIR"  # where Gradio puts uploads; it would win over `tempfile.tempdir`
UPLOADS = "gradio"  # the folder, in ours, for them


@contextmanager
def own_folder() -> Iterator[Path]:
    """Put all temporary files of this process, also Gradio's, into one folder that is deleted at the end.

    It lies where `GRADIO_TEMP_DIR` says, or else among the system's temporary files. Uploads are in its `UPLOADS`.
    Folders of processes that are dead are deleted now: a process holds a lock on its folder as long as it lives.
    """
    chosen = os.environ.get(GRADIO)
    where = Path(chosen or tempfile.gettempdir())
    where.mkdir(parents=True, exist_ok=True)
    _sweep(where)
    folder, lock = _locked(where)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    os.environ[GRADIO] = str(folder / UPLOADS)
    try:
        yield folder
    finally:
        tempfile.tempdir = before
        os.environ.pop(GRADIO)
        if chosen is not None:
            os.environ[GRADIO] = chosen
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


@contextmanager
def forgetting(folder: Path, age: float, every: float = 600) -> Iterator[None]:
    """Every `every` seconds, delete the files in a folder that are older than `age` seconds. Those there now stay.

    Gradio does this too, but forgets the files of each component that an event changes.
    """
    kept, over = set(folder.rglob("*")), threading.Event()

    def look() -> None:
        while not over.wait(every):
            delete_old(folder, age, kept)

    looking = threading.Thread(target=look, name="def-forget", daemon=True)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join(10)


def delete_old(folder: Path, age: float, kept: Set[Path]) -> None:
    """Delete the files in a folder that were made, or handed out again, more than `age` seconds ago."""
    for path in set(folder.rglob("*")) - kept:
        with suppress(OSError):  # gone
            if path.is_file() and time.time() - path.lstat().st_ctime > age:
                path.unlink()


def _locked(where: Path) -> tuple[Path, int | None]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=SERVED, dir=where))
        if fcntl is None:
            return folder, None
        with suppress(FileNotFoundError):  # another process swept it before it was locked
            lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.is_dir():
                return folder, lock
            os.close(lock)


def _sweep(where: Path) -> None:
    for folder in where.glob(f"{SERVED}*") if fcntl else ():
        with suppress(OSError):  # another user's, or gone
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)

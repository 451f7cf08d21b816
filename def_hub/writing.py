"""Files that are written completely or not at all: to a temporary name beside them, then renamed.

A process that is killed leaves its temporary files behind. The next one that writes there deletes them.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from safetensors import SafetensorError

DAY = 86_400
_TEMPORARY = re.compile(r"\.def-([0-9a-f]{4})-(\d+)-[0-9a-f]+(\.\w+)?")
_HOST = f"{zlib.crc32(socket.gethostname().encode()) & 0xFFFF:04x}"
_STARTED = time.time()


def temporary_name(path: Path) -> Path:
    """A name beside `path` that no other thread, process or machine uses, with the suffix of `path`.

    It is short: a name of 255 bytes leaves no room for anything added to it.
    """
    return path.with_name(f".def-{_HOST}-{os.getpid()}-{threading.get_ident():x}{path.suffix}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name to write to. Afterwards the file takes the place of `path`; after an error it is deleted.

    Raises:
        OSError: where it cannot be written, with `path` and the reason, a full disk for one.
    """
    temporary = temporary_name(path)
    try:
        with _named(path):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_files(folder: Path) -> Iterator[Path]:
    """A temporary folder to write files to. Afterwards each takes the place of the one of its name in `folder`.

    Raises `OSError` as `replacing`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(folder.with_suffix(""))
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with _named(folder):
            temporary.mkdir()
            yield temporary
            for path in sorted(p for p in temporary.rglob("*") if p.is_file()):
                target = folder / path.relative_to(temporary)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def appending(path: Path) -> Iterator[TextIO]:
    """The end of a text file in UTF-8. Raises `OSError` as `replacing`."""
    with _named(path), path.open("a", newline="", encoding="utf-8") as file:
        yield file


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, completely or not at all. Raises `OSError` as `replacing`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sweep(folder: Path, *, recursive: bool = False) -> None:
    """Delete the temporary files and folders in `folder` whose process has ended, on this machine, or that are older
    than a day. recursive: also those in its folders."""
    for path in list(folder.rglob(".def-*") if recursive else folder.glob(".def-*")):
        found = _TEMPORARY.fullmatch(path.name)
        if found is None:
            continue
        with suppress(OSError):  # gone meanwhile
            if _is_left_behind(path, found[1], int(found[2])):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What goes wrong with a file is said with its name. safetensors has an error of its own for a full disk."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise OSError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error})") from error


def _is_left_behind(path: Path, host: str, process: int) -> bool:
    changed = path.lstat().st_mtime
    if time.time() - changed > DAY:
        return True
    if host != _HOST:
        return False
    if process == os.getpid():
        return changed < _STARTED  # of an earlier process of the same number, as in containers
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:  # there, but another user's
        return False
    return False

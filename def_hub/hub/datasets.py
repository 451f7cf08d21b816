"""A data set on the Hub → a folder of pictures, which evaluation and training read as any other folder."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HOME

from def_hub.hub.errors import plainly
from def_hub.writing import sweep, temporary_name

TRUTH = ("image", "hr", "gt", "hq", "truth", "target", "input")
"""Names of the column with sharp pictures, the first that is there."""
GIVEN = ("lr", "lq", "low")
"""Names of a column with LR pictures that nobody made from the sharp ones."""
REFERENCES = r"ref(erence)?s?_?\d*"
"""Names of columns with references, in their order: `ref`, `reference`, `ref1`, `references` (a list) …"""


def folder_of(name: str, split: str = "test", limit: int | None = None) -> Path:
    """A folder as it is; `hub:user/name` or `hub:user/name:split` as the folder that `fetch` makes of it."""
    if not name.startswith("hub:"):
        return Path(name)
    repository, _, given = name.removeprefix("hub:").partition(":")
    return fetch(repository, given or split, limit=limit)


def fetch(name: str | Path, split: str = "test", *, limit: int | None = None, into: str | Path | None = None) -> Path:
    """The folder with the pictures of a data set, streamed from the Hub once and kept.

    Files are kept as they were published, byte by byte, in the layouts of `evaluation.datasets`: `NNNNN_0`, `NNNNN_1` …
    where there are references, `LR/` and `HR/` where LR pictures are given, plain pictures otherwise.

    Args:
        name: "user/name" on the Hub, or a folder that `datasets.load_dataset` reads.
        limit: only so many pictures.
        into: where folders are kept; by default beside the Hub's cache.

    Raises:
        ModuleNotFoundError: without the library `datasets`.
        ValueError: for a data set without a column of pictures, or an empty split.
        OSError: where the repository, the permission or the connection is missing.
    """
    if find_spec("datasets") is None:
        raise ModuleNotFoundError("data sets on the Hub need the library datasets: pip install 'def-hub[hub-data]'")
    parent = Path(HF_HOME) / "def-hub" / "datasets" if into is None else Path(into)
    folder = parent / re.sub(r"[^\w.-]+", "--", f"{name}-{split}" + ("" if limit is None else f"-{limit}")).strip("-")
    if folder.is_dir():
        return folder
    sweep(parent)
    temporary = temporary_name(folder.with_suffix(""))
    try:
        for number, row in enumerate(_rows(str(name), split)):
            if limit is not None and number >= limit:
                break
            _write(row, temporary, f"{number:05}")
        if not temporary.is_dir():
            raise ValueError(f"{name}: its split {split} is empty")
        try:
            temporary.rename(folder)  # a stopped download leaves nothing that looks whole
        except OSError:
            if not folder.is_dir():  # another process was faster
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _rows(name: str, split: str) -> Iterator[dict[str, Any]]:
    """Row by row, pictures as the bytes that were published."""
    from datasets import Image, List, load_dataset

    with plainly(name):
        stream = load_dataset(name, split=split, streaming=True)
    for column, kind in (stream.features or {}).items():
        if isinstance(kind, Image):
            stream = stream.cast_column(column, Image(decode=False))
        elif isinstance(kind, List) and isinstance(kind.feature, Image):
            stream = stream.cast_column(column, List(Image(decode=False)))
    yield from stream


def _write(row: dict[str, Any], folder: Path, name: str) -> None:
    columns = {column.lower(): column for column in row}
    truth = next((columns[word] for word in TRUTH if word in columns), None)
    if truth is None:
        raise ValueError(f"expected a column {', '.join(TRUTH)}; this data set has {', '.join(row)}")
    given = next((columns[word] for word in GIVEN if word in columns), None)
    references = [
        picture
        for column in row
        if re.fullmatch(REFERENCES, column.lower())
        for picture in (row[column] if isinstance(row[column], list) else [row[column]])
        if picture is not None
    ]
    if given is not None:
        files = {f"LR/{name}": row[given], f"HR/{name}": row[truth]}
    elif references:
        files = {f"{name}_{number}": picture for number, picture in enumerate([row[truth], *references])}
    else:
        files = {name: row[truth]}
    for path, picture in files.items():
        target = folder / f"{path}.png"  # pictures are opened by content, whatever their suffix
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_bytes(picture))


def _bytes(picture: Any) -> bytes:
    if isinstance(picture, dict) and picture.get("bytes"):
        return picture["bytes"]
    if isinstance(picture, dict) and picture.get("path"):
        return Path(picture["path"]).read_bytes()
    raise ValueError(f"expected a picture, got {type(picture).__name__}")

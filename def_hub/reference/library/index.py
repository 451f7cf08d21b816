"""The file of a library: a folder with `library.json`, what it holds, and `vectors-….safetensors`, which is mapped.

A library may come from somebody else, so nothing in it is believed: its format version, its sizes and types, and every
path are checked when it is read. A path may not lead outside the root, and a photo counts only while its content has
the hash that is written here: a library can name no file whose content its maker did not have.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from def_hub.writing import replacing, write_text

FORMAT = 1
INDEX = "library.json"
VECTORS = re.compile(r"vectors-[0-9a-f]{16}\.safetensors")
MAX_ENTRIES, MAX_INDEX_BYTES, MAX_DIMENSION, MAX_REGIONS = 1_000_000, 500_000_000, 8192, 256
NEVER = ("\0", "\n", "\r")


@dataclass(frozen=True)
class Entry:
    """A photo, or one frame of a video.

    path: relative to the root, with "/". digest: SHA-256 of the file. size, modified: bytes, and nanoseconds since
    1970, of the file when it was read; a file with both unchanged is taken as unchanged. frame: the time stamp of a
    video's frame, in the units of its stream; None for a photo.
    """

    path: str
    digest: str
    size: int
    modified: int
    frame: int | None = None

    @property
    def name(self) -> str:
        """For people."""
        return self.path if self.frame is None else f"{self.path}#{self.frame}"


@dataclass(frozen=True)
class Index:
    """What a library holds.

    embedder: what made the vectors, see `embedding.make_embedder`. root: folder of the photos, relative to the library,
    or absolute where the two have no common parent. folders: those that were searched for photos. left_out: what was
    removed by name; `update` does not take it back. vectors: `[N, R, D]` float16, mapped; entry n has R regions.
    """

    embedder: str
    root: str
    folders: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()
    vectors: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 0, dtype=torch.float16), repr=False)


def read_index(folder: Path) -> Index:
    """The index of a library.

    Raises:
        FileNotFoundError: where there is no library.
        ValueError: for a newer format, a damaged file, or one that nobody could have written with this program.
    """
    path = folder / INDEX
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no library here; make one with `def-hub library build DIR -o {folder}`")
    if path.stat().st_size > MAX_INDEX_BYTES:
        raise ValueError(f"{path}: expected at most {MAX_INDEX_BYTES // 10**6} MB")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged, not JSON ({error})") from error
    version = content.get("format") if isinstance(content, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(f"{path}: not the index of a library")
    if version > FORMAT:
        raise ValueError(f"{path}: format {version} is newer than this def-hub knows ({FORMAT}); install a newer one")
    _expect(path, content, {"embedder": str, "root": str, "folders": list, "left_out": list, "vectors": str})
    _expect(path, content, {"entries": list})
    if len(content["entries"]) > MAX_ENTRIES:
        raise ValueError(f"{path}: expected at most {MAX_ENTRIES} entries, got {len(content['entries'])}")
    if not VECTORS.fullmatch(content["vectors"]):
        raise ValueError(f"{path}: {content['vectors']!r} is no name of a file of vectors")
    entries = tuple(_entry(path, number, values) for number, values in enumerate(content["entries"]))
    folders, left_out = (tuple(check_path(path, p) for p in content[key]) for key in ("folders", "left_out"))
    vectors = read_vectors(folder / content["vectors"])[0]
    if len(vectors) != len(entries):
        raise ValueError(f"{path}: has {len(entries)} entries, its vectors are for {len(vectors)}")
    return Index(content["embedder"], content["root"], folders, left_out, entries, vectors)


def write_index(folder: Path, index: Index) -> None:
    """Write a library. A process that ends at any moment leaves the old one or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = sha256(repr([(e.digest, e.frame) for e in index.entries]).encode() + index.embedder.encode())
    name = f"vectors-{digest.hexdigest()[:16]}.safetensors"
    if not (folder / name).exists():  # the name says the content
        write_vectors(folder / name, index.vectors, {})
    content = {
        "format": FORMAT,
        "embedder": index.embedder,
        "root": index.root,
        "folders": index.folders,
        "left_out": index.left_out,
        "vectors": name,
        "entries": [asdict(entry) for entry in index.entries],
    }
    write_text(folder / INDEX, json.dumps(content, indent=0) + "\n")  # names may hold bytes that are no UTF-8
    for other in folder.glob("vectors-*.safetensors"):
        if other.name != name:
            with contextlib.suppress(OSError):  # somebody has it mapped, where the system minds
                other.unlink()


def write_vectors(path: Path, vectors: Tensor, metadata: dict[str, str]) -> None:
    """Write vectors `[N, R, D]`, completely or not at all."""
    with replacing(path) as temporary:
        # not `save_file`, whose files only their owner may read
        temporary.write_bytes(save({"vectors": vectors.to(torch.float16).contiguous()}, metadata=metadata))


def read_vectors(path: Path) -> tuple[Tensor, dict[str, str]]:
    """Vectors `[N, R, D]`, mapped into memory, and the metadata. Raises ValueError for anything else in the file."""
    try:
        with safe_open(path, framework="pt") as opened:
            if list(opened.keys()) != ["vectors"]:
                raise ValueError(f"{path}: expected one tensor, vectors")
            header = opened.get_slice("vectors")
            shape, kind = header.get_shape(), header.get_dtype()
            if kind != "F16" or len(shape) != 3 or shape[0] > MAX_ENTRIES:
                raise ValueError(f"{path}: expected float16 vectors [N, R, D], got {kind} {shape}")
            if shape[1] > MAX_REGIONS or shape[2] > MAX_DIMENSION:
                raise ValueError(f"{path}: expected at most {MAX_REGIONS} regions of {MAX_DIMENSION}, got {shape}")
            return opened.get_tensor("vectors"), opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: damaged or missing vectors ({error})") from error


def check_path(source: Path | str, path: Any) -> str:
    """A path of an index, relative to its root. Raises ValueError for one that leads outside."""
    if not isinstance(path, str) or not path or any(c in path for c in NEVER) or "\\" in path or ":" in path[:2]:
        raise ValueError(f"{source}: {path!r} is no relative path")
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise ValueError(f"{source}: {path!r} can name no file") from error
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        raise ValueError(f"{source}: {path!r} leads outside the library's root")
    return path


def located(root: Path, path: str) -> Path:
    """The file of an entry. Raises ValueError where a link leads it outside the root."""
    found = root / path
    if not found.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{path}: a link leads outside the library's root")
    return found


def entries_to_json(entries: Sequence[Entry]) -> str:
    return json.dumps([asdict(entry) for entry in entries])


def entries_from_json(source: Path, text: str) -> list[Entry]:
    """The reverse of `entries_to_json`. Raises ValueError for anything else."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source}: damaged, not JSON ({error})") from error
    if not isinstance(values, list):
        raise ValueError(f"{source}: expected a list of entries")
    return [_entry(source, number, value) for number, value in enumerate(values)]


def _entry(source: Path, number: int, values: Any) -> Entry:
    names = {f.name for f in fields(Entry)}
    if not isinstance(values, dict) or set(values) != names:
        raise ValueError(f"{source}: entry {number} is damaged")
    digest, frame = values["digest"], values["frame"]
    whole = all(_is_whole(values[key]) and 0 <= values[key] < 2**63 for key in ("size", "modified"))
    if not (isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) and whole):
        raise ValueError(f"{source}: entry {number} is damaged")
    if frame is not None and not (_is_whole(frame) and abs(frame) < 2**62):
        raise ValueError(f"{source}: entry {number} is damaged")
    return Entry(check_path(source, values["path"]), digest, values["size"], values["modified"], frame)


def _expect(source: Path, content: dict[str, Any], kinds: dict[str, type]) -> None:
    for key, kind in kinds.items():
        if not isinstance(content.get(key), kind):
            raise ValueError(f"{source}: damaged, {key} is missing or no {kind.__name__}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and math.isfinite(value)

"""A library on disk: a folder with `library.json`, which lists the photos, and `vectors-….safetensors`, their
descriptors, which are mapped into memory.

A library may come from somebody else. Its format version, its sizes and types, and every path are therefore checked
when it is read. No path may lead outside the root. A photo is used only while its content has the hash that is written
here, so a library cannot show a file that its maker did not have.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from def_hub.reference.library.descriptors import Descriptors
from def_hub.writing import replacing, write_text

FORMAT = 2
"""2 added local descriptors and the fingerprint of the embedder."""
INDEX = "library.json"
VECTORS = re.compile(r"vectors-[0-9a-f]{16}\.safetensors")
MAX_ENTRIES, MAX_INDEX_BYTES = 1_000_000, 500_000_000
MAX_PARTS, MAX_DIMENSION = 4096, 8192
"""Regions or cells of a photo, and numbers of a descriptor."""
TENSORS = {"regions": ("F16", 3), "cells": ("I8", 3), "grid": ("I16", 2)}
"""The fields of `Descriptors`, with the type and the number of dimensions of each."""
NEVER = ("\0", "\n", "\r")


@dataclass(frozen=True)
class Entry:
    """A photo, or one frame of a video.

    path: relative to the root, with "/".
    digest: SHA-256 of the file.
    size, modified: of the file when it was read, in bytes and in nanoseconds since 1970. A file that still has both is
        taken as unchanged.
    frame: the time stamp of a video's frame, in the units of its stream; None for a photo.
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

    embedder: name of what made the descriptors, see `embedding.make_embedder`.
    fingerprint: of the weights of that embedder. Descriptors of other weights cannot be compared with these. Empty
        after reading an older format, which did not know it.
    root: folder of the photos, relative to the library; absolute where the two have no common parent.
    folders: where `update` looks for photos.
    left_out: what was removed by name; `update` does not take it back.
    entries, descriptors: of the photos, in the same order.
    """

    embedder: str
    fingerprint: str
    root: str
    folders: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()
    descriptors: Descriptors = field(default_factory=Descriptors, repr=False)


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
    _expect(path, content, {"embedder": str, "root": str, "folders": list, "left_out": list, "entries": list})
    if len(content["entries"]) > MAX_ENTRIES:
        raise ValueError(f"{path}: expected at most {MAX_ENTRIES} entries, got {len(content['entries'])}")
    entries = tuple(_entry(path, number, values) for number, values in enumerate(content["entries"]))
    folders, left_out = (tuple(check_path(path, p) for p in content[key]) for key in ("folders", "left_out"))
    known = Index(content["embedder"], "", content["root"], folders, left_out, entries)
    if version < FORMAT:
        return known
    _expect(path, content, {"fingerprint": str, "vectors": str})
    if not VECTORS.fullmatch(content["vectors"]):
        raise ValueError(f"{path}: {content['vectors']!r} is no name of a file of vectors")
    descriptors = read_descriptors(folder / content["vectors"])[0]
    if len(descriptors) != len(entries):
        raise ValueError(f"{path}: has {len(entries)} entries, its vectors are for {len(descriptors)}")
    return replace(known, fingerprint=content["fingerprint"], descriptors=descriptors)


def write_index(folder: Path, index: Index) -> None:
    """Write a library. A process that ends at any moment leaves the old one or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = sha256(repr([(e.digest, e.frame) for e in index.entries]).encode() + index.fingerprint.encode())
    name = f"vectors-{digest.hexdigest()[:16]}.safetensors"
    if not (folder / name).exists():  # the name says the content
        write_descriptors(folder / name, index.descriptors, {})
    content = {
        "format": FORMAT,
        "embedder": index.embedder,
        "fingerprint": index.fingerprint,
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


def write_descriptors(path: Path, descriptors: Descriptors, metadata: dict[str, str]) -> None:
    """Write descriptors, completely or not at all."""
    tensors = {name: getattr(descriptors, name).contiguous() for name in TENSORS}
    with replacing(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(tensors, temporary, metadata=metadata)  # no second copy in memory, as `save` would make
        temporary.chmod(mode)  # `save_file` lets nobody but the owner read


def read_descriptors(path: Path) -> tuple[Descriptors, dict[str, str]]:
    """Descriptors, mapped into memory, and the metadata. Raises ValueError for anything else in the file."""
    try:
        with safe_open(path, framework="pt") as opened:
            if set(opened.keys()) != set(TENSORS):
                raise ValueError(f"{path}: expected the tensors {', '.join(TENSORS)}")
            for name, (kind, dimensions) in TENSORS.items():
                header = opened.get_slice(name)
                shape, stored = header.get_shape(), header.get_dtype()
                if stored != kind or len(shape) != dimensions or shape[0] > MAX_ENTRIES:
                    raise ValueError(f"{path}: expected {name} as {kind} with {dimensions} axes, got {stored} {shape}")
                if max(shape[1:-1], default=0) > MAX_PARTS or shape[-1] > MAX_DIMENSION:
                    raise ValueError(f"{path}: expected at most {MAX_PARTS} {name} of {MAX_DIMENSION}, got {shape}")
            found = Descriptors(*(opened.get_tensor(name) for name in TENSORS))
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: damaged or missing vectors ({error})") from error
    _check_agreement(path, found)
    return found, metadata


def _check_agreement(path: Path, found: Descriptors) -> None:
    """Raise ValueError where the tensors of a file do not belong together."""
    if not len(found.regions) == len(found.cells) == len(found.grid) or found.grid.shape[1] != 2:
        raise ValueError(f"{path}: damaged, its tensors are for different numbers of photos")
    sides = found.grid.long()
    if bool((sides < 0).any()) or bool((sides.prod(1) > found.cells.shape[1]).any()):
        raise ValueError(f"{path}: damaged, a photo has more cells than are there")


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

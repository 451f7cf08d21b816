"""Fuzzing: bytes nobody thought of, into everything that reads files of strangers.

    python -m tests.fuzz images --minutes 60     # also: profile, jpeg, config, index, weights, library, or all
    python -m tests.fuzz images --atheris        # guided by coverage, where atheris is installed; until it is stopped

Each target takes bytes and allows one outcome: a value, or the error that the reader's documentation names. Whatever
else happens is written to `fuzz-TARGET-DIGEST` with its traceback; it then becomes a test. `tests/test_fuzz.py` runs
each target for a moment.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import logging
import random
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from def_hub import images
from def_hub.config import load_config
from def_hub.hub.contents import WEIGHTS, read_config, read_index, read_tensors, weights_of
from def_hub.observation.assessment import assess
from def_hub.observation.jpeg import jpeg_of
from def_hub.reference.library.descriptors import Descriptors
from def_hub.reference.library.index import (
    INDEX,
    Entry,
    Index,
    entries_from_json,
    entries_to_json,
    located,
    read_descriptors,
    write_index,
)
from def_hub.reference.library.index import read_index as read_library_index

from .helpers.odd_files import WRITTEN, encoded
from .helpers.profiles import PROFILES, colours

Target = Callable[[bytes, Path], None]
DICTIONARY = (b"\0", b"\xff" * 4, b"\x7f\xff\xff\xff", b"Exif\0\0", b"IHDR", b"iCCP", b"[" * 50, b'"', b"1e999", b"../")


def read_image(data: bytes, folder: Path) -> None:
    """A picture in [0, 1], or an error that names the file."""
    path = folder / "a"
    path.write_bytes(data)
    _photo(path)


def read_profile(data: bytes, folder: Path) -> None:
    """A picture with an ICC profile of these bytes. Its colours are also written back in that profile's space, and can
    be read again, or are refused in one line."""
    path = folder / "a.png"
    colours().save(path, icc_profile=data)
    seen = _photo(path)
    if seen is None:
        return
    try:
        images.save_image(seen.picture, folder / "b.png", space=seen.space)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1
        return
    assert images.read_photo(folder / "b.png").picture.shape == seen.picture.shape


def _photo(path: Path) -> images.Photo | None:
    """A picture in [0, 1]; None after an error that names the file in one line."""
    try:
        seen = images.read_photo(path)
    except ValueError as error:
        assert str(error).startswith(f"image {path}: ") and len(str(error).splitlines()) == 1
        return None
    assert seen.picture.dtype == torch.float32 and 0 <= seen.picture.min() and seen.picture.max() <= 1
    return seen


def read_jpeg(data: bytes, folder: Path) -> None:
    """The coefficients of a JPEG and what is said of its past, where it is a picture at all."""
    path = folder / "a.jpg"
    path.write_bytes(data)
    try:
        picture = images.to_tensor(path)
    except ValueError:
        return
    if picture.shape[-1] * picture.shape[-2] < 10_000:
        assess(picture, jpeg_of(path))


def read_run_file(data: bytes, folder: Path) -> None:
    """The configuration of a training run."""
    path = folder / "run.toml"
    path.write_bytes(data)
    try:
        load_config(path)
    except (ValueError, TypeError) as error:  # tomllib's own error is a ValueError
        assert len(str(error)) < 2000


def read_model_index(data: bytes, folder: Path) -> None:
    """The parts that a model_index.json names, all of them on the list; and a part's configuration."""
    (folder / "model_index.json").write_bytes(data)
    try:
        assert set(read_index(folder)) <= {"unet", "scheduler", "refsr", "refsr_detail"}
    except ValueError as error:
        assert str(folder) in str(error)
    try:
        read_config(folder / "model_index.json", "UNet2DModel")
    except ValueError as error:
        assert str(folder) in str(error)


def read_weights(data: bytes, folder: Path) -> None:
    """Names and shapes of a safetensors file, and an index of shards that names no file elsewhere."""
    path = folder / f"{WEIGHTS}.safetensors"
    path.write_bytes(data)
    try:
        for shape in read_tensors(path).values():
            assert all(side >= 0 for side in shape)
    except ValueError as error:
        assert str(path) in str(error)
    index = folder / f"{WEIGHTS}.safetensors.index.json"
    index.write_bytes(data)
    try:
        assert all(found.parent == folder for found in weights_of(folder))
    except (ValueError, FileNotFoundError) as error:
        assert str(folder) in str(error)
    index.unlink()


def read_library(data: bytes, folder: Path) -> None:
    """The index of a library, and a part of one: vectors with what they are of."""
    (folder / INDEX).write_bytes(data)
    try:
        for entry in read_library_index(folder).entries:
            assert located(folder, entry.path).is_relative_to(folder.resolve())
    except (ValueError, FileNotFoundError) as error:
        assert str(folder) in str(error) or "leads outside" in str(error)
    path = folder / "part.safetensors"
    path.write_bytes(data)
    try:
        entries_from_json(path, read_descriptors(path)[1].get("entries", ""))
    except ValueError as error:
        assert len(str(error).splitlines()) == 1


def _seeds_of_library() -> list[bytes]:
    """An index without its vectors, which is refused last, and a part."""
    entries = [Entry(f"a/{n}.jpg", f"{n:064x}", 10 + n, 10**18) for n in range(2)]
    tensors = {
        "regions": torch.zeros(2, 3, 4, dtype=torch.float16),
        "cells": torch.zeros(2, 4, 48, dtype=torch.int8),
        "grid": torch.full((2, 2), 2, dtype=torch.int16),
    }
    with tempfile.TemporaryDirectory() as folder:
        write_index(Path(folder), Index("pooled", "1", "..", ("a",), (), tuple(entries), Descriptors(**tensors)))
        part = save(tensors, metadata={"entries": entries_to_json(entries)})
        return [(Path(folder) / INDEX).read_bytes(), part]


def _seeds_of_index() -> list[bytes]:
    root = Path(__file__).resolve().parents[1] / "def_hub" / "weights" / "def-mini"
    return [path.read_bytes() for path in (root / "model_index.json", *root.glob("*/*config.json")) if path.is_file()]


def _seeds_of_run_files() -> list[bytes]:
    return [path.read_bytes() for path in sorted(Path(__file__).resolve().parents[1].glob("examples/**/*.toml"))]


def _seeds_of_weights() -> list[bytes]:
    shards = {"metadata": {}, "weight_map": {"a": f"{WEIGHTS}.safetensors"}}
    return [save({"a": torch.zeros(3, 4), "b": torch.zeros(2, dtype=torch.float16)}), json.dumps(shards).encode()]


def _seeds_of_jpeg() -> list[bytes]:
    made = []
    for quality, options in ((95, {}), (40, {"subsampling": 2}), (75, {"progressive": True}), (20, {})):
        file = io.BytesIO()
        noise = np.random.default_rng(quality).integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((40, 32)).save(file, "JPEG", quality=quality, **options)
        made.append(file.getvalue())
    return made


TARGETS: dict[str, tuple[Target, Callable[[], list[bytes]]]] = {
    "images": (read_image, lambda: [encoded(format) for format in WRITTEN]),
    "profile": (read_profile, lambda: list(PROFILES.values())),
    "jpeg": (read_jpeg, _seeds_of_jpeg),
    "config": (read_run_file, _seeds_of_run_files),
    "index": (read_model_index, _seeds_of_index),
    "weights": (read_weights, _seeds_of_weights),
    "library": (read_library, _seeds_of_library),
}


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A few changes: bytes, numbers, pieces that are cut out, doubled or taken from the dictionary."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(changed) + 1)
        kind = rng.randrange(6)
        if kind == 0 and changed:
            changed[min(at, len(changed) - 1)] = rng.randrange(256)
        elif kind == 1 and changed:
            changed[min(at, len(changed) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del changed[at : at + rng.randrange(1, 64)]
        elif kind == 3:
            changed[at:at] = changed[at : at + rng.randrange(1, 64)]
        elif kind == 4:
            changed[at : at + rng.choice((0, 4))] = rng.choice(DICTIONARY)
        else:
            number = struct.pack(rng.choice("<>") + rng.choice("HI"), rng.choice((0, 1, 255, 32_767, 65_535)))
            changed[at : at + len(number)] = number
    return bytes(changed)


def attempt(target: Target, data: bytes, folder: Path) -> str | None:
    """The traceback of what may not happen; None where all is well."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target(data, folder)
    except Exception:
        return traceback.format_exc()
    return None


def fuzz(name: str, seconds: float, seed: int = 0, most: int | None = None) -> tuple[int, dict[str, str]]:
    """Mutate the target's seeds for so long, or `most` times. Returns how many were tried, and the file and traceback
    of each failure, one for each place in the code."""
    target, seeds = TARGETS[name]
    rng, corpus = random.Random(seed), seeds()
    failures: dict[str, str] = {}
    places: set[str] = set()
    tried, until = 0, time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < until and (most is None or tried < most):
            data = mutated(rng.choice(corpus), rng)
            tried += 1
            found = attempt(target, data, Path(folder))
            place = "".join(line for line in (found or "").splitlines() if line.startswith("  File"))
            if found and place not in places:
                places.add(place)
                file = f"fuzz-{name}-{hashlib.sha256(data).hexdigest()[:12]}"
                Path(file).write_bytes(data)
                failures[file] = found
    return tried, failures


def guided(name: str) -> None:
    """The same target under atheris, guided by coverage. Does not return."""
    import atheris

    target, seeds = TARGETS[name]
    corpus = Path(tempfile.mkdtemp(prefix="fuzz-corpus-"))
    for number, data in enumerate(seeds()):
        (corpus / str(number)).write_bytes(data)
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], str(corpus), "-max_len=65536"], lambda data: target(data, folder))
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=[*TARGETS, "all"])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atheris", action="store_true")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # a line for every second input would hide what is found
    names = list(TARGETS) if options.target == "all" else [options.target]
    if options.atheris:
        guided(names[0])
    failed = 0
    for name in names:
        tried, failures = fuzz(name, 60 * options.minutes / len(names), options.seed)
        print(f"{name}: {tried} inputs, {len(failures)} failures", flush=True)
        for file, found in failures.items():
            print(f"{file}\n{found}")
        failed += len(failures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

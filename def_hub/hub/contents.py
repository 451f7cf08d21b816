"""What the files of a model folder may say. All of it is checked before diffusers reads them: diffusers imports the
modules that `model_index.json` names, and makes networks of whatever size a `config.json` asks for.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

WEIGHTS = "diffusion_pytorch_model"
PIPELINES = ("def_hub.DEFPipeline", "DEFPipeline")
"""What `_class_name` of a model_index.json may be."""
NETWORK = ("def_hub.reference.network", "ReferenceNetwork")
PARTS = {"unet": ("diffusers", "UNet2DModel"), "refsr": NETWORK, "refsr_detail": NETWORK}
"""The module and the class of each network that a model_index.json may name."""
SCHEDULER = re.compile(r"[A-Z][A-Za-z0-9]*Scheduler")
"""The classes of diffusers that it may name as its scheduler."""
SETTINGS = ("operator", "window")
RUNNING = ("auto_map", "quantization_config", "_module", "_library")
"""Entries of a configuration that make a library import more than the class that is asked for."""
MAX_BYTES = 1_000_000  # of one JSON file; those of the largest priors have a few thousand
MAX_NUMBER = 1_000_000  # a million diffusion steps or channels; every prior that is known has fewer
MAX_ITEMS = 10_000  # of a list

Tensors = dict[str, tuple[int, ...]]
"""Names of tensors → their shapes."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ValueError, with the path, where there is none or it is too large."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path}: expected at most {MAX_BYTES // 1000} kB, got {path.stat().st_size // 1000}")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected an object, got {type(found).__name__}")
    return found


def read_index(folder: Path) -> dict[str, tuple[str, str]]:
    """The parts that the folder's model_index.json names: part → (module, class).

    Raises ValueError for any part, module or class outside `PARTS` and `SCHEDULER`: diffusers would import them.
    """
    path = folder / "model_index.json"
    index = read_json(path)
    if (kind := index.get("_class_name")) not in PIPELINES:
        raise ValueError(f"{path}: expected the pipeline {PIPELINES[0]}, got {kind!r}")
    parts: dict[str, tuple[str, str]] = {}
    for name, value in index.items():
        if name in RUNNING:
            raise ValueError(f"{path}: {name} is not read, it can run any code")
        if name.startswith("_") or name in SETTINGS:
            continue
        if name not in (*PARTS, "scheduler"):
            raise ValueError(f"{path}: {name!r} is no part of a DEFPipeline")
        if value == [None, None] or value is None:
            continue
        if not _allowed(name, value):
            expected = "a scheduler of diffusers" if name == "scheduler" else " ".join(PARTS[name])
            raise ValueError(f"{path}: {name}: expected {expected}, got {value!r}, which is not imported")
        parts[name] = (value[0], value[1])
    for name in ("unet", "scheduler", "refsr"):
        if name not in parts:
            raise ValueError(f"{path}: names no {name}")
    return parts


def read_config(path: Path, kind: str | None = None) -> dict[str, Any]:
    """A part's configuration.

    kind: the class that it must be of; None takes any scheduler.

    Raises ValueError for another class, for entries that make a library import something, and for numbers and lists
    that only a file made to exhaust the memory has.
    """
    config = read_json(path)
    check_config(config, str(path), kind)
    return config


def check_config(config: Mapping[str, Any], where: str, kind: str | None = None) -> None:
    """As `read_config`, for a configuration that has been read. where: begins each message."""
    found = str(config.get("_class_name"))
    if found != kind and not (kind is None and SCHEDULER.fullmatch(found)):
        raise ValueError(f"{where}: expected a {kind or 'scheduler'}, got {found!r}")
    for name in RUNNING:
        if config.get(name) is not None:
            raise ValueError(f"{where}: {name} is not read, it can run any code")
    for name, value in _numbers(config):
        if not math.isfinite(value) or abs(value) > MAX_NUMBER:
            raise ValueError(f"{where}: {name}: expected a number up to {MAX_NUMBER:,}, got {value:g}")


def check_network(folder: Path, kind: str, variant: str | None = None) -> None:
    """The files of one network, a class `kind`. Raises as `read_config`, `read_tensors` and `weights_of`."""
    read_config(folder / "config.json", kind)
    for path in weights_of(folder, variant):
        read_tensors(path)


def read_tensors(path: Path) -> Tensors:
    """Names and shapes of a safetensors file; the numbers themselves are not read.

    Raises ValueError, with the path, for a file that is truncated, longer than it says, or no safetensors, and for
    tensors that hold no floating-point numbers.
    """
    found: Tensors = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (safe_open is no mapping)
                part = file.get_slice(name)
                if part.get_dtype() not in ("F64", "F32", "F16", "BF16"):
                    raise ValueError(f"{path}: {name}: expected floating-point numbers, got {part.get_dtype()}")
                found[name] = tuple(part.get_shape())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not readable as safetensors ({error})") from error
    return found


def weights_of(folder: Path, variant: str | None = None) -> list[Path]:
    """The safetensors files of one network: those of the variant, else the plain ones. One, or several shards.

    Raises:
        ValueError: where an index of shards is damaged or names a file outside the folder.
        FileNotFoundError: where a shard is missing.
    """
    for infix in [f".{variant}", ""] if variant else [""]:
        index = folder / f"{WEIGHTS}.safetensors.index{infix}.json"
        if index.is_file():
            return _shards(index)
        if (single := folder / f"{WEIGHTS}{infix}.safetensors").is_file():
            return [single]
    return []


def _allowed(name: str, value: Any) -> bool:
    if not (isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value)):
        return False
    if name == "scheduler":
        return value[0] == "diffusers" and SCHEDULER.fullmatch(value[1]) is not None
    return tuple(value) == PARTS[name]


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """All numbers in a JSON value, each with the entry of the top level that it belongs to."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value
    elif isinstance(value, dict | list):
        if len(value) > MAX_ITEMS:
            yield name, math.inf
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _numbers(inner, name or str(key))


def _shards(index: Path) -> list[Path]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(p, str) for p in places.values()):
        raise ValueError(f"{index}: expected a weight_map with the file of each tensor")
    for name in sorted(set(places.values())):
        # `Path(name).name` alone would take what Windows reads as a path for a name
        if not re.fullmatch(rf"{WEIGHTS}[\w.-]*\.safetensors", name):
            raise ValueError(f"{index}: expected names like {WEIGHTS}-00001-of-00002.safetensors, got {name!r}")
        if not (index.parent / name).is_file():
            raise FileNotFoundError(f"{index.parent / name}: no such file, {index.name} names it")
    return [index.parent / name for name in sorted(set(places.values()))]

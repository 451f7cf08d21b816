"""The name of a model → a local folder that holds all of it, with weights in safetensors only."""

from __future__ import annotations

import re
from collections.abc import Collection
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import validate_repo_id

from def_hub.hub.contents import WEIGHTS, check_network, read_config, read_index
from def_hub.hub.errors import plainly

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
CONFIGS = ("model_index.json", "*config.json", f"*{WEIGHTS}*.index*.json")
"""Patterns of the files that are fetched in addition to the weights. Training logs are not fetched."""
OPTIONS = ("subfolder", "revision", "token", "cache_dir", "local_files_only", "force_download")
"""Keywords of `locate` that say where a model is, not how to load it."""


def locate(
    name: str | Path,
    *,
    subfolder: str | None = None,
    variant: str | None = None,
    without: Collection[str] = (),
    **options: Any,
) -> Path:
    """The local folder of the model `name`. A repository of the Hub is fetched into the cache first.

    Args:
        name: a folder, or a repository like "user/model".
        subfolder: of the folder or the repository.
        variant: such as "fp16". Components without weights of this variant use their plain weights.
        without: components that are not fetched, because the caller replaces them.
        options: of the Hub, see `OPTIONS`. With `HF_HUB_OFFLINE=1` or `local_files_only`, only the cache is used.

    Raises:
        TypeError: for an unknown keyword.
        ValueError: if `name` is neither a folder nor the name of a repository, the folder holds no model, weights exist
            only as pickles, no weights of the variant exist, or a file says what it may not: see `contents`.
        OSError: if the repository or the revision does not exist, access is denied, or the connection fails.
    """
    if unknown := set(options) - set(OPTIONS):
        raise TypeError(f"expected keywords among {', '.join(OPTIONS)}, got {', '.join(sorted(unknown))}")
    subfolder = (subfolder or "").strip("/")
    if Path(name).is_dir():
        folder = Path(name) / subfolder
        check_folder(folder, variant=variant, without=without)
        return folder
    return _download(str(name), subfolder, variant, without, {k: v for k, v in options.items() if v is not None})


def origin(folder: str | Path) -> dict[str, str]:
    """The arguments with which `locate` finds a folder of the Hub's cache again, by commit: "name", "revision" and, if
    there is one, "subfolder". Empty for a folder outside the cache."""
    found = re.search(r"/models--([^/]+?)--([^/]+)/snapshots/([0-9a-f]{40})(?:/(.+))?$", Path(folder).as_posix())
    if found is None:
        return {}
    user, model, revision, subfolder = found.groups()
    return {"name": f"{user}/{model}", "revision": revision} | ({"subfolder": subfolder} if subfolder else {})


def locate_part(name: str | Path, part: str, **options: Any) -> Path:
    """The folder of one component of `name`: the top folder or the subfolder `part`. Schedulers are fetched, too.

    Arguments and errors as `locate`.
    """
    if Path(name).is_dir():
        top = Path(name)
    else:
        files = [f"{p}{f}" for p in ("", f"{part}/") for f in ("config.json", f"{WEIGHTS}*.safetensors")]
        top = _snapshot(str(name), [*files, "*scheduler_config.json"], [f"*{WEIGHTS}.*.safetensors"], options)
    for folder in (top, top / part):
        if (folder / "config.json").is_file():
            if not list(folder.glob(f"{WEIGHTS}*.safetensors")):
                inside = folder.relative_to(top).as_posix().removeprefix(".")
                names = (
                    [f.name for f in folder.glob("*")] if Path(name).is_dir() else _listed(str(name), inside, options)
                )
                raise ValueError(_reason(str(name), part, names))
            return folder
    raise ValueError(f"{name}: has no config.json, at its top or in {part}/")


def locate_file(name: str | Path, file: str) -> Path:
    """The path of one file: `name` itself, or `file` in the folder or repository `name`. Errors as `locate`."""
    if Path(name).is_file():
        return Path(name)
    found = (Path(name) if Path(name).is_dir() else _snapshot(str(name), [file], [], {})) / file
    if not found.is_file():
        raise ValueError(f"{name}: has no {file}")
    return found


def check_folder(folder: str | Path, *, variant: str | None = None, without: Collection[str] = ()) -> None:
    """Raise ValueError, with the reason, unless `folder` holds a complete model in safetensors, none of whose files is
    damaged or names anything to import but our own parts and diffusers' `UNet2DModel` and schedulers."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    if not (folder / "model_index.json").is_file():
        found = "a single component" if (folder / "config.json").is_file() else "other files"
        raise ValueError(f"{folder}: expected the folder of a pipeline, with model_index.json, found {found}")
    for component in _weightless(folder, variant, without):
        raise ValueError(_reason(str(folder), component, [f.name for f in (folder / component).glob("*")]))
    if variant is not None and not any(folder.glob(f"*/{WEIGHTS}.{variant}*.safetensors")):
        raise ValueError(f"{folder}: no component has weights of the variant {variant!r}")
    for component, (_, kind) in read_index(folder).items():
        if component in without:
            continue
        if component == "scheduler":
            read_config(folder / component / "scheduler_config.json")
        else:
            check_network(folder / component, kind, variant)


def is_variant(name: str) -> bool:
    """Whether a file holds weights of a variant. Its name then has the variant between two dots."""
    return fnmatch(name, f"{WEIGHTS}.*.safetensors")


def _download(
    name: str, subfolder: str, variant: str | None, without: Collection[str], options: dict[str, Any]
) -> Path:
    inside = f"{subfolder}/" if subfolder else ""
    ignored = [f"{inside}{component}/*" for component in without]

    def fetch(wanted: list[str], unwanted: list[str]) -> Path:
        return _snapshot(name, [inside + pattern for pattern in wanted], ignored + unwanted, options)

    # The name of a variant's file has the variant between two dots, also if the file is one of several shards.
    plain, variants = f"*{WEIGHTS}*.safetensors", f"*{WEIGHTS}.*.safetensors"
    if variant is None:
        folder = fetch([*CONFIGS, plain], [variants])
    else:
        folder = fetch([*CONFIGS, f"*{WEIGHTS}.{variant}*.safetensors"], [])
        if rest := _weightless(folder / inside, variant, without):
            folder = fetch([f"{component}/{plain}" for component in rest], [variants])
    folder = folder / inside
    if not (folder / "model_index.json").is_file():
        where = f"{name}/{subfolder}" if subfolder else name
        raise ValueError(f"{where}: expected a pipeline, but there is no model_index.json")
    for component in _weightless(folder, variant, without):
        raise ValueError(_reason(name, component, _listed(name, inside + component, options)))
    check_folder(folder, variant=variant, without=without)
    return folder


def _snapshot(name: str, wanted: list[str], unwanted: list[str], options: dict[str, Any]) -> Path:
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(f"{name}: neither a folder nor a name on the Hub like user/model ({error})") from error
    with plainly(name):
        try:
            return Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=unwanted, **options))
        except RevisionNotFoundError as error:
            raise OSError(f"{name}: has no revision {options.get('revision')!r}") from error
        except LocalEntryNotFoundError as error:
            raise OSError(f"{name}: the Hub cannot be reached, or must not be asked, and the cache lacks it") from error


def _weightless(folder: Path, variant: str | None, without: Collection[str]) -> list[str]:
    """Networks in model_index.json that have no safetensors in the folder, neither of the variant nor plain."""
    index = folder / "model_index.json"
    if not index.is_file():
        return []
    networks = [part for part in read_index(folder) if part != "scheduler" and part not in without]

    def complete(component: str) -> bool:
        names = [path.name for path in (folder / component).glob(f"{WEIGHTS}*.safetensors")]
        plain = [n for n in names if not is_variant(n)]
        return bool(plain or [n for n in names if variant and n.startswith(f"{WEIGHTS}.{variant}")])

    return [component for component in networks if not complete(component)]


def _listed(name: str, folder: str, options: dict[str, Any]) -> list[str]:
    """The files in a folder of the repository; empty if the Hub cannot be reached."""
    try:
        names = HfApi().list_repo_files(name, revision=options.get("revision"), token=options.get("token"))
    except (HTTPError, ConnectionError):
        return []
    inside = f"{folder}/" if folder else ""
    return [n.removeprefix(inside) for n in names if n.startswith(inside)]


def _reason(where: str, component: str, names: list[str]) -> str:
    pickles = [name for name in names if name.endswith(PICKLES)]
    if pickles:
        return (
            f"{where}: {component} exists only as {component}/{sorted(pickles)[0]}, a pickle, which can run any code "
            "when it is read; def_hub reads safetensors only. Ask the author for safetensors, or, if you trust the "
            "file, load and save it once with diffusers"
        )
    return f"{where}: {component} has no {WEIGHTS}.safetensors"

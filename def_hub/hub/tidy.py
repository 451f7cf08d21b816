"""A pipeline folder that is saved again: what the former version left would be loaded or published with the new."""

from __future__ import annotations

import json
from pathlib import Path

from def_hub.hub.fetch import WEIGHTS


def components_of(folder: str | Path) -> set[str]:
    """Names of the components that the folder's model_index.json records; none where there is none of ours."""
    try:
        recorded = json.loads((Path(folder) / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, or cut off
        return set()
    if not str(recorded.get("_class_name")).endswith("DEFPipeline"):
        return set()
    parts = {name for name, kind in recorded.items() if isinstance(kind, list) and kind[0] and name[0] != "_"}
    return {name for name in parts if name.isidentifier()}  # no path to anywhere else


def tidy(folder: str | Path, former: set[str], variant: str | None = None) -> None:
    """Remove the weights of the components that were there (`former`) and are no more, and, of those that are, the form
    of the weights (one file, or an index of several) that was not written now. Nothing else is touched."""
    stem, suffix = (f"{WEIGHTS}.{variant}", f".{variant}") if variant else (WEIGHTS, "")
    now = components_of(folder)
    for name in now:
        part = Path(folder) / name
        several = any(part.glob(f"{stem}-*-of-*.safetensors"))  # of a former save, diffusers removes these itself
        (part / (f"{stem}.safetensors" if several else f"{WEIGHTS}.safetensors.index{suffix}.json")).unlink(True)
    for name in former - now:
        part = Path(folder) / name
        for path in (*part.glob(f"{WEIGHTS}*"), *part.glob("config.json")):
            path.unlink()
        if part.is_dir() and not any(part.iterdir()):
            part.rmdir()

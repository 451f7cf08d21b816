"""Saving a pipeline into a folder that already holds one. Files of the old pipeline that would be loaded or published
with the new one are removed.
"""

from __future__ import annotations

import json
from pathlib import Path

from def_hub.hub.fetch import WEIGHTS


def components_of(folder: str | Path) -> set[str]:
    """Names of the components in the folder's model_index.json; empty if the folder holds no `DEFPipeline`."""
    try:
        recorded = json.loads((Path(folder) / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no such file, or a truncated one
        return set()
    if not str(recorded.get("_class_name")).endswith("DEFPipeline"):
        return set()
    parts = {name for name, kind in recorded.items() if isinstance(kind, list) and kind[0] and name[0] != "_"}
    return {name for name in parts if name.isidentifier()}  # a name like "../x" would lead out of the folder


def tidy(folder: str | Path, former: set[str], variant: str | None = None) -> None:
    """Remove what an earlier save left behind. Other files are not touched.

    Components in `former` that the folder's new model_index.json lacks lose their weights and their config. If the
    weights of a component are now several files, the old single file is removed; if they are now one file, the old
    index of several files is removed.
    """
    stem, suffix = (f"{WEIGHTS}.{variant}", f".{variant}") if variant else (WEIGHTS, "")
    now = components_of(folder)
    for name in now:
        part = Path(folder) / name
        several = any(part.glob(f"{stem}-*-of-*.safetensors"))  # diffusers itself removes those of an earlier save
        (part / (f"{stem}.safetensors" if several else f"{WEIGHTS}.safetensors.index{suffix}.json")).unlink(True)
    for name in former - now:
        part = Path(folder) / name
        for path in (*part.glob(f"{WEIGHTS}*"), *part.glob("config.json")):
            path.unlink()
        if part.is_dir() and not any(part.iterdir()):
            part.rmdir()

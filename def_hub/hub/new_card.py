"""The card of a model whose maker wrote none: the shipped one for the shipped weights, else all that the files say."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCardData
from safetensors import safe_open

from def_hub.hub.card import RESULTS, links_of, parts_of, render, training_table
from def_hub.hub.fetch import is_variant
from def_hub.settings import PRESETS, SETTINGS

SHIPPED = Path(__file__).resolve().parents[1] / "weights" / "def-mini"
"""The embedded default, with its card, the pictures of that and the records of its training and evaluation."""


def new_card(
    name: str, folder: str | Path, license: str = "unknown", base_model: str | list[str] | None = None
) -> dict[str, Path | bytes]:
    """The card of a pipeline folder that has none, as README.md, and what it links to: path → content.

    Args:
        name: of the repository, or the folder. license: an identifier of the Hub. base_model: the repositories that the
            weights come from. Neither is asked of the shipped card, which says both.
    """
    folder = Path(folder)
    if parts_of(folder) and same_model(folder, SHIPPED) and (SHIPPED / "README.md").is_file():
        return _shipped()
    return {"README.md": written_card(name, folder, license, base_model).encode()}


def written_card(
    name: str, folder: str | Path, license: str = "unknown", base_model: str | list[str] | None = None
) -> str:
    """A card of what is known: parts, sizes, settings, and the training and the results where `made-by/` has them; it
    says so where something is not. Args as `new_card`.
    """
    folder = Path(folder)
    made_by = folder / "made-by"
    header = ModelCardData(
        library_name="diffusers",
        pipeline_tag="image-to-image",
        license=license,
        tags=["super-resolution", "reference-based-super-resolution", "diffusion"],
        base_model=base_model or None,
    )
    measured = (made_by / "evaluation").is_dir()
    comment = "" if "/" in name else "  # its folder; on the Hub, the name of this repository"
    text = f"""---
{header.to_yaml()}
---

# {name.rpartition("/")[2]}

Reference-based ×4 super-resolution, to be loaded with `def_hub`.

```python
from def_hub import DEFPipeline

pipe = DEFPipeline.from_pretrained("{name}"){comment}
pipe("small.png", "sharp.jpg").images[0].save("large.png")
```

## Parts

{_parts(folder)}

{_pipeline(folder)}

## Base models

{_bases(base_model)}

## Settings

{_settings()}

## Training

{_trained(made_by)}

## Results

{RESULTS if measured else _unmeasured()}

## Limits

Detail that neither the input nor a reference shows is a guess. What these weights were not trained for, and where they
fail, was not stated by their maker.

## Licence

{_licence(license)}
"""
    return render(text, made_by) if measured else text


def same_model(folder: Path, other: Path) -> bool:
    """Whether two pipeline folders compute the same: parts, settings and weights, however these are stored."""
    if not _same_settings(folder / "model_index.json", other / "model_index.json"):
        return False
    if parts_of(folder) != parts_of(other):
        return False
    schedulers = (path / "scheduler" / "scheduler_config.json" for path in (folder, other))
    return _same_settings(*schedulers) and all(same_part(folder, other, part) for part in parts_of(folder))


def same_part(folder: Path, other: Path, part: str) -> bool:
    """Whether a network of two pipeline folders is the same."""
    if not (other / part).is_dir() or not _same_settings(folder / part / "config.json", other / part / "config.json"):
        return False
    ours, theirs = _shapes(folder / part), _shapes(other / part)
    if {k: shape for k, (_, _, shape) in ours.items()} != {k: shape for k, (_, _, shape) in theirs.items()}:
        return False
    return all(torch.equal(_tensor(ours[key][0], key), _tensor(theirs[key][0], key)) for key in ours)


def _shipped() -> dict[str, Path | bytes]:
    card = SHIPPED / "README.md"
    files = [card, *(SHIPPED / link for link in links_of(card.read_text(encoding="utf-8")))]
    files += sorted(path for path in (SHIPPED / "made-by").rglob("*") if path.is_file())
    return {path.relative_to(SHIPPED).as_posix(): path for path in files}


def _same_settings(first: Path, second: Path) -> bool:
    """As far as both say something: later versions of diffusers write more of the defaults."""
    ours, theirs = ({k: v for k, v in _read(path).items() if k[0] != "_"} for path in (first, second))
    return all(ours[key] == theirs[key] for key in ours.keys() & theirs.keys())


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _shapes(part: Path) -> dict[str, tuple[Path, str, tuple[int, ...]]]:
    """Of each tensor of a network: its file, its type as safetensors calls it, and its shape."""
    found = {}
    for path in sorted(part.glob("*.safetensors")):
        if is_variant(path.name):
            continue
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118
                view = file.get_slice(key)
                found[key] = (path, view.get_dtype(), tuple(view.get_shape()))
    return found


def _tensor(path: Path, key: str) -> torch.Tensor:
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(key).float()


def _parts(folder: Path) -> str:
    lines = ["| part | class | parameters | stored in | size |", "|---|---|---:|---|---:|"]
    for part in parts_of(folder):
        shapes = _shapes(folder / part).values()
        count = sum(prod(shape) for _, _, shape in shapes)
        size = sum(path.stat().st_size for path in {path for path, _, _ in shapes}) / 1e6
        kinds = ", ".join(sorted({kind for _, kind, _ in shapes}))
        shipped = ", that of `def-mini`, which comes with `def_hub`" if same_part(folder, SHIPPED, part) else ""
        kind = _read(folder / part / "config.json").get("_class_name", "unknown")
        lines.append(f"| `{part}` | {kind}{shipped} | {count:,} | {kinds} | {size:.1f} MB |")
    return "\n".join(lines)


def _pipeline(folder: Path) -> str:
    index = _read(folder / "model_index.json")
    window = index.get("window")
    side = f"{window} HR pixels at a time" if window else "as many pixels at a time as it was trained on"
    scheduler = _read(folder / "scheduler" / "scheduler_config.json")
    sentences = [
        f"Made for pictures that were shrunk by `{index.get('operator', 'bicubic')}`. The prior sees {side}.",
        f"Noise schedule: {scheduler.get('num_train_timesteps', 'an unknown number of')} steps, "
        f"{scheduler.get('beta_schedule', 'unknown')}; prediction: `{scheduler.get('prediction_type', 'epsilon')}`.",
    ]
    networks = [part for part in parts_of(folder) if part.startswith("refsr")]
    for part in networks:
        told = {k: v for k, v in sorted(_read(folder / part / "config.json").items()) if k[0] != "_"}
        sentences.append(f"`{part}`: {', '.join(f'{k} {v}' for k, v in told.items())}.")
    return "\n\n".join(sentences)


def _bases(base_model: str | list[str] | None) -> str:
    names = [base_model] if isinstance(base_model, str) else base_model or []
    if names:
        return "\n".join(f"- `{name}`" for name in names)
    return "Not stated. `push_to_hub(base_model=…)` and `def-hub publish --base-model` name them."


def _settings() -> str:
    """What each preset means, as the version of `def_hub` that wrote the card has them."""
    rows = [f"| `{s.name}` | {' | '.join(str(getattr(p, s.name)) for p in PRESETS.values())} |" for s in SETTINGS]
    head = f"| setting | {' | '.join(f'`{name}`' for name in PRESETS)} |"
    lines = ["Those of the presets; each can be overridden in the call.", "", head, "|---|" + "---|" * len(PRESETS)]
    return "\n".join([*lines, *rows])


def _trained(made_by: Path) -> str:
    runs = sorted(made_by.rglob("*.toml"))
    sentences = []
    if any(made_by.rglob("*-train.csv")):
        sentences.append(training_table(made_by))
    if runs:
        sentences.append(f"Run files, with data and options: {', '.join(f'`{_under(p, made_by)}`' for p in runs)}.")
    return "\n\n".join(sentences) or "Not recorded: `made-by/` has no logs `*-train.csv` and no run files."


def _under(path: Path, made_by: Path) -> str:
    return path.relative_to(made_by.parent).as_posix()


def _unmeasured() -> str:
    return (
        "Not measured. `def-hub evaluate DATA --model FOLDER --output FOLDER/made-by/evaluation` measures, and a card "
        "that is written then has the figures."
    )


def _licence(license: str) -> str:
    if license != "unknown":
        return f"`{license}`, as whoever published these weights says."
    return (
        "Unknown: whoever published these weights named none, so nobody is permitted to use them by that alone. "
        "`push_to_hub(license=…)` and `def-hub publish --license` name one."
    )

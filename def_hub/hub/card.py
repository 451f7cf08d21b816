"""The model card: prose by hand, every figure from the files that the evaluation and the training runs wrote."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from statistics import fmean
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from safetensors import safe_open

from def_hub.evaluation import published
from def_hub.evaluation.rows import Row
from def_hub.hub.fetch import is_variant
from def_hub.hub.measured import Evaluation, Figure, by_preset, compared, comparison, figures, read_evaluations
from def_hub.hub.studies import degraded_table, diffusion_table

RESULTS = "<!-- results -->\n<!-- /results -->"
WORTH = (("first", "none"), ("all", "none"), ("all", "first"), ("unrelated", "none"))
WATTS = 30.0
"""Two cores of a server's processor, as the card's energy figures assume: 15 W each. It was not measured."""

SMALL = 0.12
"""dB: a reference that adds less is counted as worth little."""


def parts_of(folder: str | Path) -> dict[str, int]:
    """Number of parameters of each network of a pipeline folder, as the headers of its safetensors say."""
    parts = {}
    for part in json.loads((Path(folder) / "model_index.json").read_text()):
        files = [f for f in sorted((Path(folder) / part).glob("*.safetensors")) if not is_variant(f.name)]
        count = 0
        for path in files:
            with safe_open(path, framework="np") as file:
                count += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
        if files:
            parts[part] = count
    return parts


def render(text: str, made_by: str | Path) -> str:
    """`text` with its `model-index`, its results, its training times and its parts as the files have them.

    Args:
        text: a card. What stands between `<!-- results -->` and `<!-- /results -->` is replaced, and so is what stands
            in places called `comparison` (all methods beside each other), `overview` (the same, shorter), `published`
            (what others' tables say), `degraded` and `diffusion` (see `def_hub.hub.studies`), `training` and `parts`. A
            text that has no place for results but one for the comparison or the overview is no card, and its front
            matter stays.
        made_by: folder with `evaluation/` and the training logs `*-train.csv`, inside that of the model.

    Raises:
        ValueError: for a card without front matter or without a place for results, or unusable evaluation files.
    """
    made_by = Path(made_by)
    evaluations = read_evaluations(made_by / "evaluation")
    found = figures(evaluations)
    if not any(f"<!-- {name} -->" in text for name in ("results", "comparison", "overview")):
        raise ValueError("model card: expected one <!-- results --> … <!-- /results --> for what is filled in")
    for name, content in _contents(made_by, evaluations, found).items():
        if f"<!-- {name} -->" in text:
            text = _between(text, name, content())
    if "<!-- results -->" not in text:
        return text  # a text that shows figures, such as a README, without being a model's card
    of = {e.preset: e.settings for e in evaluations}
    card = ModelCard(text)
    title = re.search(r"^# (.+)$", card.text, re.MULTILINE)
    header = {k: v for k, v in card.data.to_dict().items() if k not in ("model-index", "metrics")}
    data = ModelCardData(
        **header,
        model_name=title[1] if title else "def_hub",
        eval_results=[result for figure in found for result in _eval_results(figure, of[figure.preset])],
        metrics=["psnr", "ssim"],
    )
    return f"---\n{data.to_yaml()}\n---\n{card.text}"


def _contents(
    made_by: Path, evaluations: Sequence[Evaluation], found: Sequence[Figure]
) -> dict[str, Callable[[], str]]:
    """What a text may have places for, by their names."""
    folder = made_by / "evaluation"
    return {
        "results": lambda: _results(evaluations, found),
        "comparison": lambda: comparison(compared(folder)),
        "overview": lambda: comparison(compared(folder), short=True),
        "published": lambda: published.markdown({f.dataset: f.total for f in found}),
        "degraded": lambda: degraded_table(made_by / "degraded"),
        "diffusion": lambda: diffusion_table(made_by / "diffusion"),
        "training": lambda: training_table(made_by),
        "parts": lambda: _parts(parts_of(made_by.resolve().parent)),
    }


def check_card(text: str) -> None:
    """Whether the Hub and a reader can do something with the card, as far as can be told without the Hub.

    Raises:
        ValueError: where the front matter is missing or cannot be read, or lacks a licence, the library or the task.
    """
    if not re.match(r"---\r?\n", text):
        raise ValueError("model card: expected front matter between two lines of ---, found none")
    try:
        data = ModelCard(text).data.to_dict()
    except Exception as error:  # those of YAML have no base in common with the client's
        raise ValueError(f"model card: its front matter cannot be read: {' '.join(str(error).split())}") from error
    for key, wanted in (("license", None), ("library_name", "diffusers"), ("pipeline_tag", "image-to-image")):
        if not data.get(key) or (wanted and data[key] != wanted):
            raise ValueError(f"model card: expected {key}: {wanted or '…'}, got {data.get(key)!r}")


def links_of(text: str) -> list[str]:
    """Relative paths of the pictures that a card shows and of the files that it links to (licences, say).

    Raises ValueError for one outside the card's folder.
    """
    links = re.findall(r"\[[^\]]*\]\(([^)\s#]+)", text)
    paths = [link for link in links if not re.match(r"[a-z]+:", link)]
    for path in paths:
        if path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"model card: links to {path}, which would not be published with it")
    return list(dict.fromkeys(paths))


def _between(text: str, name: str, content: str) -> str:
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise ValueError(f"model card: expected one {start} … {end} for what is filled in")
    before, _, rest = text.partition(start)
    return f"{before}{start}\n{content}\n{end}{rest.partition(end)[2]}"


def _parts(parts: Mapping[str, int]) -> str:
    lines = [f"| `{part}` | {count:,} |" for part, count in parts.items()]
    return "\n".join(["| part | parameters |", "|---|---:|", *lines])


def _results(evaluations: Sequence[Evaluation], found: Sequence[Figure]) -> str:
    settings = evaluations[0].settings
    commits = ", ".join(sorted({e.commit for e in evaluations}))
    # earlier versions did not record it, and their cards said this of all data sets
    small = "; ".join(dict.fromkeys(e.settings.get("low_resolution", "Pillow bicubic") for e in evaluations))
    lines = [
        f"×4, LR = {small}, {settings['protocol']}. Measured with the code of commit {commits}; "
        f"seed {settings['seed']}.",
    ]
    for preset, same in by_preset(evaluations).items():
        call = ", ".join(f"{k} {v}" for k, v in sorted(same[0].settings["call"].items()) if k != "preset")
        lines += [
            "",
            f"Preset `{preset}`, weights `{same[0].settings['weights']}`: {call}.{_conditions(same[0].settings)}",
            "",
            "| data set | reference | pictures | bicubic PSNR | PSNR | gain | SSIM | consistency | s/picture "
            "| commit |",
            "|---|---|---:|---:|---:|---:|---:|---:|---:|---|",
        ]
        for f in (f for f in found if f.preset == preset):
            count = str(f.images) if f.images == f.total else f"{f.images} of {f.total}"
            consistency = "–" if math.isnan(f.consistency) else f"{f.consistency:.2f}"
            lines.append(
                f"| {f.dataset} | {f.references} | {count} | {f.bicubic:.2f} | {f.psnr:.2f} "
                f"| {f.psnr - f.bicubic:+.2f} | {f.ssim:.3f} | {consistency} | {f.seconds:.1f} | {f.commit} |"
            )
        lines += ["", *_worth([row for e in same for row in e.rows])]
    return "\n".join(lines).rstrip()


def _conditions(settings: dict[str, Any]) -> str:
    """What decided the bytes beside the settings, where the evaluation recorded it."""
    if not (found := settings.get("conditions")):
        return ""
    return f" Computed under: {', '.join(f'{k} {v}' for k, v in sorted(found.items()))}."


def _worth(rows: Sequence[Row]) -> list[str]:
    """What references were worth, picture by picture, against none or fewer of them, where both were measured."""
    sentences = []
    for dataset in dict.fromkeys(r.dataset for r in rows):
        psnr = {(r.references, r.image): r.psnr for r in rows if r.dataset == dataset and r.method != "bicubic"}
        for mode, other in WORTH:
            gains = [psnr[m, i] - psnr[other, i] for m, i in psnr if m == mode and (other, i) in psnr]
            if not gains:
                continue
            sentence = (
                f"- {dataset}, reference {mode!r} against {other}, {len(gains)} pictures: {fmean(gains):+.2f} dB on "
                f"average, from {min(gains):+.2f} to {max(gains):+.2f}"
            )
            if mode != "unrelated" and other == "none":
                little = sum(gain < SMALL for gain in gains)
                sentence += f"; {little} of them are worth less than {SMALL:g} dB"
            sentences.append(sentence + ".")
    return sentences


def training_table(made_by: Path) -> str:
    """Steps and minutes of each run whose log is in a folder. Raises `ValueError` where there is none."""
    lines, total = ["| part | steps | minutes |", "|---|---:|---:|"], 0.0
    logs = sorted(made_by.rglob("*-train.csv"))  # those of weights that these began from stand in folders
    if not logs:
        raise ValueError(f"{made_by}: expected the training logs *-train.csv, found none")
    for log in logs:
        with log.open(newline="") as file:
            rows = list(csv.DictReader(file))
        at = [float(row["minutes"]) for row in rows]
        # the clock starts anew where a run was continued
        minutes = at[-1] + sum(a for a, b in zip(at, at[1:], strict=False) if b < a)
        total += minutes
        name = str(log.relative_to(made_by)).removesuffix("-train.csv")
        lines.append(f"| {name} | {int(rows[-1]['step']):,} | {minutes:.0f} |")
    lines.append(f"| in all | | {total:.0f} |")
    energy = WATTS * total / 60 / 1000
    return "\n".join(
        [
            *lines,
            "",
            f"About {energy:.2g} kWh, if two cores of a server's processor take {WATTS:g} W: an assumption, the power "
            "was not measured. Times are by the clock, on a machine that did other work as well. Runs that did not end "
            "up in these weights are not counted.",
        ]
    )


def _eval_results(figure: Figure, settings: dict[str, Any]) -> list[EvalResult]:
    def result(kind: str, name: str, value: float) -> EvalResult:
        return EvalResult(
            task_type="image-to-image",
            task_name="×4 super-resolution",
            dataset_type=re.sub(r"[^\w-]+", "-", figure.dataset).lower(),
            dataset_name=figure.dataset,
            dataset_config=f"preset: {figure.preset}, reference: {figure.references}",
            dataset_split=f"development, {figure.images} of {figure.total} pictures",
            metric_type=kind,
            metric_name=f"{name}, {settings['protocol']}",
            metric_value=value,
            metric_args={"weights": settings["weights"], "commit": figure.commit},
        )

    return [
        result("psnr", "PSNR in dB", round(figure.psnr, 2)),
        result("ssim", "SSIM", round(figure.ssim, 4)),
    ]

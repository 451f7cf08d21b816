"""The model card: prose by hand, every figure from the files that the evaluation and the training runs wrote."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import fmean
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from safetensors import safe_open

from def_hub.evaluation.rows import Row, read_rows
from def_hub.hub.fetch import is_variant
from def_hub.settings import DEFAULT_PRESET
from def_hub.settings import PRESETS as SETTINGS_OF

RESULTS = "<!-- results -->\n<!-- /results -->"
PRESETS = (DEFAULT_PRESET, *(name for name in SETTINGS_OF if name != DEFAULT_PRESET))
"""In this order on the card."""
REFERENCES = ("none", "first", "all", "unrelated")
WORTH = (("first", "none"), ("all", "none"), ("all", "first"), ("unrelated", "none"))
WATTS = 30.0
"""Two cores of a server's processor, as the card's energy figures assume: 15 W each. It was not measured."""

SMALL = 0.12
"""dB: a reference that adds less is counted as worth little."""


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation wrote: its settings and a row per picture and method."""

    settings: dict[str, Any]
    rows: tuple[Row, ...]

    @property
    def preset(self) -> str:
        return str(self.settings["call"]["preset"])

    @property
    def commit(self) -> str:
        return str(self.settings.get("commit") or "unknown")


@dataclass(frozen=True)
class Figure:
    """Means over the pictures of one data set by one preset in one reference mode; `bicubic` is that of the same ones.

    PSNR in dB; `consistency` is the largest of all pictures, in 1/255; `total` the pictures that the data set has;
    `commit` that of the code that measured it.
    """

    preset: str
    dataset: str
    references: str
    images: int
    total: int
    bicubic: float
    psnr: float
    ssim: float
    consistency: float
    seconds: float
    commit: str


def read_evaluations(folder: str | Path) -> list[Evaluation]:
    """Every `rows*.csv` of a folder with the `settings*.json` of the same name.

    Raises:
        ValueError: where there are none, settings are missing, they are of different protocols, seeds or, for one
            preset, weights or call options, or a picture was measured twice in the same way.
    """
    evaluations = []
    for path in sorted(Path(folder).glob("rows*.csv")):
        settings = path.with_name(path.name.replace("rows", "settings", 1)).with_suffix(".json")
        if not settings.is_file():
            raise ValueError(f"{path}: has no {settings.name} beside it that says how it was measured")
        evaluations.append(Evaluation(json.loads(settings.read_text()), tuple(read_rows(path))))
    if not evaluations:
        raise ValueError(f"{folder}: expected rows.csv and settings.json of `def-hub evaluate`, found none")
    for key in ("protocol", "seed"):
        if len({json.dumps(e.settings[key]) for e in evaluations}) > 1:
            raise ValueError(f"{folder}: its evaluations differ in {key!r}; they cannot stand in one table")
    for preset, same in by_preset(evaluations).items():
        for key in ("call", "weights", "conditions"):  # presets may have weights of their own
            if len({json.dumps(e.settings.get(key), sort_keys=True) for e in same}) > 1:
                raise ValueError(f"{folder}: its evaluations of the preset {preset!r} differ in {key!r}")
        ours = [(r.dataset, r.references, r.image) for e in same for r in e.rows if r.method != "bicubic"]
        if twice := [key for key, count in Counter(ours).items() if count > 1]:
            raise ValueError(f"{folder}: measured twice with the preset {preset!r}: {', '.join(twice[0])}")
    return evaluations


def by_preset(evaluations: Sequence[Evaluation]) -> dict[str, list[Evaluation]]:
    """The evaluations of each preset, the default's first."""
    names = sorted({e.preset for e in evaluations}, key=lambda name: _place(name, PRESETS))
    return {name: [e for e in evaluations if e.preset == name] for name in names}


def figures(evaluations: Sequence[Evaluation]) -> list[Figure]:
    """The means to be reported: by preset, data set (in the order of the files) and what was given as reference."""
    found = []
    bicubic = [r for e in evaluations for r in e.rows if r.method == "bicubic"]  # the same for all presets
    for preset, same in by_preset(evaluations).items():
        rows = [r for e in same for r in e.rows]
        for dataset in dict.fromkeys(r.dataset for r in rows):
            base = {r.image: r for r in bicubic if r.dataset == dataset}
            measured = [r for r in rows if r.dataset == dataset and r.method != "bicubic"]
            for mode in sorted({r.references for r in measured}, key=lambda mode: _place(mode, REFERENCES)):
                ours = [r for r in measured if r.references == mode]
                sources = [e for e in same if set(e.rows) & set(ours)]
                found.append(
                    Figure(
                        preset=preset,
                        dataset=dataset,
                        references=mode,
                        images=len(ours),
                        total=len(base),
                        bicubic=fmean(base[r.image].psnr for r in ours),
                        psnr=fmean(r.psnr for r in ours),
                        ssim=fmean(r.ssim for r in ours),
                        consistency=max(r.consistency for r in ours),
                        seconds=fmean(r.seconds for r in ours),
                        commit=", ".join(sorted({e.commit for e in sources})),
                    )
                )
    return found


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
        text: a card. What stands between `<!-- results -->` and `<!-- /results -->` is replaced, and so is, where there
            are such places, what stands between `<!-- training -->` … and `<!-- parts -->` ….
        made_by: folder with `evaluation/` and the training logs `*-train.csv`, inside that of the model.

    Raises:
        ValueError: for a card without front matter or without a place for results, or unusable evaluation files.
    """
    made_by = Path(made_by)
    evaluations = read_evaluations(made_by / "evaluation")
    found = figures(evaluations)
    of = {e.preset: e.settings for e in evaluations}
    text = _between(text, "results", _results(evaluations, found))
    if "<!-- training -->" in text:
        text = _between(text, "training", training_table(made_by))
    if "<!-- parts -->" in text:
        text = _between(text, "parts", _parts(parts_of(made_by.resolve().parent)))
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


def _place(name: str, order: Sequence[str]) -> tuple[int, str]:
    return (order.index(name) if name in order else len(order), name)


def _parts(parts: Mapping[str, int]) -> str:
    lines = [f"| `{part}` | {count:,} |" for part, count in parts.items()]
    return "\n".join(["| part | parameters |", "|---|---:|", *lines])


def _results(evaluations: Sequence[Evaluation], found: Sequence[Figure]) -> str:
    settings = evaluations[0].settings
    commits = ", ".join(sorted({e.commit for e in evaluations}))
    lines = [
        f"×4, LR = Pillow bicubic, {settings['protocol']}. Measured with the code of commit {commits}; "
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
            lines.append(
                f"| {f.dataset} | {f.references} | {count} | {f.bicubic:.2f} | {f.psnr:.2f} "
                f"| {f.psnr - f.bicubic:+.2f} | {f.ssim:.3f} | {f.consistency:.2f} | {f.seconds:.1f} | {f.commit} |"
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

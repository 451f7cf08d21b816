"""What an evaluation measured, as the model card reports it: by preset, and all methods beside each other."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from def_hub.evaluation.published import SYSTEMS, TRAINED_HERE
from def_hub.evaluation.rows import Row, Summary, read_rows, summarise
from def_hub.settings import DEFAULT_PRESET
from def_hub.settings import PRESETS as SETTINGS_OF

PRESETS = (DEFAULT_PRESET, *(name for name in SETTINGS_OF if name != DEFAULT_PRESET))
"""In this order on the card."""
REFERENCES = ("none", "first", "all", "unrelated")
OURS = "DEF"
ABSENT = "its authors' weights are not at hand, and it was not trained here"
EQUALLY = " (small; trained here, equal data and steps)"
"""In place of `TRAINED_HERE`, of the run files in `examples/baselines/`, which differ in the network alone."""
CAUTION = (
    "What was trained here are small forms on far less data and time than their authors and DEF had (run files: "
    "`examples/baselines/`). These rows compare with each other; the full methods are better."
)


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation wrote of one preset: its settings, and a row per picture, bicubic's among them.

    `settings["call"]` and `settings["weights"]` are the preset's.
    """

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
    """The presets of every `rows*.csv` of a folder with the `settings*.json` of the same name, without ablations.

    Raises:
        ValueError: where there are none, settings are missing, they are of different protocols, seeds or, for one
            preset, weights or call options, or a picture was measured twice in the same way.
    """
    files = _read(folder)
    evaluations = [evaluation for settings, rows in files for evaluation in _presets(settings, rows)]
    if not evaluations:
        raise ValueError(f"{folder}: expected rows.csv and settings.json of `def-hub evaluate`, found none of a preset")
    for key in ("protocol", "seed"):
        if len({json.dumps(settings[key]) for settings, _ in files}) > 1:
            raise ValueError(f"{folder}: its evaluations differ in {key!r}; they cannot stand in one table")
    for preset, same in by_preset(evaluations).items():
        for key in ("call", "weights", "conditions"):  # presets may have weights of their own
            if len({json.dumps(e.settings.get(key), sort_keys=True) for e in same}) > 1:
                raise ValueError(f"{folder}: its evaluations of the preset {preset!r} differ in {key!r}")
        ours = [(r.dataset, r.references, r.image) for e in same for r in e.rows if r.method != "bicubic"]
        if twice := [key for key, count in Counter(ours).items() if count > 1]:
            raise ValueError(f"{folder}: measured twice with the preset {preset!r}: {', '.join(twice[0])}")
    return evaluations


def compared(folder: str | Path) -> list[Summary]:
    """Means of all methods of the evaluations in a folder: bicubic, the others as they were named, our presets last.

    Raises as `read_evaluations` does.
    """
    ours = [
        replace(row, method=f"{OURS} {e.preset}")
        for same in by_preset(read_evaluations(folder)).values()
        for e in same
        for row in e.rows
        if row.method != "bicubic"
    ]
    others = [row for settings, rows in _read(folder) for row in rows if _call(settings, row.method) is None]
    first = [row for row in others if row.method == "bicubic"]
    rows = {row.key: row for row in [*first, *others, *ours]}
    return summarise(list(rows.values()))


def comparison(summaries: Sequence[Summary], short: bool = False) -> str:
    """All methods in one table, a column for each data set: PSNR, and LPIPS where it was measured.

    Where a method was measured on a part of the pictures, its gain over bicubic enlargement of these stands instead.
    A system of the paper that was not measured has a row that says why.

    Args:
        short: of our presets the default alone, and no rows without figures.
    """
    if short:
        others = {f"{OURS} {preset}" for preset in PRESETS if preset != DEFAULT_PRESET}
        summaries = [s for s in summaries if s.method not in others]
    datasets = list(dict.fromkeys(s.dataset for s in summaries))
    total = {name: max(s.images for s in summaries if s.dataset == name) for name in datasets}
    measured = {(s.method, s.references, s.dataset): s for s in summaries}
    lines = [
        f"| PSNR in dB / LPIPS (squeeze) | {' | '.join(f'{name} ({total[name]})' for name in datasets)} |",
        "|---|" + "---:|" * len(datasets),
    ]
    for method in dict.fromkeys(s.method for s in summaries):
        modes = {s.references for s in summaries if s.method == method}
        for references in sorted(modes, key=lambda mode: _place(mode, REFERENCES)):
            cells = [_cell(measured.get((method, references, name)), total[name]) for name in datasets]
            label = method.replace(TRAINED_HERE, EQUALLY)
            label += f", {_WORDS.get(references, references)}" if modes != {"none"} else ""
            lines.append(f"| {label} | {' | '.join(cells)} |")
    absent = [name for name in SYSTEMS if not short and not any(s.method.startswith(name) for s in summaries)]
    lines += [f"| {name}: {ABSENT} |" + " – |" * len(datasets) for name in absent]
    if any(s.method.endswith(TRAINED_HERE) for s in summaries):
        lines += ["", CAUTION]
    return "\n".join(lines)


_WORDS = {"none": "no reference", "first": "one reference", "all": "all references", "unrelated": "an unrelated one"}


def _cell(summary: Summary | None, total: int) -> str:
    if summary is None:
        return "–"
    psnr = f"{summary.psnr:.2f}"
    if summary.images < total:
        psnr = f"{summary.over_bicubic:+.2f} on {summary.images}"
    return psnr if math.isnan(summary.lpips) else f"{psnr} / {summary.lpips:.3f}"


def _read(folder: str | Path) -> list[tuple[dict[str, Any], tuple[Row, ...]]]:
    """Settings and rows of every evaluation in a folder."""
    files = []
    for path in sorted(Path(folder).glob("rows*.csv")):
        settings = path.with_name(path.name.replace("rows", "settings", 1)).with_suffix(".json")
        if not settings.is_file():
            raise ValueError(f"{path}: has no {settings.name} beside it that says how it was measured")
        files.append((json.loads(settings.read_text()), tuple(read_rows(path))))
    if not files:
        raise ValueError(f"{folder}: expected rows.csv and settings.json of `def-hub evaluate`, found none")
    return files


def _presets(settings: dict[str, Any], rows: Sequence[Row]) -> list[Evaluation]:
    """Of one evaluation, what was measured of each preset, bicubic's rows with each."""
    bicubic = [row for row in rows if row.method == "bicubic"]
    found = []
    for method in dict.fromkeys(row.method for row in rows):
        if (call := _call(settings, method)) is not None:
            weights = call.pop("weights", settings["weights"])
            own = [row for row in rows if row.method == method]
            found.append(Evaluation(settings | {"call": call, "weights": weights}, (*bicubic, *own)))
    return found


def _call(settings: dict[str, Any], method: str) -> dict[str, Any] | None:
    """The settings of a preset of ours, with its weights; None for any other method, ablations among them."""
    call = settings.get("call") if method == "def" else settings.get("methods", {}).get(method)
    return dict(call) if call and "preset" in call and "," not in method else None


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


def _place(name: str, order: Sequence[str]) -> tuple[int, str]:
    return (order.index(name) if name in order else len(order), name)

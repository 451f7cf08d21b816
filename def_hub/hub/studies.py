"""Two studies that the model card shows beside its results: degraded pictures, and what the diffusion is worth.

`examples/degraded.sh` and `examples/diffusion.sh` measure them.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from statistics import fmean

from def_hub.evaluation.rows import Row, Summary, read_rows, summarise

STEPS = re.compile(r"def:(\w+),num_inference_steps=(\d+)")
"""A method of the second study."""
MODES = {"none": "no reference", "first": "one reference"}


def degraded_table(folder: str | Path) -> str:
    """Gain over bicubic enlargement of the same degraded file: the mean over the pictures, and the smallest one.

    Args:
        folder: holds `rows.csv` and `settings.json` of an evaluation of several degradations.

    Raises ValueError or OSError for files that are missing or cannot be read.
    """
    rows, commit = _read(folder)
    bicubic = {(r.dataset, r.image): r.psnr for r in rows if r.method == "bicubic"}
    ours = [r for r in rows if r.method != "bicubic"]
    modes = [mode for mode in MODES if any(r.references == mode for r in ours)]
    lines = [
        f"| LR picture | pictures | bicubic PSNR | {' | '.join(MODES[mode] for mode in modes)} |",
        "|---|---:|---:|" + "---:|" * len(modes),
    ]
    for dataset in dict.fromkeys(r.dataset for r in ours):
        base = [psnr for (name, _), psnr in bicubic.items() if name == dataset]
        cells = []
        for mode in modes:
            gains = [r.psnr - bicubic[dataset, r.image] for r in ours if (r.dataset, r.references) == (dataset, mode)]
            cells.append(f"{fmean(gains):+.2f} ({min(gains):+.2f})" if gains else "–")
        name = dataset.partition("+")[2] or "clean"
        lines.append(f"| {name} | {len(base)} | {fmean(base):.2f} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"Measured with the code of commit {commit}."])


def diffusion_table(folder: str | Path) -> str:
    """PSNR, LPIPS and seconds by the number of steps of the diffusion prior; 0 steps leave it out.

    Args and errors as `degraded_table`; methods are named like "def:balanced,num_inference_steps=4".
    """
    rows, commit = _read(folder)
    found = {(match[1], int(match[2])): row.method for row in rows if (match := STEPS.fullmatch(row.method))}
    if not found:
        raise ValueError(f"{folder}: expected methods like def:balanced,num_inference_steps=4, found none")
    means = {(s.method, s.dataset, s.references): s for s in summarise(rows)}
    steps = sorted({count for _, count in found})
    lines = [
        "| preset | LR picture | reference | " + " | ".join(_steps(count) for count in steps) + " |",
        "|---|---|---|" + "---:|" * len(steps),
    ]
    for preset in dict.fromkeys(name for name, _ in found):
        for dataset in dict.fromkeys(r.dataset for r in rows):
            for mode, words in MODES.items():
                cells = [_cell(means.get((found.get((preset, count), ""), dataset, mode))) for count in steps]
                if any(cell != "–" for cell in cells):
                    name = dataset.partition("+")[2] or "clean"
                    lines.append(f"| {preset} | {name} | {words} | {' | '.join(cells)} |")
    pictures = len({r.image for r in rows})
    return "\n".join(
        [*lines, "", f"PSNR in dB / LPIPS (squeeze) / seconds, means of {pictures} pictures; commit {commit}."]
    )


def _read(folder: str | Path) -> tuple[list[Row], str]:
    """The rows of an evaluation, and the commit that measured them."""
    folder = Path(folder)
    rows = list(read_rows(folder / "rows.csv"))
    if not rows:
        raise ValueError(f"{folder}: rows.csv is empty")
    return rows, str(json.loads((folder / "settings.json").read_text()).get("commit") or "unknown")


def _steps(count: int) -> str:
    return "left out" if count == 0 else "1 step" if count == 1 else f"{count} steps"


def _cell(mean: Summary | None) -> str:
    if mean is None:
        return "–"
    values = {"{:.2f}": mean.psnr, "{:.3f}": mean.lpips, "{:.1f}": mean.seconds}
    return " / ".join(text.format(value) for text, value in values.items() if not math.isnan(value))

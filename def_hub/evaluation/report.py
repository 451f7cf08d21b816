"""An evaluation as one page that needs no server: methods side by side, error maps, tables that sort."""

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from def_hub.evaluation import tables
from def_hub.evaluation.rows import Row, Summary, read_rows, summarise
from def_hub.writing import write_text

EMBEDDED = 24
"""Pictures that are put into the page, evenly spread over all: each costs some megabytes."""
DIGITS = {
    "psnr": 2,
    "ssim": 4,
    "lpips": 4,
    "consistency": 2,
    "gain": 2,
    "over_bicubic": 2,
    "below_bicubic": 0,
    "served": 3,
    "transfer": 2,
    "memory": 0,
    "seconds": 1,
    "images": 0,
}
"""After the point. What is not listed is text."""


def write(folder: str | Path, embedded: int = EMBEDDED) -> Path:
    """Write `report.html` into the folder of an evaluation, from its rows and saved pictures.

    Args:
        folder: what `def-hub evaluate --output … --save-images` wrote.
        embedded: how many pictures are shown side by side; the table has all.

    Raises:
        FileNotFoundError: where the folder lacks its rows or its summary.
    """
    folder = Path(folder)
    rows = list(read_rows(folder / "rows.csv"))
    summary = json.loads((folder / "summary.json").read_text())
    names = list(dict.fromkeys((row.dataset, row.image) for row in rows))
    step = max(1, math.ceil(len(names) / embedded))
    pictures = [shown for name in names[::step] if (shown := _picture(folder / "images", *name, rows)) is not None]
    omitted = len(names) - len(pictures)
    settings = summary["settings"]
    row_columns = ["dataset", "image", "method", "references", "psnr", "ssim", "lpips", "consistency"]
    row_columns += ["served", "transfer", "seconds", "memory"]
    mean_columns = ["dataset", "images", "method", "references", *row_columns[4:8]]
    mean_columns += ["over_bicubic", "below_bicubic", "gain", *row_columns[8:]]
    summaries = summarise(rows)
    data = {
        "protocol": f"LR = {settings.get('low_resolution', 'made by others')}, {settings['protocol']}",
        "settings": settings,
        "problems": summary["problems"],
        "pictures": pictures,
        "omitted": f"{omitted} more pictures are in the table below only." if omitted else "",
        "meanColumns": [_column(name) for name in mean_columns],
        "means": [_line(s, mean_columns) for s in summaries],
        "unavailable": f"Unavailable: {', '.join(tables.unavailable(summaries))}.",
        "rowColumns": [_column(name) for name in row_columns],
        "rows": [_line(row, row_columns) for row in rows],
    }
    page = files("def_hub.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    path = folder / "report.html"
    # "</script>" inside a name must not end the script
    write_text(path, page.replace("{{DATA}}", json.dumps(data).replace("</", "<\\/")))
    return path


def _picture(images: Path, dataset: str, name: str, rows: Sequence[Row]) -> dict[str, Any] | None:
    """What the page shows of one picture, or None where its pictures were not saved."""
    truth, small = (images / dataset / kind / f"{name}.png" for kind in ("truth", "input"))
    if not truth.is_file() or not small.is_file():
        return None
    results = []
    for row in rows:
        path = images / dataset / row.folder / f"{name}.png"
        if (row.dataset, row.image) == (dataset, name) and path.is_file():
            title = f"{row.method}, {row.references}: {row.psnr:.2f} dB, SSIM {row.ssim:.4f}"
            title += "" if math.isnan(row.lpips) else f", LPIPS {row.lpips:.4f}"
            results.append({"title": title, "source": _source(path)})
    return {"dataset": dataset, "name": name, "truth": _source(truth), "input": _source(small), "results": results}


def _source(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _column(name: str) -> dict[str, Any]:
    return {"title": name, "digits": DIGITS.get(name)}


def _line(values: Row | Summary, columns: Sequence[str]) -> list[Any]:
    """JSON has neither NaN nor infinity: null is unavailable, equal pictures have the word."""
    found = [asdict(values)[name] for name in columns]
    return [
        (None if math.isnan(v) else "infinite") if isinstance(v, float) and not math.isfinite(v) else v for v in found
    ]

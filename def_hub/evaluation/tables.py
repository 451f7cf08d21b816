"""The tables of an evaluation, in Markdown."""

import math
from collections.abc import Callable, Sequence

from def_hub.evaluation.datasets import Dataset
from def_hub.evaluation.metrics import Protocol
from def_hub.evaluation.rows import WORSE, Summary
from def_hub.observation.downsample import SCALE

NIQE = "NIQE (no maintained library gives it without torchvision)"
COLUMNS: dict[str, tuple[str, Callable[[Summary], float]]] = {
    "PSNR": (".2f", lambda s: s.psnr),
    "gain": ("+.2f", lambda s: s.over_bicubic),
    "below bicubic": (".0f", lambda s: s.below_bicubic),
    "SSIM": (".4f", lambda s: s.ssim),
    "LPIPS (squeeze)": (".4f", lambda s: s.lpips),
    "consistency": (".2f", lambda s: s.consistency),
    "gain of references": ("+.2f", lambda s: s.gain),
    "served": (".0%", lambda s: s.served),
    "transfer PSNR": (".2f", lambda s: s.transfer),
    "MB": (".0f", lambda s: s.memory),
    "s/image": (".1f", lambda s: s.seconds),
}
"""Of the table people read: how a number is written, and which it is."""


def unavailable(summaries: Sequence[Summary]) -> list[str]:
    """The columns in which no line has a number, and what cannot be measured at all."""
    empty = [name for name, (_, value) in COLUMNS.items() if all(math.isnan(value(s)) for s in summaries)]
    return [*empty, NIQE]


def markdown(summaries: Sequence[Summary], protocol: Protocol, low_resolution: str = "Pillow bicubic") -> str:
    """The table people read. "gain" is the PSNR above bicubic on the same pictures; "–" is what is unavailable.

    Columns that are unavailable in every line are left out, and named below the table.
    """
    missing = unavailable(summaries)
    shown = {name: column for name, column in COLUMNS.items() if name not in missing}
    lines = [
        f"×{SCALE}, LR = {low_resolution}, {protocol}. gain, below bicubic: mean PSNR above bicubic enlargement of the "
        f"same files, and the pictures more than {WORSE} dB below it. consistency: largest distance of A(output) from "
        "what agrees with LR, in 1/255.",
        "",
        "| data set | images | method | reference | " + " | ".join(shown) + " |",
        "|---|---:|---|---|" + "---:|" * len(shown),
    ]
    for s in summaries:
        values = ["–" if math.isnan(value(s)) else format(value(s), kind) for kind, value in shown.values()]
        lines.append(f"| {s.dataset} | {s.images} | {s.method} | {s.references} | {' | '.join(values)} |")
    lines += ["", f"Unavailable: {', '.join(missing)}."]
    return "\n".join(lines)


def by_degradation(summaries: Sequence[Summary], datasets: Sequence[Dataset]) -> str:
    """A column for each degradation: the gain over bicubic enlargement of the same degraded file, and how many pictures
    are worse than that. Empty where no data set was degraded in more than one way.
    """
    titles: dict[str, dict[str, str]] = {}  # of the degraded data sets, by name and degradation
    for dataset in datasets:
        titles.setdefault(dataset.name, {})[dataset.called] = dataset.title
    titles = {name: degraded for name, degraded in titles.items() if len(degraded) > 1}
    names = list(dict.fromkeys(name for degraded in titles.values() for name in degraded))
    if not names:
        return ""
    measured = {(s.dataset, s.method, s.references): s for s in summaries}
    kinds = list(dict.fromkeys(key[1:] for key in measured if key[1] != "bicubic"))
    lines = [
        "Gain in dB over bicubic enlargement of the same degraded file / pictures that are more than "
        f"{WORSE} dB below it.",
        "",
        f"| data set | method | reference | {' | '.join(names)} |",
        "|---|---|---|" + "---:|" * len(names),
    ]
    for dataset_name, degraded in titles.items():
        for kind in kinds:
            cells = [_gain(measured.get((degraded.get(name, ""), *kind))) for name in names]
            if any(cell != "–" for cell in cells):
                lines.append(f"| {dataset_name} | {' | '.join((*kind, *cells))} |")
    return "\n".join(lines)


def _gain(summary: Summary | None) -> str:
    if summary is None or math.isnan(summary.over_bicubic):
        return "–"
    return f"{summary.over_bicubic:+.2f} / {summary.below_bicubic:.0f}"

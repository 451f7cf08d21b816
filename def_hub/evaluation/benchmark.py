"""Methods × data sets × references → rows and a table; resumable picture by picture, shared by processes."""

import csv
import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from def_hub import images
from def_hub.evaluation import tables
from def_hub.evaluation.datasets import Dataset, References, match_files
from def_hub.evaluation.methods import Restore, Restored
from def_hub.evaluation.metrics import Protocol, psnr, ssim
from def_hub.evaluation.rows import TEXTS, UNAVAILABLE, Row, Summary, append_row, read_rows, summarise, write_rows
from def_hub.observation.agreement import observe
from def_hub.observation.degradation import Degraded
from def_hub.observation.jpeg import read_jpeg
from def_hub.sharing import Processes
from def_hub.writing import replacing, sweep, write_text

__all__ = ["Journal", "Measures", "Row", "Task", "fingerprint", "plan", "read_rows", "run", "score"]


@dataclass(frozen=True)
class Measures:
    """What of a result is measured.

    Attributes:
        lpips: LPIPS with its weights (`perceptual.LPIPS`), or None.
    """

    protocol: Protocol = Protocol()
    lpips: Callable[[Tensor, Tensor], Tensor] | None = None

    def compare(self, image: Tensor, truth: Tensor) -> dict[str, float]:
        """PSNR, SSIM and LPIPS of a picture `[1,3,H,W]`, by their names in `Row`."""
        values = {"psnr": float(psnr(image, truth, self.protocol)), "ssim": float(ssim(image, truth, self.protocol))}
        if self.lpips is not None:
            with torch.inference_mode():
                values["lpips"] = float(self.lpips(_in_8_bits(image), _in_8_bits(truth)))
        return values


@dataclass(frozen=True)
class Task:
    """One picture to be enlarged by one method with one choice of references."""

    method: Restore
    dataset: Dataset
    references: References
    index: int

    @property
    def key(self) -> tuple[str, str, str, str]:
        """As `Row.key`."""
        return self.method.name, self.dataset.title, self.references, self.dataset.items[self.index].name


def plan(
    methods: Sequence[Restore],
    datasets: Sequence[Dataset],
    references: Sequence[References],
    of: Mapping[str, Sequence[References]] | None = None,
) -> tuple[list[Task], list[str]]:
    """All tasks in the order of the table, and one line for each choice of references that a data set does not offer.

    Methods without references are measured once for each data set, whatever `references` says.

    Args:
        of: instead of `references`, for single methods by their names.

    Raises ValueError for an unknown choice of references.
    """
    of = of or {}
    named = list(dict.fromkeys([*references, *(mode for modes in of.values() for mode in modes)]))
    for mode in named:
        if mode not in get_args(References):
            raise ValueError(f"references must be one of {', '.join(get_args(References))}, got {mode!r}")
    tasks: list[Task] = []
    notes: list[str] = []
    for dataset in datasets:
        missing = [mode for mode in named if not dataset.offers(mode)]
        if missing and any(method.uses_references for method in methods):
            notes.append(f"{dataset.title}: has no references {', '.join(missing)}")
        for method in methods:
            wanted = of.get(method.name, references)
            modes: list[References] = [mode for mode in named if mode in wanted and mode not in missing]
            modes = modes if method.uses_references else ["none"]
            if method.needs_references:
                modes = [mode for mode in modes if mode != "none"]
                notes += [] if modes else [f"{dataset.title}: {method.name} needs references"]
            for mode in modes:
                tasks += [Task(method, dataset, mode, index) for index in range(len(dataset.items))]
    return tasks, notes


def measure(task: Task, measures: Measures = Measures(), save_to: Path | None = None) -> Row:
    """Enlarge one picture and compare it with the truth.

    Args:
        save_to: folder for pictures: `DATASET/METHOD-REFERENCES/NAME.png`, beside `truth/` and `input/`.
    """
    dataset, item = task.dataset, task.dataset.items[task.index]
    truth, small = dataset.load_with_file(task.index)
    references = dataset.load_references(task.index, task.references)
    restored, seconds, memory = _timed(task.method, small, references)
    values = measures.compare(restored.image, truth)
    if restored.transferred is not None:
        values["transfer"] = float(psnr(restored.transferred, truth, measures.protocol))
    if item.given is None:  # what a lens did to a photograph is not known
        file = None if small.file is None else read_jpeg(small.file)
        known = observe(small.picture, dataset.degradation, file=file)
        values["consistency"] = 255 * known.agreement(restored.image).error
    measured = {**values, "seconds": seconds, "memory": memory, "served": restored.served}
    row = Row(**dict(zip(TEXTS, task.key, strict=True)), **measured)  # type: ignore[arg-type]
    if save_to is not None:
        folder = save_to / dataset.title
        _save(restored.image, folder / row.folder / f"{item.name}.png")
        for kind, picture in (("truth", truth), ("input", small.picture)):
            if not (folder / kind / f"{item.name}.png").exists():
                _save(picture, folder / kind / f"{item.name}.png")
    return row


def run(
    tasks: Iterable[Task],
    measures: Measures = Measures(),
    *,
    done: Iterable[Row] = (),
    save_to: Path | None = None,
    on_row: Callable[[Row], None] | None = None,
    on_problem: Callable[[str], None] | None = None,
) -> list[Row]:
    """One row for each task, in order. Rows in `done` are taken over instead of being computed again.

    Args:
        on_row: called with every new row as soon as it is there.
        on_problem: called with one line for every picture that cannot be read or compared, which then has no row;
            without it, the error is raised.
    """
    known = {row.key: row for row in done}
    rows = []
    for task in tasks:
        row = known.get(task.key)
        if row is None:
            try:
                row = measure(task, measures, save_to)
            except (ValueError, FileNotFoundError) as error:
                if on_problem is None:
                    raise
                on_problem(f"{task.dataset.title}/{task.key[3]}, {task.method.name}: {error}")
                continue
            if on_row is not None:
                on_row(row)
        rows.append(row)
    return rows


def score(results: Path, truth: Path, measures: Measures = Measures()) -> tuple[list[Row], list[str]]:
    """Pictures that somebody else made, compared with the truth file by file (see `datasets.match_files`).

    Returns the rows, whose method is the name of the folder of results, and one line for each file that could not be
    compared.

    Raises FileNotFoundError for a missing folder, ValueError where nothing could be compared.
    """
    for folder in (results, truth):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder")
    pairs, alone = match_files(images.list_pictures(results), images.list_pictures(truth))
    problems = [f"{path}: no partner in the other folder" for path in alone]
    rows = []
    for result, expected in pairs:
        try:
            values = measures.compare(images.to_tensor(result), images.to_tensor(expected))
        except ValueError as error:
            problems.append(f"{result.name}: {error}")
            continue
        row = Row(results.resolve().name, truth.resolve().name, "", expected.stem, values["psnr"], values["ssim"])
        rows.append(replace(row, lpips=values.get("lpips", UNAVAILABLE)))
    if not rows:
        raise ValueError(f"{results}: nothing can be compared with {truth} ({'; '.join(problems) or 'both are empty'})")
    return rows, problems


class Journal:
    """The folder of one evaluation, which a stopped run can go on from, `kill -9` included.

    `rows.csv` grows picture by picture; each further process writes a `rows-N.csv` of its own, which is taken into
    `rows.csv` at the end or when the folder is opened again. `settings` (everything that decides the numbers) are kept
    in `settings.json`. Opening a folder with other settings starts it anew when `resume` is false and raises
    `ValueError` when it is true; another "commit", however, may go on, because most commits change no number.
    """

    def __init__(
        self, folder: str | Path, settings: dict[str, Any], resume: bool = False, processes: Processes | None = None
    ) -> None:
        self.folder = Path(folder)
        self.settings = settings
        self._processes = processes or Processes()
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._processes.first:
            sweep(self.folder, recursive=True)
        described = self.folder / "settings.json"
        text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
        if resume and described.exists() and (changed := _differences(described.read_text(), text)):
            raise ValueError(
                f"{described}: this evaluation was begun with other settings ({changed}); start it anew, without "
                "resuming, or in another folder"
            )
        rows = {row.key: row for path in self._files() for row in read_rows(path)} if resume else {}
        self.done = list(rows.values())
        self._processes.wait()  # all have read before the first of them writes
        if self._processes.first:
            write_text(described, text)
            self._replace(self.done)
        self._processes.wait()
        number = self._processes.number
        self._own = self.folder / (f"rows-{number}.csv" if number else "rows.csv")

    def add(self, row: Row) -> None:
        """Keep one row."""
        append_row(self._own, row)

    def finish(self, rows: Sequence[Row], problems: Sequence[str], table: str) -> None:
        """Write all rows in their order, `summary.json`, `summary.csv` and `table.md`. For the first process only."""
        self._replace(rows)
        summaries = summarise(rows)
        described = {
            "settings": self.settings,
            "results": [_readable(asdict(s)) for s in summaries],
            "unavailable": tables.unavailable(summaries),
            "problems": list(problems),
        }
        write_text(self.folder / "summary.json", json.dumps(described, indent=2) + "\n")
        summary = replacing(self.folder / "summary.csv")
        with summary as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            told = [name for name in ("low_resolution", "protocol", "commit", "versions") if name in self.settings]
            environment = [json.dumps(self.settings[name]).strip('"') for name in told]
            writer.writerow([*(field.name for field in fields(Summary)), *told])
            writer.writerows([*map(_cell, asdict(s).values()), *environment] for s in summaries)
        write_text(self.folder / "table.md", table + "\n")

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("rows*.csv"))

    def _replace(self, rows: Sequence[Row]) -> None:
        """One `rows.csv` that holds exactly these, in place of all there were."""
        if rows:
            write_rows(self.folder / "rows.csv", rows)
        for path in self._files():
            if path.name != "rows.csv" or not rows:
                path.unlink()


def fingerprint(modules: dict[str, Any]) -> str:
    """Twelve hexadecimal digits that change with any weight of any `nn.Module` among the components."""
    digest = hashlib.sha256()
    for name, module in sorted(modules.items()):
        if isinstance(module, torch.nn.Module):
            for key, value in sorted(module.state_dict().items()):
                data = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
                digest.update(f"{name}.{key}{tuple(value.shape)}{value.dtype}".encode() + data)
    return digest.hexdigest()[:12]


def reference_files(dataset: Dataset) -> dict[str, list[str]]:
    """The names of the references of every picture. Pages of Manga109 are drawn: this says which."""
    return {item.name: [path.name for path in item.references] for item in dataset.items if item.references}


def _timed(method: Restore, image: Degraded, references: list[Tensor]) -> tuple[Restored, float, float]:
    """What a method makes, the seconds it took, and the largest memory in MB meanwhile."""
    forgotten = _forget_peak()
    started = time.perf_counter()
    restored = method(image, references)
    seconds = time.perf_counter() - started
    return restored, seconds, _peak() if forgotten else UNAVAILABLE


def _forget_peak() -> bool:
    """Start a new count of the largest memory in use. False where this system offers none."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: resets VmHWM
    except OSError:
        return False
    return True


def _peak() -> float:
    """Largest memory since `_forget_peak`, in MB: of the graphics card where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024 / 1e6


def _save(image: Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images.save_image(image, path)


def _in_8_bits(image: Tensor) -> Tensor:
    return (image.clamp(0, 1) * 255).round() / 255


def _differences(before: str, now: str) -> str:
    """Which settings of two `settings.json` differ, but for "commit", and from what to what."""
    old, new = _flat(json.loads(before)), _flat(json.loads(now))
    changed = [key for key in sorted(old | new) if key != "commit" and old.get(key) != new.get(key)]
    return ", ".join(f"{key} was {old.get(key, 'not recorded')}, is {new.get(key, 'not recorded')}" for key in changed)


def _flat(settings: dict[str, Any], where: str = "") -> dict[str, Any]:
    """Nested settings by their full names, like "call.eta"."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{where}{key}.") if isinstance(value, dict) else {f"{where}{key}": value}
    return flat


def _readable(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has neither NaN nor infinity: null is unavailable, and equal pictures have the word."""
    return {
        k: (None if math.isnan(v) else "infinite") if isinstance(v, float) and not math.isfinite(v) else v
        for k, v in values.items()
    }


def _cell(value: Any) -> str:
    return "" if isinstance(value, float) and math.isnan(value) else str(value)

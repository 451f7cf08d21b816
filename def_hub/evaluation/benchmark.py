"""Methods × data sets → rows, means and a table; resumable picture by picture.

A method is any function from an LR picture and its references to an enlarged picture, so a published baseline
is measured by the same lines as our pipeline.
"""

import csv
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from def_hub import images
from def_hub.evaluation.metrics import Protocol, psnr, ssim
from def_hub.observation.downsample import consistency_error, make_operator

SCALE = 4

Layout = Literal["plain", "WR-SR", "CUFED5"]
References = Literal["first", "all", "none", "unrelated"]
Restore = Callable[[Tensor, list[Tensor]], Tensor]  # LR [1,3,h,w], references [1,3,Hr,Wr] → [1,3,4h,4w]


@dataclass(frozen=True)
class Item:
    """One picture to enlarge. `scene` is shared by items that show the same place."""

    name: str
    image: Path
    references: tuple[Path, ...] = ()
    scene: str = ""


@dataclass(frozen=True)
class Dataset:
    """Pictures with references. In the "plain" layout (Urban100) the reference is the LR picture itself."""

    name: str
    layout: Layout
    items: tuple[Item, ...]

    def load(self, index: int) -> tuple[Tensor, Tensor]:
        """Truth `[1,3,H,W]`, cropped to multiples of 4, and its Pillow-bicubic quarter `[1,3,H/4,W/4]`."""
        truth = images.to_tensor(self.items[index].image)
        height, width = (side - side % SCALE for side in truth.shape[-2:])
        truth = truth[..., :height, :width].contiguous()
        return truth, images.shrink(truth, SCALE)

    def load_references(self, index: int, references: References) -> list[Tensor]:
        """The references `[1,3,Hr,Wr]` that the mode gives to item `index`; empty for "none"."""
        if references == "none":
            return []
        owner = self.unrelated(index) if references == "unrelated" else index
        if self.layout == "plain":
            return [self.load(owner)[1]]
        paths = self.items[owner].references
        return [images.to_tensor(path) for path in (paths if references == "all" else paths[:1])]

    def unrelated(self, index: int) -> int:
        """The item half the list away, or the next after it, that shows another scene.

        Raises `ValueError` where every item shows the same scene.
        """
        count = len(self.items)
        for step in range(count):
            other = (index + count // 2 + step) % count
            if self.items[other].scene != self.items[index].scene:
                return other
        raise ValueError(f"data set {self.name}: no item shows another scene than {self.items[index].name}")


@dataclass(frozen=True)
class Row:
    """One picture enlarged by one method. `consistency` is the largest |A(output) - LR|, in 1/255."""

    method: str
    dataset: str
    references: str
    image: str
    psnr: float
    ssim: float
    consistency: float
    seconds: float


@dataclass(frozen=True)
class Summary:
    """Means over the rows of one method on one data set; `consistency` is the largest of all pictures."""

    method: str
    dataset: str
    references: str
    images: int
    psnr: float
    ssim: float
    consistency: float
    seconds: float


def load_dataset(folder: str | Path) -> Dataset:
    """Recognise a folder: CUFED5's `NNN_0`, `NNN_1` …, WR-SR's `input/` and `ref/`, or plain images.

    A `groups.tsv` beside CUFED5-like files (columns `group` and `scene`) says which groups show one scene.
    Files are opened by content, whatever their suffix. Raises `FileNotFoundError` for a missing folder and
    `ValueError` for one that fits no layout or in which an input lacks its reference.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"data set {folder}: no such folder")
    if (folder / "input").is_dir() and (folder / "ref").is_dir():
        layout: Layout = "WR-SR"
        items = _paired(folder)
    elif any(_group(path) for path in images.list_pictures(folder)):
        layout = "CUFED5"
        items = _grouped(folder)
    else:
        layout = "plain"
        items = [Item(path.stem, path, scene=path.stem) for path in images.list_pictures(folder)]
    if not items:
        raise ValueError(f"data set {folder}: expected pictures, or NNN_0 with NNN_1 …, or the folders input/ and ref/")
    return Dataset(folder.resolve().name, layout, tuple(items))


def bicubic(image: Tensor, references: list[Tensor]) -> Tensor:
    """The method that every table starts with: Pillow's bicubic enlargement, no reference."""
    return make_operator("bicubic", SCALE).upsample(image)


def restorer(pipe: Callable[..., Any], seed: int = 0, **options: Any) -> Restore:
    """A `DEFPipeline` with its call options as a method. Every picture starts from the same `seed`."""

    def restore(image: Tensor, references: list[Tensor]) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        output = pipe(image, references or None, generator=generator, output_type="pt", **options)
        return output.images[0][None].float().cpu()

    return restore


def measure(
    restore: Restore,
    dataset: Dataset,
    index: int,
    references: References = "first",
    *,
    method: str = "def",
    protocol: Protocol = Protocol(),
    save_to: Path | None = None,
) -> Row:
    """Enlarge one item and compare it with the truth; `save_to` is a folder for the result."""
    truth, small = dataset.load(index)
    sources = dataset.load_references(index, references)
    started = time.perf_counter()
    result = restore(small, sources)
    seconds = time.perf_counter() - started
    name = dataset.items[index].name
    if save_to is not None:
        save_to.mkdir(parents=True, exist_ok=True)
        images.save_image(result, save_to / f"{name}.png")
    return Row(
        method=method,
        dataset=dataset.name,
        references=references,
        image=name,
        psnr=float(psnr(result, truth, protocol)),
        ssim=float(ssim(result, truth, protocol)),
        consistency=255 * consistency_error(make_operator("bicubic", SCALE), result, small),
        seconds=seconds,
    )


def evaluate(
    restore: Restore,
    dataset: Dataset,
    references: References = "first",
    *,
    method: str = "def",
    protocol: Protocol = Protocol(),
    done: Iterable[Row] = (),
    save_to: Path | None = None,
    on_row: Callable[[Row], None] | None = None,
) -> list[Row]:
    """One row per item, in order. Rows in `done` are taken over instead of being computed again.

    Args:
        references: "first" (the single-reference setting), "all", "none", or "unrelated" (the first reference
            of another scene). Raises `ValueError` for another word.
        save_to: folder for the enlarged pictures.
        on_row: called with every new row as soon as it is there.
    """
    if references not in get_args(References):
        raise ValueError(f"references must be one of {get_args(References)}, got {references!r}")
    known = {(row.method, row.dataset, row.references, row.image): row for row in done}
    rows = []
    for index, item in enumerate(dataset.items):
        row = known.get((method, dataset.name, references, item.name))
        if row is None:
            row = measure(restore, dataset, index, references, method=method, protocol=protocol, save_to=save_to)
            if on_row is not None:
                on_row(row)
        rows.append(row)
    return rows


def summarise(rows: Sequence[Row]) -> list[Summary]:
    """Means per method, data set and reference mode, in the order in which they first appear."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.method, row.dataset, row.references), []).append(row)
    return [
        Summary(
            *key,
            images=len(group),
            psnr=fmean(row.psnr for row in group),
            ssim=fmean(row.ssim for row in group),
            consistency=max(row.consistency for row in group),
            seconds=fmean(row.seconds for row in group),
        )
        for key, group in groups.items()
    ]


def markdown(summaries: Sequence[Summary], protocol: Protocol) -> str:
    """The table people read. "gain" is the PSNR above bicubic on the same data set."""
    base = {s.dataset: s.psnr for s in summaries if s.method == "bicubic"}
    lines = [
        f"×{SCALE}, LR = Pillow bicubic, {protocol}. consistency: largest |A(output) − LR| in 1/255.",
        "",
        "| data set | images | method | reference | PSNR | gain | SSIM | consistency | s/image |",
        "|---|---:|---|---|---:|---:|---:|---:|---:|",
    ]
    for s in summaries:
        gain = f"{s.psnr - base[s.dataset]:+.2f}" if s.dataset in base else ""
        lines.append(
            f"| {s.dataset} | {s.images} | {s.method} | {s.references} | {s.psnr:.2f} | {gain} "
            f"| {s.ssim:.4f} | {s.consistency:.2f} | {s.seconds:.1f} |"
        )
    return "\n".join(lines)


class Journal:
    """The folder of one evaluation: `rows.csv` grows picture by picture, so a stopped run can go on.

    `settings` (everything that decides the numbers) are kept in `settings.json`. Opening a folder with other
    settings starts it anew when `resume` is false and raises `ValueError` when it is true; another "commit", however,
    may go on, because most commits change no number.
    """

    def __init__(self, folder: str | Path, settings: dict[str, Any], resume: bool = False) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._rows = self.folder / "rows.csv"
        described = self.folder / "settings.json"
        text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
        if resume and described.exists() and (changed := _differences(described.read_text(), text)):
            raise ValueError(
                f"{described}: this evaluation was begun with other settings ({changed}); start it anew, without "
                "resuming, or in another folder"
            )
        described.write_text(text)
        self.done = list(read_rows(self._rows)) if resume and self._rows.exists() else []
        self._rows.unlink(missing_ok=True)
        for row in self.done:  # written again without the line that a stopped process left unfinished
            self.add(row)

    def add(self, row: Row) -> None:
        """Append one row."""
        new = not self._rows.exists()
        with self._rows.open("a", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Row)])
            if new:
                writer.writeheader()
            writer.writerow(asdict(row))

    def finish(self, summaries: Sequence[Summary], table: str) -> None:
        """Write `summary.json` and `table.md`."""
        (self.folder / "summary.json").write_text(json.dumps([asdict(s) for s in summaries], indent=2) + "\n")
        (self.folder / "table.md").write_text(table + "\n")


def fingerprint(modules: dict[str, Any]) -> str:
    """Twelve hexadecimal digits that change with any weight of any `nn.Module` among the components."""
    digest = hashlib.sha256()
    for name, module in sorted(modules.items()):
        if isinstance(module, torch.nn.Module):
            for key, value in sorted(module.state_dict().items()):
                data = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
                digest.update(f"{name}.{key}{tuple(value.shape)}{value.dtype}".encode() + data)
    return digest.hexdigest()[:12]


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


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a `rows.csv`, but for a last line that a stopped process left unfinished."""
    with path.open(newline="") as file:
        for line in csv.DictReader(file):
            if None in line or None in line.values():
                continue  # the process ended while it wrote this line
            text = [line[field.name] for field in fields(Row)]
            yield Row(text[0], text[1], text[2], text[3], *map(float, text[4:]))


def _group(path: Path) -> re.Match[str] | None:
    return re.fullmatch(r"(\d+)_(\d+)", path.stem)


def _paired(folder: Path) -> list[Item]:
    references = {path.stem: path for path in images.list_pictures(folder / "ref")}
    items = []
    for path in images.list_pictures(folder / "input"):
        reference = references.get(f"{path.stem}_ref") or references.get(path.stem)
        if reference is None:
            raise ValueError(f"data set {folder}: {path.name} has no reference {path.stem}_ref in ref/")
        items.append(Item(path.stem, path, (reference,), scene=path.stem))
    return items


def _grouped(folder: Path) -> list[Item]:
    groups: dict[str, dict[int, Path]] = {}
    for path in images.list_pictures(folder):
        if match := _group(path):
            groups.setdefault(match[1], {})[int(match[2])] = path
    scenes = _scenes(folder / "groups.tsv")
    items = []
    for name, members in sorted(groups.items()):
        if 0 not in members or len(members) < 2:
            raise ValueError(f"data set {folder}: group {name} needs {name}_0 and at least {name}_1")
        references = tuple(members[number] for number in sorted(members) if number > 0)
        items.append(Item(name, members[0], references, scene=scenes.get(name, name)))
    return items


def _scenes(table: Path) -> dict[str, str]:
    if not table.exists():
        return {}
    with table.open(newline="") as file:
        return {line["group"]: line["scene"] for line in csv.DictReader(file, delimiter="\t")}

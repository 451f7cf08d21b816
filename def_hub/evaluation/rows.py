"""What was measured: a row for each picture and method, means of them, and the file that keeps them."""

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import fmean

from def_hub.writing import appending, replacing

UNAVAILABLE = math.nan
"""In place of a number that could not be measured."""
WORSE = 0.1
"""dB below bicubic enlargement, from which on a picture counts as worse than it."""


@dataclass(frozen=True)
class Row:
    """One picture enlarged by one method. Numbers that are unavailable are NaN, empty in the file.

    Attributes:
        references: see `datasets.References`.
        psnr: dB. ssim: up to 1. Both under the protocol of the evaluation.
        consistency: largest distance of A(output) from what agrees with the LR picture, in 1/255: from the LR picture
            itself where it was only shrunk, else see `observation.agreement`; unavailable for given LR pictures.
        seconds: what the call took.
        lpips: LPIPS v0.1 (squeeze), lower is better; unavailable without its weights.
        served: share of the detail that came from references, 0 to 1; for methods that report it.
        transfer: PSNR in dB of the texture that was carried over, against the truth; for methods that report it.
        memory: largest memory in use during the call, in MB: the graphics card's, or the whole process's.
    """

    method: str
    dataset: str
    references: str
    image: str
    psnr: float
    ssim: float
    consistency: float = UNAVAILABLE
    seconds: float = UNAVAILABLE
    lpips: float = UNAVAILABLE
    served: float = UNAVAILABLE
    transfer: float = UNAVAILABLE
    memory: float = UNAVAILABLE

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Method, data set, references, picture: no two rows share it."""
        return self.method, self.dataset, self.references, self.image

    @property
    def folder(self) -> str:
        """Where pictures of this method with these references are kept, in a folder for the data set."""
        # names of methods hold characters that file names of some systems may not
        return "".join(c if c.isalnum() or c in "-._" else "_" for c in f"{self.method}-{self.references}")


TEXTS = tuple(field.name for field in fields(Row) if field.type in (str, "str"))
NUMBERS = tuple(field.name for field in fields(Row) if field.name not in TEXTS)


@dataclass(frozen=True)
class Summary:
    """Means over the rows of one method on one data set; `consistency` and `memory` are the largest of all pictures.

    Attributes:
        gain: how many dB the references bring: PSNR minus that of the same method without references; unavailable where
            that was not measured for the same pictures.
        over_bicubic: PSNR minus that of bicubic enlargement of the same files; unavailable where that was not measured.
        below_bicubic: pictures that are more than `WORSE` dB below it; unavailable likewise.
    """

    method: str
    dataset: str
    references: str
    images: int
    psnr: float
    ssim: float
    consistency: float
    seconds: float
    lpips: float = UNAVAILABLE
    served: float = UNAVAILABLE
    transfer: float = UNAVAILABLE
    memory: float = UNAVAILABLE
    gain: float = UNAVAILABLE
    over_bicubic: float = UNAVAILABLE
    below_bicubic: float = UNAVAILABLE


def summarise(rows: Sequence[Row]) -> list[Summary]:
    """Means per method, data set and references, in the order in which they first appear.

    A mean over some pictures only would mislead: a number that is unavailable for one picture is so for all.
    """
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.method, row.dataset, row.references), []).append(row)
    psnr = {row.key: row.psnr for row in rows}
    bicubic = {(row.dataset, row.image): row.psnr for row in rows if row.method == "bicubic"}
    over = {key: _over_bicubic(group, bicubic) for key, group in groups.items()}
    return [
        Summary(
            *key,
            images=len(group),
            psnr=_mean(group, "psnr"),
            ssim=_mean(group, "ssim"),
            consistency=_largest(group, "consistency"),
            seconds=_mean(group, "seconds"),
            lpips=_mean(group, "lpips"),
            served=_mean(group, "served"),
            transfer=_mean(group, "transfer"),
            memory=_largest(group, "memory"),
            gain=_gain(group, psnr),
            over_bicubic=fmean(over[key]),
            below_bicubic=_worse(over[key]),
        )
        for key, group in groups.items()
    ]


def read_rows(path: str | Path) -> Iterator[Row]:
    """The rows of a `rows.csv`, without a last line that a stopped process left unfinished.

    Columns that an older file lacks are unavailable.
    """
    text = Path(path).read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]  # a line that does not end was being written
    for line in csv.DictReader(whole.splitlines()):
        numbers = {name: float(line[name]) for name in NUMBERS if line.get(name)}
        yield Row(**{name: line[name] for name in TEXTS}, **numbers)  # type: ignore[arg-type]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write a whole file of rows, completely or not at all."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(_as_line(row) for row in rows)


def append_row(path: Path, row: Row) -> None:
    """Add one row to a file, which is begun with a header where there is none."""
    if not path.exists():
        write_rows(path, [row])
        return
    with appending(path) as file:
        csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n").writerow(_as_line(row))


def _as_line(row: Row) -> dict[str, object]:
    return {k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(row).items()}


def _gain(rows: Sequence[Row], psnr: dict[tuple[str, str, str, str], float]) -> float:
    """What references bring to a method, from all PSNRs by their keys."""
    if rows[0].references == "none":
        return UNAVAILABLE
    return fmean(row.psnr - psnr.get(replace(row, references="none").key, UNAVAILABLE) for row in rows)


def _over_bicubic(rows: Sequence[Row], bicubic: dict[tuple[str, str], float]) -> list[float]:
    """PSNR of each row minus bicubic's, which is given by data set and picture."""
    return [
        0.0 if row.method == "bicubic" else row.psnr - bicubic.get((row.dataset, row.image), UNAVAILABLE)
        for row in rows
    ]


def _worse(over: Sequence[float]) -> float:
    """How many lie more than `WORSE` below zero; unavailable where one of them is."""
    return UNAVAILABLE if any(map(math.isnan, over)) else sum(value < -WORSE for value in over)


def _mean(rows: Sequence[Row], name: str) -> float:
    return fmean(getattr(row, name) for row in rows)


def _largest(rows: Sequence[Row], name: str) -> float:
    values = [getattr(row, name) for row in rows]
    return UNAVAILABLE if any(map(math.isnan, values)) else max(values)

"""Measure a library of references: does it find, among thousands, the photo that shows the place?

    DEF_SHARED=DATA python examples/library_recall.py [--step 3] [--until choice] [--degradation jpeg60]

DATA has the folders `eval-dev` and `train`. The library holds the references of the MultiView groups among pictures of
the other sets and of the training folders (every second pair). A true reference is one of the group's own. Those of the
other groups of its scene are hidden meanwhile: among them are the photographs that the group's picture was cut from.

search: the place of each group's first true reference, by global descriptors and after local ones. choice: the three
photos that are chosen. result: also the PSNR with them and with the group's own references. At the end: the time to
search 10,000 entries. `library_recall.txt` has what was measured.
"""

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from def_hub import DEFPipeline, ReferenceLibrary, images
from def_hub.evaluation.datasets import Dataset, load_dataset
from def_hub.evaluation.metrics import psnr
from def_hub.observation.degradation import Degradation, degrade
from def_hub.reference.library import Choice

STRANGERS = ("WR-SR/input", "WR-SR/ref", "Urban100", "Set5", "Set14", "RealSR/HR", "DRealSR/HR")
MANY = 10_000


@dataclass
class Case:
    """One group. own: contents (SHA-256) of its true references: the library holds a file that several groups share
    once, under one name. hidden: those of the other groups of its scene."""

    name: str
    truth: Tensor
    small: Tensor
    references: list[Path]
    own: set[str]
    hidden: set[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, default=Path("outputs/recall.def"))
    parser.add_argument("--step", type=int, default=1, metavar="N", help="only every Nth group")
    parser.add_argument("--groups", nargs="+", metavar="NAME", help="only these groups, as 016")
    parser.add_argument("--until", choices=("search", "choice", "result"), default="result", help="how much to measure")
    parser.add_argument("--degradation", default="clean", help="of the small photographs, as jpeg40 (default: clean)")
    parser.add_argument("--preset", default="fast")
    options = parser.parse_args()
    if "DEF_SHARED" not in os.environ:
        parser.error("DEF_SHARED must name the folder that holds eval-dev/ and train/")
    data = Path(os.environ["DEF_SHARED"])

    library = build(data, options.library)
    cases = cases_of(load_dataset(data / "eval-dev" / "MultiView"), options.degradation)[:: options.step]
    if options.groups:
        cases = [case for case in cases if case.name in options.groups]
    search(library, cases)
    if options.until != "search":
        choose(library, cases, options.preset if options.until == "result" else None)
    speed(library, cases[0])


def build(data: Path, path: Path) -> ReferenceLibrary:
    """The library, and what building it took."""
    files = [p for p in images.list_pictures(data / "eval-dev" / "MultiView") if not p.stem.endswith("_0")]
    files += [p for name in STRANGERS for p in images.list_pictures(data / "eval-dev" / name)]
    files += [p for name in ("photos", "bsds") for p in images.list_pictures(data / "train" / name)]
    files += images.list_pictures(data / "train" / "pairs160" / "ref")[::2]
    started, worked = time.perf_counter(), time.process_time()
    library, changes = ReferenceLibrary.build(files, path)
    wall, cpu = time.perf_counter() - started, time.process_time() - worked
    info = library.info()
    print(f"{info.photos} photos, {changes}; {info.bytes / info.photos:.0f} bytes per photo")
    if changes.added:
        each = f"{1000 * wall / changes.added:.0f} ms, {1000 * cpu / changes.added:.0f} ms of a processor, per photo"
        print(f"built in {wall:.0f} s: {each}")
    return library


def cases_of(dataset: Dataset, degradation: str) -> list[Case]:
    cases = []
    known = Degradation.parse(degradation)
    for number, item in enumerate(dataset.items):
        truth, small = dataset.load(number)
        if not known.clean:
            small = degrade(truth, known).picture
        own = {content(path) for path in item.references}
        same = {content(r) for other in dataset.items if other.scene == item.scene for r in other.references}
        cases.append(Case(item.name, truth, small, list(item.references), own, same - own))
    return cases


def content(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def without(library: ReferenceLibrary, hidden: set[str]) -> ReferenceLibrary:
    """The library as if some photos were not in it."""
    other, index = ReferenceLibrary(library.path), library.index
    stays = [number for number, entry in enumerate(index.entries) if entry.digest not in hidden]
    entries = tuple(index.entries[n] for n in stays)
    other.index = replace(index, entries=entries, descriptors=index.descriptors.take(stays))
    return other


def search(library: ReferenceLibrary, cases: list[Case]) -> None:
    """Prints at which place the first true reference of each group is."""
    places: dict[str, list[int]] = {"global descriptors": [], "then local ones": []}
    spent = []
    for case in cases:
        there = without(library, case.hidden)
        started = clocks()
        found = there.search(case.small, len(there.index.entries))
        spent.append(clocks() - started)
        for kind, order in zip(places, (sorted(found, key=lambda f: -f.similarity), found), strict=True):
            contents = [f.entry.digest for f in order]
            places[kind].append(min(contents.index(one) + 1 if one in contents else len(contents) for one in case.own))
    for kind, some in places.items():
        print(f"place of the first true reference, {kind}:", *some)
        counts = [f"{sum(place <= limit for place in some)} in the first {limit}" for limit in (3, 10, 30, 100)]
        print(f"  of {len(cases)} groups: {', '.join(counts)}", flush=True)
    print(f"search, opening the library and cleaning up included: {said(sum(spent) / len(cases))}")


def choose(library: ReferenceLibrary, cases: list[Case], preset: str | None) -> None:
    """Prints what is chosen for each group and, with a preset, what that gives."""
    pipe = DEFPipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    hits, differences, spent = 0, [], []
    for case in cases:
        there = without(library, case.hidden)
        started = clocks()
        choice = there.choose(case.small, 3, pipe.refsr)
        spent.append(clocks() - started)
        hits += any(found.entry.digest in case.own for found in choice.chosen)
        words = f"{case.name}: {described(choice, case)}; {said(spent[-1])}"
        if preset is not None:
            given = enlarged(pipe, case, case.references, preset)
            found = given if same(choice, case) else enlarged(pipe, case, choice.pictures(), preset)
            differences.append(found - given)
            words += f"; {found:.2f} dB, with its own references {given:.2f} dB"
        print(words, flush=True)
    count = len(cases)
    print(f"a true reference among the three chosen: {hits} of {count}")
    print(f"choosing: {said(sum(spent) / count)} on the mean, {said(np.max(spent, 0))} at most")
    if differences:
        mean, least = sum(differences) / count, min(differences)
        print(f"PSNR with the library minus that with the true references: mean {mean:+.2f} dB, worst {least:+.2f} dB")


def same(choice: Choice, case: Case) -> bool:
    """Whether exactly the group's own references were chosen, in their order: the result is then the same, too."""
    return [found.entry.digest for found in choice.chosen] == [content(path) for path in case.references]


def enlarged(pipe: DEFPipeline, case: Case, references: list, preset: str) -> float:
    generator = torch.Generator().manual_seed(0)
    result = pipe(case.small, references or None, preset=preset, generator=generator, output_type="pt").images[0]
    return float(psnr(result[None], case.truth))


def described(choice: Choice, case: Case) -> str:
    words = [
        f"{found.path.name} {found.score:.2f} ({'true' if found.entry.digest in case.own else 'stranger'})"
        for found in choice.chosen
    ]
    return ", ".join(words) or "none chosen"


def speed(library: ReferenceLibrary, case: Case) -> None:
    """Prints how long a search among many entries takes, in a processor's seconds: others may use it, too. The photos
    of the library are repeated until there are so many."""
    many, index = ReferenceLibrary(library.path), library.index
    numbers = [number % len(index.entries) for number in range(MANY)]
    entries = tuple(index.entries[n] for n in numbers)
    many.index = replace(index, entries=entries, descriptors=index.descriptors.take(numbers))
    with timed(f"first search among {MANY} entries, which loads the vectors"):
        many.search(case.small)
    with timed("second search"):
        many.search(case.small)


@contextmanager
def timed(what: str) -> Iterator[None]:
    started = clocks()
    yield
    print(f"{what} in {said(clocks() - started)}")


def clocks() -> np.ndarray:
    """The clock on the wall, and that of this process on all processors, in seconds."""
    return np.array((time.perf_counter(), time.process_time()))


def said(spent: np.ndarray) -> str:
    wall, processor = spent
    return f"{wall:.2f} s ({processor:.2f} s of a processor)"


if __name__ == "__main__":
    main()

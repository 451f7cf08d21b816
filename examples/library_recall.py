"""Measure a library of references: does it find, among thousands, the photo that shows the place?

    DEF_SHARED=DATA python examples/library_recall.py [--step 3] [--first-stage]

DATA has the folders `eval-dev` and `train`. The library holds the references of the MultiView groups among pictures of
the other sets and of the training folders (every second pair). For each group's small photograph are printed: the place
of its first true reference after the first stage, the three photos that were chosen, and the PSNR with them and with
the group's own references. A true reference is one of the group's own. Those of the other groups of its scene are
hidden meanwhile: among them are the photographs that the group's picture was cut from. At the end: search among 10,000
entries, most of them random vectors.
"""

import argparse
import os
import time
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from def_hub import DEFPipeline, ReferenceLibrary, images
from def_hub.evaluation.datasets import Dataset, load_dataset
from def_hub.evaluation.metrics import psnr
from def_hub.observation.degradation import Degradation, degrade
from def_hub.reference.library import Choice
from def_hub.reference.library.embedding import make_embedder
from def_hub.reference.library.nearest import Nearest

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
    parser.add_argument("--first-stage", action="store_true", help="nothing else: a second per group")
    parser.add_argument("--degradation", default="clean", help="of the small photographs, as jpeg40 (default: clean)")
    parser.add_argument("--preset", default="fast")
    options = parser.parse_args()
    data = Path(os.environ["DEF_SHARED"])

    library = build(data, options.library)
    cases = cases_of(load_dataset(data / "eval-dev" / "MultiView"), options.degradation)[:: options.step]
    first_stage(library, cases)
    if not options.first_stage:
        both_stages(library, cases, options.preset)
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
    other.index = replace(index, entries=tuple(index.entries[n] for n in stays), vectors=index.vectors[stays])
    return other


def first_stage(library: ReferenceLibrary, cases: list[Case]) -> None:
    """Prints at which place the first true reference of each group is."""
    places = []
    for case in cases:
        there = without(library, case.hidden)
        found = [f.entry.digest for f in there.search(case.small, len(there.index.entries))]
        places.append(min(found.index(one) + 1 if one in found else len(there.index.entries) for one in case.own))
    print("place of the first true reference:", *places)
    for limit in (3, 10, 30, 100):
        print(f"among the first {limit}: {sum(place <= limit for place in places)} of {len(cases)} groups", flush=True)


def both_stages(library: ReferenceLibrary, cases: list[Case], preset: str) -> None:
    """Prints what is chosen for each group, and what that gives."""
    pipe = DEFPipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    hits, differences, seconds = 0, [], []
    for case in cases:
        there = without(library, case.hidden)
        started = time.perf_counter()
        choice = there.choose(case.small, 3, pipe.refsr)
        seconds.append(time.perf_counter() - started)
        hits += any(found.entry.digest in case.own for found in choice.chosen)
        given, found = (enlarged(pipe, case, some, preset) for some in (case.references, choice.pictures()))
        differences.append(found - given)
        print(
            f"{case.name}: {described(choice, case)}; {found:.2f} dB, with its own references {given:.2f} dB",
            flush=True,
        )
    count = len(cases)
    print(f"a true reference among the three chosen: {hits} of {count}")
    mean, least = sum(differences) / count, min(differences)
    print(f"PSNR with the library minus that with the true references: mean {mean:+.2f} dB, worst {least:+.2f} dB")
    print(f"choosing: {sum(seconds) / count:.1f} s on the mean, {torch.get_num_threads()} threads")


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
    """Prints how long the first stage takes among many entries, in a processor's seconds: others may use it, too."""
    vectors = library.index.vectors
    random = torch.Generator().manual_seed(0)
    shape = (max(0, MANY - len(vectors)), *vectors.shape[1:])
    others = torch.nn.functional.normalize(torch.randn(shape, generator=random), dim=2).half()
    started = time.process_time()
    nearest = Nearest(torch.cat((vectors, others)))
    opened = time.process_time() - started
    embedder = make_embedder(library.index.embedder)
    started = time.process_time()
    query = embedder.query(case.small, case.small)
    embedded = time.process_time() - started
    started = time.process_time()
    nearest(query, 30)
    searched = time.process_time() - started
    count, of = len(vectors) + len(others), "of a processor"
    print(f"{count} entries: opened in {opened:.2f} s {of}, query {embedded:.2f} s, search {searched:.2f} s")


if __name__ == "__main__":
    main()

"""Measure how well `rank_references` separates true references from unrelated pictures (data in CUFED5 layout).

    python examples/ranking.py DATA/MultiView [--strangers 6]

For each photograph, its own references and pictures of other scenes are ranked together. The script prints how often a
true reference is ranked above an unrelated picture, for all references and for the first one. It also prints what share
of both kinds reaches the scores `LIKELY` and `UNLIKELY` of `def_hub.reference.selection`.
"""

import argparse
import time
from pathlib import Path

from def_hub import rank_references
from def_hub.evaluation.datasets import load_dataset
from def_hub.reference.selection import LIKELY, UNLIKELY


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--strangers", type=int, default=6, help="pictures of other scenes per photograph")
    options = parser.parse_args()
    dataset = load_dataset(options.dataset)
    true, strange, first, every, seconds = [], [], [], [], 0.0
    for number, item in enumerate(dataset.items):
        others = [other.references[0] for other in dataset.items if other.scene != item.scene]
        count, own = min(options.strangers, len(others)), len(item.references)
        candidates = [*item.references, *(others[(7 * number + 5 * i) % len(others)] for i in range(count))]
        started = time.perf_counter()
        ranked = rank_references(dataset.load(number)[1], candidates)
        seconds += time.perf_counter() - started
        score = {r.index: r.score for r in ranked}
        ours, theirs = [score[i] for i in range(own)], [score[i] for i in range(own, len(candidates))]
        every += [a > b for a in ours for b in theirs]
        first += [ours[0] > b for b in theirs]
        true, strange = true + ours, strange + theirs

    print(
        f"{dataset.name}: {len(dataset.items)} photographs, {len(true)} references, {len(strange)} unrelated pictures"
    )
    print(f"above an unrelated picture: {share(first)} of the first references, {share(every)} of all")
    for name, limit in (("LIKELY", LIKELY), ("UNLIKELY", UNLIKELY)):
        reached = (share([s >= limit for s in scores]) for scores in (true, strange))
        print(f"score of {name} = {limit} or more: {' of references, '.join(reached)} of unrelated pictures")
    print(f"{seconds / (len(true) + len(strange)):.2f} s per candidate")


def share(cases: list[bool]) -> str:
    """The share of true cases, in per cent."""
    return f"{100 * sum(cases) / len(cases):.1f} %"


if __name__ == "__main__":
    main()

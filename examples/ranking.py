"""Measure `rank_references` on groups of views (CUFED5 layout).

    python examples/ranking.py DATA/MultiView [--strangers 6] [--every 1] [--change x4] [--gain]

For each photograph, its own references and pictures of other scenes are ranked together. The script prints how often a
true reference is ranked above an unrelated picture, for all references and for the first one, and what share of both
kinds reaches the scores `LIKELY` and `UNLIKELY` of `def_hub.reference.selection`. With --change every candidate is
enlarged four times or turned by 90° first. With --gain the photograph is enlarged with each of its references (preset
"fast"), and the rank correlation between score and gain in PSNR is printed. `ranking.txt` has what was measured.
"""

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub import DEFPipeline, rank_references
from def_hub.evaluation.datasets import load_dataset
from def_hub.evaluation.metrics import psnr
from def_hub.images import to_tensor
from def_hub.reference.selection import LIKELY, UNLIKELY

CHANGES = {
    "none": lambda picture: picture,
    "x4": lambda picture: F.interpolate(picture, scale_factor=4, mode="bicubic").clamp(0, 1),
    "turned90": lambda picture: picture.rot90(1, (2, 3)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--strangers", type=int, default=6, help="pictures of other scenes per photograph")
    parser.add_argument("--every", type=int, default=1, help="only every so many-th photograph")
    parser.add_argument("--change", choices=CHANGES, default="none", help="what happens to every candidate")
    parser.add_argument("--gain", action="store_true", help="also measure what each reference gives")
    options = parser.parse_args()
    dataset = load_dataset(options.dataset)
    pipe = DEFPipeline.from_pretrained() if options.gain else None
    true, strange, gains, first, every, seconds = [], [], [], [], [], 0.0
    numbers = range(0, len(dataset.items), options.every)
    for number in numbers:
        item, (truth, y) = dataset.items[number], dataset.load(number)
        others = [other.references[0] for other in dataset.items if other.scene != item.scene]
        count, own = min(options.strangers, len(others)), len(item.references)
        files = [*item.references, *(others[(7 * number + 5 * i) % len(others)] for i in range(count))]
        candidates = [CHANGES[options.change](to_tensor(file)) for file in files]
        started = time.perf_counter()
        ranked = rank_references(y, candidates)
        seconds += time.perf_counter() - started
        score = {r.index: r.score for r in ranked}
        ours, theirs = [score[i] for i in range(own)], [score[i] for i in range(own, len(candidates))]
        print(f"{item.name}: {' '.join(f'{s:.3f}' for s in ours)} | {' '.join(f'{s:.3f}' for s in theirs)}", flush=True)
        every += [a > b for a in ours for b in theirs]
        first += [ours[0] > b for b in theirs]
        true, strange = true + ours, strange + theirs
        if pipe is not None:
            gains += measured(pipe, truth, y, candidates[:own])

    print(f"{dataset.name}: {len(numbers)} photographs, {len(true)} references, {len(strange)} unrelated pictures")
    print(f"above an unrelated picture: {share(first)} of the first references, {share(every)} of all")
    for name, limit in (("LIKELY", LIKELY), ("UNLIKELY", UNLIKELY)):
        reached = (share([s >= limit for s in scores]) for scores in (true, strange))
        print(f"score of {name} = {limit} or more: {' of references, '.join(reached)} of unrelated pictures")
    if gains:
        likely = [gain > 0 for gain, s in zip(gains, true, strict=True) if s >= LIKELY]
        print(f"rank correlation of score and gain: {correlation(true, gains):.2f}; {share(likely)} of the likely give")
    print(f"{seconds / (len(true) + len(strange)):.2f} s per candidate")


def measured(pipe: DEFPipeline, truth: Tensor, y: Tensor, references: list[Tensor]) -> list[float]:
    """What each reference gives alone, in dB on Y."""
    options = {"preset": "fast", "precision": "float32", "output_type": "pt"}
    pipe.set_progress_bar_config(disable=True)
    scores = [
        float(psnr(pipe(y, one, generator=torch.Generator().manual_seed(0), **options).images[0][None], truth))
        for one in (None, *references)
    ]
    print(" " * 4, *(f"{score - scores[0]:+.2f}" for score in scores[1:]), "dB", flush=True)
    return [score - scores[0] for score in scores[1:]]


def correlation(a: list[float], b: list[float]) -> float:
    """Spearman's: the correlation of the ranks."""
    ranks = torch.tensor([a, b]).argsort(1).argsort(1).double()
    return float(torch.corrcoef(ranks)[0, 1])


def share(cases: list[bool]) -> str:
    """The share of true cases, in per cent."""
    return f"{100 * sum(cases) / max(len(cases), 1):.1f} %"


if __name__ == "__main__":
    main()

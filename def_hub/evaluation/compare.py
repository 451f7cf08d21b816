"""Whether one method is better than another: paired differences per picture, with an interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from def_hub.evaluation.rows import NUMBERS, Row

LOWER_IS_BETTER = ("lpips", "consistency", "seconds", "memory")
SAMPLES = 10_000
"""Of the bootstrap: enough for the second digit of an interval's ends."""
BLOCK = 1_000
"""Samples that are drawn at a time, which bounds the memory."""


@dataclass(frozen=True)
class Difference:
    """A minus B on the pictures that both have.

    Attributes:
        mean: of the differences. low, high: ends of the interval that holds the true mean with `confidence`.
        wins: share of the pictures on which A is better, ties counted half.
        images: how many pictures both have. left_out: how many only one of them has, or where the metric is unavailable
            or infinite.
    """

    dataset: str
    metric: str
    mean: float
    low: float
    high: float
    wins: float
    images: int
    left_out: int
    confidence: float

    @property
    def verdict(self) -> str:
        """ "A is better", "B is better", or "undecided" where the interval holds zero."""
        if self.low <= 0 <= self.high:
            return "undecided"
        return "A is better" if (self.mean > 0) != (self.metric in LOWER_IS_BETTER) else "B is better"


def compare(
    a: Sequence[Row], b: Sequence[Row], metric: str = "psnr", confidence: float = 0.95, seed: int = 0
) -> list[Difference]:
    """One `Difference` for each data set that both have pictures of.

    The interval is the percentile bootstrap over pictures: data sets are drawn anew from their own pictures, with
    replacement, 10,000 times. It says what other pictures of the same kind would have given; it knows nothing of
    pictures of another kind. Under about ten pictures it is too narrow.

    Args:
        a, b: rows of one method each, one for each picture.
        metric: a number of `Row`.
        confidence: of the interval, between 0 and 1.

    Raises:
        ValueError: for an unknown metric, two rows for one picture, or where no picture has the metric in both.
    """
    if metric not in NUMBERS:
        raise ValueError(f"metric must be one of {', '.join(NUMBERS)}, got {metric!r}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}")
    left, right = _by_picture(a, metric), _by_picture(b, metric)
    differences = []
    for dataset in dict.fromkeys(name for name, _ in left):
        ours, theirs = ({k: v for k, v in side.items() if k[0] == dataset} for side in (left, right))
        both = [key for key in ours if np.isfinite(ours[key]) and np.isfinite(theirs.get(key, np.nan))]
        if not both:
            continue
        values = np.array([ours[key] - theirs[key] for key in both])
        low, high = _interval(values, confidence, seed)
        sign = -1 if metric in LOWER_IS_BETTER else 1
        wins = float(((np.sign(sign * values) + 1) / 2).mean())
        left_out = len(ours.keys() | theirs.keys()) - len(both)
        differences.append(
            Difference(dataset, metric, float(values.mean()), low, high, wins, len(both), left_out, confidence)
        )
    if not differences:
        raise ValueError(f"no picture has {metric} in both")
    return differences


def markdown(differences: Sequence[Difference], a: str, b: str, protocol: str) -> str:
    """The table people read. `protocol` is the one that A and B were measured under, in words."""
    lines = [
        f"A = {a}; B = {b}; {differences[0].metric}, A − B, {protocol}; bootstrap over pictures.",
        "",
        f"| data set | images | mean difference | {differences[0].confidence:.0%} interval | A better on | verdict |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for d in differences:
        digits = ".4f" if max(abs(d.low), abs(d.high)) < 0.1 else ".3f"
        interval = f"{d.low:+{digits}} … {d.high:+{digits}}"
        lines.append(f"| {d.dataset} | {d.images} | {d.mean:+{digits}} | {interval} | {d.wins:.0%} | {d.verdict} |")
    lines += [f"\n{d.dataset}: {d.left_out} more pictures cannot be compared." for d in differences if d.left_out]
    return "\n".join(lines)


def _by_picture(rows: Sequence[Row], metric: str) -> dict[tuple[str, str], float]:
    values: dict[tuple[str, str], float] = {}
    for row in rows:
        key = (row.dataset, row.image)
        if key in values:
            raise ValueError(f"{row.dataset}/{row.image} has two rows; give those of one method only")
        values[key] = getattr(row, metric)
    return values


def _interval(values: np.ndarray, confidence: float, seed: int) -> tuple[float, float]:
    draw = np.random.default_rng(seed)
    count = len(values)
    means = [values[draw.integers(0, count, (BLOCK, count))].mean(axis=1) for _ in range(SAMPLES // BLOCK)]
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)

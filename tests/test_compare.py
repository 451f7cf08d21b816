"""`compare`: intervals that hold what they promise, and the command."""

import math
from pathlib import Path

import numpy as np
import pytest

from def_hub.cli import main
from def_hub.evaluation.compare import compare
from def_hub.evaluation.rows import Row, write_rows


def rows(values: np.ndarray, method: str = "a", dataset: str = "set", **more: float) -> list[Row]:
    return [Row(method, dataset, "first", f"{n:03}", float(v), 0.9, **more) for n, v in enumerate(values)]


def test_a_constant_difference_is_certain() -> None:
    values = np.linspace(25, 35, 12)
    (difference,) = compare(rows(values + 0.5), rows(values))
    assert difference.mean == pytest.approx(0.5) and difference.low == pytest.approx(0.5)
    assert (difference.high, difference.wins, difference.images) == (pytest.approx(0.5), 1, 12)
    assert difference.verdict == "A is better"
    (other,) = compare(rows(values), rows(values + 0.5))
    assert other.verdict == "B is better" and other.mean == -difference.mean


def test_the_interval_is_the_one_of_theory() -> None:
    """For many pictures the bootstrap's interval is mean ± 1.96 standard errors."""
    draw = np.random.default_rng(0)
    values, noise = draw.normal(30, 3, 400), draw.normal(0.1, 1, 400)
    (difference,) = compare(rows(values + noise), rows(values))
    error = noise.std() / 20
    assert difference.low == pytest.approx(noise.mean() - 1.96 * error, abs=0.1 * error)
    assert difference.high == pytest.approx(noise.mean() + 1.96 * error, abs=0.1 * error)
    (wider,) = compare(rows(values + noise), rows(values), confidence=0.99)
    assert wider.high - wider.low > difference.high - difference.low
    assert compare(rows(values + noise), rows(values)) == [difference]  # the same numbers again


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """200 experiments with 40 pictures each: 95 % of the intervals hold the true mean, give or take chance."""
    draw = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        noise = draw.normal(0.2, 1, 40)
        (difference,) = compare(rows(30 + noise), rows(np.full(40, 30.0)))
        held += difference.low <= 0.2 <= difference.high
    assert 180 <= held <= 200


def test_lower_is_better_for_a_distance() -> None:
    values = np.full(10, 30.0)
    (difference,) = compare(rows(values, lpips=0.1), rows(values, lpips=0.2), "lpips")
    assert difference.mean < 0 and difference.verdict == "A is better" and difference.wins == 1


def test_only_what_both_have_is_compared() -> None:
    values = np.linspace(25, 35, 12)
    a = rows(values + 1)[2:] + rows(values, dataset="other")
    infinite = rows(values)
    infinite[5] = Row("a", "set", "first", "005", math.inf, 1.0)
    (difference,) = compare(a, infinite)
    assert (difference.images, difference.left_out) == (9, 3)
    with pytest.raises(ValueError, match="no picture has lpips in both"):
        compare(a, infinite, "lpips")
    with pytest.raises(ValueError, match="two rows"):
        compare(a + a, infinite)
    with pytest.raises(ValueError, match="metric must be one of psnr"):
        compare(a, infinite, "beauty")
    with pytest.raises(ValueError, match="confidence must lie"):
        compare(a, infinite, confidence=95)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    values = np.linspace(25, 35, 12)
    for name, shift in (("one", 0.5), ("two", 0.0)):
        Path(name).mkdir()
        both = rows(values - 3, "bicubic") + rows(values + shift, "def") + rows(values + 2 * shift, "def:fast")
        write_rows(Path(name) / "rows.csv", both)
        (Path(name) / "settings.json").write_text('{"protocol": "Y, no border crop"}')
    assert main(["compare", "one:def", "two:def:first"]) == 0
    out = capsys.readouterr().out
    assert "psnr, A − B, Y, no border crop; bootstrap" in out  # the protocol stands beside every number
    assert "| set | 12 | +0.500 | +0.500 … +0.500 | 100% | A is better |" in out
    assert main(["compare", "one:def:fast", "one:bicubic", "--metric", "psnr", "--confidence", "0.9"]) == 0
    assert "90% interval" in capsys.readouterr().out
    assert main(["compare", "one", "two:def"]) == 2
    assert "expected one of one:bicubic:first, one:def:first, one:def:fast:first" in capsys.readouterr().err
    assert main(["compare", "three", "two:def"]) == 2
    assert "give a folder that evaluate --output wrote" in capsys.readouterr().err
    (Path("two") / "settings.json").write_text('{"protocol": "RGB"}')
    assert main(["compare", "one:def", "two:def"]) == 2
    assert "one:def was measured as Y, no border crop; two:def as RGB" in capsys.readouterr().err

"""`rows`: the file that keeps them, means that do not mislead."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from def_hub.evaluation.rows import Row, append_row, read_rows, summarise, write_rows

ROW = Row("def:fast,eta=0.5", 'a "set"', "first", "a,b", 30.123456789012345, 0.9)


def test_rows_come_back_to_the_last_bit(tmp_path: Path) -> None:
    rows = [ROW, replace(ROW, image="c", psnr=math.inf, lpips=0.1), replace(ROW, image="d", memory=1e9)]
    for row in rows:
        append_row(tmp_path / "rows.csv", row)
    assert repr(list(read_rows(tmp_path / "rows.csv"))) == repr(rows)  # NaN is not equal to itself
    write_rows(tmp_path / "again.csv", rows)
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "rows.csv").read_bytes()


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_an_unfinished_line_is_no_row(tmp_path: Path, cut: int) -> None:
    """Wherever the process was stopped, even inside the last number, which would read as another one."""
    write_rows(tmp_path / "rows.csv", [ROW, replace(ROW, image="c", memory=123.456)])
    text = (tmp_path / "rows.csv").read_text()
    (tmp_path / "rows.csv").write_text(text[:-cut])
    assert [row.image for row in read_rows(tmp_path / "rows.csv")] == ["a,b"]


def test_files_of_before_are_read(tmp_path: Path) -> None:
    old = "method,dataset,references,image,psnr,ssim,consistency,seconds\nbicubic,Set5,none,baby,31.5,0.9,0.25,0.1\n"
    (tmp_path / "rows.csv").write_text(old)
    (row,) = read_rows(tmp_path / "rows.csv")
    assert (row.method, row.psnr, row.consistency, row.seconds) == ("bicubic", 31.5, 0.25, 0.1)
    assert math.isnan(row.lpips) and math.isnan(row.memory)


def test_means_gain_and_what_is_unavailable() -> None:
    base = Row("m", "s", "none", "a", 30, 0.8, consistency=1, lpips=0.2)
    rows = [base, replace(base, image="b", psnr=32, consistency=3, lpips=math.nan)]
    rows += [replace(row, references="first", psnr=row.psnr + 2, served=0.5) for row in rows]
    alone, helped = summarise(rows)
    assert (alone.images, alone.psnr, alone.consistency) == (2, 31, 3)
    assert math.isnan(alone.lpips) and math.isnan(alone.gain) and math.isnan(alone.served)
    assert helped.gain == 2 and helped.served == 0.5
    assert math.isnan(summarise(rows[2:])[0].gain)  # without references was not measured

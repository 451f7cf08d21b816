"""The development table in small: the command that fills the card runs, goes on when called again, and fills a card."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from def_hub.evaluation.rows import read_rows
from def_hub.hub.measured import compared

from .conftest import EXAMPLES, ROOT
from .helpers.evaluation import save_picture

SIZE = (64, 72)


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """The seven sets with two pictures each."""
    for number in range(2):
        for name in ("Set5", "Set14", "Urban100"):
            save_picture(tmp_path / name / f"{number}.png", number, SIZE)
        save_picture(tmp_path / "WR-SR" / "input" / f"{number}.png", number, SIZE)
        save_picture(tmp_path / "WR-SR" / "ref" / f"{number}_ref.png", 10 + number, SIZE)
        for member in range(2):
            save_picture(tmp_path / "MultiView" / f"00{number}_{member}.png", 20 + 2 * number + member, SIZE)
        for name in ("RealSR", "DRealSR"):
            save_picture(tmp_path / name / "HR" / f"{number}.png", number, SIZE)
            save_picture(tmp_path / name / "LR" / f"{number}.png", 30 + number, (SIZE[0] // 4, SIZE[1] // 4))
    return tmp_path


def test_one_command_makes_the_whole_table(sets: Path, shared_weights: Path, tmp_path: Path) -> None:
    programs = Path(sys.executable).parent
    if shutil.which("def-hub", path=str(programs)) is None:
        pytest.skip("def-hub is not installed beside this Python")
    environment = os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "DEF_EVALUATE": "--every 2",
    }
    command = ["sh", str(EXAMPLES / "development.sh"), str(sets), str(shared_weights), str(tmp_path / "out")]
    kept = []
    for _ in range(2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        assert "RealSR: has no references first, unrelated" in done.stderr
        kept.append((tmp_path / "out" / "rows.csv").read_text())
    assert kept[0] == kept[1]  # with their seconds: nothing was measured again
    found = {(row.dataset, row.method, row.references) for row in read_rows(tmp_path / "out" / "rows.csv")}
    assert len({name for name, *_ in found}) == 7
    assert {method for _, method, _ in found} == {
        *("bicubic", "rlfn", "hitsrf", "rrdb"),
        *("def:fast", "def:balanced", "def:detail"),
    }
    assert [mode for name, method, mode in found if (name, method) == ("WR-SR", "def:balanced")].count("unrelated") == 1
    assert ("WR-SR", "def:detail", "first") in found and ("WR-SR", "def:detail", "unrelated") not in found
    assert ("RealSR", "def:detail", "none") in found
    assert {s.method for s in compared(tmp_path / "out")} == {
        *("bicubic", "rlfn", "hitsrf", "rrdb"),
        *("DEF fast", "DEF balanced", "DEF detail"),
    }
    assert (tmp_path / "out" / "report.html").is_file()

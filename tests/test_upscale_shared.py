"""`def-hub upscale FOLDER` by several processes: each picture once, the bytes of one process, and resumable."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from .conftest import ROOT, Run, contents
from .helpers.evaluation import save_picture

START = "import sys; from def_hub.cli import main; sys.exit(main())"
COUNT = 5


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five small pictures, the third of which cannot be read."""
    monkeypatch.chdir(tmp_path)
    for number in range(COUNT):
        save_picture(tmp_path / "photos" / f"{number}.png", number, (9 + number, 12))
    (tmp_path / "photos" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    return tmp_path / "photos"


def by_two(words: list[str]) -> tuple[int, str, str]:
    """The command in two real processes: exit status, what they said, what they complained of."""
    Path("start.py").write_text(START)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "start.py"]
    threads = str(torch.get_num_threads())  # they decide the last bits
    environment = os.environ | {"PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": threads}
    done = subprocess.run([*torchrun, *words], env=environment, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


def test_two_processes_share_a_folder(run: Run, tiny_model: Path, photos: Path) -> None:
    words = ["upscale", "photos", "--model", str(tiny_model), "--device", "cpu", "--steps", "2", "-o"]
    status, out, err = by_two([*words, "two/"])
    assert status == 1 and "1 of 5 pictures failed" in err and err.count("2.png") >= 1
    assert sorted(re.findall(r"\[(\d)/5\]", out)) == ["1", "2", "4", "5"]  # each once
    assert run(*words, "one/")[0] == 1
    assert contents(Path("two")) == contents(Path("one")) and len(contents(Path("one"))) == COUNT - 1


def test_two_processes_go_on_where_one_was_stopped(run: Run, tiny_model: Path, photos: Path) -> None:
    """What is there stays as it is, whoever made it; what is missing is made."""
    (photos / "2.png").unlink()
    words = ["upscale", "photos", "--model", str(tiny_model), "--device", "cpu", "--steps", "2", "--skip-existing"]
    Path("half").mkdir()
    for name in ("0.png", "3.png"):  # both are of one process's share
        Path("half", name).write_bytes(b"made before")
    status, out, err = by_two([*words, "-o", "half/"])
    assert status == 0, err
    assert "2 of 4 results are there already, skipped" in out and out.count("/4] ") == 2
    made = contents(Path("half"))
    assert sorted(made) == ["0.png", "1.png", "3.png", "4.png"]
    assert sorted(name for name, data in made.items() if data == b"made before") == ["0.png", "3.png"]
    assert run(*words, "-o", "half/")[1].startswith("4 of 4 results are there already, skipped")

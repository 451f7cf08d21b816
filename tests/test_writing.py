"""`writing`: whole files or none, and nothing left behind."""

import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from def_hub import images
from def_hub.writing import DAY, replacing, replacing_files, sweep, temporary_name, write_text

from .conftest import ROOT, Run
from .helpers.interruption import JOBS, temporary_files


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file may grow beyond `room` bytes: writing fails as on a full disk, with another number."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_a_file_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_text(path, "before")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "before" and names(tmp_path) == ["a.json"]
    with replacing_files(tmp_path / "export") as folder:
        (folder / "part").mkdir()
        (folder / "part" / "weights").write_text("new")
        assert not (tmp_path / "export").exists()
    assert (tmp_path / "export/part/weights").read_text() == "new"
    with pytest.raises(RuntimeError), replacing_files(tmp_path / "export") as folder:
        (folder / "other").write_text("half")
        raise RuntimeError
    assert names(tmp_path) == ["a.json", "export", "part", "weights"]


def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "before")
    images.save_image(torch.zeros(3, 64, 64), tmp_path / "a.png")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    noise = torch.rand(3, 200, 200)
    for write in (
        lambda: write_text(tmp_path / "a.txt", "x" * 9000),
        lambda: images.save_image(noise, tmp_path / "a.png"),
        lambda: images.save_image(noise, tmp_path / "a.png", bits=16),
    ):
        with full_disk(4000), pytest.raises(OSError, match=r"a\.(png|txt): cannot be written \(.*\)$"):
            write()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_full_disk_costs_the_rest_of_a_folder_only(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    for number, side in enumerate((8, 40, 8)):
        (tmp_path / "in").mkdir(exist_ok=True)
        images.save_image(torch.rand(3, side, side), tmp_path / "in" / f"{number}.png")
    words = ["upscale", tmp_path / "in", "-o", tmp_path / "out", "--model", tiny_model, "--device", "cpu", "--steps", 1]
    with full_disk(20_000):
        status, _, err = run(*words)
    assert status == 1 and err.count("1.png: cannot be written") == 1 and "1 of 3 pictures failed" in err
    assert names(tmp_path / "out") == ["0.png", "2.png"]
    assert run(*words, "--skip-existing")[0] == 0 and names(tmp_path / "out") == ["0.png", "1.png", "2.png"]


ROOM = {"library": 3000, "evaluate": 3400, "train": 20_000}
"""Bytes: less than a part of a library, than an enlarged picture (a bicubic one has less), than a checkpoint."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ROOM)
def test_a_full_disk_stops_a_long_command_which_completes_the_rest_later(
    name: str, run: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    Path("model").symlink_to(tiny_model)
    job = JOBS[name]
    job.prepare()
    with full_disk(ROOM[name]):
        status, _, err = run(*job.words)
    (said,) = [line for line in err.replace("\r", "\n").splitlines() if "def-hub: error: " in line]
    assert status == 2 and re.search(r"\.(safetensors|png): cannot be written \(.*File too large.*\)$", said)
    assert "Traceback" not in err and not temporary_files()
    there = job.whole()
    assert there or name != "evaluate"  # rows that were finished
    status, _, err = run(*job.words)
    assert status == 0, err
    assert there.items() <= job.whole().items() and len(job.whole()) > len(there) and not temporary_files()


def test_what_is_trained_already_stays_on_a_full_disk(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    job = JOBS["train"]
    job.prepare()
    longer = Path("run.toml").read_text()
    Path("run.toml").write_text(longer.replace("steps = 12", "steps = 2"))
    assert run(*job.words)[0] == 0
    there = job.whole()
    Path("run.toml").write_text(longer)
    with full_disk(ROOM["train"]):
        status, _, err = run(*job.words)
    assert status == 2 and "checkpoint.safetensors: cannot be written" in err
    assert job.whole() == there
    assert run(*job.words)[0] == 0 and job.whole() != there


def test_a_folder_that_may_not_be_written_is_refused_at_once(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    images.save_image(torch.rand(3, 9, 9), tmp_path / "a.png")
    words = ["upscale", tmp_path / "a.png", "--model", tiny_model, "--device", "cpu", "-o"]
    status, out, err = run(*words, "/proc/a.png")  # even root may not
    assert status == 2 and not out and "/proc/a.png: cannot be written" in err
    status, out, err = run(*words, tmp_path / "a.png" / "b.png")
    assert status == 2 and not out and "cannot be written" in err


def test_what_dead_processes_left_is_deleted(tmp_path: Path) -> None:
    """And nothing else: not what a living process or another machine is writing, and no other hidden file."""
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    host, own = temporary_name(tmp_path / "a.png").name.split("-")[1:3]
    left = f".def-{host}-{int(dead.stdout)}-1.png"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as alive:
        other = f"{int(host, 16) ^ 1:04x}"
        keep = [f".def-{host}-{alive.pid}-1.png", f".def-{host}-{own}-1.png", f".def-{other}-1-1.png", ".def-mine", "a"]
        old = [f".def-{other}-2-1.json", f".def-{host}-{own}-2.png"]
        for name in (left, *keep, *old):
            (tmp_path / name).touch()
        os.utime(tmp_path / old[0], (0, time.time() - 2 * DAY))
        os.utime(tmp_path / old[1], (0, time.time() - DAY / 2))  # of an earlier process of our number
        (tmp_path / f".def-{host}-{int(dead.stdout)}-2").mkdir()
        (tmp_path / f".def-{host}-{int(dead.stdout)}-2" / "inside").touch()
        sweep(tmp_path)
        assert names(tmp_path) == sorted(keep)
        alive.communicate(b"\n")
    sweep(tmp_path / "absent")


@pytest.mark.slow
def test_sigterm_ends_a_command_in_one_line(tiny_model: Path, tmp_path: Path) -> None:
    for number in range(40):
        images.save_image(torch.rand(3, 24, 24), tmp_path / f"{number}.png")
    code = "import sys; from def_hub.cli import main; sys.exit(main())"
    words = ["upscale", str(tmp_path), "-o", str(tmp_path / "out"), "--model", str(tiny_model), "--steps", "20"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline().startswith("[1/40]")
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143 and err.splitlines()[-1] == "def-hub: terminated" and "Traceback" not in err
    assert not list((tmp_path / "out").glob(".*"))

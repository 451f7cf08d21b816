"""What is prepared for a lent GPU runs on a CPU before: two steps of each part, and one small comparison."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from def_hub.config import load_config
from def_hub.evaluation.baselines.hitsrf import HiTSRF
from def_hub.reference.network import ReferenceNetwork
from def_hub.training import run

from .conftest import EXAMPLES
from .helpers.pictures import picture
from .test_training import PRIOR, write

GPU = EXAMPLES / "gpu"


def script(name: str, *arguments: str, shell: bool = True) -> str:
    """What a script prints, run in the working directory; the test fails where it does."""
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    command = ["sh" if shell else sys.executable, str(GPU / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photographs and pairs as large as the run files want them, and a teacher with random weights."""
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "pairs160/input", "pairs160/ref"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    pixels = [(picture(160 + i, 168)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8) for i in range(6)]
    for i, scene in enumerate(pixels):
        Image.fromarray(scene).save(tmp_path / f"data/photos/{i}.jpg", quality=93)
        for folder in ("input", "ref"):
            Image.fromarray(scene[:160, :160]).save(tmp_path / f"data/pairs160/{folder}/{i}.webp", quality=95)
    table = "".join(f"{i}\t{'opensfm' if i == 5 else 'other'}\n" for i in range(6))
    (tmp_path / "data/pairs160/pairs.tsv").write_text("name\tgroup\n" + table)
    torch.manual_seed(0)
    save_file(HiTSRF().state_dict(), "teacher.safetensors")
    return tmp_path / "data"


@pytest.mark.slow
def test_two_steps_of_the_gpu_s_training(data: Path) -> None:
    assert "MB in runs/gpu/pack" in script("pack.py", str(data), "teacher.safetensors", "runs/gpu/pack", shell=False)
    script("train.sh", "--try")
    network = ReferenceNetwork.from_pretrained("runs/gpu/trunk/export/refsr")
    wanted = load_config(GPU / "trunk.toml").reference
    assert (network.config.known, tuple(network.config.blocks)) == (wanted.known, wanted.blocks)
    assert len(Path("runs/gpu/trunk/validation.csv").read_text().splitlines()) == 2
    assert not list(Path("runs").rglob("taught-*.npy"))  # the teacher stands beside the student


def test_a_pack_is_as_small_as_it_is_told(data: Path) -> None:
    script("pack.py", str(data), "teacher.safetensors", "small", "--megabytes", "0.02", shell=False)
    kept = [p for part in ("photos", "pairs160") for p in Path("small", part).rglob("*.webp")]
    assert 0 < len(kept) < 18 and sum(p.stat().st_size for p in kept) < 20_000
    inputs, references = (sorted(p.name for p in Path("small/pairs160", n).iterdir()) for n in ("input", "ref"))
    assert inputs == references


@pytest.mark.slow
def test_cpu_and_gpu_are_compared() -> None:
    rows = script("check.sh", "--try").splitlines()
    assert [row.split()[0] for row in rows[2:]] == ["fast", "balanced", "detail"]
    assert all("inf dB" in row for row in rows[2:])  # the CPU agrees with itself


def test_a_timed_schedule_falls_with_the_minutes(workplace: Path) -> None:
    path = write("timed", "prior", PRIOR, 1000, schedule="timed")
    with pytest.raises(ValueError, match="needs a number of minutes"):
        run(path)
    run(path, max_minutes=0.02)
    assert 1 < len(Path("timed/train.csv").read_text().splitlines()) < 1000

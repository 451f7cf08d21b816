"""The card's tables of degraded pictures and of what the diffusion is worth, from rows whose means are known."""

import json
from pathlib import Path

import pytest

from def_hub.hub.studies import degraded_table, diffusion_table

COLUMNS = "method,dataset,references,image,psnr,ssim,consistency,seconds,lpips\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "settings.json").write_text(json.dumps({"commit": "1234567"}))
    return tmp_path


def write(folder: Path, *rows: str) -> None:
    (folder / "rows.csv").write_text(COLUMNS + "\n".join(rows) + "\n")


def test_gains_are_over_the_same_degraded_file(folder: Path) -> None:
    write(
        folder,
        "bicubic,A,none,1,20,0.5,30,0,",
        "bicubic,A,none,2,30,0.5,30,0,",
        "bicubic,A+jpeg70,none,1,18,0.5,30,0,",
        "def:balanced,A,none,1,22,0.5,30,0,",
        "def:balanced,A,none,2,31,0.5,30,0,",
        "def:balanced,A,first,1,24,0.5,30,0,",
        "def:balanced,A+jpeg70,none,1,17.5,0.5,30,0,",
    )
    lines = degraded_table(folder).splitlines()
    assert lines[2] == "| clean | 2 | 25.00 | +1.50 (+1.00) | +4.00 (+4.00) |"
    assert lines[3] == "| jpeg70 | 1 | 18.00 | -0.50 (-0.50) | – |"
    assert lines[-1] == "Measured with the code of commit 1234567."


def test_steps_stand_beside_each_other(folder: Path) -> None:
    write(
        folder,
        "bicubic,A,none,1,20,0.5,30,0,",
        '"def:detail,num_inference_steps=0",A,none,1,21,0.5,30,1,',
        '"def:detail,num_inference_steps=16",A,none,1,22,0.5,30,3,0.2',
        '"def:detail,num_inference_steps=16",A,none,2,24,0.5,30,5,0.1',
    )
    lines = diffusion_table(folder).splitlines()
    assert lines[0] == "| preset | LR picture | reference | left out | 16 steps |"
    assert lines[2] == "| detail | clean | no reference | 21.00 / 1.0 | 23.00 / 0.150 / 4.0 |"
    assert lines[-1].endswith("means of 2 pictures; commit 1234567.")


def test_what_is_no_such_study(folder: Path) -> None:
    write(folder, "bicubic,A,none,1,20,0.5,30,0,")
    with pytest.raises(ValueError, match="num_inference_steps=4, found none"):
        diffusion_table(folder)
    write(folder)
    with pytest.raises(ValueError, match=r"rows\.csv is empty"):
        degraded_table(folder)

"""The shipped examples are as documented, and every example script runs with the embedded default."""

import io
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from def_hub import DEFPipeline, images
from def_hub.evaluation.metrics import grid_pattern, psnr
from def_hub.observation.downsample import make_operator
from def_hub.service.examples import SHIPPED, Example
from tests.conftest import EXAMPLES

NAMES = ("street", "banana", "robot", "lund", "sign")


@pytest.mark.parametrize("name", NAMES)
def test_the_small_picture_is_the_downsampled_truth(name: str) -> None:
    truth = images.to_tensor(EXAMPLES / f"{name}_hr.webp")
    assert np.array_equal(images.shrink(truth), images.to_tensor(EXAMPLES / f"{name}_lr.png"))


def test_the_thumbnail_is_the_downsampled_truth_as_a_jpeg() -> None:
    thumbnail = Image.open(EXAMPLES / "facade_lr.jpg")
    truth = Image.open(EXAMPLES / "facade_hr.webp").convert("RGB")
    shrunk = truth.resize((160, 120), Image.Resampling.BICUBIC)
    again = io.BytesIO()
    shrunk.save(again, "JPEG", quality=75)
    assert thumbnail.format == "JPEG" and thumbnail.quantization == Image.open(again).quantization
    assert np.abs(np.asarray(thumbnail, float) - np.asarray(Image.open(again), float)).mean() < 1


@pytest.mark.parametrize("example", SHIPPED, ids=lambda example: example.name)
def test_references_add_a_decibel_to_each_example_of_the_page(pipe: DEFPipeline, example: Example) -> None:
    """To what the same call gives without them. As the page opens it: the default preset, seed 0."""
    truth = images.to_tensor(example.original)
    without, result = (
        pipe(example.photo, chosen, generator=torch.Generator().manual_seed(0), output_type="pt").images[0][None]
        for chosen in (None, example.references)
    )
    assert psnr(result, truth) - psnr(without, truth) > 1
    height, width = truth.shape[-2:]
    (x, y), side = example.place, 64  # and more where its title tells to look
    around = (..., slice(max(0, int(y * height) - side), int(y * height) + side),
              slice(max(0, int(x * width) - side), int(x * width) + side))  # fmt: skip
    there = [float(((picture - truth)[around] ** 2).mean()) for picture in (without, result)]
    assert there[1] < 0.85 * there[0]


@pytest.mark.parametrize("name", NAMES[:3])
def test_detail_draws_no_grid_lines(pipe: DEFPipeline, name: str) -> None:
    call = pipe(
        EXAMPLES / f"{name}_lr.png",
        EXAMPLES / f"{name}_ref1.jpg",
        preset="detail",
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    )
    assert grid_pattern(call.images[0][None], images.to_tensor(EXAMPLES / f"{name}_hr.webp")).item() < 1.5


def test_the_pictures_are_small_and_credited() -> None:
    pictures = images.list_pictures(EXAMPLES)
    assert sum(path.stat().st_size for path in pictures) < 3_200_000
    assert all(max(Image.open(path).size) <= 1224 for path in pictures)
    credits = (EXAMPLES / "CREDITS.md").read_text()
    assert {path.name.split("_")[0] for path in pictures} == {*NAMES, "facade"}
    assert all(f"`{name}_*`" in credits for name in (*NAMES, "facade"))


@pytest.mark.parametrize(
    ("script", "results"),
    [
        ("one_reference", ["one_reference.png"]),
        ("several_references", ["several_references.png"]),
        ("no_reference", ["no_reference.png"]),
        (
            "inspect_intermediates",
            [f"inspect/{n}.png" for n in ("matches", "steps", "before_after", "provenance")],
        ),
        ("demo", ["demo/result.png", "demo/before_after.png", "demo/matches.png", "demo/report.json"]),
    ],
)
def test_scripts_run(pipe: DEFPipeline, tmp_path: Path, script: str, results: list[str]) -> None:
    environment = {"OMP_NUM_THREADS": "2"} | os.environ | {"PYTHONPATH": str(EXAMPLES.parent)}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{script}.py")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for result in results:
        path = tmp_path / "outputs" / result
        assert path.exists() and Path("outputs", result).parts[1] in done.stdout
        if path.suffix == ".png":
            Image.open(path).load()


@pytest.mark.parametrize("name", NAMES)
def test_the_embedded_default_restores_a_real_photograph(pipe: DEFPipeline, name: str) -> None:
    small, truth = (
        images.to_tensor(EXAMPLES / f"{name}_lr.png"),
        images.to_tensor(EXAMPLES / f"{name}_hr.webp"),
    )
    output = pipe(small, EXAMPLES / f"{name}_ref1.jpg", preset="fast", output_type="pt")
    gain = psnr(output.images[0][None], truth) - psnr(make_operator().upsample(small), truth)
    assert gain.item() > 0.5
    assert output.consistency_error[0] <= 2


def test_every_benchmark_runs() -> None:
    """At a small size. Only that they run is checked, not how fast."""
    script = EXAMPLES / "benchmarks" / "run.py"
    answer = subprocess.run(
        [sys.executable, script, "--size", "16", "--repeat", "1"], check=True, stdout=subprocess.PIPE, text=True
    )
    lines = answer.stdout.splitlines()
    rows = [line for line in lines if line.startswith(("TTSR", "ours", "a plain"))]
    assert len(rows) == 9 and all(float(row.split()[-1]) > 0 for row in rows)
    assert sum(line.endswith(" s") for line in lines) == 4 and lines[-1].startswith("diffusion network: ")


def test_growth_prints_a_table_and_draws_curves(tmp_path: Path) -> None:
    script = [
        sys.executable,
        EXAMPLES / "benchmarks" / "growth.py",
        "--sides",
        "16",
        "40",
        "--plot",
        tmp_path / "g.svg",
    ]
    printed = subprocess.run(script, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    assert printed[1].split()[:3] == ["16x16", "64x64", "64x64"] and printed[-1].startswith("exponents: time ")
    drawing = (tmp_path / "g.svg").read_text()
    assert drawing.count("<circle") == 4 and ElementTree.fromstring(drawing).tag.endswith("svg")


def test_company_prints_a_row_for_a_way_of_waiting() -> None:
    """One process: that others do not slow it more than their share can only be seen on a machine that is idle."""
    script = [sys.executable, EXAMPLES / "benchmarks" / "company.py", *"--side 16 --calls 1 --processes 1".split()]
    script += ["--ways", "passive"]
    printed = subprocess.run(script, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    rows = [line.strip("| ").split(" | ") for line in printed[2:]]
    assert [name for name, _ in rows] == ["passive"]
    assert all(float(seconds.removesuffix(" s")) > 0 for _, seconds in rows)


def test_fine_tuning_measures_held_out_pairs(tmp_path: Path) -> None:
    """Four pairs cut from a shipped photograph and its reference. Two steps train too little for a gain."""
    photo, reference = (Image.open(EXAMPLES / name).convert("RGB") for name in ("street_hr.webp", "street_ref1.jpg"))
    for i in range(4):
        for folder, picture in (("input", photo), ("ref", reference)):
            (tmp_path / folder).mkdir(exist_ok=True)
            picture.crop((60 * i, 40, 60 * i + 168, 208)).save(tmp_path / folder / f"{i}.png")
    script = [sys.executable, EXAMPLES / "fine_tune.py", tmp_path, "--steps", "2", "--output", tmp_path / "tuned"]
    printed = subprocess.run(script, check=True, stdout=subprocess.PIPE, text=True, cwd=tmp_path).stdout
    before, after = map(float, printed.split("  3 ")[1].split("\n")[0].split("→"))
    assert "36 pairs; 8 pictures of 168x168" in printed and "on 1 pairs left out" in printed
    assert 20 < before < 40 and abs(after - before) < 0.5
    assert DEFPipeline.from_pretrained(tmp_path / "tuned").refsr.config.folded


def test_windows_prints_the_difference_to_the_whole() -> None:
    script = [sys.executable, EXAMPLES / "benchmarks" / "windows.py", "--names", "street"]
    printed = subprocess.run(script, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    name, enhanced, result, above = printed[-1].split()
    assert name == "street" and 0 < float(enhanced) < 1  # there were windows, and their borders are invisible
    # few pixels: where two matches are almost equally good, a small difference decides for the other one
    assert float(result) < 20 and float(above.rstrip("%")) < 0.5

"""`def-hub`: what is written, what is said and how it ends, with a tiny random model."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from def_hub import DEFPipeline, cli, images
from def_hub.observation.downsample import consistency_error, make_operator

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
Run = Callable[..., tuple[int, str, str]]


def photo(path: Path, size: tuple[int, int], seed: int = 0) -> Path:
    """A smooth random picture of (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def run(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in an empty folder with the tiny model; gives (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object, model: bool = True) -> tuple[int, str, str]:
        words = [str(argument) for argument in arguments]
        if model:
            words += ["--model", str(tiny_model), "--device", "cpu", "--steps", "2"]
        try:
            status = cli.main(words)
        except SystemExit as exit:
            status = int(exit.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_what_would_not_fit_is_refused_before_any_work(run: Run, tmp_path: Path) -> None:
    lr = photo(tmp_path / "lr.png", (20, 17))
    status, out, err = run("upscale", lr, "-o", "out.png", "--max-memory", "0.001")
    assert status == 2 or status == 1
    assert "of memory, 10 MB are allowed: use fewer or smaller references" in err and "Traceback" not in err
    assert not (tmp_path / "out.png").exists()


def test_one_file_with_two_references(run: Run, tmp_path: Path) -> None:
    lr, a, b = (photo(tmp_path / f"{n}.png", s, i) for i, (n, s) in enumerate(
        [("lr", (20, 17)), ("a", (64, 48)), ("b", (41, 77))]
    ))  # fmt: skip
    status, out, err = run(
        "upscale",
        lr,
        "--ref",
        a,
        "--ref",
        b,
        "-o",
        "deep/out.png",
        "--save-intermediates",
        "why",
        "--seed",
        3,
    )
    assert status == 0 and "Traceback" not in err
    result = images.to_tensor(tmp_path / "deep" / "out.png")
    assert result.shape == (1, 3, 68, 80)
    (line,) = out.strip().splitlines()
    for words in ("20x17 -> 80x68", " s, ", "% of the pixels served by the reference", "consistency error"):
        assert words in line
    assert files(tmp_path / "why") == {
        *(f"{name}.png" for name in ("enhanced", "transferred", "confidence", "matches", "provenance")),
        "report.json",
    }
    assert images.to_tensor(tmp_path / "why" / "enhanced.png").shape == (1, 3, 68, 80)
    report = json.loads((tmp_path / "why" / "report.json").read_text())
    assert report["seed"] == 3 and report["parameters"] == {
        "preset": "balanced",
        "num_inference_steps": 2,
        "eta": 0.0,
        "reference_strength": 1.0,
        "matching_image": "joint",
        "consistency": True,
    }
    assert report["sizes"] == {"input": "20x17", "output": "80x68", "references": ["64x48", "41x77"]}
    assert set(report["versions"]) >= {"def_hub", "torch", "diffusers", "python"}
    scores = report["scores"]
    shares = [scores["input_share"], scores["prior_share"], *scores["shares_of_references"]]
    assert len(shares) == 4 and sum(shares) == pytest.approx(1, abs=1e-4)
    measured = consistency_error(make_operator(), result, images.to_tensor(lr)) * 255
    assert scores["consistency_error"] == pytest.approx(measured, abs=1e-3)


def test_the_command_writes_what_the_pipeline_gives(run: Run, tmp_path: Path, tiny_model: Path) -> None:
    lr, ref = photo(tmp_path / "lr.png", (16, 16)), photo(tmp_path / "ref.png", (40, 40), 1)
    assert run("upscale", lr, "--ref", ref, "-o", "a.png", "--seed", 5, "--eta", 0.5, "--strength", 0.3)[0] == 0
    pipe = DEFPipeline.from_pretrained(str(tiny_model))
    output = pipe(
        lr,
        ref,
        num_inference_steps=2,
        eta=0.5,
        reference_strength=0.3,
        generator=torch.Generator().manual_seed(5),
    )
    assert np.array_equal(np.asarray(output.images[0]), np.asarray(Image.open(tmp_path / "a.png")))


def test_without_reference(run: Run, tmp_path: Path) -> None:
    lr = photo(tmp_path / "lr.png", (16, 24))
    status, out, _ = run("upscale", lr, "-o", "out/", "--save-intermediates", "why")
    assert status == 0 and " 0 % of the pixels served by the reference" in out
    assert Image.open(tmp_path / "out" / "lr.png").size == (64, 96)
    assert files(tmp_path / "why") == {"enhanced.png", "confidence.png", "provenance.png", "report.json"}


def test_rank_prints_the_best_first(capsys: pytest.CaptureFixture[str]) -> None:
    names = [str(EXAMPLES / f"{name}_ref1.jpg") for name in ("banana", "street")]
    assert cli.main(["rank", str(EXAMPLES / "street_lr.png"), *names]) == 0
    first, second = (line.split() for line in capsys.readouterr().out.splitlines())
    assert (first[0], first[2:]) == ("1", ["likely", names[1]]) and (second[0], second[3]) == ("2", names[0])
    assert float(first[1]) > float(second[1])


def test_in_a_folder_a_bad_file_is_reported_and_the_others_are_done(run: Run, tmp_path: Path) -> None:
    for number in range(2):
        photo(tmp_path / "in" / f"{number}.png", (16, 16), number)
    photo(tmp_path / "in" / "1.jpg", (16, 16), 9)
    (tmp_path / "in" / "0bad.png").write_bytes(b"\x89PNG\r\n\x1a\n nonsense")
    (tmp_path / "in" / "notes.txt").write_text("not a picture, not counted")
    status, out, err = run("upscale", "in", "-o", "out", "--save-intermediates", "why")
    assert status == 1
    assert files(tmp_path / "out") == {"0.png", "1.png.png", "1.jpg.png"}
    assert {str(Path(name).parent) for name in files(tmp_path / "why")} == {"0", "1.png", "1.jpg"}
    assert len(out.strip().splitlines()) == 3
    complaints = [line for line in err.splitlines() if line.startswith("def-hub")]
    assert len(complaints) == 2 and "0bad.png" in complaints[0] and "1 of 4 pictures failed" in complaints[1]


WRONG: list[tuple[list[str], str]] = [
    (["upscale", "absent.png", "-o", "new.png"], "absent.png: no such file"),
    (["upscale", "text.png", "-o", "new.png"], "text.png: not a readable picture"),
    (["upscale", "small.png", "-o", "new.png"], "at least 8×8 pixels, got 7×9"),
    (["upscale", "lr.png", "--ref", "absent.png", "-o", "new.png"], "reference absent.png: no such file"),
    (
        ["upscale", "lr.png", "--ref", "text.png", "-o", "new.png"],
        "reference text.png: not a readable picture",
    ),
    (["upscale", "lr.png", "-o", "new.gif3"], "expected a file name ending in .png"),
    (["upscale", "lr.png", "-o", "lr.png"], "would overwrite an input"),
    (["upscale", "lr.png", "--ref", "ref.png", "-o", "ref.png"], "would overwrite an input"),
    (["upscale", "lr.png", "-o", "lr.png/new.png"], "cannot be written"),
    (["upscale", "lr.png", "-o", "new.png", "--save-intermediates", "lr.png"], "cannot be written"),
    (["upscale", "empty", "-o", "out"], "no pictures in this folder"),
    (["upscale", "pictures", "-o", "new.png"], "a folder is enlarged into a folder"),
    (["upscale", "lr.png", "-o", "new.png", "--model", "absent"], "--model absent: neither a folder nor a Hub name"),
    (["upscale", "lr.png", "-o", "new.png", "--model", "empty"], "--model empty: "),
    (["upscale", "lr.png", "-o", "new.png", "--device", "toaster"], "--device toaster: not available"),
    (["upscale", "lr.png", "-o", "new.png", "--steps", "0"], "whole number from 1 to 1000, got '0'"),
    (["upscale", "lr.png", "-o", "new.png", "--strength", "1.5"], "number from 0 to 1, got '1.5'"),
    (["upscale", "lr.png", "-o", "new.png", "--seed", "-1"], "--seed"),
    (["upscale", "lr.png", "-o", "new.png", "--preset", "best"], "invalid choice: 'best'"),
    (["upscale", "lr.png"], "required: -o/--output"),
    (["rank", "absent.png", "lr.png"], "image absent.png: no such file"),
    (["rank", "lr.png", "ref.png", "text.png"], "candidates[1] text.png: not a readable picture"),
    (["rank", "lr.png"], "required: CANDIDATE"),
    (["evaluate", "absent"], "data set absent: no such folder"),
    (["evaluate", "empty"], "expected pictures, or NNN_0"),
    (["evaluate", "pictures", "--references", "best"], "invalid choice: 'best'"),
    (["evaluate", "pictures", "--resume"], "need --output"),
    (["train", "absent.toml"], "absent.toml"),
    ([], "required: command"),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[" ".join(words) or "nothing" for words, _ in WRONG])
def test_wrong_input_is_one_line_and_status_two(run: Run, tmp_path: Path, words: list[str], message: str) -> None:
    photo(tmp_path / "lr.png", (16, 16))
    photo(tmp_path / "ref.png", (32, 32))
    photo(tmp_path / "small.png", (7, 9))
    photo(tmp_path / "pictures" / "a.png", (16, 16))
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("not a picture")
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    status, out, err = run(*words, model=False)
    assert status == 2 and out == ""
    (line,) = err.strip().splitlines()
    assert line.startswith("def-hub") and message in line
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before  # nothing written at all


def test_evaluate_prints_bicubic_first_and_resumes(run: Run, tmp_path: Path) -> None:
    for number in range(2):
        photo(tmp_path / "views" / f"{number:03}_0.png", (48, 52), number)
        photo(tmp_path / "views" / f"{number:03}_1.png", (40, 44), 10 + number)
    words = ["evaluate", "views", "--output", "out", "--references", "first", "none", "unrelated"]
    status, out, _ = run(*words, "--save-images")
    assert status == 0
    rows = [line for line in out.splitlines() if line.startswith("| views")]
    assert [row.split(" | ")[2:4] for row in rows] == [
        ["bicubic", "none"],
        ["def", "first"],
        ["def", "none"],
        ["def", "unrelated"],
    ]
    assert "Y (BT.601, 16-235), no border crop, 8 bit" in out
    assert {"rows.csv", "summary.json", "table.md", "settings.json"} <= files(tmp_path / "out")
    assert "images/views/def-first/001.png" in files(tmp_path / "out")
    stamp = (tmp_path / "out" / "rows.csv").read_text()
    status, again, _ = run(*words, "--resume")
    assert status == 0 and again == out and (tmp_path / "out" / "rows.csv").read_text() == stamp
    status, _, err = run(*words, "--resume", "--seed", 1)
    assert status == 2 and "other settings" in err


def test_help_is_instant_and_names_every_command() -> None:
    code = "import sys; from def_hub.cli import main; main(sys.argv[1:])"
    for words in (["--help"], ["upscale", "--help"], ["--version"]):
        result = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", code, *words], capture_output=True, text=True, cwd=ROOT
        )
        assert result.returncode == 0 and result.stdout
        assert "torch" not in result.stderr and "PIL" not in result.stderr  # nothing heavy was imported
    assert cli.PRESETS and all(name in result.stdout for name in ("def-hub",))


def test_choices_are_those_of_the_pipeline() -> None:
    from typing import get_args

    from def_hub.cli import evaluate
    from def_hub.evaluation.datasets import Layout, References
    from def_hub.evaluation.metrics import PROTOCOLS
    from def_hub.reference.matching import PAIRINGS
    from def_hub.settings import PRESETS

    assert cli.PRESETS == tuple(PRESETS)
    assert set(cli.MATCHING_IMAGES) == set(PAIRINGS)
    assert evaluate.REFERENCES == get_args(References)
    assert evaluate.LAYOUTS == get_args(Layout)
    assert evaluate.PROTOCOLS == tuple(PROTOCOLS)


def test_faults_of_the_program_keep_their_traceback(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(tmp_path / "lr.png", (16, 16))
    monkeypatch.setenv("DEF_DEBUG", "1")
    with pytest.raises(FileNotFoundError):
        cli.main(["upscale", "absent.png", "-o", "new.png"])
    assert "DEF_DEBUG" in os.environ

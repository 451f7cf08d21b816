"""`def-hub`: what is written, what is said and how it ends, with a tiny random model."""

import io
import json
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from def_hub import DEFPipeline, cli, images
from def_hub.cli.jobs import EXPLAINING
from def_hub.observation.downsample import consistency_error, make_operator
from def_hub.settings import PRESETS, SETTINGS, Settings, resolve

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


def test_what_is_too_large_is_said_and_made_to_fit(run: Run, tmp_path: Path) -> None:
    lr, folder = photo(tmp_path / "lr.png", (120, 60)), tmp_path / "why"
    limited = ["upscale", lr, "-o", "out.png", "--max-memory", "0.07", "--save-intermediates", folder]
    status, _, err = run(*limited)
    fits = re.search(r"70 MB are allowed: (\d+)x(\d+) would fit", err)
    assert status != 0 and fits and "--fit" in err and "--crop" in err
    width, height = map(int, fits.groups())
    assert 60 < width < 120 and abs(width - 2 * height) <= 2
    status, _, err = run(*limited, "--fit")
    assert status == 0 and f"shrunk from 120x60 to {width}x{height}" in err
    assert Image.open(tmp_path / "out.png").size == (4 * width, 4 * height)
    told = json.loads((folder / "report.json").read_text())
    assert told["input_made_from"] == f"shrunk from 120x60 to {width}x{height}"
    assert told["sizes"]["input"] == f"{width}x{height}"


def test_a_part_of_a_picture_is_enlarged(run: Run, tmp_path: Path) -> None:
    lr = photo(tmp_path / "lr.png", (120, 60))
    status, _, err = run("upscale", lr, "-o", "out.png", "--crop", "40x24+80+36")
    assert status == 0 and Image.open(tmp_path / "out.png").size == (160, 96)
    shrunk = images.shrink(images.to_tensor(tmp_path / "out.png"))
    part = images.to_tensor(Image.open(lr).crop((80, 36, 120, 60)))
    assert (shrunk - part).abs().max() <= 2 / 255
    for wrong, words in (("40x24+81+36", "inside 120x60, got 40x24+81+36"), ("40,24", "WIDTHxHEIGHT+LEFT+TOP")):
        status, _, err = run("upscale", lr, "-o", "out.png", "--crop", wrong)
        assert status != 0 and words in err


def test_a_result_of_a_given_size_is_not_made_to_fit(run: Run, tmp_path: Path) -> None:
    lr = photo(tmp_path / "lr.png", (120, 60))
    status, _, err = run("upscale", lr, "-o", "out.png", "--max-memory", "0.07", "--fit", "--width", 480)
    assert status != 0 and "choose a smaller result" in err


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
    for words in ("20x17 -> 80x68", " s, ", "% of the detail comes from the references", "consistency error"):
        assert words in line
    assert files(tmp_path / "why") == {
        *(f"{name}.png" for name in ("enhanced", "transferred", "confidence", "matches", "provenance")),
        "report.json",
    }
    assert images.to_tensor(tmp_path / "why" / "enhanced.png").shape == (1, 3, 68, 80)
    report = json.loads((tmp_path / "why" / "report.json").read_text())
    assert report["seed"] == 3
    assert report["parameters"] == {"preset": "balanced", **resolve("balanced", num_inference_steps=2).as_dict()}
    assert report["conditions"] | {"precision": ""} == {
        "precision": "",
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "operator": "bicubic",
        "window": None,
    }
    assert report["conditions"]["precision"] in ("float32", "bfloat16")  # what "auto" came to
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
    assert status == 0 and " 0 % of the detail comes from the references" in out
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
    left_out, bad, failed = [line for line in err.splitlines() if line.startswith("def-hub")]
    assert "left out, not pictures: in/notes.txt" in left_out
    assert "0bad.png" in bad and "1 of 4 pictures failed" in failed


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
    (["upscale", "lr.png", "-o", "new.png", "--steps", "-1"], "whole number from 0 to 1000, got '-1'"),
    (["upscale", "lr.png", "-o", "new.png", "--strength", "1.5"], "number from 0 to 1, got '1.5'"),
    (["upscale", "lr.png", "-o", "new.png", "--seed", "-1"], "--seed"),
    (["upscale", "lr.png", "-o", "new.png", "--preset", "best"], "invalid choice: 'best'"),
    (["upscale", "lr.png"], "required: -o/--output"),
    (["rank", "absent.png", "lr.png"], "image absent.png: no such file"),
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
    assert status == 2 and "other settings (seed was 0, is 1)" in err
    status, _, err = run(*words, "--resume", "--turns", 2)
    assert status == 2 and "other settings (call.turns was 4, is 2)" in err
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        status, _, err = run(*words, "--resume")
    finally:
        torch.set_num_threads(threads)
    assert status == 2 and f"conditions.threads was {threads}, is {threads + 1}" in err
    assert (tmp_path / "out" / "rows.csv").read_text() == stamp


def test_help_is_instant_and_names_every_command() -> None:
    code = "import sys; from def_hub.cli import main; main(sys.argv[1:])"
    for words in (["--help"], ["upscale", "--help"], ["--version"]):
        result = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", code, *words], capture_output=True, text=True, cwd=ROOT
        )
        assert result.returncode == 0 and result.stdout
        assert "torch" not in result.stderr and "PIL" not in result.stderr  # nothing heavy was imported


def test_choices_are_those_of_the_program() -> None:
    from typing import get_args

    from def_hub.assemble import CONFIGS
    from def_hub.cli import evaluate, parser
    from def_hub.evaluation.datasets import Layout, References
    from def_hub.evaluation.metrics import PROTOCOLS

    assert evaluate.REFERENCES == get_args(References)
    assert evaluate.LAYOUTS == get_args(Layout)
    assert evaluate.PROTOCOLS == tuple(PROTOCOLS)
    assert parser.CONFIGS == CONFIGS


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("command", ["upscale", "evaluate"])
def test_a_new_preset_is_offered(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "vivid" not in help_of(command, capsys)
    monkeypatch.setitem(PRESETS, "vivid", Settings(eta=0.5, summary="brighter than 100 % of the others"))
    text = help_of(command, capsys)
    assert "{fast,balanced,detail,vivid}" in text and "vivid: brighter than 100 % of the others" in text


def test_every_setting_has_an_option_with_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of("upscale", capsys).replace("- ", "-")  # words are broken at hyphens, too
    short = {"num_inference_steps": "--steps", "reference_strength": "--strength"}
    for setting in SETTINGS:
        option = short.get(setting.name, "--" + setting.name.replace("_", "-"))
        assert f" {option}" in text and setting.metadata["help"].replace("- ", "-") in text


def test_options_override_the_preset_and_nothing_else() -> None:
    from def_hub.cli.options import call_options

    def call(*words: str) -> dict[str, object]:
        return call_options(cli._parser().parse_args(["upscale", "a.png", "-o", "b.png", *words]))

    for name in PRESETS:
        assert call("--preset", name) == {"preset": name, **resolve(name).as_dict()}
    words = (
        "--steps 7 --eta 0.25 --start 0.5 --prior-strength 0.1 --matching-image bicubic --step 3 --turns 2 "
        "--refsr refsr_detail --strength 0.75 --no-refine --no-consistency --window-mode replace --precision float32 "
        "--scale 2 --degradation jpeg50"
    )
    expected = dict(
        num_inference_steps=7,
        eta=0.25,
        start=0.5,
        prior_strength=0.1,
        matching_image="bicubic",
        step=3,
        turns=2,
        refsr="refsr_detail",
        reference_strength=0.75,
        refine=False,
        consistency=False,
        window_mode="replace",
        precision="float32",
        scale=2,
        degradation="jpeg50",
    )
    assert set(expected) == {setting.name for setting in SETTINGS}
    assert call(*words.split()) == {"preset": "balanced", **expected}


# ------------------------------------------------------------------ files and folders


def test_what_explains_is_what_the_check_knows(run: Run, tmp_path: Path) -> None:
    lr, ref = photo(tmp_path / "lr.png", (16, 16)), photo(tmp_path / "ref.png", (32, 32), 1)
    assert run("upscale", lr, "--ref", ref, "-o", "out.png", "--save-intermediates", "why")[0] == 0
    assert files(tmp_path / "why") == set(EXPLAINING)


@pytest.mark.parametrize("name", EXPLAINING)
def test_what_explains_never_overwrites_a_reference_or_the_result(run: Run, tmp_path: Path, name: str) -> None:
    lr, ref = photo(tmp_path / "lr.png", (16, 16)), photo(tmp_path / "ref.png", (32, 32), 1)
    (tmp_path / "why").mkdir()
    (tmp_path / "why" / name).write_bytes(ref.read_bytes())
    (tmp_path / "link.png").symlink_to(tmp_path / "why" / name)
    before = {path: (tmp_path / path).read_bytes() for path in files(tmp_path)}
    for reference in (f"why/{name}", "link.png"):
        status, out, err = run("upscale", lr, "--ref", reference, "-o", "out.png", "--save-intermediates", "why")
        assert status == 2 and f"why/{name}: would overwrite an input" in err and out == ""
    if name != "report.json":
        status, _, err = run("upscale", lr, "--ref", ref, "-o", f"why/{name}", "--save-intermediates", "why")
        assert status == 2 and f"why/{name}: would be written twice" in err
    assert {path: (tmp_path / path).read_bytes() for path in files(tmp_path)} == before


def test_everything_that_pillow_opens_is_done_and_the_rest_is_named(run: Run, tmp_path: Path) -> None:
    picture = Image.open(photo(tmp_path / "in" / "a.png", (16, 16)))
    for suffix, format in (
        (".jfif", "JPEG"), (".jpe", "JPEG"), (".jp2", "JPEG2000"), (".tga", "TGA"), (".pnm", "PPM"), (".apng", "PNG"),
        (".avif", "AVIF"), (".bmp", "BMP"), (".gif", "GIF"), (".ico", "ICO"), ("", "PNG"), (".photo", "WEBP"),
    ):  # fmt: skip
        picture.save(tmp_path / "in" / f"{suffix[1:] or 'none'}_{suffix}", format)
    (tmp_path / "in" / "notes.md").write_text("not a picture")
    (tmp_path / "in" / ".hidden").write_text("not even named")
    status, out, err = run("upscale", "in", "-o", "out.v2")
    assert status == 0 and len(out.splitlines()) == 13 and len(files(tmp_path / "out.v2")) == 13
    assert "left out, not pictures: in/notes.md\n" in err and "hidden" not in err


def test_folders_in_folders(run: Run, tmp_path: Path) -> None:
    for number, name in enumerate(("a.png", "sub/a.png", "sub/deep/b.jpg", "sub/deep/b.png", ".cache/c.png")):
        photo(tmp_path / "in" / name, (16, 16), number)
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    words = ["upscale", "in", "-o", "in/out", "--save-intermediates", "in/why"]
    assert run(*words)[0] == 0 and files(tmp_path / "in" / "out") == {"a.png"}
    status, out, _ = run(*words, "--recursive", "--skip-existing")
    expected = {"a.png", "sub/a.png", "sub/deep/b.jpg.png", "sub/deep/b.png.png"}
    assert status == 0 and files(tmp_path / "in" / "out") == expected
    assert "1 of 4 results are there already, skipped" in out
    assert {str(Path(name).parent) for name in files(tmp_path / "in" / "why")} == {
        n.removesuffix(".png") for n in expected
    }
    stamps = {name: (tmp_path / "in/out" / name).stat().st_mtime_ns for name in expected}
    status, out, _ = run(*words, "--recursive", "--skip-existing")  # the results are not enlarged in their turn
    assert status == 0 and "4 of 4 results are there already, skipped" in out
    assert {name: (tmp_path / "in/out" / name).stat().st_mtime_ns for name in expected} == stamps


def test_names_of_results_are_all_different(tmp_path: Path) -> None:
    from def_hub.cli.jobs import plan

    names = ["x.png", "x.jpg", "x.png.png", "X.png", "y.png", "y.PNG", "é.png", "e\u0301.png", "z.png"]
    for name in names:
        photo(tmp_path / "in" / name, (8, 8))
    targets = [str(job.target) for job in plan(tmp_path / "in", str(tmp_path / "out"), None, False)]
    assert len({unicodedata.normalize("NFC", target).casefold() for target in targets}) == len(
        os.listdir(tmp_path / "in")
    )
    assert str(tmp_path / "out" / "z.png") in targets


def test_a_new_folder_may_have_a_dot(run: Run, tmp_path: Path) -> None:
    lr = photo(tmp_path / "in" / "lr.png", (16, 16))
    assert run("upscale", "in", "-o", "out.v2")[0] == 0 and files(tmp_path / "out.v2") == {"lr.png"}
    assert run("upscale", lr, "-o", "one.v2/")[0] == 0 and files(tmp_path / "one.v2") == {"lr.png"}


def test_long_names(run: Run, tmp_path: Path) -> None:
    """As long as the file system allows is written; longer is refused before anything is computed."""
    lr = photo(tmp_path / "lr.png", (16, 16))
    longest = "長" * 83 + "ab.png"
    assert len(longest.encode()) == 255
    assert run("upscale", lr, "-o", f"new/{longest}", "--save-intermediates", "why")[0] == 0
    assert files(tmp_path / "new") == {longest}
    for target in (f"new/a{longest}", f"{'x' * 256}/a.png"):
        status, out, err = run("upscale", lr, "-o", target)
        assert status == 2 and out == "" and "the name is too long" in err


@pytest.mark.parametrize("command", ["upscale", "folder", "rank"])
@pytest.mark.parametrize("console", ["narrow", "gone", "full"])
def test_printing_never_decides_the_outcome(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, console: str
) -> None:
    """A console without the characters of a name, a reader that has gone, a full disk: all is done, status 0."""
    names = {"a.png", "写真.png", "終.png"}
    for number, name in enumerate(sorted(names)):
        photo(tmp_path / "in" / name, (16, 16), number)
    words = {
        "upscale": ["upscale", "in/写真.png", "-o", "out/"],
        "folder": ["upscale", "in", "-o", "out"],
        "rank": ["rank", "in/a.png", "in"],
    }[command]
    stream = io.TextIOWrapper(
        {"narrow": io.BytesIO, "gone": deaf, "full": lambda: open("/dev/full", "wb", 0)}[console](), encoding="cp1252"
    )
    monkeypatch.setattr(sys, "stdout", stream)
    assert run(*words, model=command != "rank")[0] == 0
    if console == "narrow":
        assert b"\\u5199\\u771f.png" in stream.buffer.getvalue()  # type: ignore[attr-defined]
    written = {"upscale": {"写真.png"}, "folder": names, "rank": set()}[command]
    assert command == "rank" or files(tmp_path / "out") == written


def deaf() -> io.BufferedIOBase:
    """A pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "wb", 0)  # type: ignore[return-value]


def test_the_process_ends_well_without_a_reader(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(ROOT)}
    code = "from def_hub.cli.console import say; say('写真'); say('b'); print('and later')"
    with deaf() as gone:
        words = [sys.executable, "-c", code]
        ended = subprocess.run(words, cwd=tmp_path, env=environment, stdout=gone, stderr=subprocess.PIPE)  # type: ignore[arg-type]
    assert ended.returncode == 0 and ended.stderr == b""


def test_rank_takes_folders_and_goes_on_after_a_bad_candidate(run: Run, tmp_path: Path, tiny_model: Path) -> None:
    lr = photo(tmp_path / "lr.png", (16, 16))
    for number in range(2):
        photo(tmp_path / "candidates" / f"{number}.png", (48, 40), number)
    (tmp_path / "candidates" / "bad.jpg").write_bytes(b"\xff\xd8\xff nonsense")
    words = ["rank", lr, "candidates", "candidates/0.png", "absent.png", "--model", tiny_model]
    status, out, err = run(*words, model=False)
    assert status == 1 and sorted(line.split()[-1] for line in out.splitlines()) == [
        "candidates/0.png",
        "candidates/1.png",
    ]
    assert "bad.jpg: not a readable picture" in err and "absent.png: no such file" in err
    assert "2 of 4 candidates failed" in err
    assert run("rank", lr, "absent.png", model=False)[0] == 2


# ------------------------------------------------------------------ what is kept of a picture


def test_sixteen_bits_and_what_the_camera_wrote(run: Run, tmp_path: Path) -> None:
    source = Image.open(photo(tmp_path / "plain.png", (24, 16)))
    exif = Image.Exif()
    exif[0x0112], exif[0x0132] = 6, "2024:05:06 07:08:09"
    exif.get_ifd(0x8769)[0x9003] = "2024:05:06 07:08:08"
    exif[0x8769] = exif.get_ifd(0x8769)
    source.save(tmp_path / "lr.jpg", exif=exif, dpi=(300, 300), quality=95)
    depth = {}
    for name, words in (("deep.png", ["--bits", 16]), ("plain.png.png", []), ("out.jpg", []), ("out.webp", [])):
        assert run("upscale", "lr.jpg", "-o", name, *words)[0] == 0
        with Image.open(tmp_path / name) as written:
            written.load()
            kept = written.getexif()
            assert written.size == (64, 96)  # turned upright, and said so
            assert kept[0x0112] == 1 and kept[0x0132] == "2024:05:06 07:08:09"
            assert kept.get_ifd(0x8769)[0x9003] == "2024:05:06 07:08:08"
            assert written.info["icc_profile"]
            if not name.endswith(".webp"):
                assert written.info["dpi"][0] == pytest.approx(300, abs=0.1)
        depth[name] = len(images.to_tensor(tmp_path / name).unique())
    assert depth["deep.png"] > 256 >= depth["plain.png.png"]
    difference = images.to_tensor(tmp_path / "deep.png") - images.to_tensor(tmp_path / "plain.png.png")
    assert difference.abs().max() <= 0.51 / 255
    status, _, err = run("upscale", "lr.jpg", "-o", "deep.jpg", "--bits", 16)
    assert status == 2 and "16 bits can be written" in err and not (tmp_path / "deep.jpg").exists()


def test_transparency_is_enlarged_and_attached(run: Run, tmp_path: Path) -> None:
    red = np.zeros((16, 16, 4), np.uint8)
    red[:, :8] = (255, 0, 0, 255)  # the rest is transparent black
    Image.fromarray(red).save(tmp_path / "red.png")
    for name, words in (("out.png", []), ("out.webp", []), ("deep.png", ["--bits", 16])):
        assert run("upscale", "red.png", "-o", name, *words)[0] == 0
        result = images.read_photo(tmp_path / name)
        assert result.picture.shape == (1, 3, 64, 64) and result.alpha is not None
        assert result.alpha[..., :24].min() > 0.99 and result.alpha[..., 40:].max() < 0.01
        seen = result.alpha[0, 0] > 0
        assert (result.picture[0, 0][seen] > 0.8).all() and (result.picture[0, 1:, seen] < 0.2).all()  # no dark seam
    assert run("upscale", "red.png", "-o", "out.jpg")[0] == 0
    assert images.to_tensor(tmp_path / "out.jpg")[..., 44:].min() > 0.95  # white


def test_of_an_animation_it_is_said_which_frame(run: Run, tmp_path: Path) -> None:
    frames = [Image.open(photo(tmp_path / f"{n}.png", (16, 16), n)).convert("RGB") for n in range(3)]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    status, _, err = run("upscale", "moving.webp", "-o", "out.png")
    assert status == 0 and err.count("moving.webp: an animation of 3 frames, the first is taken") == 1
    assert run("upscale", "0.png", "-o", "still.png")[0] == 0
    assert (tmp_path / "still.png").read_bytes() == (tmp_path / "out.png").read_bytes()


def test_faults_of_the_program_keep_their_traceback(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(tmp_path / "lr.png", (16, 16))
    monkeypatch.setenv("DEF_DEBUG", "1")
    with pytest.raises(FileNotFoundError):
        cli.main(["upscale", "absent.png", "-o", "new.png"])
    assert "DEF_DEBUG" in os.environ

"""`def-hub evaluate`: what is measured, written and said, with a tiny random model; killed, resumed and shared."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from def_hub import images
from def_hub.evaluation.baselines.rlfn import RLFN
from def_hub.evaluation.perceptual import LPIPS
from def_hub.observation.degradation import Degradation, degrade

from .conftest import ROOT, Run
from .helpers.evaluation import multiview, save_picture
from .helpers.hub_server import HubServer

TIMES = ("seconds", "memory")
START = "import sys; from def_hub.cli import main; sys.exit(main())"


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the test, with a data set in `views`."""
    monkeypatch.chdir(tmp_path)
    multiview(tmp_path / "views", (46, 55))
    return tmp_path


def rows(folder: Path) -> list[dict[str, str]]:
    """What was measured, without how long it took and what it needed."""
    with (folder / "rows.csv").open(newline="") as file:
        return [{k: v for k, v in line.items() if k not in TIMES} for line in csv.DictReader(file)]


def test_methods_stand_side_by_side(run: Run, tiny_model: Path, workshop: Path) -> None:
    torch.manual_seed(0)
    save_file(RLFN().state_dict(), workshop / "rlfn.safetensors")
    save_file(LPIPS().state_dict(), workshop / "lpips.safetensors")
    for number in range(2):
        save_picture(workshop / "plain" / f"{number}.png", number, (64, 72))
    words = ["evaluate", "plain", "--model", tiny_model, "--device", "cpu", "--output", "out", "--report"]
    words += ["--method", "bicubic", "--method", "rlfn=rlfn.safetensors", "--method", "def:fast"]
    words += ["--method", "def:balanced,refine=false,matching_image=bicubic,turns=1", "--references", "first"]
    status, out, err = run(*words, "--lpips", "lpips.safetensors")
    assert status == 0, err
    lines = [line.split(" | ")[1:4] for line in out.splitlines() if line.startswith("| plain")]
    assert lines == [
        ["2", "bicubic", "none"],
        ["2", "rlfn", "none"],
        ["2", "def:fast", "first"],
        ["2", "def:balanced,refine=false,matching_image=bicubic,turns=1", "first"],
    ]
    assert all(row["lpips"] for row in rows(workshop / "out"))
    settings = json.loads((workshop / "out" / "settings.json").read_text())
    ablation = settings["methods"]["def:balanced,refine=false,matching_image=bicubic,turns=1"]
    assert (ablation["refine"], ablation["matching_image"], ablation["turns"]) == (False, "bicubic", 1)
    assert len(settings["methods"]["rlfn"]["weights"]) == 12 and settings["versions"]["torch"]
    with (workshop / "out" / "summary.csv").open(newline="") as file:
        summary = list(csv.DictReader(file))
    assert [line["method"] for line in summary] == [line[1] for line in lines]
    assert summary[0]["protocol"] == settings["protocol"] and json.loads(summary[0]["versions"]) == settings["versions"]
    assert f"torch {settings['versions']['torch']}" in (workshop / "out" / "table.md").read_text().splitlines()[-1]
    page = (workshop / "out" / "report.html").read_text()
    assert "data:image/png;base64," in page and "http://" not in page and "https://" not in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to measure"),
        (["views", "views"], "same folder name"),
        (["views", "--method", "magic"], "expected bicubic, def, def:PRESET, srcnn=FILE"),
        (["views", "--method", "rlfn"], "give rlfn=FILE"),
        (["views", "--method", "rlfn=absent.safetensors"], "absent.safetensors: no such file"),
        (["views", "--method", "def:best"], "preset must be one of"),
        (["views", "--method", "def:fast,eta"], "expected SETTING=VALUE, got 'eta'"),
        (["views", "--method", "def:fast,tune=3"], "no setting 'tune'"),
        (["views", "--lpips", "absent.safetensors"], "no such file"),
        (["views", "--score", "a", "--truth", "b"], "leave out the data sets"),
        (["--score", "a"], "need each other"),
        (["views", "--report"], "need --output"),
        (["views", "--degradation", "worn", "--kernel", "matlab"], "leave out --kernel"),
        (["views", "--layout", "WR-SR"], "expected input/ and ref/"),
    ],
)
def test_wrong_words_are_refused(run: Run, workshop: Path, words: list[str], message: str) -> None:
    status, out, err = run("evaluate", *words)
    assert (status, out) == (2, "") and message in err and len(err.strip().splitlines()) == 1


def test_the_protocol_is_the_one_asked_for(run: Run, workshop: Path) -> None:
    words = ["evaluate", "views", "--method", "bicubic"]
    said = [run(*words, *more)[1].splitlines()[0] for more in ([], ["--protocol", "mmagic"], ["--kernel", "matlab"])]
    assert said[0].startswith("×4, LR = Pillow bicubic, Y (BT.601, 16-235), no border crop, 8 bit.")
    assert said[1].startswith("×4, LR = Pillow bicubic, RGB, 4 px border cropped, 8 bit.")
    assert said[2].startswith("×4, LR = MATLAB bicubic, Y")
    _, out, _ = run(*words, "--protocol", "mmagic", "--channel", "y", "--border", "0", "--unrounded")
    assert "Y (BT.601, 16-235), no border crop, float" in out
    _, scale, _ = run(*words, "--border", "scale")
    assert "4 px border cropped" in scale


def test_what_cannot_be_measured_is_said(run: Run, workshop: Path) -> None:
    (workshop / "views" / "002_0.png").write_text("no picture")
    (workshop / "views" / "001_0.png").unlink()
    status, out, err = run("evaluate", "views", "--method", "bicubic", "--output", "out")
    assert status == 1 and "| views | 2 | bicubic |" in out
    assert "not measured: views: group 001 needs 001_0" in err
    assert "not measured: views/002, bicubic: " in err and "not a readable picture" in err
    summary = json.loads((workshop / "out" / "summary.json").read_text())
    assert summary["unavailable"][0] == "LPIPS (squeeze)" and summary["unavailable"][-1].startswith("NIQE (")
    assert len(summary["problems"]) == 2 and [row["image"] for row in rows(workshop / "out")] == ["000", "003"]


def test_lpips_may_lie_on_the_hub(run: Run, hub: HubServer, workshop: Path) -> None:
    torch.manual_seed(0)
    hub.put("alice/lpips", {"squeeze.safetensors": save(LPIPS().state_dict())})
    for number in range(2):
        save_picture(workshop / "plain" / f"{number}.png", number, (64, 72))
    words = ["evaluate", "plain", "--method", "bicubic", "--output", "out", "--lpips"]
    status, _, err = run(*words, "alice/lpips/squeeze.safetensors")
    assert status == 0 and all(float(row["lpips"]) for row in rows(workshop / "out")), err
    status, _, err = run(*words, "alice/lpips/absent.safetensors")
    assert status == 2 and "has no absent.safetensors" in err


def test_every_nth_picture(run: Run, workshop: Path) -> None:
    run("evaluate", "views", "--method", "bicubic", "--every", "3", "--output", "out")
    assert [row["image"] for row in rows(workshop / "out")] == ["000", "003"]


def test_a_slow_method_may_skip_pictures(run: Run, tiny_model: Path, workshop: Path) -> None:
    """Its gain is over bicubic enlargement of the pictures that it has."""
    words = ["evaluate", "views", "--model", tiny_model, "--device", "cpu", "--references", "none", "--output", "out"]
    words += ["--method", "bicubic", "--method", "def:fast,eta=0.5"]
    status, out, err = run(*words, "--every", "1", "def:fast,eta=0.5=3")
    assert status == 0, err
    psnr = {(row["method"], row["image"]): float(row["psnr"]) for row in rows(workshop / "out")}
    assert [image for method, image in psnr if method != "bicubic"] == ["000", "003"] and len(psnr) == 6
    gain = sum(psnr["def:fast,eta=0.5", name] - psnr["bicubic", name] for name in ("000", "003")) / 2
    assert "| views | 2 | def:fast,eta=0.5 | none | " in out and f" | {gain:+.2f} | " in out
    status, _, err = run(*words, "--every", "rrdb=3")
    assert status == 2 and "rrdb=3: no such method is measured; there are bicubic, def:fast,eta=0.5" in err


def test_a_method_may_have_references_of_its_own(run: Run, tiny_model: Path, workshop: Path) -> None:
    words = ["evaluate", "views", "--model", tiny_model, "--device", "cpu", "--every", "3"]
    words += ["--method", "def:fast", "--method", "def:balanced,turns=1"]
    status, out, err = run(*words, "--references", "def:fast=none", "2", "first", "def:fast=first")
    assert status == 0, err
    assert [line.split(" | ")[2:4] for line in out.splitlines() if line.startswith("| views")] == [
        ["def:fast", "first"],
        ["def:fast", "none"],
        ["def:balanced,turns=1", "2"],
        ["def:balanced,turns=1", "first"],
    ]


def test_two_folders_of_any_name(run: Run, workshop: Path) -> None:
    for number in range(2):
        save_picture(workshop / "taken" / f"{number}.png", number, (12, 16))
        save_picture(workshop / "wanted" / f"{number}.png", number, (48, 64))
    words = ["evaluate", "--pair", "taken", "wanted", "--method", "bicubic"]
    status, out, _ = run(*words)
    assert status == 0 and "| taken | 2 | bicubic | none |" in out
    assert out.startswith("×4, LR = Pillow bicubic (as given: taken), ")


def test_references_that_are_not_there(run: Run, tiny_model: Path, workshop: Path) -> None:
    """Asked for by name they are missed; of the default, what there is is measured."""
    for number in range(2):
        save_picture(workshop / "taken" / f"{number}.png", number, (12, 16))
        save_picture(workshop / "wanted" / f"{number}.png", number, (48, 64))
    words = ["evaluate", "--pair", "taken", "wanted", "--model", tiny_model, "--device", "cpu", "--steps", "1"]
    status, out, err = run(*words)
    assert status == 0 and "| taken | 2 | def | none |" in out and "def | first" not in out
    assert "taken: has no references first, unrelated" in err
    status, out, err = run(*words, "--references", "first", "none")
    assert status == 1 and "| taken | 2 | def | none |" in out and "not measured: taken: has no references first" in err


def test_results_of_others_are_scored(run: Run, workshop: Path) -> None:
    """Saved by one run, scored by another: the same numbers, from the files."""
    words = ["evaluate", "views", "--method", "bicubic", "--output", "out", "--save-images"]
    assert run(*words)[0] == 0
    images = workshop / "out" / "images" / "views"
    status, out, err = run("evaluate", "--score", images / "bicubic-none", "--truth", images / "truth", "--output", "s")
    assert status == 0 and not err and "LR = made by others" in out
    for ours, scored in zip(rows(workshop / "out"), rows(workshop / "s"), strict=True):
        assert [scored[k] for k in ("image", "psnr", "ssim")] == [ours[k] for k in ("image", "psnr", "ssim")]
    (images / "truth" / "001.png").unlink()
    status, out, err = run("evaluate", "--score", images / "bicubic-none", "--truth", images / "truth")
    assert status == 1 and "001.png: no partner" in err and "| truth | 3 | bicubic-none |" in out


@pytest.mark.parametrize(("name", "count", "psnr"), [("RealSR", 100, 25.1511), ("DRealSR", 93, 27.9243)])
def test_a_published_methods_own_outputs_have_the_published_number(
    run: Run, tmp_path: Path, name: str, count: int, psnr: float
) -> None:
    """The external check. `DEF_RESULTS` holds `RealSR/results`, `RealSR/truth`, and `DRealSR/` alike."""
    folder = Path(os.environ.get("DEF_RESULTS", "absent")) / name
    if not (folder / "results").is_dir():
        pytest.skip("set DEF_RESULTS to the folder with a published method's outputs")
    words = ["evaluate", "--score", folder / "results", "--truth", folder / "truth", "--output", tmp_path / "out"]
    assert run(*words)[0] == 0
    (result,) = json.loads((tmp_path / "out" / "summary.json").read_text())["results"]
    assert result["images"] == count and result["psnr"] == pytest.approx(psnr, abs=5e-4)


def start(words: list[str], *launcher: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, *launcher, *words] if launcher else [sys.executable, "-c", START, *words]
    threads = str(torch.get_num_threads())  # they decide the last bits, and so a journal names them
    environment = os.environ | {"PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": threads}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_killed_and_resumed(run: Run, tiny_model: Path, workshop: Path) -> None:
    words = ["evaluate", "views", "--model", str(tiny_model), "--device", "cpu", "--steps", "8"]
    words += ["--references", "first", "none"]
    process = start([*words, "--output", "killed"])
    deadline = time.monotonic() + 120
    while not (workshop / "killed" / "rows.csv").exists() or len(rows(workshop / "killed")) < 6:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1].decode()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = (workshop / "killed" / "rows.csv").read_text()
    assert before.count("\n") < 13  # it was still at work
    assert run(*words, "--output", "killed", "--resume")[0] == 0
    assert run(*words, "--output", "straight")[0] == 0
    assert rows(workshop / "killed") == rows(workshop / "straight") and len(rows(workshop / "killed")) == 12
    kept = before[: before.rfind("\n") + 1].splitlines()[1:]  # with their seconds: they were not measured again
    assert set(kept) <= set((workshop / "killed" / "rows.csv").read_text().splitlines())


def test_two_processes_give_the_rows_of_one(run: Run, tiny_model: Path, workshop: Path) -> None:
    words = ["evaluate", "views", "--model", str(tiny_model), "--device", "cpu", "--steps", "2", "--save-images"]
    words += ["--references", "first", "none"]
    (workshop / "start.py").write_text(START)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "start.py"]
    process = start([*words, "--output", "two"], *torchrun)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err.decode()
    status, expected, _ = run(*words, "--output", "one")
    assert status == 0 and rows(workshop / "two") == rows(workshop / "one")
    assert [path.name for path in (workshop / "two").glob("rows*")] == ["rows.csv"]
    first_columns = [line.split("|")[1:6] for line in expected.splitlines() if line.startswith("| views")]
    assert [line.split("|")[1:6] for line in out.decode().splitlines() if line.startswith("| views")] == first_columns
    assert len(list((workshop / "two" / "images").rglob("*.png"))) == 4 * 5  # bicubic, two of def, truth, input


def test_a_bar_shows_the_time_left(run: Run, workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal only; a log would be full of it."""
    words = ["evaluate", "views", "--method", "bicubic"]
    assert "image" not in run(*words)[2]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    _, _, err = run(*words)
    assert re.search(r"views, bicubic, none: .*4/4 \[\d\d:\d\d<\d\d:\d\d, .*image/s\]", err), err


def test_named_degradations_make_the_small_pictures(run: Run, workshop: Path) -> None:
    """The same code as in training, so "blur2+noise5" in a table is what the networks have seen."""
    words = ["evaluate", "views", "--method", "bicubic", "--degradation", "blur2+noise5", "--output"]
    status, out, err = run(*words, "out", "--save-images")
    assert (
        status == 0 and "LR = degradation blur2+noise5, Y" in out and "| views+blur2+noise5 | 4 | bicubic |" in out
    ), err
    folder = workshop / "out" / "images" / "views+blur2+noise5"
    truth, small = (images.to_tensor(folder / kind / "001.png") for kind in ("truth", "input"))
    clean = degrade(truth, Degradation.parse("blur2")).picture
    assert 3 / 255 < (small - clean).square().mean().sqrt() < 6 / 255
    run(*words, "again")
    assert rows(workshop / "again") == rows(workshop / "out")
    status, _, err = run("evaluate", "views", "--method", "bicubic", "--degradation", "worn")
    assert status == 2 and "degradation: expected clean" in err


def test_several_degradations_stand_side_by_side(run: Run, tiny_model: Path, workshop: Path) -> None:
    """The gain over bicubic enlargement of the same degraded file, and the pictures below it, as the rows have them."""
    words = ["evaluate", "views", "--model", tiny_model, "--device", "cpu", "--references", "first", "none"]
    words += ["--method", "bicubic", "--method", "def:fast,degradation=auto", "--output", "out"]
    status, out, err = run(*words, "--degradation", "clean", "jpeg40")
    assert status == 0, err
    psnr = {(r["method"], r["dataset"], r["references"], r["image"]): float(r["psnr"]) for r in rows(workshop / "out")}
    expected = []
    for mode in ("first", "none"):
        cells = []
        for title in ("views", "views+jpeg40"):
            names = [image for method, dataset, _, image in psnr if (method, dataset) == ("bicubic", title)]
            gains = [
                psnr["def:fast,degradation=auto", title, mode, name] - psnr["bicubic", title, "none", name]
                for name in names
            ]
            cells.append(f"{sum(gains) / 4:+.2f} / {sum(gain < -0.1 for gain in gains)}")
        expected.append(f"| views | def:fast,degradation=auto | {mode} | {' | '.join(cells)} |")
    assert "| data set | method | reference | clean | jpeg40 |" in out
    assert [line for line in out.splitlines() if line.startswith("| views | def")] == expected


def test_a_method_gets_the_file_and_measures_what_it_is_told(run: Run, tiny_model: Path, workshop: Path) -> None:
    """A JPEG is read, not measured: told "auto", the result gives its coefficients, told "clean", it does not."""
    words = ["evaluate", "views", "--model", tiny_model, "--device", "cpu", "--references", "none"]
    words += ["--degradation", "jpeg70", "--output", "out"]
    for told in ("auto", "clean"):
        words += ["--method", f"def:fast,degradation={told}"]
    assert run(*words)[0] == 0
    off = [(row["method"].rpartition("=")[2], float(row["consistency"])) for row in rows(workshop / "out")]
    assert max(error for told, error in off if told == "auto") < 1
    assert min(error for told, error in off if told == "clean") > 1


def test_published_figures_stand_below_and_say_what_differs(run: Run, workshop: Path) -> None:
    (workshop / "views").rename(workshop / "CUFED5")
    _, out, _ = run("evaluate", "CUFED5", "--method", "bicubic")
    measured, theirs = out.split("Published figures")
    assert "| CUFED5 | 4 | bicubic |" in measured and "CUFED5: 4 of 126 pictures here" in theirs
    assert "| C2-Matching-rec | 28.24 / 0.841 |" in theirs and "| DEF (the paper) | 27.47 / 0.826 |" in theirs
    assert "CUFED5: 2 of 126 pictures" in run("evaluate", "CUFED5", "--method", "bicubic", "--every", "3")[1]
    save_picture(workshop / "WR-SR" / "input" / "1.png", 1)
    save_picture(workshop / "WR-SR" / "ref" / "1_ref.png", 2)
    _, out, _ = run("evaluate", "WR-SR", "--method", "bicubic")
    assert "| EDSR | 28.07 / 0.793 |" in out and "MASA" not in out  # published no figure for this set
    save_picture(workshop / "mine" / "1.png", 1)
    assert "Published" not in run("evaluate", "mine", "--method", "bicubic")[1]

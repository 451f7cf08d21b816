"""What the browser interface does with runs, sessions and results, without a browser."""

import ast
import io
import json
import subprocess
import sys
import threading
import zipfile
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from def_hub import DEFPipeline, images
from def_hub.reference.selection import LIKELY, UNLIKELY, RankedReference
from def_hub.service import result as result_module
from def_hub.service.call import MAX_STEPS, RunOptions
from def_hub.service.evidence import confidence_colours, detail_shares, source_colours
from def_hub.service.examples import Example, PreparedExamples
from def_hub.service.result import Result, compare_with_original, match_at
from def_hub.service.run import LIVE, Begun, Finished, Step, run, shown_steps
from def_hub.service.runner import Progress, Runner, complaint
from def_hub.service.session import Session
from def_hub.service.uploads import (
    MAX_CANDIDATES,
    MAX_REFERENCES,
    READABLE,
    check_photo,
    check_reference,
    check_references,
)
from def_hub.settings import PRESETS, Settings, resolve
from def_hub.space import messages, results
from def_hub.space.demo import build_demo
from def_hub.space.pictures import reference_card
from def_hub.visualization import VIRIDIS
from tests.conftest import EXAMPLES, ROOT

SCORES = {"likely": LIKELY + 0.1, "possible": (LIKELY + UNLIKELY) / 2, "unlikely": UNLIKELY / 2}


def ranking(*verdicts: str) -> list[RankedReference]:
    """Candidates in order of their numbers, with these verdicts."""
    return [RankedReference(i, SCORES[verdict] - 0.001 * i) for i, verdict in enumerate(verdicts)]


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """A small photograph and two references of different sizes, in no order yet."""
    Image.open(EXAMPLES / "street_lr.png").crop((40, 30, 72, 54)).save(tmp_path / "a b.png")
    for number, box in enumerate([(160, 120, 352, 280), (100, 100, 221, 199)]):
        Image.open(EXAMPLES / "street_ref1.jpg").crop(box).save(tmp_path / f"{number}.jpg")
    session = Session()
    session.set_photo(check_photo(tmp_path / "a b.png"))
    session.set_uploads(check_references([str(tmp_path / "0.jpg"), str(tmp_path / "1.jpg")]))
    return session


def finish(pipe: DEFPipeline, session: Session, options: RunOptions) -> Result:
    """A run to its end."""
    *_, last = Runner(pipe).run(session, options)
    assert last.result is not None
    return last.result


def gallery(session: Session) -> list[dict[str, Any]]:
    return [reference_card(session, candidate) for candidate in session.candidates()]


def stroke(width: int, height: int, box: tuple[int, int, int, int]) -> str:
    """A drawing, as a canvas gives it: opaque in a box."""
    picture = Image.new("RGBA", (width, height))
    picture.paste((230, 0, 126, 255), box)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + b64encode(file.getvalue()).decode()


def test_transparency_is_kept_by_the_formats_that_can(pipe: DEFPipeline, tmp_path: Path) -> None:
    glass = np.zeros((12, 16, 4), np.uint8)
    glass[:, :8] = (200, 60, 40, 255)
    Image.fromarray(glass).save(tmp_path / "glass.png")
    session = Session()
    session.set_photo(check_photo(tmp_path / "glass.png"))
    files = finish(pipe, session, RunOptions.of("fast")).files
    for name in ("result", "png", "png16", "webp"):
        photo = images.read_photo(files[name])
        assert photo.alpha is not None and photo.alpha[..., :24].min() > 0.99 and photo.alpha[..., 40:].max() < 0.01
    assert images.to_tensor(files["jpg"])[..., 44:].min() > 0.95  # white


# ------------------------------------------------------------------------------------------------ choosing


def test_the_likely_are_chosen_and_the_best_of_the_possible(session: Session) -> None:
    for verdicts, chosen in [
        (("likely", "likely"), [0, 1]),
        (("likely", "unlikely"), [0]),
        (("possible", "possible"), [0]),
        (("unlikely", "unlikely"), []),
    ]:
        session.rank(lambda image, candidates: ranking(*verdicts))  # noqa: B023
        assert session.chosen == chosen


def test_a_click_chooses_or_leaves_out_and_the_order_stays(session: Session) -> None:
    session.rank(lambda image, candidates: [RankedReference(1, 0.4), RankedReference(0, 0.05)])
    first, second = gallery(session)
    assert first["lines"] == ["1.jpg", "40 %, likely to help", "✓ reference 1"] and first["pressed"]
    assert second["lines"] == ["0.jpg", "5 %, unlikely to help", "not used"] and not second["pressed"]
    assert (first["alt"], second["alt"]) == ("1.jpg", "0.jpg")
    session.draw(1, stroke(16, 12, (0, 0, 8, 12)))
    assert gallery(session)[0]["lines"][-1] == "only the part drawn"
    session.toggle(1)
    assert session.chosen == [1, 0]
    session.toggle(0)
    assert session.chosen == [0] and gallery(session)[0]["lines"][-1] == "not used"
    session.set_uploads(session.uploads[:1] * (MAX_REFERENCES + 1))
    with pytest.raises(ValueError, match=f"At most {MAX_REFERENCES} references"):
        session.toggle(MAX_REFERENCES)


def test_drawings_become_masks_of_the_full_size(session: Session) -> None:
    session.draw(None, stroke(16, 12, (0, 0, 8, 12)))
    session.draw(1, stroke(121, 99, (10, 20, 60, 50)))
    folder, call = session.call(RunOptions())
    image, reference = (
        images.to_tensor(call.folder / "inputs/mask.png"),
        images.to_tensor(call.folder / "inputs/reference-mask-2.png"),
    )
    assert call.mask == "inputs/mask.png" and call.reference_masks == (None, "inputs/reference-mask-2.png")
    assert image.shape == (1, 3, 24, 32) and not image[..., :16].any() and image[..., 16:].all()
    assert reference.shape == (1, 3, 99, 121) and reference[..., 20:50, 10:60].all()
    assert reference.sum() == 3 * 30 * 50
    session.draw(None, None)
    assert session.call(RunOptions())[1].mask is None
    for drawing in ("data:text/html;base64,AAAA", "data:image/png;base64," + b64encode(b"no picture").decode()):
        with pytest.raises(ValueError, match="drawing"):
            session.draw(None, drawing)
            session.call(RunOptions())


def test_drawings_stay_with_their_references(session: Session) -> None:
    first, second = session.uploads
    session.draw(0, stroke(192, 160, (0, 0, 8, 12)))
    session.draw(1, stroke(121, 99, (10, 20, 60, 50)))
    drawn = session.drawings[1]
    session.set_uploads([second])
    assert session.drawings == {0: drawn}
    session.set_uploads([first])
    assert not session.drawings


def test_what_would_not_fit_is_refused_before_anything_is_computed(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("def_hub.service.session.total_memory", lambda: 1000)
    with pytest.raises(ValueError, match="of memory; this machine has .* Use fewer or smaller references"):
        session.call(RunOptions())


def test_an_own_photograph_takes_the_place_of_an_example(tiny_pipe: DEFPipeline, session: Session) -> None:
    """With its references and its result: nothing of the example mixes with the visitor's pictures."""
    finish(tiny_pipe, session, RunOptions.of("fast"))
    session.example = "street"
    mine = session.copy()
    mine.set_photo(session.photo)
    assert mine.example is None and mine.result is None and not mine.uploads
    assert session.result is not None and len(session.uploads) == 2
    mine.set_uploads(session.uploads)
    mine.set_photo(session.photo)  # and not the visitor's own references
    assert len(mine.uploads) == 2


def test_references_are_added_and_removed_one_by_one(session: Session) -> None:
    first, second = session.uploads
    assert session.add_uploads([first]) == 0 and session.uploads == [first, second]  # given twice
    session.rank(lambda image, candidates: ranking("likely", "likely"))
    session.draw(1, stroke(121, 99, (10, 20, 60, 50)))
    drawn = session.drawings[1]
    session.remove_upload(0)
    assert session.uploads == [second] and session.chosen == [0] and session.drawings == {0: drawn}
    assert [r.index for r in session.ranked] == [0]
    session.remove_upload(5)  # the card that was clicked is gone
    assert session.uploads == [second]
    many = [replace(second, path=second.path.with_name(f"{n}.png")) for n in range(MAX_CANDIDATES)]
    assert session.add_uploads(many) == 1 and len(session.uploads) == MAX_CANDIDATES


# ------------------------------------------------------------------------------------------------ options


def test_options_are_checked_by_the_settings() -> None:
    options = RunOptions.of("detail", 7.0, eta=0.5, num_inference_steps=None)
    assert options.seed == 7 and options.settings == resolve("detail", eta=0.5)
    for wrong, words in [
        ({"num_inference_steps": MAX_STEPS + 1}, f"at most {MAX_STEPS} are computed here, got 51"),
        ({"num_inference_steps": -1}, "num_inference_steps must lie in"),
        ({"eta": 1.5}, "eta must lie in"),
        ({"seed": -1}, "seed must lie in"),
        ({"seed": 0.5}, "seed: expected a whole number, got 0.5"),
        ({"seed": None}, "seed: expected a whole number, got None"),
        ({"preset": "best"}, "preset must be one of"),
    ]:
        with pytest.raises(ValueError, match=words):
            RunOptions.of(**wrong)


def test_a_new_preset_appears_on_the_page_and_in_the_api(
    tiny_pipe: DEFPipeline, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "quick", Settings(step=14, summary="for those in a hurry"))
    demo = build_demo(tiny_pipe)
    page = next(c for c in demo.config["components"] if c["props"].get("elem_id") == "preset")
    assert ["Quick", "quick"] in [list(choice) for choice in page["props"]["choices"]]
    parameters = demo.get_api_info()["named_endpoints"]["/upscale"]["parameters"]
    preset = next(parameter for parameter in parameters if parameter["parameter_name"] == "preset")
    assert "quick" in preset["type"]["enum"] and "for those in a hurry" in preset["label"]
    runner = Runner(tiny_pipe)
    said = messages.forecast(runner, session, RunOptions.of("quick"))
    assert "For those in a hurry" in said["messages"][0]["html"]
    *_, last = runner.run(session, RunOptions.of("quick"))
    assert last.result.report["parameters"] == {"preset": "quick", **PRESETS["quick"].as_dict()}


def test_no_function_of_the_page_is_longer_than_a_screen() -> None:
    for folder in ("service", "space"):
        for path in sorted((ROOT / "def_hub" / folder).glob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    assert node.end_lineno - node.lineno < 60, f"{path.name}: {node.name}"


# ------------------------------------------------------------------------------------------------ running


def test_steps_are_seen_and_the_result_is_the_pipelines(tiny_pipe: DEFPipeline, session: Session) -> None:
    session.toggle(1)
    folder, call = session.call(RunOptions.of(num_inference_steps=9, seed=3))
    events = [event for event in run(tiny_pipe, call) if event is not None]
    assert [e.number for e in events if isinstance(e, Step)] == [1, 3, 5, 7, 9]
    stages = [e.stage for e in events if isinstance(e, Begun)]
    assert stages == ["enhance", "match", "transfer", "restore"]
    assert isinstance(events[-1], Finished)
    same = tiny_pipe(
        session.photo.path,
        session.uploads[0].path,
        num_inference_steps=9,
        generator=torch.Generator().manual_seed(3),
        output_type="pt",
    )
    assert torch.equal(events[-1].output.images[0], same.images[0])


def test_progress_follows_the_stages_and_only_grows(tiny_pipe: DEFPipeline, session: Session) -> None:
    readings = [p.reading for p in Runner(tiny_pipe).run(session, RunOptions.of(num_inference_steps=5)) if p.reading]
    shares = [reading.share for reading in readings]
    assert list(dict.fromkeys(r.stage for r in readings)) == ["enhance", "match", "transfer", "restore"]
    assert shares == sorted(shares) and 0 <= shares[0] and shares[-1] < 1 and min(r.left for r in readings) > 0


def test_one_odd_run_does_not_spoil_the_next_estimates(tiny_pipe: DEFPipeline, session: Session) -> None:
    runner = Runner(tiny_pipe)
    took: list[float] = []

    def compute(call: object, expected: float) -> Iterator[Finished]:
        yield Finished(output, took[-1])

    output = tiny_pipe(session.photo.path, preset="fast", output_type="pt")
    runner._compute = compute
    options = RunOptions.of("fast")
    estimated = session.cost(options).seconds
    for times, pace in ((1000.0, 1.0), (2.0, 2.0), (2.0, 2.0), (2.0, 2.0), (0.0, 2.0), (3.0, 2.0)):
        took.append(times * estimated)
        *_, last = runner.run(session, options)
        assert runner.pace == pytest.approx(pace) and last.drawn
    assert runner.seconds(session, options) == pytest.approx(2 * estimated)


def test_few_estimates_are_shown_the_first_and_the_last_among_them() -> None:
    for total in range(1, 51):
        shown = shown_steps(total)
        assert {0, total - 1} <= shown and len(shown) <= LIVE and (total > LIVE or len(shown) == total)


@pytest.mark.parametrize("stage", ["unet", "refsr.feature_extractor", "refsr.aggregator"])
def test_closing_stops_inside_any_stage(tiny_pipe: DEFPipeline, session: Session, stage: str) -> None:
    """The first layer of a stage waits for the visitor to leave; nothing after it is computed."""
    reached, left, after = threading.Event(), threading.Event(), []
    part = tiny_pipe
    for name in stage.split("."):
        part = getattr(part, name)

    def wait(*_: object) -> None:
        reached.set()
        assert left.wait(60)

    part.register_forward_pre_hook(wait)
    part.register_forward_hook(lambda *_: after.append(1))
    folder, call = session.call(RunOptions())
    events = run(tiny_pipe, call)
    while not reached.is_set():
        next(events)
    threading.Timer(0.1, left.set).start()
    events.close()
    assert not after and not [t for t in threading.enumerate() if t.name == "def-run"]


def test_closing_stops_while_the_first_pictures_are_written(
    tiny_pipe: DEFPipeline, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a large result, each takes seconds."""
    reached, left, written, save = threading.Event(), threading.Event(), [], Result.save

    def wait(result: Result, name: str, picture: object) -> None:
        reached.set()
        assert left.wait(60)
        save(result, name, picture)
        written.append(name)

    monkeypatch.setattr(Result, "save", wait)
    progress = Runner(tiny_pipe).run(session, RunOptions.of("fast"))
    while not reached.is_set():
        next(progress)
    threading.Timer(0.1, left.set).start()
    progress.close()
    assert not written and session.result is None


def test_a_result_is_of_the_photograph_that_was_given_when_it_began(
    tiny_pipe: DEFPipeline, session: Session, tmp_path: Path
) -> None:
    first = session.photo
    assert not session.stale
    finish(tiny_pipe, session, RunOptions.of("fast"))
    assert not session.stale
    Image.new("RGB", (32, 24)).save(tmp_path / "other.png")
    session.set_photo(check_photo(tmp_path / "other.png"))
    assert session.stale == "photograph"
    session.set_photo(first)
    assert session.stale == "references"  # they are to be ranked anew
    session.chosen = [0, 1]
    assert not session.stale
    progress = Runner(tiny_pipe).run(session, RunOptions.of("fast"))
    next(progress)
    session.set_photo(check_photo(tmp_path / "other.png"))
    for _ in progress:
        pass
    assert session.stale


def test_a_failure_in_the_thread_reaches_the_visitor(tiny_pipe: DEFPipeline, session: Session) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't allocate memory")

    tiny_pipe.refsr.aggregator.register_forward_pre_hook(fail)
    folder, call = session.call(RunOptions())
    with pytest.raises(RuntimeError, match="allocate") as caught:
        list(run(tiny_pipe, call))
    assert complaint(caught.value).startswith("There is not enough memory")
    assert (
        complaint(ValueError("reference /tmp/gradio/abc/photo.png: not a picture"))
        == "reference photo.png: not a picture"
    )


def test_files_that_cannot_be_read_are_all_refused_in_one_voice(session: Session, tmp_path: Path) -> None:
    """What has no header, and what ends too early, which only decoding finds."""
    whole = (EXAMPLES / "street_ref1.jpg").read_bytes()
    for name, data in (("no picture.jpg", b"nothing"), ("cut off.jpg", whole[:30_000])):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError) as caught:
            session.thumbnail(check_reference(str(tmp_path / name)))
        assert complaint(caught.value) == f"{name} is not a picture that can be read. {READABLE}"
    drawing = "drawing: not a readable picture (unknown format)"  # no file that could be saved again
    assert complaint(ValueError(drawing)) == drawing


def test_the_way_out_of_the_limits_is_one(session: Session, tmp_path: Path) -> None:
    Image.new("L", (1001, 1000)).save(tmp_path / "large.png")
    with pytest.raises(ValueError, match=f"takes pictures of up to {images.MAX_PIXELS // 10**6} million pixels"):
        check_photo(tmp_path / "large.png")


def test_a_result_is_not_lost_when_it_cannot_be_explained(
    tiny_pipe: DEFPipeline, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr(result_module.visualization, "pictures", fail)
    result = finish(tiny_pipe, session, RunOptions.of("fast"))
    assert result is session.result and images.to_tensor(result.picture("result")).shape == (1, 3, 96, 128)
    assert result.picture("matches") is None


def test_examples_are_computed_once_and_the_one_waited_for_comes_next() -> None:
    gates = {name: threading.Event() for name in ("street", "robot", "banana")}
    order: list[str] = []

    def compute(session: Session) -> Iterator[Progress]:
        name = session.photo.path.name.partition("_")[0]
        order.append(name)
        yield Progress()
        assert gates[name].wait(60)
        if name == "robot":
            raise RuntimeError("no luck")
        session.result = name  # type: ignore[assignment]

    prepared = PreparedExamples(lambda image, candidates: [], compute)
    examples = {name: Example(name, name) for name in gates}
    assert not list(prepared.follow(examples["street"]))  # nobody prepares it: no reason to wait
    worker = threading.Thread(target=prepared.prepare, args=[list(examples.values())])
    worker.start()
    while "street" not in order:
        worker.join(0.01)
    waiting = prepared.follow(examples["banana"])
    next(waiting)
    for name in ("street", "banana"):
        gates[name].set()
    assert all(isinstance(progress, Progress) for progress in waiting)
    assert prepared.session(examples["banana"]).result == "banana"
    gates["robot"].set()
    worker.join(60)
    assert order == ["street", "banana", "robot"]
    assert not list(prepared.follow(examples["robot"]))  # it failed: visitors may run it themselves
    assert prepared.session(examples["robot"]).result is None
    prepared.prepare([examples["street"]])
    assert len(order) == 3


# ------------------------------------------------------------------------------------------------ results


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run on every kind of input: two references, drawings, fresh noise."""
    folder = tmp_path_factory.mktemp("finished")
    Image.open(EXAMPLES / "street_lr.png").crop((40, 30, 72, 54)).save(folder / "photo.png")
    Image.open(EXAMPLES / "street_ref1.jpg").crop((160, 120, 352, 280)).save(folder / "0.jpg", exif=turned())
    Image.open(EXAMPLES / "street_ref1.jpg").crop((100, 100, 221, 199)).save(folder / "1.webp")
    session = Session()
    session.set_photo(check_photo(folder / "photo.png"))
    session.set_uploads(check_references([str(folder / "0.jpg"), str(folder / "1.webp")]))
    session.draw(None, stroke(16, 12, (0, 0, 8, 12)))
    session.draw(1, stroke(121, 99, (10, 20, 60, 50)))
    pipe = DEFPipeline.from_pretrained(tiny_model)
    return finish(
        pipe,
        session,
        RunOptions.of(
            "balanced", 11, num_inference_steps=3, eta=0.5, reference_strength=0.8, matching_image="enhanced"
        ),
    )


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def test_the_copied_python_gives_the_same_bytes(finished: Result, tiny_model: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(finished.files["zip"]) as archive:
        archive.extractall(tmp_path)
    there = (tmp_path / "result.png").read_bytes()
    (tmp_path / "result.png").unlink()
    (tmp_path / tiny_model.name).symlink_to(tiny_model)  # of a folder of the server, the script knows the name
    assert (tmp_path / "reproduce.py").read_text() == finished.python
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    environment["OMP_NUM_THREADS"] = str(torch.get_num_threads() % 2 + 1)  # the script sets its own
    done = subprocess.run(
        [sys.executable, "reproduce.py"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "result.png").read_bytes() == there


def test_what_is_taken_away(finished: Result, tmp_path: Path) -> None:
    with zipfile.ZipFile(finished.files["zip"]) as archive:
        names = set(archive.namelist())
    pictures = ("result", "result-16bit", "bicubic", "enhanced", "matches", "confidence", "provenance", "overlay")
    assert {f"{name}.png" for name in (*pictures, "transferred", "steps", "reference-1", "reference-2")} <= names
    assert {"report.json", "reproduce.py", "inputs/photo.png", "inputs/reference-1.jpg"} <= names
    fine, plain = (images.to_tensor(finished.files[name]) for name in ("png16", "result"))
    # each rounded for itself: by half a step of either at most
    assert (fine - plain).abs().max() < 0.5 / 255 + 0.5 / 65535 + 1e-6 and not torch.equal(fine, plain)
    report = json.loads(finished.files["report"].read_text())
    assert report["seed"] == 11 and report["parameters"]["reference_strength"] == 0.8
    assert report["sizes"]["references"] == ["160x192", "121x99"]  # upright
    assert set(report["versions"]) >= {"def_hub", "torch", "python"} and report["scores"]["consistency_error"] >= 0
    assert report["files"]["input"] == "photo.png" and report["files"]["references"][1] == {
        "name": "1.webp",
        "match": None,
    }
    assert report["threads"] == torch.get_num_threads() and report["device"] == "cpu" and len(report["weights"]) == 12
    assert sum(source.share for source in finished.sources) == pytest.approx(1, abs=1e-4)
    assert sum(per_cent for _, per_cent, _ in finished.legend) == 100


def test_a_point_of_the_result_is_looked_up(finished: Result) -> None:
    assert finished.correspondence is not None
    look = match_at(finished, 0.99, 0.5)
    number, x, y = finished.correspondence[:, 12, 31].tolist()
    width, height = finished.sizes[int(number)]
    assert look.reference == number + 1 and look.here == (31.5 / 32, 12.5 / 24, 1 / 32)
    assert look.there == pytest.approx(((x + 0.5) / width, (y + 0.5) / height, 4 / width))
    for outside in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="expected a point"):
            match_at(finished, outside, 0.5)


def test_an_original_is_measured(finished: Result, session: Session, tmp_path: Path) -> None:
    truth = tmp_path / "truth.webp"
    Image.open(EXAMPLES / "street_hr.webp").crop((160, 120, 288, 216)).save(truth, lossless=True)
    session.set_original(truth)
    assert session.original is not None and session.original.suffix == ".png"
    picture, original = (np.asarray(Image.open(p)) for p in (finished.files["result"], truth))
    assert np.array_equal(np.asarray(Image.open(session.original)), original)
    words = compare_with_original(finished, session.original)
    assert "dB" in words and "SSIM" in words and not np.array_equal(picture, original)
    with pytest.raises(ValueError, match="the size of a result .64×48, .* 256×192., got 32×24"):
        session.set_original(session.photo.path)
    assert session.original is None


def test_an_original_is_its_visitors_alone_and_goes_with_the_photograph(
    tiny_pipe: DEFPipeline, session: Session
) -> None:
    finish(tiny_pipe, session, RunOptions.of("fast"))
    one, other = session.copy(), session.copy()
    pairs, scores = results.known_pairs(one), results.scored(one)
    one.set_original(one.result.picture("result"))
    assert results.known_pairs(one) == [*pairs, results.ORIGINAL] and "**inf dB**" in results.scored(one) and not scores
    assert results.known_pairs(other) == pairs == results.known_pairs(session) and not results.scored(other)
    assert one.root != other.root != session.root and one.original.parent == one.root
    one.set_photo(check_photo(EXAMPLES / "banana_lr.png"))
    assert results.known_pairs(one) == pairs and one.original is None


def test_a_result_of_other_references_is_called_so(tiny_pipe: DEFPipeline, session: Session) -> None:
    finish(tiny_pipe, session, RunOptions.of("fast"))
    assert not session.stale and messages.standing(session)["stale"] is None
    session.toggle(0)
    assert "of another choice of references" in messages.standing(session)["messages"][0]["html"]
    session.toggle(0)
    assert not session.stale
    session.draw(None, stroke(16, 12, (0, 0, 8, 12)))
    assert session.stale == "references"


def test_what_is_left_behind_is_deleted(tiny_pipe: DEFPipeline, session: Session) -> None:
    root = finish(tiny_pipe, session, RunOptions.of("fast")).root
    gallery(session)
    thumbnails = session.root
    assert (root / "result.png").exists() and any(thumbnails.iterdir())
    session.result = session.folder = None
    assert not root.exists() and not thumbnails.exists()


# ------------------------------------------------------------------------------------------------ evidence


def test_added_detail_is_counted_where_bicubic_lacks_it(finished: Result) -> None:
    """Two sources beside the input, each alone on one half; the detail of the right half is three times as strong."""
    bicubic = torch.full((1, 3, 4, 8), 0.5)
    result = bicubic.clone()
    result[..., :4] += 0.1
    result[..., 4:] -= 0.3
    provenance = torch.zeros(3, 4, 8)
    provenance[0] = 0.9  # what the input decides is no added detail
    provenance[1, :, :4] = provenance[2, :, 4:] = 0.1
    assert detail_shares(result, bicubic, provenance) == pytest.approx([0.25, 0.75])
    assert detail_shares(bicubic, bicubic, provenance) == [1.0, 0.0]
    assert sum(finished.report["detail"].values()) == pytest.approx(1, abs=1e-3)
    assert finished.from_references == pytest.approx(1 - finished.report["detail"]["diffusion prior"], abs=1e-3)


def test_colours_of_the_evidence_are_those_of_the_legend(finished: Result) -> None:
    shares = torch.zeros(3, 2, 2)
    shares[2] = 1
    colours = (source_colours(shares) * 255).round()
    assert colours[0, :, 0, 0].tolist() == list(finished.sources[1].colour)
    low_and_high = confidence_colours(torch.tensor([[0.0, 1.0]]), (4, 8))
    assert low_and_high.shape == (1, 3, 4, 8)
    assert (low_and_high[0, :, 0, 0] * 255).tolist() == pytest.approx(VIRIDIS[0])
    assert (low_and_high[0, :, 3, 7] * 255).tolist() == pytest.approx(VIRIDIS[-1])
    for name in ("source-colours", "confidence-colours"):
        assert Image.open(finished.files[name]).size == Image.open(finished.files["result"]).size


def test_what_is_said_of_a_result(finished: Result) -> None:
    def words(**changes: Any) -> str:
        report = finished.report | {"scores": finished.report["scores"] | changes}
        said = messages.summary(replace(finished, report=report))
        return " ".join(f"{message['kind']}: {message['html']}" for message in said)

    assert "of the added detail" in words() and "your photo" in words(consistency_error=0.5)
    assert "warn" not in words(consistency_error=0.5)
    apart = words(consistency_error=45.8)
    assert "warn: Shrunk again, the result differs from your photo by up to 46 of 255" in apart
    assert "it is your photo" not in apart
    alone = messages.summary(replace(finished, sizes=[]))
    assert "reference" not in alone[0]["html"]


def test_downloads_are_called_after_the_photograph(finished: Result) -> None:
    names = {name: finished.files[name].name for name in ("png", "jpg", "webp", "png16", "zip", "report")}
    assert names == {
        "png": "photo_x4.png",
        "jpg": "photo_x4.jpg",
        "webp": "photo_x4.webp",
        "png16": "photo_x4_16bit.png",
        "zip": "photo_x4.zip",
        "report": "photo_x4_report.json",
    }
    whole = np.asarray(Image.open(finished.files["png"]))
    assert np.array_equal(whole, np.asarray(Image.open(finished.files["webp"])))  # without loss
    assert np.abs(whole.astype(int) - np.asarray(Image.open(finished.files["jpg"]))).mean() < 6


def test_a_picture_with_too_much_text_in_it_is_taken(tmp_path: Path) -> None:
    """The page opens headers as everything else here does: what is beside the pixels may be as large as it likes."""
    text = PngInfo()
    text.add_text("notes", "x" * 2_000_000, zip=True)
    Image.open(EXAMPLES / "street_lr.png").save(tmp_path / "notes.png", pnginfo=text)
    upload = check_reference(str(tmp_path / "notes.png"))
    assert upload.format == "PNG" and upload.size == (128, 128)

"""What the browser interface does with runs, visits and results, without a browser."""

import io
import json
import subprocess
import sys
import threading
import zipfile
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from def_hub import DEFPipeline, images
from def_hub.reference.selection import RankedReference
from def_hub.space import outcome as outcomes
from def_hub.space import panels
from def_hub.space.outcome import Outcome, compare_with_truth, look_up
from def_hub.space.run import LIVE, Begun, Finished, Settings, Step, run, shown_steps
from def_hub.space.shipped import Example, Prepared
from def_hub.space.studio import Progress, Studio, complaint
from def_hub.space.uploads import MAX_REFERENCES, READABLE, check_photo, check_reference, check_references
from def_hub.space.visit import Visit
from tests.conftest import EXAMPLES, ROOT

SCORES = {"likely": 0.4, "possible": 0.18, "unlikely": 0.05}


def ranking(*verdicts: str) -> list[RankedReference]:
    """Candidates in order of their numbers, with these verdicts."""
    return [RankedReference(i, SCORES[verdict] - 0.001 * i) for i, verdict in enumerate(verdicts)]


@pytest.fixture
def visit(tmp_path: Path) -> Visit:
    """A small photograph and two references of different sizes, in no order yet."""
    Image.open(EXAMPLES / "street_lr.png").crop((40, 30, 72, 54)).save(tmp_path / "a b.png")
    for number, box in enumerate([(160, 120, 352, 280), (100, 100, 221, 199)]):
        Image.open(EXAMPLES / "street_ref1.jpg").crop(box).save(tmp_path / f"{number}.jpg")
    visit = Visit()
    visit.set_photo(check_photo(tmp_path / "a b.png"))
    visit.set_uploads(check_references([str(tmp_path / "0.jpg"), str(tmp_path / "1.jpg")]))
    return visit


def finish(pipe: DEFPipeline, visit: Visit, settings: Settings) -> Outcome:
    """A run to its end."""
    *_, last = Studio(pipe).run(visit, settings)
    assert last.outcome is not None
    return last.outcome


def stroke(width: int, height: int, box: tuple[int, int, int, int]) -> str:
    """A drawing, as a canvas gives it: opaque in a box."""
    picture = Image.new("RGBA", (width, height))
    picture.paste((230, 0, 126, 255), box)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + b64encode(file.getvalue()).decode()


# ------------------------------------------------------------------------------------------------ choosing


def test_the_likely_are_chosen_and_the_best_of_the_possible(visit: Visit) -> None:
    for verdicts, chosen in [
        (("likely", "likely"), [0, 1]),
        (("likely", "unlikely"), [0]),
        (("possible", "possible"), [0]),
        (("unlikely", "unlikely"), []),
    ]:
        visit.rank(lambda image, candidates: ranking(*verdicts))  # noqa: B023
        assert visit.chosen == chosen


def test_a_click_chooses_or_leaves_out_and_the_order_stays(visit: Visit) -> None:
    visit.rank(lambda image, candidates: [RankedReference(1, 0.4), RankedReference(0, 0.05)])
    first, second = visit.gallery()
    assert first["lines"] == ["1.jpg", "#1 · 40 % match", "likely to help", "✓ reference 1"] and first["pressed"]
    assert second["lines"] == ["0.jpg", "#2 · 5 % match", "unlikely to help", "not used"] and not second["pressed"]
    assert (first["alt"], second["alt"]) == ("1.jpg", "0.jpg")
    visit.draw(1, stroke(16, 12, (0, 0, 8, 12)))
    assert visit.gallery()[0]["lines"][-1] == "only the part drawn"
    visit.toggle(1)
    assert visit.chosen == [1, 0]
    visit.toggle(0)
    assert visit.chosen == [0] and visit.gallery()[0]["lines"][-1] == "not used"
    visit.set_uploads(visit.uploads[:1] * (MAX_REFERENCES + 1))
    with pytest.raises(ValueError, match=f"At most {MAX_REFERENCES} references"):
        visit.toggle(MAX_REFERENCES)


def test_drawings_become_masks_of_the_full_size(visit: Visit) -> None:
    visit.draw(None, stroke(16, 12, (0, 0, 8, 12)))
    visit.draw(1, stroke(121, 99, (10, 20, 60, 50)))
    folder, call = visit.call(Settings())
    image, reference = (
        images.to_tensor(call.folder / "inputs/mask.png"),
        images.to_tensor(call.folder / "inputs/reference-mask-2.png"),
    )
    assert call.mask == "inputs/mask.png" and call.reference_masks == (None, "inputs/reference-mask-2.png")
    assert image.shape == (1, 3, 24, 32) and not image[..., :16].any() and image[..., 16:].all()
    assert reference.shape == (1, 3, 99, 121) and reference[..., 20:50, 10:60].all()
    assert reference.sum() == 3 * 30 * 50
    visit.draw(None, None)
    assert visit.call(Settings())[1].mask is None
    for drawing in ("data:text/html;base64,AAAA", "data:image/png;base64," + b64encode(b"no picture").decode()):
        with pytest.raises(ValueError, match="drawing"):
            visit.draw(None, drawing)
            visit.call(Settings())


def test_drawings_stay_with_their_references(visit: Visit) -> None:
    first, second = visit.uploads
    visit.draw(0, stroke(192, 160, (0, 0, 8, 12)))
    visit.draw(1, stroke(121, 99, (10, 20, 60, 50)))
    drawn = visit.drawings[1]
    visit.set_uploads([second])
    assert visit.drawings == {0: drawn}
    visit.set_uploads([first])
    assert not visit.drawings


def test_what_would_not_fit_is_refused_before_anything_is_computed(
    visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("def_hub.space.visit.total_memory", lambda: 1000)
    with pytest.raises(ValueError, match="of memory; this machine has .* Use fewer or smaller references"):
        visit.call(Settings())


# ------------------------------------------------------------------------------------------------ running


def test_steps_are_seen_and_the_result_is_the_pipelines(tiny_pipe: DEFPipeline, visit: Visit) -> None:
    visit.toggle(1)
    folder, call = visit.call(Settings(num_inference_steps=9, seed=3))
    events = [event for event in run(tiny_pipe, call) if event is not None]
    assert [e.number for e in events if isinstance(e, Step)] == [1, 3, 5, 7, 9]
    stages = [e.stage for e in events if isinstance(e, Begun)]
    assert stages == ["enhance", "match", "transfer", "restore"]
    assert isinstance(events[-1], Finished)
    same = tiny_pipe(
        visit.photo.path,
        visit.uploads[0].path,
        num_inference_steps=9,
        generator=torch.Generator().manual_seed(3),
        output_type="pt",
    )
    assert torch.equal(events[-1].output.images[0], same.images[0])


def test_progress_follows_the_stages_and_only_grows(tiny_pipe: DEFPipeline, visit: Visit) -> None:
    readings = [p.reading for p in Studio(tiny_pipe).run(visit, Settings(num_inference_steps=5)) if p.reading]
    shares = [reading.share for reading in readings]
    assert list(dict.fromkeys(r.stage for r in readings)) == ["enhance", "match", "transfer", "restore"]
    assert shares == sorted(shares) and 0 <= shares[0] and shares[-1] < 1 and min(r.left for r in readings) > 0


def test_one_odd_run_does_not_spoil_the_next_estimates(tiny_pipe: DEFPipeline, visit: Visit) -> None:
    studio = Studio(tiny_pipe)
    took: list[float] = []

    def compute(call: object, expected: float) -> Iterator[Finished]:
        yield Finished(output, took[-1])

    output = tiny_pipe(visit.photo.path, preset="fast", output_type="pt")
    studio._compute = compute
    settings = Settings("fast")
    estimated = visit.cost(settings).seconds
    for times, pace in ((1000.0, 1.0), (2.0, 2.0), (2.0, 2.0), (2.0, 2.0), (0.0, 2.0), (3.0, 2.0)):
        took.append(times * estimated)
        *_, last = studio.run(visit, settings)
        assert studio.pace == pytest.approx(pace) and last.drawn
    assert studio.seconds(visit, settings) == pytest.approx(2 * estimated)


def test_few_estimates_are_shown_the_first_and_the_last_among_them() -> None:
    for total in range(1, 51):
        shown = shown_steps(total)
        assert {0, total - 1} <= shown and len(shown) <= LIVE and (total > LIVE or len(shown) == total)


@pytest.mark.parametrize("stage", ["unet", "refsr.feature_extractor", "refsr.aggregator"])
def test_closing_stops_inside_any_stage(tiny_pipe: DEFPipeline, visit: Visit, stage: str) -> None:
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
    folder, call = visit.call(Settings())
    events = run(tiny_pipe, call)
    while not reached.is_set():
        next(events)
    threading.Timer(0.1, left.set).start()
    events.close()
    assert not after and not [t for t in threading.enumerate() if t.name == "def-run"]


def test_closing_stops_while_the_first_pictures_are_written(
    tiny_pipe: DEFPipeline, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a large result, each takes seconds."""
    reached, left, written, save = threading.Event(), threading.Event(), [], Outcome.save

    def wait(outcome: Outcome, name: str, picture: object) -> None:
        reached.set()
        assert left.wait(60)
        save(outcome, name, picture)
        written.append(name)

    monkeypatch.setattr(Outcome, "save", wait)
    progress = Studio(tiny_pipe).run(visit, Settings("fast"))
    while not reached.is_set():
        next(progress)
    threading.Timer(0.1, left.set).start()
    progress.close()
    assert not written and visit.outcome is None


def test_a_result_is_of_the_photograph_that_was_given_when_it_began(
    tiny_pipe: DEFPipeline, visit: Visit, tmp_path: Path
) -> None:
    first = visit.photo
    assert not visit.outdated
    finish(tiny_pipe, visit, Settings("fast"))
    assert not visit.outdated
    Image.new("RGB", (32, 24)).save(tmp_path / "other.png")
    visit.set_photo(check_photo(tmp_path / "other.png"))
    assert visit.outdated == "photograph"
    visit.set_photo(first)
    assert visit.outdated == "choice of references"  # they are to be ranked anew
    visit.chosen = [0, 1]
    assert not visit.outdated
    progress = Studio(tiny_pipe).run(visit, Settings("fast"))
    next(progress)
    visit.set_photo(check_photo(tmp_path / "other.png"))
    for _ in progress:
        pass
    assert visit.outdated


def test_a_failure_in_the_thread_reaches_the_visitor(tiny_pipe: DEFPipeline, visit: Visit) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't allocate memory")

    tiny_pipe.refsr.register_forward_pre_hook(fail)
    folder, call = visit.call(Settings())
    with pytest.raises(RuntimeError, match="allocate") as caught:
        list(run(tiny_pipe, call))
    assert complaint(caught.value).startswith("There is not enough memory")
    assert (
        complaint(ValueError("reference /tmp/gradio/abc/photo.png: not a picture"))
        == "reference photo.png: not a picture"
    )


def test_files_that_cannot_be_read_are_all_refused_in_one_voice(visit: Visit, tmp_path: Path) -> None:
    """What has no header, and what ends too early, which only decoding finds."""
    whole = (EXAMPLES / "street_ref1.jpg").read_bytes()
    for name, data in (("no picture.jpg", b"nothing"), ("cut off.jpg", whole[:30_000])):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError) as caught:
            visit.thumbnail(check_reference(str(tmp_path / name)))
        assert complaint(caught.value) == f"{name} is not a picture that can be read. {READABLE}"
    drawing = "drawing: not a readable picture (unknown format)"  # no file that could be saved again
    assert complaint(ValueError(drawing)) == drawing


def test_the_way_out_of_the_limits_is_one(visit: Visit, tmp_path: Path) -> None:
    Image.new("L", (1001, 1000)).save(tmp_path / "large.png")
    with pytest.raises(ValueError, match=f"takes pictures of up to {images.MAX_PIXELS // 10**6} million pixels"):
        check_photo(tmp_path / "large.png")


def test_a_result_is_not_lost_when_it_cannot_be_explained(
    tiny_pipe: DEFPipeline, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr(outcomes.visualization, "pictures", fail)
    outcome = finish(tiny_pipe, visit, Settings("fast"))
    assert outcome is visit.outcome and images.to_tensor(outcome.picture("result")).shape == (1, 3, 96, 128)
    assert outcome.picture("matches") is None


def test_examples_are_computed_once_and_the_one_waited_for_comes_next() -> None:
    gates = {name: threading.Event() for name in ("street", "robot", "banana")}
    order: list[str] = []

    def compute(visit: Visit) -> Iterator[Progress]:
        name = visit.photo.path.name.partition("_")[0]
        order.append(name)
        yield Progress()
        assert gates[name].wait(60)
        if name == "robot":
            raise RuntimeError("no luck")
        visit.outcome = name  # type: ignore[assignment]

    prepared = Prepared(lambda image, candidates: [], compute)
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
    assert prepared.visit(examples["banana"]).outcome == "banana"
    gates["robot"].set()
    worker.join(60)
    assert order == ["street", "banana", "robot"]
    assert not list(prepared.follow(examples["robot"]))  # it failed: visitors may run it themselves
    assert prepared.visit(examples["robot"]).outcome is None
    prepared.prepare([examples["street"]])
    assert len(order) == 3


# ------------------------------------------------------------------------------------------------ results


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A run on every kind of input: two references, drawings, fresh noise."""
    folder = tmp_path_factory.mktemp("finished")
    Image.open(EXAMPLES / "street_lr.png").crop((40, 30, 72, 54)).save(folder / "photo.png")
    Image.open(EXAMPLES / "street_ref1.jpg").crop((160, 120, 352, 280)).save(folder / "0.jpg", exif=turned())
    Image.open(EXAMPLES / "street_ref1.jpg").crop((100, 100, 221, 199)).save(folder / "1.webp")
    visit = Visit()
    visit.set_photo(check_photo(folder / "photo.png"))
    visit.set_uploads(check_references([str(folder / "0.jpg"), str(folder / "1.webp")]))
    visit.draw(None, stroke(16, 12, (0, 0, 8, 12)))
    visit.draw(1, stroke(121, 99, (10, 20, 60, 50)))
    pipe = DEFPipeline.from_pretrained(tiny_model)
    return finish(pipe, visit, Settings("balanced", 3, 0.5, 11, 0.8, "enhanced", True))


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def test_the_copied_python_gives_the_same_bytes(finished: Outcome, tiny_model: Path, tmp_path: Path) -> None:
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


def test_what_is_taken_away(finished: Outcome, tmp_path: Path) -> None:
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


def test_a_point_of_the_result_is_looked_up(finished: Outcome) -> None:
    assert finished.correspondence is not None
    look = look_up(finished, 0.99, 0.5)
    number, x, y = finished.correspondence[:, 12, 31].tolist()
    width, height = finished.sizes[int(number)]
    assert look.reference == number + 1 and look.here == (31.5 / 32, 12.5 / 24, 1 / 32)
    assert look.there == pytest.approx(((x + 0.5) / width, (y + 0.5) / height, 4 / width))
    for outside in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="expected a point"):
            look_up(finished, outside, 0.5)


def test_an_original_is_measured(finished: Outcome, visit: Visit, tmp_path: Path) -> None:
    truth = tmp_path / "truth.webp"
    Image.open(EXAMPLES / "street_hr.webp").crop((160, 120, 288, 216)).save(truth, lossless=True)
    visit.set_truth(truth)
    assert visit.truth is not None and visit.truth.suffix == ".png"
    picture, original = (np.asarray(Image.open(p)) for p in (finished.files["result"], truth))
    assert np.array_equal(np.asarray(Image.open(visit.truth)), original)
    words = compare_with_truth(finished, visit.truth)
    assert "dB" in words and "SSIM" in words and not np.array_equal(picture, original)
    with pytest.raises(ValueError, match="the size of the result, 128×96, got 32×24"):
        visit.set_truth(visit.photo.path)
    assert visit.truth is None


def test_an_original_is_its_visitors_alone_and_goes_with_the_photograph(tiny_pipe: DEFPipeline, visit: Visit) -> None:
    finish(tiny_pipe, visit, Settings("fast"))
    one, other = visit.own(), visit.own()
    pairs, scores = panels.known(one), panels.scored(one)
    one.set_truth(one.outcome.picture("result"))
    assert panels.known(one) == [*pairs, panels.ORIGINAL] and "**inf dB**" in panels.scored(one) and not scores
    assert panels.known(other) == pairs == panels.known(visit) and not panels.scored(other)
    assert one.root != other.root != visit.root and one.truth.parent == one.root
    one.set_photo(check_photo(EXAMPLES / "banana_lr.png"))
    assert panels.known(one) == pairs and one.truth is None


def test_a_result_of_other_references_is_called_so(tiny_pipe: DEFPipeline, visit: Visit) -> None:
    finish(tiny_pipe, visit, Settings("fast"))
    assert not visit.outdated and panels.earlier(visit) == ""
    visit.toggle(0)
    assert "that of the earlier choice of references" in panels.earlier(visit)
    visit.toggle(0)
    assert not visit.outdated
    visit.draw(None, stroke(16, 12, (0, 0, 8, 12)))
    assert visit.outdated == "choice of references"


def test_what_is_left_behind_is_deleted(tiny_pipe: DEFPipeline, visit: Visit) -> None:
    root = finish(tiny_pipe, visit, Settings("fast")).root
    visit.gallery()
    thumbnails = visit.root
    assert (root / "result.png").exists() and any(thumbnails.iterdir())
    visit.outcome = visit.folder = None
    assert not root.exists() and not thumbnails.exists()

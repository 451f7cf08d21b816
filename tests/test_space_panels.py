"""Preview, batch, history and the pictures side by side, without a browser."""

import gc
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from def_hub import DEFPipeline, images
from def_hub.reference.picture import ReferencePicture
from def_hub.service import batch as batch_module
from def_hub.service import history as history_module
from def_hub.service.batch import MAX_PHOTOS, Batch
from def_hub.service.call import RunOptions
from def_hub.service.places import places_of
from def_hub.service.preview import Part, compute, each_preset
from def_hub.service.runner import Progress, Runner
from def_hub.service.session import Session
from def_hub.service.uploads import check_photo, check_references
from def_hub.settings import PRESETS, resolve
from tests.conftest import EXAMPLES
from tests.helpers.pictures import generator, picture, small
from tests.test_space import finish, session  # noqa: F401


@pytest.fixture
def street() -> Session:
    return Session(check_photo(EXAMPLES / "street_lr.png"))


# ------------------------------------------------------------------------------------------------ preview


@pytest.mark.parametrize(("scale", "side"), [(2, 128), (3, 85), (4, 64), (6, 42), (8, 32)])
def test_a_part_lies_inside_and_begins_where_a_block_does(scale: int, side: int) -> None:
    for x, y in ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0)):
        part = Part.around(x, y, (300, 400), scale)
        left, top, right, bottom = part.box
        assert right - left == bottom - top == side and left % 8 == top % 8 == 0
        assert right <= 400 and bottom <= 300
        assert part.wider[0] <= left and part.wider[3] >= bottom
    assert Part.around(0.5, 0.5, (24, 32), scale).box[2:] == (min(side, 32), min(side, 24))
    with pytest.raises(ValueError, match="shares in"):
        Part.around(1.2, 0.5, (300, 400), scale)


def test_what_a_visitor_changed_is_changed_in_every_preset() -> None:
    shown = list(each_preset(RunOptions.of("fast", 7, scale=6, reference_strength=0.5)))
    assert [one.preset for one in shown] == list(PRESETS) and {one.seed for one in shown} == {7}
    assert [one.settings for one in shown] == [resolve(name, scale=6, reference_strength=0.5) for name in PRESETS]


@pytest.mark.parametrize("angle", [0, 25])
def test_a_preview_shows_nearly_what_the_whole_will_be(pipe: DEFPipeline, tmp_path: Path, angle: int) -> None:
    """With a reference, upright or askew: nearer to the whole by far than a plain enlargement is. (Measured upright:
    42 dB, and 24.)"""
    reference = tmp_path / "reference.png"
    Image.open(EXAMPLES / "street_ref1.jpg").rotate(angle, Image.Resampling.BICUBIC, expand=True).save(reference)
    street = Session(check_photo(EXAMPLES / "street_lr.png"))
    street.set_uploads(check_references([str(reference)]))
    folder, call = street.call(RunOptions.of("fast"))
    whole = call.make(pipe, output_type="pt").images[0]
    part = Part.around(0.2, 0.8, street.photo.size, 4)
    part_of, _, seen = compute(pipe, call, part, None)
    left, top, right, bottom = (4 * edge for edge in part.box)
    error = (part_of - whole[:, top:bottom, left:right]).square().mean()
    assert len(seen) == 1 and float(-10 * error.log10()) > 36
    assert (seen[0].degrees != 0) == (angle != 0)  # it was turned straight


def test_a_fitted_reference_is_not_fitted_again(tiny_pipe: DEFPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("fitted")

    monkeypatch.setattr("def_hub.pipeline.fitted", fail)
    reference = ReferencePicture(picture(40, 40), fitted=True)
    output = tiny_pipe(small(9, 10), [reference], preset="fast", generator=generator())
    assert output.correspondence[0].shape == (3, 9, 10)
    with pytest.raises(AssertionError, match="fitted"):
        tiny_pipe(small(9, 10), [picture(40, 40)], preset="fast", generator=generator())


def test_a_part_beyond_four_times(tiny_pipe: DEFPipeline, session: Session) -> None:  # noqa: F811
    folder, call = session.call(RunOptions.of("fast", scale=8))
    part = Part.around(0.5, 0.5, session.photo.size, 8)
    part_of, _, seen = compute(tiny_pipe, call, part, None)
    assert part_of.shape == (3, 8 * 24, 8 * 32) and len(seen) == 2


# ------------------------------------------------------------------------------------------------ batch


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    for name in ("a.png", "b.png"):
        Image.open(EXAMPLES / "street_lr.png").crop((40, 30, 56, 42)).save(tmp_path / name)
    (tmp_path / "bad.png").write_text("no picture")
    return [str(tmp_path / name) for name in ("a.png", "bad.png", "b.png")]


def states(batch: Batch) -> list[str]:
    return [item.state for item in batch.items]


def test_a_photo_that_fails_costs_no_other(
    tiny_pipe: DEFPipeline, photos: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, failed = Runner(tiny_pipe), []
    run = Runner.run

    def once(runner: Runner, given: Session, options: RunOptions) -> Iterator[Progress]:
        if not failed:
            failed.append(1)
            raise MemoryError
        return run(runner, given, options)

    monkeypatch.setattr(Runner, "run", once)
    batch = Batch.of(photos)
    assert states(batch) == ["waiting", "failed", "waiting"]
    options = RunOptions.of("fast")
    list(batch.run(runner, Session(), options))
    assert states(batch) == ["failed", "failed", "done"] and "not enough memory" in batch.items[0].words
    assert batch.items[2].size == "64×48" and batch.items[2].share is None and batch.items[2].error <= 0.75
    list(batch.run(runner, Session(), options))  # what failed is tried again, what is done stays
    assert states(batch) == ["done", "failed", "done"]
    with zipfile.ZipFile(batch.archive) as archive:
        assert archive.namelist() == ["a_x4.png", "b_x4.png"]
        there = np.asarray(Image.open(archive.open("b_x4.png")))
    assert np.array_equal(there, np.asarray(tiny_pipe(photos[2], preset="fast", generator=generator()).images[0]))


def test_the_references_are_the_sessions(tiny_pipe: DEFPipeline, session: Session, photos: list[str]) -> None:  # noqa: F811
    used: list[Any] = []
    runner = Runner(tiny_pipe)
    compute_as_before = runner._compute
    runner._compute = lambda call, seconds: used.append(call.references) or compute_as_before(call, seconds)
    session.toggle(1)
    batch = Batch.of(photos[:1])
    list(batch.run(runner, session, RunOptions.of("fast")))
    assert used == [("inputs/reference-1.jpg",)] and batch.items[0].share is not None
    assert session.photo.path.name == "a b.png" and session.result is None  # the page's own stay


def test_closing_a_batch_keeps_what_is_done(tiny_pipe: DEFPipeline, photos: list[str]) -> None:
    batch = Batch.of([photos[0], photos[2]])
    with closing(batch.run(Runner(tiny_pipe), Session(), RunOptions.of("fast"))) as steps:
        for _ in steps:
            if batch.items[1].state == "running":
                break
    assert states(batch) == ["done", "cancelled"] and batch.archive.name == "1 photos.zip"


def test_a_batch_is_bounded(photos: list[str], tiny_pipe: DEFPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=f"At most {MAX_PHOTOS} photos"):
        Batch.of(photos[:1] * (MAX_PHOTOS + 1))
    monkeypatch.setattr(batch_module, "MAX_PIXELS", 1000)
    with pytest.raises(ValueError, match="at most 0.001 million"):
        next(Batch.of(photos).run(Runner(tiny_pipe), Session(), RunOptions()))


# ------------------------------------------------------------------------------------------------ history


def test_earlier_results_come_back_with_their_inputs(
    tiny_pipe: DEFPipeline,
    session: Session,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = finish(tiny_pipe, session, RunOptions.of("fast"))
    session.history.add(session)
    session.history.add(session)  # shown again: it is there already
    photo, references = session.photo, [*session.uploads]
    session.set_uploads(references[:1])
    second = finish(tiny_pipe, session, RunOptions.of("fast", scale=2))
    session.history.add(session)
    assert [entry.session.result for entry in session.history.entries] == [second, first]
    back = session.history.reopened(1)
    assert back.result is first and back.photo == photo and back.uploads == references and back.stale is None
    back.uploads.clear()  # what happens now does not reach what is kept
    assert session.history.reopened(1).uploads == references and back.history is session.history
    with pytest.raises(ValueError, match="not kept any more"):
        session.history.reopened(2)
    photo.path.unlink()
    with pytest.raises(ValueError, match="deleted after an hour"):
        session.history.reopened(0)


def test_the_history_is_bounded_and_its_files_go(
    tiny_pipe: DEFPipeline,
    session: Session,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session.set_uploads([])
    roots = []
    for scale in (2, 3, 4):
        roots.append(finish(tiny_pipe, session, RunOptions.of("fast", scale=scale)).root)
        session.history.add(session)
    assert all(root.is_dir() for root in roots)
    monkeypatch.setattr(history_module, "MAX_KEPT", session.history.entries[0].bytes + 1)
    session.history.add(replace(session, result=finish(tiny_pipe, session, RunOptions.of("fast", scale=2))))
    gc.collect()
    assert len(session.history.entries) in (1, 2) and not any(root.exists() for root in roots[:2])
    kept = session.result.root
    session.history.entries.clear()
    session.result = None
    gc.collect()
    assert not kept.exists()


# ------------------------------------------------------------------------------------------------ side by side


def test_places_of_a_result_in_its_reference(tiny_pipe: DEFPipeline, session: Session) -> None:  # noqa: F811
    result = finish(tiny_pipe, session, RunOptions.of("fast"))
    h, w = result.confidence.shape
    assert len(result.sizes) == 2
    # known matches: everything lies in the second reference, turned by a quarter and twice as fine
    row, column = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    result.correspondence = torch.stack((torch.ones(h, w), 8.0 * row, 90 - 8.0 * column))
    result.confidence = torch.ones(h, w)
    places = places_of(result)
    assert (places.rows, places.columns) == (24, 24) and places.cells[0] == (
        1,
        round(0.5 / 121, 4),
        round(90.5 / 99, 4),
    )
    assert places.frames[1] == (0.0, -2.0, 2.0, 0.0)
    result.confidence = torch.zeros(h, w)
    assert places_of(result).cells == [None] * 576
    result.sizes = []
    assert places_of(result) is None
    assert images.to_tensor(result.files["share"]).shape[3] > 2 * 128

"""Runs: cancelled, left, waited for, refused."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import app
from def_hub import DEFPipeline
from def_hub.service import examples, workers
from def_hub.service.call import Call
from def_hub.space import demo as space_demo
from tests.browser.conftest import (
    PATIENCE,
    Gate,
    corner,
    cut,
    done,
    enlarge,
    give,
    open_fold,
    opened,
    result_size,
    serving,
    set_steps,
    state,
)
from tests.conftest import EXAMPLES


def test_cancel_stops_and_keeps_the_last_result(page: Any, held: Any) -> None:
    first, opened = held
    ((worker, stop),) = workers.WORKERS.items()
    page.locator("#cancel").click()
    assert stop.wait(PATIENCE / 1000)
    opened.set()
    state(page, "cancelled").wait_for()
    worker.join(PATIENCE / 1000)
    assert not worker.is_alive()
    page.locator(f"#compare img.def-after[src='{first}']").wait_for()
    page.locator("#start:enabled").wait_for()
    set_steps(page, 1)
    enlarge(page)  # and again


def test_another_photograph_while_one_is_enlarged(page: Any, held: Any, tmp_path: Path) -> None:
    _, opened = held
    other = tmp_path / "other.png"
    Image.open(EXAMPLES / "banana_lr.png").crop((0, 0, 40, 24)).save(other)
    give(page, "#photo", other)
    page.locator("#info", has_text="40×24 in").wait_for()
    page.locator("#status [aria-current=step]", has_text="Enhancing").wait_for()  # what runs is said on
    opened.set()
    page.locator("#status [data-stale='photograph']", has_text="of an earlier photo").get_by_text("128×96").wait_for()


def test_no_example_is_taken_during_a_run(page: Any, held: Any) -> None:
    _, opened = held
    page.on("dialog", lambda dialog: dialog.accept())  # whether it may replace one's own
    example = page.locator("#examples .def-card").nth(2)
    page.locator("#examples .def-card[aria-disabled='true']").nth(2).wait_for()
    example.focus()
    page.keyboard.press("Enter")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if "queue/join" in request.url else None)
    example.click(force=True)
    opened.set()
    done(page)
    assert result_size(page) == [128, 96] and not sent  # of the photo: no example was asked for
    set_steps(page, 1)
    page.locator("#examples .def-card[aria-disabled='false']").nth(2).focus()
    page.keyboard.press("Enter")
    page.locator("#status", has_text="160×128 in").wait_for()
    done(page)
    assert example.evaluate("card => card === document.activeElement")


def test_an_example_says_at_once_that_it_waits_for_its_turn(
    browser: Any, url: str, tiny: DEFPipeline, tmp_path: Path
) -> None:
    with opened(browser, url) as first, opened(browser, url) as second, Gate(tiny.unet) as gate:
        give(first, "#photo", corner(tmp_path))
        first.locator("#info", has_text="32×24 in").wait_for()
        first.locator("#start").click()
        assert gate.reached.wait(PATIENCE / 1000)
        second.locator("#examples .def-card").nth(2).click()
        second.locator("#examples", has_text="waiting for its turn").wait_for()
        second.locator("#examples .def-card[aria-disabled='true']").nth(2).wait_for()
        second.locator("#start:disabled").wait_for()
        gate.open()
        second.locator("#status", has_text="160×128 in").wait_for()
        second.locator("#start:enabled").wait_for()
        second.locator("#examples .def-card[aria-disabled='false']").nth(2).wait_for()


def first_runs(first: Any, second: Any, gate: Gate, tmp_path: Path) -> None:
    """Both pages have a photo, and the run of the first has come to the gate."""
    for page in (first, second):
        give(page, "#photo", corner(tmp_path))
        page.locator("#info", has_text="32×24 in").wait_for()
    first.locator("#start").click()
    assert gate.reached.wait(PATIENCE / 1000)


def test_who_waits_is_told_and_can_leave(
    browser: Any, url: str, tiny: DEFPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was called off before its turn does nothing when it comes; another, asked for since, is made."""
    made, make = [], Call.make
    monkeypatch.setattr(Call, "make", lambda call, *given, **more: made.append(call) or make(call, *given, **more))
    with opened(browser, url) as first, opened(browser, url) as second, Gate(tiny.unet) as gate:
        first_runs(first, second, gate, tmp_path)
        for called_off in (True, True, False):
            second.locator("#start").click()
            state(second, "waiting").wait_for()
            second.locator("#start:disabled").wait_for()
            second.locator("#status", has_text=" before yours").wait_for()  # in the queue
            if called_off:
                second.locator("#cancel").click()
                state(second, "cancelled").wait_for()
                second.locator("#start:enabled").wait_for()
                second.locator("#cancel:disabled").wait_for()
                assert not second.locator("#examples .def-card[aria-disabled='true']").count()
        gate.open()
        for page in (second, first):
            done(page)
            page.locator("#start:enabled").wait_for()
        assert len(made) == 2
        enlarge(second)  # then nobody waits
        second.locator("#cancel:disabled").wait_for()
        assert len(made) == 3


def test_what_is_given_meanwhile_does_not_hide_that_a_run_waits(
    browser: Any, url: str, tiny: DEFPipeline, tmp_path: Path
) -> None:
    with opened(browser, url) as first, opened(browser, url) as second, Gate(tiny.unet) as gate:
        first_runs(first, second, gate, tmp_path)
        second.locator("#start").click()
        second.locator("#status", has_text=" before yours").wait_for()
        give(second, "#files", EXAMPLES / "banana_ref1.jpg")
        second.locator("#candidates .def-card", has_text="help").wait_for()  # ranked: nothing else comes of it
        assert state(second, "waiting").is_visible() and second.locator("#start").is_disabled()
        second.locator("#cancel").click()
        state(second, "cancelled").wait_for()  # at once: the first is still at work
        second.locator("#start:enabled").wait_for()
        gate.open()
        done(first)


def test_leaving_the_page_stops_computing(page: Any, held: Any) -> None:
    _, opened = held
    ((worker, stop),) = workers.WORKERS.items()
    page.close()
    assert stop.wait(PATIENCE / 1000)
    opened.set()
    worker.join(PATIENCE / 1000)
    assert not worker.is_alive()


def test_a_full_queue_is_said_on_the_page(browser: Any, tiny: DEFPipeline, tmp_path: Path) -> None:
    with (
        serving(app.build_demo(tiny).queue(max_size=1)) as url,
        opened(browser, url, "503") as last,  # how Gradio refuses; the browser lists it
        opened(browser, url) as first,
        opened(browser, url) as second,
        Gate(tiny.unet) as gate,
    ):
        for page in (first, second, last):
            give(page, "#photo", corner(tmp_path))
            page.locator("#info", has_text="32×24 in").wait_for()
        first.locator("#start").click()
        assert gate.reached.wait(PATIENCE / 1000), first.locator("#status").inner_text()
        second.locator("#start").click()
        second.locator("#status", has_text="One run is before yours").wait_for()  # that fills the queue
        last.locator("#start").click()
        last.locator("#status .def-warn", has_text="The queue is full: too many people are waiting").wait_for()
        give(last, "#files", EXAMPLES / "banana_ref1.jpg")
        last.locator("#info .def-warn", has_text="The queue is full").wait_for()
        gate.open()
        for page in (first, second):
            done(page)
        enlarge(last)


def test_an_example_that_is_being_prepared_is_waited_for(
    browser: Any, tiny: DEFPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut((example.name for example in examples.SHIPPED[:2]), tmp_path)
    monkeypatch.setattr(examples, "FOLDER", tmp_path)
    later: list[Any] = []
    monkeypatch.setattr(space_demo, "start_thread", lambda work, name: later.append((work, name)))
    demo = app.build_demo(tiny, prepare=True).queue()
    with serving(demo) as url, Gate(tiny.unet) as gate, opened(browser, url) as page, opened(browser, url) as other:
        for visitor in (page, other):
            state(visitor, "done").wait_for()  # the first is shown at once
        made, make = [], Call.make
        monkeypatch.setattr(Call, "make", lambda call, *given, **more: made.append(call) or make(call, *given, **more))
        workers.start(*later[0])
        assert gate.reached.wait(PATIENCE / 1000)
        for visitor in (page, other):
            visitor.locator("#examples .def-card").nth(1).click()
        page.locator("#status .def-note", has_text="just being prepared").wait_for()
        state(other, "waiting").wait_for()
        gate.open()
        for visitor in (page, other):
            done(visitor)
            visitor.locator("#start:enabled").wait_for()
        assert len(made) == 1


def test_a_result_that_does_not_agree_is_a_warning(page: Any, tmp_path: Path) -> None:
    """And without references nothing is said of references."""
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    enlarge(page)
    assert "reference" not in page.locator("#status").inner_text()
    open_fold(page, "Settings")
    page.get_by_label("Agree with the photo").uncheck()
    enlarge(page)
    page.locator("#status .def-warn", has_text="agreement is switched off").wait_for()


def test_after_an_error_the_inputs_are_still_there(page: Any, tiny: DEFPipeline, tmp_path: Path) -> None:
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()

    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    hook = tiny.unet.register_forward_pre_hook(fail)
    page.locator("#start").click()
    state(page, "failed").get_by_text("There is not enough memory").wait_for()
    hook.remove()
    page.locator("#start:enabled").wait_for()
    enlarge(page)
    assert result_size(page) == [128, 96]

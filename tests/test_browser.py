"""The browser interface in a real Chromium: what a visitor does, with mouse and keyboard."""

import gc
import itertools
import json
import shutil
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import app
from def_hub import DEFPipeline
from def_hub.space import page as space_page
from def_hub.space import run, shipped
from def_hub.space.page import HOUR
from def_hub.space.temporary import delete_old, own_folder
from tests.conftest import EXAMPLES, make_tiny_pipe

playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
TABS = ("Compare", "Enhanced", "Matches", "Confidence", "Provenance", "Texture", "Steps")
PATIENCE = 240_000  # milliseconds, for machines that are slow or crowded; nothing waits longer than it must


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    with playwright.sync_playwright() as started:
        try:
            browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium that starts: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def tiny() -> DEFPipeline:
    return make_tiny_pipe()


@pytest.fixture(scope="module")
def url(tiny: DEFPipeline) -> Iterator[str]:
    with serving(app.build_demo(tiny).queue(max_size=8)) as url:
        yield url


@contextmanager
def serving(demo: Any) -> Iterator[str]:
    _, url, _ = demo.launch(**app.launch_options(), prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    try:
        yield url
    finally:
        demo.close()


class Gate:
    """A hook that keeps who comes to it until it is opened. Use it with `with`: it never stays shut after that."""

    def __init__(self, module: Any) -> None:
        self.reached, self._open = threading.Event(), threading.Event()
        self._hook = module.register_forward_pre_hook(self._wait)

    def _wait(self, *_: Any) -> None:
        self.reached.set()
        self._open.wait(600)

    def open(self) -> None:
        self._open.set()

    def __enter__(self) -> "Gate":
        return self

    def __exit__(self, *_: Any) -> None:
        self._hook.remove()
        self._open.set()


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Any]:
    with opened(browser, url) as page:
        yield page


@contextmanager
def opened(browser: Any, url: str, expected: str = "") -> Iterator[Any]:
    """A fresh page; whatever goes wrong in it (but for `expected`), or leaves this machine, fails the test."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page.set_default_timeout(PATIENCE)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url) if foreign(request.url) else None)
    page.goto(url)
    page.locator("#start").wait_for()
    yield page
    page.close()
    assert not [words for words in wrong if not (expected and expected in words)]


def foreign(url: str) -> bool:
    return not url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:"))


def corner(folder: Path, name: str = "photo.png", **options: Any) -> Path:
    path = folder / name
    Image.open(EXAMPLES / "street_lr.png").convert("RGB").crop((40, 30, 72, 54)).save(path, **options)
    return path


def give(page: Any, where: str, *paths: Path) -> None:
    page.locator(f"{where} input[type=file]").first.set_input_files([str(path) for path in paths])


def enlarge(page: Any) -> None:
    """Press the button and wait until all is drawn."""
    page.locator("#start").click()
    page.locator("#status .def-note", has_text="of the detail comes from").wait_for()


def is_sharp(page: Any, where: str) -> bool:
    """Whether one pixel of the picture is one pixel of the screen."""
    return page.locator(f"{where} img.def-after").evaluate(
        "image => image.getBoundingClientRect().width * devicePixelRatio === image.naturalWidth"
    )


def test_from_upload_to_download(page: Any, tmp_path: Path) -> None:
    """The whole way: upload, choose, run, compare, look inside, take away."""
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in, 128×96 out, with no reference").wait_for()
    give(page, "#files", EXAMPLES / "street_ref1.jpg", EXAMPLES / "banana_ref1.jpg")
    cards = page.locator("#candidates .def-card")
    cards.nth(1).wait_for()
    assert "#1 ·" in cards.nth(0).inner_text() and "% match" in cards.nth(1).inner_text()

    # click and Enter both choose
    before = cards.nth(0).get_attribute("aria-pressed")
    after = {"true": "false", "false": "true"}[before]
    cards.nth(0).click()
    page.locator(f"#candidates .def-card[data-index='0'][aria-pressed='{after}']").wait_for()
    cards.nth(0).focus()
    page.keyboard.press("Enter")
    page.locator(f"#candidates .def-card[data-index='0'][aria-pressed='{before}']").wait_for()
    if before == "false":
        cards.nth(0).click()
    page.locator("#candidates .def-card[data-index='0'][aria-pressed='true']").wait_for()
    enlarge(page)

    # the slider, by mouse and by key
    stack, line = (
        page.locator("#compare .def-stack"),
        "getComputedStyle(document.querySelector('#compare .def-line')).left",
    )
    box = stack.bounding_box()
    page.mouse.move(box["x"] + 10, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 10)
    page.mouse.up()
    assert float(page.evaluate(line)[:-2]) == pytest.approx(0.25 * box["width"], abs=2)
    page.locator("#compare .def-range").focus()
    page.keyboard.press("End")
    assert float(page.evaluate(line)[:-2]) == pytest.approx(box["width"], abs=2)

    # every tab has its picture, as PNG, with a text for those who cannot see it
    for tab in TABS:
        page.get_by_role("tab", name=tab, exact=True).click()
        for picture in page.locator("[role=tabpanel]:visible img").all():
            assert picture.get_attribute("alt") and picture.get_attribute("src").endswith(".png")
        assert page.locator("[role=tabpanel]:visible img.def-after").count() == (3 if tab == "Matches" else 1)
    page.get_by_role("tab", name="Provenance", exact=True).click()
    assert "reference 1" in page.locator("#legend").inner_text() and "%" in page.locator("#legend").inner_text()

    # exact zoom
    page.get_by_role("tab", name="Compare", exact=True).click()
    page.locator("#compare").get_by_role("button", name="100 %", exact=True).click()
    assert is_sharp(page, "#compare")
    page.locator("#compare").get_by_role("button", name="400 %").click()
    assert page.locator("#compare img.def-after").bounding_box()["width"] == 4 * 128

    # a point of the result lights up in the reference
    page.get_by_role("tab", name="Matches", exact=True).click()
    page.locator("#pick .def-stack").click(position={"x": 20, "y": 20})
    page.locator("#words", has_text="Found in reference").wait_for()
    assert page.locator("#pick .def-mark").is_visible() and page.locator("#found .def-mark").is_visible()
    there = page.locator("#words").inner_text()
    page.locator("#pick .def-pane").focus()
    for _ in range(6):
        page.keyboard.press("Shift+ArrowRight")
    page.wait_for_function("text => document.querySelector('#words').innerText !== text", arg=there)

    # take away
    files = {}
    for label in ("PNG", "PNG, 16 bit", "Everything (ZIP)", "Report (JSON)"):
        with page.expect_download() as download:
            page.locator("#downloads").get_by_role("button", name=label, exact=True).or_(
                page.locator("#downloads").get_by_role("link", name=label, exact=True)
            ).first.click()
        files[label] = Path(download.value.path())
    shown = np.asarray(Image.open(files["PNG"]))
    assert shown.shape == (96, 128, 3) and json.loads(files["Report (JSON)"].read_text())["seed"] == 0
    assert zipfile.is_zipfile(files["Everything (ZIP)"])
    page.get_by_text("Copy as Python").click()
    assert "DEFPipeline.from_pretrained" in page.locator("#python").inner_text()


def test_an_example_needs_one_click(page: Any) -> None:
    page.locator("#examples .def-card").nth(2).click()
    page.locator("#status .def-note", has_text="of the detail comes from").wait_for()
    assert page.locator("#compare img.def-after").evaluate("image => image.naturalWidth") == 512
    page.get_by_text("Do you have the original?").click()
    give(page, "#truth", EXAMPLES / "banana_hr.webp")
    page.locator("#scores", has_text="dB").wait_for()
    assert page.get_by_label("result ◂▸ original").is_checked()


def set_steps(page: Any, number: int) -> None:
    """Type into the settings; what was typed is what stands there when the box is left."""
    box = page.get_by_label("number input for Diffusion steps")
    if not box.is_visible():
        page.get_by_text("Settings", exact=True).click()
    box.fill(str(number))
    box.press("Tab")
    playwright.expect(box).to_have_value(str(number), timeout=PATIENCE)


@pytest.fixture
def held(page: Any, tiny: DEFPipeline, tmp_path: Path) -> Iterator[Any]:
    """After a first result, a run of 50 steps that waits in its second: a model so small would be done before anyone
    sees it at work. (the picture of the first result, the event that lets it go on)."""
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    calls: list[int] = []
    counter = tiny.unet.register_forward_hook(lambda *_: calls.append(1))
    try:
        enlarge(page)  # one step
    finally:
        counter.remove()
    first = page.locator("#compare img.def-after").get_attribute("src")
    reached, opened, number = threading.Event(), threading.Event(), itertools.count(1)

    def wait(*_: Any) -> None:
        if next(number) > len(calls) and not opened.is_set():  # the first step is done, its estimate is to be seen
            reached.set()
            opened.wait(120)

    hook = tiny.unet.register_forward_pre_hook(wait)
    try:  # whatever goes wrong from here on, no later test shall wait at the hook
        set_steps(page, 50)
        page.locator("#start").click()
        assert reached.wait(PATIENCE / 1000), f"no second step; the page says {page.locator('#status').inner_text()!r}"
        page.locator("#compare", has_text="estimate after step 1 of 50").wait_for()  # live
        assert page.locator("#status [aria-current=step]").inner_text() == "Enhancing"
        yield first, opened
    finally:
        hook.remove()
        opened.set()


def test_cancel_stops_and_keeps_the_last_result(page: Any, held: Any) -> None:
    first, opened = held
    ((worker, stop),) = run._WORKERS.items()
    page.locator("#cancel").click()
    assert stop.wait(PATIENCE / 1000)
    opened.set()
    page.locator("#status", has_text="Cancelled").wait_for()
    worker.join(60)
    assert not worker.is_alive()
    page.locator(f"#compare img.def-after[src='{first}']").wait_for()
    page.locator("#start:enabled").wait_for()
    set_steps(page, 1)
    enlarge(page)  # and again


def test_leaving_the_page_stops_computing(page: Any, held: Any) -> None:
    _, opened = held
    ((worker, stop),) = run._WORKERS.items()
    page.close()
    assert stop.wait(PATIENCE / 1000)
    opened.set()
    worker.join(60)
    assert not worker.is_alive()


def test_what_is_typed_at_once_stays(page: Any, tmp_path: Path) -> None:
    """On a machine that draws slowly, too: parts of the page that were still being built took typed values back."""
    page.add_init_script(
        "{ const draw = window.requestAnimationFrame.bind(window);"
        "window.requestAnimationFrame = then => draw(() => setTimeout(() => then(performance.now()), 400)); }"
    )
    page.reload()
    page.locator("#start").wait_for()
    page.get_by_text("Settings", exact=True).click()
    box = page.get_by_label("number input for Diffusion steps")
    box.fill("3")
    page.wait_for_timeout(2000)
    assert box.input_value() == "3"
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    enlarge(page)
    page.get_by_text("Copy as Python").click()
    assert "num_inference_steps=3" in page.locator("#python").inner_text()


def test_bad_files_are_refused_with_a_way_out(page: Any, tmp_path: Path) -> None:
    text, large = tmp_path / "text.png", tmp_path / "large.png"
    text.write_text("not a picture")
    Image.new("RGB", (1200, 1000)).save(large)
    for path, words in [
        (text, "not a picture that can be read"),
        (large, "at most 1 million are taken. Make it smaller"),
    ]:
        give(page, "#photo", path)
        page.locator("#info .def-warn", has_text=words).wait_for()
        page.locator("#photo input[type=file]").first.wait_for(state="attached")
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    give(page, "#files", text)
    page.locator("#info .def-warn", has_text="Reference 1 is not a picture").wait_for()


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
        second.wait_for_timeout(1000)  # it waits: that fills the queue
        last.locator("#start").click()
        last.locator("#status .def-warn", has_text="The queue is full: too many people are waiting").wait_for()
        give(last, "#files", EXAMPLES / "banana_ref1.jpg")
        last.locator("#info .def-warn", has_text="The queue is full").wait_for()
        gate.open()
        for page in (first, second):
            page.locator("#status .def-note", has_text="of the detail comes from").wait_for()
        enlarge(last)


def test_an_example_that_is_being_prepared_is_waited_for(
    browser: Any, tiny: DEFPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("street", "robot"):
        corner(tmp_path, f"{name}_lr.png")
        Image.open(EXAMPLES / f"{name}_ref1.jpg").crop((100, 100, 260, 240)).save(tmp_path / f"{name}_ref1.jpg")
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    later: list[Any] = []
    monkeypatch.setattr(space_page, "start_thread", lambda work, name: later.append((work, name)))
    demo = app.build_demo(tiny, prepare=True).queue()
    with serving(demo) as url, Gate(tiny.unet) as gate, opened(browser, url) as page, opened(browser, url) as other:
        page.locator("#status", has_text="of the detail comes from").wait_for()  # the first is shown at once
        made, make = [], run.Call.make
        monkeypatch.setattr(
            run.Call, "make", lambda call, *given, **more: made.append(call) or make(call, *given, **more)
        )
        run.start(*later[0])
        assert gate.reached.wait(PATIENCE / 1000)
        for visitor in (page, other):
            visitor.locator("#examples .def-card").nth(1).click()
        page.locator("#status .def-progress", has_text="just being prepared").wait_for()
        other.wait_for_timeout(500)
        gate.open()
        for visitor in (page, other):
            visitor.locator("#status .def-note", has_text="of the detail comes from").wait_for()
            visitor.locator("#start:enabled").wait_for()
        assert len(made) == 1


def test_an_hour_later_nothing_of_a_visitor_is_left(
    browser: Any, tiny: DEFPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was uploaded, what was sent, and what the visit kept: once with the clock before the hour, once after."""
    photo, reference, original = corner(tmp_path), tmp_path / "reference.png", tmp_path / "original.png"
    Image.open(EXAMPLES / "street_ref1.jpg").crop((100, 100, 260, 240)).save(reference)
    Image.new("RGB", (128, 96)).save(original)

    def files() -> set[Path]:
        return {path for path in root.rglob("*") if path.is_file()}

    def clock(**later: float) -> None:
        class Later(datetime):
            @classmethod
            def now(cls, *given: Any) -> datetime:
                return datetime.now(*given) + timedelta(**later)

        monkeypatch.setattr("gradio.state_holder.datetime", SimpleNamespace(datetime=Later, timedelta=timedelta))
        demo.app.state_holder.delete_all_expired_state()
        monkeypatch.setattr("def_hub.space.temporary.time", SimpleNamespace(time=lambda: Later.now().timestamp()))
        delete_old(root / "gradio", HOUR, before)
        gc.collect()

    with own_folder() as root:
        demo = app.build_demo(tiny).queue()
        with serving(demo) as url, opened(browser, url) as page:
            before = files()
            give(page, "#photo", photo)
            page.locator("#info", has_text="32×24 in").wait_for()
            give(page, "#files", reference)
            page.locator("#candidates .def-card").wait_for()
            enlarge(page)
            page.get_by_text("Do you have the original?").click()
            give(page, "#truth", original)
            page.locator("#scores", has_text="dB").wait_for()
            page.locator("#start:enabled").wait_for()
            there = files() - before
            assert {"photo.png", "reference.png", "original.png", "result.png"} <= {path.name for path in there}
            clock(minutes=55)
            assert files() - before == there
            clock(minutes=65)
            assert not {path.relative_to(root).as_posix()[-60:] for path in files() - before}


@pytest.mark.parametrize("kind", ["turned.jpg", "transparent.png", "sixteen.png", "picture.tif"])
def test_photographs_of_every_kind(page: Any, tmp_path: Path, kind: str) -> None:
    from tests.test_app import save

    give(page, "#photo", save(Path(kind).stem.replace("picture", "tiff"), tmp_path))
    page.locator("#info", has_text="32×24 in, 128×96 out").wait_for()
    enlarge(page)
    assert page.locator("#compare img.def-after").evaluate("image => [image.naturalWidth, image.naturalHeight]") == [
        128,
        96,
    ]


def test_drawing_keeps_references_away(page: Any, tmp_path: Path) -> None:
    give(page, "#photo", corner(tmp_path))
    give(page, "#files", EXAMPLES / "street_ref1.jpg")
    card = page.locator("#candidates .def-card")
    card.wait_for()
    page.locator("#info", has_text="32×24 in").wait_for()
    if card.get_attribute("aria-pressed") == "false":
        card.click()
        page.locator("#candidates .def-card[aria-pressed='true']").wait_for()
    page.get_by_text("Draw where references may be used").click()
    canvas = page.locator("#canvas canvas")
    canvas.wait_for()
    page.locator("#canvas .def-brush").fill("25")
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    page.mouse.down()
    for share in (0.5, 1.0):
        page.mouse.move(box["x"] + 2, box["y"] + share * box["height"] - 2)
    page.mouse.up()
    page.wait_for_timeout(500)  # the drawing is on its way
    enlarge(page)
    page.get_by_text("Copy as Python").click()
    assert "mask='inputs/mask.png'" in page.locator("#python").inner_text()


FOCUS = """() => {
  const e = document.activeElement, label = e.closest('label') ?? e, style = getComputedStyle(e);
  const seen = [style, getComputedStyle(label)].some(s => s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 1);
  const within = e.querySelector('[aria-label]')?.ariaLabel;
  const name = [e.ariaLabel, e.labels?.[0]?.innerText, e.innerText, e.title, within].find(text => text?.trim()) ?? '';
  return {body: e === document.body, id: e.closest('[id]')?.id ?? '', tag: e.tagName, name: name.trim(), seen};
}"""


def test_everything_is_reached_and_seen_by_keys(page: Any, tmp_path: Path) -> None:
    """With the Tab key alone, in order, each with a frame that is seen and a name."""
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    give(page, "#files", EXAMPLES / "street_ref1.jpg")
    card = page.locator("#candidates .def-card")
    card.wait_for()
    if card.get_attribute("aria-pressed") == "false":
        card.click()
        page.locator("#candidates .def-card[aria-pressed='true']").wait_for()
    enlarge(page)
    page.locator("#start:enabled").wait_for()
    page.locator("#examples .def-card").first.focus()
    page.keyboard.press("Shift+Tab")
    reached: list[dict[str, Any]] = []
    for _ in range(150):  # what opens is opened on the way
        page.keyboard.press("Tab")
        focus = page.evaluate(FOCUS)
        if len(reached) > 10 and focus == reached[0]:
            break
        reached.append(focus)
        if page.evaluate("document.activeElement.ariaExpanded") == "false" and focus["tag"] == "BUTTON":
            page.keyboard.press("Enter")
    reached = [focus for focus in reached if not focus["body"]]
    assert not [focus for focus in reached if not (focus["seen"] and focus["name"])]
    names = [focus["name"] for focus in reached]
    wanted = ["Cathedral", "Click to upload", "#1 ·", "Draw over", "Brush", "Wipe", "Drawing over", "Fast", "Settings",
              "number input for Diffusion steps", "Seed", "Random seed", "Reset to the preset", "Enlarge", "Compare",
              "bicubic", "Fit", "400 %", "result", "Divider", "Do you have the original", "PNG", "Everything (ZIP)",
              "Copy as Python"]  # fmt: skip
    at = 0
    for name in wanted:
        found = [number for number, there in enumerate(names) if number >= at and there.startswith(name)]
        found = found or [number for number, there in enumerate(names) if number >= at and name in there]
        assert found, f"{name!r} is not reached, or not in order, in {names}"
        at = found[0]


def test_a_visit_by_keys_alone(page: Any, tmp_path: Path) -> None:
    """Once the files are chosen, in a window that is not the page's."""
    keys = page.keyboard
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    reference = tmp_path / "reference.png"
    Image.open(EXAMPLES / "street_ref1.jpg").crop((160, 120, 352, 280)).save(reference)
    give(page, "#files", reference)
    card = page.locator("#candidates .def-card")
    card.wait_for()
    card.focus()
    before = card.get_attribute("aria-pressed")
    for _ in range(2 if before == "true" else 1):
        keys.press("Space")
        after = {"true": "false", "false": "true"}[before]
        page.locator(f"#candidates .def-card[aria-pressed='{after}']:focus").wait_for()  # the focus stays
        before = after
    page.get_by_role("button", name="Draw where references may be used").focus()
    keys.press("Enter")
    canvas = page.locator("#canvas canvas")
    canvas.focus()
    for key in ("Space", "Shift+ArrowLeft", "Shift+ArrowUp", "Space", "ArrowLeft"):
        keys.press(key)
    drawn = (
        "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.filter(v => v).length"
    )
    assert canvas.evaluate(drawn) > 50
    page.wait_for_timeout(500)  # the drawing is on its way
    page.get_by_role("radio", name="Fast").focus()
    keys.press("Space")
    playwright.expect(page.get_by_role("radio", name="Fast")).to_be_checked(timeout=PATIENCE)
    page.locator("#start").focus()
    keys.press("Enter")
    page.locator("#status .def-note", has_text="of the detail comes from").wait_for()
    page.locator("#start:enabled").wait_for()
    assert "mask='inputs/mask.png'" in (page.locator("#python").text_content() or "")
    page.locator("#compare").get_by_role("button", name="200 %").focus()
    keys.press("Enter")
    assert page.locator("#compare img.def-after").bounding_box()["width"] == 2 * 128
    page.get_by_role("tab", name="Matches", exact=True).focus()
    keys.press("Enter")
    page.locator("#pick .def-pane").focus()
    keys.press("ArrowRight")
    page.locator("#words", has_text="Found in reference").wait_for()
    assert page.evaluate("document.activeElement.className") == "def-pane"  # the next key moves on
    page.locator("#downloads").get_by_text("PNG", exact=True).focus()
    with page.expect_download() as download:
        keys.press("Enter")
    assert Image.open(download.value.path()).size == (128, 96)


def test_it_fits_a_phone_in_the_dark(browser: Any, url: str, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844}, device_scale_factor=2, color_scheme="dark")
    page.set_default_timeout(PATIENCE)
    page.goto(f"{url}?__theme=dark")
    page.locator("#start").wait_for()
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    enlarge(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, paper.strip("rgb()").split(",")[:3])) < 100
    page.locator("#compare").get_by_role("button", name="100 %", exact=True).click()
    assert is_sharp(page, "#compare")
    page.close()

"""Pictures looked at closely: exact pixels, moved by hand and by keys, in sight; text that can be read."""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.browser.conftest import (
    PATIENCE,
    TABS,
    becomes,
    enlarge,
    give,
    open_fold,
    open_tab,
    opened,
    settled,
    use,
)
from tests.browser.test_screens import inside
from tests.conftest import EXAMPLES

# Where a part of a viewer is, from the left and top of its pane, and how large the pane is.
PLACE = """([where, part]) => {
  const pane = document.querySelector(where + ' .def-pane'), box = pane.getBoundingClientRect();
  const there = document.querySelector(where + ' ' + part).getBoundingClientRect();
  const middle = [(there.left + there.right) / 2 - box.left, (there.top + there.bottom) / 2 - box.top];
  return {x: middle[0], y: middle[1], width: pane.clientWidth, height: pane.clientHeight, left: pane.scrollLeft,
    top: pane.scrollTop};
}"""
# Text whose contrast to its ground is below 4.5, but for what is switched off: (contrast, text).
FAINT = """() => {
  const numbers = colour => (colour.match(/[\\d.]+/g) ?? []).map(Number);
  const light = colour => {
    const [r, g, b] = colour.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = numbers(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] > 0.9) return colour.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].filter(node => node.nodeType === 3).map(node => node.textContent.trim()).join('');
    if (!own || !e.checkVisibility({checkVisibilityCSS: true}) || e.closest('[disabled], script, style')) continue;
    const [a, b] = [light(numbers(getComputedStyle(e).color).slice(0, 3)), light(ground(e))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) faint.push([contrast.toFixed(2), own.slice(0, 40)]);
  }
  return faint;
}"""


def photo(folder: Path) -> Path:
    """320×240 pixels when enlarged: at 400 % larger than its pane."""
    path = folder / "photo.png"
    Image.open(EXAMPLES / "street_lr.png").convert("RGB").crop((20, 10, 100, 70)).save(path)
    return path


def upload(page: Any, folder: Path) -> None:
    give(page, "#photo", photo(folder))
    page.locator("#info", has_text="80×60 in").wait_for()


def zoom(page: Any, where: str, level: str) -> None:
    page.locator(where).get_by_role("button", name=level).click()


@contextmanager
def screen(browser: Any, url: str, width: int, height: int, **options: Any) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": width, "height": height}, **options)
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    page.locator("#start").wait_for()
    yield page
    page.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read(browser: Any, url: str, tmp_path: Path, theme: str) -> None:
    reference = tmp_path / "reference.png"
    Image.open(EXAMPLES / "street_ref1.jpg").crop((160, 120, 352, 280)).save(reference)
    with screen(browser, f"{url}?__theme={theme}", 1280, 860, color_scheme=theme) as page:
        upload(page, tmp_path)
        give(page, "#files", reference)
        page.locator("#candidates .def-card").wait_for()
        open_fold(page, "Settings")
        enlarge(page)
        page.mouse.move(0, 0)
        for tab in TABS:
            page.get_by_role("tab", name=tab, exact=True).click()
            assert settled(page, lambda: page.evaluate(FAINT)) == []  # colours fade


def test_zoomed_pictures_are_moved(page: Any, tmp_path: Path) -> None:
    def line() -> dict[str, float]:
        return page.evaluate(PLACE, ["#compare", ".def-line b"])

    upload(page, tmp_path)
    enlarge(page)
    page.locator("#start:enabled").wait_for()
    compare, pane = page.locator("#compare"), page.locator("#compare .def-pane")
    # Fit fills the pane as far as whole numbers do
    assert becomes(page, lambda: compare.locator("img.def-after").bounding_box()["width"] == 2 * 320)
    before = line()
    page.locator("#compare .def-range").fill("20")
    assert line()["x"] == pytest.approx(before["x"] - 0.3 * 640, abs=2)
    before = line()
    zoom(page, "#compare", "400 %")
    assert line()["x"] == pytest.approx(before["x"], abs=2)  # the divider stays
    assert line()["y"] == pytest.approx(line()["height"] / 2, abs=2)  # where it can be taken
    assert line()["top"] == pytest.approx((960 - line()["height"]) / 2, abs=2)  # the middle stays the middle

    # dragged: the picture, and by its handle the divider
    box, start = pane.bounding_box(), line()
    page.mouse.move(box["x"] + 500, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 400, box["y"] + 70, steps=4)
    page.mouse.up()
    assert line()["left"] == pytest.approx(start["left"] + 100, abs=1)
    assert line()["top"] == pytest.approx(start["top"] + 30, abs=1)
    assert line()["x"] == pytest.approx(start["x"] - 100, abs=2)
    start = line()
    page.mouse.move(box["x"] + start["x"], box["y"] + start["y"])
    page.mouse.down()
    page.mouse.move(box["x"] + start["x"] + 150, box["y"] + start["y"], steps=4)
    page.mouse.up()
    assert line()["x"] == pytest.approx(start["x"] + 150, abs=3) and line()["left"] == start["left"]

    # keys move the picture, with Shift the divider; the name says so
    assert "Shift" in pane.get_attribute("aria-label")
    pane.focus()
    start = line()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert line()["left"] > start["left"] and line()["top"] > start["top"]
    start = line()
    page.keyboard.press("Shift+ArrowRight")
    assert line()["left"] == start["left"] and line()["x"] > start["x"]
    page.locator("#compare .def-range").focus()
    page.keyboard.press("End")  # out of sight: the picture follows
    assert 0 <= line()["x"] <= line()["width"] + 1
    zoom(page, "#compare", "Fit")
    start = line()
    pane.focus()
    page.keyboard.press("ArrowLeft")
    assert line()["x"] < start["x"]


def test_a_finger_moves_a_zoomed_picture(browser: Any, url: str, tmp_path: Path) -> None:
    with screen(browser, url, 390, 844, has_touch=True, is_mobile=True, device_scale_factor=2) as page:
        upload(page, tmp_path)
        enlarge(page)
        page.locator("#start:enabled").wait_for()
        zoom(page, "#compare", "400 %")
        page.locator("#compare .def-pane").scroll_into_view_if_needed()
        finger = page.context.new_cdp_session(page)

        def touch(kind: str, *at: float) -> None:
            points = [{"x": at[0], "y": at[1]}] if at else []
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        def swipe(x: float, y: float, far: float) -> None:
            touch("touchStart", x, y)
            for n in range(1, 9):
                touch("touchMove", x + far * n / 8, y)
                page.evaluate("() => new Promise(requestAnimationFrame)")  # as a finger moves: from frame to frame
            touch("touchEnd")

        def line() -> dict[str, float]:
            return settled(page, lambda: page.evaluate(PLACE, ["#compare", ".def-line b"]))

        box, start = page.locator("#compare .def-pane").bounding_box(), line()
        swipe(box["x"] + 260, box["y"] + 60, -80)
        after = line()
        assert after["left"] > start["left"] + 30
        assert after["x"] - start["x"] == pytest.approx(start["left"] - after["left"], abs=2)  # on the same place
        swipe(box["x"] + after["x"], box["y"] + after["y"], 50)
        moved = line()
        assert moved["left"] == after["left"] and moved["x"] == pytest.approx(after["x"] + 50, abs=3)


def test_the_lit_place_of_a_zoomed_reference_is_in_the_middle(page: Any, tmp_path: Path) -> None:
    reference = tmp_path / "reference.png"
    Image.open(EXAMPLES / "street_ref1.jpg").crop((80, 40, 336, 232)).save(reference)
    upload(page, tmp_path)
    use(page, reference)
    enlarge(page)
    page.locator("#start:enabled").wait_for()
    open_tab(page, "References")
    zoom(page, "#found", "400 %")
    for x in (0.3, 0.5, 0.7):
        box, words = page.locator("#pick .def-stack").bounding_box(), page.locator("#words").inner_text()
        page.locator("#pick .def-stack").click(position={"x": x * box["width"], "y": 0.5 * box["height"]})
        page.wait_for_function(
            "before => document.querySelector('#words').innerText !== before && document.querySelector('.def-mark')",
            arg=words,
        )
        page.locator("#found .def-mark").wait_for()
        assert becomes(page, lambda: is_in_the_middle(page.evaluate(PLACE, ["#found", ".def-mark"]), 4 * 256, 4 * 192))


def is_in_the_middle(mark: dict[str, float], width: int, height: int) -> bool:
    """Whether a mark of a picture of this size is in the middle of its pane, or as near to it as the edges allow."""

    def near(scrolled: float, there: float, pane: float, whole: int) -> bool:
        wanted = max(0, min(scrolled + there - pane / 2, whole - pane))
        return abs(scrolled - wanted) <= 2

    return near(mark["left"], mark["x"], mark["width"], width) and near(mark["top"], mark["y"], mark["height"], height)


@pytest.mark.parametrize("ratio", [1, 2.625, 3])
def test_a_pixel_is_a_pixel_of_the_screen(browser: Any, url: str, tmp_path: Path, ratio: float) -> None:
    """Compared with the file. Not with Playwright's `device_scale_factor`: it rounds to CSS pixels, phones do not."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    uneven = browser.browser_type.launch(
        executable_path=next(filter(None, map(shutil.which, names)), None),
        args=["--no-sandbox", f"--force-device-scale-factor={ratio}", "--window-size=500,900"],
    )
    page = uneven.new_context(no_viewport=True).new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    page.locator("#start").wait_for()
    upload(page, tmp_path)
    enlarge(page)
    page.locator("#start:enabled").wait_for()
    assert page.evaluate("devicePixelRatio") == pytest.approx(ratio)
    page.add_style_tag(content="#compare :is(.def-line, .def-before) { visibility: hidden }")
    sent = page.request.get(page.locator("#compare img.def-after").get_attribute("src")).body()
    picture = np.asarray(Image.open(io.BytesIO(sent)).convert("RGB"))
    middle = (slice(20, -20), slice(20, -20))  # the pane's corners are round
    for level in (1, 2):
        zoom(page, "#compare", f"{level}00 %")
        page.locator("#compare .def-pane").evaluate(
            "pane => { pane.scrollTo(0, 0); pane.scrollIntoView({block: 'center'}); }"
        )

        def exact(level: int = level) -> bool:
            left, top = page.locator("#compare img.def-after").evaluate(
                "image => [image.getBoundingClientRect().left, image.getBoundingClientRect().top]"
            )
            x, y = round(left * ratio), round(top * ratio)
            seen = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))[y : y + 240 * level]
            width = page.locator("#compare .def-pane").evaluate("pane => pane.clientWidth")
            shown = min(320 * level, round(ratio * width))
            expected = picture.repeat(level, 0).repeat(level, 1)[: len(seen), :shown]
            return len(seen) > 100 and np.array_equal(seen[:, x : x + shown][middle], expected[middle])

        assert becomes(page, exact)
    uneven.close()


def test_what_comes_is_brought_into_sight(browser: Any, url: str, tmp_path: Path) -> None:
    with opened(browser, url) as page:  # beside a long form
        upload(page, tmp_path)
        for part in ("Settings", "Choose which parts to use"):
            open_fold(page, part)
        open_tab(page, "Details")
        enlarge(page)
        assert becomes(page, lambda: inside(page, "#compare .def-pane"))
        page.locator("#downloads button").last.scroll_into_view_if_needed()  # reached, where it is below
        assert becomes(page, lambda: inside(page, "#downloads"))
    with screen(browser, url, 390, 844, has_touch=True, is_mobile=True) as page:  # below a form
        upload(page, tmp_path)
        open_tab(page, "Details")
        page.locator("#start").click()
        page.locator("#compare img.def-before").wait_for()
        assert becomes(page, lambda: inside(page, "#compare .def-pane"))  # it scrolls
        assert page.locator("#pair").bounding_box()["height"] < 60


def test_the_wheel_and_a_double_click_zoom_where_they_point(page: Any, tmp_path: Path) -> None:
    def width() -> float:
        return page.locator("#compare img.def-after").bounding_box()["width"]

    def pressed() -> str:
        return page.locator("#compare [data-zoom][aria-pressed=true]").get_attribute("data-zoom")

    def place(x: float, y: float) -> tuple[float, float]:
        """What of the picture is at a point of the window, as shares."""
        box = page.locator("#compare .def-stack").bounding_box()
        return (x - box["x"]) / box["width"], (y - box["y"]) / box["height"]

    upload(page, tmp_path)
    enlarge(page)
    box = page.locator("#compare .def-stack").bounding_box()
    x, y = box["x"] + 0.55 * box["width"], box["y"] + 0.3 * box["height"]  # inside at 100 %, too
    fitted = width()
    page.mouse.move(x, y)
    page.mouse.wheel(0, -120)  # moves the page, as everywhere
    assert pressed() == "fit"
    page.evaluate("scrollTo(0, 0)")
    page.mouse.dblclick(x, y)
    assert pressed() == "2" and width() == 2 * 320
    page.mouse.dblclick(x, y)
    assert pressed() == "fit" and width() == fitted
    page.keyboard.down("Control")
    places = []
    for level in ("1", "2", "4"):
        page.mouse.wheel(0, -120)
        page.wait_for_function(f"document.querySelector('#compare [data-zoom=\"{level}\"]').ariaPressed === 'true'")
        places.append(place(x, y))
    assert width() == 4 * 320 and places[2] == pytest.approx(places[1], abs=0.05)
    page.keyboard.up("Control")
    page.locator("#compare [data-full]").click()
    page.wait_for_function("document.fullscreenElement?.matches('.def-view')")
    page.locator("#compare .def-stack").dispatch_event(  # a headless browser sends no wheel to a full screen
        "wheel", {"deltaY": 120, "clientX": 300, "clientY": 200, "bubbles": True, "cancelable": True}
    )
    page.wait_for_function("document.querySelector('#compare [data-zoom=\"2\"]').ariaPressed === 'true'")
    page.keyboard.press("Escape")
    page.evaluate("document.fullscreenElement && document.exitFullscreen()")  # a headless browser has no Escape
    page.wait_for_function("!document.fullscreenElement")

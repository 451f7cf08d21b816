"""Plain enlargement, result, reference and original side by side; and what is shown to others."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.browser.conftest import becomes, corner, enlarge, give, open_fold, open_tab, settled, use
from tests.browser.test_screens import serious
from tests.conftest import EXAMPLES

GRID = ".def-panes-grid"


def zoom(page: Any) -> float:
    return float(page.locator(GRID).get_attribute("data-zoom"))


def at(page: Any) -> list[float]:
    return [float(v) for v in page.locator(GRID).get_attribute("data-at").split()]


def matrices(page: Any) -> list[str]:
    """How each picture but the references' is laid out."""
    pictures = page.locator(f"{GRID} figure:not([data-reference]) img")
    return pictures.evaluate_all("all => all.map(i => i.style.transform)")


def pinch(page: Any) -> None:
    """Two fingers in the first picture, 40 pixels apart, then 80."""
    page.locator(f"{GRID} .def-window").first.evaluate(
        """window => {
          const box = window.getBoundingClientRect(), x = box.left + box.width / 2, y = box.top + box.height / 2;
          window.setPointerCapture = () => {};
          const send = (type, id, dx) => window.dispatchEvent(new PointerEvent(type,
            {pointerId: id, pointerType: 'touch', clientX: x + dx, clientY: y, bubbles: true}));
          send('pointerdown', 11, -20); send('pointerdown', 12, 20);
          send('pointermove', 12, 60);
          send('pointerup', 11, -20); send('pointerup', 12, 60);
        }"""
    )


def keeps_nobody_out(page: Any) -> None:
    axe_playwright = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-playwright-python")
    assert not serious(axe_playwright.Axe().run(page).response["violations"])


@pytest.fixture
def compared(page: Any, tmp_path: Path) -> Any:
    """A result with a reference and an original, side by side."""
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    use(page, EXAMPLES / "street_ref1.jpg")
    page.get_by_role("radio", name="Fast").click()
    enlarge(page)
    original = tmp_path / "original.png"
    Image.open(EXAMPLES / "street_hr.webp").convert("RGB").crop((160, 120, 288, 216)).save(original)
    open_tab(page, "Details")
    open_fold(page, "Do you have the original?")
    give(page, "#original", original)
    page.locator("#scores", has_text="dB").wait_for()
    open_tab(page, "Compare")
    page.get_by_role("button", name="Side by side").click()
    page.locator(f"{GRID} figure").nth(3).wait_for()
    page.wait_for_function("document.fullscreenElement?.matches('.def-panes')")
    return page


def test_all_pictures_move_and_zoom_together(compared: Any) -> None:
    page = compared
    words = page.locator(f"{GRID} figcaption").all_inner_texts()
    assert words[:3] == ["Plain enlargement", "Result", "Original"] and words[3].startswith("Reference")
    fitted = settled(page, lambda: zoom(page))  # the window grows to a full screen
    window = page.locator(f"{GRID} .def-window").first.bounding_box()
    x, y = window["x"] + window["width"] / 2, window["y"] + window["height"] / 2
    page.locator(f"{GRID} .def-window").first.dispatch_event(
        "wheel", {"deltaY": -240, "clientX": x, "clientY": y, "bubbles": True, "cancelable": True}
    )
    assert zoom(page) == pytest.approx(2 * fitted, abs=0.01) and at(page) == pytest.approx([0.5, 0.5], abs=0.005)
    assert len(set(matrices(page))) == 1  # three of one size, laid out alike
    before = at(page)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 40, y - 20)
    page.mouse.up()
    after = at(page)
    assert after[0] > before[0] and after[1] > before[1] and len(set(matrices(page))) == 1
    assert after[0] - before[0] == pytest.approx(40 / (zoom(page) * 128), abs=0.002)
    page.locator(GRID).focus()
    page.keyboard.press("0")
    assert zoom(page) == fitted and at(page) == [0.5, 0.5]
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    assert zoom(page) > fitted and at(page)[0] > 0.5
    page.mouse.dblclick(x, y)
    assert zoom(page) == fitted
    page.mouse.dblclick(x, y)
    assert zoom(page) >= 2
    page.keyboard.press("0")
    pinch(page)
    assert zoom(page) == pytest.approx(2 * fitted, rel=0.01)
    keeps_nobody_out(page)
    page.locator(".def-panes [data-close]").click()
    page.wait_for_function("!document.querySelector('.def-panes-dialog').open && !document.fullscreenElement")


def test_a_picture_to_share(page: Any, tmp_path: Path) -> None:
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    enlarge(page)
    with page.expect_download() as download:
        page.locator("#downloads").get_by_text("Before/after", exact=True).click()
    assert download.value.suggested_filename == "photo_x4_before_after.png"
    picture = Image.open(download.value.path())
    assert picture.width > 2 * 128 and picture.height > 96


def test_other_sites_show_a_title_and_a_picture(page: Any, url: str) -> None:
    """This page's own, and no tag of Gradio's; the picture has a whole address, also behind a proxy."""
    for headers, root in (
        ({}, url.rstrip("/")),
        ({"X-Forwarded-Proto": "https"}, url.rstrip("/").replace("http", "https")),
    ):
        text = httpx.get(url, headers=headers).text
        told = dict(re.findall(r'<meta\s+property="(og:[^"]*)"\s+content="([^"]*)"', text))
        assert told["og:title"] == "def_hub: sharper with a reference" and told["og:image"] == f"{root}/card.jpg"
        assert text.count("og:title") == 1 and "twitter:creator" not in text and "Click to try out" not in text
    answer = httpx.get(f"{url}card.jpg")
    assert answer.headers["content-type"] == "image/jpeg" and len(answer.content) < 200_000
    assert becomes(page, lambda: page.title() == told["og:title"])

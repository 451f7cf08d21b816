"""The presets side by side on a part of the photo."""

from pathlib import Path
from typing import Any

from PIL import Image

from def_hub import DEFPipeline
from tests.browser.conftest import PATIENCE, Gate, becomes, corner, enlarge, give, opened, read_python, state
from tests.browser.test_screens import inside
from tests.conftest import EXAMPLES

READY = ".def-preview figure[data-ready=true]"


def photo(page: Any, folder: Path) -> None:
    """A photo of 136×104: larger than one part."""
    path = folder / "scene.png"
    Image.open(EXAMPLES / "street_lr.png").convert("RGB").resize((136, 104)).save(path)
    give(page, "#photo", path)
    page.locator("#info", has_text="136×104 in").wait_for()


def choose_scale(page: Any, scale: int) -> None:
    page.locator(f"#scale input[value='{scale}']").click()


def previewed(page: Any) -> None:
    page.locator(READY).nth(2).wait_for()
    page.locator("#start:enabled").wait_for()


def frame(page: Any) -> dict[str, float]:
    return page.locator(".def-part").evaluate(
        "part => Object.fromEntries(['left', 'top', 'width'].map(k => [k, parseFloat(part.style[k])]))"
    )


def test_every_preset_is_seen_on_a_part_that_is_chosen(page: Any, tmp_path: Path) -> None:
    """By a click and by keys; one is taken over with its settings; the whole takes the preview's place."""
    page.set_viewport_size({"width": 1280, "height": 720})
    photo(page, tmp_path)
    page.locator("#look").click()
    previewed(page)
    assert page.locator(".def-preview h3").inner_text() == "Preview ×4"
    sizes = page.locator(f"{READY} img").evaluate_all("all => all.map(i => [i.naturalWidth, i.naturalHeight])")
    assert sizes == [[256, 256]] * 3
    assert becomes(page, lambda: inside(page, "#preview"))
    assert inside(page, "#start") and not page.locator("#tabs").is_visible()
    assert frame(page)["left"] > 0
    page.locator(".def-preview-photo").click(position={"x": 3, "y": 3})
    page.wait_for_function("document.querySelector('.def-part').style.left === '0%'")
    previewed(page)
    page.locator(".def-preview [role=application]").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("parseFloat(document.querySelector('.def-part').style.left) > 0")
    previewed(page)
    assert frame(page)["top"] == 0
    page.get_by_role("button", name="Use Fast").click()
    page.locator("input[type=radio][value=fast]:checked").wait_for()
    page.locator("[data-use=fast][aria-pressed=true]").wait_for()
    choose_scale(page, 2)
    enlarge(page)
    assert not page.locator(".def-preview").count()
    assert "preset='fast'" in (script := read_python(page)) and "scale=2," in script


def test_a_preview_goes_with_what_it_was_made_of(page: Any, tmp_path: Path) -> None:
    photo(page, tmp_path)
    page.locator("#look").click()
    previewed(page)
    give(page, "#photo", corner(tmp_path))
    page.locator(".def-preview").wait_for(state="detached")
    page.locator("#look").click()
    previewed(page)
    page.locator(".def-preview [data-close]").click()
    page.locator(".def-preview").wait_for(state="detached")
    assert page.locator("#tabs").is_visible()


def test_a_preview_is_cancelled(browser: Any, url: str, tiny: DEFPipeline, tmp_path: Path) -> None:
    with opened(browser, url) as page, Gate(tiny.unet) as gate:
        photo(page, tmp_path)
        page.locator("#look").click()
        assert gate.reached.wait(PATIENCE / 1000)
        page.locator("#start:disabled").wait_for()
        page.locator("#cancel").click()
        gate.open()
        state(page, "cancelled").wait_for()
        page.locator("#start:enabled").wait_for()
        assert page.locator(READY).count() == 0

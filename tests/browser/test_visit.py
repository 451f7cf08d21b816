"""What most visitors do: upload, choose, enlarge, look inside, take away."""

import gc
import json
import zipfile
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import app
from def_hub import DEFPipeline
from def_hub.service import examples
from def_hub.service.temporary import delete_old, own_folder
from def_hub.space.page import HOUR
from tests.browser.conftest import (
    PATIENCE,
    TABS,
    becomes,
    corner,
    done,
    enlarge,
    give,
    is_sharp,
    open_fold,
    open_tab,
    opened,
    read_python,
    result_size,
    serving,
)
from tests.conftest import EXAMPLES


def test_from_upload_to_download(page: Any, tmp_path: Path) -> None:
    """The whole way: upload, choose, run, compare, look inside, take away."""
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in, 128×96 out, no reference").wait_for()
    give(page, "#files", EXAMPLES / "street_ref1.jpg", EXAMPLES / "banana_ref1.jpg")
    cards = page.locator("#candidates .def-card")
    cards.nth(1).wait_for()
    for n in (0, 1):
        cards.nth(n).filter(has_text=" %, ").wait_for()  # ranked

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
        pictures = {"Compare": 1, "References": 2, "Evidence": 1, "Details": 0}[tab]
        seen = page.locator("[role=tabpanel] img.def-after:visible")
        assert becomes(page, lambda seen=seen, pictures=pictures: seen.count() == pictures)
        for picture in page.locator("[role=tabpanel]:visible img:not(.def-veil)").all():
            assert picture.get_attribute("alt") and picture.get_attribute("src").endswith(".png")
    open_tab(page, "Evidence")
    assert "reference 1" in page.locator("#legend").inner_text() and "%" in page.locator("#legend").inner_text()
    page.locator("#evidence [data-veil]").fill("20")
    assert page.locator("#evidence .def-veil").evaluate("image => getComputedStyle(image).opacity") == "0.2"
    page.get_by_label("How far each match is trusted").click()
    page.locator("#legend", has_text="fully").wait_for()
    assert page.locator("#evidence .def-veil").evaluate("image => image.style.opacity") == "0.2"  # it stays
    open_tab(page, "References")
    open_fold(page, "All matches at once")
    for where in ("#matches img", "#transferred img"):
        page.locator(where).wait_for()

    # exact zoom
    page.get_by_role("tab", name="Compare", exact=True).click()
    page.locator("#compare").get_by_role("button", name="100 %", exact=True).click()
    assert is_sharp(page, "#compare")
    page.locator("#compare").get_by_role("button", name="400 %").click()
    assert page.locator("#compare img.def-after").bounding_box()["width"] == 4 * 128

    # a point of the result lights up in the reference
    open_tab(page, "References")
    page.locator("#pick .def-stack").click(position={"x": 20, "y": 20})
    page.locator("#words", has_text="Found in reference").wait_for()
    for where in ("#pick .def-mark", "#found .def-mark"):
        page.locator(where).wait_for()
    there = page.locator("#words").inner_text()
    page.locator("#pick .def-pane").focus()
    for _ in range(6):
        page.keyboard.press("Shift+ArrowRight")
    page.wait_for_function("text => document.querySelector('#words').innerText !== text", arg=there)

    # take away
    files = {}
    for label in ("PNG", "JPEG", "WebP", "16-bit PNG", "Before/after", "All (ZIP)", "Report"):
        with page.expect_download() as download:
            page.locator("#downloads").get_by_role("button", name=label, exact=True).or_(
                page.locator("#downloads").get_by_role("link", name=label, exact=True)
            ).first.click()
        files[label] = Path(download.value.path())
        assert download.value.suggested_filename.startswith("photo_x4")
    shown = np.asarray(Image.open(files["PNG"]))
    assert shown.shape == (96, 128, 3) and json.loads(files["Report"].read_text())["seed"] == 0
    assert zipfile.is_zipfile(files["All (ZIP)"])
    assert "DEFPipeline.from_pretrained" in read_python(page)


def test_an_example_needs_one_click(page: Any, cut_examples: Path) -> None:
    page.locator("#examples .def-card").nth(2).click()
    done(page)
    assert result_size(page) == [160, 128]
    open_tab(page, "Details")
    open_fold(page, "Do you have the original?")
    page.locator("#scores", has_text="dB").wait_for()  # examples come with theirs
    page.locator("#original").get_by_label("Clear").click()
    page.get_by_label("Original", exact=True).wait_for(state="detached")
    give(page, "#original", cut_examples / "lund_hr.webp")
    page.locator("#scores", has_text="dB").wait_for()
    assert page.get_by_label("Original", exact=True).is_checked()


def test_an_example_opens_zoomed_at_the_place_that_its_title_names(page: Any, tmp_path: Path) -> None:
    """With the divider there; the zoom goes with the example, but not that of the visitor."""

    def zoomed() -> str:
        return page.locator("#compare [data-zoom][aria-pressed=true]").get_attribute("data-zoom")

    def is_in_sight() -> bool:
        """In the middle, or as near to it as the edges of the picture allow."""
        return page.locator("#compare .def-pane").evaluate(
            """(pane, [x, y]) => {
              const near = (place, whole, size, scrolled) =>
                Math.abs(Math.max(0, Math.min(place * whole - size / 2, whole - size)) - scrolled) <= 2;
              return near(x, pane.scrollWidth, pane.clientWidth, pane.scrollLeft) &&
                near(y, pane.scrollHeight, pane.clientHeight, pane.scrollTop);
            }""",
            list(examples.SHIPPED[2].place),
        )

    page.set_viewport_size({"width": 390, "height": 844})  # where 160×128 pixels can be zoomed into
    page.locator("#examples .def-card").nth(2).click()
    done(page)
    assert becomes(page, lambda: zoomed() == "4") and becomes(page, is_in_sight)
    line = page.locator("#compare .def-stack").evaluate("stack => parseFloat(stack.style.getPropertyValue('--at'))")
    assert line == pytest.approx(100 * examples.SHIPPED[2].place[0])
    page.locator("#compare").get_by_role("button", name="200 %").click()
    page.get_by_role("radio", name="Fast").click()
    enlarge(page)
    assert zoomed() == "2"  # as the visitor left it
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    enlarge(page)
    assert becomes(page, lambda: zoomed() == "fit")


def test_an_example_replaces_pictures_of_ones_own_only_when_that_is_wanted(page: Any, tmp_path: Path) -> None:
    asked: list[str] = []

    def answer(dialog: Any) -> None:
        asked.append(dialog.message)
        dialog.accept() if len(asked) > 1 else dialog.dismiss()

    page.on("dialog", answer)
    give(page, "#photo", corner(tmp_path))
    own = page.locator("#info", has_text="32×24 in")
    own.wait_for()
    page.locator("#examples .def-card").nth(2).click()
    assert becomes(page, lambda: len(asked) == 1)
    assert len(asked) == 1 and own.is_visible() and not page.locator("#candidates .def-card").count()
    page.locator("#examples .def-card").nth(2).click()
    page.locator("#info", has_text="40×32 in").wait_for()
    done(page)
    page.locator("#examples .def-card").nth(0).click()  # nothing of one's own is lost
    done(page)
    assert len(asked) == 2 and "in place of your own pictures" in asked[0]


def test_a_result_of_an_earlier_photo_is_dimmed_and_cannot_be_downloaded(page: Any, tmp_path: Path) -> None:
    def shown() -> str:
        return page.locator("#compare img.def-after").get_attribute("src")

    first, other = corner(tmp_path), tmp_path / "other.png"
    Image.open(EXAMPLES / "banana_lr.png").crop((0, 0, 40, 24)).save(other)
    give(page, "#photo", first)
    page.locator("#info", has_text="32×24 in").wait_for()
    enlarge(page)
    page.locator("#start:enabled").wait_for()
    result, words = shown(), page.locator("#status")
    earlier = words.locator("b", has_text="The result shown is of an earlier photo")
    assert not earlier.count()
    page.get_by_label("Remove the photo").click()
    earlier.wait_for()
    give(page, "#photo", other)
    page.locator("#info", has_text="40×24 in").wait_for()
    words.locator(".def-note", has_text="128×96 in").wait_for()
    assert earlier.is_visible() and shown() == result
    opacity = "stack => +getComputedStyle(stack).opacity"
    assert becomes(page, lambda: page.locator("#compare .def-stack").evaluate(opacity) < 0.6)
    assert page.locator("#downloads button[disabled]").count() == 7
    page.locator("#start").click()
    words.locator(".def-note", has_text="160×96 in").wait_for()
    done(page)
    assert becomes(page, lambda: page.locator("#compare .def-stack").evaluate(opacity) == 1)
    assert becomes(page, lambda: not page.locator("#downloads button[disabled]").count())
    assert not earlier.count() and shown() != result


def test_what_is_typed_at_once_stays(page: Any, tmp_path: Path) -> None:
    """On a machine that draws slowly, too: parts of the page that were still being built took typed values back."""
    page.add_init_script(
        "{ const draw = window.requestAnimationFrame.bind(window);"
        "window.requestAnimationFrame = then => draw(() => setTimeout(() => then(performance.now()), 400)); }"
    )
    page.reload()
    page.locator("#start").wait_for()
    open_fold(page, "Settings")
    box = page.get_by_label("number input for Diffusion steps")
    box.fill("3")
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    enlarge(page)
    assert box.input_value() == "3" and "num_inference_steps=3" in read_python(page)


def test_it_fits_a_phone_in_the_dark(browser: Any, url: str, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844}, device_scale_factor=2, color_scheme="dark")
    page.set_default_timeout(PATIENCE)
    page.goto(f"{url}?__theme=dark")
    page.locator("#start").wait_for()
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    enlarge(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for tab in TABS:  # none in a menu
        box = page.get_by_role("tab", name=tab, exact=True).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, paper.strip("rgb()").split(",")[:3])) < 100
    page.locator("#compare").get_by_role("button", name="100 %", exact=True).click()
    assert is_sharp(page, "#compare")
    page.close()


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
        monkeypatch.setattr("def_hub.service.temporary.time", SimpleNamespace(time=lambda: Later.now().timestamp()))
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
            open_tab(page, "Details")
            open_fold(page, "Do you have the original?")
            give(page, "#original", original)
            page.locator("#scores", has_text="dB").wait_for()
            page.locator("#start:enabled").wait_for()
            there = files() - before
            assert {"photo.png", "reference.png", "original.png", "result.png"} <= {path.name for path in there}
            clock(minutes=55)
            assert files() - before == there
            clock(minutes=65)
            assert not {path.relative_to(root).as_posix()[-60:] for path in files() - before}

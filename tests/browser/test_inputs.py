"""What visitors give: pictures of every kind, bad files, drawings, second thoughts."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.browser.conftest import PATIENCE, corner, enlarge, give, result_size, use
from tests.conftest import EXAMPLES


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
    page.locator("#info .def-warn", has_text="text.png is not a picture").wait_for()


@pytest.mark.parametrize("kind", ["turned.jpg", "transparent.png", "sixteen.png", "picture.tif"])
def test_photographs_of_every_kind(page: Any, tmp_path: Path, kind: str) -> None:
    from tests.test_app import save

    give(page, "#photo", save(Path(kind).stem.replace("picture", "tiff"), tmp_path))
    page.locator("#info", has_text="32×24 in, 128×96 out").wait_for()
    enlarge(page)
    assert result_size(page) == [128, 96]


def test_drawing_keeps_references_away(page: Any, tmp_path: Path) -> None:
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    use(page, EXAMPLES / "street_ref1.jpg")
    page.get_by_text("Draw which parts count").click()
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


def test_one_bad_file_costs_no_good_one(page: Any, tmp_path: Path) -> None:
    cut = tmp_path / "cut.jpg"
    cut.write_bytes((EXAMPLES / "street_ref1.jpg").read_bytes()[:30_000])
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    give(page, "#files", cut, EXAMPLES / "banana_ref1.jpg")
    page.locator("#info", has_text="cut.jpg is not a picture that can be read").wait_for()
    page.locator("#info", has_text="32×24 in").wait_for()
    assert page.locator("#candidates .def-card").count() == page.locator("#files tr").count() == 1


def test_a_photograph_of_an_example_can_be_removed(page: Any) -> None:
    page.locator("#examples .def-card").nth(2).click()
    page.locator("#status .def-note", has_text="of the detail comes from").wait_for()
    page.locator("#start:enabled").wait_for()
    page.get_by_label("Remove Image").click()
    page.locator("#info", has_text="At most 1 million pixels").wait_for()
    assert page.locator("#photo img").count() == 0


def test_a_drawing_is_seen_again_after_another(page: Any, tmp_path: Path) -> None:
    """What counts is shown: a drawing that was kept, but not seen any more, kept references away."""
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    use(page, EXAMPLES / "street_ref1.jpg")
    page.get_by_text("Draw which parts count").click()
    page.locator("#canvas canvas").click()
    ink = "document.querySelector('#canvas canvas').getContext('2d').getImageData(16, 12, 1, 1).data[3] > 99"
    assert page.evaluate(ink)
    page.wait_for_timeout(500)  # the drawing is on its way
    for option, name, there in ((1, "reference 1", "false"), (0, "the photograph", "true")):
        page.get_by_label("Draw over", exact=True).click()
        page.get_by_role("option").nth(option).click()
        page.locator("#canvas .def-names", has_text=name).wait_for()
        page.wait_for_function(f"() => {ink} === {there}")
    page.locator("#canvas .def-wipe").click()
    assert not page.evaluate(ink)


def test_what_the_camera_takes_is_a_photograph(browser: Any, url: str) -> None:
    """Not larger than what is taken, and no mirror image. (Gradio itself asks for 1920×1440.)"""
    page = browser.new_context(permissions=["camera"]).new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    page.get_by_label("Capture from camera").click()
    page.get_by_text("Click to Access Webcam").click()
    page.wait_for_function("document.querySelector('#photo video')?.videoWidth > 0")  # Gradio takes nothing before
    page.get_by_label("capture photo").click()
    page.locator("#info", has_text="1024×768 in, 4096×3072 out").wait_for()
    page.close()

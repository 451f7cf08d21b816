"""What visitors give: pictures of every kind, bad files, drawings, second thoughts."""

import threading
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from def_hub import DEFPipeline
from def_hub.service.uploads import check_photo
from def_hub.space import messages
from tests.browser.conftest import (
    PATIENCE,
    Gate,
    becomes,
    corner,
    done,
    drawn,
    enlarge,
    give,
    open_fold,
    read_python,
    result_size,
    state,
    use,
)
from tests.browser.test_preview import choose_scale
from tests.conftest import EXAMPLES


def test_bad_files_are_refused_with_a_way_out(page: Any, tmp_path: Path) -> None:
    text, large = tmp_path / "text.png", tmp_path / "large.png"
    text.write_text("not a picture")
    Image.new("L", (8000, 6500)).save(large)
    for path, words in [
        (text, "not a picture that can be read"),
        (large, "at most 50 million are taken"),
    ]:
        give(page, "#photo", path)
        page.locator("#refused .def-warn", has_text=words).wait_for()
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    give(page, "#files", text)
    refused = page.locator("#refused .def-warn", has_text="text.png is not a picture")
    refused.wait_for()
    page.get_by_role("radio", name="Fast").click()
    page.locator("#info", has_text="One search").wait_for()
    assert refused.is_visible()  # until it has been read
    page.locator("#refused .def-dismiss").click()
    refused.wait_for(state="detached")


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
    open_fold(page, "Choose which parts to use")
    canvas = page.locator("#canvas canvas")
    canvas.wait_for()
    page.locator("#canvas .def-brush").fill("25")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    page.mouse.down()
    for share in (0.5, 1.0):
        page.mouse.move(box["x"] + 2, box["y"] + share * box["height"] - 2)
    page.mouse.up()
    drawn(page)
    enlarge(page)
    assert "mask='inputs/mask.png'" in read_python(page)


def test_one_bad_file_costs_no_good_one(page: Any, tmp_path: Path) -> None:
    cut = tmp_path / "cut.jpg"
    cut.write_bytes((EXAMPLES / "street_ref1.jpg").read_bytes()[:30_000])
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    give(page, "#files", cut, EXAMPLES / "banana_ref1.jpg")
    page.locator("#refused", has_text="cut.jpg is not a picture that can be read").wait_for()
    page.locator("#candidates .def-card", has_text="banana_ref1.jpg").wait_for()
    assert page.locator("#candidates .def-card").count() == 1


def test_a_photograph_of_an_example_can_be_removed(page: Any) -> None:
    page.locator("#examples .def-card").nth(2).click()
    done(page)
    page.get_by_label("Remove the photo").click()
    page.locator("#info", has_text="Up to 1 million pixels").wait_for()
    assert page.locator("#photo img").count() == page.locator("#candidates .def-card").count() == 0


def test_a_drawing_is_seen_again_after_another(page: Any, tmp_path: Path) -> None:
    """What counts is shown: a drawing that was kept, but not seen any more, kept references away."""
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    use(page, EXAMPLES / "street_ref1.jpg")
    open_fold(page, "Choose which parts to use")
    page.locator("#canvas canvas").click()
    ink = "document.querySelector('#canvas canvas').getContext('2d').getImageData(16, 12, 1, 1).data[3] > 99"
    assert page.evaluate(ink)
    drawn(page)
    for option, name, there in ((1, "reference 1", "false"), (0, "the photo", "true")):
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
    page.get_by_role("button", name="Use the camera").click()
    page.wait_for_function("document.querySelector('.def-camera video')?.videoWidth > 0")
    page.get_by_role("button", name="Take the photo").click()
    page.locator("#info", has_text="1024×768 in, 4096×3072 out").wait_for()
    assert not page.locator(".def-camera").count()
    page.close()


def test_ones_own_photo_replaces_an_example_at_once(page: Any, tmp_path: Path) -> None:
    """With its references and its result; the drop area takes the next photo, too."""
    page.locator("#examples .def-card").nth(2).click()
    done(page)
    assert page.locator("#candidates .def-card").count() == 2
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in, 128×96 out, no reference").wait_for()
    assert not page.locator("#candidates .def-card").count() and not page.locator("#compare img").count()
    page.locator("#downloads").wait_for(state="hidden")  # nothing to save
    state(page, "idle").wait_for(state="attached")
    with page.expect_file_chooser() as chooser:
        page.locator("#photo").get_by_role("button", name="Replace").click()
    other = tmp_path / "other.png"
    Image.open(EXAMPLES / "banana_lr.png").crop((0, 0, 40, 24)).save(other)
    chooser.value.set_files(str(other))
    page.locator("#info", has_text="40×24 in").wait_for()


def paste(page: Any, kind: str, data: str) -> None:
    """As if the visitor had pressed Ctrl+V: a text, or a file as base64."""
    page.evaluate(
        """([kind, data]) => {
          const clipboard = new DataTransfer();
          if (kind === 'text') clipboard.setData('text/plain', data);
          else clipboard.items.add(new File([Uint8Array.from(atob(data), c => c.charCodeAt(0))], 'pasted.png',
            {type: 'image/png'}));
          document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData: clipboard, bubbles: true}));
        }""",
        [kind, data],
    )


def test_pictures_and_links_are_pasted(page: Any, url: str, tmp_path: Path) -> None:
    """A link is fetched by the browser, never by the server."""
    path = corner(tmp_path)
    paste(page, "file", b64encode(path.read_bytes()).decode())
    page.locator("#info", has_text="32×24 in").wait_for()
    assert page.locator("#photo .def-drop-bar span").inner_text() == "pasted.png"
    page.route("**/elsewhere/small.png", lambda route: route.fulfill(path=str(EXAMPLES / "banana_lr.png")))
    paste(page, "text", f"{url}elsewhere/small.png")
    page.locator("#info", has_text="128×128 in").wait_for()
    page.route("**/elsewhere/page.html", lambda route: route.fulfill(body="<p>", content_type="text/html"))
    paste(page, "text", f"{url}elsewhere/page.html")
    page.locator("#photo .def-drop-words", has_text="could not fetch a picture from this link").wait_for()
    page.locator("#files .def-zone").focus()
    page.route("**/elsewhere/sharp.jpg", lambda route: route.fulfill(path=str(EXAMPLES / "banana_ref1.jpg")))
    paste(page, "text", f"{url}elsewhere/sharp.jpg")
    page.locator("#candidates .def-card", has_text="sharp.jpg").wait_for()
    assert page.locator("#photo .def-drop-bar span").inner_text() == "small.png"


def test_what_went_wrong_is_said_until_it_is_read(
    page: Any, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A photo that is shown after it was said is drawn in a new area, in which the words were missing. That it is being
    opened is said until then, too, however late the forecast for the photo before it comes."""
    page.route("**/elsewhere/page.html", lambda route: route.fulfill(body="<p>", content_type="text/html"))
    reached, opened, check, forecast = threading.Event(), threading.Event(), check_photo, messages.forecast

    def late(*given: Any) -> Any:
        reached.wait(1)
        return forecast(*given)

    def wait(*given: Any) -> Any:
        reached.set()
        opened.wait(PATIENCE / 1000)
        return check(*given)

    monkeypatch.setattr("def_hub.space.messages.forecast", late)
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    monkeypatch.setattr("def_hub.space.page.check_photo", wait)
    give(page, "#photo", EXAMPLES / "banana_lr.png")
    assert reached.wait(PATIENCE / 1000)
    page.locator("#info", has_text="Opening what you gave").wait_for()
    paste(page, "text", f"{url}elsewhere/page.html")
    words = page.locator("#photo .def-drop-words", has_text="could not fetch a picture from this link")
    words.wait_for()
    assert "Opening what you gave" in page.locator("#info").inner_text()
    opened.set()
    page.locator("#photo .def-drop-bar", has_text="banana_lr.png").wait_for()
    words.wait_for()
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    words.wait_for(state="detached")


def test_a_photo_given_while_the_last_one_is_assessed_takes_its_place(page: Any, tmp_path: Path) -> None:
    """References, too, are all taken, however quickly they come."""
    give(page, "#photo", EXAMPLES / "banana_lr.png")
    give(page, "#photo", corner(tmp_path))
    for name in ("street_ref1.jpg", "banana_ref1.jpg"):
        give(page, "#files", EXAMPLES / name)
    page.locator("#info", has_text="32×24 in").wait_for()
    page.locator("#candidates .def-card").nth(1).wait_for()
    assert "32×24 in" in page.locator("#info").inner_text()


def test_of_two_photos_the_one_that_was_given_last_is_taken(page: Any, tmp_path: Path) -> None:
    """However long the first one takes to arrive; one that is no picture takes no place."""
    held: list[Any] = []
    page.route("**/upload*", lambda route: route.continue_() if held else held.append(route))
    for path in (EXAMPLES / "banana_lr.png", corner(tmp_path)):
        give(page, "#photo", path)
    page.locator("#info", has_text="32×24 in").wait_for()
    with page.expect_response("**/upload*"):
        held[0].continue_()
    give(page, "#files", EXAMPLES / "street_ref1.jpg")
    page.locator("#candidates .def-card").wait_for()
    assert page.locator("#photo .def-drop-bar span").inner_text() == "photo.png"
    assert "32×24 in" in page.locator("#info").inner_text()
    page.unroute("**/upload*")
    page.route("**/upload*", lambda route: route.continue_() if len(held) > 1 else held.append(route))
    page.route("**/elsewhere/page.html", lambda route: route.fulfill(body="<p>", content_type="text/html"))
    give(page, "#photo", EXAMPLES / "banana_lr.png")
    paste(page, "text", f"{page.url}elsewhere/page.html")
    page.locator("#photo .def-drop-words", has_text="could not fetch a picture from this link").wait_for()
    held[1].continue_()
    page.locator("#info", has_text="128×128 in").wait_for()


def test_what_is_chosen_while_references_are_ranked_stays_chosen(page: Any, tiny: DEFPipeline, tmp_path: Path) -> None:
    """The ranking was called with the scale that was chosen before, and is answered last."""
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="128×96 out").wait_for()
    with Gate(tiny.refsr.feature_extractor) as ranking:
        give(page, "#files", EXAMPLES / "street_ref1.jpg")
        assert ranking.reached.wait(PATIENCE / 1000)
        choose_scale(page, 3)
        page.locator("#info", has_text="96×72 out").wait_for()
        ranking.open()
        page.locator("#candidates .def-card").wait_for()
        assert becomes(page, lambda: "96×72 out" in page.locator("#info").inner_text())


def test_what_has_been_read_does_not_come_back(page: Any, tiny: DEFPipeline, tmp_path: Path) -> None:
    """The handler that refused one file goes on with the others, and ends by sending all that it said. What is wrong
    with the same file given again is said again."""
    (tmp_path / "text.png").write_text("not a picture")
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    refused = page.locator("#refused .def-warn")
    with Gate(tiny.refsr.feature_extractor) as ranking:
        give(page, "#files", EXAMPLES / "street_ref1.jpg", tmp_path / "text.png")
        page.locator("#refused .def-dismiss").click()
        refused.wait_for(state="detached")
        assert ranking.reached.wait(PATIENCE / 1000)
        ranking.open()
        page.locator("#candidates .def-card").wait_for()
        page.wait_for_timeout(1500)
        assert not refused.count()
    give(page, "#files", tmp_path / "text.png")
    refused.wait_for()


def test_a_photo_is_dropped_on_the_one_that_is_there(page: Any, tmp_path: Path) -> None:
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    data = b64encode((EXAMPLES / "banana_lr.png").read_bytes()).decode()
    page.locator("#photo .def-drop").evaluate(
        """(area, data) => {
          const dropped = new DataTransfer();
          dropped.items.add(new File([Uint8Array.from(atob(data), c => c.charCodeAt(0))], 'dropped.png',
            {type: 'image/png'}));
          area.dispatchEvent(new DragEvent('drop', {dataTransfer: dropped, bubbles: true, cancelable: true}));
        }""",
        data,
    )
    page.locator("#info", has_text="128×128 in").wait_for()


def test_references_are_added_and_removed(page: Any, tmp_path: Path) -> None:
    """Each appears once, as a card; what is given later is added."""
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    cards = page.locator("#candidates .def-card")
    for number, name in enumerate(("street_ref1.jpg", "banana_ref1.jpg")):
        give(page, "#files", EXAMPLES / name)
        cards.nth(number).wait_for()
    assert page.get_by_text("street_ref1.jpg", exact=False).count() == 1
    page.get_by_label("Remove banana_ref1.jpg").click()
    cards.nth(1).wait_for(state="detached")
    assert "street_ref1.jpg" in cards.nth(0).inner_text()


def test_a_stroke_is_undone(page: Any, tmp_path: Path) -> None:
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    open_fold(page, "Choose which parts to use")
    canvas = page.locator("#canvas canvas")
    ink = "document.querySelector('#canvas canvas').getContext('2d').getImageData(0, 0, 32, 24).data.some(v => v)"
    canvas.click()
    drawn(page)
    assert page.evaluate(ink)
    page.locator("#canvas").get_by_role("button", name="Undo").click()
    assert not page.evaluate(ink)

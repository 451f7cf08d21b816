"""Several photos at once, and the results of a visit."""

import zipfile
from pathlib import Path
from typing import Any

from PIL import Image

from def_hub import DEFPipeline
from tests.browser.conftest import (
    PATIENCE,
    Gate,
    becomes,
    corner,
    done,
    enlarge,
    give,
    open_fold,
    opened,
    result_size,
    state,
    use,
)
from tests.browser.test_preview import choose_scale
from tests.browser.test_screens import inside
from tests.conftest import EXAMPLES


def give_photos(page: Any, *paths: Path) -> None:
    open_fold(page, "Several photos at once")
    give(page, "#photos", *paths)
    page.locator(".def-batch tbody tr[data-state]").nth(len(paths) - 1).wait_for()


def states(page: Any) -> list[str]:
    return page.locator(".def-batch tbody tr[data-state]").evaluate_all("rows => rows.map(r => r.dataset.state)")


def cells(page: Any, row: int) -> list[str]:
    return page.locator(".def-batch tbody tr[data-state]").nth(row).locator("th, td").all_inner_texts()


def unpacked(page: Any) -> zipfile.ZipFile:
    with page.expect_download() as download:
        page.locator("[data-zip]").click()
    return zipfile.ZipFile(download.value.path())


def test_several_photos_one_table_one_zip(page: Any, tmp_path: Path) -> None:
    """A bad file costs no good one; two of one name are both there; the references are those of the page."""
    (tmp_path / "bad.png").write_text("no picture")
    first, second = corner(tmp_path, "holiday.png"), corner(tmp_path, "holiday.jpg")
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    reference = tmp_path / "sharp.png"
    Image.open(EXAMPLES / "street_ref1.jpg").crop((160, 120, 352, 280)).save(reference)
    use(page, reference)
    page.get_by_role("radio", name="Fast").click()
    choose_scale(page, 2)
    give_photos(page, first, tmp_path / "bad.png", second)
    assert states(page) == ["waiting", "failed", "waiting"]
    assert "not a picture that can be read" in page.locator(".def-batch .def-why").inner_text()
    page.set_viewport_size({"width": 1280, "height": 500})  # where the button is far below the table
    page.locator("#start-all").click()
    page.locator("[data-zip]").wait_for()
    assert becomes(page, lambda: inside(page, ".def-batch .def-panel-bar"))
    assert states(page) == ["done", "failed", "done"]
    name, size, share, agreement, seconds, _ = cells(page, 0)
    assert (name, size) == ("holiday.png", "64×48") and share.endswith("%") and agreement.startswith("± ")
    assert float(seconds) > 0 and cells(page, 1)[1:5] == ["–"] * 4
    with unpacked(page) as archive:
        assert sorted(archive.namelist()) == ["holiday.jpg_x2.png", "holiday.png_x2.png"]
        assert {Image.open(archive.open(n)).size for n in archive.namelist()} == {(64, 48)}
    page.locator("#start:enabled").wait_for()
    page.locator(".def-batch [data-close]").click()
    page.locator(".def-batch").wait_for(state="detached")


def test_cancel_keeps_what_is_done(browser: Any, url: str, tiny: DEFPipeline, tmp_path: Path) -> None:
    """The second photo is at work when Cancel is pressed. Pressed again, only what is missing is computed."""
    with opened(browser, url) as page:
        page.get_by_role("radio", name="Fast").click()
        give_photos(page, *(corner(tmp_path, f"{n}.png") for n in "abc"))
        with Gate(tiny.refsr.aggregator) as first:
            page.locator("#start-all").click()
            assert first.reached.wait(PATIENCE / 1000)
            with Gate(tiny.unet) as second:
                first.open()
                assert second.reached.wait(PATIENCE / 1000)
                page.locator(".def-batch tr[data-state=running]", has_text="b.png").wait_for()
                page.locator("#cancel").click()
                second.open()
                state(page, "cancelled").wait_for()
        page.locator("[data-zip]").wait_for()
        assert states(page) == ["done", "cancelled", "cancelled"]
        with unpacked(page) as archive:
            assert archive.namelist() == ["a_x4.png"]
        taken = cells(page, 0)
        page.locator("#start:enabled").wait_for()
        page.locator("#start-all").click()
        page.locator(".def-batch tr[data-state=done]").nth(2).wait_for()
        page.locator("[data-zip]").wait_for()
        assert cells(page, 0) == taken
        with unpacked(page) as archive:
            assert archive.namelist() == ["a_x4.png", "b_x4.png", "c_x4.png"]


def test_earlier_results_are_opened_again_with_their_settings(page: Any, tmp_path: Path) -> None:
    first, other = corner(tmp_path), tmp_path / "other.png"
    Image.open(EXAMPLES / "banana_lr.png").crop((0, 0, 40, 24)).save(other)
    page.get_by_role("radio", name="Fast").click()
    give(page, "#photo", first)
    page.locator("#info", has_text="32×24 in").wait_for()
    enlarge(page)
    give(page, "#photo", other)
    page.locator("#info", has_text="40×24 in").wait_for()
    page.get_by_role("radio", name="Detail").click()
    choose_scale(page, 3)
    page.locator("#info", has_text="120×72 out").wait_for()
    enlarge(page)
    cards = page.locator("#history .def-card")
    assert cards.all_inner_texts() == ["other.png ×3\nDetail, no reference", "photo.png ×4\nFast, no reference"]
    assert cards.nth(0).get_attribute("aria-pressed") == "true"
    cards.nth(1).focus()
    page.keyboard.press("Enter")
    page.locator("#info", has_text="32×24 in, 128×96 out").wait_for()
    page.locator("input[type=radio][value=fast]:checked").wait_for()
    page.locator("#history .def-card[data-index='1'][aria-pressed='true']").wait_for()
    done(page)
    assert result_size(page) == [128, 96] and not page.locator("#status [data-stale]:not([data-stale=''])").count()
    with page.expect_download() as download:
        page.locator("#downloads").get_by_text("PNG", exact=True).first.click()
    assert download.value.suggested_filename == "photo_x4.png"

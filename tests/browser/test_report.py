"""The report of an evaluation in a real browser: no server, pictures that move together, tables that sort."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from def_hub.evaluation import benchmark, report
from def_hub.evaluation.datasets import load_dataset
from def_hub.evaluation.methods import Bicubic
from tests.helpers.evaluation import Nearly, multiview

from .conftest import PATIENCE, foreign


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    dataset = load_dataset(multiview(folder / "views"))
    tasks, _ = benchmark.plan([Bicubic(), Nearly(dataset)], [dataset], ["first"])
    journal = benchmark.Journal(folder / "out", {"protocol": "Y</script>", "seed": 0})
    rows = benchmark.run(tasks, save_to=folder / "out" / "images", on_row=journal.add)
    journal.finish(rows, ["a picture that <b>could not</b> be read"], "table")
    return folder / "out"


@pytest.fixture
def page(browser: Any, folder: Path) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENCE)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url) if request.url.startswith("http") else None)
    page.goto(report.write(folder).as_uri())
    page.locator("#panels canvas").nth(3).wait_for()
    yield page
    page.close()
    assert not wrong


def middle(page: Any, number: int, right: int = 0, down: int = 0) -> list[int]:
    """The colour in the middle of a panel, or so many pixels of the page beside it."""
    return page.evaluate(
        """([n, right, down]) => {
            const canvas = document.querySelectorAll('#panels canvas')[n], ratio = window.devicePixelRatio;
            const x = canvas.width / 2 + right * ratio, y = canvas.height / 2 + down * ratio;
            return [...canvas.getContext('2d').getImageData(x, y, 1, 1).data];
        }""",
        [number, right, down],
    )


def column(page: Any, table: str, number: int) -> list[str]:
    return page.locator(f"#{table} tbody tr td:nth-child({number})").all_inner_texts()


def test_all_methods_are_side_by_side(page: Any) -> None:
    captions = page.locator("#panels figcaption").all_inner_texts()
    assert [caption.split(",")[0] for caption in captions] == ["input", "bicubic", "nearly", "truth"]
    assert " dB, SSIM " in captions[1]
    assert middle(page, 3) != [0, 0, 0, 0]
    assert all(abs(a - b) <= 1 for a, b in zip(middle(page, 2), middle(page, 3), strict=True))
    assert page.locator("#problems li").inner_text() == "a picture that <b>could not</b> be read"
    assert "Y</script>" in page.locator("#protocol").inner_text()
    assert page.locator("#unavailable").inner_text().startswith("Unavailable: LPIPS (squeeze), ")


def test_all_pictures_zoom_and_move_together(page: Any) -> None:
    scales = "() => [...document.querySelectorAll('#panels canvas')].map((c) => Number(c.dataset.scale))"
    before, colours = page.evaluate(scales), [middle(page, n) for n in range(4)]
    page.locator("#panels canvas").nth(1).hover()
    page.mouse.wheel(0, -100)
    page.wait_for_function("() => document.getElementById('zoom').textContent === '125 %'")
    assert page.evaluate(scales) == pytest.approx([1.25 * scale for scale in before])
    assert [middle(page, n) for n in range(4)] == colours  # the middle stays where it is
    page.locator("#panels canvas").nth(1).press("ArrowLeft")
    page.locator("#panels canvas").nth(1).press("ArrowUp")
    assert all(middle(page, n) != colours[n] for n in range(4))
    page.get_by_role("button", name="Fit").click()
    assert page.evaluate(scales) == pytest.approx(before) and [middle(page, n) for n in range(4)] == colours


def test_dragging_moves_the_picture_under_the_pointer(page: Any) -> None:
    page.locator("#panels canvas").nth(1).press("+")
    colour = middle(page, 1)
    box = page.locator("#panels canvas").nth(1).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 40)
    page.mouse.up()
    assert middle(page, 1, 60, 40) == colour and middle(page, 1) != colour


def test_error_maps_show_the_difference_eight_times(page: Any) -> None:
    truth = middle(page, 3)
    page.get_by_label("error maps").check()
    assert middle(page, 3) == truth  # the truth and the input stay
    assert all(value in (0, 8) for value in middle(page, 2)[:3])  # one level beside the truth, but where that is white


def test_tables_sort_and_choose(page: Any) -> None:
    header = page.locator("#rows th", has_text="psnr")
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    values = [float(value) for value in column(page, "rows", 5)]
    assert values == sorted(values) and len(values) == 8
    header.get_by_role("button").click()
    assert [float(value) for value in column(page, "rows", 5)] == sorted(values, reverse=True)
    page.locator("#rows th", has_text="served").get_by_role("button").click()
    served = column(page, "rows", 9)
    assert served == ["0.250"] * 4 + ["–"] * 4  # what is unavailable comes last
    page.locator("#rows tbody button", has_text="002").first.click()
    page.wait_for_function("() => document.getElementById('picture').selectedOptions[0].text === 'views/002'")
    page.locator("#panels canvas[aria-label^='views/002']").nth(3).wait_for()
    assert page.locator("#rows tr.chosen").count() == 2


def test_the_page_asks_nobody_for_anything(folder: Path) -> None:
    text = report.write(folder).read_text()
    assert "http://" not in text and "https://" not in text and foreign("https://example.org")

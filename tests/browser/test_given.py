"""Pictures as people have them: too large, in the colours of a camera, transparent, in the formats of phones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.browser.conftest import enlarge, give, result_size


def large(folder: Path, name: str = "holiday.jpg", size: tuple[int, int] = (4000, 3000), **options: Any) -> Path:
    """As large as a phone's: four colours, one in each quarter."""
    path = folder / name
    quarters = Image.new("RGB", (2, 2))
    quarters.putdata([(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40)])
    quarters.resize(size, Image.Resampling.NEAREST).save(path, **options)
    return path


def dialog(page: Any) -> Any:
    shown = page.locator("dialog.def-crop")
    shown.locator("#def-crop-size", has_text="→").wait_for()
    return shown


def frame_of(page: Any) -> list[int]:
    """Width and height of the frame in pixels of the photo."""
    words = page.locator("#def-crop-size").inner_text()
    return [int(number) for number in words.split(" → ")[0].split("×")]


def test_of_a_large_photo_a_part_is_chosen_by_mouse_or_by_keys(page: Any, tmp_path: Path) -> None:
    give(page, "#photo", large(tmp_path))
    shown = dialog(page)
    assert "holiday.jpg, 4000×3000 pixels" in shown.inner_text()
    width, height = frame_of(page)
    assert 0.98e6 < width * height <= 1e6 and "about" in shown.inner_text() and "of memory" in shown.inner_text()
    assert shown.get_by_role("button", name="Shrink the whole photo").is_visible()

    box, frame = page.locator(".def-crop-stack").bounding_box(), page.locator(".def-frame")
    at = frame.bounding_box()
    page.mouse.move(at["x"] + at["width"] / 2, at["y"] + at["height"] / 2)
    page.mouse.down()
    page.mouse.move(
        box["x"] + 5, box["y"] + box["height"] - 5, steps=3
    )  # as far as it goes: into the lower left corner
    page.mouse.up()
    assert frame.bounding_box()["x"] == pytest.approx(box["x"], abs=1)
    assert frame_of(page) == [width, height]

    corner_of = page.locator(".def-frame i[data-corner='1,0']").bounding_box()
    page.mouse.move(corner_of["x"] + 22, corner_of["y"] + 22)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"], box["y"], steps=3)  # more than is allowed
    page.mouse.up()
    assert frame_of(page)[0] * frame_of(page)[1] <= 1e6
    for _ in range(3):
        page.keyboard.press("Shift+ArrowLeft")
    assert frame_of(page)[0] < width
    page.keyboard.press("ArrowRight")
    assert frame.bounding_box()["x"] > box["x"] + 2
    for key in ("Shift+ArrowLeft", "Shift+ArrowUp", "ArrowDown"):
        for _ in range(80):
            page.keyboard.press(key)
    assert frame_of(page) == [64, 64]
    shown.get_by_role("button", name="Use this part").click()
    page.locator("#info", has_text="64×64 in, 256×256 out").wait_for()
    assert not page.locator("dialog").count()
    enlarge(page)
    assert result_size(page) == [256, 256]
    with page.expect_download() as download:
        page.locator("#downloads").get_by_text("PNG", exact=True).first.click()
    assert download.value.suggested_filename == "holiday_x4.png"
    red, green, blue = np.asarray(Image.open(download.value.path())).reshape(-1, 3).mean(0)
    assert blue > 150 and red < 90 and green < 90  # the lower left quarter

"""Pictures as people have them: too large, in the colours of a camera, transparent, in the formats of phones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from def_hub import images
from tests.browser.conftest import corner, enlarge, give, open_fold, opened, read_python, result_size
from tests.conftest import EXAMPLES
from tests.helpers.profiles import PROFILES


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
    page.mouse.move(box["x"] + 5, box["y"] + box["height"] - 5, steps=3)  # into the corner
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


def test_a_large_photo_is_shrunk_on_a_phone_by_touch(browser: Any, url: str, tmp_path: Path) -> None:
    with opened(browser, url, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True) as page:
        give(page, "#photo", large(tmp_path, size=(1500, 2000)))
        shown = dialog(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        small = page.locator("dialog :is(button, .def-frame i)").evaluate_all(
            "all => all.map(e => e.getBoundingClientRect()).filter(box => box.width < 44 || box.height < 44).length"
        )
        assert not small
        bottom = shown.get_by_role("button", name="Cancel").bounding_box()
        assert bottom["y"] + bottom["height"] <= 844  # nothing to scroll
        shown.get_by_role("button", name="Cancel").tap()
        assert not page.locator("#photo img").count()
        give(page, "#photo", large(tmp_path, size=(1500, 2000)))
        dialog(page).get_by_role("button", name="Shrink the whole photo").tap()
        page.locator("#info", has_text="866×1154 in").wait_for()
        page.get_by_role("button", name="Crop the photo").tap()  # of the photo as it was given
        assert "1500×2000 pixels" in dialog(page).inner_text()
        page.keyboard.press("Escape")
        page.locator("dialog").wait_for(state="detached")


def test_a_reference_of_48_megapixels_is_taken(page: Any, tmp_path: Path) -> None:
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    give(page, "#files", large(tmp_path, "phone.jpg", size=(8000, 6000), quality=80))
    page.locator("#candidates .def-card", has_text=" %, ").wait_for()  # ranked
    assert not page.locator("#refused .def-warn").count()


def test_formats_of_phones_and_colours_of_cameras_are_shown_right(page: Any, tmp_path: Path) -> None:
    """What a browser could not show, or would show otherwise, is shown as the page understands it."""
    heif = pytest.importorskip("pillow_heif", reason="no pillow-heif")
    kinds = {}
    profiles = [(f"{name}.png", {"icc_profile": PROFILES[name]}) for name in ("p3", "adobe")]
    for number, (name, options) in enumerate((("phone.heic", {}), ("phone.avif", {}), *profiles)):
        picture = Image.new("RGB", (48 + 4 * number, 32), (200, 60, 40))
        kinds[name] = tmp_path / name
        (heif.from_pillow(picture) if name.endswith("heic") else picture).save(kinds[name], **options)
    glass = Image.new("RGBA", (64, 32), (0, 0, 0, 0))
    glass.paste((200, 60, 40, 255), (0, 0, 32, 32))
    glass.save(tmp_path / "glass.png")
    kinds["glass.png"] = tmp_path / "glass.png"
    for name, path in kinds.items():
        give(page, "#photo", path)
        page.locator("#photo .def-drop-bar span", has_text=name).wait_for()
        truth = images.to_tensor(path)
        width = truth.shape[-1]
        page.locator("#info", has_text=f"{width}×32 in").wait_for()  # before the next one is given
        left, right = (shown_at(page, "#photo img", x) for x in (0.25, 0.75))
        expected = truth[0, :, 16, [width // 4, 3 * width // 4]].mul(255).round().T.tolist()
        assert np.abs(np.array([left, right]) - expected).max() <= 1, name
        if name == "p3.png":
            assert left[0] > 208  # sRGB needs more red for the same colour
    assert right == [255, 255, 255]  # glass over white
    enlarge(page)
    with page.expect_download() as download:
        page.locator("#downloads").get_by_text("PNG", exact=True).first.click()
    kept = np.asarray(Image.open(download.value.path()))
    assert kept.shape == (128, 256, 4) and kept[:, :120, 3].min() > 250 and kept[:, 136:, 3].max() < 5


def shown_at(page: Any, where: str, x: float) -> list[int]:
    """The colour in the middle of a picture's height, at a share of its width, as the browser shows it."""
    page.wait_for_function("where => document.querySelector(where)?.complete", arg=where)
    return page.locator(where).evaluate(
        """(image, x) => {
          const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight), pen = canvas.getContext('2d');
          pen.drawImage(image, 0, 0);
          return [...pen.getImageData(x * canvas.width, canvas.height / 2, 1, 1).data].slice(0, 3);
        }""",
        x,
    )


def test_what_happened_to_the_photo_is_said_and_can_be_changed(page: Any, tmp_path: Path) -> None:
    path = tmp_path / "saved.jpg"
    Image.open(EXAMPLES / "street_lr.png").convert("RGB").crop((0, 0, 64, 64)).save(path, quality=70)
    give(page, "#photo", path)
    said = page.locator("#info", has_text="JPEG, quality about 70")
    said.wait_for()
    open_fold(page, "Noise, JPEG, blur of the photo")
    for label, words in (
        ("Measured", "JPEG, quality about 70; will be cleaned while it is enlarged"),
        ("Clean, as it is", "Looks like JPEG, quality about 70, but is taken as it is"),
    ):
        page.get_by_role("radio", name=label).click()
        page.locator("#info", has_text=words).wait_for()
    page.get_by_role("radio", name="As described").click()
    for label, choice in (("Noise", "strong"), ("JPEG quality", "50")):
        page.get_by_label(label, exact=True).click()
        page.get_by_role("option", name=choice).click()
    page.locator("#info", has_text="Taken as: noise of about 15 levels, JPEG, quality about 50; will be cl").wait_for()
    enlarge(page)
    assert "degradation='noise15+jpeg50'" in read_python(page)
    with page.expect_download() as download:
        page.locator("#downloads").get_by_text("Report", exact=True).first.click()
    report = json.loads(Path(download.value.path()).read_text())
    assert report["observation"]["degradation"] == "noise15+jpeg50"

"""With the keyboard alone."""

from pathlib import Path
from typing import Any

from PIL import Image

from tests.browser.conftest import corner, done, drawn, enlarge, give, use
from tests.conftest import EXAMPLES

FOCUS = """() => {
  const e = document.activeElement, label = e.closest('label') ?? e, style = getComputedStyle(e);
  const seen = [style, getComputedStyle(label)].some(s => s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 1);
  const within = e.querySelector('[aria-label]')?.ariaLabel;
  const name = [e.ariaLabel, e.labels?.[0]?.innerText, e.innerText, e.title, within].find(text => text?.trim()) ?? '';
  return {body: e === document.body, id: e.closest('[id]')?.id ?? '', tag: e.tagName, name: name.trim(), seen};
}"""


def test_everything_is_reached_and_seen_by_keys(page: Any, tmp_path: Path) -> None:
    """With the Tab key alone, in order, each with a frame that is seen and a name."""
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    use(page, EXAMPLES / "street_ref1.jpg")
    enlarge(page)
    page.locator("#start:enabled").wait_for()
    page.locator("#photo [data-do=choose]").focus()
    page.keyboard.press("Shift+Tab")
    reached: list[dict[str, Any]] = []
    for _ in range(150):  # what opens is opened on the way
        page.keyboard.press("Tab")
        focus = page.evaluate(FOCUS)
        if len(reached) > 10 and focus == reached[0]:
            break
        reached.append(focus)
        if page.evaluate("document.activeElement.ariaExpanded") == "false" and focus["tag"] == "BUTTON":
            page.keyboard.press("Enter")
    reached = [focus for focus in reached if not focus["body"]]
    assert not [focus for focus in reached if not (focus["seen"] and focus["name"])]
    names = [focus["name"] for focus in reached]
    wanted = ["Replace", "Remove the photo", "2 · References", "street_ref1.jpg", "Remove street_ref1.jpg", "Fast",
              "Enlarge", "Compare", "Plain enlargement", "Fit", "400 %", "result", "Divider", "PNG", "All (ZIP)",
              "Report", "Cathedral", "Choose which parts to use", "Draw over", "Brush", "Undo", "Wipe", "Drawing over",
              "Settings", "number input for Diffusion steps", "Seed", "Random seed", "Reset to the preset"]  # fmt: skip
    at = 0
    for name in wanted:
        found = [number for number, there in enumerate(names) if number >= at and there.startswith(name)]
        found = found or [number for number, there in enumerate(names) if number >= at and name in there]
        assert found, f"{name!r} is not reached, or not in order, in {names}"
        at = found[0]


def choose(page: Any, where: str, label: str, key: str, file: Path) -> None:
    """Ask by a key for the window in which files are chosen, and choose."""
    from playwright.sync_api import TimeoutError  # not at the top: where it is missing, these tests are skipped

    page.locator(where).get_by_role("button", name=label).focus()
    for _ in range(10):  # of either key, a headless Chromium now and then shows no window for a press
        try:
            with page.expect_file_chooser(timeout=5000) as chooser:
                page.keyboard.press(key)
        except TimeoutError:
            continue
        chooser.value.set_files(str(file))
        return
    raise AssertionError(f"{key} shows no window at {where}")


def test_a_visit_by_keys_alone(page: Any, tmp_path: Path) -> None:
    """But for the window in which files are chosen, which is not the page's."""
    keys = page.keyboard
    choose(page, "#photo", "1 · Your photo", "Enter", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    reference = tmp_path / "reference.png"
    Image.open(EXAMPLES / "street_ref1.jpg").crop((160, 120, 352, 280)).save(reference)
    choose(page, "#files", "2 · References", "Space", reference)
    card = page.locator("#candidates .def-card")
    card.wait_for()
    card.focus()
    before = card.get_attribute("aria-pressed")
    for _ in range(2 if before == "true" else 1):
        keys.press("Space")
        after = {"true": "false", "false": "true"}[before]
        page.locator(f"#candidates .def-card[aria-pressed='{after}']:focus").wait_for()  # the focus stays
        before = after
    page.get_by_role("button", name="Choose which parts to use").focus()
    keys.press("Enter")
    canvas = page.locator("#canvas canvas")
    canvas.focus()
    for key in ("Space", "Shift+ArrowLeft", "Shift+ArrowUp", "Space", "ArrowLeft"):
        keys.press(key)
    ink = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.filter(v => v).length"
    assert canvas.evaluate(ink) > 50
    drawn(page)
    page.get_by_role("radio", name="Fast").focus()
    keys.press("Space")
    page.locator("input[type=radio][value=fast]:checked").wait_for()
    page.locator("#start").focus()
    keys.press("Enter")
    page.locator("#start:disabled").wait_for()
    done(page)
    page.get_by_role("tab", name="Details", exact=True).focus()
    keys.press("Enter")
    page.locator("#python .cm-content", has_text="mask='inputs/mask.png'").wait_for()
    page.get_by_role("tab", name="Compare", exact=True).focus()
    keys.press("Enter")
    page.locator("#compare").get_by_role("button", name="200 %").focus()
    keys.press("Enter")
    assert page.locator("#compare img.def-after").bounding_box()["width"] == 2 * 128
    page.get_by_role("tab", name="References", exact=True).focus()
    keys.press("Enter")
    page.locator("#pick .def-pane").focus()
    keys.press("ArrowRight")
    page.locator("#words", has_text="Found in reference").wait_for()
    assert page.evaluate("document.activeElement.className") == "def-pane"  # the next key moves on
    page.locator("#downloads").get_by_text("PNG", exact=True).focus()
    with page.expect_download() as download:
        keys.press("Enter")
    assert Image.open(download.value.path()).size == (128, 96)

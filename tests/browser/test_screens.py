"""The page on screens of many sizes: what matters is in sight, and everything is reached."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.browser.conftest import (
    TABS,
    becomes,
    corner,
    enlarge,
    give,
    open_fold,
    open_tab,
    opened,
    settled,
    state,
    use,
)
from tests.conftest import EXAMPLES

LAPTOPS = [(1440, 900), (1280, 720), (1512, 860), (1920, 940)]

# The middle of each button that cannot be seen, although its part of the page was scrolled to: (text, left, top).
OUT_OF_SIGHT = """() => {
  const hidden = [];
  for (const button of document.querySelectorAll('button, a[download], input:not([type=file])')) {
    if (!button.checkVisibility({checkVisibilityCSS: true, checkOpacity: true}) || button.closest('footer')) continue;
    button.scrollIntoView({block: 'center'});
    const box = button.getBoundingClientRect(), x = (box.left + box.right) / 2, y = (box.top + box.bottom) / 2;
    const top = document.elementFromPoint(x, y);
    const there = top && (button.contains(top) || top.contains(button) || top.closest('label')?.contains(button));
    if (box.left < 0 || box.right > innerWidth + 1 || !there)
      hidden.push([button.innerText || button.ariaLabel || button.type, box.left, box.top]);
  }
  scrollTo(0, 0);
  return hidden;
}"""


def inside(page: Any, where: str) -> bool:
    """Whether all of an element is in the window, without scrolling."""
    box, size = page.locator(where).bounding_box(), page.viewport_size
    return 0 <= box["y"] and box["y"] + box["height"] <= size["height"] and box["x"] + box["width"] <= size["width"]


def serious(found: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """What of the findings of axe would keep people out: the rule, and where it is broken."""
    grave = [v for v in found if v["impact"] in ("serious", "critical")]
    return [(v["id"], [node["html"][:200] for node in v["nodes"]]) for v in grave]


@pytest.mark.parametrize(("width", "height"), LAPTOPS)
def test_everything_is_reached_on_a_laptop(browser: Any, url: str, tmp_path: Path, width: int, height: int) -> None:
    with opened(browser, url) as page:
        page.set_viewport_size({"width": width, "height": height})
        assert inside(page, "#start") and inside(page, "#photo") and inside(page, "#files")
        give(page, "#photo", corner(tmp_path))
        page.locator("#info", has_text="32×24 in").wait_for()
        enlarge(page)
        assert "reference" not in page.locator("#status").inner_text()  # none was given
        page.locator("#compare").get_by_role("button", name="400 %").click()  # the pane is as large as it can be
        for part in ("#start", "#compare .def-pane", "#downloads"):
            assert becomes(page, lambda part=part: inside(page, part)), part
        assert page.evaluate(OUT_OF_SIGHT) == []
        open_tab(page, "Details")
        page.locator("#python .cm-content").wait_for()
        assert page.evaluate(OUT_OF_SIGHT) == []


def test_the_main_action_stays_in_sight_on_a_phone(browser: Any, url: str, tmp_path: Path) -> None:
    with opened(browser, url, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True) as page:
        for end in ("scrollTo(0, 0)", "scrollTo(0, document.body.scrollHeight)"):
            page.evaluate(end)
            assert inside(page, "#start") and inside(page, "#cancel")
        give(page, "#photo", corner(tmp_path))
        page.locator("#info", has_text="32×24 in").wait_for()
        page.locator("#start").tap()
        state(page, "done").wait_for()
        assert becomes(page, lambda: inside(page, "#status")) and inside(page, "#start")  # it scrolls
        for fold in ("Choose which parts to use", "Noise, JPEG, blur of the photo", "Settings"):
            open_fold(page, fold)
        small = page.evaluate(
            """() => [...document.querySelectorAll('button, [role=tab], label:has(:is([type=radio], [type=checkbox]))'),
                ...document.querySelectorAll('[type=range], [type=number], [role=listbox]')]
              .filter(e => e.checkVisibility({checkVisibilityCSS: true}) && !e.closest('footer, .cm-editor'))
              .map(e => [e.innerText || e.ariaLabel || e.className, Math.round(e.getBoundingClientRect().height)])
              .filter(([name, height]) => height < 44)"""
        )
        assert small == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_keeps_people_with_impairments_out(browser: Any, url: str, tmp_path: Path, theme: str) -> None:
    axe_playwright = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-playwright-python")
    axe, reference = axe_playwright.Axe(), tmp_path / "reference.png"
    Image.open(EXAMPLES / "street_ref1.jpg").crop((160, 120, 352, 280)).save(reference)

    def violations() -> list[Any]:
        serious = [v for v in axe.run(page).response["violations"] if v["impact"] in ("serious", "critical")]
        return [(v["id"], [node["html"][:200] for node in v["nodes"]]) for v in serious]

    def check(where: str) -> None:
        assert not settled(page, violations), where  # a button that fades from grey has no contrast for a moment

    with opened(browser, f"{url}?__theme={theme}") as page:
        give(page, "#photo", corner(tmp_path))
        page.locator("#info", has_text="32×24 in").wait_for()
        use(page, reference)
        for fold in ("Choose which parts to use", "Noise, JPEG, blur of the photo", "Settings"):
            open_fold(page, fold)
        page.get_by_role("radio", name="As described").click()
        page.get_by_label("JPEG quality", exact=True).wait_for()
        enlarge(page)
        for tab in TABS:
            open_tab(page, tab)
            if tab == "References":
                page.locator("#found img").wait_for()
            check(tab)
        page.get_by_role("button", name="Crop the photo").click()
        page.locator("#def-crop-size", has_text="→").wait_for()
        check("the dialog in which a part is chosen")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Preview").click()
        page.locator(".def-preview figure[data-ready=true]").nth(2).wait_for()
        page.locator("#start:enabled").wait_for()
        check("preview")
        open_fold(page, "Several photos at once")
        give(page, "#photos", corner(tmp_path, "a.png"), corner(tmp_path, "b.png"))
        page.locator(".def-batch tbody tr").nth(1).wait_for()
        check("several photos")

"""Pictures of the page for the README: each tab on a laptop, the page on a phone and in the dark.

    python examples/screenshots.py [FOLDER]
    python examples/screenshots.py --card      # the picture that other sites show of the page

Needs Chromium and Playwright (`make browser`). The pictures are reduced to 256 colours to keep the files small. To
judge the quality of a result, look at the page itself.
"""

import io
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import sync_playwright

from def_hub import DEFPipeline
from def_hub.space.demo import build_demo, launch_options
from def_hub.space.head import PICTURE, TITLE

FOLDER = Path(__file__).parent / "screenshots"
TABS = ("Compare", "References", "Evidence", "Details")
SIZES = (("desktop", 1280, 800, "light"), ("dark", 1280, 800, "dark"), ("phone", 390, 844, "light"))


def main() -> None:
    if sys.argv[1:] == ["--card"]:
        draw_card()
        return
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = DEFPipeline.from_pretrained()
    pipeline.set_progress_bar_config(disable=True)
    demo = build_demo(pipeline, prepare=True).queue()
    _, url, _ = demo.launch(**launch_options(), prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    names = ("chromium", "chromium-browser", "google-chrome")
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=next(filter(None, map(shutil.which, names)), None), args=["--no-sandbox"]
        )
        for name, width, height, theme in SIZES:
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
            page.goto(f"{url}?__theme={theme}")
            page.locator("#compare img.def-before").wait_for(timeout=300_000)
            for tab in TABS if name == "desktop" else ("Compare", "Evidence") if name == "dark" else ("Compare",):
                show(page, tab)
                # only the right half differs between the tabs
                part = tab != "Compare" and name == "desktop"
                shot = page.locator("#results").screenshot() if part else page.screenshot()
                keep(shot, folder / f"{name}-{tab.lower()}.png")
            page.close()
        browser.close()
    demo.close()


def draw_card(width: int = 1200, height: int = 630) -> None:
    """The first example, plain at the left and with its references at the right, below the page's title."""
    examples = Path(__file__).parent
    small = Image.open(examples / "street_lr.png").convert("RGB")
    references = [examples / f"street_ref{n}.jpg" for n in (1, 2)]
    pipeline = DEFPipeline.from_pretrained()
    result = pipeline(small, references, generator=torch.Generator().manual_seed(0)).images[0]
    plain = small.resize(result.size, Image.Resampling.BICUBIC)
    side = width // 2
    card = Image.new("RGB", (width, height), "#0f766e")
    top = (result.height - (height - 110) * result.width // side) // 2
    for left, picture in ((0, plain), (side, result)):
        part = picture.crop((0, top, result.width, result.height - top))
        card.paste(part.resize((side - 2 * (left == 0), height - 110), Image.Resampling.LANCZOS), (left, 110))
    pen = ImageDraw.Draw(card)
    pen.text((width / 2, 55), TITLE, "white", ImageFont.load_default(46), anchor="mm")
    for left, words in ((0, "plain enlargement"), (side, "with a reference")):
        pen.text((left + 24, height - 20), words, "white", ImageFont.load_default(30), "lb", stroke_width=3,
                 stroke_fill="black")  # fmt: skip
    card.save(PICTURE, quality=82, optimize=True)
    print(PICTURE, f"{PICTURE.stat().st_size // 1000} kB")


def show(page: Any, tab: str) -> None:
    """Open a tab, choose a point in "Matches", and wait until everything is loaded."""
    page.get_by_role("tab", name=tab, exact=True).click()
    if tab == "References":
        page.locator("#pick .def-stack").click(position={"x": 90, "y": 200})
        page.locator("#found .def-mark").wait_for()
    page.wait_for_function("[...document.images].every(image => image.complete)")
    page.wait_for_timeout(500)  # what moves or fades has come to rest


def keep(shot: bytes, path: Path) -> None:
    """Save a screenshot as a small PNG."""
    picture = Image.open(io.BytesIO(shot)).convert("RGB")
    if picture.width > 1000:
        picture = picture.resize((960, round(picture.height * 960 / picture.width)), Image.Resampling.LANCZOS)
    palette = picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2)
    picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)
    print(path, f"{path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()

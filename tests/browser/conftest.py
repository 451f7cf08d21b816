"""The browser interface in a real Chromium: what the tests of this folder share."""

import itertools
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import app
from def_hub import DEFPipeline
from def_hub.service import examples
from tests.conftest import EXAMPLES, make_tiny_pipe

TABS = ("Compare", "References", "Evidence", "Details")


PATIENCE = 240_000  # milliseconds, for machines that are slow or crowded; nothing waits longer than it must


@pytest.fixture(scope="module", autouse=True)
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder of their own. Gradio names uploads after their content, and deletes those of a server when it closes:
    two processes of tests that give the same picture deleted each other's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        yield


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    options = ["--no-sandbox", "--use-fake-device-for-media-stream"]  # the camera
    with playwright.sync_playwright() as started:
        try:
            browser = started.chromium.launch(executable_path=found, args=options)
        except playwright.Error as error:
            pytest.skip(f"no Chromium that starts: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def tiny() -> DEFPipeline:
    return make_tiny_pipe()


@pytest.fixture(scope="module")
def cut_examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the page's examples, which are cut for these tests, see `cut`."""
    folder = tmp_path_factory.mktemp("examples")
    cut((example.name for example in examples.SHIPPED), folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples, "FOLDER", folder)
        yield folder


@pytest.fixture(scope="module")
def url(tiny: DEFPipeline, cut_examples: Path) -> Iterator[str]:
    with serving(app.build_demo(tiny).queue(max_size=8)) as url:
        yield url


def cut(names: Iterable[str], folder: Path) -> None:
    """Save parts of examples under their names: a whole one takes a busy machine minutes. The photos have 40×32 pixels,
    their results and originals 160×128, the references 192×160."""
    for path in (path for name in names for path in EXAMPLES.glob(f"{name}_*.*")):
        kind = path.stem.partition("_")[2]
        left, top, width, height = {"lr": (40, 30, 40, 32), "hr": (160, 120, 160, 128)}.get(kind, (160, 120, 192, 160))
        options = {"lossless": True} if path.suffix == ".webp" else {}
        whole = Image.open(path).convert("RGB")
        left, top = min(left, whole.width - width), min(top, whole.height - height)  # one is small
        whole.crop((left, top, left + width, top + height)).save(folder / path.name, **options)


@contextmanager
def serving(demo: Any) -> Iterator[str]:
    _, url, _ = demo.launch(**app.launch_options(), prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    try:
        yield url
    finally:
        demo.close()


class Gate:
    """A hook that keeps who comes to it until it is opened. Use it with `with`: it never stays shut after that."""

    def __init__(self, module: Any) -> None:
        self.reached, self._open = threading.Event(), threading.Event()
        self._hook = module.register_forward_pre_hook(self._wait)

    def _wait(self, *_: Any) -> None:
        self.reached.set()
        self._open.wait(600)

    def open(self) -> None:
        self._open.set()

    def __enter__(self) -> "Gate":
        return self

    def __exit__(self, *_: Any) -> None:
        self._hook.remove()
        self._open.set()


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Any]:
    with opened(browser, url) as page:
        yield page


@contextmanager
def opened(browser: Any, url: str, expected: str = "", **options: Any) -> Iterator[Any]:
    """A fresh page; whatever goes wrong in it (but for `expected`), or leaves this machine, fails the test."""
    page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, "accept_downloads": True} | options)
    page.set_default_timeout(PATIENCE)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url) if foreign(request.url) else None)
    page.goto(url)
    page.locator("#start").wait_for()
    yield page
    page.close()
    assert not [words for words in wrong if not (expected and expected in words)]


def foreign(url: str) -> bool:
    return not url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:"))


def corner(folder: Path, name: str = "photo.png", **options: Any) -> Path:
    path = folder / name
    Image.open(EXAMPLES / "street_lr.png").convert("RGB").crop((40, 30, 72, 54)).save(path, **options)
    return path


def give(page: Any, where: str, *paths: Path) -> None:
    page.locator(f"{where} input[type=file]").first.set_input_files([str(path) for path in paths])


def use(page: Any, reference: Path) -> None:
    """Give one reference, and choose it where its score does not."""
    give(page, "#files", reference)
    card = page.locator("#candidates .def-card")
    card.wait_for()
    if card.get_attribute("aria-pressed") == "false":
        card.click()
        page.locator("#candidates .def-card[aria-pressed='true']").wait_for()


def enlarge(page: Any) -> None:
    """Press the button and wait until all is drawn, and seen."""
    page.locator("#start").click()
    page.locator("#start:disabled").wait_for()
    done(page)


def done(page: Any) -> None:
    """Wait until a run has ended and all of it is drawn, and seen."""
    state(page, "done").wait_for()
    page.locator("#start:enabled").wait_for()
    page.locator(".def-card[aria-disabled='true']").first.wait_for(state="detached")  # earlier results, examples
    result_size(page)


def state(page: Any, name: str) -> Any:
    """The status, when it is in this state."""
    return page.locator(f"#status .def-status[data-state='{name}']")


def open_tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def open_fold(page: Any, title: str) -> None:
    """Open a part of the page that is closed."""
    button = page.get_by_role("button", name=title)
    if button.get_attribute("aria-expanded") == "false":
        button.click()


def read_python(page: Any) -> str:
    open_tab(page, "Details")
    page.locator("#python .cm-content").wait_for()
    return page.locator("#python").inner_text()


def drawn(page: Any) -> None:
    """Wait until a drawing has reached the server."""
    page.locator("#info", has_text="only parts of the pictures").wait_for()


def result_size(page: Any) -> list[int]:
    """Width and height of the result in the comparison, in pixels of its own, when it has come from the server."""
    came = "[...document.querySelectorAll('#compare img')].every(image => image.complete && image.naturalWidth)"
    page.wait_for_function(came)
    return page.locator("#compare img.def-after").evaluate("image => [image.naturalWidth, image.naturalHeight]")


def settled(page: Any, read: Callable[[], Any], moment: int = 500) -> Any:
    """What `read` gives when it has given the same for a moment (milliseconds): while something moves it differs."""
    before = None
    for _ in range(PATIENCE // moment):
        page.wait_for_timeout(moment)  # a poll: the condition is that nothing moves any more
        now = read()
        if now == before:
            break
        before = now
    return now


def becomes(page: Any, true: Callable[[], bool]) -> bool:
    """Whether it becomes true, however slow the machine is."""
    for _ in range(PATIENCE // 200):
        if true():
            return True
        page.wait_for_timeout(200)
    return true()


def is_sharp(page: Any, where: str) -> bool:
    """Whether one pixel of the picture is one pixel of the screen."""
    return page.locator(f"{where} img.def-after").evaluate(
        "image => image.getBoundingClientRect().width * devicePixelRatio === image.naturalWidth"
    )


def set_steps(page: Any, number: int) -> None:
    """Type into the settings; what was typed is what stands there when the box is left."""
    from playwright.sync_api import expect  # not at the top: where it is missing, these tests are skipped

    box = page.get_by_label("number input for Diffusion steps")
    open_fold(page, "Settings")
    box.fill(str(number))
    box.press("Tab")
    expect(box).to_have_value(str(number), timeout=PATIENCE)


@pytest.fixture
def held(page: Any, tiny: DEFPipeline, tmp_path: Path) -> Iterator[Any]:
    """After a first result, a run of 50 steps that waits in its second: a model so small would be done before anyone
    sees it at work. (the picture of the first result, the event that lets it go on)."""
    give(page, "#photo", corner(tmp_path))
    page.locator("#info", has_text="32×24 in").wait_for()
    calls: list[int] = []
    counter = tiny.unet.register_forward_hook(lambda *_: calls.append(1))
    try:
        enlarge(page)  # one step
    finally:
        counter.remove()
    first = page.locator("#compare img.def-after").get_attribute("src")
    reached, opened, number = threading.Event(), threading.Event(), itertools.count(1)

    def wait(*_: Any) -> None:
        if next(number) > len(calls) and not opened.is_set():  # the first step is done, its estimate is to be seen
            reached.set()
            opened.wait(PATIENCE / 1000)

    hook = tiny.unet.register_forward_pre_hook(wait)
    try:  # whatever goes wrong from here on, no later test shall wait at the hook
        set_steps(page, 50)
        page.locator("#start").click()
        assert reached.wait(PATIENCE / 1000), f"no second step; the page says {page.locator('#status').inner_text()!r}"
        page.locator("#compare", has_text="estimate after step 1 of 50").wait_for()  # live
        assert page.locator("#status [aria-current=step]").inner_text() == "Enhancing"
        yield first, opened
    finally:
        hook.remove()
        opened.set()

"""Pictures as Gradio components: given, compared, zoomed to exact pixels, pointed at, drawn over. All work by keyboard.

Gradio's own image components resample what they show and have no alternative text, and its slider cannot be moved by
keys. Each component here is an HTML template and a script of `assets`. Every string that comes from Python passes
through `escape`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

ASSETS = Path(__file__).parent / "assets"

Colour = tuple[int, int, int]
Mark = tuple[float, float, float]  # x, y and side as shares of the picture's width, height and width


@cache
def asset(name: str) -> str:
    """The text of a file in `assets`."""
    return (ASSETS / name).read_text(encoding="utf-8")


def _component(name: str, constants: dict[str, str], options: dict[str, Any]) -> gr.HTML:
    """`name`.html with the script `name`.js, where there is one, and @CONSTANTS@ filled in.

    Gradio has properties for such constants, but loses them in tabs that were never opened.
    """
    template = asset(f"{name}.html")
    script = asset(f"{name}.js") if (ASSETS / f"{name}.js").exists() else None
    for constant, word in constants.items():
        template = template.replace(f"@{constant}@", escape(word))
        script = script and script.replace(f"@{constant}@", escape(word))
    return gr.HTML(html_template=template, js_on_load=script, padding=False, **options)


def drop(title: str, hint: str, *, multiple: bool = False, camera: bool = False, **options: Any) -> gr.HTML:
    """An area for pictures. Files trigger `upload` with their paths, see `given_paths`; removing triggers `clear`.

    Its value: None, or a `picture` that is shown in it.
    """
    constants = {
        "TITLE": title,
        "HINT": hint,
        "MULTIPLE": "multiple" if multiple else "",
        "CAMERA": "camera" if camera else "",
    }
    return _component("drop", constants, options)


def viewer(empty: str, *, pointed: bool = False, **options: Any) -> gr.HTML:
    """One picture, two with a divider, or one under a veil. Its value: a `view`; `empty` is said without one.

    With `pointed`, a click or an arrow key triggers `select` with the place as shares x and y.
    """
    return _component("viewer", {"EMPTY": empty, "KIND": "pointed" if pointed else "plain"}, options)


def drawing(empty: str, ink: str, **options: Any) -> gr.HTML:
    """A picture to draw over. Each stroke triggers `input` with the drawing as a data URL; None when wiped."""
    return _component("drawing", {"EMPTY": empty, "INK": ink}, options)


def cropper(**options: Any) -> gr.HTML:
    """A dialog with a frame over a large photo. Its value: see `def_hub.space.large`; it is open while it has one."""
    return _component("cropper", {}, options)


def cards(title: str, ask: str = "", **options: Any) -> gr.HTML:
    """Pictures to choose from. Its value: a list of `card`. A click triggers `select`, or `delete`, with the index.

    `gr.update(off="why")` lets none be chosen until it is "" again; the focus stays where it is. ask: a question for
    visitors who gave pictures of their own.
    """
    return _component("cards", {"TITLE": title, "ASK": ask}, {"off": ""} | options)


def panel(name: str, **options: Any) -> gr.HTML:
    """A part of the page that is there while it has a value: `name`.html of the assets with its script."""
    return _component(name, {}, options)


def status(**options: Any) -> gr.HTML:
    """Messages and progress. Its value: see `def_hub.space.messages`."""
    return _component("status", {}, options)


@contextmanager
def fold(title: str, **options: Any) -> Iterator[None]:
    """A part of the page that opens and closes; closed at first.

    Gradio's Accordion builds its content when it is first opened, and one frame later resets all of it: on a slow
    machine, what a visitor had typed meanwhile was lost.
    """
    with gr.Column(elem_classes="def-fold", **options):
        _component("fold", {"TITLE": title}, {})
        with gr.Column(elem_classes="def-folded"):
            yield


# -------------------------------------------------------------------------------------------------- values


def picture(path: Path, alt: str, name: str = "") -> dict[str, Any]:
    """The value of a `drop` that shows a picture. name: that of the visitor's file."""
    return {"picture": file(path), "alt": escape(alt), "name": escape(name)}


def card(
    path: Path,
    lines: Sequence[str],
    *,
    alt: str = "",
    pressed: bool | None = None,
    colour: Colour = (0, 0, 0),
    remove: str = "",
) -> dict[str, Any]:
    """One picture with lines of text below it.

    alt: of the picture, where the lines say more than it should. pressed: whether it is chosen; None where cards are
    not chosen. remove: name of the button that takes it away.
    """
    return {
        "picture": file(path),
        "lines": [escape(line) for line in lines],
        "alt": escape(alt or ", ".join(lines)),
        "pressed": pressed,
        "colour": f"rgb{colour}",
        "remove": escape(remove),
    }


def view(
    path: Path | None,
    alt: str,
    *,
    caption: bool = True,
    before: tuple[Path, str] | None = None,
    veil: Path | None = None,
    mark: Mark | None = None,
    look_at: tuple[float, float] | None = None,
    drawing: bytes | None = None,
) -> dict[str, Any] | None:
    """The value of a `viewer` or a `drawing`.

    caption: whether `alt` is also shown. before: the picture at the left of the divider, and what it is. veil: a
    picture that is laid over this one. look_at: the place, as shares, at which it opens zoomed. drawing: PNG of what
    was drawn over the picture before.
    """
    if path is None:
        return None
    return {
        "pictures": [file(p) for p in ([before[0], path] if before else [path])],
        "veil": [file(veil)] if veil else [],
        "alt": escape(alt),
        "before": escape(before[1]) if before else "",
        "names": escape(f"{before[1]} ◂▸ {alt}" if before else alt if caption else ""),
        "mark": mark,
        "look_at": look_at,
        "drawing": drawing and b64encode(drawing).decode(),
    }


def legend(title: str, entries: Sequence[tuple[str, Colour]]) -> str:
    """Names beside their colours below a title, as HTML; empty without names."""
    items = "".join(f"<li><i style='background: rgb{colour}'></i>{escape(name)}</li>" for name, colour in entries)
    return f"<p class='def-legend-title'>{escape(title)}</p><ul class='def-legend'>{items}</ul>" if entries else ""


def file(path: Path) -> dict[str, Any]:
    """Gradio copies this file to where the browser may fetch it, and adds its URL."""
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}

"""The presets side by side on a part of the photo, before the whole is computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from html import escape
from typing import Any

import gradio as gr

from def_hub.service.call import RunOptions
from def_hub.service.preview import Part, Preview, each_preset
from def_hub.service.runner import Runner
from def_hub.service.session import Session
from def_hub.settings import PRESETS
from def_hub.space import components, messages, options
from def_hub.space.changes import Changes

MIDDLE = (0.5, 0.5)
HONEST = "Same settings, references and seed as the whole; matches at the edges of the part may differ a little."
TWICE = "Beyond ×4 each reference is fitted to the part alone, so the whole may differ."


class PreviewPanel:
    """component: takes the place of the result while it has a value, see `preview_value`.

    A click, or an arrow key, on its photo triggers `select` with a place; its buttons trigger `input` with a preset,
    and `clear`.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.component = components.panel("preview", elem_id="preview", render=False)

    def show(self, session: Session) -> dict[str, Any] | None:
        return None if session.previewed is None else preview_value(session, session.previewed)

    def aim(self, session: Session, event: gr.EventData) -> Session:
        """Another part of the photo is wanted; what is computed for the last one stops."""
        data = event._data or {}
        session.aim = (float(data["x"]), float(data["y"]))
        return session

    def look(self, pressed: float, session: Session, *values: Any) -> Iterator[Changes]:
        """Compute the part at which the visitor aims. Raises as `Runner.preview`."""
        if session.photo is None:
            raise ValueError("Give a photo first.")
        chosen, aimed = options.chosen(*values), session.aim
        part = Part.around(*(aimed or MIDDLE), session.photo.size, chosen.settings.scale)
        with closing(self.runner.preview(session, part, chosen)) as steps:  # type: ignore[type-var]
            for preview in steps:
                if session.is_cancelled(pressed) or session.aim is not aimed:
                    break
                yield {self.component: preview_value(session, preview)}

    def use(self, session: Session, preset: str) -> RunOptions:
        """The options with which a preset was previewed. Raises `ValueError` for no preset of the preview."""
        shown = session.previewed
        found = [] if shown is None else [one for one in each_preset(shown.options) if one.preset == preset]
        if shown is None or not found:
            raise ValueError(f"There is no preview with the preset {preset}.")
        shown.options = found[0]
        return found[0]


def preview_value(session: Session, preview: Preview) -> dict[str, Any]:
    """What the template shows: the photo with its part, and a picture, or a place for one, for each preset."""
    photo, scale = session.shown(), preview.options.settings.scale
    left, top, width, height = preview.part.shares
    panes = []
    for preset in PRESETS:
        path, seconds = preview.pictures.get(preset), preview.seconds.get(preset)
        panes.append(
            {
                "preset": preset,
                "name": escape(preset.capitalize()),
                "picture": path and components.file(path),
                "words": "" if seconds is None else messages.duration(seconds),
                "chosen": preset == preview.options.preset,
            }
        )
    return {
        "photo": photo and components.file(photo),
        "frame": {"left": 100 * left, "top": 100 * top, "width": 100 * width, "height": 100 * height},
        "at": [left + width / 2, top + height / 2],
        "panes": panes,
        "scale": scale,
        "words": HONEST if scale <= 4 else f"{HONEST} {TWICE}",
    }

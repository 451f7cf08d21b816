"""Drawing which parts of the pictures are used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from def_hub.service.session import Session
from def_hub.space import components

INK = "#e6007e"
PHOTO = ("the photo: leave this part alone", -1)  # the choice of what is drawn over, where it is no reference


@dataclass(frozen=True)
class Masks:
    """target: the number of the picture that is drawn over, -1 for the photo."""

    target: gr.Dropdown
    canvas: gr.HTML
    wipe: gr.Button

    def show(self, session: Session, target: int = PHOTO[1]) -> dict[Any, Any]:
        """The canvas for a session. target: what is drawn over, if it is still there."""
        references = [(f"reference {n}: use only this part", i) for n, i in enumerate(session.chosen, start=1)]
        target = target if target in session.chosen else PHOTO[1]
        return {
            self.target: gr.Dropdown(choices=[PHOTO, *references], value=target),
            self.canvas: to_draw_on(session, target),
        }


def lay_out() -> Masks:
    with components.fold("Choose which parts to use (optional)"):
        target = gr.Dropdown([PHOTO], value=PHOTO[1], label="Draw over", interactive=True)
        canvas = components.drawing("Give a photo first.", INK, elem_id="canvas")
        wipe = gr.Button("Wipe all drawings", size="sm")
    return Masks(target, canvas, wipe)


def to_draw_on(session: Session, index: int) -> dict[str, Any] | None:
    """The photo (-1) or a reference with what was drawn over it before."""
    if session.photo is None:
        return None
    photo = index not in session.chosen  # the photo, or a reference that was left out meanwhile
    name = "the photo" if photo else f"reference {session.chosen.index(index) + 1}"
    key = None if photo else index
    return components.view(session.preview(key), name, drawing=session.drawings.get(key))

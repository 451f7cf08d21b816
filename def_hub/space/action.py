"""The main action: Enlarge, Cancel, and what is going on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from def_hub.space import components


@dataclass(frozen=True)
class Action:
    """status: stands above the result, which it is about."""

    start: gr.Button
    preview: gr.Button
    cancel: gr.Button
    status: gr.HTML

    @property
    def busy(self) -> dict[Any, Any]:
        """The buttons while something is computed."""
        off = gr.update(interactive=False)
        return {self.start: off, self.preview: off, self.cancel: gr.update(interactive=True)}

    @property
    def free(self) -> dict[Any, Any]:
        on = gr.update(interactive=True)
        return {self.start: on, self.preview: on, self.cancel: gr.update(interactive=False)}


def lay_out() -> Action:
    """The buttons; on a phone they are a bar at the bottom of the screen. The status is laid out by `render`."""
    with gr.Row(elem_id="action"):
        start = gr.Button("Enlarge", variant="primary", scale=3, min_width=130, elem_id="start")
        preview = gr.Button("Preview", scale=1, min_width=90, elem_id="look")
        cancel = gr.Button("Cancel", variant="stop", interactive=False, scale=1, min_width=90, elem_id="cancel")
    return Action(start, preview, cancel, components.status(elem_id="status", render=False))

"""The main action: Enlarge, Cancel, and what is going on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from def_hub.space import components


@dataclass(frozen=True)
class Action:
    """status: what is going on, or what the shown result is; it stands above the result.

    Only the browser knows at every moment whether a run of its visitor waits: the server learns of it later, and what
    it sends meanwhile comes later still. So only runs write the status. What else has news for it sets `standing` (what
    the shown result is, and of what) or `place` (in the queue), which are not seen, and the browser puts them into the
    status where they belong: see `page.js`.
    """

    start: gr.Button
    preview: gr.Button
    cancel: gr.Button
    status: gr.HTML
    standing: gr.HTML
    place: gr.HTML

    @property
    def busy(self) -> dict[Any, Any]:
        """The buttons while something is computed."""
        off = gr.update(interactive=False)
        return {self.start: off, self.preview: off, self.cancel: gr.update(interactive=True)}

    @property
    def free(self) -> dict[Any, Any]:
        on = gr.update(interactive=True)
        return {self.start: on, self.preview: on, self.cancel: gr.update(interactive=False)}

    def wire(self, light: dict[str, Any]) -> None:
        """light: how handlers that answer at once are registered."""
        for news, merged in ((self.standing, "stands"), (self.place, "placed")):
            js = f"(news, status) => defPage.{merged}(news, status)"
            news.change(None, [news, self.status], self.status, js=js, **light)


def lay_out() -> Action:
    """The buttons; on a phone they are a bar at the bottom of the screen. The status is laid out by `render`."""
    with gr.Row(elem_id="action"):
        start = gr.Button("Enlarge", variant="primary", scale=3, min_width=130, elem_id="start")
        preview = gr.Button("Preview", scale=1, min_width=90, elem_id="look")
        cancel = gr.Button("Cancel", variant="stop", interactive=False, scale=1, min_width=90, elem_id="cancel")
    standing, place = components.status(visible="hidden"), components.status(visible="hidden")
    return Action(start, preview, cancel, components.status(elem_id="status", render=False), standing, place)

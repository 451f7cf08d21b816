"""The buttons below a result that save it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from def_hub.service.session import Session

LABELS = {
    "png": "PNG",
    "jpg": "JPEG",
    "webp": "WebP",
    "png16": "16-bit PNG",
    "share": "Before/after",
    "zip": "All (ZIP)",
    "report": "Report",
}
"""What each file of a `Result` is called on its button."""


class Downloads:
    def __init__(self) -> None:
        with gr.Row(elem_id="downloads"):
            gr.HTML("<h3>Download</h3>", padding=False, min_width=100, scale=0)
            self.buttons = {
                name: gr.DownloadButton(label, interactive=False, size="sm", min_width=70)
                for name, label in LABELS.items()
            }

    @property
    def outputs(self) -> list[Any]:
        return list(self.buttons.values())

    def show(self, session: Session) -> dict[Any, Any]:
        """The files of the result. None of a result that is no longer that of the inputs: it would pass for the new."""
        result = None if session.stale else session.result
        files = {} if result is None else result.files
        return {
            button: gr.DownloadButton(value=str(files[name]) if name in files else None, interactive=name in files)
            for name, button in self.buttons.items()
        }

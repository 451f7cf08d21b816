"""References from the library of this server: a button, and what it does."""

from __future__ import annotations

from typing import Any

import gradio as gr

from def_hub.service.offers import offer
from def_hub.service.runner import Runner
from def_hub.service.session import Session
from def_hub.service.uploads import MAX_CANDIDATES
from def_hub.space import messages


def lay_out(runner: Runner) -> gr.Button:
    """The button, which only a server with a library shows."""
    count = runner.about.photos
    return gr.Button(f"Find references among {count:,} photos", visible=count > 0, size="sm", elem_id="library")


def take(runner: Runner, session: Session) -> list[str]:
    """Take what the library has for the photo as candidates; returns what there is to say about it."""
    if session.photo is None:
        return ["Upload a small photograph first."]
    uploads, said = offer(runner.choose(session.photo.path), session.root)
    if session.add_uploads(uploads):
        said.append(f"At most {MAX_CANDIDATES} references are taken; remove some first.")
    return said


def searching() -> dict[str, Any]:
    return messages.status("running", messages.note("Searching the library …"))

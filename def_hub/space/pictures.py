"""What a visitor gives: the photo, and the references with how well each of them matches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from def_hub.service.runner import complaint
from def_hub.service.session import Candidate, Session
from def_hub.service.uploads import MAX_CANDIDATES, Upload, check_reference
from def_hub.space import components, messages
from def_hub.visualization import reference_colour

QUIET = (150, 150, 150)  # the frame of a card that is not chosen
VERDICTS = {"likely": "likely to help", "possible": "may help", "unlikely": "unlikely to help"}


@dataclass(frozen=True)
class Pictures:
    """The photo, the references, the cards of the references, and what is said about them.

    refused: files that were not taken, and why; said until it is read. info: what a run would take and give.
    """

    photo: gr.HTML
    references: gr.HTML
    refused: gr.HTML
    cards: gr.HTML
    info: gr.HTML

    def show(self, session: Session) -> dict[Any, Any]:
        """The photo and the cards of a session."""
        photo, shown = session.photo, session.shown()
        name = photo.name if photo else ""
        return {
            self.photo: shown and components.picture(shown, f"your photo {name}", name),
            self.cards: [reference_card(session, candidate) for candidate in session.candidates()],
        }


def lay_out(light: dict[str, Any]) -> Pictures:
    """light: how handlers that answer at once are registered. The info is laid out by `render`, below the button."""
    with gr.Row(elem_id="pictures", equal_height=True):
        photo = components.drop(
            "1 · Your photo", "small; drop, paste (a link, too) or click", camera=True, elem_id="photo", min_width=150
        )
        references = components.drop(
            "2 · References", "sharp pictures of the same thing", multiple=True, elem_id="files", min_width=150
        )
    refused = components.status(elem_id="refused")
    refused.clear(None, None, refused, js="() => null", **light)
    cards = components.cards("Click a reference to use it or to leave it out", elem_id="candidates")
    info = components.status(value=messages.limits(), elem_id="info", render=False)
    return Pictures(photo, references, refused, cards, info)


def given_paths(event: gr.EventData) -> list[str]:
    """The files that a visitor gave. Raises `ValueError` for a path that is no upload: it comes from the browser."""
    folder = Path(get_upload_folder()).resolve()
    paths = [str(file.get("path")) for file in event._data.get("files", [])]
    for path in paths:
        if not Path(path).resolve().is_relative_to(folder):
            raise ValueError("Only uploaded files are taken.")
    return paths


def checked_references(paths: Sequence[str], session: Session) -> tuple[list[Upload], list[str]]:
    """The files that can be references, and what is wrong with the others: one bad file costs no good one."""
    uploads, wrong = [], []
    for path in paths:
        try:
            upload = check_reference(path)
            session.thumbnail(upload)  # a file that cannot be decoded is found here
            uploads.append(upload)
        except Exception as error:
            wrong.append(complaint(error))
    return uploads, wrong


def add_references(paths: Sequence[str], session: Session) -> list[str]:
    """Take the files as candidates; returns what is wrong with those that were not taken."""
    uploads, wrong = checked_references(paths, session)
    left_out = session.add_uploads(uploads)
    if left_out:
        wrong.append(f"At most {MAX_CANDIDATES} references are taken; {left_out} had no room.")
    return wrong


def reference_card(session: Session, candidate: Candidate) -> dict[str, Any]:
    """Name, match and use of a candidate. A chosen one has a frame in its colour of the drawings."""
    name, number = candidate.upload.path.name, candidate.number
    lines = [name]
    if candidate.ranked is not None:
        lines.append(f"{100 * candidate.ranked.score:.0f} %, {VERDICTS[candidate.ranked.verdict]}")
    lines.append("not used" if number is None else f"✓ reference {number}")
    if candidate.masked:
        lines.append("only the part drawn")
    return components.card(
        session.thumbnail(candidate.upload),
        lines,
        alt=name,
        pressed=number is not None,
        colour=QUIET if number is None else reference_colour(number - 1),
        remove=f"Remove {name}",
    )

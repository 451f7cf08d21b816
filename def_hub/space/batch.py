"""Several photos with the same references: where they are given, and the table of what came out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from html import escape
from typing import Any

import gradio as gr

from def_hub.service.batch import MAX_PHOTOS, Batch, Item
from def_hub.service.runner import Progress, Runner, complaint
from def_hub.service.session import Session
from def_hub.space import components, messages, options
from def_hub.space.changes import Changes
from def_hub.space.pictures import given_paths

STATES = {"waiting": "waiting", "running": "at work", "done": "done", "failed": "failed", "cancelled": "cancelled"}


class BatchPanel:
    """table: takes the place of the result while it has a value, see `batch_value`; its button triggers `clear`.

    photos: where several are given. start: enlarges them all. They are laid out by `lay_out`.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.table = components.panel("batch", elem_id="batch", render=False)
        hint = f"up to {MAX_PHOTOS}; all with the references above"
        self.photos = components.drop("Your photos", hint, multiple=True, elem_id="photos", render=False)
        self.start = gr.Button("Enlarge all", variant="primary", size="sm", elem_id="start-all", render=False)

    def lay_out(self) -> None:
        with components.fold("Several photos at once"):
            self.photos.render()
            self.start.render()

    def take(self, session: Session, event: gr.EventData) -> Changes:
        """Photos were given; they take the place of those before."""
        try:
            session.batch = Batch.of(given_paths(event))
        except Exception as error:
            words = escape(complaint(error))
            return {self.table: {"rows": [], "words": words, "archive": None, "name": "", "busy": False}}
        return {self.table: batch_value(session.batch)}

    def enlarge(self, pressed: float, session: Session, status: gr.HTML, *values: Any) -> Iterator[Changes]:
        """Enlarge all. Raises `ValueError` where that cannot begin; what fails later is said in the table."""
        batch = session.batch
        if batch is None:
            raise ValueError("Give some photos first.")
        shown = None
        with closing(batch.run(self.runner, session, options.chosen(*values))) as steps:  # type: ignore[type-var]
            for progress in steps:
                if session.is_cancelled(pressed):
                    break
                states = [item.state for item in batch.items]
                table = {self.table: batch_value(batch, busy=True)} if states != shown else {}
                shown = states
                yield table | {status: _progress(batch, progress)}
        yield {self.table: batch_value(batch)}


def batch_value(batch: Batch, busy: bool = False) -> dict[str, Any]:
    """What the template shows: a row for each photo, and the ZIP once nothing is computed."""
    archive = None if busy else batch.archive
    return {
        "rows": [_row(item) for item in batch.items],
        "words": "" if busy or archive is not None else "Choose preset and scale, then press Enlarge all.",
        "archive": archive and components.file(archive),
        "name": archive.name if archive else "",
        "busy": busy,
    }


def _row(item: Item) -> dict[str, Any]:
    share = "–" if item.share is None else f"{100 * item.share:.0f} %"
    return {
        "state": item.state,
        "cells": [
            escape(item.name),
            item.size or "–",
            share,
            "–" if item.error is None else f"± {item.error:.1f}",
            "–" if item.seconds is None else f"{item.seconds:.1f}",
            STATES[item.state],
        ],
        "words": escape(item.words),
    }


def _progress(batch: Batch, progress: Progress) -> dict[str, Any]:
    taken = [item for item in batch.items if item.upload is not None]
    number = 1 + next((i for i, item in enumerate(taken) if item.state == "running"), len(taken) - 1)
    left = "" if progress.reading is None else f": {messages.time_left(progress.reading)}"
    return messages.progress(progress.reading, f"Photo {number} of {len(taken)}{left}")

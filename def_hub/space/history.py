"""The results of this visit as cards; a click opens one again with its settings."""

from __future__ import annotations

from typing import Any

import gradio as gr

from def_hub.service.history import Entry
from def_hub.service.session import Session
from def_hub.space import components, messages


def lay_out() -> gr.HTML:
    return components.cards("Results of this visit", elem_id="history", render=False)


def shown(session: Session) -> list[dict[str, Any]]:
    """A card for each result; the one that is shown is marked."""
    return [_card(entry, entry.session.result is session.result) for entry in session.history.entries]


def _card(entry: Entry, pressed: bool) -> dict[str, Any]:
    result = entry.session.result
    assert result is not None
    name, options = result.names.get("input") or "photo", result.call.options
    used = f"{options.preset.capitalize()}, {messages.count(len(result.call.references))}"
    return components.card(
        entry.picture, [f"{name} ×{options.settings.scale}", used], alt=f"result of {name}", pressed=pressed
    )

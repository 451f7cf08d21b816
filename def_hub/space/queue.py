"""A visitor's place in Gradio's queue."""

from __future__ import annotations

from typing import Any

from def_hub.space import messages

PIPELINE = "pipeline"
"""The queue of everything that computes with the pipeline."""


def runs_ahead(queue: Any, session_hash: str | None) -> int | None:
    """How many runs come before the visitor's, with the one at work; None where the visitor waits for none."""
    waiting = queue.event_queue_per_concurrency_id.get(PIPELINE)
    hashes = [event.session_hash for event in waiting.queue] if waiting is not None else []
    if session_hash not in hashes:
        return None
    last = len(hashes) - 1 - hashes[::-1].index(session_hash)  # earlier ones were cancelled
    return last + waiting.current_concurrency


def is_full(queue: Any) -> bool:
    return queue.max_size is not None and len(queue) >= queue.max_size


def place(ahead: int | None, seconds: float | None) -> dict[str, Any] | None:
    """What a visitor who waits reads. seconds: how long a run has taken of late."""
    if ahead is None:
        return None
    runs = {0: "You are next", 1: "One run is before yours"}.get(ahead, f"{ahead} runs are before yours")
    time = f", about {messages.duration(ahead * seconds)}" if ahead and seconds else ""
    return messages.status("waiting", messages.note(f"{runs}{time}."))

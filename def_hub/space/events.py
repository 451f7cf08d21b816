"""How the page's handlers are registered, and what they yield."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import wraps
from typing import Any

from def_hub.space import queue

Changes = dict[Any, Any]
"""Component → its new value."""

# None is part of the API; those that answer at once do not queue.
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
LIGHT = PRIVATE | {"queue": False, "show_progress": "hidden"}
RANKING = PRIVATE | {"show_progress": "hidden", "concurrency_id": "ranking", "concurrency_limit": 1}
# A second run may be sent while a first one, cancelled, still waits in the queue: `multiple`.
QUEUED = PRIVATE | {
    "show_progress": "hidden",
    "concurrency_id": queue.PIPELINE,
    "concurrency_limit": 1,
    "trigger_mode": "multiple",
    "js": "(...values) => defPage.stamped(...values)",
}


def repeating(changes: Callable[..., Iterator[Changes]]) -> Callable[..., Iterator[Changes]]:
    """Let each change of the page repeat those before it.

    Gradio sends differences of what a generator yields, and takes "unchanged" after a value for a new value.
    """

    @wraps(changes)
    def repeated(*arguments: Any, **more: Any) -> Iterator[Changes]:
        page: Changes = {}
        with closing(changes(*arguments, **more)) as iterator:  # type: ignore[type-var]
            for change in iterator:
                page |= change
                yield dict(page)

    return repeated

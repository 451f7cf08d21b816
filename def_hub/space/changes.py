"""What handlers return: changes of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import wraps
from typing import Any

Changes = dict[Any, Any]  # component → its new value


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

"""The server fetches nothing: a link in place of an upload is refused, at every component and in every call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

LINKS = ("http:", "https:")


def fetch_nothing(demo: gr.Blocks) -> None:
    """Let no component of the Blocks download a link, which Gradio's do wherever a file is expected.

    Pages, HTTP clients and MCP clients all come through `async_move_resource_to_block_cache` (Gradio 6.31).
    """
    for block in demo.blocks.values():
        move = getattr(block, "async_move_resource_to_block_cache", None)
        if move is not None:
            block.async_move_resource_to_block_cache = partial(_uploaded, move)


def check_no_link(given: object) -> None:
    """Raise `gradio.Error` for a link."""
    if str(given).lstrip().lower().startswith(LINKS):
        raise gr.Error("Links are not fetched here: upload the file itself.", print_exception=False)


async def _uploaded(move: Callable[[Any], Awaitable[str | None]], given: str | Path | None) -> str | None:
    check_no_link(given)
    return await move(given)

"""What other sites show of the page where it is linked: its title, a sentence, and a picture (Open Graph)."""

from __future__ import annotations

import os
from typing import Any

import gradio as gr
from starlette.responses import FileResponse
from starlette.routing import Route

from def_hub.space.components import ASSETS

TITLE = "def_hub: sharper with a reference"
DESCRIPTION = "Enlarge a small photo up to eight times, with true detail from sharp photos of the same thing."
PICTURE = ASSETS / "card.jpg"  # made by examples/screenshots.py
ADDRESS = "/card.jpg"


class LinkedBlocks(gr.Blocks):
    """Blocks whose HTML names a title, a description and a picture. Gradio's template writes the tags, but takes a
    picture from nowhere (seen in Gradio 6.31)."""

    def get_config_file(self) -> Any:
        return super().get_config_file() | {
            "title": TITLE,
            "simple_description": DESCRIPTION,
            "thumbnail": picture_address(),
        }


def picture_address() -> str:
    """Absolute where the host is known: most sites take no other."""
    host = os.environ.get("SPACE_HOST", "")
    return f"https://{host}{ADDRESS}" if host else ADDRESS


async def picture(request: Any) -> FileResponse:
    return FileResponse(PICTURE)


def routes() -> list[Route]:
    """Serves the picture."""
    return [Route(ADDRESS, picture)]

"""What other sites show of the page where it is linked: its title, a sentence, and a picture (Open Graph)."""

from __future__ import annotations

import re
from html import escape
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from def_hub.space.components import ASSETS

TITLE = "def_hub: sharper with a reference"
DESCRIPTION = "Enlarge a small photo up to eight times, with true detail from sharp photos of the same thing."
PICTURE = ASSETS / "card.jpg"  # made by examples/screenshots.py --card
ADDRESS = "/card.jpg"
SERVED_TAGS = re.compile(r'<meta\s+(?:property="og:|name="twitter:)[^>]*>\s*')


class TitledBlocks(gr.Blocks):
    """Blocks whose title in the browser says more than the name, which names the tools of MCP clients."""

    def get_config_file(self) -> Any:
        return super().get_config_file() | {"title": TITLE}


class PageTags:
    """Puts this page's tags where Gradio's template has its own, which name Gradio (seen in Gradio 6.31)."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/":
            await self.app(scope, receive, send)
            return
        start: dict[str, Any] = {}
        parts: list[bytes] = []

        async def collect(message: Any) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                parts.append(message.get("body", b""))

        await self.app(scope, receive, collect)
        headers = {k.decode(): v.decode() for k, v in start["headers"] if k.lower() != b"content-length"}
        body = b"".join(parts)
        if headers.get("content-type", "").startswith("text/html"):
            page = SERVED_TAGS.sub("", body.decode())
            body = page.replace("</head>", tags(_root(scope)) + "</head>", 1).encode()
        await Response(body, start["status"], headers)(scope, receive, send)


def tags(root: str) -> str:
    """root: the address that the page is asked for at; most sites take only a picture with a whole address."""
    told = {
        "og:type": "website",
        "og:title": TITLE,
        "og:description": DESCRIPTION,
        "og:image": root + ADDRESS,
        "twitter:card": "summary_large_image",
    }
    return "".join(f'<meta property="{name}" content="{escape(words)}">' for name, words in told.items())


def serving(*others: Middleware) -> dict[str, Any]:
    """Arguments of the application: the picture is served, and the tags are put in, after what `others` do."""
    return {"routes": [Route(ADDRESS, _picture)], "middleware": [*others, Middleware(PageTags)]}


async def _picture(request: Any) -> FileResponse:
    return FileResponse(PICTURE)


def _root(scope: Any) -> str:
    headers = {k.decode().lower(): v.decode() for k, v in scope["headers"]}
    scheme = headers.get("x-forwarded-proto", scope.get("scheme", "http")).split(",")[0]
    host = headers.get("x-forwarded-host", headers.get("host", ""))
    return f"{scheme}://{host}{scope.get('root_path', '').rstrip('/')}"

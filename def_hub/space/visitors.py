"""Who may read which file: the visitors whom the server itself has told its name, and nobody else.

Gradio keeps uploads and results in folders named by the SHA-256 of what is in them, and serves each to whoever knows
its path. Here a visitor is known by a cookie that the page sets, or, for programs without one, by their address.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

COOKIE = "def-visitor"
DIGEST = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
LENGTH = 64  # characters of a digest
FETCHING = re.compile(rb"(?:file|proxy)=+/*https?:", re.IGNORECASE)
"""Gradio fetches such an address on the server, and hands on what it got."""
REMEMBERED = 200_000  # pairs of file and visitor; the files themselves are deleted after an hour
TEXTS = (b"text/", b"application/json")


class OwnFiles:
    """ASGI middleware: every request that names a file comes from somebody who was told of it."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.told: OrderedDict[tuple[bytes, str], None] = OrderedDict()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        visitor, new = _visitor(scope, headers)
        asked = unquote_to_bytes(scope["raw_path"] if scope.get("raw_path") else scope["path"].encode())
        asked += b"?" + unquote_to_bytes(scope["query_string"])
        body: list[Any] = []
        if headers.get(b"content-type", b"").startswith(TEXTS):
            body = await _received(receive)
            asked += b" " + b"".join(message.get("body", b"") for message in body)
        if FETCHING.search(asked) or not self._knows(visitor, DIGEST.findall(asked)):
            await _refuse(send)
            return

        async def replayed() -> Any:
            return body.pop(0) if body else await receive()

        names = [visitor, new] if new else [visitor]
        await self.app(scope, replayed, _Telling(self, send, names, new))

    def tell(self, digests: Iterable[bytes], visitors: Iterable[str]) -> None:
        """Remember that these visitors have been told of these files."""
        for pair in [(digest, visitor) for digest in digests for visitor in visitors]:
            self.told[pair] = None
            self.told.move_to_end(pair)
        while len(self.told) > REMEMBERED:
            self.told.popitem(last=False)

    def _knows(self, visitor: str, digests: Iterable[bytes]) -> bool:
        return all((digest, visitor) in self.told for digest in digests)


class _Telling:
    """Sends a response on, and remembers the files that it names. new: the cookie that it sets, or empty."""

    def __init__(self, files: OwnFiles, send: Any, visitors: list[str], new: str) -> None:
        self.files, self.send, self.visitors, self.new = files, send, visitors, new
        self.is_text, self.rest = False, b""

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            kind = next((value for name, value in headers if name.lower() == b"content-type"), b"")
            self.is_text = kind.startswith(TEXTS)
            if self.new:
                headers.append((b"set-cookie", f"{COOKIE}={self.new}; Path=/; HttpOnly; SameSite=Lax".encode()))
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body" and self.is_text:
            text = self.rest + message.get("body", b"")
            self.files.tell(DIGEST.findall(text), self.visitors)
            self.rest = text[-LENGTH - 1 :]  # a name may be cut in two
        await self.send(message)


def _visitor(scope: Any, headers: dict[bytes, bytes]) -> tuple[str, str]:
    """Who asks, and a new cookie for a browser that has none."""
    found = re.search(rf"(?:^|;\s*){COOKIE}=([\w-]+)".encode(), headers.get(b"cookie", b""))
    if found:
        return found[1].decode(), ""
    address = f"address {scope['client'][0] if scope.get('client') else ''}"
    is_page = scope["method"] == "GET" and b"text/html" in headers.get(b"accept", b"")
    return address, secrets.token_urlsafe(24) if is_page else ""


async def _received(receive: Any) -> list[Any]:
    """The whole body of a request, as the messages it came in."""
    messages = [await receive()]
    while messages[-1]["type"] == "http.request" and messages[-1].get("more_body"):
        messages.append(await receive())
    return messages


async def _refuse(send: Any) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"detail": "This file is not yours."}'})

"""Who may read which file: the visitors whom the server itself has told its name, and nobody else.

Gradio keeps uploads and results in folders named by the SHA-256 of what is in them, and serves each to whoever knows
its path. Here a visitor is known by a cookie alone, which the first answer sets: visitors behind one address are as far
apart as any others. `gradio_client` keeps it; other programs have to. MCP clients get signed links in its place.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

COOKIE = "def-visitor"
DIGEST = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
FOLDER = re.compile(DIGEST.pattern + rf"(?=/|{re.escape(json.dumps(os.sep)[1:-1])})".encode())
"""How an answer names a file. A digest alone may be a file's name, which a visitor chooses."""
LENGTH = 64  # characters of a digest
FETCHING = re.compile(rb"(?:file|proxy)=+/*https?:", re.IGNORECASE)
"""Gradio fetches such an address on the server, and hands on what it got."""
ESCAPED = re.compile(rb"\\+u00([0-9a-fA-F]{2})")
REMEMBERED = 200_000  # pairs of file and visitor; the files themselves are deleted after an hour
MOST = 128_000_000  # bytes of a request that is not an upload; MCP clients send pictures in it
TELLING = (b"text/html", b"text/event-stream", b"application/json")
ADDRESSING = (b"host", b"x-forwarded", b"x-gradio", b"forwarded")
"""Headers that Gradio makes links of, and so repeats in its answers."""
EVERYONE = ""
STYLE = "/theme.css"  # asked for with the digest of itself, and the same for everybody
PAGE = ("", "/config")  # where every visitor is told the same: the shipped examples
_SECRET = secrets.token_bytes(32)


class OwnFiles:
    """ASGI middleware: every request that names a file comes from somebody who was told of it."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.told: OrderedDict[tuple[bytes, str], None] = OrderedDict()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        found = re.search(rf"(?:^|;\s*){COOKIE}=([\w-]+)".encode(), b"; ".join(_header(scope, b"cookie")))
        visitor = found[1].decode() if found else secrets.token_urlsafe(24)
        body: list[Any] = []
        if not _is_upload(scope):
            body = await _received(receive)
            if body[-1].get("more_body"):
                await _refuse(send, 413, f"At most {MOST // 10**6} MB are taken at a time.")
                return
        asked = _plain(scope, body)
        named = set() if scope["path"] == STYLE else set(DIGEST.findall(asked))
        if FETCHING.search(asked) or not self._may_name(visitor, named):
            await _refuse(send, 403, "This file is not yours, or your browser sends no cookies.")
            return

        async def replayed() -> Any:
            return body.pop(0) if body else await receive()

        await self.app(scope, replayed, _Telling(self, scope, send, visitor, is_new=not found))

    def _may_name(self, visitor: str, digests: set[bytes]) -> bool:
        """Whether the visitor has been told of all these files. A file's key, beside it, is as good."""
        who = (visitor, EVERYONE)
        known = {d for d in digests if any((d, w) in self.told for w in who) or _key(d) in digests}
        return digests <= known | {_key(digest) for digest in known}

    def tell(self, digests: Iterable[bytes], visitor: str) -> None:
        """Remember that this visitor has been told of these files."""
        for digest in digests:
            self.told[digest, visitor] = None
            self.told.move_to_end((digest, visitor))
        while len(self.told) > REMEMBERED:
            self.told.popitem(last=False)


class _Telling:
    """Sends a response on, and remembers the files that it names. is_new: the response sets the visitor's cookie."""

    def __init__(self, files: OwnFiles, scope: Any, send: Any, visitor: str, is_new: bool) -> None:
        self.files, self.send = files, send
        self.visitor = EVERYONE if scope["path"].rstrip("/") in PAGE else visitor
        # Gradio's MCP server calls the page as one visitor, with the headers of whoever called it.
        self.cookie = _cookie(visitor, scope) if is_new and "/mcp" not in scope["path"] else b""
        self.repeats = scope["path"].endswith("/upload_progress")  # it repeats a name that the visitor chose
        self.names_files, self.rest = False, b""

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            kind = next((value for name, value in headers if name.lower() == b"content-type"), b"")
            self.names_files = kind.startswith(TELLING) and message["status"] == 200 and not self.repeats
            if self.cookie and self.names_files:
                headers.append((b"set-cookie", self.cookie))
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body" and self.names_files:
            text = self.rest + message.get("body", b"")
            self.files.tell(FOLDER.findall(text), self.visitor)
            self.rest = text[-LENGTH - 2 :]  # a name may be cut in two
        await self.send(message)


def signed(link: str) -> str:
    """A link to a file that whoever has it may follow, as long as the server runs."""
    digest = DIGEST.search(link.encode())
    return f"{link}?key={_key(digest[0]).decode()}" if digest else link


def _key(digest: bytes) -> bytes:
    return hmac.new(_SECRET, digest, hashlib.sha256).hexdigest().encode()


def _cookie(visitor: str, scope: Any) -> bytes:
    """Of the page in a frame of another site, as a Space is shown, browsers keep it over HTTPS, and for that site."""
    is_safe = (_header(scope, b"x-forwarded-proto") or [scope.get("scheme", "").encode()])[0].startswith(b"https")
    kind = "SameSite=None; Secure; Partitioned" if is_safe else "SameSite=Lax"
    return f"{COOKIE}={visitor}; Path=/; HttpOnly; {kind}".encode()


def _header(scope: Any, name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key.lower() == name]


def _plain(scope: Any, body: list[Any]) -> bytes:
    """What a request asks for, without other ways to write a character: %61, an escape of JSON, UTF-16."""
    path = scope["raw_path"] if scope.get("raw_path") else scope["path"].encode()
    headers = [value for name, value in scope["headers"] if name.lower().startswith(ADDRESSING)]
    text = given = b" ".join(
        [path, scope["query_string"], *headers, b"".join(message.get("body", b"") for message in body)]
    )
    before = b""
    while text != before:
        before = text
        text = ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), unquote_to_bytes(text.replace(b"\0", b"")))
    return (given + b" " + text).lower()


def _is_upload(scope: Any) -> bool:
    kinds = _header(scope, b"content-type")
    return bool(kinds) and all(kind.lower().startswith(b"multipart/") for kind in kinds)


async def _received(receive: Any) -> list[Any]:
    """The whole body of a request, as the messages it came in; of one that is too long the beginning."""
    messages = [await receive()]
    length = len(_joined(messages))
    while messages[-1].get("more_body") and length <= MOST:
        messages.append(await receive())
        length += len(_joined(messages[-1:]))
    return messages


def _joined(messages: list[Any]) -> bytes:
    return b"".join(message.get("body", b"") for message in messages)


async def _refuse(send: Any, status: int, words: str) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"detail": words}).encode()})

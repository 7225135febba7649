"""What every visitor's browser asks first, made once: the page itself and its settings.

Gradio writes both anew for every visit, a megabyte that is the same each time, and compresses
only what has a file's ending. Here they are kept, compressed, and told apart by a hash, so that
a browser that has been here is answered with nothing.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import anyio

from explorer.cache import Cache

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MADE_ONCE = ("", "/config", "/gradio_api/info")  # of each name under which the server is reached
THEIRS = {"page", "deep_link", "view", "serialize", "all_endpoints", "selected_page"}
DECIDING = (
    "host",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-gradio-server",
)  # Gradio writes addresses into it
SURFACES = "/gradio_api/component_server"  # where a mesh is asked for, which Gradio sends plain
SMALL = 1000  # bytes, not worth compressing
KEPT = 2**25  # bytes; our choice, some ten names
ENCODINGS = ("br", "gzip")  # the best first
BROTLI, GZIP = 5, 6  # of 11 and 9; together as long as Gradio takes to write the page


@dataclass
class Kept:
    """An answer, its hash, and its body by encoding ("" for none)."""

    headers: list[tuple[bytes, bytes]]
    tag: bytes
    bodies: dict[str, bytes]


class Front:
    """Answers for `MADE_ONCE`; ``keeps``: whether all visitors get the same, as without logins."""

    def __init__(self, keeps: bool) -> None:
        self.keeps = keeps
        self._kept = Cache(KEPT, lambda one: sum(map(len, one.bodies.values())))

    def serves(self, scope: Message, inside: str) -> bool:
        """Return whether a request is for one of these; ``inside``: its path, without a slash."""
        if scope["method"] != "GET" or inside not in MADE_ONCE:
            return False
        asked = parse_qsl(scope.get("query_string", b"").decode("latin-1"))
        return not any(key in THEIRS for key, _ in asked)

    async def answer(
        self, app: Any, scope: Message, receive: Receive, send: Send, inside: str
    ) -> None:
        """Answer from what is kept, or ask the app and keep that."""
        headers = _headers(scope)
        key = (inside, scope.get("scheme"), *(headers.get(name) for name in DECIDING))
        found = self._kept.peek(key) if self.keeps else None
        if found is None:
            found = await self._ask(app, scope, receive, send)
            if found is None:
                return
            if self.keeps:
                self._kept.put(key, found)
        await _send(found, headers, send)

    async def _ask(self, app: Any, scope: Message, receive: Receive, send: Send) -> Kept | None:
        """Return the app's answer; anything but a whole page is passed on, and None returned."""
        start: Message = {}
        body = bytearray()
        passed = False

        async def taking(message: Message) -> None:
            nonlocal start, passed
            if message["type"] == "http.response.start":
                start = message
                names = {name.lower() for name, _ in message.get("headers", [])}
                passed = message["status"] != 200 or b"set-cookie" in names
            if passed:
                await send(message)
            elif message["type"] == "http.response.body":
                body.extend(message.get("body", b""))

        await app(scope, receive, taking)
        if passed or not start:
            return None
        own = (b"content-length", b"etag", b"cache-control", b"vary", b"content-encoding")
        headers = [pair for pair in start["headers"] if pair[0].lower() not in own]
        bodies = await anyio.to_thread.run_sync(_encoded, bytes(body))
        tag = b'"' + hashlib.blake2b(body, digest_size=12).hexdigest().encode() + b'"'
        return Kept(headers, tag, bodies)


async def packed(app: Any, scope: Message, receive: Receive, send: Send) -> None:
    """Pass an answer on in the best encoding that the browser takes; it is gathered for that."""
    start: Message = {}
    body = bytearray()

    async def taking(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start":
            start = message
        else:
            body.extend(message.get("body", b""))

    await app(scope, receive, taking)
    if not start:
        return
    content, told = bytes(body), [(b"vary", b"accept-encoding")]
    if len(content) > SMALL and (encoding := _best(_headers(scope))):
        content = await anyio.to_thread.run_sync(_compressed, content, encoding)
        told.append((b"content-encoding", encoding.encode()))
    told.append((b"content-length", str(len(content)).encode()))
    kept = [
        pair for pair in start["headers"] if pair[0].lower() not in (b"content-length", b"vary")
    ]
    await send({**start, "headers": [*kept, *told]})
    await send({"type": "http.response.body", "body": content})


def _headers(scope: Message) -> dict[str, str]:
    """Return a request's headers as text."""
    return {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}


def _best(headers: MutableMapping[str, str]) -> str:
    """Return the best encoding that a browser takes, "" for none."""
    told = headers.get("accept-encoding", "").split(",")
    taken = {part.split(";")[0].strip() for part in told}
    return next((one for one in ENCODINGS if one in taken), "")


def _compressed(body: bytes, encoding: str) -> bytes:
    if encoding == "gzip":
        return gzip.compress(body, GZIP, mtime=0)
    import brotli  # Gradio brings it

    return brotli.compress(body, quality=BROTLI)


def _encoded(body: bytes) -> dict[str, bytes]:
    """Return a body as it is and compressed, by encoding."""
    return {"": body} | {encoding: _compressed(body, encoding) for encoding in ENCODINGS}


async def _send(kept: Kept, headers: MutableMapping[str, str], send: Send) -> None:
    """Send an answer in the best encoding that the browser takes; nothing if it has it."""
    told = [*kept.headers, (b"cache-control", b"private, no-cache"), (b"vary", b"accept-encoding")]
    encoding = _best(headers)
    # a proxy that compresses makes the tag a weak one
    tag = kept.tag[:-1] + (f"-{encoding}" if encoding else "").encode() + b'"'
    told.append((b"etag", tag))
    seen = [one.strip().removeprefix("W/") for one in headers.get("if-none-match", "").split(",")]
    if tag.decode() in seen:
        await send({"type": "http.response.start", "status": 304, "headers": told})
        await send({"type": "http.response.body", "body": b""})
        return
    body = kept.bodies[encoding]
    if encoding:
        told.append((b"content-encoding", encoding.encode()))
    told.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": told})
    await send({"type": "http.response.body", "body": body})

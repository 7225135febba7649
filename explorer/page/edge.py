"""The edge of the server: who may ask it, for what, and what its answers tell the browser.

A server bound to this machine can still be asked by any page in its browser: by a name that was
made to point here (DNS rebinding), or across sites. So names that are not the server's own are
refused, and so is whatever another site's page sends. Routes of Gradio that the page does not use,
and that write to disk or fetch from elsewhere, are closed.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from explorer.page import health
from explorer.page.front import SURFACES, Front, packed
from explorer.page.logins import Logins
from explorer.types import UserError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
MOST_BODY = 2**22  # bytes of a question: our choice, a hundred times the longest of the page
MOST_LOGIN = 2**14
NO_FILES = "This server takes no files and has no such route."
# What the page loads and runs is its own; Gradio makes functions of texts (eval), and styles.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors "
)
LOCAL_FRAMES = "'self' http://localhost:* http://127.0.0.1:*"  # a notebook's page
SPACE_FRAMES = "'self' https://huggingface.co https://*.hf.space"
CLOSED = re.compile(
    r"/(?:upload|upload_progress|process_recording|stream|vibe-|undo-vibe|"
    r"run-history|proxy=|profiling|monitoring|dev/|custom_component|mcp)"
)


@dataclass
class Rules:
    """Whom a server answers.

    ``hosts``: names, lower case; ``addresses``: also any IP address. ``frames``: who may show the
    page in a frame, in the words of ``frame-ancestors``. ``logins``: who may log in, if asked.
    ``beneath``: the path under which a proxy shows the page, "" for the root.
    """

    hosts: set[str] = field(default_factory=lambda: set(LOOPBACK))
    addresses: bool = False
    frames: str = LOCAL_FRAMES
    logins: Logins | None = None
    beneath: str = ""

    def knows(self, host: str) -> bool:
        """Return whether a name, or an address, is the server's own."""
        if host in self.hosts or any(h[0] == "." and host.endswith(h) for h in self.hosts):
            return True
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return self.addresses


def rules_for(
    host: str,
    share: bool = False,
    more: Iterable[str] = (),
    logins: Logins | None = None,
    beneath: str = "",
) -> Rules:
    """Return the rules of a server on ``host``; ``more``: names that a proxy gives it.

    ``beneath``: the path under which that shows the page; what is none raises `UserError`.
    """
    if beneath and not re.fullmatch(r"(/[\w.~-]+)*/?", beneath):
        raise UserError(
            "--root-path is a path such as /afterimage, without the server's name; found "
            f"{beneath!r}."
        )
    rules = Rules(logins=logins, beneath=beneath.rstrip("/"))
    rules.hosts |= {name.lower().strip("[]") for name in more}
    if host not in LOOPBACK:
        own = socket.gethostname().lower()
        rules.hosts |= {host.lower(), own, f"{own}.local", socket.getfqdn().lower()}
        rules.addresses, rules.frames = True, "'self'"
    if share:
        rules.hosts.add(".gradio.live")
        rules.frames = "'self'"
    if space := os.environ.get("SPACE_HOST"):  # on a Hugging Face Space
        rules.hosts |= {name.strip().lower() for name in space.split(",")}
        rules.frames = SPACE_FRAMES
    return rules


def host_of(text: str) -> str:
    """Return the name in a ``Host`` or ``Origin`` header without its port; "" for none."""
    try:
        return (urlsplit(text if "//" in text else f"//{text}").hostname or "").lower()
    except ValueError:
        return ""


class Edge:
    """The ASGI middleware that keeps `Rules`."""

    def __init__(self, app: Any, rules: Rules) -> None:
        self.app, self.rules, self._front = app, rules, Front(keeps=rules.logins is None)
        self._headers = [
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"same-origin"),
            (b"content-security-policy", (POLICY + rules.frames).encode()),
        ]
        if rules.frames == "'self'":
            self._headers.append((b"x-frame-options", b"SAMEORIGIN"))

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it in a sentence."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        status, why = self._refusal(scope, headers)
        if why:
            await _refuse(scope, send, status, why, self._headers)
            return
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
            return
        inside = _inside(scope).rstrip("/")
        if inside == health.PATH and scope["method"] in ("GET", "HEAD"):
            await _answer(scope, send, 200, health.told(scope.get("app")), self._headers)
            return
        if self.rules.logins is not None and inside == "/login" and scope["method"] == "POST":
            body = await _whole(receive, MOST_LOGIN)
            client = (scope.get("client") or ("unknown",))[0]
            wait = None if body is None else self.rules.logins.asked(body, headers, client)
            if wait is None:
                told = "This is no login." if body is None else self.rules.logins.BUSY
                await _refuse(scope, send, 413 if body is None else 429, told, self._headers)
                return
            await self.rules.logins.let_wait(wait)
            receive = _again(body, receive)
        asking = scope, _bounded(receive), self._with_headers(send)
        if self._front.serves(scope, inside):
            await self._front.answer(self.app, *asking, inside)
            return
        if inside == SURFACES and scope["method"] == "POST":
            await packed(self.app, *asking)
            return
        await self.app(*asking)

    def _refusal(self, scope: Message, headers: dict[str, str]) -> tuple[int, str]:
        """Return a status and why a request is refused; 0 and "" for one that is not."""
        host = host_of(headers.get("host", ""))
        if not self.rules.knows(host):
            return 403, (
                f"This server does not answer to the name {host[:80]!r}; open it by its own "
                "address, or start it with --allow-host NAME."
            )
        origin = headers.get("origin")
        asking = host if origin is None else host_of(origin)
        if asking != host and not self.rules.knows(asking):
            return 403, (
                f"A page of {origin[:80]!r} may not ask this server; open the server's own page."
            )
        if CLOSED.search(_inside(scope)):
            return 404, NO_FILES
        form = headers.get("content-type", "").startswith("multipart/")
        if form and not scope["path"].rstrip("/").endswith("/login"):
            return 415, NO_FILES
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MOST_BODY:
            return 413, f"A question has at most {MOST_BODY:,} bytes."
        return 0, ""

    def _with_headers(self, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in self._headers}
                kept = [pair for pair in message.get("headers", []) if pair[0].lower() not in own]
                message = {**message, "headers": [*kept, *self._headers]}
            await send(message)

        return sending


def _inside(scope: Message) -> str:
    """Return a request's path within the page; a proxy may leave the page's own prefix or not."""
    path, prefix = scope["path"], scope.get("root_path", "")
    return path.removeprefix(prefix) if path.startswith(f"{prefix}/") else path


async def _refuse(
    scope: Message, send: Send, status: int, why: str, headers: list[tuple[bytes, bytes]]
) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": why[:120]})
        return
    await _answer(scope, send, status, {"detail": why}, headers)


async def _answer(
    scope: Message,
    send: Send,
    status: int,
    told: dict[str, Any],
    headers: list[tuple[bytes, bytes]],
) -> None:
    body = json.dumps(told).encode()
    own = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    own.append((b"cache-control", b"no-store"))
    await send({"type": "http.response.start", "status": status, "headers": [*own, *headers]})
    body = b"" if scope["method"] == "HEAD" else body
    await send({"type": "http.response.body", "body": body})


async def _whole(receive: Receive, most: int) -> bytes | None:
    """Return a body of at most ``most`` bytes, None for a longer one."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if message["type"] != "http.request" or len(body) > most:
            return None
        if not message.get("more_body"):
            return body


def _again(body: bytes, receive: Receive) -> Receive:
    """Return what gives a body that was read once more."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receiving() -> Message:
        return left.pop() if left else await receive()

    return receiving


def _bounded(receive: Receive) -> Receive:
    """Return what ends a body that does not say how long it is, as a caller who hangs up does."""
    had = 0

    async def receiving() -> Message:
        nonlocal had
        message = await receive()
        had += len(message.get("body", b""))
        return {"type": "http.disconnect"} if had > MOST_BODY else message

    return receiving

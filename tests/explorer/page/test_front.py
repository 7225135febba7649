"""The page itself is made once, sent compressed, and not at all to a browser that has it."""

from __future__ import annotations

import gzip
from typing import Any

import brotli
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from explorer.page.edge import Edge, Rules
from explorer.page.logins import Logins, hash_password

PLAIN = {"accept-encoding": "identity"}


@pytest.fixture
def made() -> list[str]:
    return []


def client(made: list[str], **rules: Any) -> TestClient:
    async def whole(request: Request) -> PlainTextResponse:
        made.append(str(request.url))
        status = 500 if "broken" in made else 200
        return PlainTextResponse(f"page of {request.headers['host']} " * 100, status)

    routes = [Route(path, whole) for path in ("/", "/config", "/other")]
    app = Starlette(routes=routes, middleware=[Middleware(Edge, rules=Rules(**rules))])
    return TestClient(app, base_url="http://localhost")


def test_it_is_made_once_for_all_trials_and_for_each_name_of_the_server(made: list[str]) -> None:
    asked = client(made)
    first = asked.get("/", params={"trial": "a"})
    assert asked.get("/", params={"trial": "b"}).text == first.text and len(made) == 1
    other = asked.get("/", headers={"host": "127.0.0.1"})
    assert other.text.startswith("page of 127.0.0.1") and len(made) == 2
    asked.get("/config")
    for path in ("/?deep_link=x", "/?page=y", "/other", "/other"):  # Gradio's own, or another's
        asked.get(path)
    assert len(made) == 7


def test_it_is_sent_in_what_the_browser_takes(made: list[str]) -> None:
    asked = client(made)
    plain = asked.get("/", headers=PLAIN)
    assert "content-encoding" not in plain.headers
    for encoding, opened in (("gzip", gzip.decompress), ("br", brotli.decompress)):
        with asked.stream("GET", "/", headers={"accept-encoding": f"x, {encoding}"}) as answer:
            raw = b"".join(answer.iter_raw())
        assert answer.headers["content-encoding"] == encoding
        assert int(answer.headers["content-length"]) == len(raw) < len(plain.content) / 10
        assert opened(raw) == plain.content
    assert len(made) == 1 and "accept-encoding" in plain.headers["vary"]


def test_a_browser_that_has_it_is_sent_nothing(made: list[str]) -> None:
    asked = client(made)
    tag = asked.get("/", headers={"accept-encoding": "br"}).headers["etag"]
    for seen in (tag, f"W/{tag}", f'"x", {tag}'):
        again = asked.get("/", headers={"accept-encoding": "br", "if-none-match": seen})
        assert (again.status_code, again.content) == (304, b"")
        assert "content-security-policy" in again.headers and again.headers["etag"] == tag
    assert asked.get("/", headers=PLAIN | {"if-none-match": tag}).status_code == 200


def test_nothing_is_kept_where_people_log_in_nor_of_a_failure(made: list[str]) -> None:
    door = client(made, logins=Logins({"ann": hash_password("right one")}))
    assert [door.get("/").headers["content-encoding"] for _ in range(2)] == ["br"] * 2
    assert len(made) == 2
    asked = client(made)
    made.append("broken")
    assert asked.get("/").status_code == 500
    made.remove("broken")
    assert asked.get("/").status_code == 200

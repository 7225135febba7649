"""The edge: names and origins that are not the server's own, closed routes, and what is told."""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from explorer import page
from explorer.page import edge, health, logins
from explorer.page.edge import Edge, Rules, host_of, rules_for
from explorer.page.logins import Logins, hash_password
from explorer.types import UserError
from tests.explorer.page.serving import OLD_NAME, leaving_loops_open

pytestmark = OLD_NAME


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse((await request.body()).decode() or "hello")


async def socket(websocket: Any) -> None:
    await websocket.accept()
    await websocket.close()


def client(rules: Rules | None = None, host: str = "127.0.0.1") -> TestClient:
    routes = [
        Route("/{rest:path}", hello, methods=["GET", "POST"]),
        WebSocketRoute("/ws", socket),
    ]
    app = Starlette(routes=routes, middleware=[Middleware(Edge, rules=rules or Rules())])
    return TestClient(app, base_url=f"http://{host}:7860")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
def test_the_servers_own_names_are_answered(host: str) -> None:
    assert client(host=host).get("/").text == "hello"


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "192.168.1.7", "x"],
)
def test_a_foreign_name_is_refused(host: str) -> None:
    answer = client().get("/", headers={"host": host})
    assert answer.status_code == 403
    assert "does not answer to the name" in answer.json()["detail"]
    assert "--allow-host NAME" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:7860", 200),
        ("http://localhost:8888", 200),  # a notebook on this machine
        ("https://evil.example", 403),
        ("http://127.0.0.1.evil.example", 403),
        ("null", 403),
    ],
)
def test_a_foreign_page_may_not_ask(origin: str, status: int) -> None:
    assert (
        client().post("/gradio_api/call/trials", headers={"origin": origin}).status_code == status
    )


def test_a_foreign_page_opens_no_socket() -> None:
    with client().websocket_connect("ws://127.0.0.1/ws"):
        pass
    foreign = client().websocket_connect(
        "ws://127.0.0.1/ws", headers={"origin": "https://evil.example"}
    )
    with pytest.raises(WebSocketDisconnect) as caught, foreign:
        pass
    assert caught.value.code == 1008 and "may not ask" in caught.value.reason


@pytest.mark.parametrize(
    "path",
    [
        *("/gradio_api/upload", "/gradio_api/upload?upload_id=a", "/gradio_api/upload_progress"),
        *("/gradio_api/stream/x", "/gradio_api/process_recording", "/gradio_api/vibe-edit/"),
        *("/gradio_api/proxy=https://example.org/", "/gradio_api/run-history/connect"),
        *("/gradio_api/profiling/clear", "/monitoring", "/lab/gradio_api/upload"),
    ],
)
def test_routes_that_the_page_does_not_use_are_closed(path: str) -> None:
    for method in ("GET", "POST"):
        answer = client().request(method, path)
        assert (answer.status_code, answer.json()["detail"]) == (404, edge.NO_FILES)


def test_files_are_taken_nowhere_and_questions_are_short() -> None:
    sent = client().post("/gradio_api/component_server", files={"f": b"x"})
    assert (sent.status_code, sent.json()["detail"]) == (415, edge.NO_FILES)
    assert client().post("/call", content=b"x" * (edge.MOST_BODY + 1)).status_code == 413
    assert client().post("/call", content=b"x" * 1000).text == "x" * 1000

    def endless() -> Iterator[bytes]:
        for _ in range(2 * edge.MOST_BODY // 2**16):
            yield b"x" * 2**16

    with pytest.raises(ClientDisconnect):
        client().post("/call", content=endless())


@pytest.mark.parametrize("path", ["/", "/gradio_api/upload"])
def test_every_answer_tells_the_browser_what_it_may_do(path: str) -> None:
    headers = client().get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy and "object-src 'none'" in policy
    assert policy.endswith("frame-ancestors 'self' http://localhost:* http://127.0.0.1:*")
    assert "http" not in policy.partition("frame-ancestors")[0]  # nothing from elsewhere
    beyond = client(rules_for("0.0.0.0"), "10.1.2.3").get("/").headers
    assert beyond["x-frame-options"] == "SAMEORIGIN"
    assert beyond["content-security-policy"].endswith("frame-ancestors 'self'")


def test_a_server_for_others_answers_to_its_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge.socket, "gethostname", lambda: "Brainbox")
    monkeypatch.setattr(edge.socket, "getfqdn", lambda: "brainbox.lab.example")
    rules = rules_for("0.0.0.0", more=["Proxy.example"])
    for host in ("10.1.2.3", "brainbox", "brainbox.local", "brainbox.lab.example", "localhost"):
        assert rules.knows(host)
    assert rules.knows("proxy.example") and not rules.knows("evil.example")
    assert rules_for("127.0.0.1", share=True).knows("1234.gradio.live")
    assert not rules_for("127.0.0.1", share=True).knows("evilgradio.live")
    assert not rules_for("127.0.0.1").knows("1234.gradio.live")
    monkeypatch.setenv("SPACE_HOST", "lab-afterimage.hf.space")
    space = rules_for("0.0.0.0")
    assert space.knows("lab-afterimage.hf.space") and "https://huggingface.co" in space.frames


def test_hosts_are_read_from_headers() -> None:
    assert [host_of(text) for text in ("a:80", "[::1]:80", "http://A.b:1", "", "null", "[")] == [
        "a", "::1", "a.b", "", "null", "",
    ]  # fmt: skip


def test_a_path_of_a_proxy_is_a_path() -> None:
    assert rules_for("127.0.0.1", beneath="/lab/afterimage/").beneath == "/lab/afterimage"
    for text in ("afterimage", "https://lab.example/a", "/a b", "/a?b", "//"):
        with pytest.raises(UserError, match="--root-path is a path such as /afterimage"):
            rules_for("127.0.0.1", beneath=text)


def test_a_prefix_closes_no_route_and_opens_none() -> None:
    app = FastAPI(middleware=[Middleware(Edge, rules=Rules())])
    app.root_path = "/stream/lab"  # as Gradio sets it

    @app.get("/config")
    def config() -> str:
        return "open"

    with TestClient(app, base_url="http://127.0.0.1") as asked:
        for before in ("", "/stream/lab"):
            assert asked.get(f"{before}/config").json() == "open"
            assert asked.get(f"{before}/gradio_api/upload").status_code == 404
            assert asked.get(f"{before}/healthz").json()["status"] == "ok"


# ------------------------------------------------------------------------------ the page's server


@pytest.fixture
def door() -> Logins:
    return Logins({"ann": hash_password("right one")})


@pytest.fixture
def blocks(workbench: Any) -> Any:
    with leaving_loops_open():
        return page.build(workbench)


@pytest.fixture
def address(door: Logins, blocks: Any) -> Iterator[str]:
    with leaving_loops_open():
        _, url, _ = blocks.launch(
            server_name="127.0.0.1",
            prevent_thread_lock=True,
            quiet=True,
            inbrowser=False,
            auth=door,
            **page.launch_options(Rules(logins=door)),
        )
    yield url.rstrip("/")
    with leaving_loops_open():
        blocks.close(verbose=False)


def ask(url: str, data: bytes | None = None, **headers: str) -> tuple[int, str, Any]:
    request = urllib.request.Request(
        url, data, {k.replace("_", "-"): v for k, v in headers.items()}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers


def test_the_real_server_is_behind_the_edge(address: str) -> None:
    status, text, headers = ask(f"{address}/")
    assert status == 200 and headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors" in headers["Content-Security-Policy"] and "<html" in text
    form = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nx\r\n--x--\r\n'
    )
    kind = "multipart/form-data; boundary=x"
    status, text, _ = ask(f"{address}/gradio_api/upload", form, Content_Type=kind)
    assert (status, json.loads(text)["detail"]) == (404, edge.NO_FILES)
    assert ask(f"{address}/", Host="evil.example")[0] == 403
    assert ask(f"{address}/config", Origin="https://evil.example")[0] == 403


def test_its_health_is_told_without_a_login_while_the_models_are_at_work(
    address: str, blocks: Any, workbench: Any
) -> None:
    workbench.models.embedder("pocket-clip")
    with blocks.turns.held("somebody", "statistics"):
        waits = blocks.turns.ask("another")
        status, text, headers = ask(f"{address}/healthz")
        told = json.loads(text)
        assert (status, headers["Cache-Control"]) == (200, "no-store")
        assert told.pop("at_work") >= 0
        assert told == {"status": "ok", "version": health.version(), "models": 1, "waiting": 1}
        blocks.turns.leave(waits)
    assert json.loads(ask(f"{address}/healthz")[1])["at_work"] is None
    assert ask(f"{address}/healthz", Host="evil.example")[0] == 403


def test_the_real_server_lets_in_and_slows(
    address: str, door: Logins, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    async def noted(self: Logins, seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(Logins, "let_wait", noted)
    with caplog.at_level(logging.WARNING, "afterimage.logins"):
        for _ in range(4):
            assert ask(f"{address}/login", b"username=ann&password=wrong")[0] == 400
    assert waited[:3] == [0, 0, 0] and waited[3] > 0.3
    assert caplog.text.count("login failed for 'ann' from 127.0.0.1") == 4
    status, _, headers = ask(f"{address}/login", b"username=ann&password=right+one")
    assert status == 200 and "access-token" in headers["Set-Cookie"]
    assert ask(f"{address}/login", b"username=ann&password=" + b"x" * logins.N)[0] == 413
    assert ask(f"{address}/gradio_api/info")[0] == 401  # nobody is in without a cookie


@pytest.mark.parametrize("taken", ["br", "gzip", "br;q=0.5, gzip", "identity", ""])
def test_a_mesh_is_sent_packed_to_who_takes_it(taken: str) -> None:
    mesh = "0123456789" * 1000
    answer = client().post(
        "/gradio_api/component_server/", content=mesh, headers={"accept-encoding": taken}
    )
    wanted = {"br": "br", "gzip": "gzip", "br;q=0.5, gzip": "br"}.get(taken)
    assert answer.headers.get("content-encoding") == wanted and answer.text == mesh
    assert answer.headers["vary"] == "accept-encoding"
    assert (int(answer.headers["content-length"]) < 200) == (wanted is not None)

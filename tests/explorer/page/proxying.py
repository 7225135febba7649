"""A proxy as a lab has one in front: it shows a server under a path of its own name."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

HOP = {"host", "connection", "keep-alive", "transfer-encoding", "upgrade", "content-length"}


@contextmanager
def behind(address: str, prefix: str, strips: bool = True, host: str = "") -> Iterator[str]:
    """Show a server under a path; give the address there, which ends in a slash.

    As nginx does with ``assets/server/nginx.conf``. ``strips``: whether the server sees its own
    paths alone; ``host``: the name that it is told, "" for the visitor's. What comes is passed on
    as it comes.
    """
    client = httpx.AsyncClient(base_url=address, timeout=60)

    async def ask(request: Request) -> Response:
        path = request.url.path
        if not path.startswith(f"{prefix}/"):
            return PlainTextResponse("Nothing is here.", 404)
        sent = {k: v for k, v in request.headers.items() if k not in HOP}
        told = request.headers["host"]
        sent |= {"host": host or told, "x-forwarded-host": told, "x-forwarded-proto": "http"}
        sent["x-forwarded-for"] = request.client.host
        inside = path.removeprefix(prefix) if strips else path
        query = f"?{request.url.query}" if request.url.query else ""
        asked = client.build_request(
            request.method, inside + query, headers=sent, content=await request.body()
        )
        answer = await client.send(asked, stream=True)

        async def passed_on() -> AsyncIterator[bytes]:
            try:
                async for part in answer.aiter_raw():
                    yield part
            finally:
                await answer.aclose()

        response = StreamingResponse(passed_on(), answer.status_code)
        response.raw_headers = [
            (k.lower(), v) for k, v in answer.headers.raw if k.lower().decode() not in HOP
        ]
        return response

    routes = [Route("/{path:path}", ask, methods=["GET", "POST", "HEAD"])]
    server = uvicorn.Server(
        uvicorn.Config(Starlette(routes=routes), port=0, log_level="critical", lifespan="off")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}{prefix}/"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)

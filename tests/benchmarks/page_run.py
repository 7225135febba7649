"""A cold start, a trial, the next and a second visit: ``python page_run.py``.

Run it in the root of any build of this project; it starts that build's ``app.py`` as a person
does, opens it in Chromium and prints one line of JSON: wall seconds from the command to the first
finished picture, the first map and the end of the sweep, processor seconds of the server until
then, and kilobytes that travelled (as the browser counts them, after compression).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

PATIENCE = 180_000  # ms
ARGUMENTS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
PICTURE = ".ai-reconstruction[data-state=done], .ai-tile[data-state=done]"
DONE = "document.querySelector('.ai-trial')?.dataset.state === 'done'"
MAP = ".ai-table tbody tr"


def main() -> None:
    """Measure, and print the line."""
    from playwright.sync_api import sync_playwright

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        # an empty cache, so that nothing was drawn before
        environment = os.environ | {"AFTERIMAGE_CACHE": home}
        command = [sys.executable, "app.py", "--no-browser", "--port", str(port)]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=list(ARGUMENTS)
            )
            began = time.perf_counter()
            with subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
            ) as app:
                try:
                    found = visit(browser, f"http://127.0.0.1:{port}/", app.pid, began)
                finally:
                    app.terminate()
    sys.stdout.write(json.dumps(found) + "\n")


def visit(browser: Any, address: str, app: int, began: float) -> dict[str, float]:
    """Return the figures of one start."""
    while not answers(address):
        time.sleep(0.05)
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    sent = counted(context, page)
    page.goto(address)
    took: dict[str, float] = {}
    page.wait_for_selector(PICTURE, state="attached")
    took["first_picture_s"] = time.perf_counter() - began
    page.wait_for_selector(MAP, state="attached")
    took["map_s"] = time.perf_counter() - began
    page.wait_for_function(DONE)
    took["sweep_s"] = time.perf_counter() - began
    took["processor_s"] = processor_seconds(app)
    page.wait_for_timeout(1500)
    took["first_kb"] = sent[0] / 1000
    shown = page.evaluate("new URL(location).searchParams.get('trial')")
    sent[0] = 0
    page.click("#next")
    page.wait_for_function("t => new URL(location).searchParams.get('trial') !== t", arg=shown)
    page.wait_for_function(DONE)
    page.wait_for_timeout(1000)
    took["next_kb"] = sent[0] / 1000
    again = context.new_page()
    again.set_default_timeout(PATIENCE)
    sent = counted(context, again)
    again.goto(page.url)
    again.wait_for_function(DONE)
    again.wait_for_timeout(1500)
    took["again_kb"] = sent[0] / 1000
    return took


def counted(context: Any, page: Any) -> list[int]:
    """Return a count of the bytes that reach a page over the wire from now on."""
    session, sent = context.new_cdp_session(page), [0]
    session.send("Network.enable")
    streamed: dict[str, int] = {}

    def part(event: dict) -> None:
        streamed[event["requestId"]] = streamed.get(event["requestId"], 0) + max(
            event["encodedDataLength"], 0
        )
        sent[0] += max(event["encodedDataLength"], 0)

    def whole(event: dict) -> None:
        # its headers, and what came without being told in parts
        sent[0] += max(event["encodedDataLength"] - streamed.pop(event["requestId"], 0), 0)

    session.on("Network.dataReceived", part)
    session.on("Network.loadingFinished", whole)
    return sent


def processor_seconds(process: int) -> float:
    """Return the processor time of a process so far (Linux's /proc)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def answers(address: str) -> bool:
    """Say whether the server gives the page."""
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


if __name__ == "__main__":
    main()

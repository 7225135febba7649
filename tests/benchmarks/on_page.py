"""Starts the app as a person does, and looks at it in Chromium."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from on_models import Line, resident_of
from page_run import ARGUMENTS, answers

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120_000  # ms
# Keeps what the server sends as text, so that it can be counted with and without its pictures.
LISTEN = """
    window.heard = [];
    const get = window.fetch;
    window.fetch = async (...args) => {
        const answer = await get(...args);
        if (!answer.body) return answer;
        const [mine, theirs] = answer.body.tee();
        const at = window.heard.push('') - 1;
        (async () => {
            const reader = mine.getReader(), decoder = new TextDecoder();
            for (let part; !(part = await reader.read()).done;)
                window.heard[at] += decoder.decode(part.value, {stream: true});
        })();
        const {status, statusText, headers} = answer;
        const copy = new Response(theirs, {status, statusText, headers});
        Object.defineProperty(copy, 'url', {value: answer.url});
        return copy;
    };
    const Source = window.EventSource;
    window.EventSource = class extends Source {
        constructor(...args) {
            super(...args);
            this.addEventListener('message', event => window.heard.push(event.data));
        }
    };
"""
COUNT = r"""() => {
    const text = window.heard.join('');
    const plain = text.replace(/data:image\/[a-z+.-]+;base64,[A-Za-z0-9+\/=]*/g, '');
    return [text.length, plain.length];
}"""


def measure_page(checkpoints: Path, simulated: Path | None) -> list[Line]:
    """Return the lines of the page's part."""
    from playwright.sync_api import sync_playwright

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(ROOT / "app.py"), "--no-browser", "--port", str(port)]
    command += ["--no-store"]  # what an earlier run drew is drawn again
    command += ["--checkpoints", str(checkpoints)]
    command += ["--dataset", f"simulated={simulated}"] if simulated else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(ARGUMENTS)
        )
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as app:
            try:
                return list(visit(browser, f"http://127.0.0.1:{port}/", app.pid, began))
            finally:
                app.terminate()


def visit(browser: Any, address: str, app: int, began: float) -> list[Line]:
    """Open the page, wait for a whole trial, go to the next one, and tell what it took."""
    while not answers(address):
        time.sleep(0.05)
    first = time.perf_counter() - began
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(PATIENCE)
    page.add_init_script(LISTEN)
    page.goto(address)
    page.wait_for_function("document.querySelector('.ai-truth img')?.naturalWidth > 0")
    truth = time.perf_counter() - began
    page.wait_for_selector(".ai-table tbody tr")
    table = time.perf_counter() - began
    page.locator(".ai-stage").scroll_into_view_if_needed()
    page.wait_for_selector(".ai-canvas .gl-container canvas", state="attached")
    surface = time.perf_counter() - began
    wait_until_done(page)
    swept = time.perf_counter() - began
    shown = page.evaluate("new URL(location).searchParams.get('trial')")
    page.wait_for_timeout(1000)  # what still comes of the first trial is not the second's
    page.evaluate("window.heard.length = 0")
    clicked = time.perf_counter()
    page.click("#next")
    page.wait_for_function(
        "name => new URL(location).searchParams.get('trial') !== name", arg=shown
    )
    wait_until_done(page)
    changed = time.perf_counter() - clicked
    page.wait_for_timeout(500)
    everything, plain = page.evaluate(COUNT)
    now, most = resident_of(app)
    return [
        ("python app.py to the first answer", f"{first:.1f} s", "<= 5 s"),
        ("... to a trial's ground truth", f"{truth:.1f} s", ""),
        ("... and its importance by parcel", f"{table:.1f} s", ""),
        ("... and its map (drawn in software here)", f"{surface:.1f} s", "<= 12 s"),
        ("... and its sweep", f"{swept:.1f} s", ""),
        ("next trial, from the click to the end of its sweep", f"{changed:.1f} s", ""),
        ("sent when only the trial changes, no images", f"{plain / 1000:.0f} kB", "<= 150 kB"),
        ("... with images and previews", f"{everything / 1000:.0f} kB", ""),
        ("resident memory of the app, now and at most", f"{now:.2f}, {most:.2f} GB", "<= 1.8 GB"),
    ]  # fmt: skip


def wait_until_done(page: Any) -> None:
    """Wait until the sweep of the trial that is shown is finished."""
    page.wait_for_function("document.querySelector('.ai-trial')?.dataset.state === 'done'")

"""A Chromium and a served page for the browser tests: the fake study, so that they are quick.

Where Chromium or Playwright is missing the tests are skipped with the reason; with ``CI`` set that
is a failure, so that no suite passes by leaving them out.
"""

from __future__ import annotations

import gc
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ARGUMENTS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
DESKTOP = {"width": 1440, "height": 900}
NO_WEBGL = """
    const get = HTMLCanvasElement.prototype.getContext;
    HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
        return /webgl/.test(kind) ? null : get.call(this, kind, ...rest);
    };
"""
PATIENCE = 60_000  # ms until a test gives up waiting for the page, on a machine that is busy


def lacking(reason: str) -> None:
    """Skip, or fail where nothing may be skipped."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; with CI set the browser tests may not be skipped.")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Start Chromium once."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        lacking("Playwright is not installed (pip install playwright)")
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        lacking("No chromium on the PATH (apt install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(ARGUMENTS))
        yield browser
        browser.close()


@contextmanager
def served(workbench: Any) -> Iterator[str]:
    """Serve the page over a workbench on a free port while the block runs; gives its address."""
    from explorer import page

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        blocks = page.build(workbench)
    with launched(blocks) as address:
        yield address


@contextmanager
def launched(blocks: Any) -> Iterator[str]:
    """Serve a page that was built, as the app does."""
    from explorer import page

    with warnings.catch_warnings():
        # Gradio leaves event loops open; collected here, they blame no other test.
        warnings.simplefilter("ignore", ResourceWarning)
        _, address, _ = blocks.launch(
            server_name="127.0.0.1",
            prevent_thread_lock=True,
            quiet=True,
            inbrowser=False,
            **page.launch_options(),
        )
        gc.collect()
    try:
        yield address
    finally:
        blocks.close(verbose=False)


@pytest.fixture(scope="session")
def study(fakes: SimpleNamespace, fake_checkpoints: Any) -> SimpleNamespace:
    """Return fakes for the page: the fake study, and one without voxel locations."""

    class Nowhere(fakes.Study):
        title = "A study without places"
        simulated = False
        note = ""
        split_unit = "repeat"

        def load(self, subject: str) -> Any:
            from dataclasses import replace

            trials = super().load(subject)
            voxels = replace(trials.subject.voxels, projection=None, parcellations={})
            return replace(trials, subject=replace(trials.subject, voxels=voxels))

    return SimpleNamespace(**vars(fakes), Nowhere=Nowhere, checkpoints=fake_checkpoints)


def bench_of(study: SimpleNamespace) -> Any:
    """Return a new workbench over one fake study, one mapper and one generator."""
    from explorer.workbench import Workbench

    return Workbench(
        {"fake": study.Study},
        {"pocket-clip": study.Embedder},
        {"linear": study.Linear},
        {"painter": study.Generator},
        checkpoints=study.checkpoints,
    )


def new_page(chromium: Any, contexts: list[Any], surface: bool, options: dict[str, Any]) -> Any:
    """Return a page in a browser context of its own, which is added to ``contexts``."""
    context = chromium.new_context(**{"viewport": DESKTOP, **options})
    if not surface:
        context.add_init_script(NO_WEBGL)
    context.set_default_timeout(PATIENCE)
    contexts.append(context)
    return context.new_page()


@pytest.fixture(scope="session")
def address(study: SimpleNamespace) -> Iterator[str]:
    """Serve the fake studies; every test has its own browser context, so its own session."""
    from explorer.workbench import Workbench

    workbench = Workbench(
        {"fake": study.Study, "nowhere": study.Nowhere},
        {"pocket-clip": study.Embedder},
        {"linear": study.Linear, "ridge": study.Linear},
        {"painter": study.Generator, "unguided": study.Unguided},
        checkpoints=study.checkpoints,
    )
    with served(workbench) as url:
        yield url


@pytest.fixture(scope="session")
def predicting(study: SimpleNamespace, encoding_checkpoints: Path) -> Iterator[str]:
    """Serve the fake study with an encoding model of its first subject."""
    from explorer.workbench import Workbench

    workbench = Workbench(
        {"fake": study.Study},
        {"pocket-clip": study.Embedder},
        {"linear": study.Linear, "ridge": study.Linear},
        {"painter": study.Generator},
        checkpoints=encoding_checkpoints,
        encoders={"encoding": "backends.encoders.voxelwise:Encoding"},
    )
    with served(workbench) as url:
        yield url


@pytest.fixture(scope="session")
def shipped() -> Iterator[str]:
    """Serve the embedded study with the weights that ship."""
    from backends import DATASETS, EMBEDDERS, ENCODERS, GENERATORS, MAPPERS
    from explorer.workbench import Workbench

    checkpoints = Path(__file__).resolve().parents[2] / "checkpoints"
    if not (checkpoints / "pocket-diffusion" / "card.json").exists():
        lacking("There are no weights in checkpoints/ (python -m backends build-demo)")
    workbench = Workbench(
        *(DATASETS, EMBEDDERS, MAPPERS, GENERATORS), checkpoints=checkpoints, encoders=ENCODERS
    )
    with served(workbench) as url:
        yield url


@pytest.fixture
def open_page(chromium: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Return a function that opens the page in a fresh browser and waits for its first sweep.

    Every page fails its test if it asked another host for something or its scripts raised. The
    surface, drawn in software here, takes most of the time: it is off unless ``surface`` is set.
    """
    contexts, problems = [], []

    def watch(page: Any, base: str) -> None:
        def asked(request: Any) -> None:
            if not request.url.startswith((base, "data:", "blob:")):
                problems.append(f"asked another host: {request.url}")

        def told(message: Any) -> None:
            if "Content Security Policy" in message.text:
                problems.append(f"against the policy: {message.text}")

        page.on("request", asked)
        page.on("console", told)
        page.on("pageerror", lambda error: problems.append(f"script error: {error}"))
        page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))

    def open_(
        query: str = "",
        wait: bool = True,
        at: str = address,
        surface: bool = False,
        **options: Any,
    ) -> Any:
        page = new_page(chromium, contexts, surface, options)
        watch(page, at)
        page.goto(f"{at}?{query}")
        if wait:
            page.wait_for_selector('.ai-trial[data-state="done"]')
        return page

    yield open_
    for context in contexts:
        context.close()
    assert problems == []

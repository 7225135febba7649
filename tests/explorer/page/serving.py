"""The page served to another program, as `gradio_client` asks it."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

# Gradio's own code over a newer starlette.
OLD_NAME = pytest.mark.filterwarnings(
    "ignore:.*HTTP_422_UNPROCESSABLE_ENTITY.*:DeprecationWarning"
)


@contextmanager
def leaving_loops_open() -> Iterator[None]:
    """Collect here the event loops that Gradio leaves open, so that they blame no other test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


@contextmanager
def served(workbench: Any) -> Iterator[Any]:
    """Serve the page over a workbench and give a client of it."""
    with hosted(workbench) as blocks:
        with leaving_loops_open():
            from gradio_client import Client

            client = Client(blocks.local_url, verbose=False)
        try:
            yield client
        finally:
            with leaving_loops_open():
                client.close()
                del client


@contextmanager
def hosted(workbench: Any) -> Iterator[Any]:
    """Serve the page over a workbench and give its blocks, which know their ``local_url``."""
    from explorer import page

    with leaving_loops_open():
        blocks = page.build(workbench)
        blocks.launch(
            server_name="127.0.0.1",
            prevent_thread_lock=True,
            quiet=True,
            inbrowser=False,
            **page.launch_options(),
        )
    try:
        yield blocks
    finally:
        with leaving_loops_open():
            blocks.close(verbose=False)
            del blocks

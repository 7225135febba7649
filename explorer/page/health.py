"""What ``/healthz`` says: that the server answers, and how busy its models are.

Anybody may ask it, without a login, so it names no data, no people and no folder.
"""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from explorer.page.turns import Turns
    from explorer.workbench import Workbench

PATH = "/healthz"
PROJECT = Path(__file__).parents[2] / "pyproject.toml"


@functools.cache
def version() -> str:
    """Return the project's version, as its ``pyproject.toml`` says."""
    return tomllib.loads(PROJECT.read_text("utf-8"))["project"]["version"]


class Health:
    """The answer of one page; called on the server's own thread, so it computes nothing.

    ``status`` is "ok"; ``models`` how many are loaded; ``waiting`` how many questions wait for
    them; ``at_work`` for how many seconds the present one has had them, None where there is none.
    """

    def __init__(self, workbench: Workbench, turns: Turns) -> None:
        self._workbench, self._turns = workbench, turns

    def __call__(self) -> dict[str, Any]:
        """Return the parts of the answer beside status and version."""
        since = self._turns.at_work
        return {
            "models": self._workbench.models.loaded,
            "waiting": self._turns.waiting,
            "at_work": None if since is None else round(since, 1),
        }


def told(app: Any) -> dict[str, Any]:
    """Return what a served app says of itself; ``app``: Gradio's, or another without a page."""
    answer = {"status": "ok", "version": version()}
    page = app.get_blocks() if hasattr(app, "get_blocks") else None
    health = getattr(page, "health", None)
    return answer | (health() if health is not None else {})

"""A page without a browser: what a visitor does, and what the page would be sent."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from explorer.page.session import Session

PARTS = (
    *("session", "masthead", "notices", "dataset", "subject", "number", "category", "gallery"),
    *("mapper", "generator", "scales", "steps", "seed", "repeats", "samples", "space"),
    *("axis", "values", "options", "rois"),
    *("trial", "brain", "lab", "lecture", "footer"),
)


def visit(handlers: Any, **query: str) -> tuple[Session, dict[str, Any]]:
    """Open the page; return its session and what it was sent at once."""
    session = Session()
    return session, handlers.open_link(session, SimpleNamespace(query_params=query))


def click(**data: Any) -> Any:
    return SimpleNamespace(_data=data)


def work(handlers: Any, session: Session) -> list[dict[str, Any]]:
    return list(handlers.work(session))

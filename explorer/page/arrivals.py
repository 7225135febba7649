"""What the page shows while trials are added to a data set: how many, and the newest."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import gradio as gr

from explorer.page import links
from explorer.page.choices import Choices, settle
from explorer.page.session import Session
from explorer.watching import Watch, request_of

if TYPE_CHECKING:
    from explorer.workbench import Workbench


def server(watch: Watch) -> Callable[[dict], dict]:
    """Return the function by which a page asks what arrived."""

    def arrivals(_: dict) -> dict:
        now = watch.arrivals
        newest = now.newest and f"{now.newest.stimulus} of {now.newest.subject}"
        told = now.told.replace(f"{watch.folder}{os.sep}", "")  # visitors need no place of ours
        return asdict(now) | {"newest": newest or "", "dataset": watch.dataset, "told": told}

    return arrivals


def opening(watch: Watch | None, workbench: Workbench, wanted: dict[str, str]) -> dict[str, str]:
    """Return what a link wants; one that names no data set wants the newest trial."""
    if watch is None or "data" in wanted:
        return wanted
    return {**newest(watch, workbench), **wanted}


def newest(watch: Watch, workbench: Workbench) -> dict[str, str]:
    """Return what a link to the newest trial wants; to the data set where none came yet."""
    now = watch.arrivals
    if not now.trials:
        return {}
    if now.newest is None:
        return {"data": watch.dataset}
    asked = request_of(workbench.catalogue, watch.dataset, now.newest)
    return {
        "data": asked.dataset,
        "subject": asked.subject,
        "trial": asked.stimulus,
        "repeats": links.format_repeats(asked.repeats),
    }


def arrive(page: Any, session: Session, event: gr.EventData) -> dict[Any, Any]:
    """Show the newest trial where that is wanted; else what is shown anew, as it may be another.

    An average over repeats is another with one repeat more.
    """
    request, view, watch = page._request(session), session.view, page.watch
    if event._data.get("show"):
        session.gallery, session.mapped = (), ()
        wanted = newest(watch, page.workbench)
        choices = settle(wanted, page.workbench, Choices(request, view))
        return page._show(session, choices, everything=True)
    if request.dataset != watch.dataset:
        return {}
    session.gallery, session.mapped = (), ()
    return page._show(session, Choices(request, view), everything=True)

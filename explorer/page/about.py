"""What head and foot of a page say: the study, the link, whose data these are. No Gradio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from explorer.page import links
from explorer.request import Request, View

if TYPE_CHECKING:
    from explorer.workbench import Workbench

REPEAT_SPLIT = (
    "are held-out repeats of images that the decoder was trained on, not new images; scores on "
    "them say less than scores on new images."
)


def masthead(workbench: Workbench, request: Request, view: View) -> dict[str, Any]:
    """Return the study, whether it is simulated, and the link to what is shown."""
    study = workbench.catalogue.dataset(request.dataset)
    row = workbench.catalogue.gallery(request.dataset, request.subject).loc[request.stimulus]
    return {
        "title": study.title,
        "simulated": bool(study.simulated),
        "note": study.note,
        "link": links.query(request, view),
        "trial": [request.dataset, request.subject, request.stimulus],
        "number": int(row["number"]),
        "tab": f"{row['caption'] or request.stimulus} · {request.subject}",
    }


def footer(workbench: Workbench, request: Request) -> dict[str, Any]:
    """Return whose data these are and what must be known about them."""
    study = workbench.catalogue.dataset(request.dataset)
    lines = [
        ("Data", study.title),
        ("Note", study.note),
        ("Test trials", REPEAT_SPLIT if study.split_unit == "repeat" else ""),
        ("Cite", study.citation),
        ("Licence", study.licence),
    ]
    return {"lines": [line for line in lines if line[1]]}

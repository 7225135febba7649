"""One's own picture: how it reaches the server, and the panel about it.

A browser reduces it and sends it inside an ordinary question, so no route takes files. It stays in
the memory of that browser's session, one at a time, and goes with it or after `SECONDS`.
"""

from __future__ import annotations

import base64
import binascii
import math
import time
from typing import TYPE_CHECKING, Any

from explorer.brain.maps import parcellation_of
from explorer.evidence import own
from explorer.images import LARGEST, read_picture
from explorer.page.brain import payload
from explorer.page.lab_trial import Parts, format_rank, parcel_names, rounded, scores_of
from explorer.page.links import format_number
from explorer.page.pictures import data_uri
from explorer.page.session import Session
from explorer.request import Request, View
from explorer.types import UserError

if TYPE_CHECKING:
    import numpy as np

    from explorer.brain.parcels import VoxelMap
    from explorer.workbench import Workbench

SIDE = LARGEST  # pixels of the longer side that a browser sends
MOST_TEXT = 3_000_000  # characters of a picture as text: below the edge's bound of a question
SECONDS = 3600.0  # until a picture is forgotten
FORMS = {"data:image/png;base64,": b"\x89PNG\r\n", "data:image/jpeg;base64,": b"\xff\xd8\xff"}
NAME = "Your picture"
DO = "choose another file"


def receive(session: Session, text: object) -> None:
    """Keep a picture, as a browser wrote it, in a session; "" takes the present one back.

    What is no PNG or JPEG within the bounds raises `UserError`, and what was kept stays.
    """
    session.own, session.own_at = read_own(text) if text else b"", time.monotonic()


def kept(session: Session) -> bytes:
    """Return the picture of a session, b"" for none; one that is too old is forgotten."""
    if session.own and time.monotonic() - session.own_at > SECONDS:
        session.own = b""
    return session.own


def read_own(text: object) -> bytes:
    """Return the bytes of a picture that was sent as a ``data:`` address, checked.

    How much it would unpack to is read from its head before anything is unpacked.
    """
    text = text if isinstance(text, str) else ""
    if len(text) > MOST_TEXT:
        raise UserError(
            f"{NAME} has {len(text):,} characters as it was sent, of at most {MOST_TEXT:,}; "
            f"{DO}, or make it smaller."
        )
    form = next((form for form in FORMS if text.startswith(form)), None)
    if form is None:
        raise UserError(f"{NAME} was not sent as PNG or JPEG; {DO}.")
    try:
        content = base64.b64decode(text[len(form) :], validate=True)
    except (binascii.Error, ValueError):
        raise UserError(f"{NAME} arrived damaged; choose it again.") from None
    if not content.startswith(FORMS[form]):
        raise UserError(f"{NAME} is not the PNG or JPEG that it is said to be; {DO}.")
    picture(content)  # what cannot be unpacked is told now
    return content


def picture(content: bytes) -> np.ndarray:
    """Return a kept picture, uint8 (H, W, 3), of at most `SIDE` pixels a side."""
    return read_picture(content, NAME, DO, most=SIDE * SIDE)


# -------------------------------------------------------------------------------------- the panel


def own_settings(bench: Workbench, request: Request, view: View) -> dict[str, Any]:
    """Return how a browser may send a picture."""
    return {"side": SIDE, "most": MOST_TEXT}


def own_view(bench: Workbench, request: Request, view: View, content: bytes = b"") -> Parts:
    """Send the predicted brain of a picture, and what each mapper decodes from it."""
    bench.models.encoder(request.dataset, request.subject)  # without one a sentence says why
    if not content:
        yield {"src": ""}, "", 1.0
        return
    chosen = picture(content)
    names = own.own_mappers(bench, request)
    shown: dict[str, Any] = {"src": data_uri(chosen, 320), "cards": []}
    yield shown, "Predicting the brain", 0.0
    brain = own.predicted_brain(bench, request, chosen, view.atlas)
    names_ = parcel_names(parcellation_of(bench, request.dataset, request.subject, view.atlas))
    shown |= {
        "sentence": brain.sentence,
        "brain": payload(bench, request, view, brain.shown),
        "rows": _rows(brain.shown, names_),
        "seed": str(request.seed),
        "cards": [{"mapper": name, "state": "empty"} for name in names],
    }
    yield shown, "Decoding the prediction", 0.1
    for i, found in enumerate(own.own_decodings(bench, request, chosen, brain.betas), start=1):
        cards = [*shown["cards"]]
        cards[i - 1] = _card(found, bench)
        shown = {**shown, "cards": cards}
        yield shown, f"Decoded by {i} of {len(names)} mappers", 0.1 + 0.9 * i / len(names)


def _rows(shown: VoxelMap, names: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {"parcel": r["parcel"], "label": names[r["parcel"]], "voxels": int(r["voxels"])}
        | {"predicted": rounded(r["mean"])}
        for r in shown.table.to_dict("records")
        if r["voxels"]
    ]


def _card(found: own.OwnDecoding, bench: Workbench) -> dict[str, Any]:
    guided = found.generator and bench.catalogue.generator_class(found.generator).guided
    ranked = not math.isnan(found.rank)
    return {
        "mapper": found.mapper,
        "state": "none" if found.image is None else "done",
        "space": found.space,
        "src": "" if found.image is None else data_uri(found.image),
        "made": found.provenance,
        "generator": found.generator,
        "scale": format_number(found.scale) if guided else "",
        "similarity": rounded(found.similarity, 3),
        "rank": f"{format_rank(found.rank)} of {found.n}" if ranked else "",
        "scores": scores_of(found.scores),
        "reason": found.reason,
    }

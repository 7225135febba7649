"""What the trial view and the gallery show, as values that the browser can draw without markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from explorer.decoding import card_identification, undecoded
from explorer.evidence.attention import attention_of
from explorer.figures import heat_overlay
from explorer.finished import TYPICAL_SCALE, sampled_scale
from explorer.metrics import written
from explorer.opening import shipped_trials
from explorer.page.links import format_number, format_repeats
from explorer.page.pictures import THUMBNAIL, data_uri, found_uri, shown_uri
from explorer.request import Request, View

if TYPE_CHECKING:
    import pandas as pd

    from explorer.decoding import Decoding
    from explorer.finished import Frame
    from explorer.workbench import Workbench

GALLERY_PAGE = 15
MADE = {
    "generated": "",
    "retrieved": "Retrieved photograph, not a reconstruction",
    "published": "Published by the authors, not made here",
}
LONG = 60.0  # seconds: what takes longer is announced before it begins
WORTH_TELLING = 5.0  # seconds: no time is told of what is over sooner


def drawn_request(request: Request, workbench: Workbench) -> Request:
    """Return the request that is drawn: one picture where the guidance scale changes nothing."""
    if request.generator and not workbench.catalogue.generator_class(request.generator).guided:
        return replace(request, scales=request.scales[:1])
    return request


def opening(request: Request, workbench: Workbench) -> dict[str, Any]:
    """Return the trial view before anything is decoded: ground truth and empty frames."""
    gallery = workbench.catalogue.gallery(request.dataset, request.subject)
    row = gallery.loc[request.stimulus]
    drawn = drawn_request(request, workbench)
    guided = len(drawn.scales) > 1 or drawn == request
    trials = f"{int(row['repeats'])} repeats" if row["repeats"] > 1 else "1 trial"
    which = f"repeat {format_repeats(request.repeats)}"
    kicker = [
        f"Trial {int(row['number'])} of {len(gallery)}",
        request.subject,
        which if request.repeats else f"average of {trials}" if row["repeats"] > 1 else trials,
        request.stimulus,
    ]
    labels = [f"scale {format_number(s)}" for s in drawn.scales] if guided else [request.generator]
    hints = ["without the brain" if guided and s == 0 else "" for s in drawn.scales]
    rows = [row_label(request.axis, value) for value in request.values] or [""]
    made = _made(request, workbench)
    nearest = min(range(len(drawn.scales)), key=lambda i: abs(drawn.scales[i] - TYPICAL_SCALE))
    return {
        "trial": {
            "stimulus": request.stimulus,
            "kicker": " · ".join(kicker),
            "caption": workbench.catalogue.without_picture(request.dataset, request.stimulus)
            or row["caption"]
            or f"No caption: {request.stimulus}",
            "src": shown_uri(workbench.catalogue, request.dataset, request.stimulus),
        },
        "cells": [
            _cell(label, hint, made, row)
            for row in rows
            for label, hint in zip(labels, hints, strict=True)
        ],
        "rows": rows if request.axis else [],
        "compare": nearest,
        "decoding": None,
        "samples": samples(drawn, workbench),
        "progress": progress("waiting", "Decoding…"),
    }


def samples(
    drawn: Request, workbench: Workbench, frames: Sequence[Frame] = ()
) -> dict[str, Any] | None:
    """Return the strip of the mapper's samples, empty frames before they are drawn, or None."""
    if drawn.samples == 1:
        return None
    made = _made(drawn, workbench)
    cells = [_cell(f"sample {i + 1}", "", made) for i in range(drawn.samples)]
    for frame in frames:
        cells[frame.index] = with_frame(cells[frame.index], frame)
    guided = workbench.catalogue.generator_class(drawn.generator).guided
    scale = f" at scale {format_number(sampled_scale(drawn))}" if guided else ""
    return {
        "heading": f"{drawn.samples} samples of the decoder {drawn.mapper}{scale}",
        "sentence": (
            "Each draws another embedding that the decoder holds for possible given these betas, "
            "from the same noise: what they share it is sure of, where they differ it is not."
        ),
        "cells": cells,
    }


def row_label(axis: str, value: float) -> str:
    """Return what stands above a row of pictures, e.g. ``seed 3``."""
    return f"{option_label(axis)} {format_number(value)}"


def option_label(name: str) -> str:
    """Return an option's name as people write it."""
    return name.replace("_", " ")


def place(request: Request, frame: Frame) -> int:
    """Return which of the cells shows a frame of a drawn request."""
    return frame.row * len(request.scales) + frame.index


def _made(request: Request, workbench: Workbench) -> str:
    """Return how a request's pictures come about, one of `MADE`."""
    if not request.generator:
        return "generated"
    return workbench.catalogue.generator_class(request.generator).provenance


def _cell(label: str, hint: str, made: str, row: str = "") -> dict[str, Any]:
    return {
        "label": label,
        "name": f"{label}, {row}" if row else label,
        "hint": hint,
        "made": made,
        "beside": MADE[made],
        "near": [],
        "src": "",
        "state": "empty",
        "note": "",
        "fraction": 0.0,
        "scores": [],
    }


def progress(state: str, text: str, fraction: float = 0.0) -> dict[str, Any]:
    """Return the line above the pictures.

    ``state`` is waiting, running, done, stopped or failed; ``fraction`` of the work in [0, 1].
    """
    return {"state": state, "text": text, "fraction": float(fraction)}


def kept(workbench: Workbench, request: Request, pictures: int) -> dict[str, Any]:
    """Return what is said of pictures that were all there: that nothing was drawn now."""
    ready = shipped_trials(workbench, request.dataset, request.subject)
    text = f"{pictures} kept from before, none drawn now"
    if request.stimulus in ready:
        text = f"{pictures} kept, none drawn now: one of {len(ready)} random trials that ship"
    return progress("done", text, 1.0)


def announced(seconds: float, share: float, made: str) -> dict[str, Any]:
    """Return what is said before pictures are drawn, with how long it takes where that is long.

    ``share``: of the pictures that are there already; ``made``: one of `MADE`.
    """
    text = "Preparing the pictures…"
    if made == "retrieved":
        text = "Looking through the gallery; the first time takes longest…"
    if seconds > LONG:
        text = f"This takes {duration(seconds)}. Stop keeps what is finished."
    return progress("running", text, share)


def running(
    cells: Sequence[Mapping[str, Any]], passed: float = 0.0, begun: float = 0.0, told: float = 0.0
) -> dict[str, Any]:
    """Return how far a sweep is, by the steps of all its pictures, and how long it still takes.

    ``passed``: seconds since the share ``begun`` of the work was done; ``told``: what was expected
    in all, which counts until enough is done to tell better.
    """
    done = sum(cell["state"] == "done" for cell in cells)
    share = sum(cell["fraction"] for cell in cells) / len(cells)
    part = (share - begun) / (1 - begun) if begun < 1 else 1.0
    left = max(0.0, told - passed) if part < 0.1 else passed * (1 - part) / part
    after = f", {duration(left)} left" if max(told, passed + left) > WORTH_TELLING else ""
    return progress("running", f"Reconstructing: {done} of {len(cells)} finished{after}", share)


def duration(seconds: float) -> str:
    """Return about how long something takes, as a person would say it."""
    if seconds < 55:
        whole = max(1, round(seconds)) if seconds < 10 else 5 * round(seconds / 5)
        return f"about {whole} s"
    if seconds < 55 * 60:
        return f"about {max(1, round(seconds / 60))} min"
    return f"about {seconds / 3600:.1f} h"


def with_frame(
    cell: Mapping[str, Any], frame: Frame, near: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Return a cell with the newest picture of its scale; ``near``: see `neighbours`."""
    return {
        **cell,
        "beside": frame.note or cell["beside"],
        "near": list(near),
        "src": found_uri(frame.image, cell["made"])
        if frame.done
        else data_uri(frame.image, quick=True),
        "state": "done" if frame.done else "running",
        "note": "" if frame.done else f"{frame.step} / {frame.steps}",
        "fraction": 1.0 if frame.done else frame.step / frame.steps,
        "scores": [[name, written(value)] for name, value in frame.scores.items()],
    }


def neighbours(frame: Frame, request: Request, workbench: Workbench) -> list[dict[str, Any]]:
    """Return the pictures of a gallery that a frame rests on, best first.

    With the pictures themselves where they are stimuli of the study.
    """
    stimuli = workbench.catalogue.dataset(request.dataset).stimuli.index
    own = (
        request.generator not in workbench.catalogue.sources
    )  # else the gallery is somebody's folder
    return [
        {
            "picture": one.picture,
            "label": one.label,
            "similarity": written(one.similarity),
            "src": shown_uri(workbench.catalogue, request.dataset, one.picture, THUMBNAIL)
            if own and one.picture in stimuli
            else "",
        }
        for one in frame.neighbours
    ]


def stopped(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Return a cell as it stays when the sweep is stopped; a finished picture is kept."""
    if cell["state"] == "done":
        return dict(cell)
    return {**cell, "state": "stopped", "note": "not finished" if cell["src"] else "not begun"}


def decoded(decoding: Decoding, request: Request, workbench: Workbench) -> dict[str, Any]:
    """Return rank, chance and neighbours of a decoded trial."""
    gallery = workbench.catalogue.gallery(request.dataset, request.subject)
    space = decoding.space
    closer = f"Of {decoding.n} test images, {decoding.rank - 1} are closer"
    if decoding.rank <= 2:
        closer = f"{('None', 'One')[decoding.rank - 1]} of {decoding.n} test images is closer"
    kind = "cosine similarity" if space.unit_norm else "correlation"
    return {
        "decoder": _decoder(request, workbench),
        "rank": decoding.rank,
        "n": decoding.n,
        "chance": format((decoding.n + 1) / 2, "g"),
        "sentence": (
            f"{closer} to the decoded {space.model} embedding than the one that was shown ({kind} "
            f"{written(decoding.similarity)}; retrieval margin "
            f"{written(decoding.margin)})."
        ),
        "neighbours": [
            {
                "stimulus": stimulus,
                "caption": str(gallery.loc[stimulus, "caption"]),
                "src": shown_uri(workbench.catalogue, request.dataset, stimulus, THUMBNAIL),
                "similarity": written(similarity),
                "shown": stimulus == request.stimulus,
            }
            for stimulus, similarity in decoding.neighbours
        ],
    }


def _decoder(request: Request, workbench: Workbench) -> str:
    """Return which decoder is shown and how well it identifies test images, in one sentence."""
    offer = workbench.catalogue.offer(request.dataset, request.subject, request.mapper)
    card = offer.card
    others = len(card.subjects) - 1 if card else 0
    together = f" (trained on {others} more subject{'s' * (others > 1)})" * (others > 0)
    figure = "its two-way identification has not been measured"
    if found := card_identification(workbench, request):
        share, chance = f"{found['two-way identification']:.1%}", f"{found['chance']:.0%}"
        where = f" of {card.dataset}" if offer.elsewhere else ""
        figure = f"two-way identification {share} over {found['N']} test images{where}"
        figure += f", chance {chance}"
        figure = figure.replace("%", "\N{NO-BREAK SPACE}%")
    return f"Decoder {request.mapper}{together}: {figure}."


def attention(workbench: Workbench | None, request: Request, view: View) -> dict[str, Any]:
    """Return what lies over the shown image; ``workbench`` None: before anything is computed.

    ``state`` is off, waiting, done, or none, where the sentence says why there is none.
    """
    value = {"state": "off", "src": "", "ends": [], "sentence": ""}
    if view.attention == "off":
        return value
    if workbench is None:
        return {**value, "state": "waiting"}
    if reason := undecoded(workbench, request):
        return {**value, "state": "none", "sentence": reason}
    found = attention_of(workbench, request)
    height, width = workbench.catalogue.image(request.dataset, request.stimulus).shape[:2]
    return {
        "state": "done",
        "src": data_uri(heat_overlay(found.cells, height, width), form="png"),
        "ends": [f"−{found.limit:.2g}", f"{found.limit:.2g}"],
        "sentence": (
            "What this decoding rests on, by occlusion: red where similarity to what was decoded "
            f"({written(found.similarity)}) falls when that part of the image is hidden "
            "behind its mean colour, blue where it rises. For this decoder and trial."
        ),
    }


def stimuli(workbench: Workbench, request: Request, category: str) -> pd.DataFrame:
    """Return the gallery's rows of one category ("" is all)."""
    gallery = workbench.catalogue.gallery(request.dataset, request.subject)
    return gallery[gallery["category"] == category] if category else gallery


def categories(workbench: Workbench, request: Request) -> list[str]:
    """Return the categories among the test stimuli, in alphabetical order."""
    found = workbench.catalogue.gallery(request.dataset, request.subject)["category"].unique()
    return sorted(str(category) for category in found if category)


def page_of(rows: pd.DataFrame, stimulus: str) -> int:
    """Return the gallery page, from 0, that holds a stimulus; 0 where it is filtered out."""
    return rows.index.get_loc(stimulus) // GALLERY_PAGE if stimulus in rows.index else 0


def gallery(
    workbench: Workbench, request: Request, rows: pd.DataFrame, page: int
) -> dict[str, Any]:
    """Return one page of stimuli with their pictures."""
    pages = max(1, -(-len(rows) // GALLERY_PAGE))
    page = min(max(0, page), pages - 1)
    first = page * GALLERY_PAGE
    shown = rows.iloc[first : first + GALLERY_PAGE]
    return {
        "items": [
            {
                "stimulus": stimulus,
                "number": int(row["number"]),
                "caption": str(row["caption"]),
                "src": shown_uri(workbench.catalogue, request.dataset, stimulus, THUMBNAIL),
            }
            for stimulus, row in shown.iterrows()
        ],
        "page": page,
        "pages": pages,
        "first": first + 1,
        "last": first + len(shown),
        "total": len(rows),
        "chosen": request.stimulus,
    }


def step(rows: Sequence[str], stimulus: str, by: int) -> str:
    """Return the stimulus ``by`` places further round the list, or the first."""
    rows = list(rows)
    return rows[(rows.index(stimulus) + by) % len(rows)] if stimulus in rows else rows[0]

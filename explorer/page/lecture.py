"""The lecture: five steps from a brain to what it is worth, on one typical trial, in large type.

Always the same trial for a subject and mapper: the one whose decoding is the median of the test
trials. Nothing is chosen to look good.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from explorer import stopping
from explorer.brain.maps import parcellation_of
from explorer.brain.parcels import voxel_map
from explorer.decoding import decode, decoded_space, request_betas, similarities
from explorer.evidence import controls, lesions, standing
from explorer.metrics import written
from explorer.page import about, links
from explorer.page.brain import payload, readable
from explorer.page.endpoint import hung_up, who
from explorer.page.lab_trial import first_parcel, format_rank, rounded
from explorer.page.pictures import data_uri
from explorer.page.session import Session
from explorer.page.turns import Turns
from explorer.request import LECTURE_STEPS, Request, View
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.workbench import Workbench

Updates = dict[Any, Any]
VALUES = 128  # of an embedding that are drawn; more do not fit a slide


class Lecture:
    """The walkthrough's event handlers over one workbench.

    Parameters
    ----------
    workbench
        Answers every question.
    ui
        The page's components by name.
    """

    def __init__(self, workbench: Workbench, ui: SimpleNamespace, turns: Turns) -> None:
        self.workbench, self.ui, self.turns = workbench, ui, turns

    def renew(self, session: Session) -> Updates:
        """Return the walkthrough for what the session shows; nothing is computed here."""
        key = lecture_key(session.request) if session.view.lecture else ()
        if key == session.lecture.key:
            return {}
        waiting = {"step": session.view.lecture, "state": "waiting" if key else "off"}
        session.lecture.begin(key, {**waiting, "steps": {}, "sentence": ""})
        return {self.ui.lecture: session.lecture.shown}

    def go(self, session: Session, event: gr.EventData) -> Updates:
        """Open a step, or close the walkthrough: 0."""
        if session.request is None:
            return {}
        step = links.parse_whole(event._data.get("lecture"), "The step of the lecture")
        session.view = replace(session.view, lecture=min(max(0, step), LECTURE_STEPS))
        masthead = about.masthead(self.workbench, session.request, session.view)
        return {self.ui.masthead: masthead, **self.renew(session)}

    def work(self, session: Session) -> Iterator[Updates]:
        """Compute the steps, the open one first, and send each when it is there."""
        ticket = session.lecture.take()
        if ticket is None or session.request is None:
            return

        def unwanted() -> bool:
            return session.lecture.ticket != ticket or hung_up()

        try:
            with self.turns.held(who(session), "lecture", unwanted), stopping.until(unwanted):
                request = typical(self.workbench, session.request)
            opened = session.view.lecture or 1
            order = [*range(opened, LECTURE_STEPS + 1), *range(1, opened)]
            steps: dict[str, Any] = {}
            for number in order:
                with self.turns.held(who(session), "lecture", unwanted), stopping.until(unwanted):
                    step = STEPS[number - 1](self.workbench, request)
                steps = {**steps, str(number): step}
                done = {"steps": steps, "trial": request.stimulus}
                if not session.lecture.show(ticket, **done):
                    return
                yield {self.ui.lecture: session.lecture.shown}
            session.lecture.show(ticket, state="done")
        except stopping.StoppedError:
            return
        except UserError as error:
            if session.lecture.show(ticket, state="none", sentence=str(error)):
                yield {self.ui.lecture: session.lecture.shown}


def lecture_key(request: Request) -> tuple:
    """Return what the walkthrough depends on: any trial leads to the same one."""
    place = request.dataset, request.subject, request.mapper, request.generator, request.space
    return (*place, request.seed, request.steps, request.options)


def typical(bench: Workbench, request: Request) -> Request:
    """Return the request for the trial whose decoding is the median of the test trials.

    By similarity to the shown image, repeats averaged; of an even number the lower of the two in
    the middle, and of equals the first.
    """
    plain = replace(request, repeats=(), samples=1, axis="", values=())
    if reason := lesions.unlesioned(bench, plain):
        raise UserError(reason)
    stimuli, decoded = standing.decoded_test(bench, plain)
    values = standing.trial_values(bench, plain, stimuli, decoded, "similarity")
    middle = np.argsort(values, kind="stable")[(len(values) - 1) // 2]
    return replace(plain, stimulus=stimuli[int(middle)])


# --------------------------------------------------------------------------------------- the steps


def _brain(bench: Workbench, request: Request) -> dict[str, Any]:
    trials = bench.catalogue.trials(request.dataset, request.subject)
    mean, sd = controls.statistics(bench, request)
    betas = (request_betas(bench, request) - mean) / np.where(sd > 0, sd, 1)
    parcellation = parcellation_of(bench, request.dataset, request.subject)
    shown = voxel_map("betas", "response, SD of the training trials", betas, parcellation)
    n = len(trials.rows("test", request.stimulus))
    repeats = "one viewing" if n == 1 else f"the average of {n} viewings"
    return {
        "text": (
            f"{request.subject} looked at this image. The scanner gave {betas.size:,} numbers: "
            f"how strongly each small piece of cortex responded, {repeats}. That is all the "
            "computer gets."
        ),
        "pictures": [
            _picture(bench.catalogue.image(request.dataset, request.stimulus), "What was seen")
        ],
        "brain": payload(bench, request, View(), shown),
    }


def _embedding(bench: Workbench, request: Request) -> dict[str, Any]:
    decoding, space = decode(bench, request), decoded_space(bench, request)
    stimuli = list(bench.catalogue.gallery(request.dataset, request.subject).index)
    gallery = bench.models.embed(request.dataset, stimuli, space)
    true = gallery[stimuli.index(request.stimulus)]
    others = similarities(decoding.embedding[None], gallery, space)[0]
    others = np.delete(others, stimuli.index(request.stimulus))
    similar, other = written(decoding.similarity), ""
    if len(others):
        other = f" To another image's it is {written(float(np.median(others)))}."
    n = bench.catalogue.trials(request.dataset, request.subject).rows("train").size
    rows = [np.ravel(row)[:VALUES].astype(float) for row in (true, decoding.embedding)]
    return {
        "text": (
            f"A decoder ({request.mapper}), trained on {n:,} other trials, turns the response "
            f"into {space.size:,} numbers that describe an image: an embedding. Its similarity to "
            f"that of the image that was seen is {similar}.{other}"
        ),
        "strips": [
            {"label": label, "values": [rounded(v, 3) for v in row / np.abs(row).max()]}
            for label, row in zip(("of the image", "from the brain"), rows, strict=True)
        ],
    }


def _search(bench: Workbench, request: Request) -> dict[str, Any]:
    decoding = decode(bench, request)
    return {
        "text": (
            f"Which of {decoding.n} images was it? We look for the nearest embedding. The image "
            f"that was seen comes {_ordinal(decoding.rank)}; by chance its place would be "
            f"{(decoding.n + 1) / 2:g} on average. No image is made yet."
        ),
        "rank": {"rank": decoding.rank, "n": decoding.n},
        "pictures": [
            _picture(bench.catalogue.image(request.dataset, name), written(value))
            | {"chosen": name == request.stimulus}
            for name, value in decoding.neighbours
        ],
    }


def _image(bench: Workbench, request: Request) -> dict[str, Any]:
    one = controls.at_scale(bench, request)
    pictures = [
        _picture(bench.catalogue.image(request.dataset, request.stimulus), "What was seen")
    ]
    drawn = controls.own_picture(bench, one)
    pictures.append(_picture(drawn.image, f"From the brain ({request.generator})"))
    nothing = controls.control(bench, one, controls.NONE)
    if nothing.image is not None:
        pictures.append(_picture(nothing.image, "From no brain at all"))
    return {
        "text": (
            "A generator draws an image from the embedding. It always draws something that looks "
            "like an image, also from nothing: what both drawings share is not from the brain."
            if nothing.image is not None
            else f"A generator makes an image from the embedding. {nothing.reason}"
        ),
        "pictures": pictures,
    }


def _lesion(bench: Workbench, request: Request) -> dict[str, Any]:
    table = lesions.lesion_effects(bench, request).table
    (first,) = first_parcel(table)
    rows = table[table["voxels"] > 0]
    name = rows["name"][rows["parcel"] == first].iloc[0]
    both = tuple(rows["parcel"][rows["name"] == name])  # of the two hemispheres, where it has them
    how = lesions.Lesion(both)
    found = lesions.lesion(bench, request, how)
    drawn = lesions.lesion_pictures(bench, request, how)
    said = readable(name) + " on both sides" * (len(both) > 1)
    changed = f"Its similarity to the image goes from {_before_after(found, 'similarity')}."
    if found.intact.n > 1:
        ranks = f"{format_rank(found.intact.rank)} to {format_rank(found.lesioned.rank)}"
        margins = _before_after(found, "margin")
        changed = f"The rank of the image goes from {ranks}, its margin from {margins}."
    return {
        "text": (
            f"What did the decoder rest on? We silence one parcel, {said}, and decode again. "
            f"{changed} That is about this decoder; the brain may know it elsewhere too."
        ),
        "pictures": [
            _picture(drawn.intact.image, "Intact"),
            _picture(drawn.lesioned.image, f"Without {readable(name)}"),
            _picture(drawn.difference, "Difference"),
        ],
    }


def _before_after(found: lesions.Lesioned, what: str) -> str:
    intact, lesioned = (getattr(place, what) for place in (found.intact, found.lesioned))
    return f"{written(intact)} to {written(lesioned)}"


STEPS = (_brain, _embedding, _search, _image, _lesion)


def _picture(image: np.ndarray, label: str) -> dict[str, Any]:
    return {"src": data_uri(image), "label": label, "chosen": False}


def _ordinal(rank: float) -> str:
    words = {1: "first", 2: "second", 3: "third"}
    return words.get(rank, f"{rank:g}th")

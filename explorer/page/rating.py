"""The rating page: one picture at a time, two answers to each, every answer kept at once.

What a browser is sent tells neither which method made a picture nor which image is the right one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from explorer.evidence.rating import RATING, Asked, Method, Ratings
from explorer.page import TITLE
from explorer.page.pictures import data_uri
from explorer.types import UserError

if TYPE_CHECKING:
    import numpy as np

SIDE = 512  # pixels of a picture's longer side
HIDDEN = {"api_visibility": "private", "show_progress": "hidden", "queue": False}


class Rating:
    """The page's event handlers; a browser's state is its rater's name alone.

    Parameters
    ----------
    ratings
        Asks and keeps.
    methods
        Whose pictures are shown.
    image
        Stimulus -> the shown image, uint8 (H, W, 3).
    raters
        Who may rate; () for anybody.
    """

    def __init__(
        self,
        ratings: Ratings,
        methods: Sequence[Method],
        image: Callable[[str], np.ndarray],
        raters: Sequence[str] = (),
    ) -> None:
        self.ratings, self.raters, self._image = ratings, tuple(raters), image
        self._methods = {method.name: method for method in methods}

    def open(self, request: gr.Request) -> tuple[str, dict[str, Any]]:
        """Show the first question to who logged in, and else ask for a name."""
        user = getattr(request, "username", None) or ""
        if user:
            return self._begun(user)
        return "", {"stage": "name", "raters": list(self.raters), "problem": ""}

    def begin(
        self, rater: str, event: gr.EventData, request: gr.Request
    ) -> tuple[str, dict[str, Any]]:
        """Take a name, unless a login gave one."""
        user = getattr(request, "username", None) or ""
        return self._begun(user or str(event._data.get("rater", "")).strip())

    def answer(self, rater: str, event: gr.EventData, request: gr.Request) -> dict[str, Any]:
        """Keep an answer and show what comes next; a problem is told beside the same question."""
        rater, data, problem = getattr(request, "username", None) or rater, event._data, ""
        try:
            self._check(rater)
            order, kind = data.get("order"), data.get("kind")
            value, seconds = data.get("value"), data.get("seconds")
            self.ratings.answer(rater, order, kind, value, seconds)
        except UserError as error:
            problem = str(error)
        try:
            self._check(rater)
            return self._shown(rater, problem)
        except UserError as error:  # nothing can be asked either
            return {"stage": "name", "raters": list(self.raters), "problem": str(error)}

    def _begun(self, rater: str) -> tuple[str, dict[str, Any]]:
        try:
            self._check(rater)
            return rater, self._shown(rater)
        except UserError as error:
            return "", {"stage": "name", "raters": list(self.raters), "problem": str(error)}

    def _check(self, rater: str) -> None:
        if self.raters and rater not in self.raters:
            raise UserError(
                f"{rater[:40] or 'Nobody'!r} is not among the raters ({', '.join(self.raters)})."
            )

    def _shown(self, rater: str, problem: str = "") -> dict[str, Any]:
        asked = self.ratings.next(rater)
        if asked is None:
            return {"stage": "done", "rater": rater, "answers": 2 * len(self.ratings.questions)}
        return {
            "stage": asked.kind,
            "rater": rater,
            "order": asked.order,
            "done": asked.done,
            "of": asked.of,
            "problem": problem,
            "pictures": self._pictures(asked),
        }

    def _pictures(self, asked: Asked) -> Mapping[str, str]:
        question = asked.question
        made = data_uri(self._methods[question.method].pictures[question.stimulus](), SIDE)
        if asked.kind == RATING:
            return {"made": made, "shown": data_uri(self._image(question.stimulus), SIDE)}
        sides = [question.stimulus, question.distractor][:: 1 if asked.left else -1]
        left, right = (data_uri(self._image(stimulus), SIDE) for stimulus in sides)
        return {"made": made, "left": left, "right": right}


def build_rating(
    ratings: Ratings,
    methods: Sequence[Method],
    image: Callable[[str], np.ndarray],
    raters: Sequence[str] = (),
) -> gr.Blocks:
    """Return the page that asks; launch it with ``**launch_options()``, as the other."""
    from explorer.page.layout import component

    do = Rating(ratings, methods, image, raters)
    with gr.Blocks(title=f"{TITLE}: rating", analytics_enabled=False, fill_width=True) as page:
        rater = gr.State("")
        shown = component("rating", None)
        page.load(do.open, None, [rater, shown], **HIDDEN)
        shown.begin(do.begin, [rater], [rater, shown], **HIDDEN)
        shown.answer(do.answer, [rater], [shown], **HIDDEN)
    return page.queue(api_open=False)

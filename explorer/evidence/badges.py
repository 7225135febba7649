"""What stands in a trial's head beside its caption: figures and a word that say how to take it.

Where the trial stands among all test trials, whether the decoder says nearly the same of every
image, how near a training image is to what was decoded, and on what pictures the generator was
trained where those are not the study's own. One that cannot be had is left out.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from explorer.answers import recalled, remember
from explorer.decoding import decided_answer, decode
from explorer.drawing import trained_on, whose_pictures
from explorer.evidence import standing
from explorer.metrics import written
from explorer.request import Request
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.workbench import Workbench


def badges(bench: Workbench, request: Request) -> list[dict[str, Any]]:
    """Return the badges of a decoded trial.

    Each has a ``label``, ``choices`` (name, text, share in [0, 1] for its meter or None for no
    meter, sentence), the first one shown, and ``warn`` where the figure is a reason for doubt.
    """
    if (known := kept_badges(bench, request)) is not None:
        return known
    made, before = {}, _decided(bench, request)
    for make in (_stands, _collapses, _resembles):
        with contextlib.suppress(UserError):
            made[make] = make(bench, request)
    found = [*made.values(), *_whose(bench, request)]
    decided = _decided(bench, request)
    # without the first there are no weights here; else a trial arrived meanwhile
    if _stands in made and decided and decided == before:
        bench.caches.answers.put(_key(decided), found)
        remember(bench, decided, {"badges": found})
    return found


def kept_badges(bench: Workbench, request: Request) -> list[dict[str, Any]] | None:
    """Return the badges that were made before, from memory or a store, None where none were."""
    if not (decided := _decided(bench, request)):
        return None
    known = bench.caches.answers.peek(_key(decided))
    if known is None:
        known = recalled(bench, decided, lambda kept: [dict(one) for one in kept["badges"]])
        if known is not None:
            bench.caches.answers.put(_key(decided), known)
    return known


def _decided(bench: Workbench, request: Request) -> dict[str, Any]:
    return decided_answer(bench, request, "badges", request.generator) if bench.stores else {}


def _key(decided: dict[str, Any]) -> str:
    return json.dumps(decided, sort_keys=True)


def _stands(bench: Workbench, request: Request) -> dict[str, Any]:
    choices = []
    for name in standing.RANKED_BY:
        found = standing.standing(bench, request, name)
        text = f"better than {found.percentile:.0f} % of test trials"
        choices.append([name, text, found.percentile / 100, found.sentence])
    return {"label": "This trial", "choices": choices, "warn": False}


def _collapses(bench: Workbench, request: Request) -> dict[str, Any]:
    found = standing.collapse(bench, request)
    share = found.predicted / found.true
    text = f"{found.predicted:.0f} of {found.true:.0f} dimensions"
    choice = ["", text, min(1.0, share), found.sentence]
    return {"label": "Variety", "choices": [choice], "warn": share < standing.COLLAPSED}


def _resembles(bench: Workbench, request: Request) -> dict[str, Any]:
    found = standing.nearest_training(bench, request)
    own = decode(bench, request).similarity
    sentence = (
        f"The training image nearest to what was decoded, {found.picture}, has similarity "
        f"{written(found.similarity)} to it, the shown image {written(own)}: a decoder "
        "that only recalls training images would be nearer to those."
    )
    share = min(1.0, max(0.0, found.similarity))
    choice = ["", f"similarity {written(found.similarity)}", share, sentence]
    return {"label": "Nearest training image", "choices": [choice], "warn": found.similarity > own}


def _whose(bench: Workbench, request: Request) -> list[dict[str, Any]]:
    sentence = whose_pictures(bench, request.generator, request.dataset)
    if not sentence:
        return []
    known = trained_on(bench, request.generator)
    choice = ["", f"trained on {known.pictures}", None, sentence]
    return [{"label": "Generator", "choices": [choice], "warn": known.foreign(request.dataset)}]

"""A catalogue, its models and what was computed with them. No Gradio.

A `Workbench` keeps no state of any visitor: an answer depends on the `Request` and `View` that
came with the question. The ways of a request are functions that take it: `explorer.decoding`,
`explorer.brain.maps`, `explorer.drawing`, and the evidence above them. Caches are locked per key,
so two browsers never load one model twice; models are not, so whoever serves several visitors
runs one question about a model at a time. Heavy libraries are imported by the first question that
needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from explorer.brain.predicted import PREDICTIONS
from explorer.cache import Cache
from explorer.catalogue import Catalogue
from explorer.choosing import uses_betas
from explorer.models import Models
from explorer.offers import models_behind
from explorer.protocols import Dataset
from explorer.request import Request, View
from explorer.store import Store
from explorer.types import Trials

PICTURE_BYTES = ARRAY_BYTES = 256 * 2**20
THUMBNAIL_BYTES = 32 * 2**20
KEPT_MAPS, KEPT_ANSWERS, KEPT_EMBEDDINGS = 128, 1024, 1024


@dataclass(frozen=True, eq=False)
class Caches:
    """What was computed once, each kind by the keys of whoever computes it.

    ``shown``: embeddings of shown pictures, one each, and ``seen`` of drawn ones. ``limits``: of
    colours. ``paces``: seconds a step of a picture, by what draws it. ``answers``: small things,
    counted. ``pictures`` and ``arrays`` are weighed by their bytes, and so are ``thumbnails`` with
    scores.
    """

    shown: Cache = field(default_factory=lambda: Cache(KEPT_EMBEDDINGS))
    seen: Cache = field(default_factory=lambda: Cache(KEPT_EMBEDDINGS))
    maps: Cache = field(default_factory=lambda: Cache(KEPT_MAPS))
    limits: Cache = field(default_factory=lambda: Cache(KEPT_MAPS))
    answers: Cache = field(default_factory=lambda: Cache(KEPT_ANSWERS))
    paces: dict[tuple, float] = field(default_factory=dict)
    pictures: Cache = field(
        default_factory=lambda: Cache(PICTURE_BYTES, lambda picture: picture[0].nbytes)
    )
    thumbnails: Cache = field(default_factory=lambda: Cache(THUMBNAIL_BYTES, lambda t: len(t[0])))
    arrays: Cache = field(default_factory=lambda: Cache(ARRAY_BYTES, lambda array: array.nbytes))


class Workbench:
    """A catalogue whose models can be asked.

    Parameters
    ----------
    datasets, embedders, mappers, generators, offered
        What a `Catalogue` is made of: its four kinds, and its keyword arguments.
    evaluations
        Folders that ``python -m backends evaluate --out FOLDER`` wrote, see `evaluation`.
    device
        A torch device, or "auto" for a GPU when there is one.
    store
        Where finished pictures and answers outlive the process, None for nowhere.
    shipped
        A store that comes with what is explored: it is asked last and never written.
    """

    def __init__(
        self,
        datasets: Mapping[str, Any],
        embedders: Mapping[str, Any],
        mappers: Mapping[str, Any],
        generators: Mapping[str, Any],
        *,
        evaluations: Sequence[Path] = (),
        device: str = "cpu",
        store: Store | None = None,
        shipped: Store | None = None,
        **offered: Any,
    ) -> None:
        self.catalogue = Catalogue(datasets, embedders, mappers, generators, **offered)
        self.models = Models(self.catalogue, device)
        self.evaluations = tuple(Path(folder) for folder in evaluations)
        self.caches, self.store, self.shipped = Caches(), store, shipped
        self.stores = tuple(one for one in (store, shipped) if one is not None)
        self.catalogue.behind = models_behind(store)
        self.renewals = 0  # how often data were read anew

    def checkpoint_hashes(self, request: Request, view: View | None = None) -> dict[str, str]:
        """Return a short hash of the mapper's and the generator's weights, "none" without any.

        Where the pictures or a ``view`` rest on an encoding model also that model's.
        """
        hashes = self.models.hashes(request)
        shown = view is not None and view.shows in PREDICTIONS
        if shown or uses_betas(self.catalogue, request):
            encoder = self.models.encoder_hash(request.dataset, request.subject)
            hashes["encoding model"] = encoder
        return hashes

    def renew(self, dataset: str, study: Dataset, trials: Mapping[str, Trials]) -> None:
        """Go on with a data set as it was read anew (`Catalogue.reopened`), as trials arrived.

        What was computed of it before is forgotten, of other data sets too: an average over
        repeats is another with one repeat more. Call it while nobody asks a model.
        """
        known = set(self.catalogue.subjects(dataset))
        before = {s: self.catalogue.trials(dataset, s) for s in trials if s in known}
        others = _shown_anew(self.catalogue.dataset(dataset), study)
        same = not others and all(
            _learns_from(before[s]) == _learns_from(trials[s]) for s in before
        )
        self.catalogue.renew(dataset, study, trials, others)
        self.renewals += 1
        self.models.renew(dataset, keep_fitted=same, but=others)
        caches = self.caches
        caches.shown.drop(lambda named: named[0] == dataset and named[1] in others)
        for one in (caches.maps, caches.limits, caches.answers, caches.pictures, caches.arrays):
            one.drop(lambda key: True)

    def kept(self, what: Hashable, make: Callable[[], Any], request: Request | None = None) -> Any:
        """Return ``make()``, made once for a question, a request and the weights behind it.

        Answers are counted, not weighed: what may be large is not for keeping.
        """
        weights = () if request is None else tuple(sorted(self.checkpoint_hashes(request).items()))
        return self.caches.answers.get((what, request, weights), make)

    def is_kept(self, what: Hashable) -> bool:
        """Return whether `kept` answers a question without a request at once."""
        return self.caches.answers.peek((what, None, ())) is not None

    def kept_array(self, what: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Return an array that no request decides and that may be large, made once."""
        return self.caches.arrays.get(what, make)


def _learns_from(trials: Trials) -> tuple:
    """Return which training trials there are, in order."""
    rows = trials.rows("train")
    return tuple(trials.table["stimulus"].iloc[rows])


def _shown_anew(before: Dataset, study: Dataset) -> set[str]:
    """Return the stimuli that a table of stimuli says something else of than before."""
    if not (hasattr(before, "stimuli") and hasattr(study, "stimuli")):
        return set()
    if before.stimuli.equals(study.stimuli):
        return set()
    old, new = (table.astype(str).to_dict("index") for table in (before.stimuli, study.stimuli))
    return {stimulus for stimulus in old if old[stimulus] != new.get(stimulus)}

"""Answers that outlive the server: what a model gave for a trial, kept beside its pictures.

An answer is plain values and arrays. What decides it is named by the caller; here the data behind
it are added, of which names alone say too little.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from explorer import metrics
from explorer.offers import MODELS
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.request import Request
    from explorer.workbench import Workbench

SEEN_STIMULI = 16  # of a subject, whose betas tell its data from others under the same names
Answer = TypeVar("Answer")


def recalled(
    bench: Workbench, decided: Mapping[str, Any], unpack: Callable[[dict[str, Any]], Answer]
) -> Answer | None:
    """Return a kept answer, None where there is none; ``decided`` {} is never kept."""
    for store in bench.stores if decided else ():
        found = store.answer(decided)
        if found is None:
            continue
        try:
            return unpack(found)
        except (KeyError, TypeError, ValueError, AttributeError, binascii.Error):
            continue  # of another version: it is made again
    return None


def remember(bench: Workbench, decided: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    """Keep an answer in the store, where there is one; ``decided`` {} is never kept."""
    if bench.store is not None and decided:
        bench.store.put_answer(decided, answer)


def made_and_remembered(
    bench: Workbench,
    decide: Callable[[], Mapping[str, Any]],
    make: Callable[[], Answer],
    write: Callable[[Answer], Mapping[str, Any]],
) -> Answer:
    """Return ``make()``, and keep it where ``decide()`` says the same before and after.

    What trials that arrived meanwhile decide is another answer.
    """
    decided = decide()
    made = make()
    if decided == decide():
        remember(bench, decided, write(made))
    return made


def remember_models(bench: Workbench, request: Request) -> None:
    """Add a request's mapper and generator to the list of models behind the store's content.

    With them a machine that has the store and the data, and no weights, offers what they made.
    """
    if bench.store is None or not request.mapper:
        return
    offer = bench.catalogue.offer(request.dataset, request.subject, request.mapper)
    if offer.folder is None:
        return
    before = bench.store.answer(MODELS) or {"mappers": {}, "generators": {}, "embedders": {}}
    known = {kind: dict(models) for kind, models in before.items()}
    hashes, names = bench.models.hashes(request), bench.catalogue.embedders
    place = f"{offer.folder.parent.name}/{offer.folder.name}"
    card = json.loads(json.dumps(offer.card.to_dict()))
    known["mappers"][place] = {"card": card, "hash": hashes["mapper"]}
    if request.generator:
        known["generators"][request.generator] = hashes["generator"]
    seen = {name: bench.models.embedder_hash(name) for name in names}
    known["embedders"] |= {name: found for name, found in seen.items() if found != "none"}
    if known != before:
        bench.store.put_answer(MODELS, known)


def subject_hash(bench: Workbench, dataset: str, subject: str) -> str:
    """Return a hash of a subject's voxels, test stimuli, and the betas of some; "" for none.

    Made once each time that a study is read.
    """

    def make() -> str:
        trials = bench.catalogue.trials(dataset, subject)
        stimuli = list(bench.catalogue.gallery(dataset, subject).index)
        digest = hashlib.sha256(f"{trials.subject.voxels.hash} {stimuli}".encode())
        try:
            for i in metrics.evenly(len(stimuli), SEEN_STIMULI):
                digest.update(trials.average(stimuli[i]).astype(np.float32).tobytes())
        except UserError:
            return ""
        return digest.hexdigest()

    return bench.kept(("subject's data", dataset, subject), make)


def packed(values: np.ndarray) -> dict[str, Any]:
    """Return an array of numbers as plain values, `unpacked` reads them."""
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    data = base64.b64encode(little.tobytes()).decode("ascii")
    return {"dtype": values.dtype.name, "shape": list(values.shape), "data": data}


def unpacked(values: Mapping[str, Any]) -> np.ndarray:
    """Return the array that `packed` wrote; other values raise `ValueError`."""
    dtype = np.dtype(str(values["dtype"])).newbyteorder("<")
    if dtype.kind not in "fiub":
        raise ValueError(f"no numbers but {dtype}")
    raw = base64.b64decode(values["data"], validate=True)
    return np.frombuffer(raw, dtype).reshape(values["shape"]).astype(dtype.newbyteorder("="))

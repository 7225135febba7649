"""Test sets beside a data set's own, of the same people: what its mapper makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from explorer import stopping
from explorer.decoding import decode_betas, decoded_space
from explorer.protocols import Dataset
from explorer.request import Request
from explorer.types import EmbeddingSpace, Trials, UserError
from explorer.workbench import Workbench

SEEN, IMAGINED = "seen", "imagined"  # of the same images: a pair


@dataclass(frozen=True, eq=False)
class Beside:
    """A test set beside another: its data set and one subject's trials."""

    study: Dataset
    trials: Trials

    @property
    def stimuli(self) -> list[str]:
        """The test stimuli that stand for one picture."""
        why: Callable[[str], str] = getattr(self.study, "without_picture", lambda stimulus: "")
        return [s for s in self.trials.stimuli("test") if not why(s)]

    def repeats(self, stimulus: str) -> int:
        """Return how many test trials a stimulus has."""
        return len(self.trials.rows("test", stimulus))


def offered(bench: Workbench, dataset: str) -> dict[str, dict[str, str]]:
    """Return what lies beside a data set, name -> options, see `explorer.protocols.Dataset`."""
    relatives = getattr(bench.catalogue.dataset(dataset), "relatives", dict)
    return dict(relatives())


def beside(bench: Workbench, request: Request, what: str) -> Beside:
    """Return one of `offered` for a request's subject, opened once.

    Raises
    ------
    UserError
        Where it cannot be opened, lacks the subject, or has other voxels than the mapper reads.
    """
    dataset, subject = request.dataset, request.subject
    study = bench.catalogue.dataset(dataset)
    options = offered(bench, dataset)[what]

    def make() -> Beside:
        opened = type(study)(study.path, study.name, **options)
        return Beside(opened, opened.load(subject))

    found = bench.kept(("beside", dataset, subject, what), make)
    own = bench.catalogue.trials(dataset, subject).subject.voxels
    other = found.trials.subject.voxels
    if (own.n_voxels, own.hash) != (other.n_voxels, other.hash):
        raise UserError(
            f"{dataset}/{subject} has {own.n_voxels} voxels and what was {what} has "
            f"{other.n_voxels} others, so no mapper reads both; open both with the same options."
        )
    return found


def decoded(
    bench: Workbench,
    request: Request,
    there: Beside,
    stimuli: list[str],
    repeats: int = 0,
) -> np.ndarray:
    """Return what a request's mapper decodes (n, ...) from stimuli of a test set beside.

    From the mean of each one's first ``repeats`` trials, 0 of all.
    """
    rows = []
    for stimulus in stimuli:
        trials = there.trials.rows("test", stimulus)
        some = trials[: repeats or len(trials)]
        rows.append(np.asarray(there.trials.betas[some], np.float32).mean(axis=0))
    betas = np.stack(rows)
    if not np.isfinite(betas).all():
        raise UserError(
            f"Betas of {there.study.name}/{request.subject} beside its test trials are not "
            "finite; choose an ROI without such voxels."
        )
    return decode_betas(bench, request, betas)[decoded_space(bench, request)]


def embedded(
    bench: Workbench, there: Beside, stimuli: list[str], space: EmbeddingSpace
) -> np.ndarray:
    """Return the true embeddings (n, ...) of stimuli of a test set beside."""
    images = [there.study.image(stimulus) for stimulus in stopping.steps(stimuli)]
    return bench.models.embed_images(images, space)

"""What an evaluation is made of: the study with its models, scores of pictures, and the laws."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.simulation.cortex import easier
from backends.training.counted import count
from explorer import metrics
from explorer.brain.maps import parcel_importance
from explorer.decoding import request_betas
from explorer.drawing import picture_scores
from explorer.protocols import Condition
from explorer.request import Request, View
from explorer.types import EmbeddingSpace, UserError

if TYPE_CHECKING:
    import pandas as pd

    from backends.datasets.simulated import Simulated
    from backends.simulation.judge import PocketJudge
    from explorer.protocols import Generator
    from explorer.types import Parcellation
    from explorer.workbench import Workbench

DATASET, MAPPER, GENERATOR = "simulated", "ridge", "pocket-diffusion"
LABELS = ("category", "supercategory", "setting")
SWEEP = (0.0, 1.0, 2.0, 4.0, 8.0)
DERANGEMENTS = 20
APART = "shared noise"  # the role of controls that a linear decoder rightly gives weight
ROWS_AT_ONCE = 64
Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Study:
    """What all figures share. ``labels``: N rows of what is shown; ``truth`` (N, D) embeddings."""

    bench: Workbench
    dataset: Simulated
    subjects: list[str]
    stimuli: list[str]
    labels: pd.DataFrame
    space: EmbeddingSpace
    truth: np.ndarray
    generator: Generator
    judge: PocketJudge
    say: Say

    @classmethod
    def open(
        cls, checkpoints: Path, limit: int | None, path: Path | None, device: str, say: Say
    ) -> Study:
        """Load the study and its models; what is missing raises `UserError`."""
        from backends import DATASETS, EMBEDDERS, GENERATORS, MAPPERS
        from backends.simulation.judge import PocketJudge
        from explorer.workbench import Workbench

        bench = Workbench(
            DATASETS,
            EMBEDDERS,
            MAPPERS,
            GENERATORS,
            checkpoints=checkpoints,
            paths={DATASET: path} if path else {},
            device=device,
        )
        dataset = bench.catalogue.dataset(DATASET)
        subjects = easier(bench.catalogue.subjects(DATASET))
        for subject in subjects:
            bench.catalogue.offer(
                DATASET, subject, MAPPER
            )  # a missing or unfit mapper is refused here
        generator = bench.models.generator(GENERATOR)
        stimuli = list(bench.catalogue.gallery(DATASET, subjects[0]).index)[:limit]
        return cls(
            bench=bench,
            dataset=dataset,
            subjects=subjects,
            stimuli=stimuli,
            labels=dataset.stimuli.loc[stimuli, list(LABELS)].reset_index(drop=True),
            space=generator.accepts[0],
            truth=bench.models.embed(DATASET, stimuli, generator.accepts[0]),
            generator=generator,
            judge=PocketJudge(checkpoints, bench.models.device),
            say=say,
        )

    @property
    def codes(self) -> np.ndarray:
        """The super-category of every stimulus as a number, int (N,)."""
        return np.unique(self.labels["supercategory"], return_inverse=True)[1]

    def request(self, subject: str, stimulus: str) -> Request:
        """Return a request for the averaged trials, with the generator's default steps."""
        steps = self.generator.default_steps
        return Request(DATASET, subject, stimulus, MAPPER, GENERATOR, SWEEP, steps)

    def decode(self, subject: str, *, noiseless: bool = False) -> np.ndarray:
        """Return the decoded embeddings (N, D) of a subject's averaged, or noiseless, betas."""
        trials = self.bench.catalogue.trials(DATASET, subject)
        if noiseless:
            trials = self.dataset.noiseless_trials(subject)
        betas = np.stack([trials.average(stimulus) for stimulus in self.stimuli])
        mapper = self.bench.models.mapper(DATASET, subject, MAPPER)
        return finite(mapper.decode(betas, subject)[self.space], subject)

    def draw(self, embeddings: np.ndarray, scale: float, what: str) -> np.ndarray:
        """Return one picture an embedding, uint8 (n, H, W, 3); row i has the seed i."""
        import torch

        parts = []
        for begin in range(0, len(embeddings), ROWS_AT_ONCE):
            rows = embeddings[begin : begin + ROWS_AT_ONCE]
            conditions = [Condition({self.space: torch.from_numpy(row)}) for row in rows]
            seeds = range(begin, begin + len(rows))
            parts.append(
                self.generator.generate(conditions, scale, seeds, self.generator.default_steps)
            )
            done, work = begin + len(rows), f"{what}, scale {scale:g}"
            self.say(count(work, done, len(embeddings), "pictures", "drawn"))
        return np.concatenate(parts)


def finite(embeddings: np.ndarray, of: str) -> np.ndarray:
    """Return embeddings (N, D); one that is not finite is refused: no figure may rest on it."""
    if odd := int((~np.isfinite(embeddings).all(axis=1)).sum()):
        raise UserError(
            f"{odd} of {len(embeddings)} decoded embeddings of {of} are not finite, so nothing is "
            "measured; make what ships again with python -m backends build-demo"
        )
    return embeddings


# ----------------------------------------------------------------------------- pictures and chance


@dataclass(frozen=True, eq=False)
class Scores:
    """What is measured of N pictures: the judge's labels, and likeness to what was shown."""

    said: pd.DataFrame
    likeness: Mapping[str, np.ndarray]  # PixCorr, SSIM, pocket-clip -> (N,)
    scale: float

    def hits(self, study: Study, label: str, order: np.ndarray | None = None) -> np.ndarray:
        """Return bool (N,): picture ``order[i]`` is said to show what stimulus i shows."""
        said = self.said[label].to_numpy()
        return (said if order is None else said[order]) == study.labels[label].to_numpy()


def shown(study: Study) -> Scores:
    """Return the judge's labels of the shown pictures themselves."""
    images = [study.bench.catalogue.image(DATASET, stimulus) for stimulus in study.stimuli]
    return Scores(study.judge.classify(images), {}, float("nan"))


def drawn(study: Study, embeddings: np.ndarray, scale: float, what: str) -> Scores:
    """Draw a picture of each embedding (N, D) and score it."""
    images = study.draw(embeddings, scale, what)
    rows = [
        picture_scores(study.bench, DATASET, stimulus, image)
        for stimulus, image in zip(study.stimuli, images, strict=True)
    ]
    likeness = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    return Scores(study.judge.classify(list(images)), likeness, scale)


def balanced(hits: np.ndarray, classes: np.ndarray) -> float:
    """Return the mean over classes of the share of hits (N,), 0 to 1; chance 1 / classes."""
    return float(np.mean([hits[classes == label].mean() for label in np.unique(classes)]))


def shuffled(score: Callable[[np.ndarray], float], n: int, times: int = DERANGEMENTS) -> float:
    """Return the mean of ``score(order)`` over derangements of n stimuli: brains shuffled."""
    rng = np.random.default_rng(0)
    return float(np.mean([score(metrics.derangement(n, rng)) for _ in range(times)]))


# -------------------------------------------------------------------------------------------- laws


def gradient_error(study: Study, subject: str, stimulus: str, directions: int = 8) -> float:
    """Return the largest relative error of the margin's gradient against central differences.

    The margin is computed anew here, in double precision, from the mapper's forward pass alone.
    """
    import torch

    from explorer.brain.importance import TEMPERATURE

    request = study.request(subject, stimulus)
    attribution = parcel_importance(study.bench, request, View()).voxels.astype(np.float64)
    mapper = copy.deepcopy(study.bench.models.mapper(DATASET, subject, MAPPER)).double()
    sd = mapper.statistics(subject)[1].cpu().numpy()
    gallery = list(study.bench.catalogue.gallery(DATASET, subject).index)
    items = metrics.unit(study.bench.models.embed(DATASET, gallery, study.space))
    true = gallery.index(stimulus)
    temperature = study.bench.models.card(request).settings.get("temperature", TEMPERATURE)

    def margin(betas: np.ndarray) -> float:
        with torch.no_grad():
            rows = torch.from_numpy(betas[None]).to(study.bench.models.device)
            z = items @ metrics.unit(mapper(rows, subject)[study.space][0].cpu().numpy())
        others = np.delete(z, true) / temperature
        return z[true] / temperature - np.logaddexp.reduce(others)

    betas = request_betas(study.bench, request).astype(np.float64)
    rng, errors = np.random.default_rng(0), []
    for _ in range(directions):
        # along a random half of the gradient's own entries, so that the slope is not near zero
        u = attribution * rng.integers(0, 2, attribution.size)
        u /= np.linalg.norm(u)
        step = 1e-3 * sd * u  # attributions are per standard deviation
        slope = (margin(betas + step) - margin(betas - step)) / 2e-3
        errors.append(abs(slope - attribution @ u) / abs(slope))
    return float(max(errors))


def closed_form_error(study: Study, subject: str, stimulus: str) -> float:
    """Return the relative error of gradient x input on the fixed direction for the ridge."""
    view = View(method="gradient x input", target="fixed direction")
    request = study.request(subject, stimulus)
    attribution = parcel_importance(study.bench, request, view).voxels
    mapper = study.bench.models.mapper(DATASET, subject, MAPPER)
    weight = mapper.weights(subject, study.space)[0].detach().cpu().numpy().astype(np.float64)
    mean, sd = (part.cpu().numpy().astype(np.float64) for part in mapper.statistics(subject))
    along = metrics.unit(study.truth[study.stimuli.index(stimulus)])
    exact = (request_betas(study.bench, request) - mean) / sd * (weight @ along)
    return float(np.abs(attribution - exact).max() / np.abs(exact).max())


def sweep_difference(study: Study, subject: str, stimulus: str) -> float:
    """Return how far a picture in a sweep is from the same one drawn alone, at most over scales.

    Mean absolute difference in grey levels (0 to 255); the cache of finished pictures is not used.
    """
    import torch

    z = study.decode(subject)[study.stimuli.index(stimulus)]
    condition = Condition({study.space: torch.from_numpy(z)})

    def finished(scales: Sequence[float]) -> list[np.ndarray]:
        steps = study.generator.sweep(condition, scales, study.generator.default_steps, 0)
        images = {step.index: step.image for step in steps if step.done}
        return [images[i].astype(np.float64) for i in range(len(scales))]

    together = finished(SWEEP)
    alone = [finished([scale])[0] for scale in SWEEP]
    return float(max(np.abs(a - b).mean() for a, b in zip(together, alone, strict=True)))


# ----------------------------------------------------------------------------------------- parcels


def mean_share(study: Study, subject: str, view: View) -> np.ndarray:
    """Return (V,): each voxel's share of a trial's importance, averaged over the test trials."""
    total, count = 0.0, 0
    for stimulus in study.stimuli:
        size = np.abs(
            parcel_importance(study.bench, study.request(subject, stimulus), view).voxels
        )
        if size.any():  # a flat trial has no shares
            total, count = total + size / size.sum(dtype=np.float64), count + 1
    return total / count


def enrichment(share: np.ndarray, membership: np.ndarray, n_labels: int) -> np.ndarray:
    """Return (n_labels,): share of importance over share of voxels; NaN without voxels.

    ``share`` (V,) sums to 1, ``membership`` (V,) points into the labels, -1 is none.
    """
    known = membership >= 0
    summed = np.bincount(membership[known], weights=share[known], minlength=n_labels)
    voxels = np.bincount(membership[known], minlength=n_labels)
    return summed / np.where(voxels, voxels, np.nan) * len(share)


def parcel_scores(
    share: np.ndarray, parcellation: Parcellation, truth: pd.DataFrame
) -> dict[str, float]:
    """Return how well enrichment tells informative parcels from controls without shared noise.

    ``truth`` has the columns role and information_mean, indexed by parcel key. AUC: chance 0.5.
    Rank correlation with the true information per parcel: chance 0. Controls that share noise
    with informative parcels are reported apart: their mean enrichment, and the AUC against them.
    Parcels without voxels have no enrichment and are left out; "parcels" counts the others.
    """
    keys = [label.key for label in parcellation.labels]
    values = enrichment(share, parcellation.membership, len(keys))
    there = [i for i, key in enumerate(keys) if key in truth.index]
    values, truth = values[there], truth.loc[[keys[i] for i in there]]
    role, information = truth["role"].to_numpy(), truth["information_mean"].to_numpy()
    informative, apart = role == "informative", role == APART
    either = informative | apart
    return {
        "AUC": metrics.auc(values[~apart], informative[~apart]),
        "rank correlation": metrics.spearman(values[~apart], information[~apart]),
        "rank correlation, informative only": metrics.spearman(
            values[informative], information[informative]
        ),
        "enrichment, informative": float(np.nanmean(values[informative])),
        "enrichment, controls": float(np.nanmean(values[~either])),
        "enrichment, shared noise": float(np.nanmean(values[apart])) if apart.any() else np.nan,
        "AUC against shared noise": metrics.auc(values[either], informative[either]),
        "parcels": int((~apart & np.isfinite(values)).sum()),
    }


def permuted_auc(
    share: np.ndarray, parcellation: Parcellation, truth: pd.DataFrame, times: int
) -> float:
    """Return the mean AUC with the parcel labels permuted over voxels; chance is 0.5."""
    rng, values = np.random.default_rng(0), []
    for _ in range(times):
        membership = rng.permutation(parcellation.membership)
        other = dataclasses.replace(parcellation, membership=membership)
        values.append(parcel_scores(share, other, truth)["AUC"])
    return float(np.mean(values))


def held_out(study: Study, count: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return training stimuli, their decoded and their true embeddings (n, D).

    Each subject's mapper is fitted anew without ``count`` scenes of its own, with the penalty that
    its card names, and decodes those: like test trials, but no test trial is looked at.
    """
    from backends import MAPPERS
    from backends.embedders.store import embed_stimuli
    from explorer.types import resolve

    cls, space = resolve(MAPPERS[MAPPER]), study.space
    every = study.bench.catalogue.trials(DATASET, study.subjects[0]).stimuli("train")
    order = np.random.default_rng(0).permutation(len(every))
    study.say(f"embedding {len(every)} training pictures")
    embedder = study.bench.models.embedder(study.bench.catalogue.embedder_name(space))
    truth = embed_stimuli(study.dataset, every, embedder, space, study.say)
    stimuli, decoded = [], []
    for number, subject in enumerate(study.subjects):
        left_out = [every[i] for i in order[number * count : (number + 1) * count]]
        trials = study.bench.catalogue.trials(DATASET, subject)
        out = trials.table["stimulus"].isin(left_out)
        table = trials.table.assign(split=trials.table["split"].where(~out, "test"))
        study.say(f"fitting a mapper of {subject} without {len(left_out)} training scenes")
        card = study.bench.catalogue.offer(DATASET, subject, MAPPER).card
        penalty = card.metrics["cross-validation"][space.name]["alpha"][1]  # the median
        mapper = cls.fit(
            [dataclasses.replace(trials, table=table)],
            {space: truth},
            seed=0,
            progress=study.say,
            alphas=[penalty],
            folds=2,
        )
        betas = np.stack([trials.average(stimulus, split="train") for stimulus in left_out])
        decoded.append(mapper.decode(betas, subject)[space])
        stimuli += left_out
    return stimuli, np.concatenate(decoded), np.stack([truth[stimulus] for stimulus in stimuli])

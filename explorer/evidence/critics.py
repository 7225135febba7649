"""The critics' tests asked of one mapper and subject: what `critique` needs is gathered here."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from explorer import splits, stopping
from explorer.brain.maps import parcellation_of
from explorer.decoding import decode_betas, decoded_space, undecoded
from explorer.evidence import critique
from explorer.evidence.beside import IMAGINED, SEEN, offered
from explorer.evidence.bottleneck import bottleneck
from explorer.evidence.collapse import collapse
from explorer.evidence.counterfactual import PAIRS, contrasts_of, counterfactual
from explorer.evidence.critique import Finding, Pair
from explorer.evidence.data_curve import Point, data_curve, refitted, shares_of
from explorer.evidence.forecast import (
    seconds_of_decoding,
    seconds_of_embedding,
    seconds_of_gallery,
    seconds_of_references,
    seconds_of_ridge,
)
from explorer.evidence.image_sets import by_class, by_name, far, further
from explorer.evidence.imagined import imagined_of
from explorer.evidence.rewards import MOST, rewards
from explorer.evidence.standing import betas_of_test, decoded_test
from explorer.metrics import evenly, unit
from explorer.offers import FIT_LIMIT, FIT_NOW
from explorer.protocols import Counterfactual
from explorer.request import Request
from explorer.splits import clusters, usual_similarity
from explorer.types import EmbeddingSpace, Trials, UserError, resolve
from explorer.workbench import Workbench

MOST_TRAINED = 5000  # training stimuli that are embedded: our choice
MOST_ROWS = 1000  # training betas whose components are kept in the bottleneck
CONCEPTS = 6  # of a data set that makes pairs, for the forecast
BOTTLENECKS = 16  # times that all test images are decoded
TESTS = 11  # at most, so that the share that is done can be told


def findings(
    bench: Workbench,
    request: Request,
    fit_limit: int = FIT_LIMIT,
    pairs: Sequence[Counterfactual] = (),
) -> Iterator[Finding]:
    """Yield what each test finds of a request's mapper and subject, one after another.

    From the same repeats of the test images as the request; of a mapper that was published
    without the bottleneck, as no other betas can be put in. A finding that grows is yielded again
    under its name, and the last one counts. ``fit_limit``: the most training trials times voxels
    that a mapper is fitted to for the data curve. ``pairs``: counterfactual pairs, by default
    those that the data set makes, if any.
    """
    if why := undecoded(bench, request):
        raise UserError(why)
    dataset, subject = request.dataset, request.subject
    space = decoded_space(bench, request)
    stimuli, predicted = decoded_test(bench, request)
    targets = bench.models.embed(dataset, stimuli, space)
    home = _home(bench, request)
    trials = bench.catalogue.trials(home, subject)
    trained = _trained(trials, stimuli)
    if len(trained) < critique.CLUSTERS:
        raise UserError(
            f"{dataset}/{subject} has {len(trained)} training stimuli that are not test stimuli; "
            f"the tests need {critique.CLUSTERS} or more."
        )
    if len(stimuli) < 2:
        raise UserError("The tests tell test images apart, which takes 2 of them; there is 1.")
    training = bench.models.embed(home, trained, space)
    classes, known = _classes(bench, dataset, stimuli), _classes(bench, home, trained)
    flat, true, seen = (rows.reshape(len(rows), -1) for rows in (predicted, targets, training))
    number = clusters(np.concatenate([true, seen]), critique.CLUSTERS)[: len(true)]
    sets = {"all test images": np.ones(len(true), bool), "far from training": far(true, seen)}
    sets |= by_class(classes, set(known)) | by_name(bench, dataset, stimuli)
    others = further(bench, request, stimuli, targets)
    yield critique.generalisation(flat, true, sets, *others)
    yield collapse(flat, true, seen, critique.CLUSTERS)
    yield critique.cluster_identification(flat, true, number, "clusters")
    if any(classes):
        yield critique.cluster_identification(flat, true, classes, "categories")
    threshold = usual_similarity(unit(np.asarray(seen, np.float32)))
    yield critique.similarity_to_training(flat, true, seen, threshold)
    yield critique.category_only(flat, true, classes, seen, known)
    nearest_to = [trained[i] for i in _most_alike(flat, seen)]
    try:
        drawing = _drawing(bench, request)
        yield rewards(bench, dataset, subject, stimuli, drawing, nearest_to, home)
    except UserError as error:
        bench.catalogue.report(f"PixCorr and SSIM are not compared with references: {error}")
    if bench.catalogue.offer(dataset, subject, request.mapper).published is not None:
        return  # looked up: no other betas can be put in
    embeddings = dict(zip(trained, training, strict=True))
    yield from _data_curve(bench, request, space, embeddings, (predicted, targets), fit_limit)
    if {SEEN, IMAGINED} <= set(offered(bench, dataset)):
        try:
            yield imagined_of(bench, request)
        except UserError as error:
            bench.catalogue.report(f"Seen and imagined images are not compared: {error}")
    try:
        yield from _counterfactuals(bench, request, stimuli, pairs)
    except UserError as error:
        bench.catalogue.report(f"Counterfactual pairs are not asked about: {error}")
    rows = trials.rows("train")
    betas = np.asarray(trials.betas[rows[evenly(len(rows), MOST_ROWS)]], np.float32)

    def decode(given: np.ndarray) -> np.ndarray:
        stopping.look()
        return decode_betas(bench, request, given.astype(np.float32))[space]

    measured = betas_of_test(bench, request)[1]
    clean = _noiseless(bench, request, stimuli)
    yield bottleneck(decode, measured, betas, true, noiseless=clean)


def seconds_needed(bench: Workbench, request: Request) -> float:
    """Return about how long the tests of a request take, from a small part of each kind of work.

    Embeddings that lie ready, and a mapper that is looked up, cost nothing.
    """
    if undecoded(bench, request):
        return 0.0
    dataset, subject, home = request.dataset, request.subject, _home(bench, request)
    space, trials = decoded_space(bench, request), bench.catalogue.trials(home, subject)
    stimuli = list(bench.catalogue.gallery(dataset, subject).index)
    tested, trained = len(stimuli), _trained(trials, stimuli)
    seconds = seconds_of_gallery(bench, request)
    pictures = 0 if bench.models.is_embedded(home, trained, space) else len(trained)
    if hasattr(bench.catalogue.dataset(dataset), "counterfactuals"):
        pictures += 3 * PAIRS * CONCEPTS
    seconds += seconds_of_embedding(bench, request, space, pictures)
    seconds += seconds_of_references(bench, request, min(tested, MOST))
    if bench.catalogue.offer(dataset, subject, request.mapper).published is not None:
        return seconds
    decoded = min(len(trials.rows("train")), MOST_ROWS) + tested * BOTTLENECKS
    v = trials.subject.voxels.n_voxels
    sizes = [count for count, _ in shares_of(trials, trained, FIT_LIMIT)]
    if FIT_NOW in bench.catalogue.mappers:
        seconds += sum(seconds_of_ridge(bench, n, v) for n in sizes)
    return seconds + seconds_of_decoding(bench, request, decoded)


def _counterfactuals(
    bench: Workbench,
    request: Request,
    stimuli: Sequence[str],
    pairs: Sequence[Counterfactual],
) -> Iterator[Finding]:
    """Yield the effects of concepts in parcels, where there are pairs and an encoding model."""
    dataset, subject = request.dataset, request.subject
    study = bench.catalogue.dataset(dataset)
    made, home = getattr(study, "counterfactuals", None), _home(bench, request)
    if bench.catalogue.encoder_offer(home, subject) is None or not (pairs or made):
        return
    pairs = list(pairs) or list(stopping.steps(made(PAIRS)))
    encoder = bench.models.encoder(home, subject)
    shown = {space: bench.models.embed(dataset, stimuli, space) for space in encoder.spaces}
    parcellation = parcellation_of(bench, dataset, subject)
    names = [label.key for label in parcellation.labels]
    measured = betas_of_test(bench, request)[1]
    contrasts, few = contrasts_of(
        bench, home, subject, pairs, parcellation, (measured, encoder.predict(shown))
    )
    unknown = [name for name, lacks in zip(names, few, strict=True) if lacks]
    yield counterfactual(contrasts, names, unknown)


def _trained(trials: Trials, tested: Collection[str]) -> list[str]:
    """Return training stimuli that are not test stimuli, nor ``tested``: some of many, evenly."""
    tested = set(tested)
    every = [s for s in splits.shown([trials])[0] if s not in tested]
    return [every[i] for i in evenly(len(every), MOST_TRAINED)]


def _home(bench: Workbench, request: Request) -> str:
    """Return the data set whose trials the mapper learned from, where it is open.

    Of a further test set that is the one on its card, if it has the same voxels here.
    """
    subject = request.subject
    offer = bench.catalogue.offer(request.dataset, subject, request.mapper)
    named = offer.card.dataset if offer.elsewhere and offer.card else ""
    if named not in bench.catalogue.dataset_names():
        return request.dataset
    voxels = [
        bench.catalogue.trials(n, subject).subject.voxels.hash
        for n in (named, request.dataset)
        if subject in bench.catalogue.subjects(n)
    ]
    return named if len(voxels) == 2 and len(set(voxels)) == 1 else request.dataset


def _classes(bench: Workbench, dataset: str, stimuli: Sequence[str]) -> list[str]:
    """Return the category of each stimulus, "" where none is known."""
    kinds = bench.catalogue.dataset(dataset).stimuli["category"].fillna("").astype(str)
    return kinds.reindex(stimuli).fillna("").tolist()


def _data_curve(
    bench: Workbench,
    request: Request,
    space: EmbeddingSpace,
    embeddings: Mapping[str, np.ndarray],
    tested: Pair,
    fit_limit: int,
) -> Iterator[Finding]:
    """Yield the data curve after each of its points: of checkpoints, else of ridge fitted now.

    Checkpoints are those of the mapper's kind that were trained with ``share=``.
    """
    predicted, targets = tested
    trials = bench.catalogue.trials(_home(bench, request), request.subject)
    every = len(trials.rows("train"))
    points = []
    for name, share in _by_share(bench, request):
        one = predicted
        if name != request.mapper:
            one = decoded_test(bench, replace(request, mapper=name))[1]
        points.append(Point(round(share * every), one))
    if len(points) >= 3:
        yield data_curve(points, targets, f"the checkpoints of {request.mapper}")
        return
    cls = bench.catalogue.mappers.get(FIT_NOW)
    if cls is None:
        return
    points, betas = [], betas_of_test(bench, request)[1]
    for count, stimuli in shares_of(trials, list(embeddings), fit_limit):
        made = refitted(resolve(cls), trials, stimuli, embeddings, space, betas)
        points.append(Point(count, made))
        yield data_curve(points, targets, "ridge, fitted anew to each share")


def _by_share(bench: Workbench, request: Request) -> list[tuple[str, float]]:
    """Return the mappers of a request's kind and the share of trials each was trained with."""
    catalogue, place = bench.catalogue, (request.dataset, request.subject)
    own = catalogue.offer(*place, request.mapper)
    space, found = decoded_space(bench, request), []
    for name in catalogue.mapper_names(*place):
        card = catalogue.offer(*place, name).card
        if own.card is None or card is None or card.cls != own.card.cls:
            continue
        share = card.settings.get("share", 1.0)
        plain = isinstance(share, int | float) and not card.settings.get("sessions")
        if plain and space in card.targets and (share < 1 or name == request.mapper):
            found.append((name, float(share)))
    return found


def _drawing(bench: Workbench, request: Request) -> str:
    """Return the generator of a request that draws, "" for published pictures or none."""
    return "" if request.generator in bench.catalogue.pictures else request.generator


def _most_alike(predicted: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Return the row of the training embeddings (m, d) most like each prediction, int (n,)."""
    rows, known = (unit(np.asarray(x, np.float32)) for x in (predicted, training))
    return np.argmax(rows @ known.T, axis=1)


def _noiseless(bench: Workbench, request: Request, stimuli: Sequence[str]) -> np.ndarray | None:
    """Return the betas of test stimuli without noise (n, V), where the data set knows them."""
    study = bench.catalogue.dataset(request.dataset)
    if not hasattr(study, "noiseless_trials"):
        return None
    clean = study.noiseless_trials(request.subject)
    return np.stack([clean.average(stimulus) for stimulus in stimuli])

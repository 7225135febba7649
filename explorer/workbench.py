"""What the page asks for: decoding, pictures and parcel importance. No Gradio.

A `Workbench` keeps no state of any visitor: an answer depends on the `Request` and `View` that
came with the question. Caches are locked per key, so two browsers never load one model twice;
models are not, so whoever serves several visitors runs one question about a model at a time. Heavy
libraries are imported by the first question that needs them.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer import metrics, records
from explorer.brain import importance, predicted
from explorer.brain.parcels import VoxelMap, voxel_map
from explorer.brain.predicted import ACCURACY, MEASURED, PREDICTIONS
from explorer.cache import Cache
from explorer.catalogue import Catalogue
from explorer.evidence import attention
from explorer.models import Models, no_embedder
from explorer.protocols import Condition, Neighbour
from explorer.request import (
    IMPORTANCE,
    LIKELIHOOD,
    MEASURES,
    METHODS,
    PARCELS,
    TARGETS,
    Request,
    View,
)
from explorer.types import Card, EmbeddingSpace, Parcellation, UserError

if TYPE_CHECKING:
    import pandas as pd

    from explorer.brain.parcels import Atlas

SIMILARITY = "pocket-clip"  # the embedder whose cosine is a score under each picture
NEIGHBOURS = 5
LIMIT_TRIALS = 100  # trials that fix the colour limits, evenly spaced over the test stimuli
LIMIT_PERCENTILE = 99  # so that one odd parcel in one trial does not wash out all maps
PICTURE_BYTES = ARRAY_BYTES = 256 * 2**20
KEPT_MAPS, KEPT_ANSWERS = 128, 1024
SETTING_UP = 5.0  # seconds: a step that took longer is not timed again
TYPICAL_SCALE = 2.0  # samples are drawn, and comparisons begin, at the scale nearest to this
CEILING, NCSNR = "noise ceiling", "ncsnr"  # the maps that a subject's ncsnr gives


@dataclass(frozen=True, eq=False)
class Decoding:
    """Where one trial's decoded embedding lies among the test stimuli of its subject.

    ``similarity`` to the shown image's embedding: cosine where the space has unit norm, else
    Pearson correlation over its values. ``rank`` is 1-based among the ``n`` test stimuli (chance
    (n + 1) / 2; a tie takes the middle, rounded up). ``margin``: the importance target "retrieval
    margin". ``neighbours``: the five most similar test stimuli, best first, with their similarity.
    ``average_of``: how many trials were averaged.
    """

    space: EmbeddingSpace
    embedding: np.ndarray
    similarity: float
    rank: int
    n: int
    margin: float
    neighbours: tuple[tuple[str, float], ...]
    average_of: int


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture uint8 (H, W, 3) of a sweep on its way; ``scores`` once ``done``, empty before.

    ``index`` points into the request's scales, ``row`` into its values, ``step`` is 1-based.
    ``note`` and ``neighbours`` as in `Step`.
    """

    index: int
    scale: float
    step: int
    steps: int
    image: np.ndarray
    done: bool
    scores: Mapping[str, float]
    note: str = ""
    neighbours: tuple[Neighbour, ...] = ()
    row: int = 0


@dataclass(frozen=True, eq=False)
class ParcelMap:
    """How much each parcel weighs in one trial's decoding.

    ``table``: the columns of `importance.per_parcel`; ``voxels`` float32 (V,): the attribution.
    ``limits`` per measure are the same for all trials of one subject, mapper, target and method.
    ``flat``: the gradient is zero everywhere, so no parcel can be preferred. ``completeness``: of
    integrated gradients, see `importance.completeness_error`; None for other methods.
    """

    table: pd.DataFrame
    atlas: str
    method: str
    target: str
    n_voxels: int
    flat: bool
    limits: dict[str, tuple[float, float]]
    voxels: np.ndarray
    completeness: float | None = None


class Workbench(Catalogue):
    """A catalogue whose models can be asked.

    Parameters
    ----------
    datasets, embedders, mappers, generators, encoders
        As in `Catalogue`, and so are checkpoints, paths, options, atlases, published and sources.
    evaluations
        Folders that ``python -m backends evaluate --out FOLDER`` wrote, see `evaluation`.
    device
        A torch device, or "auto" for a GPU when there is one.
    """

    def __init__(
        self,
        datasets: Mapping[str, Any],
        embedders: Mapping[str, Any],
        mappers: Mapping[str, Any],
        generators: Mapping[str, Any],
        *,
        checkpoints: Path,
        paths: Mapping[str, Path] | None = None,
        options: Mapping[str, Mapping[str, str]] | None = None,
        atlases: Sequence[Atlas] = (),
        published: Mapping[str, tuple[Path, Mapping[str, str]]] | None = None,
        encoders: Mapping[str, Any] | None = None,
        sources: Mapping[str, str] | None = None,
        evaluations: Sequence[Path] = (),
        device: str = "cpu",
    ) -> None:
        super().__init__(
            datasets,
            embedders,
            mappers,
            generators,
            encoders=encoders,
            checkpoints=checkpoints,
            paths=paths,
            options=options,
            atlases=atlases,
            published=published,
            sources=sources,
        )
        self.evaluations = tuple(Path(folder) for folder in evaluations)
        self.models = Models(self, device)
        self._shown = Cache(1024)  # embeddings of shown pictures, one each
        self._limits, self._maps = Cache(KEPT_MAPS), Cache(KEPT_MAPS)
        self._answers = Cache(KEPT_ANSWERS)  # of others: see `kept`
        self._paces: dict[tuple, float] = {}  # seconds a step of a picture, by what draws it
        self._pictures = Cache(PICTURE_BYTES, lambda picture: picture[0].nbytes)
        self._arrays = Cache(ARRAY_BYTES, lambda array: array.nbytes)

    def card(self, request: Request) -> Card:
        """Return the card of a request's mapper."""
        return self.models.card(request)

    def checkpoint_hashes(self, request: Request, view: View | None = None) -> dict[str, str]:
        """Return a short hash of the mapper's and the generator's weights, "none" without any.

        Where the pictures or a ``view`` rest on an encoding model also that model's.
        """
        hashes = self.models.hashes(request)
        shown = view is not None and view.shows in PREDICTIONS
        if shown or self.uses_betas(request):
            encoder = self.models.encoder_hash(request.dataset, request.subject)
            hashes["encoding model"] = encoder
        return hashes

    # ------------------------------------------------------------------------------------ decoding

    def betas(self, request: Request) -> np.ndarray:
        """Return the betas float32 (V,) of a request: of one trial, or averaged over trials."""
        trials = self.trials(request.dataset, request.subject)
        betas = trials.average(request.stimulus, request.repeats)
        if bad := int((~np.isfinite(betas)).sum()):
            raise UserError(
                f"{bad} of the {betas.size} betas of {request.dataset}/{request.subject} for "
                f"{request.stimulus} are not finite; leave those voxels or trials out of the data."
            )
        return betas

    def identification(self, request: Request) -> dict[str, Any] | None:
        """Return what a mapper's card says of its two-way identification for this subject.

        Keys "two-way identification" (0 to 1), "chance" and "N" test images; None where the card
        has no such figure.
        """
        offer = self.offer(request.dataset, request.subject, request.mapper)
        tested = dict(offer.card.metrics).get("test", {}) if offer.card else {}
        of_subject = tested.get(request.subject, tested)  # of several subjects, each has its own
        found = of_subject.get(self.space(request).name, {})
        figures = ("two-way identification", "chance", "N")
        return None if any(found.get(name) is None for name in figures) else found

    def undecoded(self, request: Request) -> str:
        """Return why a request has no rank and neighbours, in one sentence; "" where it has."""
        if not request.mapper:
            return (
                f"There is no mapper for {request.dataset}/{request.subject}: nothing is decoded "
                "here, the published pictures are shown as they are."
            )
        space = self.space(request)
        if self.embedder_name(space):
            return ""
        if not self.captions_embedder_name(space):
            return no_embedder(space)
        gallery = self.gallery(request.dataset, request.subject)
        if (gallery["caption"].fillna("").str.strip() != "").all():
            return ""
        return (
            f"{space.name} is made of captions, and not all test images of {request.dataset} "
            "have one, so what is decoded cannot be compared with what was shown; choose another "
            "mapper."
        )

    def uncomputed(self, request: Request) -> str:
        """Return why no betas but the trial's own can be decoded, "" where any can."""
        if not request.mapper:
            return "There is no mapper here, so no betas can be decoded."
        if self.offer(request.dataset, request.subject, request.mapper).published is None:
            return ""
        return (
            f"{request.mapper} was published: its embeddings are looked up, not computed from "
            "betas, so no other betas can be put in."
        )

    def unexplained(self, request: Request) -> str:
        """Return why a request has no importance, in one sentence; "" where it has."""
        if reason := self.undecoded(request):
            return reason
        if self.offer(request.dataset, request.subject, request.mapper).published is None:
            return ""
        return (
            f"{request.mapper} was published: its embeddings are looked up, not computed from "
            "betas, so there is no gradient and no importance of parcels."
        )

    def decode(self, request: Request) -> Decoding:
        """Return the decoded embedding of a request and where it lies among the test stimuli.

        A request without a generator is decoded into the mapper's first target.
        """
        self.check(request, pictures=False)
        if reason := self.undecoded(request):
            raise UserError(reason)
        space = self.space(request)
        stimuli = list(self.gallery(request.dataset, request.subject).index)
        index = stimuli.index(request.stimulus)
        gallery = self.models.embed(request.dataset, stimuli, space)
        embedding = self._decoded(request)[space]
        similarity = similarities(embedding[None], gallery, space)[0]
        best = np.argsort(-similarity, kind="stable")[:NEIGHBOURS]
        trials = self.trials(request.dataset, request.subject)
        return Decoding(
            space=space,
            embedding=embedding,
            similarity=float(similarity[index]),
            rank=int(np.ceil(metrics.retrieval_rank(similarity, index))),
            n=len(stimuli),
            margin=float(self.margins(request, embedding[None])[0]),
            neighbours=tuple((stimuli[i], float(similarity[i])) for i in best),
            average_of=len(trials.rows("test", request.stimulus, request.repeats)),
        )

    def space(self, request: Request) -> EmbeddingSpace:
        """Return the space that rank and importance are about: what the generator draws from."""
        targets = self.offer(request.dataset, request.subject, request.mapper).targets
        place = request.dataset, request.subject, request.mapper
        names = [request.space] if request.space else self.space_names(*place, request.generator)
        return next((space for space in targets if space.name in names[:1]), targets[0])

    def decode_betas(
        self, request: Request, betas: np.ndarray
    ) -> dict[EmbeddingSpace, np.ndarray]:
        """Return what the request's mapper makes of betas (n, V): raw (n, ...) by space."""
        if reason := self.uncomputed(request):
            raise UserError(reason)
        mapper = self.models.mapper(request.dataset, request.subject, request.mapper)
        return mapper.decode(betas, request.subject)

    def margins(
        self, request: Request, embeddings: np.ndarray, shown: Sequence[str] = ()
    ) -> np.ndarray:
        """Return the retrieval margin float64 (n,) of raw embeddings (n, ...) of `space`.

        Of the request's stimulus, or of ``shown``, one a row. NaN with a gallery of one image.
        """
        stimuli = list(self.gallery(request.dataset, request.subject).index)
        if len(stimuli) < 2:
            return np.full(len(embeddings), np.nan)
        import torch

        space = self.space(request)
        rows = [stimuli.index(stimulus) for stimulus in shown or [request.stimulus]]
        gallery = self.models.embed(request.dataset, stimuli, space)
        target = _margin_target(gallery, rows, space, self._temperature(request))
        return target(torch.from_numpy(np.asarray(embeddings, np.float32))).double().numpy()

    def kept(self, what: Hashable, make: Callable[[], Any], request: Request | None = None) -> Any:
        """Return ``make()``, made once for a question, a request and the weights behind it.

        Answers are counted, not weighed: what may be large is not for keeping.
        """
        weights = () if request is None else tuple(sorted(self.checkpoint_hashes(request).items()))
        return self._answers.get((what, request, weights), make)

    def kept_array(self, what: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Return an array that no request decides and that may be large, made once."""
        return self._arrays.get(what, make)

    def _decoded(self, request: Request) -> dict[EmbeddingSpace, np.ndarray]:
        mapper = self.models.mapper(request.dataset, request.subject, request.mapper)
        if self.offer(request.dataset, request.subject, request.mapper).published is not None:
            return mapper.lookup(request.stimulus)
        decoded = mapper.decode(self.betas(request)[None], request.subject)
        return {space: rows[0] for space, rows in decoded.items()}

    def _temperature(self, request: Request) -> float:
        return float(self.card(request).settings.get("temperature", importance.TEMPERATURE))

    # ------------------------------------------------------------------------------------ pictures

    def reconstruct(self, request: Request) -> Iterator[Frame]:
        """Return an iterator of previews and one finished `Frame` per scale of every row.

        A generator without guidance gives one picture, for the first scale. Finished pictures are
        kept and come at once when asked for again, whatever the other scales are; closing the
        iterator stops the work and keeps what is finished. A bad request raises here, not at the
        first frame.
        """
        self.check(request)
        return self._frames(request)

    def _frames(self, request: Request) -> Iterator[Frame]:
        yield from self.finished(request)
        for number, row in enumerate(request.rows()):
            with _memory_told(request.generator):
                for frame in self._sweep(row):
                    yield replace(frame, row=number)

    def _sweep(self, request: Request) -> Iterator[Frame]:
        """Yield the frames of one row's pictures that are not there yet."""
        keys = self._picture_keys(request)
        missing = [i for i, key in enumerate(keys) if self._pictures.peek(key) is None]
        if not missing:
            return
        generator, condition = self.models.generator(request.generator), self.condition(request)
        began = time.monotonic()
        sweep = generator.sweep(
            condition,
            [request.scales[index] for index in missing],
            request.steps,
            request.seed,
            **dict(request.options),
        )
        with contextlib.closing(sweep):
            for step in sweep:
                index, scores = missing[step.index], {}
                if step.done:
                    scores = self.scores(request.dataset, request.stimulus, step.image)
                    kept = step.image, scores, step.note, step.neighbours
                    self._pictures.put(keys[index], kept)
                yield Frame(
                    index,
                    request.scales[index],
                    step.step,
                    step.steps,
                    step.image,
                    step.done,
                    scores,
                    step.note,
                    step.neighbours,
                )
        work = len(missing) * request.steps
        self._paces[self._drawing(request)] = (time.monotonic() - began) / work

    def seconds(self, request: Request) -> float:
        """Return about how long the pictures of a request take that are not there yet.

        From the last sweep with the same generator and options. Before the first a step of one
        picture is timed; several in a batch take less each, so that is rather too long.
        """
        self.check(request)
        if self.generator_class(request.generator).provenance != "generated":
            return 0.0  # looked up, not drawn
        work = []
        for row in request.rows():
            keys = self._picture_keys(row)
            work.append((row, sum(self._pictures.peek(key) is None for key in keys)))
        plain = replace(request, axis="", values=())
        lacking = len(self._sample_keys(plain)) - len(self.finished_samples(plain))
        total = 0.0
        for row, pictures in [*work, (plain, lacking)]:
            if pictures:
                total += pictures * row.steps * self._pace(row)
        return total

    def _pace(self, request: Request) -> float:
        """Return the seconds that one step of one picture takes with a request's options."""
        drawing = self._drawing(request)
        if drawing in self._paces:
            return self._paces[drawing]
        generator, condition = self.models.generator(request.generator), self.condition(request)
        scales, options = request.scales[-1:], dict(request.options)

        def took(steps: int) -> float:
            began = time.monotonic()
            with _memory_told(request.generator):
                for _ in generator.sweep(condition, scales, steps, request.seed, **options):
                    pass
            return time.monotonic() - began

        pace = took(1)  # the first call also sets up what later ones find
        if pace < SETTING_UP:
            one = took(1)
            pace = max(took(2) - one, one / 10)  # a step alone, without decoding
        return self._paces.setdefault(drawing, pace)

    def _drawing(self, request: Request) -> tuple:
        return request.generator, self._telling_options(request)

    def _telling_options(self, request: Request) -> tuple[tuple[str, float], ...]:
        """Return a request's options without those at their default, in a fixed order."""
        usual = {o.name: o.default for o in self.generator_class(request.generator).options}
        return tuple(sorted((k, v) for k, v in request.options if v != usual.get(k)))

    def picture(self, request: Request, condition: Condition) -> Frame:
        """Return the finished picture of a condition at the request's first scale, kept.

        Generator, steps, seed, options and the stimulus to score against are the request's.
        """
        request = request.rows()[0]
        (key,) = self._picture_keys(replace(request, scales=request.scales[:1]))
        key = (*key, _condition_hash(condition))
        scale, steps = request.scales[0], request.steps
        kept = self._pictures.peek(key)
        if kept is None:
            sweep = self.models.generator(request.generator).sweep(
                condition, [scale], steps, request.seed, **dict(request.options)
            )
            with contextlib.closing(sweep), _memory_told(request.generator):
                step = next(step for step in sweep if step.done)
            scores = self.scores(request.dataset, request.stimulus, step.image)
            kept = step.image, scores, step.note, step.neighbours
            self._pictures.put(key, kept)
        return Frame(0, scale, steps, steps, kept[0], True, *kept[1:])

    def finished(self, request: Request) -> list[Frame]:
        """Return the pictures of a request that are there already; nothing is computed."""
        steps, found = request.steps, []
        for number, row in enumerate(request.rows()):
            for i, key in enumerate(self._picture_keys(row)):
                if kept := self._pictures.peek(key):
                    frame = Frame(i, row.scales[i], steps, steps, kept[0], True, *kept[1:])
                    found.append(replace(frame, row=number))
        return found

    def samples(self, request: Request) -> list[Frame]:
        """Return one finished picture for each sample from the mapper's density; [] for one.

        All start from the seed's noise and are drawn at `sampled_scale`, so that they differ by
        the samples alone. ``index`` counts samples; one sample does not depend on how many.
        """
        self.check(request)
        missing = request.samples - len(self.finished_samples(request))
        if request.samples > 1 and missing:
            import torch

            space = self.space(request)
            mapper = self.models.mapper(request.dataset, request.subject, request.mapper)
            rows = torch.from_numpy(self.betas(request)[None]).to(self.models.device)
            drawn = mapper.sample(
                rows, request.subject, request.samples, seed=request.seed, space=space
            )
            condition = self.condition(request)
            with _memory_told(request.generator):
                images = self.models.generator(request.generator).generate(
                    [replace(condition, embeddings={space: z}) for z in drawn[0, -missing:].cpu()],
                    sampled_scale(request),
                    [request.seed] * missing,
                    request.steps,
                    **dict(request.options),
                )
            for key, image in zip(self._sample_keys(request)[-missing:], images, strict=True):
                scores = self.scores(request.dataset, request.stimulus, image)
                self._pictures.put(key, (image, scores))
        return self.finished_samples(request)

    def finished_samples(self, request: Request) -> list[Frame]:
        """Return the pictures of `samples` that are there already, from the first on."""
        found = [self._pictures.peek(key) for key in self._sample_keys(request)]
        there = found[: found.index(None)] if None in found else found
        scale, steps = sampled_scale(request), request.steps
        return [
            Frame(i, scale, steps, steps, image, True, scores)
            for i, (image, scores) in enumerate(there)
        ]

    def _sample_keys(self, request: Request) -> list[tuple]:
        if request.samples == 1 or not self.can_sample(request):
            return []
        one = replace(request, scales=(sampled_scale(request),), axis="", values=())
        (key,) = self._picture_keys(one)
        return [(*key, "sample", i) for i in range(request.samples)]

    def _picture_keys(self, request: Request) -> list[tuple]:
        """Return one key a scale: all that decides that picture, which the other scales do not."""
        guided = self.generator_class(request.generator).guided
        scales = request.scales if guided else request.scales[:1]
        weights = tuple(sorted(self.checkpoint_hashes(request).items()))
        plain = replace(request, options=self._telling_options(request), samples=1)
        if not self.uses_betas(request):
            plain = replace(plain, rois=(), roi_atlas="")
        return [(replace(plain, scales=(scale if guided else 1.0,)), weights) for scale in scales]

    def condition(self, request: Request, betas: np.ndarray | None = None) -> Condition:
        """Return what a request's generator draws from; ``betas`` (V,) replace the trial's."""
        import torch

        cls = self.generator_class(request.generator)
        needs, decoded = cls.needs, {}
        if cls.accepts and betas is None:
            decoded = self._decoded(request)
        elif cls.accepts:
            decoded = {s: z[0] for s, z in self.decode_betas(request, betas[None]).items()}
        if request.space:  # and no other that the generator might prefer
            others = {space for space in cls.accepts if space.name != request.space}
            decoded = {space: z for space, z in decoded.items() if space not in others}
        if "betas" not in needs:
            betas = None
        elif betas is None:
            betas = self.betas(request)
        return Condition(
            embeddings={s: torch.from_numpy(z) for s, z in decoded.items()},
            nulls=self._nulls(request) if cls.accepts else {},
            stimulus=request.stimulus if "stimulus" in needs else None,
            betas=betas,
            voxels=self._rois(request) if "betas" in needs else None,
            dataset=self.dataset(request.dataset) if "dataset" in needs else None,
            subject=self.trials(request.dataset, request.subject).subject if needs else None,
        )

    def _rois(self, request: Request) -> np.ndarray | None:
        """Return bool (V,): the voxels of the parcels that a request chose; None for all."""
        if not request.rois:
            return None
        atlas = self.parcellation(request.dataset, request.subject, request.roi_atlas)
        chosen = [label.key in request.rois for label in atlas.labels]
        return atlas.masks()[:-1][chosen].any(axis=0)

    def _nulls(self, request: Request) -> dict[EmbeddingSpace, Any]:
        """Return what a request's mapper learned to give for no brain, {} for nothing."""
        if not self.mapper_can(request.dataset, request.subject, request.mapper, "unconditional"):
            return {}
        mapper = self.models.mapper(request.dataset, request.subject, request.mapper)
        try:
            return {space: z.cpu() for space, z in mapper.unconditional().items()}
        except UserError:  # it could have learned one: then the generator's own null serves
            return {}

    def scores(self, dataset: str, stimulus: str, image: np.ndarray) -> dict[str, float]:
        """Return PixCorr, SSIM and pocket-clip similarity of a picture to the shown one.

        At the shown picture's size (enlarged where SSIM's window would not fit). The similarity is
        left out where pocket-clip has no weights; `problems` then says so.
        """
        truth = self.image(dataset, stimulus)
        factor = -(-11 // min(truth.shape[:2]))  # SSIM compares windows of 11 x 11 pixels
        height, width = (factor * side for side in truth.shape[:2])
        shown = metrics.match_size(truth, height, width)
        sized = metrics.match_size(image, height, width)
        scores = {"PixCorr": metrics.pixcorr(shown, sized), "SSIM": metrics.ssim(shown, sized)}
        if SIMILARITY in self.embedders:
            try:
                embedder = self.models.embedder(SIMILARITY)
            except UserError as error:
                self.report(f"Pictures are not compared in {SIMILARITY}: {error}")
                return scores
            space = embedder.spaces[0]
            true = self._shown.get((dataset, stimulus), lambda: embedder.embed([truth], space))
            scores[SIMILARITY] = metrics.cosine(true, embedder.embed([image], space))
        return scores

    # ---------------------------------------------------------------------------------- importance

    def importance(self, request: Request, view: View) -> ParcelMap:
        """Return how much each parcel weighs in what was decoded from a request's betas."""
        self.check(request, pictures=False)
        if reason := self.unexplained(request):
            raise UserError(reason)
        offered = self.target_names(request.dataset, request.subject, request.mapper)
        if view.target not in offered:
            raise UserError(
                f"The mapper {request.mapper} gives an embedding and no density, so it has no "
                f"{view.target}; choose {' or '.join(offered)}."
            )
        plain = deciding(request)
        key = (plain, view.method, view.target, view.atlas)
        return self._maps.get(key, lambda: self._map(plain, view))

    def attention(self, request: Request) -> attention.Attention:
        """Return where in the shown image the decoding of a request rests, by occlusion.

        The similarity that falls is that of `Decoding`.
        """
        self.check(request, pictures=False)
        if reason := self.undecoded(request):
            raise UserError(reason)
        space, plain = self.space(request), deciding(request)
        if not self.embedder_name(space):
            raise UserError(
                f"Attention hides parts of the image, and {space.name} is made of captions; "
                "choose another target or mapper."
            )

        def make() -> attention.Attention:
            decoded = self._decoded(plain)[space][None]
            embedder = self.models.embedder(self.embedder_name(space))
            return attention.occlusion(
                self.image(request.dataset, request.stimulus),
                lambda images: similarities(decoded, embedder.embed(images, space), space)[0],
            )

        return self._maps.get(("attention", plain), make)

    def target_names(self, dataset: str, subject: str, mapper: str) -> list[str]:
        """Return what importance can be of: the log-likelihood only where a mapper gives one."""
        dense = self.mapper_can(dataset, subject, mapper, "log_prob")
        return [target for target in TARGETS if dense or target != LIKELIHOOD]

    def parcellation(self, dataset: str, subject: str, atlas: str = "") -> Parcellation:
        """Return an atlas over the subject's voxels; "" is the first.

        Voxels without any atlas give one without parcels, where everything is (unassigned).
        """
        voxels = self.trials(dataset, subject).subject.voxels
        if not voxels.parcellations and not atlas:
            nowhere = np.full(voxels.n_voxels, -1, dtype=np.int32)
            return Parcellation("no atlas", "partition", (), nowhere, voxels.hash)
        name = atlas or next(iter(voxels.parcellations))
        if name not in voxels.parcellations:
            raise UserError(
                f"{dataset}/{subject} has no atlas {name!r}; choose one of "
                f"{', '.join(voxels.parcellations) or 'none'}."
            )
        return voxels.parcellations[name]

    def map_names(self, dataset: str, subject: str) -> list[str]:
        """Return what a view can show of a subject: importance, its maps, and the parcels.

        Where an encoding model fits also the betas of a trial as measured and as predicted.
        """
        who = self.trials(dataset, subject).subject
        reliability = [] if who.ncsnr is None else [CEILING, NCSNR]
        known = PREDICTIONS if self.encoder_offer(dataset, subject) else ()
        return list(dict.fromkeys([IMPORTANCE, *known, *reliability, *who.maps, PARCELS]))

    def voxel_map(self, request: Request, view: View) -> VoxelMap:
        """Return what ``view.shows`` of a subject beside importance.

        The noise ceiling, and the betas of `PREDICTIONS`, are those of the trials which the
        request averages.
        """
        dataset, subject, name = request.dataset, request.subject, view.shows
        offered = self.map_names(dataset, subject)[1:]
        if name not in offered:
            raise UserError(
                f"{dataset}/{subject} has no map {name!r} of its voxels; choose one of "
                f"{', '.join([IMPORTANCE, *offered])}."
            )
        trials = self.trials(dataset, subject)
        parcellation = self.parcellation(dataset, subject, view.atlas)
        if name in PREDICTIONS:
            return self._prediction(request, name, parcellation)
        if name == PARCELS:
            return voxel_map(name, f"parcels of {parcellation.name}", None, parcellation)
        if name == CEILING:
            n = len(trials.rows("test", request.stimulus, request.repeats))
            title = f"noise ceiling, % of variance ({_trials(n)})"
            ceiling = metrics.noise_ceiling(trials.subject.ncsnr, n)
            return voxel_map(name, title, ceiling, parcellation)
        if name == NCSNR:
            title = "noise-ceiling signal-to-noise ratio (ncsnr)"
            return voxel_map(name, title, trials.subject.ncsnr, parcellation)
        return voxel_map(name, name, trials.subject.maps[name], parcellation)

    def _prediction(self, request: Request, name: str, parcellation: Parcellation) -> VoxelMap:
        """Return one of `PREDICTIONS` for a request."""
        place = request.dataset, request.subject
        trials, encoder = self.trials(*place), self.models.encoder(*place)
        mean, sd = encoder.statistics()
        measured = (self.betas(request) - mean) / sd
        guess = (self._predict(request, [request.stimulus])[0] - mean) / sd
        which = _trials(len(trials.rows("test", request.stimulus, request.repeats)))
        spaces = ", ".join(space.name for space in encoder.spaces)
        told = (
            f"Betas are predicted from the shown image ({spaces}) by a {encoder.description} "
            "trained on this subject's training trials."
        )
        if name != ACCURACY:
            top = self._maps.get(
                ("largest beta", *place), lambda: self._largest_beta(request, mean, sd)
            )
            title = f"{name}, SD of the training trials" + f" ({which})" * (name == MEASURED)
            return predicted.betas_map(name, title, measured, guess, top, parcellation, told)
        r, ceiling, n = self._maps.get(("accuracy", *place), lambda: self._accuracy(request))
        alike = predicted.pattern_correlation(measured, guess, parcellation)
        title = f"r of measured and predicted betas, {n} test images"
        return predicted.accuracy_map(title, r, ceiling, alike, parcellation, told)

    def _predict(self, request: Request, stimuli: Sequence[str]) -> np.ndarray:
        """Return predicted betas float32 (n, V) of test stimuli, in the data's own unit."""
        encoder = self.models.encoder(request.dataset, request.subject)
        gallery = list(self.gallery(request.dataset, request.subject).index)
        rows = [gallery.index(stimulus) for stimulus in stimuli]
        return encoder.predict(
            {s: self.models.embed(request.dataset, gallery, s)[rows] for s in encoder.spaces}
        )

    def _accuracy(self, request: Request) -> tuple[np.ndarray, np.ndarray | None, int]:
        """Return `predicted.correlation` (V,) over the test stimuli, its ceiling, and how many."""
        trials = self.trials(request.dataset, request.subject)
        gallery = self.gallery(request.dataset, request.subject)
        averages = self._averages(request, list(gallery.index))
        stimuli, ncsnr = list(averages), trials.subject.ncsnr
        r = predicted.correlation(
            np.stack(list(averages.values())), self._predict(request, stimuli)
        )
        repeats = gallery.loc[stimuli, "repeats"]
        ceiling = None if ncsnr is None else predicted.correlation_ceiling(ncsnr, repeats)
        return r, ceiling, len(stimuli)

    def _largest_beta(self, request: Request, mean: np.ndarray, sd: np.ndarray) -> float:
        """Return the colour limit of betas in training SD, the same for all trials."""
        size = [abs(b - mean) / sd for b in self._averages(request, self._even(request)).values()]
        return float(np.percentile(size, LIMIT_PERCENTILE)) or 1.0

    def _even(self, request: Request) -> list[str]:
        """Return the test stimuli that fix colour limits, evenly spaced over all."""
        stimuli = list(self.gallery(request.dataset, request.subject).index)
        return [stimuli[i] for i in metrics.evenly(len(stimuli), LIMIT_TRIALS)]

    def _averages(self, request: Request, stimuli: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the mean test betas (V,) by stimulus, of those that are finite."""
        trials = self.trials(request.dataset, request.subject)
        averages = {stimulus: trials.average(stimulus) for stimulus in stimuli}
        return {s: betas for s, betas in averages.items() if np.isfinite(betas).all()}

    def evidence(self, request: Request, view: View) -> ParcelMap | VoxelMap:
        """Return what ``view.shows``: importance, or what else is known of the voxels."""
        show = self.importance if view.shows == IMPORTANCE else self.voxel_map
        return show(request, view)

    def _map(self, request: Request, view: View) -> ParcelMap:
        parcellation = self.parcellation(request.dataset, request.subject, view.atlas)
        betas = self.betas(request)[None]
        voxels = self.attribution(request, view, betas, [request.stimulus])[0]
        return ParcelMap(
            table=importance.per_parcel(voxels, parcellation),
            atlas=parcellation.name,
            method=view.method,
            target=view.target,
            n_voxels=voxels.size,
            flat=bool(importance.is_flat(voxels)),
            limits=self._colour_limits(request, view, parcellation),
            voxels=voxels,
            completeness=self._completeness(request, view, betas, voxels[None]),
        )

    def _completeness(
        self, request: Request, view: View, betas: np.ndarray, attribution: np.ndarray
    ) -> float | None:
        """Return how far one trial's integrated gradients are from complete."""
        if view.method != METHODS[2]:
            return None
        mapper = self.models.mapper(request.dataset, request.subject, request.mapper)
        target, space = self._target(request, view, [request.stimulus]), self.space(request)
        errors = importance.completeness_error(
            mapper, betas, request.subject, target, attribution, space=space
        )
        return float(errors[0])

    def attribution(
        self,
        request: Request,
        view: View,
        betas: np.ndarray,
        shown: Sequence[str],
        mapper: Any = None,
    ) -> np.ndarray:
        """Return float32 (n, V) for betas (n, V) of the stimuli that were shown.

        ``mapper`` takes the place of the request's own, e.g. one with random weights.
        """
        own = self.models.mapper(request.dataset, request.subject, request.mapper)
        target, space = self._target(request, view, shown), self.space(request)
        return importance.attribute(
            mapper or own, betas, request.subject, target, view.method, space=space
        )

    def _target(
        self, request: Request, view: View, shown: Sequence[str]
    ) -> importance.Target | importance.LogLikelihood:
        """Return what importance is of, in trials in which these stimuli were shown."""
        space = self.space(request)
        stimuli = list(self.gallery(request.dataset, request.subject).index)
        gallery = self.models.embed(request.dataset, stimuli, space)
        rows = [stimuli.index(stimulus) for stimulus in shown]
        if view.target == TARGETS[0]:
            return _margin_target(gallery, rows, space, self._temperature(request))
        if view.target == LIKELIHOOD:
            return importance.LogLikelihood(gallery[rows])
        return importance.fixed_direction(gallery[rows])  # the shown picture's own embedding

    def _colour_limits(
        self, request: Request, view: View, parcellation: Parcellation
    ) -> dict[str, tuple[float, float]]:
        space = self.space(request)
        key = (request.dataset, request.subject, request.mapper, space)
        return self._limits.get(
            (*key, view.method, view.target, parcellation.name),
            lambda: self._find_limits(request, view, parcellation),
        )

    def _find_limits(
        self, request: Request, view: View, parcellation: Parcellation
    ) -> dict[str, tuple[float, float]]:
        every = importance.NODES if view.method == METHODS[2] else 1  # so many passes a trial
        averages = self._averages(request, self._even(request)[::every])
        betas = np.stack(list(averages.values()))
        voxels = self.attribution(request, view, betas, list(averages))
        values = importance.parcel_statistics(voxels, parcellation)
        sizes = parcellation.masks().sum(axis=1)
        drawn = sizes >= importance.SMALL  # small parcels are greyed, their values are wild
        drawn[-1] = False  # (unassigned) is not on the surface
        drawn = drawn if drawn.any() else sizes > 0
        limits = {}
        for measure in MEASURES:
            known = np.abs(values[measure][:, drawn])
            known = known[np.isfinite(known)]
            top = float(np.percentile(known, LIMIT_PERCENTILE)) if known.size else 0.0
            top = top or 1.0
            limits[measure] = (-top if measure == "signed" else 0.0, top)
        return limits

    # ---------------------------------------------------------------------------------- provenance

    def warm(self, request: Request) -> None:
        """Load everything that a request needs, so that the first visitor waits less."""
        truth = self.image(request.dataset, request.stimulus)
        if request.mapper and not self.undecoded(request):
            self.decode(request)
        if request.mapper and not self.unexplained(request):
            self.importance(request, View())
        if request.generator:
            self.models.generator(request.generator)
            self.seconds(request)  # times a step of it
            self.scores(request.dataset, request.stimulus, truth)

    def record(self, request: Request, view: View) -> dict[str, Any]:
        """Return what makes this view again, ready for JSON, with its results so far."""
        return records.record(self, request, view)


def sampled_scale(request: Request) -> float:
    """Return the guidance scale, of a request's, at which samples are drawn."""
    return min(request.scales, key=lambda scale: abs(scale - TYPICAL_SCALE))


def deciding(request: Request) -> Request:
    """Return a request without what decides pictures alone, not what their embedding rests on."""
    plain = replace(request, axis="", values=(), rois=(), roi_atlas="")
    return replace(plain, scales=(1.0,), steps=1, seed=0, options=(), samples=1)


@contextlib.contextmanager
def _memory_told(generator: str) -> Iterator[None]:
    """Turn running out of memory into a sentence; a generator that can retries by itself."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        full = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if not full and "not enough memory" not in str(error):
            raise
        raise UserError(
            f"{generator} ran out of memory; give fewer guidance scales, close other programs, or "
            "choose another generator or device."
        ) from error


def _condition_hash(condition: Condition) -> str:
    """Return a short hash of what a picture is drawn from, beside the request."""
    digest = hashlib.sha256(repr(condition.stimulus).encode())
    tensors = [("embedding", condition.embeddings), ("null", condition.nulls)]
    arrays = {f"{kind} {s.name}": z.numpy() for kind, of in tensors for s, z in of.items()}
    arrays |= {"betas": condition.betas, "voxels": condition.voxels}
    for name in sorted(arrays):
        digest.update(name.encode())
        if arrays[name] is not None:
            digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def _trials(n: int) -> str:
    return "one trial" if n == 1 else f"mean of {n} trials"


def similarities(
    predictions: np.ndarray, gallery: np.ndarray, space: EmbeddingSpace
) -> np.ndarray:
    """Return float64 (n, N): predictions (n, ...) against gallery (N, ...).

    Cosine where the space has unit norm, else Pearson correlation over an embedding's values.
    """
    flat = [np.reshape(x, (len(x), -1)).astype(np.float64) for x in (predictions, gallery)]
    if not space.unit_norm:
        flat = [rows - rows.mean(axis=1, keepdims=True) for rows in flat]
    return metrics.cosine_matrix(*flat)


def _margin_target(
    gallery: np.ndarray, rows: Sequence[int], space: EmbeddingSpace, temperature: float
) -> importance.Target:
    """Return the retrieval margin over the similarity that ranks are made of."""
    if space.unit_norm:
        return importance.retrieval_margin(gallery, rows, temperature)
    flat = gallery.reshape(len(gallery), -1)
    centred = flat - flat.mean(axis=1, keepdims=True)  # cosine of centred values: correlation
    margin = importance.retrieval_margin(centred, rows, temperature)

    def target(prediction: Any) -> Any:
        values = prediction.flatten(1)
        return margin(values - values.mean(dim=1, keepdim=True))

    return target

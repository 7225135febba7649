"""What is on offer: data sets, trials, and which mappers and generators fit. No model is loaded.

Everything here answers from files and cards, so the page can draw its pickers at once. Data sets
and cards are read once; what was added later is seen after a restart.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.brain.parcels import Atlas, lay, paint
from explorer.cache import Cache
from explorer.protocols import Dataset
from explorer.request import SEED, Request
from explorer.types import Card, EmbeddingSpace, Subject, Trials, UserError, resolve

if TYPE_CHECKING:
    import pandas as pd

PUBLISHED = "published"  # the generator and the mapper that show others' results
PLAIN_FOLDER = "folder"  # the family of a data set whose name is none of a known format
FIT_NOW = "ridge"  # quick enough to be fitted while a person waits
FITTED = "ridge (fitted now)"
FIT_LIMIT = 50_000_000  # training trials x voxels, 200 MB as float32: our choice
IMAGE_BYTES = 64 * 2**20
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # it goes into links and folder names


def named_path(pair: str, flag: str = "--dataset") -> tuple[str, Path, dict[str, str]]:
    """Return name, path and options of ``NAME=PATH`` or ``NAME=PATH?option=value&option=value``.

    The path must exist; one with a question mark in its name is taken as it is. Which options
    there are is the data set's to say (`Catalogue.dataset`). ``flag``: what it was given to.
    """
    name, _, given = pair.partition("=")
    if not given or not NAME.fullmatch(name):
        raise UserError(
            f"{flag} takes NAME=PATH, the name of letters, digits, dots, dashes and "
            f"underscores; found {pair!r}."
        )
    return name, *path_and_options(given, f"{flag} {name}")


def named_sources(pairs: Sequence[str], generators: Mapping[str, Any]) -> dict[str, str]:
    """Return generator -> where its weights or pictures are, from ``NAME=PATH_OR_ID`` texts.

    ``generators``: the dict literal; those that can be told take a ``source``. What is neither
    there nor written like a hub id raises `UserError`; what it holds is the generator's to check.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, source = pair.partition("=")
        told = [n for n, entry in generators.items() if _takes_source(resolve(entry))]
        if not (equals and source) or name not in told:
            raise UserError(
                f"--generator takes NAME=PATH_OR_ID with one of {', '.join(told) or 'none'}, "
                f"found {pair!r}."
            )
        if name in found:
            raise UserError(f"--generator names {name} twice; give each its weights once.")
        bare = source.partition("?")[0]  # what follows names a gallery, for generators with one
        if not any(Path(s).expanduser().exists() or HUB_ID.fullmatch(s) for s in (source, bare)):
            raise UserError(
                f"--generator {name}: there is nothing at {source}, and it is no hub id such as "
                "owner/name; check the path."
            )
        found[name] = source
    return found


def path_and_options(given: str, who: str) -> tuple[Path, dict[str, str]]:
    """Return path and options of ``PATH`` or ``PATH?option=value&option=value``; it must exist.

    ``who``: how a refusal begins.
    """
    path, _, tail = given.rpartition("?")
    if not path or Path(given).expanduser().exists():
        path, tail = given, ""
    place = Path(path).expanduser()
    if not place.exists():
        raise UserError(f"{who}: there is nothing at {path}; check the path.")
    options: dict[str, str] = {}
    for word in tail.split("&") if tail else ():
        key, equals, value = word.partition("=")
        if not key or not equals or key in options:
            raise UserError(
                f"{who}: options are written ?name=value&name=value, each once; found {word!r}."
            )
        options[key] = value
    return place, options


def recognise(path: Path, datasets: Mapping[str, Any]) -> str:
    """Return the key of the class that knows a path by its content, "" if none does."""
    for name, entry in datasets.items():
        knows = getattr(resolve(entry), "recognise", None)
        if knows is not None and knows(path):
            return name
    return ""


def open_dataset(cls: Any, path: Path, name: str, options: Mapping[str, str], who: str) -> Dataset:
    """Return a data set of a class that takes these options; ``who`` begins a refusal."""
    taken = [p for p in inspect.signature(cls).parameters if p not in ("path", "name")]
    _refuse_options(options, taken, who)
    return cls(path, name, **options)


@dataclass(frozen=True, eq=False)
class Offer:
    """A mapper that fits a subject: a checkpoint, or only targets that one is to be fitted to.

    ``published``: the mapper itself, where it looks up what others predicted.
    """

    targets: tuple[EmbeddingSpace, ...]
    folder: Path | None = None
    card: Card | None = None
    published: Any = None


class Catalogue:
    """The data sets, embedders, mappers and generators that a workbench was given.

    Parameters
    ----------
    datasets, embedders, mappers, generators, encoders
        Name -> class or ``"module:Class"``, as in ``backends``.
    checkpoints
        The folder of trained weights; mappers lie in ``mappers/<data set>/<mapper>-<subject>``,
        encoding models in ``encoding/<data set>/<subject>``.
    paths
        Data sets to open: a key of ``datasets``, or any other name, which is opened by the class
        that recognises the path, or else as a plain folder. Data sets whose class has a default
        path (they come with the app) are on offer without being named.
    options
        For each of ``paths``: keyword arguments of its class, as text.
    atlases
        Further atlases for every subject: laid over voxels with places, and for ROIs without
        places, a group's surface to paint them on.
    published
        Results of others to show beside ours: name -> path and options as text, of which
        ``dataset`` and ``subject`` say whose they are. Read by the ``"published"`` of generators
        or mappers, whichever recognises the path.
    sources
        Generator -> the folder or hub id of its weights, see `named_sources`. A class with a
        ``hub`` draws with weights that were published elsewhere: it is on offer only when it has
        a source, or ``generators/<name>`` among the checkpoints.
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
    ) -> None:
        self.checkpoints = Path(checkpoints)
        self.paths = {name: Path(path) for name, path in (paths or {}).items()}
        self.options = {name: dict(chosen) for name, chosen in (options or {}).items()}
        self.atlases = tuple(atlases)
        self.embedders, self.mappers = dict(embedders), dict(mappers)
        self.encoders, self.sources = dict(encoders or {}), dict(sources or {})
        self._datasets, self._generators = dict(datasets), dict(generators)
        self._known = Cache()  # data sets, trials, galleries, offers: small, kept for good
        self._images = Cache(IMAGE_BYTES, lambda image: image.nbytes)
        self._problems: dict[str, None] = {}  # an ordered set
        readers = [kind.pop(PUBLISHED, None) for kind in (self._generators, self.mappers)]
        self.pictures: dict[str, Any] = {}  # published ones, by name
        self._predictions: dict[str, Any] = {}
        for result, (path, chosen) in (published or {}).items():
            self._open_published(result, Path(path), chosen, [r for r in readers if r])

    def problems(self) -> list[str]:
        """Return what cannot be offered or must be known of models, one sentence each."""
        return list(self._problems)

    def report(self, problem: str) -> None:
        """Add a sentence to `problems`, once."""
        self._problems[problem] = None

    # ------------------------------------------------------------------------------------- studies

    def dataset_names(self) -> list[str]:
        """Return the data sets on offer: those that come with the app, then those given a path."""
        embedded = [name for name, entry in self._datasets.items() if _has_default_path(entry)]
        return list(dict.fromkeys([*embedded, *self.paths]))

    def dataset(self, name: str) -> Dataset:
        """Return a data set, opened once; an unknown name raises `UserError`."""
        return self._known.get(("dataset", name), lambda: self._open(name))

    def _open(self, name: str) -> Dataset:
        offered = self.dataset_names()
        if name not in offered:
            raise UserError(
                f"There is no data set {name!r} here; choose one of {', '.join(offered)}, or "
                f"start with --dataset {name}=PATH."
            )
        family = self.family(name)
        if not family:
            raise UserError(f"Nothing here can read the data set {name!r} as a plain folder.")
        cls, options = resolve(self._datasets[family]), self.options.get(name, {})
        if name in self.paths:
            who = f"--dataset {name}: {family}"
            return open_dataset(cls, self.paths[name], name, options, who)
        return cls(name=name)

    def family(self, name: str) -> str:
        """Return which class opens a data set, a key of ``datasets``; "" if there is none.

        Its own name if that is a key, else that of the class which recognises its path, else that
        of the plain folder.
        """
        if name in self._datasets:
            return name
        found = recognise(self.paths[name], self._datasets) if name in self.paths else ""
        return found or (PLAIN_FOLDER if PLAIN_FOLDER in self._datasets else "")

    def _open_published(
        self, name: str, path: Path, options: Mapping[str, str], readers: Sequence[Any]
    ) -> None:
        """Open what others published, and say at once where it cannot be used."""
        said, who = dict(options), f"--published {name}"
        if name in {*self._generators, *self.pictures, *self._predictions}:
            raise UserError(f"{who}: the name is taken; give the results another.")
        only = next(iter(self.paths)) if len(self.paths) == 1 else ""
        named = said.pop("dataset", "") or only
        if not named:
            raise UserError(
                f"{who}: say whose data the results are of with ?dataset=NAME, one of "
                f"{', '.join(self.dataset_names())}."
            )
        study = self.dataset(named)
        subjects = study.subjects()
        whole = r"(?<![A-Za-z0-9]){}(?![A-Za-z0-9])"  # "subj01" of "final_subj01_all_recons.pt"
        inside = [
            s
            for s in subjects
            if len(subjects) == 1 or re.search(whole.format(re.escape(s)), str(path))
        ]
        subject = said.pop("subject", "") or (inside[0] if len(inside) == 1 else "")
        if subject not in subjects:
            raise UserError(
                f"{who}: say whose results they are with ?subject=, one of {', '.join(subjects)}"
                f"{f'; found {subject!r}' if subject else ''}."
            )
        cls = next((c for c in map(resolve, readers) if c.recognise(path)), None)
        if cls is None:
            raise UserError(
                f"{who}: {path} holds neither pictures nor an array of predictions; give a .pt or "
                ".npy file, or a folder of pictures."
            )
        parameters = inspect.signature(cls).parameters
        taken = [p for p, kind in parameters.items() if kind.kind is kind.KEYWORD_ONLY]
        _refuse_options(said, ["dataset", "subject", *taken], who)
        given: list[Any] = [path, name, study, subject]
        if "spaces" in parameters:
            known = (s for entry in self.embedders.values() for s in resolve(entry).spaces)
            given.append({space.name: space for space in known})
        result = cls(*given, **said)
        (self._predictions if "spaces" in parameters else self.pictures)[name] = result
        for problem in result.problems:
            self.report(problem)

    def subjects(self, dataset: str) -> list[str]:
        """Return the subjects of a data set."""
        return list(self.dataset(dataset).subjects())

    def trials(self, dataset: str, subject: str) -> Trials:
        """Return a subject's trials, loaded once; an unknown subject raises `UserError`."""
        return self._known.get(("trials", dataset, subject), lambda: self._load(dataset, subject))

    def _load(self, dataset: str, subject: str) -> Trials:
        offered = self.subjects(dataset)
        if subject not in offered:
            raise UserError(
                f"The data set {dataset} has no subject {subject!r}; choose one of "
                f"{', '.join(offered)}."
            )
        trials = self.dataset(dataset).load(subject)
        return (
            replace(trials, subject=self._with_atlases(trials.subject)) if self.atlases else trials
        )

    def _with_atlases(self, subject: Subject) -> Subject:
        """Return a subject whose voxels also have the atlases that were given at the start.

        Paintings come first: without them nothing is drawn.
        """
        voxels, who = subject.voxels, f"{subject.dataset}/{subject.name}"
        laid, painted = dict(voxels.parcellations), {}
        for atlas in self.atlases:
            if atlas.name in laid:
                self.report(
                    f"{who} has an atlas {atlas.name} of its own, so the one given with --atlas "
                    "is left out; name it: --atlas NAME=FILE."
                )
            elif voxels.projection is not None:
                laid[atlas.name] = lay(atlas, voxels.projection, voxels.hash)
            elif not voxels.parcellations:
                self.report(
                    f"{who} gives neither places nor ROIs for its voxels, so the atlas "
                    f"{atlas.name} cannot be used."
                )
            for rois in voxels.parcellations.values() if voxels.projection is None else ():
                try:
                    painting = paint(rois, atlas)
                    painted[painting.name] = painting
                except UserError as error:
                    self.report(f"{who}: {error}")
        return replace(subject, voxels=replace(voxels, parcellations=painted | laid))

    def gallery(self, dataset: str, subject: str) -> pd.DataFrame:
        """Return the subject's test stimuli, indexed by stimulus, in the order of the data set.

        Columns: ``number`` (1-based), ``caption``, ``category``, ``repeats`` (how many trials).
        """
        return self._known.get(
            ("gallery", dataset, subject), lambda: self._list_stimuli(dataset, subject)
        )

    def _list_stimuli(self, dataset: str, subject: str) -> pd.DataFrame:
        trials, stimuli = self.trials(dataset, subject), self.dataset(dataset).stimuli
        shown = trials.table["stimulus"].iloc[trials.rows("test")].value_counts()
        lost = [stimulus for stimulus in shown.index if stimulus not in stimuli.index]
        if lost:
            raise UserError(
                f"{dataset}/{subject} has trials of {lost[0]!r}, which the table of stimuli "
                "lacks; add that row."
            )
        rows = stimuli.loc[stimuli.index.isin(shown.index), ["caption", "category"]]
        if rows.empty:
            raise UserError(
                f"{dataset}/{subject} has no test trial, so there is nothing to show; mark trials "
                "as test in its table."
            )
        rows = rows.fillna("").astype(str)
        rows.insert(0, "number", np.arange(1, len(rows) + 1))
        rows["repeats"] = shown.reindex(rows.index).astype(int)
        return rows

    def image(self, dataset: str, stimulus: str) -> np.ndarray:
        """Return the picture that was shown, uint8 (H, W, 3)."""
        return self._images.get(
            (dataset, stimulus), lambda: np.asarray(self.dataset(dataset).image(stimulus))
        )

    # ------------------------------------------------------------------------------ what fits what

    def mapper_names(self, dataset: str, subject: str) -> list[str]:
        """Return the mappers that read this subject's voxels; the rest are in `problems`."""
        return list(self._offers(dataset, subject))

    def mapper_can(self, dataset: str, subject: str, mapper: str, what: str) -> bool:
        """Return whether a mapper's class has a method that not all have; no weights are read."""
        if not mapper:
            return False
        offer = self.offer(dataset, subject, mapper)
        cls = self.mappers.get(offer.card.cls if offer.card else FIT_NOW)
        return offer.published is None and hasattr(resolve(cls), what)

    def space_names(self, dataset: str, subject: str, mapper: str, generator: str) -> list[str]:
        """Return what can be decoded: the mapper's targets, those that the generator draws from.

        In the order of the generator's preference; all targets where no generator is chosen.
        """
        targets = self.offer(dataset, subject, mapper).targets if mapper else ()
        accepted = self.generator_class(generator).accepts if generator else targets
        return [space.name for space in accepted if space in targets]

    def can_sample(self, request: Request) -> bool:
        """Return whether samples of a request's mapper can be drawn by its generator."""
        place = request.dataset, request.subject, request.mapper
        drawn = request.generator and self.generator_class(request.generator).accepts
        return bool(drawn) and self.mapper_can(*place, "sample")

    def generator_names(self, dataset: str, subject: str, mapper: str) -> list[str]:
        """Return the generators that accept what the mapper gives, and published pictures.

        Published pictures need no mapper: they are all there is where ``mapper`` is "".
        """
        targets = set(self.offer(dataset, subject, mapper).targets) if mapper else set()
        fitting = [
            name
            for name in self._usable()
            if mapper and targets.intersection(self.generator_class(name).accepts)
        ]
        return fitting + [name for name, p in self.pictures.items() if _is_of(p, dataset, subject)]

    def generator_class(self, name: str) -> Any:
        """Return a generator's class, or the published pictures of that name.

        Either tells its capabilities without any weights.
        """
        if name in self.pictures:
            return self.pictures[name]
        if name not in self._generators:
            raise UserError(
                f"There is no generator {name!r}; choose one of "
                f"{', '.join([*self._generators, *self.pictures])}."
            )
        return resolve(self._generators[name])

    def lacking(self, generator: str) -> str:
        """Return why a generator has no weights, in its own sentence; "" where it has some."""
        cls = self.generator_class(generator)
        if generator in self.pictures or self._has_weights(generator):
            return ""
        try:
            cls(self.checkpoints)
        except UserError as error:
            return str(error)
        return ""

    def _has_weights(self, generator: str) -> bool:
        """Return whether a generator of the dict literal ships, or its weights were brought."""
        ships = not hasattr(self.generator_class(generator), "hub")
        usual = self.checkpoints / "generators" / generator
        return ships or generator in self.sources or usual.is_dir()

    def unusable(self) -> list[str]:
        """Return the generators that are not on offer because their weights are not here."""
        return [name for name in self._generators if not self._has_weights(name)]

    def _usable(self) -> list[str]:
        return [name for name in self._generators if self._has_weights(name)]

    def axes(self, generator: str) -> list[str]:
        """Return what a sweep can vary besides the scale: the seed, and a generator's options."""
        if not generator:
            return []
        cls = self.generator_class(generator)
        noise = [SEED] if cls.provenance == "generated" else []
        return [*noise, *(option.name for option in cls.options)]

    def uses_betas(self, request: Request) -> bool:
        """Return whether options of a request let betas decide, so that their parcels matter."""
        if not request.generator:
            return False
        asked = [o for o in self.generator_class(request.generator).options if o.betas]
        return any(
            dict(row.options).get(option.name, option.default) > 0
            for row in (request.rows() if asked else ())
            for option in asked
        )

    def roi_names(self, dataset: str, subject: str, atlas: str = "") -> list[str]:
        """Return the parcels of an atlas ("" the first) that hold voxels of a subject."""
        atlases = self.trials(dataset, subject).subject.voxels.parcellations
        parcellation = atlases.get(atlas or next(iter(atlases), ""))
        if parcellation is None:
            return []
        counts = parcellation.masks().sum(axis=1)[:-1]
        return [
            label.key for label, count in zip(parcellation.labels, counts, strict=True) if count
        ]

    def scales(self, generator: str) -> tuple[float, ...]:
        """Return the only guidance scales a generator has; () where any will do."""
        return tuple(getattr(self.generator_class(generator), "scales", ()))

    def offer(self, dataset: str, subject: str, mapper: str) -> Offer:
        """Return what stands behind a mapper's name; an unknown one raises `UserError`."""
        offers = self._offers(dataset, subject)
        if not offers:
            raise UserError(
                f"There is no mapper for {dataset}/{subject}; train one with: python -m backends "
                f"train ridge --dataset {dataset}=PATH."
            )
        if mapper not in offers:
            raise UserError(
                f"There is no mapper {mapper!r} for {dataset}/{subject}; choose one of "
                f"{', '.join(offers)}."
            )
        return offers[mapper]

    def _offers(self, dataset: str, subject: str) -> dict[str, Offer]:
        return self._known.get(
            ("offers", dataset, subject), lambda: self._find_offers(dataset, subject)
        )

    def _find_offers(self, dataset: str, subject: str) -> dict[str, Offer]:
        trials = self.trials(dataset, subject)
        found = []
        for folder, card in self._known.get("cards", self._read_cards):
            if card.dataset != dataset or subject not in card.subjects:
                continue
            what = f"The mapper in {folder.name}"
            if misfit := _misfit(what, card, trials.subject, self.mappers):
                self.report(misfit)
            else:
                found.append((folder, card))
        # in the order of the dict literal, so that what comes first there is shown first
        kinds = list(self.mappers)
        found.sort(key=lambda one: kinds.index(one[1].cls))
        names = [card.name for _, card in found]
        offers = {
            card.name if names.count(card.name) == 1 else folder.name: Offer(
                card.targets, folder, card
            )
            for folder, card in found
        }
        offers |= {
            name: Offer(p.targets, card=p.card, published=p)
            for name, p in self._predictions.items()
            if _is_of(p, dataset, subject)
        }
        return offers or self._fit_offers(trials)

    def _read_cards(self) -> list[tuple[Path, Card]]:
        cards = []
        for path in sorted(self.checkpoints.glob("mappers/*/*/card.json")):
            try:
                cards.append((path.parent, Card.from_dict(_read_object(path))))
            except UserError as error:
                self.report(f"{path.parent.name}: {error}")
        return cards

    def _fit_offers(self, trials: Trials) -> dict[str, Offer]:
        """Offer a mapper fitted on the spot to the smallest space that a generator accepts."""
        who = f"{trials.subject.dataset}/{trials.subject.name}"
        rows, count = len(trials.rows("train")), trials.subject.voxels.n_voxels
        accepted = [self.generator_class(name).accepts for name in self._usable()]
        known = [space for spaces in accepted for space in spaces if self.embedder_name(space)]
        if not rows or FIT_NOW not in self.mappers or not known:
            self.report(
                f"There is no mapper for {who}, nor can its {rows} training trials make one."
            )
            return {}
        if rows * count > FIT_LIMIT:
            self.report(
                f"There is no mapper for {who}, and its {rows} training trials of {count} voxels "
                "are too many to fit one while you wait; run: python -m backends train ridge."
            )
            return {}
        return {FITTED: Offer((min(known, key=lambda space: space.size),))}

    def encoder_offer(self, dataset: str, subject: str) -> Offer | None:
        """Return the encoding model that predicts this subject's betas, None where none fits."""
        return self._known.get(
            ("encoder", dataset, subject), lambda: self._find_encoder(dataset, subject)
        )

    def _find_encoder(self, dataset: str, subject: str) -> Offer | None:
        folder = self.checkpoints / "encoding" / dataset / subject
        if not self.encoders or not (folder / "card.json").is_file():
            return None
        what = f"The encoding model of {dataset}/{subject}"
        try:
            card = Card.from_dict(_read_object(folder / "card.json"))
        except UserError as error:
            self.report(f"{what}: {error}")
            return None
        misfit = _misfit(what, card, self.trials(dataset, subject).subject, self.encoders)
        blind = [space for space in card.targets if not self.embedder_name(space)]
        if not misfit and blind:
            misfit = (
                f"{what} reads {blind[0].name}, and no embedder here puts images into that; train "
                "it on a space of this version."
            )
        if misfit:
            self.report(misfit)
            return None
        return Offer(card.targets, folder, card)

    def embedder_name(self, space: EmbeddingSpace) -> str:
        """Return the embedder that puts images into ``space``, "" if none does."""
        names = (n for n, entry in self.embedders.items() if space in resolve(entry).spaces)
        return next(names, "")

    def captions_embedder_name(self, space: EmbeddingSpace) -> str:
        """Return the embedder that puts captions into ``space``, "" if none does."""
        names = (
            name
            for name, entry in self.embedders.items()
            if space in getattr(resolve(entry), "text_spaces", ())
        )
        return next(names, "")

    # ------------------------------------------------------------------------------------ requests

    def default_request(
        self,
        dataset: str | None = None,
        subject: str | None = None,
        seed: int | None = None,
        **choices: Any,
    ) -> Request:
        """Return a request for a random test trial (``seed`` None: another one each time).

        Mapper and generator are the first that fit, "" where none does, so that the trial can
        still be looked at. ``choices`` are fields of `Request` that are wanted as given.
        """
        dataset = dataset or self.dataset_names()[0]
        subject = subject or self.subjects(dataset)[0]
        stimuli = self.gallery(dataset, subject).index
        drawn = stimuli[np.random.default_rng(seed).integers(len(stimuli))]
        chosen = {"dataset": dataset, "subject": subject, "stimulus": str(drawn), **choices}
        if "mapper" not in chosen:
            mappers = self.mapper_names(dataset, subject)
            usable = (m for m in mappers if self.generator_names(dataset, subject, m))
            chosen["mapper"] = next(usable, "")
        if "generator" not in chosen:
            fitting = self.generator_names(dataset, subject, chosen["mapper"])
            chosen["generator"] = next(iter(fitting), "")
        if chosen["generator"]:
            steps = self.generator_class(chosen["generator"]).default_steps
            chosen.setdefault("steps", steps)
            if scales := self.scales(chosen["generator"]):
                chosen.setdefault("scales", scales)
        return Request(**chosen)

    def check(self, request: Request, *, pictures: bool = True) -> None:
        """Refuse a request that names something not on offer, in one sentence.

        Without ``pictures`` it may lack a generator: decoding and importance need none.
        """
        trials = self.trials(request.dataset, request.subject)
        who = f"{request.dataset}/{request.subject}"
        gallery = self.gallery(request.dataset, request.subject)
        if request.stimulus not in gallery.index:
            raise UserError(
                f"{who} has no test stimulus {request.stimulus!r}; choose one of its "
                f"{len(gallery)}, {gallery.index[0]} to {gallery.index[-1]}."
            )
        there = sorted(trials.table["repeat"].iloc[trials.rows("test", request.stimulus)])
        lacking = [repeat for repeat in request.repeats if repeat not in there]
        if lacking:
            raise UserError(
                f"{who} has no repeat {lacking[0] + 1} of {request.stimulus} in its test trials; "
                f"choose {', '.join(str(r + 1) for r in there)} or the average."
            )
        fitting = self.generator_names(request.dataset, request.subject, request.mapper)
        if not request.mapper and request.generator not in fitting:
            self.offer(request.dataset, request.subject, "")  # says that there is none
        for name in (request.mapper, request.generator):
            if request.repeats and name in {*self.pictures, *self._predictions}:
                raise UserError(
                    f"{name} was made by others from the average of all repeats; choose the "
                    "average."
                )
        if request.space:
            place = request.dataset, request.subject, request.mapper
            offered = self.space_names(*place, request.generator)
            if request.space not in offered:
                raise UserError(
                    f"The mapper {request.mapper or 'none'} decodes no {request.space} that is "
                    f"drawn from here; choose {' or '.join(offered) or 'another mapper'}."
                )
        if not request.generator and not pictures:
            return
        if not request.generator and not fitting:
            spaces = self.offer(request.dataset, request.subject, request.mapper).targets
            raise UserError(
                f"No generator here draws from {' or '.join(s.name for s in spaces)}, which the "
                f"mapper {request.mapper} gives; choose another mapper to see pictures."
            )
        options = {o.name: o for o in self.generator_class(request.generator).options}
        if request.generator not in fitting:
            if reason := self.lacking(request.generator):
                raise UserError(reason)
            raise UserError(
                f"The generator {request.generator} does not accept what the mapper "
                f"{request.mapper} gives; choose {' or '.join(fitting) or 'another mapper'}."
            )
        if request.samples > 1 and not self.can_sample(request):
            raise UserError(
                f"There are no samples of the mapper {request.mapper} for the generator "
                f"{request.generator}: that takes a mapper that gives a density; choose 1."
            )
        for name, value in request.options:
            if name not in options:
                raise UserError(
                    f"The generator {request.generator} has no option {name!r}, it has "
                    f"{', '.join(options) or 'none'}; leave it out."
                )
            options[name].check(value)
        if request.axis and request.axis not in (axes := self.axes(request.generator)):
            raise UserError(
                f"The generator {request.generator} cannot vary {request.axis!r} from row to row, "
                f"only {', '.join(axes) or 'the scale'}; choose another or none."
            )
        for value in request.values if request.axis != SEED else ():
            options[request.axis].check(value)
        if request.rois:
            known = self.roi_names(request.dataset, request.subject, request.roi_atlas)
            unknown = [name for name in request.rois if name not in known]
            if unknown:
                raise UserError(
                    f"{who} has no parcel {unknown[0]!r} with voxels in the atlas "
                    f"{request.roi_atlas or 'that comes first'}; choose among "
                    f"{', '.join(known) or 'none'}."
                )


def _misfit(what: str, card: Card, subject: Subject, known: Mapping[str, Any]) -> str:
    """Return why a checkpoint does not serve a subject, one sentence that begins with ``what``."""
    voxels, made_for = subject.voxels, card.voxels.get(subject.name, (0, "none"))
    if made_for != (voxels.n_voxels, voxels.hash):
        return (
            f"{what} was made for {made_for[0]} voxels (hash {made_for[1]}), "
            f"{subject.dataset}/{subject.name} has {voxels.n_voxels} (hash {voxels.hash}); train "
            "it again on these."
        )
    if card.cls not in known:
        return (
            f"{what} is of the kind {card.cls!r}, which this version does not have; it has "
            f"{', '.join(known) or 'none'}."
        )
    return ""


def _is_of(published: Any, dataset: str, subject: str) -> bool:
    return (published.dataset, published.subject) == (dataset, subject)


def _refuse_options(options: Mapping[str, str], taken: Sequence[str], who: str) -> None:
    for option in options:
        if option not in taken:
            raise UserError(
                f"{who} has no option {option!r}; it takes {', '.join(taken) or 'none'}."
            )


def _takes_source(cls: Any) -> bool:
    return "source" in inspect.signature(cls).parameters


def _has_default_path(entry: Any) -> bool:
    path = inspect.signature(resolve(entry)).parameters.get("path")
    return path is not None and path.default is not inspect.Parameter.empty


def _read_object(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # gone, not UTF-8 or not JSON
        raise UserError(f"{path.name} cannot be read ({error}); copy it again.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path.name} holds a {type(values).__name__}, expected an object.")
    return values

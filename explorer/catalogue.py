"""What is on offer: data sets, trials, and which mappers and generators fit. No model is loaded.

Everything here answers from files and cards, so the page can draw its pickers at once. Data sets
and cards are read once; what was added later is seen after a restart.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.brain.atlases import with_atlases
from explorer.brain.parcels import Atlas
from explorer.cache import Cache
from explorer.naming import (
    PLAIN_FOLDER,
    open_dataset,
    open_published,
    recognise,
    takes_split,
    whose_results,
)
from explorer.offers import (
    FIT_NOW,
    Behind,
    Offer,
    find_encoder,
    find_mappers,
    fit_offer,
    has_method,
    no_mapper,
    offered_as,
    read_cards,
)
from explorer.protocols import Dataset
from explorer.splits import read_split, resplit
from explorer.types import EmbeddingSpace, Trials, UserError, resolve

if TYPE_CHECKING:
    import pandas as pd

PUBLISHED = "published"  # the generator and the mapper that show others' results
IMAGE_BYTES = 64 * 2**20


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
        self.behind = Behind()  # a store's models, whose weights may be elsewhere
        self._known = Cache()  # data sets, trials, galleries, offers: small, kept for good
        self._images = Cache(IMAGE_BYTES, lambda image: image.nbytes)
        self._problems: dict[str, None] = {}  # an ordered set
        self._withheld: dict[tuple[str, str], dict[str, str]] = {}  # why, by mapper's name
        readers = [kind.pop(PUBLISHED, None) for kind in (self._generators, self.mappers)]
        self.pictures: dict[str, Any] = {}  # published ones, by name
        self.predictions: dict[str, Any] = {}
        for result, (path, chosen) in (published or {}).items():
            of = [reader for reader in readers if reader]
            found = _open_result(self, result, Path(path), chosen, of)
            (self.predictions if hasattr(found, "targets") else self.pictures)[result] = found
            for problem in found.problems:
                self.report(problem)

    def problems(self) -> list[str]:
        """Return what cannot be offered or must be known of models, one sentence each."""
        return list(self._problems)

    def report(self, problem: str) -> None:
        """Add a sentence to `problems`, once."""
        self._problems[problem] = None

    def dataset_names(self) -> list[str]:
        """Return the data sets on offer: those that come with the app, then those given a path.

        A part of one that comes with the app is named after both, as `own_name` does.
        """
        return list(dict.fromkeys([*self._embedded, *self.paths]))

    @cached_property
    def _embedded(self) -> dict[str, tuple[str, dict[str, str]]]:
        """What comes with the app: name -> family and options."""
        return _embedded(self._datasets)

    def dataset(self, name: str) -> Dataset:
        """Return a data set, opened once; an unknown name raises `UserError`."""
        return self._known.get(("dataset", name), lambda: self._open(name))

    def _open(self, name: str) -> Dataset:
        offered = self.dataset_names()
        if name not in offered:
            raise _no_dataset(name, offered)
        family = self.family(name)
        if not family:
            raise UserError(f"Nothing here can read the data set {name!r} as a plain folder.")
        cls, options = resolve(self._datasets[family]), dict(self.options.get(name, {}))
        if not takes_split(cls):
            options.pop("split", None)  # one that was made here, see `_load`
        if name in self.paths:
            who = f"--dataset {name}: {family}"
            return open_dataset(cls, self.paths[name], name, options, who)
        return cls(name=name, **self._embedded[name][1])

    def reopened(self, name: str) -> tuple[Dataset, dict[str, Trials]]:
        """Return a data set of a path read anew, and its trials by subject; nothing is kept."""
        study = self._open(name)
        return study, {one: self._load_from(study, name, one) for one in study.subjects()}

    def renew(
        self, name: str, study: Dataset, trials: Mapping[str, Trials], others: Collection[str] = ()
    ) -> None:
        """Offer what `reopened` gave instead; pictures of stimuli ``others`` are read anew."""
        self._known.drop(lambda key: isinstance(key, tuple) and name in key)
        self._known.put(("dataset", name), study)
        for subject, of_one in trials.items():
            self._known.put(("trials", name, subject), of_one)
        self._images.drop(lambda key: key[0] == name and key[1] in others)

    def family(self, name: str) -> str:
        """Return which class opens a data set, a key of ``datasets``; "" if there is none.

        Its own name if that is a key, else that of the class which recognises its path, else that
        of the plain folder.
        """
        if name in self._datasets:
            return name
        if name in self._embedded and name not in self.paths:
            return self._embedded[name][0]
        found = recognise(self.paths[name], self._datasets) if name in self.paths else ""
        return found or (PLAIN_FOLDER if PLAIN_FOLDER in self._datasets else "")

    def subjects(self, dataset: str) -> list[str]:
        """Return the subjects of a data set."""
        return list(self.dataset(dataset).subjects())

    def trials(self, dataset: str, subject: str) -> Trials:
        """Return a subject's trials, loaded once; an unknown subject raises `UserError`."""
        return self._known.get(("trials", dataset, subject), lambda: self._load(dataset, subject))

    def _load(self, dataset: str, subject: str) -> Trials:
        offered = self.subjects(dataset)
        if subject not in offered:
            raise _no_subject(dataset, subject, offered)
        return self._load_from(self.dataset(dataset), dataset, subject)

    def _load_from(self, study: Dataset, dataset: str, subject: str) -> Trials:
        trials = study.load(subject)
        split = self.options.get(dataset, {}).get("split", "")
        if split and not takes_split(type(study)):
            trials = resplit(trials, read_split(self.checkpoints, dataset, split))
        if not self.atlases:
            return trials
        return replace(trials, subject=with_atlases(trials.subject, self.atlases, self.report))

    def gallery(self, dataset: str, subject: str) -> pd.DataFrame:
        """Return the subject's test stimuli, indexed by stimulus, in the order of the data set.

        Columns: ``number`` (1-based), ``caption``, ``category``, ``repeats`` (how many trials).
        """
        return self._known.get(
            ("gallery", dataset, subject),
            lambda: _list_stimuli(self.trials(dataset, subject), self.dataset(dataset).stimuli),
        )

    def test_only(self, dataset: str) -> bool:
        """Return whether a data set is a further test set, without training trials."""
        return bool(getattr(self.dataset(dataset), "test_only", False))

    def without_picture(self, dataset: str, stimulus: str) -> str:
        """Return why no single picture stands for a stimulus, in one sentence; "" if one does."""
        why = getattr(self.dataset(dataset), "without_picture", None)
        return why(stimulus) if why else ""

    def image(self, dataset: str, stimulus: str) -> np.ndarray:
        """Return the picture that was shown, uint8 (H, W, 3)."""
        return self._images.get(
            (dataset, stimulus), lambda: np.asarray(self.dataset(dataset).image(stimulus))
        )

    def mapper_names(self, dataset: str, subject: str) -> list[str]:
        """Return the mappers that read this subject's voxels; the rest are in `problems`."""
        return list(self._offers(dataset, subject))

    def mapper_can(self, dataset: str, subject: str, mapper: str, what: str) -> bool:
        """Return whether a mapper's class has a method that not all have; no weights are read."""
        if not mapper:
            return False
        offer = self.offer(dataset, subject, mapper)
        cls = self.mappers.get(offer.card.cls if offer.card else FIT_NOW)
        return offer.published is None and has_method(cls, what)

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
            raise _no_generator(name, [*self._generators, *self.pictures])
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
        brought = generator in self.sources or generator in self.behind.generators
        return ships or brought or usual.is_dir()

    def unusable(self) -> list[str]:
        """Return the generators that are not on offer because their weights are not here."""
        return [name for name in self._generators if not self._has_weights(name)]

    def _usable(self) -> list[str]:
        return [name for name in self._generators if self._has_weights(name)]

    def offer(self, dataset: str, subject: str, mapper: str) -> Offer:
        """Return what stands behind a mapper's name; an unknown one raises `UserError`."""
        offers = self._offers(dataset, subject)
        if (found := offered_as(offers, mapper)) is None:
            why = self._withheld[dataset, subject].get(mapper, "")
            raise no_mapper(f"{dataset}/{subject}", mapper, offers, why, self.test_only(dataset))
        return found

    def _offers(self, dataset: str, subject: str) -> dict[str, Offer]:
        return self._known.get(
            ("offers", dataset, subject), lambda: self._find_offers(dataset, subject)
        )

    def _find_offers(self, dataset: str, subject: str) -> dict[str, Offer]:
        trials = self.trials(dataset, subject)
        cards = self._known.get("cards", lambda: read_cards(self.checkpoints, self.report))
        cards = [*cards, *self.behind.absent(self.checkpoints)]
        further = self.test_only(dataset) and not len(trials.rows("train"))
        withheld = self._withheld[dataset, subject] = {}

        def withhold(mapper: str, why: str) -> None:
            withheld[mapper] = why
            self.report(why)

        offers = find_mappers(cards, trials, self.mappers, withhold, further)
        offers |= {
            name: Offer(p.targets, card=p.card, published=p)
            for name, p in self.predictions.items()
            if _is_of(p, dataset, subject)
        }
        if offers:
            return offers
        accepted = [self.generator_class(name).accepts for name in self._usable()]
        seen = [space for spaces in accepted for space in spaces if self.embedder_name(space)]
        return fit_offer(trials, seen if FIT_NOW in self.mappers else [], self.report)

    def encoder_offer(self, dataset: str, subject: str) -> Offer | None:
        """Return the encoding model that predicts this subject's betas, None where none fits."""
        return self._known.get(
            ("encoder", dataset, subject),
            lambda: find_encoder(
                self.checkpoints / "encoding" / dataset / subject,
                self.trials(dataset, subject),
                self.encoders,
                self.embedder_name,
                self.report,
            ),
        )

    def embedder_name(self, space: EmbeddingSpace) -> str:
        """Return the embedder that puts images into ``space``, "" if none does."""
        return _first(self.embedders, "spaces", space)

    def captions_embedder_name(self, space: EmbeddingSpace) -> str:
        """Return the embedder that puts captions into ``space``, "" if none does."""
        return _first(self.embedders, "text_spaces", space)


def _open_result(
    catalogue: Catalogue,
    name: str,
    path: Path,
    options: Mapping[str, str],
    readers: Sequence[Any],
) -> Any:
    """Return what others published, and say at once where it cannot be used."""
    said, who = dict(options), f"--published {name}"
    if name in {*catalogue._generators, *catalogue.pictures, *catalogue.predictions}:
        raise UserError(f"{who}: the name is taken; give the results another.")
    only = next(iter(catalogue.paths)) if len(catalogue.paths) == 1 else ""
    named = said.pop("dataset", "") or only
    if not named:
        raise UserError(
            f"{who}: say whose data the results are of with ?dataset=NAME, one of "
            f"{', '.join(catalogue.dataset_names())}."
        )
    study = catalogue.dataset(named)
    subject = whose_results(said.pop("subject", ""), study.subjects(), path, who)
    known = [s for entry in catalogue.embedders.values() for s in resolve(entry).spaces]
    return open_published(path, name, (study, subject), said, readers, known)


def _no_dataset(name: str, offered: Sequence[str]) -> UserError:
    return UserError(
        f"There is no data set {name!r} here; choose one of {', '.join(offered)}, or start with "
        f"--dataset {name}=PATH."
    )


def _no_subject(dataset: str, subject: str, offered: Sequence[str]) -> UserError:
    return UserError(
        f"The data set {dataset} has no subject {subject!r}; choose one of {', '.join(offered)}."
    )


def _no_generator(name: str, offered: Sequence[str]) -> UserError:
    return UserError(f"There is no generator {name!r}; choose one of {', '.join(offered)}.")


def _first(entries: Mapping[str, Any], spaces: str, space: EmbeddingSpace) -> str:
    """Return the first entry whose class has a space among its ``spaces``, "" for none."""
    names = (n for n, entry in entries.items() if space in getattr(resolve(entry), spaces, ()))
    return next(names, "")


def _list_stimuli(trials: Trials, stimuli: pd.DataFrame) -> pd.DataFrame:
    """Return the test stimuli of trials, see `Catalogue.gallery`."""
    who = f"{trials.subject.dataset}/{trials.subject.name}"
    shown = trials.table["stimulus"].iloc[trials.rows("test")].value_counts()
    lost = [stimulus for stimulus in shown.index if stimulus not in stimuli.index]
    if lost:
        raise UserError(
            f"{who} has trials of {lost[0]!r}, which the table of stimuli lacks; add that row."
        )
    rows = stimuli.loc[stimuli.index.isin(shown.index), ["caption", "category"]]
    if rows.empty:
        raise UserError(
            f"{who} has no test trial, so there is nothing to show; mark trials "
            "as test in its table."
        )
    rows = rows.fillna("").astype(str)
    rows.insert(0, "number", np.arange(1, len(rows) + 1))
    rows["repeats"] = shown.reindex(rows.index).astype(int)
    return rows


def _is_of(published: Any, dataset: str, subject: str) -> bool:
    return (published.dataset, published.subject) == (dataset, subject)


def _embedded(datasets: Mapping[str, Any]) -> dict[str, tuple[str, dict[str, str]]]:
    """Return what comes with the app, name -> family and options: whole data sets, then parts."""
    own = {name: resolve(entry) for name, entry in datasets.items() if _has_default_path(entry)}
    further = {
        f"{name}-{part}": (name, {"part": part})
        for name, cls in own.items()
        for part in getattr(cls, "parts", ())
    }
    return {name: (name, {}) for name in own} | further


def _has_default_path(entry: Any) -> bool:
    path = inspect.signature(resolve(entry)).parameters.get("path")
    return path is not None and path.default is not inspect.Parameter.empty

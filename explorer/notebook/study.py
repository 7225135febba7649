"""A data set, one of its subjects and what decodes it, as tables and arrays.

Every number comes from the functions that the page asks; nothing is computed a second way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.brain.maps import map_names
from explorer.choosing import check_request, default_request
from explorer.decoding import card_identification, decoded_space, undecoded
from explorer.evidence import comparison, standing
from explorer.evidence import statistics as over_trials
from explorer.notebook import markup
from explorer.notebook.maps import BrainMap
from explorer.notebook.trial import Trial
from explorer.request import Request, View
from explorer.types import Trials, UserError, VoxelSpace

if TYPE_CHECKING:
    import pandas as pd

    from explorer.evidence.critique import Finding
    from explorer.workbench import Workbench

STRIP = 8  # test images that a study shows of itself
OF_TRIALS = {
    "similarity": comparison.SIMILAR,
    "two-way": comparison.TWO_WAY,
    "rank": comparison.RANK,
}


@dataclass(frozen=True, eq=False)
class Study:
    """One subject of a data set and one decoder. Opened by `explorer.open_study`.

    Attributes
    ----------
    bench : explorer.workbench.Workbench
        What all functions of `explorer` take, for whatever has no name here.
    request : explorer.request.Request
        The choices: ``dataset``, ``subject``, ``mapper``, ``generator``, ``scales``, ``steps``.
    """

    bench: Workbench
    request: Request

    # ------------------------------------------------------------------------------------- choices

    @property
    def name(self) -> str:
        """The data set's name here."""
        return self.request.dataset

    @property
    def subject(self) -> str:
        """Whose trials these are."""
        return self.request.subject

    @property
    def mapper(self) -> str:
        """What decodes betas; "" where nothing does."""
        return self.request.mapper

    @property
    def generator(self) -> str:
        """What draws from what is decoded; "" where nothing does."""
        return self.request.generator

    @property
    def subjects(self) -> list[str]:
        """The participants to choose from."""
        return self.bench.catalogue.subjects(self.name)

    @property
    def mappers(self) -> list[str]:
        """The mappers that read this subject's voxels."""
        return self.bench.catalogue.mapper_names(self.name, self.subject)

    @property
    def generators(self) -> list[str]:
        """The generators that draw from what the mapper gives."""
        return self.bench.catalogue.generator_names(self.name, self.subject, self.mapper)

    @property
    def atlases(self) -> list[str]:
        """The atlases over this subject's voxels."""
        return list(self.voxels.parcellations)

    @property
    def maps(self) -> list[str]:
        """The names that `map` takes."""
        return map_names(self.bench, self.name, self.subject)[1:]

    @property
    def problems(self) -> list[str]:
        """What cannot be offered or must be known of models, one sentence each."""
        return self.bench.catalogue.problems()

    def choose(
        self, subject: str = "", mapper: str = "", generator: str = "", **more: Any
    ) -> Study:
        """Return the study with other choices; an unknown one raises `UserError`.

        ``more``: fields of `Request`, such as ``scales``, ``steps``, ``seed`` or ``options``.
        Another subject keeps the mapper and generator where they fit.
        """
        return choose(self.bench, self.request, subject, mapper, generator, **more)

    # ---------------------------------------------------------------------------------------- data

    @property
    def voxels(self) -> VoxelSpace:
        """Where the voxels lie: ``n_voxels``, ``projection`` to fsaverage5, ``mask``, atlases."""
        return self._loaded.subject.voxels

    @property
    def unit(self) -> str:
        """What a beta of 1 means."""
        return self._loaded.beta_unit

    @property
    def trials(self) -> pd.DataFrame:
        """The test stimuli, indexed by id: ``number``, ``caption``, ``category``, ``repeats``."""
        return self.bench.catalogue.gallery(self.name, self.subject).copy()

    @property
    def table(self) -> pd.DataFrame:
        """Every trial: ``stimulus``, ``split``, ``repeat`` (from 0), ``session``, ``run`` ..."""
        return self._loaded.table.copy()

    @property
    def _loaded(self) -> Trials:
        return self.bench.catalogue.trials(self.name, self.subject)

    def betas(self, split: str = "test", average: bool = True) -> pd.DataFrame:
        """Return betas float32 (trials, V), in `unit`.

        Parameters
        ----------
        split
            "train" or "test".
        average
            Over the repeats of each stimulus: then a row a stimulus, indexed by its id. Otherwise
            a row a trial, indexed as `table` is.
        """
        import pandas as pd

        if split not in ("train", "test"):
            raise UserError(f"split is train or test, found {split!r}.")
        trials = self._loaded
        if average:
            stimuli = trials.stimuli(split)
            rows = [trials.average(stimulus, split=split) for stimulus in stimuli]
            return pd.DataFrame(np.stack(rows), index=pd.Index(stimuli, name="stimulus"))
        chosen = trials.rows(split)
        values = np.asarray(trials.betas[chosen], dtype=np.float32)
        return pd.DataFrame(values, index=trials.table.index[chosen])

    def picture(self, stimulus: str) -> np.ndarray:
        """Return a picture of the study, uint8 (H, W, 3)."""
        known = self.bench.catalogue.dataset(self.name).stimuli.index
        if stimulus not in known:
            raise UserError(
                f"{self.name} has no stimulus {stimulus!r}; it has {len(known)}, {known[0]} to "
                f"{known[-1]}."
            )
        return self.bench.catalogue.image(self.name, stimulus)

    def trial(self, which: str | int | None = None, *, repeats: Sequence[int] = ()) -> Trial:
        """Return one test trial.

        Parameters
        ----------
        which
            A stimulus id, or its number from 1; None for the first.
        repeats
            Which repeats are averaged, from 0; () for all.
        """
        gallery = self.bench.catalogue.gallery(self.name, self.subject)
        if which is None:
            which = 1
        if isinstance(which, int | np.integer):
            if not 1 <= which <= len(gallery):
                raise UserError(
                    f"{self.name}/{self.subject} has test trials 1 to {len(gallery)}, found "
                    f"{which}."
                )
            which = gallery.index[int(which) - 1]
        asked = replace(self.request, stimulus=str(which), repeats=tuple(repeats))
        check_request(self.bench.catalogue, asked, pictures=False)
        return Trial(self, asked)

    def __len__(self) -> int:
        """Return how many test trials there are."""
        return len(self.bench.catalogue.gallery(self.name, self.subject))

    def __getitem__(self, which: str | int) -> Trial:
        """Return `trial`; numbers count from 1."""
        return self.trial(which)

    def __iter__(self) -> Iterator[Trial]:
        """Go through all test trials."""
        return (self.trial(number) for number in range(1, len(self) + 1))

    # ------------------------------------------------------------------------------------ evidence

    def decodings(self, *, repeats: Sequence[int] = ()) -> pd.DataFrame:
        """Return how every test trial is decoded, indexed by stimulus.

        Columns ``similarity`` (to the shown image's embedding), ``two-way`` (share of the other
        test images that are less similar, 0 to 1, chance 0.5), ``rank`` of the shown image from 1
        (chance (N + 1) / 2), ``margin`` (retrieval margin, nats). Stimuli that lack a repeat or
        have betas that are not finite are left out; ``attrs`` tells ``n``, ``chance rank`` and
        ``left out``.
        """
        import pandas as pd

        asked = replace(self.request, repeats=tuple(repeats))
        stimuli, decoded = standing.decoded_test(self.bench, asked)
        given = self.bench, asked, stimuli, decoded
        values = {
            column: comparison.decoded_values(*given, stimuli, metric)
            for column, metric in OF_TRIALS.items()
        }
        values["margin"] = standing.trial_values(*given, "margin")
        found, n = pd.DataFrame(values, index=pd.Index(stimuli, name="stimulus")), len(stimuli)
        found.attrs = {
            "n": n,
            "chance rank": (n + 1) / 2,
            "left out": standing.left_out(self.bench, asked, n),
        }
        return found

    def embeddings(self, *, repeats: Sequence[int] = ()) -> pd.DataFrame:
        """Return what is decoded of every test trial, float32 (N, values), indexed by stimulus."""
        import pandas as pd

        asked = replace(self.request, repeats=tuple(repeats))
        stimuli, decoded = standing.decoded_test(self.bench, asked)
        index = pd.Index(stimuli, name="stimulus")
        return pd.DataFrame(decoded.reshape(len(stimuli), -1), index=index)

    def map(self, name: str, *, atlas: str = "") -> BrainMap:
        """Return a map of the subject's voxels, one of `maps`, as of the first trial."""
        return self.trial().map(name, atlas=atlas)

    def statistics(
        self,
        measure: str = "enrichment",
        *,
        method: str = "gradient",
        target: str = "retrieval margin",
        atlas: str = "",
        permutations: int = over_trials.PERMUTATIONS,
        seed: int = 0,
    ) -> BrainMap:
        """Return importance over all test trials, with intervals, p and q.

        The table's columns are those of `explorer.evidence.statistics.SubjectMap`: ``value`` with
        ``low`` and ``high`` (95 % over stimuli), ``evidence`` (SD of its null) with ``p_evidence``
        and ``q_evidence``, ``p_place`` and ``q_place``, ``randomised`` and ``per_ceiling``. What
        must be said first is the first of ``notes``: a decoder that is not above chance has no
        map to interpret.

        Parameters
        ----------
        measure, method, target, atlas
            As for `Trial.importance`.
        permutations
            Draws of every null distribution; fewer are faster and p less exact.
        seed
            Of all that is drawn.
        """
        view = View(measure=measure, method=method, target=target, atlas=atlas)
        found = over_trials.subject_map(
            self.bench, self.request, view, permutations=permutations, seed=seed
        )
        value, low, high = found.identification
        facts = {
            "two-way identification": value,
            "two-way interval": (low, high),
            "stimuli": found.stimuli,
            "parcels tested": found.tests,
            "parcels with evidence": found.found,
            "permutations": found.permutations,
        }
        place = f"p (place) rests on {found.null}."
        told = (found.banner, found.randomised.sentence, found.repeats.sentence, place)
        notes = tuple(filter(None, (*told, *found.notes)))
        return BrainMap(
            f"{measure} over {found.stimuli} test images",
            *(found.table, "value", dict(found.limits), found.voxels),
            *(self.voxels.parcellations[found.atlas], self.voxels, notes, facts),
        )

    def critique(self, names: Sequence[str] = ()) -> dict[str, Finding]:
        """Return what the field's critics ask, name -> `explorer.evidence.critique.Finding`.

        Each has a ``definition``, a ``table`` (pandas) and a ``sentence``. All of them take some
        seconds to minutes, as mappers are fitted to parts of the trials.

        Parameters
        ----------
        names
            Only these, and nothing is asked after the last of them; () for all.
        """
        from explorer.evidence.critics import findings

        found: dict[str, Finding] = {}
        for one in findings(self.bench, self.request):
            found[one.name] = one
            if names and set(names) <= set(found):
                return {name: found[name] for name in names}
        lacking = [name for name in names if name not in found]
        if lacking:
            raise UserError(
                f"The critics ask nothing called {lacking[0]!r} here, but {', '.join(found)}."
            )
        return found

    def __repr__(self) -> str:
        """Name the data set, the subject and the decoder."""
        how = f"mapper {self.mapper or 'none'!r}, generator {self.generator or 'none'!r}"
        return f"Study({self.name!r}, {self.subject!r}, {how})"

    def _repr_html_(self) -> str:
        """Show whose data these are, who decodes them, and some of the pictures."""
        return _shown(self)


def choose(
    bench: Workbench,
    before: Request | None,
    subject: str = "",
    mapper: str = "",
    generator: str = "",
    dataset: str = "",
    **more: Any,
) -> Study:
    """Return a study with these choices; what is not named is kept from ``before`` where it fits.

    Parameters
    ----------
    bench
        Where the data and the models are.
    before
        The present choices, None for none.
    subject, mapper, generator, dataset
        Names; "" keeps, or takes the first that fits.
    **more
        Fields of `Request`.
    """
    catalogue = bench.catalogue
    dataset = dataset or (before.dataset if before else catalogue.dataset_names()[0])
    subject = subject or (before.subject if before else catalogue.subjects(dataset)[0])
    catalogue.trials(dataset, subject)  # says which subjects there are
    wanted: dict[str, Any] = dict(more)
    if mapper:
        catalogue.offer(dataset, subject, mapper)  # says which mappers there are
        wanted["mapper"] = mapper
    elif before and before.mapper in catalogue.mapper_names(dataset, subject):
        wanted["mapper"] = before.mapper
    if generator:
        catalogue.generator_class(generator)  # says which generators there are
        wanted["generator"] = generator
    elif before and "mapper" in wanted:
        fitting = catalogue.generator_names(dataset, subject, wanted["mapper"])
        if before.generator in fitting:
            wanted["generator"] = before.generator
    if before and before.generator == wanted.get("generator"):
        for name in ("scales", "steps", "options"):
            wanted.setdefault(name, getattr(before, name))
    first = str(catalogue.gallery(dataset, subject).index[0])
    seed = int(wanted.pop("seed", before.seed if before else 0))
    request = default_request(catalogue, dataset, subject, 0, **{"stimulus": first} | wanted)
    request = replace(request, seed=seed)
    if request.mapper or request.generator:
        check_request(catalogue, request, pictures=bool(request.generator))
    return Study(bench, request)


def _shown(study: Study) -> str:
    """Return the HTML of a study."""
    known, trials = study.bench.catalogue.dataset(study.name), study._loaded
    gallery = study.bench.catalogue.gallery(study.name, study.subject)
    simulated = "simulated: no measurement" if known.simulated else ""
    parts = [markup.heading(known.title, simulated)]
    chosen = [gallery.index[i] for i in np.linspace(0, len(gallery) - 1, STRIP).astype(int)]
    parts.append(
        markup.strip(
            markup.figure(
                markup.picture(study.picture(stimulus)), str(gallery.loc[stimulus, "caption"])
            )
            for stimulus in dict.fromkeys(chosen)
            if not study.bench.catalogue.without_picture(study.name, stimulus)
        )
    )
    rows = f"{len(trials.rows('train')):,} training trials, {len(trials.rows('test')):,} test"
    offered = [("subjects", study.subjects), ("mappers", study.mappers)]
    offered += [("generators", study.generators), ("atlases", study.atlases)]
    parts.append(
        markup.facts(
            [
                ("subject", f"{study.subject}: {rows}, {study.voxels.n_voxels:,} voxels"),
                ("betas", study.unit),
                ("decoder", _decoder(study)),
                *((name, ", ".join(names)) for name, names in offered),
                ("licence", known.licence),
                ("source", known.citation),
            ]
        )
    )
    parts.append(markup.note(known.note))
    if not known.redistributable:
        parts.append(
            markup.note(
                "These pictures may not be redistributed: clear the outputs before the "
                "notebook goes to others."
            )
        )
    return markup.box(parts)


def _decoder(study: Study) -> str:
    """Return the mapper, its target and how well it identifies test images."""
    if not study.mapper:
        return undecoded(study.bench, study.request)
    space = decoded_space(study.bench, study.request).name
    told = f"{study.mapper} to {space}"
    if found := card_identification(study.bench, study.request):
        told += (
            f"; two-way identification {found['two-way identification']:.1%} over "
            f"{found['N']} test images (chance {found['chance']:.0%})"
        )
    return told.replace("%", "\N{NO-BREAK SPACE}%") + (
        f"; drawn by {study.generator}" if study.generator else ""
    )

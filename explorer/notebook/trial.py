"""One trial of a study: what was shown, what is decoded, pictures, maps and lesions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.brain.maps import is_mapped, parcellation_of, shown_map
from explorer.decoding import Decoding, decode, is_decoded, request_betas, undecoded
from explorer.drawing import reconstruct, whose_pictures
from explorer.evidence import controls as control_pictures
from explorer.evidence import lesions as lesioning
from explorer.evidence.lesions import TRAINING_MEAN, Lesion, Lesioned
from explorer.finished import Frame, finished_pictures
from explorer.metrics import written
from explorer.notebook import markup
from explorer.notebook.maps import BrainMap, of_shown
from explorer.request import Request, View
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

    from explorer.notebook.study import Study
    from explorer.notebook.view import TrialView


@dataclass(frozen=True, eq=False)
class Sweep:
    """The pictures of one trial at several guidance scales.

    Attributes
    ----------
    shown : numpy.ndarray
        The picture that was shown, uint8 (H, W, 3).
    scales : tuple of float
        The guidance scale of each picture; 0 is drawn without the brain.
    pictures : numpy.ndarray
        uint8 (scales, H, W, 3).
    scores : pandas.DataFrame
        Indexed by scale: PixCorr and SSIM (-1 to 1, 1 is identical) and the cosine of the
        pocket-clip embeddings of both pictures.
    note : str
        What must stand beside the pictures: that they are retrieved, or what the generator knew.
    """

    shown: np.ndarray
    scales: tuple[float, ...]
    pictures: np.ndarray
    scores: pd.DataFrame
    note: str = ""
    guided: bool = True

    def __repr__(self) -> str:
        """Name the scales; pixels say nothing in a terminal."""
        scales = ", ".join(f"{scale:g}" for scale in self.scales)
        return f"Sweep(scales {scales}; pictures {self.pictures.shape}; see .scores, .pictures)"

    def _repr_html_(self) -> str:
        """Show the strip of pictures with their scores."""
        shown = [markup.figure(markup.picture(self.shown), "shown", strong=True)]
        for scale, picture in zip(self.scales, self.pictures, strict=True):
            title = f"scale {scale:g}" if self.guided else "reconstruction"
            row = self.scores.loc[scale]
            lines = [f"{name} {written(value)}" for name, value in row.items()]
            shown.append(markup.figure(markup.picture(picture), title, lines))
        return markup.box([markup.strip(shown), markup.note(self.note)])


@dataclass(frozen=True, eq=False)
class Trial:
    """One test stimulus of a subject, as one decoder sees it. Made by `Study.trial`.

    Attributes
    ----------
    stimulus : str
        Its id in the study; ``number`` counts test stimuli from 1.
    request : explorer.request.Request
        All that decides the pictures; `explorer` functions take it with ``study.bench``.
    """

    study: Study
    request: Request

    @property
    def stimulus(self) -> str:
        """The id of what was shown."""
        return self.request.stimulus

    @property
    def info(self) -> pd.Series:
        """Number, caption, category and repeats of the stimulus."""
        return self.study.trials.loc[self.stimulus]

    @property
    def picture(self) -> np.ndarray:
        """The picture that was shown, uint8 (H, W, 3)."""
        return self.study.bench.catalogue.image(self.request.dataset, self.stimulus)

    @property
    def betas(self) -> np.ndarray:
        """The betas that are decoded, float32 (V,), the mean of the repeats; see `Study.unit`."""
        return request_betas(self.study.bench, self.request)

    @property
    def decoding(self) -> Decoding:
        """What is decoded: ``embedding``, ``similarity``, ``rank`` of ``n``, ``neighbours``."""
        return decode(self.study.bench, self.request)

    # ------------------------------------------------------------------------------------ pictures

    def sweep(self, scales: Sequence[float] = (), **choices: Any) -> Sweep:
        """Return the pictures at guidance scales, drawn now unless they are there already.

        Parameters
        ----------
        scales
            At most 16, each from 0 to 30; () for those of `request`. A generator without guidance
            gives one picture.
        **choices
            Fields of `Request` to change, such as ``steps``, ``seed`` or ``options``.
        """
        import pandas as pd

        bench = self.study.bench
        asked = replace(self.request, **({"scales": tuple(scales)} if scales else {}) | choices)
        frames = {f.index: f for f in reconstruct(bench, asked) if f.done and not f.row}
        found = [frames[index] for index in sorted(frames)]
        kept = tuple(frame.scale for frame in found)
        scores = pd.DataFrame([dict(f.scores) for f in found], index=pd.Index(kept, name="scale"))
        cls = bench.catalogue.generator_class(asked.generator)
        notes = [frame.note for frame in found if frame.note][:1]
        notes += [whose_pictures(bench, asked.generator, asked.dataset)]
        pictures = np.stack([frame.image for frame in found])
        note = " ".join(filter(None, notes))
        return Sweep(self.picture, kept, pictures, scores, note, bool(cls.guided))

    def controls(self, scale: float | None = None, names: Sequence[str] = ()) -> Controls:
        """Return what a picture is held against: other brains, no brain, the best possible.

        Parameters
        ----------
        scale
            The guidance scale; by default the one nearest to 2.
        names
            Some of `explorer.evidence.controls.CONTROLS`, () for all.
        """
        wanted = tuple(names) or control_pictures.CONTROLS
        found = control_pictures.controls(self.study.bench, self.request, wanted, scale)
        return Controls(self.picture, tuple(found))

    # ---------------------------------------------------------------------------- maps and lesions

    def importance(
        self,
        measure: str = "enrichment",
        *,
        method: str = "gradient",
        target: str = "retrieval margin",
        atlas: str = "",
    ) -> BrainMap:
        """Return which parcels and voxels this decoding rests on.

        Parameters
        ----------
        measure
            What is drawn first: "enrichment" (share of importance over share of voxels, 1 is no
            preference), "share" (0 to 1), "mean" or "signed".
        method
            "gradient", "gradient x input" or "integrated gradients".
        target
            "retrieval margin" (nats), "fixed direction" or, of densities, "log-likelihood".
        atlas
            One of `Study.atlases`, "" for the first.
        """
        view = View(measure=measure, method=method, target=target, atlas=atlas)
        return self._map(view)

    def map(self, name: str, *, atlas: str = "") -> BrainMap:
        """Return another map of the voxels: one of `Study.maps`, for example "noise ceiling"."""
        return self._map(View(shows=name, atlas=atlas))

    def _map(self, view: View) -> BrainMap:
        bench, place = self.study.bench, (self.request.dataset, self.request.subject)
        shown = shown_map(bench, self.request, view)
        parcellation = parcellation_of(bench, *place, view.atlas)
        return of_shown(shown, view.measure, parcellation, self.study.voxels)

    def lesions(self, *, fill: str = TRAINING_MEAN, atlas: str = "") -> BrainMap:
        """Return what the lesion of each parcel alone does to this trial.

        The table has ``effect`` (retrieval margin intact less lesioned, in nats: above 0 the
        parcel speaks for the shown image), ``shift`` of the embedding (1 - cosine) and ``rank``
        of the shown image after the lesion.

        Parameters
        ----------
        fill
            What replaces the betas, one of `explorer.evidence.lesions.FILLS`.
        atlas
            One of `Study.atlases`, "" for the first.
        """
        bench = self.study.bench
        found = lesioning.lesion_effects(bench, self.request, atlas, fill)
        place = self.request.dataset, self.request.subject
        known = {}
        for name in ("effect", "shift"):
            values = np.abs(found.table[name].to_numpy()[:-1])
            top = float(np.nanmax(values)) if np.isfinite(values).any() else 0.0
            known[name] = ((-top if name == "effect" else 0.0), top or 1.0)
        sentence = lesioning.fill_sentence(bench, self.request, Lesion(("any",), 0.0, fill))
        return BrainMap(
            f"lesion effect, nats of retrieval margin ({fill})",
            *(found.table, "effect", known, None),
            *(parcellation_of(bench, *place, atlas), self.study.voxels, (sentence,)),
            {"rank": found.intact.rank, "n": found.intact.n, "margin": found.intact.margin},
        )

    def lesion(
        self,
        parcels: Sequence[str] | str,
        *,
        gain: float = 0.0,
        fill: str = TRAINING_MEAN,
        donor: str = "",
        atlas: str = "",
    ) -> Lesioned:
        """Return what is decoded without some parcels: ``intact``, ``lesioned``, ``shift``.

        Parameters
        ----------
        parcels
            Names as in the column ``parcel`` of a map's table.
        gain
            0 replaces their betas, 1 changes nothing, 2 doubles what sets them apart.
        fill, atlas
            As for `lesions`.
        donor
            With ``fill="another trial"``: the test stimulus whose betas are put in.
        """
        keys = (parcels,) if isinstance(parcels, str) else tuple(parcels)
        how = Lesion(keys, gain, fill, donor)
        return lesioning.lesion(self.study.bench, self.request, how, atlas)

    # ------------------------------------------------------------------------------------- showing

    def show(self, *, brain: bool = True, height: int = 0) -> TrialView:
        """Return the page's view of this trial, which shows itself inline and works offline.

        The sweep is drawn first where it is not there yet. In Jupyter, VS Code and Colab the view
        is the cell's output; ``save(path)`` writes it as one HTML file.

        Parameters
        ----------
        brain
            Whether the surface that can be turned comes with it (some 4 MB of the output).
        height
            Of the frame in pixels; 0 takes what the view needs.
        """
        from explorer.notebook.view import trial_view

        return trial_view(self, brain, height)

    def __repr__(self) -> str:
        """Name the trial and what decodes it."""
        asked = self.request
        return f"Trial({asked.stimulus!r}, {asked.subject!r}, mapper {asked.mapper or 'none'!r})"

    def _repr_html_(self) -> str:
        """Show what is known without drawing: the picture, its decoding, and what was drawn."""
        bench, asked, row = self.study.bench, self.request, self.info
        words = [f"trial {row['number']} of {len(self.study.trials)}", asked.subject]
        words += [f"mapper {asked.mapper}"] if asked.mapper else []
        parts = [markup.heading(row["caption"] or self.stimulus, " · ".join(words))]
        shown = [markup.figure(markup.picture(self.picture), "shown", strong=True)]
        drawn = finished_pictures(bench, asked) if asked.generator else ()
        shown += [_frame(frame) for frame in drawn if not frame.row]
        parts.append(markup.strip(shown))
        if reason := undecoded(bench, asked):
            parts.append(markup.note(reason))
        else:
            known = self.decoding
            parts.append(markup.note(sentence_of(known)))
            near = [
                markup.figure(
                    markup.picture(bench.catalogue.image(asked.dataset, name)),
                    name,
                    [f"similarity {written(value)}"],
                    name == self.stimulus,
                )
                for name, value in known.neighbours
            ]
            parts += [markup.note("The test images nearest to what is decoded:")]
            parts.append(markup.strip(near))
        view = View()
        if is_decoded(bench, asked) and asked.mapper and is_mapped(bench, asked, view):
            parts.append(self._map(view)._repr_html_())
        return markup.box(parts)


@dataclass(frozen=True, eq=False)
class Controls:
    """What one trial's picture is held against.

    ``all``: a `explorer.evidence.controls.Control` each; ``table``: their figures.
    """

    shown: np.ndarray
    all: tuple[control_pictures.Control, ...]

    def __getitem__(self, name: str) -> control_pictures.Control:
        """Return the control of a name; an unknown one raises `UserError`."""
        for one in self.all:
            if one.name == name:
                return one
        raise UserError(
            f"There is no control {name!r}; choose one of {', '.join(c.name for c in self.all)}."
        )

    @property
    def table(self) -> pd.DataFrame:
        """A row a control that could be had: scores, and the rank of what was decoded (of n)."""
        import pandas as pd

        rows = {}
        for one in self.all:
            if one.image is None:
                continue
            place = one.decoded
            rank = {} if place is None else {"rank": place.rank, "n": place.n}
            rows[one.name] = {**one.scores, **rank}
        return pd.DataFrame.from_dict(rows, orient="index")

    def __repr__(self) -> str:
        """Name the controls."""
        return f"Controls({', '.join(one.name for one in self.all)}; see .table)"

    def _repr_html_(self) -> str:
        """Show all pictures, and why some cannot be had."""
        shown = [markup.figure(markup.picture(self.shown), "shown", strong=True)]
        notes = []
        for one in self.all:
            if one.image is None:
                notes.append(markup.note(f"{one.name}: {one.reason}"))
                continue
            lines = [f"{name} {written(value)}" for name, value in one.scores.items()]
            lines += [one.note] if one.note else []
            shown.append(markup.figure(markup.picture(one.image), one.name, lines))
        return markup.box([markup.strip(shown), *notes])


def sentence_of(known: Decoding) -> str:
    """Return rank, chance and similarity of a decoding in one sentence."""
    kind = "cosine" if known.space.unit_norm else "correlation"
    return (
        f"The shown image has rank {known.rank} of {known.n} (chance {(known.n + 1) / 2:g}) by "
        f"{kind} in {known.space.name}; similarity {written(known.similarity)}."
    )


def _frame(frame: Frame) -> str:
    lines = [f"{name} {written(value)}" for name, value in frame.scores.items()]
    return markup.figure(markup.picture(frame.image), f"scale {frame.scale:g}", lines)

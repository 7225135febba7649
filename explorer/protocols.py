"""What a member of each kind promises the other rooms, and what passes between them.

Data sets, embedders, encoders and generators; a mapper is `explorer.mapper.Mapper`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from explorer.types import EmbeddingSpace, Subject, Trials, UserError

if TYPE_CHECKING:
    import pandas as pd
    import torch


@runtime_checkable
class Dataset(Protocol):
    """A study as it lies on disk. Everything is read lazily; ids are canonical strings inside.

    ``stimuli``: a table indexed by stimulus id with at least ``caption``, ``category`` (may be "")
    and ``source`` columns. ``split_unit`` is "repeat" only where a study has too few stimuli.
    ``note`` is one sentence the page shows with the data ("" for none).

    A class is made with ``(path, name, **options)``. Its keyword options come from the command
    line as text (``--dataset nsd=/data/nsd?prep=b3``) and have defaults; the class checks their
    values. More members are optional; the first is for data whose truth is known, then come those
    that say which file a number is from, and the last three are for whoever meets a path of
    unknown format:

    - ``noiseless_trials(subject) -> Trials``: one trial per test stimulus, its response without
      noise, over the voxels of ``load``.
    - ``known_embeddings(stimuli, space, fingerprint) -> np.ndarray | None``: embeddings (n, ...)
      of stimuli that lie ready, made by that embedder's weights; None where they do not.
    - ``origins(subject, trial) -> list[Origin]``: where row ``trial`` of ``load(subject).betas``
      lies on disk, every file and row that it is made of, [] where it is made anew; nothing but
      headers is read. Betas that have ``lies(row)`` say it themselves.
    - ``picture_origin(stimulus) -> Origin | None``: where its picture lies; None in no file.
    - ``ids(stimulus) -> dict[str, str]``: every id that names it in the files of the study and in
      its field, each kind with its base, e.g. ``{"NSD's 73k, from 0": "12", "COCO": "57"}``.
    - ``split_by``: who defined train and test, in a few words.
    - ``test_only``: True for a further test set of people whose training trials are in another
      data set; mappers of exactly its voxels serve it, whatever data set they were trained on.
    - ``parts``, of a class with a default path: values of its option ``part`` that are further
      test sets, each offered as ``NAME-PART`` without being named.
    - ``without_picture(stimulus) -> str``: why no single picture stands for a stimulus, a
      sentence that the page shows in its place; "" where ``image`` gives one.
    - ``looks_for``: which files these are, in a few words.
    - ``recognise(path) -> bool``, a classmethod: whether the path holds this format, judged by
      content (file names, keys); cheap, never raises, and True for one class only.
    - ``relatives() -> dict[str, dict[str, str]]``: further test sets of the same people at
      the same path, name -> the options that open each; "seen" and "imagined" are a pair.
    - ``counterfactuals(n) -> Iterable[Counterfactual]``: n pictures of each concept with it,
      without it and with a distractor; for data whose pictures a program draws.
    - ``stamp() -> Hashable``: what changes whenever a file of its trials does, of a data set that
      can be watched while trials are added; with ``unfinished() -> list[str]``, which files were
      not whole when they were read.
    - ``remarks() -> list[str]``: one sentence each about what somebody must know of this copy:
      files and sessions that are lacking and where they come from, voxels that were left out.
    """

    name: str
    title: str
    licence: str
    citation: str
    simulated: bool
    redistributable: bool
    split_unit: Literal["stimulus", "repeat"]
    note: str
    stimuli: pd.DataFrame

    def subjects(self) -> list[str]:
        """Return the names of the participants."""
        ...

    def load(self, subject: str) -> Trials:
        """Return one participant's trials; an unknown name raises `UserError`."""
        ...

    def image(self, stimulus: str) -> np.ndarray:
        """Return the picture that was shown, uint8 RGB (H, W, 3)."""
        ...


class Embedder(Protocol):
    """Images or captions in, embeddings out."""

    spaces: tuple[EmbeddingSpace, ...]

    def embed(self, images: Sequence[np.ndarray], space: EmbeddingSpace) -> np.ndarray:
        """Return float32 (n, *space.shape) for images uint8 (H, W, 3), unit norm if it says so."""
        ...


class Encoder(Protocol):
    """Images in, the betas of one subject out: a predicted brain.

    ``spaces``: of the embeddings that it reads; ``description``: what it is, in a few words, e.g.
    "ridge encoding model". The class has ``load(folder, trials, device)``, which refuses a
    checkpoint that was made for other voxels or another split than ``trials``.
    """

    spaces: tuple[EmbeddingSpace, ...]
    description: str

    def predict(self, embeddings: Mapping[EmbeddingSpace, np.ndarray]) -> np.ndarray:
        """Return betas float32 (n, V) in the data's own unit for embeddings (n, ...) by space."""
        ...

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation (V,) of the training betas; 1 where they are flat."""
        ...


class Counterfactual(NamedTuple):
    """One picture three times, uint8 RGB (H, W, 3), that differ in a concept alone.

    With it, without it, and with something else in its place that usually comes along with it.
    """

    concept: str
    present: np.ndarray
    removed: np.ndarray
    replaced: np.ndarray


@dataclass(frozen=True, eq=False)
class Condition:
    """What a generator may draw on: a trial's decoded embeddings, and on request the trial.

    ``voxels`` bool (V,): which of the betas a person chose (None: all). ``dataset``: whose
    training stimuli may be retrieved. ``nulls``: what a mapper that learned it gives for no brain
    at all, which then takes the place of the generator's own null. ``label``: the class name that
    a generator of words is told instead of the one it would look up, "" for that.
    """

    embeddings: Mapping[EmbeddingSpace, torch.Tensor]
    stimulus: str | None = None
    betas: np.ndarray | None = None
    subject: Subject | None = None
    voxels: np.ndarray | None = None
    dataset: Dataset | None = None
    nulls: Mapping[EmbeddingSpace, torch.Tensor] = field(default_factory=dict)
    label: str = ""


class Neighbour(NamedTuple):
    """A picture near a decoded embedding: its id, class name ("" for none), and similarity."""

    picture: str
    label: str
    similarity: float


@dataclass(frozen=True, eq=False)
class Step:
    """One picture of a sweep on its way: uint8 RGB (H, W, 3); ``done`` says it is finished.

    ``note``: a sentence that must stand beside the picture ("" for none), and ``neighbours`` the
    pictures of a gallery that it rests on, best first.
    """

    index: int  # position in the sweep's scales
    scale: float
    step: int  # 1-based
    steps: int
    image: np.ndarray
    done: bool
    note: str = ""
    neighbours: tuple[Neighbour, ...] = ()


@dataclass(frozen=True, eq=False)
class Moment:
    """Several pictures after one step: what each would be if all noise left were taken at once.

    ``images`` uint8 (n, H, W, 3) are their clean estimates, decoded; after the last step the
    finished pictures. ``latents`` float32 (n, ...): the same before decoding. ``step``: 1-based.
    """

    step: int
    images: np.ndarray
    latents: np.ndarray


@dataclass(frozen=True)
class Option:
    """One knob of a generator: an inclusive range, a default and one sentence for the page.

    ``whole``: takes whole numbers only. ``betas``: above 0 the measured betas themselves decide,
    and a person may choose the parcels whose.
    """

    name: str
    low: float
    high: float
    default: float
    sentence: str
    whole: bool = False
    betas: bool = False

    def check(self, value: float) -> None:
        """Refuse a value out of range, or a broken number where a whole one is asked for."""
        if not self.low <= value <= self.high:  # nor NaN
            raise UserError(
                f"{self.name} lies between {self.low:g} and {self.high:g}, found {value:g}."
            )
        if self.whole and value != int(value):
            raise UserError(f"{self.name} is a whole number, found {value:g}.")


class TrainedOn(NamedTuple):
    """What pictures a generator was trained on: a phrase, and the data sets they are of.

    ``datasets`` () is a generator for pictures of every kind.
    """

    pictures: str
    datasets: tuple[str, ...] = ()

    def foreign(self, dataset: str) -> bool:
        """Return whether a data set's pictures are none that it knows."""
        return bool(self.datasets) and dataset not in self.datasets

    def sentence(self, generator: str, dataset: str) -> str:
        """Return what must stand beside its pictures of a data set, "" for one that is its own."""
        if dataset in self.datasets:
            return ""
        filled = "what was not decoded is filled in from those"
        if self.foreign(dataset):
            filled = f"whatever was decoded from {dataset} is drawn as such pictures"
        return f"{generator} was trained on {self.pictures}: {filled}."


@runtime_checkable
class Generator(Protocol):
    """Embeddings in, pictures out; one depends on condition, scale, seed and options alone.

    ``accepts``: what it draws from, the best first; a condition holds one of them or more, and ()
    needs none. Made with ``(checkpoints, device)``, and further members are optional:

    - ``source``, an argument: another folder, or hub id, of its weights or pictures.
    - ``hub``: where its weights were published; they do not ship.
    - ``fingerprint``: names the exact weights, where they lie elsewhere than in checkpoints.
    - ``remarks``: one sentence each about what somebody must know of the weights it loaded.
    - ``trained_on``: the `TrainedOn` of a class that was trained on pictures.
    - ``autoencoded(images) -> np.ndarray``: images uint8 (H, W, 3) encoded and decoded again,
      uint8 (n, H', W', 3): the best that its pictures can be.
    - ``alike_without_brain(**options) -> bool``: at guidance scale 0 a seed's picture is the same
      for every trial, so that it is drawn once for all.
    - ``noted(conditions, scale, seeds, steps, **options)``: what ``generate`` returns, each
      picture with its note; with it many trials are drawn in one batch.
    - ``moments(conditions, scale, seed, steps, **options)``: every step of several pictures from
      one noise, as `Moment`.
    """

    accepts: tuple[EmbeddingSpace, ...]
    provenance: Literal["generated", "retrieved", "published"]
    guided: bool  # False: the guidance scale changes nothing, the page offers one image
    needs: tuple[Literal["betas", "stimulus", "dataset"], ...]
    options: tuple[Option, ...]
    default_steps: int

    def sweep(
        self,
        condition: Condition,
        scales: Sequence[float],
        steps: int,
        seed: int,
        **options: float,
    ) -> Iterator[Step]:
        """Yield previews and one finished `Step` per scale; closing the iterator stops it."""
        ...

    def generate(
        self,
        conditions: Sequence[Condition],
        scale: float,
        seeds: Sequence[int],
        steps: int,
        **options: float,
    ) -> np.ndarray:
        """Return uint8 (n, H, W, 3), one finished picture a condition, as ``sweep`` gives it."""
        ...

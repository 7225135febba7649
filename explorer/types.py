"""The nouns of Afterimage and the protocols between its rooms. Imports nothing of ours.

Every dataclass is frozen and checks itself once, when it is made; code downstream does not check
again. Arrays inside are shared, never copied: treat them as read-only.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp
    import torch

FSAVERAGE5_VERTICES = 20_484  # 10,242 a hemisphere, left then right
SPLITS = ("train", "test")
TRIAL_COLUMNS = ("stimulus", "split", "repeat", "session", "run")


class UserError(Exception):
    """A mistake a person can mend; its text is one sentence meant for them.

    It says what was expected, what was found and what to do. All else that is raised is a bug.
    """


def resolve(entry: str | Callable[..., Any]) -> Callable[..., Any]:
    """Return the class behind an entry of the dict literals in ``backends``.

    Entries are written ``"package.module:Class"`` so that a heavy library is imported only when
    the class that needs it is used; a class itself (a test's fake) is returned as it is.
    """
    if not isinstance(entry, str):
        return entry
    module, _, name = entry.partition(":")
    return getattr(importlib.import_module(module), name)


# ------------------------------------------------------------------------------------------- brain


@dataclass(frozen=True)
class Label:
    """One parcel of an atlas: ``name``, ``hemisphere`` ("L", "R" or "" for both), RGB 0-255."""

    name: str
    hemisphere: Literal["L", "R", ""] = ""
    colour: tuple[int, int, int] = (128, 128, 128)

    @property
    def key(self) -> str:
        """The name by which links and tables address it, e.g. ``fusiform L``."""
        return f"{self.name} {self.hemisphere}".strip()


@dataclass(frozen=True, eq=False)
class Parcellation:
    """An atlas laid over one exact set of voxels.

    ``kind`` "partition": ``membership`` is int (V,), the position in ``labels`` or -1 for
    (unassigned). ``kind`` "masks" (functional ROIs, may overlap): ``membership`` is bool
    (n_labels, V). ``voxel_hash`` names the voxel set it was made for. ``surface``, where the atlas
    was drawn on fsaverage5: int (20,484,), the label of every vertex (-1 none), sampled or not.
    ``note``: one sentence that the page shows with the atlas ("" for none).
    """

    name: str
    kind: Literal["partition", "masks"]
    labels: tuple[Label, ...]
    membership: np.ndarray
    voxel_hash: str
    surface: np.ndarray | None = None
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse a membership whose shape or values do not fit the labels."""
        m, n = self.membership, len(self.labels)
        keys = [label.key for label in self.labels]
        if len(set(keys)) != n:
            twice = next(k for k in keys if keys.count(k) > 1)
            raise UserError(
                f"Atlas {self.name!r} names the parcel {twice!r} twice; names must differ."
            )
        if self.kind == "partition":
            if m.ndim != 1 or (m.size and (m.min() < -1 or m.max() >= n)):
                raise UserError(
                    f"Atlas {self.name!r}: a partition over {n} labels needs one index from -1 to "
                    f"{n - 1} per voxel, found shape {m.shape} with values up to "
                    f"{m.max() if m.size else 'none'}."
                )
        elif m.ndim != 2 or m.shape[0] != n or m.dtype != bool:
            raise UserError(
                f"Atlas {self.name!r}: masks over {n} labels need a bool array ({n}, voxels), "
                f"found {m.dtype} {m.shape}."
            )
        s = self.surface
        if s is not None and (s.shape != (FSAVERAGE5_VERTICES,) or s.min() < -1 or s.max() >= n):
            raise UserError(
                f"Atlas {self.name!r}: its surface needs one index from -1 to {n - 1} for each of "
                f"{FSAVERAGE5_VERTICES} vertices, found shape {s.shape} with values up to "
                f"{s.max()}."
            )

    @property
    def n_voxels(self) -> int:
        """V, the number of voxels it covers (assigned or not)."""
        return int(self.membership.shape[-1])

    def masks(self) -> np.ndarray:
        """Return bool (n_labels + 1, V): one row a label, the last row is (unassigned)."""
        if self.kind == "partition":
            rows = self.membership[None] == np.arange(len(self.labels))[:, None]
        else:
            rows = self.membership
        return np.concatenate([rows, ~rows.any(axis=0, keepdims=True)])


def voxel_hash(*parts: np.ndarray | str | int) -> str:
    """Return a short hash of an exact voxel set and its order (ids, coordinates, mask ...)."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class VoxelSpace:
    """Where the columns of ``betas`` lie.

    ``projection``: sparse (20,484, V) onto fsaverage5, left hemisphere then right, or None when
    the study gives no locations. ``mask`` (X, Y, Z) and ``affine`` (4, 4) only for volumes.
    ``hash`` names the exact voxel set and order.
    """

    n_voxels: int
    hash: str
    projection: sp.csr_matrix | None = None
    mask: np.ndarray | None = None
    affine: np.ndarray | None = None
    parcellations: Mapping[str, Parcellation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a projection or atlas made for another set of voxels."""
        p = self.projection
        if p is not None and p.shape != (FSAVERAGE5_VERTICES, self.n_voxels):
            raise UserError(
                f"A projection onto fsaverage5 for {self.n_voxels} voxels has shape "
                f"({FSAVERAGE5_VERTICES}, {self.n_voxels}), found {p.shape}."
            )
        for atlas in self.parcellations.values():
            if atlas.n_voxels != self.n_voxels or atlas.voxel_hash != self.hash:
                raise UserError(
                    f"Atlas {atlas.name!r} was made for {atlas.n_voxels} voxels (hash "
                    f"{atlas.voxel_hash}), this voxel space has {self.n_voxels} (hash "
                    f"{self.hash}); build the atlas for this voxel space."
                )


# ----------------------------------------------------------------------------------------- studies


@dataclass(frozen=True, eq=False)
class Subject:
    """One participant: their voxels, and what is known of each voxel beside its betas.

    ``ncsnr`` (V,): noise-ceiling signal-to-noise ratio, or None. ``maps``: further numbers per
    voxel, name -> (V,), finite or NaN where unknown.
    """

    dataset: str
    name: str
    voxels: VoxelSpace
    ncsnr: np.ndarray | None = None
    simulated: bool = False
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse an ncsnr or a map of another length, or one that holds no numbers."""
        given = {} if self.ncsnr is None else {"ncsnr": self.ncsnr}
        for name, values in [*given.items(), *self.maps.items()]:
            if values.shape != (self.voxels.n_voxels,) or values.dtype.kind not in "fiub":
                raise UserError(
                    f"{self.dataset}/{self.name}: {name} needs one number for each of the "
                    f"{self.voxels.n_voxels} voxels, found shape {values.shape} of {values.dtype}."
                )


@dataclass(frozen=True, eq=False)
class Trials:
    """A subject's trials: ``betas`` float32 (n, V), or any rows-on-demand array of that shape.

    ``table`` has one row per trial in the order of ``betas``, with the columns ``stimulus`` (str),
    ``split`` ("train"/"test"), ``repeat`` (0-based), ``session`` and ``run``. ``beta_unit`` says
    what a beta of 1 means ("z-score within run", "percent signal change" ...). A further column
    ``synthetic`` (bool) marks rows that nobody measured: only ``synthetic`` returns those.
    """

    subject: Subject
    betas: Any
    beta_unit: str
    table: pd.DataFrame

    def __post_init__(self) -> None:
        """Refuse a table that does not describe these betas."""
        who, v = f"{self.subject.dataset}/{self.subject.name}", self.subject.voxels.n_voxels
        if len(self.betas.shape) != 2 or self.betas.shape[1] != v:
            raise UserError(
                f"{who}: betas need shape (trials, {v}) for {v} voxels, found {self.betas.shape}."
            )
        if len(self.table) != self.betas.shape[0]:
            raise UserError(
                f"{who}: {self.betas.shape[0]} rows of betas but {len(self.table)} rows in the "
                "trial table; they must be equal."
            )
        missing = [c for c in TRIAL_COLUMNS if c not in self.table]
        if missing:
            raise UserError(f"{who}: the trial table lacks the column(s) {', '.join(missing)}.")
        other = sorted(set(self.table["split"]) - set(SPLITS))
        if other:
            raise UserError(
                f"{who}: split must be train or test, found {other[0]!r} in the trial table."
            )

    def rows(
        self, split: str, stimulus: str | None = None, repeats: tuple[int, ...] = ()
    ) -> np.ndarray:
        """Return the rows of a split, of one stimulus, and of certain repeats (() is all)."""
        keep = (self.table["split"] == split).to_numpy(copy=True)  # pandas 3: views are read-only
        if stimulus is not None:
            keep &= (self.table["stimulus"] == stimulus).to_numpy()
        if repeats:
            keep &= self.table["repeat"].isin(repeats).to_numpy()
        keep[self.synthetic()] = False
        return np.flatnonzero(keep)

    def synthetic(self) -> np.ndarray:
        """Return the rows that were predicted from images: to learn from, and for nothing else."""
        if "synthetic" not in self.table:
            return np.arange(0)
        return np.flatnonzero(self.table["synthetic"])

    def stimuli(self, split: str) -> list[str]:
        """Return the stimuli of a split, each once, in order of first appearance."""
        return list(dict.fromkeys(self.table["stimulus"][self.rows(split)]))

    def average(
        self, stimulus: str, repeats: tuple[int, ...] = (), split: str = "test"
    ) -> np.ndarray:
        """Return the mean betas float32 (V,) over a stimulus's trials (() is all repeats)."""
        rows = self.rows(split, stimulus, repeats)
        if not len(rows):
            which = f"repeat {', '.join(str(r + 1) for r in repeats)} of " if repeats else ""
            raise UserError(
                f"{self.subject.dataset}/{self.subject.name} has no {split} trial of {which}"
                f"stimulus {stimulus!r}; choose one of its {len(self.stimuli(split))} {split} "
                "stimuli."
            )
        return np.asarray(self.betas[rows], dtype=np.float32).mean(axis=0)


@runtime_checkable
class Dataset(Protocol):
    """A study as it lies on disk. Everything is read lazily; ids are canonical strings inside.

    ``stimuli``: a table indexed by stimulus id with at least ``caption``, ``category`` (may be "")
    and ``source`` columns. ``split_unit`` is "repeat" only where a study has too few stimuli.
    ``note`` is one sentence the page shows with the data ("" for none).

    A class is made with ``(path, name, **options)``. Its keyword options come from the command
    line as text (``--dataset nsd=/data/nsd?prep=b3``) and have defaults; the class checks their
    values. Five more members are optional; the first is for data whose truth is known, the last
    three for whoever meets a path of unknown format:

    - ``noiseless_trials(subject) -> Trials``: one trial per test stimulus, its response without
      noise, over the voxels of ``load``.
    - ``known_embeddings(stimuli, space, fingerprint) -> np.ndarray | None``: embeddings (n, ...)
      of stimuli that lie ready, made by that embedder's weights; None where they do not.
    - ``looks_for``: which files these are, in a few words.
    - ``recognise(path) -> bool``, a classmethod: whether the path holds this format, judged by
      content (file names, keys); cheap, never raises, and True for one class only.
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


# -------------------------------------------------------------------------------------- embeddings


@dataclass(frozen=True)
class EmbeddingSpace:
    """A space of image or text embeddings: ``shape`` is (D,) or (T, D).

    ``unit_norm`` says that its members lie on the unit sphere; a mapper's output is raw, so
    whoever needs unit norm normalises.
    """

    model: str
    layer: str
    shape: tuple[int, ...]
    unit_norm: bool = False

    def __post_init__(self) -> None:
        """Make ``shape`` a tuple (JSON gives lists) and refuse an empty or non-positive one."""
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if not self.shape or min(self.shape) < 1:
            raise UserError(
                f"Embedding space {self.name} needs positive sizes, found {self.shape}."
            )

    @property
    def name(self) -> str:
        """``model/layer``, the name used on the command line and in cards."""
        return f"{self.model}/{self.layer}"

    @property
    def size(self) -> int:
        """The number of values of one embedding."""
        return int(np.prod(self.shape))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EmbeddingSpace:
        """Rebuild a space from the dict that ``dataclasses.asdict`` and JSON made of it."""
        return cls(**values)


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


@dataclass(frozen=True, eq=False)
class Condition:
    """What a generator may draw on: a trial's decoded embeddings, and on request the trial.

    ``voxels`` bool (V,): which of the betas a person chose (None: all). ``dataset``: whose
    training stimuli may be retrieved. ``nulls``: what a mapper that learned it gives for no brain
    at all, which then takes the place of the generator's own null.
    """

    embeddings: Mapping[EmbeddingSpace, torch.Tensor]
    stimulus: str | None = None
    betas: np.ndarray | None = None
    subject: Subject | None = None
    voxels: np.ndarray | None = None
    dataset: Dataset | None = None
    nulls: Mapping[EmbeddingSpace, torch.Tensor] = field(default_factory=dict)


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


@runtime_checkable
class Generator(Protocol):
    """Embeddings in, pictures out; one depends on condition, scale, seed and options alone.

    ``accepts``: what it draws from, the best first; a condition holds one of them or more, and ()
    needs none. Made with ``(checkpoints, device)``, and further members are optional:

    - ``source``, an argument: another folder, or hub id, of its weights or pictures.
    - ``hub``: where its weights were published; they do not ship.
    - ``fingerprint``: names the exact weights, where they lie elsewhere than in checkpoints.
    - ``remarks``: one sentence each about what somebody must know of the weights it loaded.
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


# ----------------------------------------------------------------------------------------- choices


MAX_SCALES = 16
MAX_SCALE = 30.0
MAX_STEPS = 100
MAX_SAMPLES = 16
MAX_ROWS = 8
SEED = "seed"  # the second axis that every generator has which draws from noise


@dataclass(frozen=True)
class Request:
    """Everything that decides the pictures; with the checkpoints' hashes it is the cache key.

    ``repeats`` () averages all repeats of the stimulus, (0,) is the first alone. ``samples``
    above 1: beside the sweep, that many samples from the mapper's density are drawn as pictures.
    ``space`` names the target that is decoded, for mappers with several; "" is the first that the
    generator draws from. ``axis``: what a sweep varies besides the scale, `SEED` or an option of
    the generator, and ``values`` its value in each row; "" for a single row. ``rois``: keys of the
    parcels of ``roi_atlas`` ("" the subject's first) whose betas guide, () all voxels.
    """

    dataset: str
    subject: str
    stimulus: str
    mapper: str
    generator: str
    scales: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0, 8.0)
    steps: int = 20
    seed: int = 0
    repeats: tuple[int, ...] = ()
    options: tuple[tuple[str, float], ...] = ()
    samples: int = 1
    space: str = ""
    axis: str = ""
    values: tuple[float, ...] = ()
    rois: tuple[str, ...] = ()
    roi_atlas: str = ""

    def __post_init__(self) -> None:
        """Refuse scales, steps, seeds, samples and rows outside what a sweep can do."""
        object.__setattr__(self, "scales", tuple(float(s) for s in self.scales))
        object.__setattr__(self, "repeats", tuple(int(r) for r in self.repeats))
        object.__setattr__(self, "options", tuple((str(k), float(v)) for k, v in self.options))
        object.__setattr__(self, "values", tuple(float(v) for v in self.values))
        object.__setattr__(self, "rois", tuple(dict.fromkeys(map(str, self.rois))))
        if not 1 <= len(self.scales) <= MAX_SCALES:
            raise UserError(f"Give 1 to {MAX_SCALES} guidance scales, found {len(self.scales)}.")
        for scale in self.scales:
            if not (np.isfinite(scale) and 0 <= scale <= MAX_SCALE):
                raise UserError(
                    f"A guidance scale lies between 0 and {MAX_SCALE:g}, found {scale:g}."
                )
        if len(set(self.scales)) != len(self.scales):
            raise UserError("Each guidance scale may be given once; remove the repeated one.")
        if not 1 <= self.steps <= MAX_STEPS:
            raise UserError(
                f"The number of steps lies between 1 and {MAX_STEPS}, found {self.steps}."
            )
        if not 0 <= self.seed < 2**31:
            raise UserError(f"The seed lies between 0 and {2**31 - 1}, found {self.seed}.")
        if not 1 <= self.samples <= MAX_SAMPLES:
            raise UserError(
                f"The number of samples lies between 1 and {MAX_SAMPLES}, found {self.samples}."
            )
        if self.axis:
            self._check_rows()
        elif self.values:
            raise UserError(
                f"{len(self.values)} values are given and nothing that they are of; choose what "
                "varies from row to row."
            )

    def _check_rows(self) -> None:
        if not 1 <= len(self.values) <= MAX_ROWS:
            raise UserError(
                f"Give 1 to {MAX_ROWS} values of {self.axis}, a row each; found "
                f"{len(self.values)}."
            )
        if len(set(self.values)) != len(self.values):
            raise UserError(f"Each value of {self.axis} may be given once; remove the repeated.")
        for value in self.values if self.axis == SEED else ():
            if not (0 <= value < 2**31 and value == int(value)):
                raise UserError(
                    f"A seed is a whole number between 0 and {2**31 - 1}, found {value:g}."
                )

    def rows(self) -> tuple[Request, ...]:
        """Return a request without a second axis for each of its values; itself without one."""
        if not self.axis:
            return (self,)
        plain = replace(self, axis="", values=())
        if self.axis == SEED:
            return tuple(replace(plain, seed=int(value)) for value in self.values)
        others = tuple(option for option in self.options if option[0] != self.axis)
        return tuple(replace(plain, options=(*others, (self.axis, v))) for v in self.values)


IMPORTANCE, PARCELS = "importance", "parcels"  # what a view shows beside a subject's own maps
METHODS = ("gradient", "gradient x input", "integrated gradients")
LIKELIHOOD = "log-likelihood"
TARGETS = ("retrieval margin", "fixed direction", LIKELIHOOD)  # the last: of mappers that have one
MEASURES = ("enrichment", "share", "mean", "signed")
ATTENTIONS = ("off", "occlusion")  # over the shown image; the second is the method
SURFACES = ("inflated", "pial", "flat")
HEMISPHERES = ("both", "left", "right")
CAMERAS = ("lateral", "medial", "ventral", "dorsal", "anterior", "posterior")
PANELS = ("", "controls", "lesion", "compare", "curve", "statistics", "evaluation")
PEOPLE = ("subject", "group")  # whose map over all test images the statistics are of
MOST_GAIN = 2.0
LECTURE_STEPS = 5


@dataclass(frozen=True)
class View:
    """Everything that decides only how the pictures' evidence is shown."""

    method: str = "gradient"
    target: str = "retrieval margin"
    atlas: str = ""  # "" is the first one the voxel space has
    measure: str = "enrichment"
    surface: str = "inflated"
    hemisphere: str = "both"
    camera: str = "posterior"
    parcel: str = ""  # Label.key of the selected parcel
    shows: str = IMPORTANCE  # or a map of the subject's voxels, or the parcels themselves
    attention: str = "off"  # whether the shown image is overlaid with what the decoding rests on
    panel: str = ""  # which evidence is open, "" for none
    parcels: tuple[str, ...] = ()  # Label.key of the parcels that are lesioned, () for the first
    gain: float = 0.0  # of the lesioned parcels: 0 replaces their betas, 1 changes nothing
    fill: str = "training mean"  # what replaces them, see `explorer.evidence.lesions`
    donor: str = ""  # the test stimulus whose betas do, "" for one that the seed chooses
    against: str = ""  # what a trial is compared with: mapper:NAME, generator:NAME or subject:NAME
    people: str = "subject"
    lecture: int = 0  # the step of the walkthrough that is open, from 1; 0 for none

    def __post_init__(self) -> None:
        """Refuse a choice that is not on offer."""
        object.__setattr__(self, "parcels", tuple(dict.fromkeys(map(str, self.parcels))))
        object.__setattr__(self, "gain", float(self.gain))
        offers = {"method": METHODS, "measure": MEASURES, "surface": SURFACES}
        offers |= {"hemisphere": HEMISPHERES, "camera": CAMERAS, "target": TARGETS}
        offers |= {"attention": ATTENTIONS, "panel": PANELS, "people": PEOPLE}
        offers["lecture"] = tuple(range(LECTURE_STEPS + 1))
        for name, offered in offers.items():
            if getattr(self, name) not in offered:
                names = ", ".join(str(one) for one in offered if one != "")
                raise UserError(f"{name} is one of {names}, found {getattr(self, name)!r}.")
        if not 0 <= self.gain <= MOST_GAIN:
            raise UserError(
                f"The gain of a parcel lies between 0 and {MOST_GAIN:g}, found {self.gain:g}."
            )


# ------------------------------------------------------------------------------------- checkpoints


@dataclass(frozen=True)
class Card:
    """What a checkpoint is and how it came about; ``card.json`` beside the weights.

    ``kind`` "mapper", "generator", "embedder" or "judge"; ``name`` as shown; ``cls`` the key in
    the dict literal that can load it. For mappers ``voxels`` maps each subject to (count, hash).
    """

    kind: str
    name: str
    cls: str
    dataset: str
    command: str
    licence: str
    subjects: tuple[str, ...] = ()
    voxels: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    targets: tuple[EmbeddingSpace, ...] = ()
    split_hash: str = ""
    normalisation: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    device: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Turn the lists and dicts that JSON gives into tuples and spaces."""
        spaces = (
            t if isinstance(t, EmbeddingSpace) else EmbeddingSpace.from_dict(t)
            for t in self.targets
        )
        object.__setattr__(self, "targets", tuple(spaces))
        object.__setattr__(self, "subjects", tuple(self.subjects))
        object.__setattr__(
            self, "voxels", {k: (int(n), str(h)) for k, (n, h) in self.voxels.items()}
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what goes into ``card.json``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Card:
        """Rebuild a card from ``card.json``; an unknown or missing field raises `UserError`."""
        known = {f.name for f in fields(cls)}
        extra = sorted(set(values) - known)
        if extra:
            raise UserError(
                f"card.json has the unknown field {extra[0]!r}; it was made by another version."
            )
        try:
            return cls(**values)
        except (TypeError, ValueError, KeyError) as error:
            raise UserError(f"card.json is not a valid card: {error}.") from error

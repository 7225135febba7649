"""The nouns of Afterimage. Imports nothing of ours.

Every dataclass is frozen and checks itself once, when it is made; code downstream does not check
again. Arrays inside are shared, never copied: treat them as read-only.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp

FSAVERAGE5_VERTICES = 20_484  # 10,242 a hemisphere, left then right
SPLITS = ("train", "test")
_IMPORTING = threading.RLock()
TRIAL_COLUMNS = ("stimulus", "split", "repeat", "session", "run")


class UserError(Exception):
    """A mistake a person can mend; its text is one sentence meant for them.

    It says what was expected, what was found and what to do. All else that is raised is a bug.
    """


def resolve(entry: str | Callable[..., Any]) -> Callable[..., Any]:
    """Return the class behind an entry of the dict literals in ``backends``.

    Entries are written ``"package.module:Class"`` so that a heavy library is imported only when
    the class that needs it is used; a class itself (a test's fake) is returned as it is.

    One thread imports at a time: modules that need each other, imported by two threads from two
    ends, would be handed over half made, and libraries that import lazily raise then.
    """
    if not isinstance(entry, str):
        return entry
    path, _, name = entry.partition(":")
    module = sys.modules.get(path)
    if module is None or getattr(module.__spec__, "_initializing", False):
        with _IMPORTING:
            module = importlib.import_module(path)
    return getattr(module, name)


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
    ``hash`` names the exact voxel set and order. ``space``: what the affine leads to as
    templateflow.org names it (``MNI152NLin2009cAsym``), "" for a person's own. ``fslr``: int (V,),
    the vertex of fsLR-32k of each column, left then right, -1 below the cortex, where data lie
    there. ``native()`` gives the subject's own surface, where the study has one, see
    `explorer.brain.native`.
    """

    n_voxels: int
    hash: str
    projection: sp.csr_matrix | None = None
    mask: np.ndarray | None = None
    affine: np.ndarray | None = None
    parcellations: Mapping[str, Parcellation] = field(default_factory=dict)
    space: str = ""
    fslr: np.ndarray | None = None
    native: Callable[[], Mapping[str, Any]] | None = None

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
    ``split`` and ``split_by``: the name of a split that is not the data set's own, and how it was
    made ("" for its own). ``growing``: further test trials come, or came after the others.
    """

    subject: Subject
    betas: Any
    beta_unit: str
    table: pd.DataFrame
    split: str = ""
    split_by: str = ""
    growing: bool = False

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


@dataclass(frozen=True)
class Origin:
    """Where a row of betas, or a picture, lies on disk.

    ``file``: its path. ``row``: its position along the axis of trials (or pictures), from 0; None
    where the file holds it alone. ``key``: the array or table column in a file that holds many.
    ``note``: what else decides which numbers these are ("left hemisphere", "one of 3 averaged").
    """

    file: str
    row: int | None = None
    key: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse a row before the first."""
        if self.row is not None and self.row < 0:
            raise UserError(f"{self.file}: rows are counted from 0, found {self.row}.")


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


# ------------------------------------------------------------------------------------- checkpoints

CARD, WEIGHTS = "card.json", "model.safetensors"
FILES = (CARD, WEIGHTS)  # of a checkpoint's folder


@dataclass(frozen=True)
class Card:
    """What a checkpoint is and how it came about; ``card.json`` beside the weights.

    ``kind`` "mapper", "generator", "embedder" or "judge"; ``name`` as shown; ``cls`` the key in
    the dict literal that can load it. For mappers ``voxels`` maps each subject to (count, hash),
    and ``split`` names the split they were trained on, "" for the data set's own. ``sha256`` is
    that of each file beside the card.
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
    split: str = ""
    normalisation: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    device: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict, compare=False)  # of the stored form

    def __post_init__(self) -> None:
        """Turn the lists and dicts that JSON gives into tuples and spaces."""
        for name in ("kind", "name", "cls", "dataset", "command", "licence"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"its {name} is no text")
        for name in ("settings", "metrics", "versions", "sha256"):
            if not isinstance(getattr(self, name), Mapping):
                raise TypeError(f"its {name} is no object with fields")
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
        except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
            raise UserError(f"card.json is not a valid card: {error}.") from error

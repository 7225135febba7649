"""The embedded data set: simulated scenes and brains whose truth is stored beside them.

It is a plain folder (``layout``) with a ``truth`` folder. The test rows ship; training rows are
made again from the seed, into a cache, when one of them is first read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.datasets import layout
from explorer.files import damaged, guard
from explorer.types import EmbeddingSpace, Origin, Subject, Trials, UserError

if TYPE_CHECKING:
    import pandas as pd

    from backends.simulation.scenes import Scene
    from backends.simulation.study import Study

SHIPPED = Path(__file__).resolve().parents[2] / "assets" / "simulated"
EMBEDDED = "embeddings.safetensors"
TRUTH, AGAIN = "the truth of a simulation", "make it again (python -m backends build-demo)"
VOXELS = ("vertex", "ncsnr", "information", "noise_sd", "baseline", "noiseless_scale")
PARCELS = {"vertices": int, "information_mean": float, "information_sum": float}


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known about one simulated subject.

    ``parcels`` has one row a parcel, indexed by key ("fusiform L"): role ("informative", "white
    noise", "structured noise" or "shared noise"), pool (of shared noise), vertices,
    information_mean, information_sum, groups (share of the signal per kind of feature), sentence
    and source. ``voxels`` has one row a voxel, in the order of the betas: vertex, parcel, ncsnr
    (the true one), information (share of one trial's variance that the picture explains, 0 to 1),
    noise_sd and baseline (percent signal change). ``noiseless`` float32 (test stimuli, V) are the
    betas without noise, ``stimuli`` their ids.
    """

    subject: str
    parcels: pd.DataFrame
    voxels: pd.DataFrame
    stimuli: tuple[str, ...]
    noiseless: np.ndarray

    @property
    def information(self) -> np.ndarray:
        """Information per voxel (V,), in [0, 1)."""
        return self.voxels["information"].to_numpy()

    @property
    def roles(self) -> dict[str, str]:
        """Parcel key -> role."""
        return self.parcels["role"].to_dict()


class MadeRows:
    """Test rows from disk, then training rows that are made when one is first read."""

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(self, shipped: Any, n_made: int, make: Callable[[], np.ndarray], v: int) -> None:
        self.shape: tuple[int, int] = (len(shipped) + n_made, v)
        self._shipped, self._make = shipped, make

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return float32 rows of any index of the first axis."""
        if isinstance(rows, tuple):
            return self[rows[0]][(..., *rows[1:])]
        numbers = np.arange(len(self))[rows]
        if numbers.ndim == 0:
            return self[[int(numbers)]][0]
        values = np.empty((len(numbers), self.shape[1]), np.float32)
        made = numbers >= len(self._shipped)
        values[~made] = self._shipped[numbers[~made]]
        if made.any():
            values[made] = self._make()[numbers[made] - len(self._shipped)]
        return values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all rows."""
        return np.asarray(self[:], dtype=dtype)

    def lies(self, row: int) -> list[Origin]:
        """Return where a test row lies; training rows are made again, and lie nowhere."""
        return self._shipped.lies(row) if row < len(self._shipped) else []


class Simulated:
    """The simulated study.

    Parameters
    ----------
    path
        The folder that ``build`` wrote; by default the one that ships.
    name
        What the data set is called.
    cache
        Where training rows are kept; by default $AFTERIMAGE_CACHE or ~/.cache/afterimage.
    progress
        Called with one sentence now and then while training rows are made.
    """

    looks_for = "a folder whose dataset.json has a recipe (python -m backends build-demo)"

    def __init__(
        self,
        path: Path | None = None,
        name: str = "simulated",
        *,
        cache: Path | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self.path = Path(path) if path is not None else SHIPPED
        self.name = name
        self.progress = progress
        self._cache = cache
        self._description = layout.read_description(self.path)
        if not isinstance(self._description.get("recipe"), dict):
            raise UserError(
                f"{self.path} is a plain folder, not the simulated data set: its dataset.json has "
                'no "recipe"; open it as folder.'
            )
        self.title: str = self._description["title"]
        self.licence: str = self._description["licence"]
        self.citation: str = self._description["citation"]
        self.simulated = True
        self.redistributable: bool = self._description["redistributable"]
        self.split_unit: str = self._description["split_unit"]
        self.note: str = self._description["note"]
        self._folders = layout.subject_folders(self.path, self._description)

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Return whether a folder's description has a recipe."""
        return layout.is_simulated(path)

    def remarks(self) -> list[str]:
        """Return what is special about simulated data, one sentence each."""
        return [
            "These are no measurements: pictures and responses were computed, and the truth is "
            "stored beside them.",
            "Test trials ship; training trials are made from the seed when they are first read, "
            "and kept in a cache.",
        ]

    @cached_property
    def study(self) -> Study:
        """What makes scenes and training rows."""
        from backends.simulation.study import Recipe, Study

        recipe = self._description["recipe"]
        unknown = sorted(set(recipe) ^ {f.name for f in fields(Recipe)})
        if unknown:
            raise UserError(
                f"{self.path / 'dataset.json'}: the recipe and this version of the simulation "
                f"disagree about {unknown[0]!r}; run: python -m backends build-demo"
            )
        try:
            return Study(Recipe(**recipe), self._cache)
        except UserError as error:
            raise UserError(f"{self.path / 'dataset.json'}: {error}") from error

    @cached_property
    def stimuli(self) -> pd.DataFrame:
        """Test stimuli, then training stimuli; every cause of each picture is a column."""
        import pandas as pd

        from backends.simulation.study import stimulus_table

        made = stimulus_table(self.study.recipe, "train")
        return pd.concat([self._shipped_stimuli.astype(made.dtypes), made.assign(file="")])

    @cached_property
    def _shipped_stimuli(self) -> pd.DataFrame:
        return layout.read_stimuli(self.path)

    def subjects(self) -> list[str]:
        """Return the names of the simulated participants."""
        return list(self._folders)

    def load(self, subject: str) -> Trials:
        """Return one participant's trials: the shipped test rows, then the training rows."""
        import pandas as pd

        from backends.simulation.study import trial_table

        folder = self._folder(subject)
        shipped = layout.read_trials(
            folder, self.name, subject, self._description, self._shipped_stimuli
        )
        made = trial_table(self.study.recipe, "train")
        rows = MadeRows(
            shipped.betas,
            len(made),
            lambda: self.study.training_betas(subject, self.progress),
            shipped.subject.voxels.n_voxels,
        )
        table = pd.concat([shipped.table[made.columns], made], ignore_index=True)
        return Trials(shipped.subject, rows, shipped.beta_unit, table)

    def image(self, stimulus: str) -> np.ndarray:
        """Return the picture, uint8 RGB (128, 128, 3): shipped for test, drawn for training."""
        if stimulus.startswith("train-"):
            from backends.simulation.scenes import render

            return render(self.scene(stimulus))
        return layout.read_image(self.path, self._shipped_stimuli, stimulus)

    split_by = "the simulation: test scenes are new combinations of the same causes"

    def picture_origin(self, stimulus: str) -> Origin | None:
        """Return where a test picture lies; training pictures are drawn when they are asked for.

        They come from the seed of their scene, so that no file holds them.
        """
        if stimulus.startswith("train-"):
            return None
        return layout.picture_origin(self.path, self._shipped_stimuli, stimulus)

    def ids(self, stimulus: str) -> dict[str, str]:
        """Return what names a picture."""
        if stimulus.startswith("train-"):
            number = self._numbers["train"][stimulus]
            return {"training scene, from 0": str(number)}
        return layout.picture_ids(self._shipped_stimuli, stimulus)

    def scene(self, stimulus: str) -> Scene:
        """Return what a picture shows, cause by cause."""
        for split in ("test", "train"):
            if stimulus in self._numbers[split]:
                return self.scenes(split)[self._numbers[split][stimulus]]
        raise UserError(
            f"{self.name} has no stimulus {stimulus!r}; its ids are test-0001 and on, and "
            "train-00001 and on."
        )

    def scenes(self, split: str) -> list[Scene]:
        """Return the scenes of "train" or "test" in the order of their ids."""
        return self._scenes[split]

    def training_images(self, n: int | None = None) -> np.ndarray:
        """Draw the first n training pictures (None: all), uint8 (n, 128, 128, 3)."""
        from backends.simulation.scenes import render

        return np.stack([render(scene) for scene in self.scenes("train")[:n]])

    def known_embeddings(
        self, stimuli: Sequence[str], space: EmbeddingSpace, fingerprint: str
    ) -> np.ndarray | None:
        """Return stored embeddings float32 (n, *space.shape) of stimuli of one split, or None.

        They save loading the embedder before the first trial, and drawing thousands of training
        pictures before the nearest one can be named. They count only for the weights, by
        ``fingerprint``, that made them.
        """
        from safetensors import SafetensorError, safe_open

        split = "test" if stimuli and stimuli[0] in self._numbers["test"] else "train"
        rows = [self._numbers[split].get(stimulus) for stimulus in stimuli]
        try:
            with safe_open(self.path / EMBEDDED, "np") as opened:
                made_by = (opened.metadata() or {}).get(space.name)
                if made_by != fingerprint or None in rows:
                    return None
                kept = opened.get_tensor(f"{space.name} {split}")
        except (OSError, SafetensorError):
            return None
        if kept.shape != (len(self._numbers[split]), *space.shape) or not np.isfinite(kept).all():
            return None  # damaged: the embedder gives them again
        return kept[rows].astype(np.float32)

    def keep_embeddings(
        self, embeddings: Mapping[str, np.ndarray], space: EmbeddingSpace, fingerprint: str
    ) -> None:
        """Store the embeddings (*space.shape) of all stimuli; training ones as float16."""
        from safetensors.numpy import save

        kinds = {"test": np.float32, "train": np.float16}
        stored = {
            f"{space.name} {split}": np.stack([embeddings[s] for s in numbers]).astype(
                kinds[split]
            )
            for split, numbers in self._numbers.items()
        }
        part = self.path / f"{EMBEDDED}.part"
        part.write_bytes(save(stored, {space.name: fingerprint}))
        part.replace(self.path / EMBEDDED)

    def truth(self, subject: str) -> Truth:
        """Return what is known about a participant."""
        folder = self.path / "truth" / self._folder(subject).name
        file = folder / "voxels.tsv"
        voxels = layout.read_table(file, ("parcel", *VOXELS))
        with guard(file, TRUTH, AGAIN):
            voxels = voxels.astype({c: float for c in voxels if c != "parcel"})
            voxels = voxels.astype({"vertex": int})
        file = self.path / "truth" / "parcels.tsv"
        parcels = layout.read_table(file, ("subject", "parcel", "role", *PARCELS))
        with guard(file, TRUTH, AGAIN):
            parcels = parcels[parcels["subject"] == subject].set_index("parcel")
            parcels = parcels.drop(columns="subject").astype(PARCELS)
        stored = layout.read_array(folder / "noiseless.npy")
        scale = voxels.pop("noiseless_scale").to_numpy()
        on, shown = scale > 0, tuple(self._shipped_stimuli.index)
        if stored.shape != (len(shown), on.sum()):
            raise UserError(
                f"{folder / 'noiseless.npy'} has shape {stored.shape}, expected "
                f"({len(shown)}, {on.sum()}); run: python -m backends build-demo"
            )
        if not np.isfinite(voxels.drop(columns="parcel").to_numpy(float)).all():
            raise damaged(folder / "voxels.tsv", "a value is not finite", TRUTH, AGAIN)
        noiseless = np.tile(voxels["baseline"].to_numpy(np.float32), (len(shown), 1))
        noiseless[:, on] += stored * scale[on]
        return Truth(subject, parcels, voxels, shown, noiseless)

    def noiseless_trials(self, subject: str) -> Trials:
        """Return one noiseless trial per test stimulus, as `load` returns noisy ones."""
        import pandas as pd

        truth, trials = self.truth(subject), self.load(subject)
        columns = {"split": "test", "repeat": 0, "session": 1, "run": 1}
        table = pd.DataFrame({"stimulus": truth.stimuli, **columns})
        same = Subject(self.name, subject, trials.subject.voxels, None, simulated=True)
        return Trials(same, truth.noiseless, trials.beta_unit, table)

    @cached_property
    def _scenes(self) -> dict[str, list[Scene]]:
        from backends.simulation.study import scenes

        return {split: scenes(self.study.recipe, split) for split in ("train", "test")}

    @cached_property
    def _numbers(self) -> dict[str, dict[str, int]]:
        from backends.simulation.study import stimulus_ids

        return {
            split: {s: i for i, s in enumerate(stimulus_ids(self.study.recipe, split))}
            for split in ("train", "test")
        }

    def _folder(self, subject: str) -> Path:
        if subject not in self._folders:
            raise UserError(
                f"{self.name} has the subjects {', '.join(self._folders)}, not {subject!r}."
            )
        return self._folders[subject]


def build(
    path: Path,
    progress: Callable[[str], None] | None = None,
    *,
    quick: bool = False,
    cache: Path | None = None,
) -> None:
    """Write the simulated data set into a folder: about a minute, or seconds when ``quick``.

    ``quick`` is a tenth of the scenes and under half of the vertices, for tests.
    """
    from backends.simulation.study import QUICK, Recipe, Study, write

    write(Study(QUICK if quick else Recipe(), cache), Path(path), progress)

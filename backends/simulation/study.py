"""A whole simulated study: which scenes, which trials, and every subject's betas, from one recipe.

`Study` makes things on demand and keeps what takes long in a cache folder. `shipping.write` puts
what ships into a plain folder, with the truth beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.simulation.brains import (
    VERSION,
    Brain,
    make_brain,
    noiseless,
    trial_noise,
)
from backends.simulation.further import (
    GENERALISATION,
    IMAGERY,
    PARTS,
    further_trials,
    held_out,
    held_out_ids,
    imagined_numbers,
)
from backends.simulation.imagery import imagined
from backends.simulation.scenes import Scene, render, sample_scenes
from backends.training.counted import Counted
from explorer.files import read_array, short
from explorer.folders import cache_folder
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[str], None]
SESSIONS, RUNS = 6, 10
MOST, LARGEST = (
    100_000,
    10,
)  # scenes of a split, and the scale: twenty times what ships, our choice


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a study's data.

    ``scale`` is a factor on the number of vertices; ``n_reference`` scenes, used for nothing else,
    define the unit of every signal.
    """

    seed: int = 7
    n_train: int = 4800
    n_test: int = 300
    repeats: int = 3
    subjects: tuple[str, ...] = ("subj01", "subj02", "subj03", "subj04", "subj05", "subj06")
    scale: float = 1.0
    n_reference: int = 480
    version: int = VERSION

    def __post_init__(self) -> None:
        """Turn the list that JSON gives into a tuple; refuse what no study is made of."""
        if not isinstance(self.subjects, list | tuple):
            raise UserError(f"The recipe's subjects are no list of names: {self.subjects!r}.")
        object.__setattr__(self, "subjects", tuple(self.subjects))
        if not self.subjects or not all(isinstance(name, str) for name in self.subjects):
            raise UserError("The recipe's subjects are no list of names.")
        for key in ("seed", "n_train", "n_test", "repeats", "n_reference", "version"):
            value, least = getattr(self, key), key not in ("seed", "version")
            if type(value) is not int or not least <= value <= MOST:
                raise UserError(
                    f"The recipe's {key} is {short(repr(value))}, expected a whole number from "
                    f"{least:d} to {MOST}."
                )
        if type(self.scale) not in (int, float) or not 0 < self.scale <= LARGEST:
            raise UserError(
                f"The recipe's scale is {short(repr(self.scale))}, expected a number above 0 and "
                f"up to {LARGEST}."
            )


QUICK = Recipe(
    n_train=480, n_test=48, subjects=("subj01", "subj02", "subj05"), scale=0.4, n_reference=96
)


def stimulus_ids(recipe: Recipe, split: str) -> list[str]:
    """Return ``test-0001`` ... or ``train-00001`` ..., in the order of `scenes`.

    A part (`further.PARTS`) has ``held-out-001`` ..., or the ids of the test scenes imagined.
    """
    if split == GENERALISATION:
        return held_out_ids(recipe.n_test, recipe.seed)
    if split == IMAGERY:
        return [f"test-{i + 1:04d}" for i in imagined_numbers(recipe.n_test, recipe.seed)]
    if split == "test":
        return [f"test-{i + 1:04d}" for i in range(recipe.n_test)]
    return [f"train-{i + 1:05d}" for i in range(recipe.n_train)]


def scenes(recipe: Recipe, split: str) -> list[Scene]:
    """Return the scenes of "train", "test" or "reference"; no scene is in two of them."""
    n, offset = {
        "train": (recipe.n_train, 0),
        "test": (recipe.n_test, 1),
        "reference": (recipe.n_reference, 2),
    }[split]
    return sample_scenes(n, recipe.seed + offset)


def stimulus_table(recipe: Recipe, split: str) -> pd.DataFrame:
    """Return one row a stimulus, indexed by id: caption, category, source, every cause."""
    import pandas as pd

    part = split == GENERALISATION
    shown = held_out(recipe.n_test, recipe.seed) if part else scenes(recipe, split)
    table = pd.DataFrame([one.attributes() for one in shown])
    table.insert(0, "stimulus", stimulus_ids(recipe, split))
    table["source"] = "simulated"
    return table.set_index("stimulus")


def trial_table(recipe: Recipe, split: str) -> pd.DataFrame:
    """Return the trials of a split in the order of its betas, as six sessions of ten runs.

    Every training scene is shown once; the repeats of a test scene fall into different sessions.
    """
    import pandas as pd

    ids = stimulus_ids(recipe, split)
    if split in PARTS:
        return further_trials(split, ids)
    repeats = recipe.repeats if split == "test" else 1
    number, repeat = np.divmod(np.arange(len(ids) * repeats), repeats)
    if split == "test":
        session = (number + repeat * max(1, SESSIONS // repeats)) % SESSIONS + 1
        run = number // SESSIONS % RUNS + 1
    else:
        place = number * SESSIONS * RUNS // len(ids)
        session, run = place // RUNS + 1, place % RUNS + 1
    columns = {"repeat": repeat, "session": session, "run": run}
    table = pd.DataFrame({"stimulus": np.array(ids)[number], "split": split, **columns})
    return table.sort_values(["session", "run"], kind="stable", ignore_index=True)


class Study:
    """The data of a recipe, made when asked for; thread-safe.

    Parameters
    ----------
    recipe
        What to make.
    cache
        Folder for what takes long; several processes may share it.
    """

    def __init__(self, recipe: Recipe, cache: Path | None = None) -> None:
        if recipe.version != VERSION:
            raise UserError(
                f"This data set was made by version {recipe.version} of the simulation, the code "
                f"is version {VERSION}; run: python -m backends build-demo"
            )
        self.recipe = recipe
        self._cache = cache
        self._brains: dict[str, Brain] = {}
        self._folder: Path | None = None
        self._lock = threading.RLock()

    @property
    def folder(self) -> Path:
        """The cache folder of exactly this recipe and this renderer."""
        with self._lock:
            if self._folder is None:
                # Pictures that another version of Pillow or of the scenes drew must not mix in.
                probe = [render(scene).tobytes() for scene in scenes(self.recipe, "reference")[:3]]
                text = json.dumps(asdict(self.recipe), sort_keys=True)
                digest = hashlib.sha256(text.encode() + b"".join(probe)).hexdigest()[:16]
                self._folder = (self._cache or cache_folder()) / f"simulated-{digest}"
            return self._folder

    def features(self, split: str, progress: Progress | None = None) -> np.ndarray:
        """Return what cortex reads from a split's scenes, float16 (n, N_FEATURES), read-only."""
        from backends.simulation.features import features
        from backends.simulation.held_out import held_out_features

        further = held_out(self.recipe.n_test, self.recipe.seed) if split == GENERALISATION else ()

        def make() -> np.ndarray:
            shown = further or scenes(self.recipe, split)
            count = counter(f"Looking at {len(shown)} {split} scenes", progress)
            return held_out_features(further, count) if further else features(shown, count)

        n = {"train": self.recipe.n_train, "test": self.recipe.n_test}
        n |= {GENERALISATION: len(further)}
        return self._kept(f"features-{split}.npy", n.get(split, self.recipe.n_reference), make)

    def brain(self, subject: str, progress: Progress | None = None) -> Brain:
        """Return a subject's brain."""
        with self._lock:
            if subject not in self._brains:
                reference = self.features("reference", progress)
                number, seed = self.recipe.subjects.index(subject), self.recipe.seed
                self._brains[subject] = make_brain(
                    subject, number, seed, reference, self.recipe.scale
                )
            return self._brains[subject]

    def noiseless(self, subject: str, split: str, progress: Progress | None = None) -> np.ndarray:
        """Return the betas without noise, float32 (stimuli, V), in the order of the ids."""
        if split == IMAGERY:
            which = imagined_numbers(self.recipe.n_test, self.recipe.seed)
            return imagined(self.brain(subject), self.noiseless(subject, "test", progress)[which])
        return noiseless(self.brain(subject, progress), self.features(split, progress))

    def betas(self, subject: str, split: str, progress: Progress | None = None) -> np.ndarray:
        """Return the noisy betas float32 (trials, V) in the order of `trial_table`."""
        import pandas as pd

        table = trial_table(self.recipe, split)
        number = pd.Index(stimulus_ids(self.recipe, split)).get_indexer(table["stimulus"])
        code = {"train": 0, "test": 1, GENERALISATION: 2, IMAGERY: 3}[split]
        keys = [(code, int(i), int(r)) for i, r in zip(number, table["repeat"], strict=True)]
        betas = self.noiseless(subject, split, progress)[number]
        betas += trial_noise(self.brain(subject), keys)
        return betas

    def training_betas(self, subject: str, progress: Progress | None = None) -> np.ndarray:
        """Return the training betas float16 (trials, V), a read-only memory map of the cache.

        Half precision keeps three digits of a beta, a thousandth of its noise.
        """

        def make() -> np.ndarray:
            if progress:
                progress(f"Making the training trials of {subject} (simulated)")
            return self.betas(subject, "train", progress).astype(np.float16)

        return self._kept(f"{subject}-train.npy", self.recipe.n_train, make)

    def _kept(self, name: str, n: int, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Return n rows from the cache; what is missing or damaged there is made again."""
        path = self.folder / name
        with self._lock:
            kept = None
            if path.exists():
                with contextlib.suppress(UserError):
                    kept = read_array(path)
            if kept is None or kept.ndim != 2 or len(kept) != n or kept.dtype != np.float16:
                made = make()
                path.parent.mkdir(parents=True, exist_ok=True)
                save_array(path, made)
            return read_array(path)


def save_array(path: Path, array: np.ndarray) -> None:
    """Write a .npy file under another name first, so that a reader never sees half of it."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, array, allow_pickle=False)
        Path(temporary).chmod(0o644)  # mkstemp's 0600 would hide shared data from others
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def counter(what: str, progress: Progress | None) -> Callable[[int, int], Any]:
    """Return ``count(done, total)``, which tells how far a piece of work is and what is left."""
    start = time.monotonic()

    def count(done: int, total: int) -> None:
        if progress:
            left = (time.monotonic() - start) * (total - done) / done
            sentence = f"{what}: {done} of {total}, {left:.0f} s left"
            progress(Counted(sentence, work=what, done=done, total=total))

    return count

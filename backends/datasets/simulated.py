"""The embedded data set: simulated scenes and brains whose truth is stored beside them.

It is a plain folder (``layout``) with a ``truth`` folder. The test rows ship; training rows are
made again from the seed, into a cache, when one of them is first read. Further parts, test only,
lie beside the main one: see `simulated_parts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.datasets import layout, simulated_parts
from backends.datasets.simulated_files import (
    MadeRows,
    Truth,
    keep_embeddings,
    known_embeddings,
    read_truth,
)
from backends.datasets.simulated_parts import ABOUT, GENERALISATION, HELD_OUT, MAIN, TASKS
from explorer.types import EmbeddingSpace, Origin, Subject, Trials, UserError

if TYPE_CHECKING:
    import pandas as pd

    from backends.simulation.scenes import Scene
    from backends.simulation.study import Study
    from explorer.protocols import Counterfactual

SHIPPED = Path(__file__).resolve().parents[2] / "assets" / "simulated"


class Simulated:
    """The simulated study.

    Parameters
    ----------
    path
        The folder that ``build`` wrote; by default the one that ships.
    name
        What the data set is called.
    part
        ``main``, or a further test set of the same people: ``generalisation`` or ``imagery``.
    task
        Of ``imagery``: ``imagery`` reads the imagined trials, ``vision`` the same scenes seen.
    cache
        Where training rows are kept; by default $AFTERIMAGE_CACHE or ~/.cache/afterimage.
    progress
        Called with one sentence now and then while training rows are made.
    """

    parts = tuple(ABOUT)  # offered beside the main one
    looks_for = "a folder whose dataset.json has a recipe (python -m backends build-demo)"

    def __init__(
        self,
        path: Path | None = None,
        name: str = "simulated",
        part: str = MAIN,
        task: str = "",
        *,
        cache: Path | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self.path = Path(path) if path is not None else SHIPPED
        self.name = name
        self.progress = progress
        self.task = simulated_parts.check(part, task)
        self.part, self.test_only = part, part != MAIN
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
        if part != MAIN:
            about = ABOUT[part]
            self.title = f"Simulated: {about.title}"
            self.note = f"{about.note.format(told=TASKS.get(self.task, ''))} {self.note}"
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
            *(
                ABOUT[self.part].remarks
                if self.test_only
                else (
                    "Test trials ship; training trials are made from the seed when they are first "
                    "read, and kept in a cache.",
                    f"Further test sets lie beside them: ?part= is one of {', '.join(ABOUT)}.",
                )
            ),
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

        if self.test_only:
            return simulated_parts.part_stimuli(self.path, self.part, self._shipped_stimuli)
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
        if self.test_only:
            what = self.path, self.part, self.task, folder.name
            return simulated_parts.part_trials(*what, shipped, self.stimuli)
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
        return layout.read_image(*self._home(stimulus), stimulus)

    @property
    def split_by(self) -> str:
        """Who defined train and test."""
        if self.test_only:
            return simulated_parts.SPLIT_BY
        return "the simulation: test scenes are new combinations of the same causes"

    def _home(self, stimulus: str) -> tuple[Path, pd.DataFrame]:
        """Return the folder and the table that name a stimulus's picture."""
        if stimulus.startswith(HELD_OUT) and self.part == GENERALISATION:
            return self.path / GENERALISATION, self._held_out
        return self.path, self._shipped_stimuli

    @cached_property
    def _held_out(self) -> pd.DataFrame:
        return layout.read_stimuli(self.path / GENERALISATION)

    def picture_origin(self, stimulus: str) -> Origin | None:
        """Return where a test picture lies; training pictures are drawn when they are asked for.

        They come from the seed of their scene, so that no file holds them.
        """
        if stimulus.startswith("train-"):
            return None
        return layout.picture_origin(*self._home(stimulus), stimulus)

    def ids(self, stimulus: str) -> dict[str, str]:
        """Return what names a picture."""
        if stimulus.startswith("train-"):
            number = self._numbers["train"][stimulus]
            return {"training scene, from 0": str(number)}
        return layout.picture_ids(self._home(stimulus)[1], stimulus)

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
        """Return stored embeddings float32 (n, *space.shape), see `simulated_files`."""
        held = [s for s in stimuli if s.startswith(HELD_OUT)] if self.test_only else []
        others = [s for s in stimuli if s not in held]
        found: dict[str, np.ndarray] = {}
        for some, home, numbers in (
            (held, self.path / GENERALISATION, self._held_out_numbers if held else {}),
            (others, self.path, self._numbers),
        ):
            rows = known_embeddings(home, numbers, some, space, fingerprint) if some else ()
            if rows is None:
                return None
            found |= dict(zip(some, rows, strict=True))
        return np.stack([found[s] for s in stimuli]) if stimuli else None

    def keep_embeddings(
        self, embeddings: Mapping[str, np.ndarray], space: EmbeddingSpace, fingerprint: str
    ) -> None:
        """Store the embeddings (*space.shape) of all stimuli, see `simulated_files`.

        Of the part ``generalisation`` those of the held-out pictures, of others of all scenes.
        """
        home, numbers = self.path, self._numbers
        if self.part == GENERALISATION:
            home, numbers = self.path / GENERALISATION, self._held_out_numbers
        keep_embeddings(home, numbers, embeddings, space, fingerprint)

    @cached_property
    def _held_out_numbers(self) -> dict[str, dict[str, int]]:
        return {"test": {s: i for i, s in enumerate(self._held_out.index)}}

    def truth(self, subject: str) -> Truth:
        """Return what is known about a participant."""
        shown, name = tuple(self._shipped_stimuli.index), self._folder(subject).name
        truth = read_truth(self.path, name, subject, shown)
        if not self.test_only:
            return truth
        what = self.path, self.part, self.task, name
        return simulated_parts.part_truth(*what, truth, self.stimuli, self.study)

    def noiseless_trials(self, subject: str) -> Trials:
        """Return one noiseless trial per test stimulus, as `load` returns noisy ones."""
        import pandas as pd

        truth, trials = self.truth(subject), self.load(subject)
        columns = {"split": "test", "repeat": 0, "session": 1, "run": 1}
        table = pd.DataFrame({"stimulus": truth.stimuli, **columns})
        same = Subject(self.name, subject, trials.subject.voxels, None, simulated=True)
        return Trials(same, truth.noiseless, trials.beta_unit, table)

    def relatives(self) -> dict[str, dict[str, str]]:
        """Return the parts that lie here, see `explorer.protocols.Dataset`."""
        return simulated_parts.relatives(self.path)

    def counterfactuals(self, n: int) -> Iterator[Counterfactual]:
        """Yield n scenes of each super-category, their objects taken out, and swapped."""
        from backends.simulation.counterfactuals import counterfactuals

        return counterfactuals(self.study.recipe.seed, n)

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
    from backends.simulation.shipping import write
    from backends.simulation.study import QUICK, Recipe, Study

    write(Study(QUICK if quick else Recipe(), cache), Path(path), progress)

"""published: looks up the embeddings that others predicted for a trial. It decodes nothing.

Predictions are saved one row a test image, each made from the average of its repeats:

- MindEye2's ``*_all_clipvoxels.pt`` (N, 256, 1664), by ascending 73k id: its retrieval branch, in
  the space of OpenCLIP ViT-bigG/14 tokens (MedARC-AI/MindEyeV2, src/recon_inference.ipynb);
- NeuralDiffuser's ``scores_all/subj01/.../nsdgeneral.npy``, in order of appearance and flattened:
  c (N, 59136) is 77 x 768, z (N, 16384) is 4 x 64 x 64, g (N, 38400) is 50 x 768 (src/score_*.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from backends.datasets.declared import FLAGS, declared, sentence
from backends.datasets.published import (
    fingerprint,
    is_array,
    open_array,
    row,
    stimuli_in_order,
    strangers,
)
from explorer.mapper import Mapper
from explorer.protocols import Dataset
from explorer.types import Card, EmbeddingSpace, Trials, UserError

CHECKED = 2**26  # bytes of a file whose rows are all checked when it is opened: our choice


class Published(Mapper):
    """The published predictions of one subject's test images.

    Parameters
    ----------
    path
        A ``.npy`` or ``.pt`` array (N, ...).
    name
        What the page calls it.
    study, subject
        Whose test images the predictions are of.
    spaces
        The spaces that can be compared with what was shown, by name.
    space
        ``model/layer`` of what was predicted: one of ``spaces``, or any other, which generators
        may accept but nothing here can compare.
    shape
        Of one embedding, e.g. ``77x768``, where rows were saved flattened.
    order, sessions
        How the rows are ordered, see `backends.datasets.published.stimuli_in_order`.
    target_caption, target_features, retrieval, best_of, tuned_on_test
        What its makers declare, see `backends.datasets.declared`; the card keeps it.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        study: Dataset,
        subject: str,
        spaces: Mapping[str, EmbeddingSpace],
        *,
        space: str = "",
        shape: str = "",
        order: str = "",
        sessions: str = "",
        target_caption: str = "",
        target_features: str = "",
        retrieval: str = "",
        best_of: str = "",
        tuned_on_test: str = "",
    ) -> None:
        said = (target_caption, target_features, retrieval, best_of, tuned_on_test)
        flags = declared(Path(path), dict(zip(FLAGS, said, strict=True)))
        path, stored = Path(path), open_array(Path(path))
        if len(stored.shape) < 2 or min(stored.shape) < 1:
            raise UserError(
                f"{path} has shape {tuple(stored.shape)}, expected predictions (N, ...), one row "
                "a test image."
            )
        target = _space(path, tuple(stored.shape[1:]), space, shape, spaces)
        stimuli = stimuli_in_order(path, len(stored), study, subject, order, sessions)
        super().__init__((target,), {})
        self.subjects = (subject,)
        self.path, self.name = path, name
        self.dataset, self.subject = study.name, subject
        shown = study.load(subject).stimuli("test")
        self.problems = strangers(stimuli, shown, name) + _undefined(stored, stimuli, path)
        self.problems.append(f"{name}: {sentence(flags)}")
        self.fingerprint = fingerprint(path)
        self._stored, self._rows = stored, {s: i for i, s in enumerate(stimuli)}
        self.card = Card(
            kind="mapper",
            name=name,
            cls="published",
            dataset=study.name,
            command=f"published results, read from {path.name}",
            licence="",
            subjects=(subject,),
            targets=(target,),
            settings={"declared": flags},
        )

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Return whether a path is a file of the kinds that hold predictions."""
        return is_array(path)

    def holds(self, stimulus: str) -> bool:
        """Return whether there is a row of a test stimulus, whatever it holds."""
        return stimulus in self._rows

    def lookup(self, stimulus: str) -> dict[EmbeddingSpace, np.ndarray]:
        """Return the published embedding float32 of the space's shape for a test stimulus."""
        if stimulus not in self._rows:
            raise UserError(
                f"{self.name} has no prediction for {stimulus}; only part of the test images was "
                "published, choose another trial."
            )
        (space,), index = self.targets, self._rows[stimulus]
        values = row(self._stored, index).astype(np.float32).reshape(space.shape)
        if not np.isfinite(values).all():
            raise UserError(f"{self.path}: row {index} (from 0) holds values that are not finite.")
        return {space: values}

    def forward(self, betas: torch.Tensor, subject: str) -> NoReturn:
        """Refuse: only `lookup` has answers."""
        raise UserError(
            f"{self.name} holds published predictions, which are looked up by trial; it cannot "
            "decode betas."
        )

    @classmethod
    def fit(
        cls,
        trials: Sequence[Trials],
        targets: Mapping[EmbeddingSpace, Mapping[str, np.ndarray]],
        *,
        seed: int,
        progress: Callable[[str], None] | None = None,
        **settings: Any,
    ) -> NoReturn:
        """Refuse: there is nothing to train."""
        raise UserError(
            "Published predictions are read, not trained; open them with: python app.py "
            "--published NAME=PATH"
        )


def _undefined(stored: Any, stimuli: Sequence[str], path: Path) -> list[str]:
    """Return what there is to say of rows that are no prediction, one sentence at most.

    Of a large file this would read gigabytes before the first trial: there each row is checked
    when it is looked up, and what counts them says how many are none.
    """
    if path.stat().st_size > CHECKED:
        return []
    wrong = [i for i in range(len(stored)) if not np.isfinite(row(stored, i)).all()]
    if not wrong:
        return []
    return [
        f"{path}: {len(wrong)} of {len(stored)} rows hold values that are not finite (first row "
        f"{wrong[0]}, from 0, of {stimuli[wrong[0]]}); those images have no prediction "
        "and count as failed."
    ]


def _space(
    path: Path,
    stored: tuple[int, ...],
    name: str,
    shape: str,
    spaces: Mapping[str, EmbeddingSpace],
) -> EmbeddingSpace:
    """Return the space that rows of shape ``stored`` lie in, by what was said of them."""
    model, _, layer = name.rpartition("/")
    if not model or not layer:
        raise UserError(
            f"{path} holds predictions of shape {stored}; say what they are of with ?space="
            f"MODEL/LAYER, found {name!r} (comparable here: {', '.join(spaces) or 'none'})."
        )
    parts = shape.split("x") if shape else [str(size) for size in stored]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise UserError(f"shape is whole numbers joined by x, such as 77x768, found {shape!r}.")
    known = spaces.get(name)
    space = known or EmbeddingSpace(model, layer, tuple(int(part) for part in parts))
    wanted = space.shape if not shape else tuple(int(part) for part in parts)
    if space.size != np.prod(stored) or space.shape != wanted:
        raise UserError(
            f"{path} holds {int(np.prod(stored))} values a row, and an embedding of {name} of "
            f"shape {wanted if not known else known.shape} has {space.size}; choose its space and "
            "shape."
        )
    return space

"""What the mappers share that learn step by step: how training is set, begun and measured."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import torch

from backends.training.plan import Course
from backends.training.rows import Batch
from explorer.mapper import Mapper
from explorer.metrics import two_way_identification
from explorer.types import EmbeddingSpace, Trials, UserError

MEASURED = 1000  # validation trials of two-way identification: the share of all pairs, near enough


class Learned(Mapper):
    """A mapper that learns by `backends.training.engine.train_network`, subjects together.

    Its ``fit`` takes its own settings by name and all others as ``**training``, for `how`: the
    fields of ``course`` that are ``settable``, and the ``options`` of `train_network`. Their names
    and the class's own defaults are shown in the signature of ``fit``, where help, command line
    and search read them.

    Attributes
    ----------
    course : Course
        How it learns unless told otherwise.
    history : dict
        How training went, for the card; a loaded mapper has an empty one.
    """

    joint = True  # several subjects make one mapper
    course: ClassVar[Course] = Course()
    settable: ClassVar[tuple[str, ...]] = (
        *("epochs", "batch", "lr", "weight_decay", "patience", "validation"),
        *("accumulate", "precision"),
    )
    options: ClassVar[Mapping[str, Any]] = {
        "device": "cpu", "run": None, "trackers": ("tensorboard",), "pictures": None
    }  # fmt: skip

    def voxel_weights(self, subject: str) -> dict[str, int]:
        """Return which tensors have an entry a voxel: those of a subject's own linear layer."""
        return {f"layers.of_{subject}.weight": 1} if hasattr(self, "layers") else {}

    def __init_subclass__(cls, **more: Any) -> None:
        """Show what ``**training`` may hold in the signature of the class's ``fit``."""
        super().__init_subclass__(**more)
        if "fit" not in vars(cls):
            return
        shown = {name: getattr(cls.course, name) for name in cls.settable} | cls.options
        fit = vars(cls)["fit"].__func__
        own = inspect.signature(fit)
        named = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        keyword = inspect.Parameter.KEYWORD_ONLY
        added = [inspect.Parameter(name, keyword, default=z) for name, z in shown.items()]
        fit.__signature__ = own.replace(parameters=[*named, *added])

    def __init__(
        self, targets: Sequence[EmbeddingSpace], voxels: Mapping[str, int], **settings: Any
    ) -> None:
        super().__init__(targets, voxels, **settings)
        self.history: dict[str, Any] = {}

    @classmethod
    def how(
        cls, seed: int, progress: Any, training: Mapping[str, Any]
    ) -> tuple[Course, dict[str, Any]]:
        """Return the course and the options of `train_network` that ``fit`` was given."""
        for name in training:
            if name not in cls.settable and name not in cls.options:
                raise TypeError(f"{cls.__name__}.fit() has no setting {name!r}")
        asked = {name: z for name, z in training.items() if name in cls.settable}
        options = {name: training.get(name, z) for name, z in cls.options.items()}
        return replace(cls.course, seed=seed, **asked), options | {"progress": progress}

    @classmethod
    def begin(
        cls,
        seed: int,
        trials: Sequence[Trials],
        targets: Iterable[EmbeddingSpace],
        *settings: Any,
        **named: Any,
    ) -> Self:
        """Return a mapper whose first weights ``seed`` decides, with the voxels' statistics set.

        ``settings`` and ``named`` are the constructor's own arguments.
        """
        voxels = {one.subject.name: one.subject.voxels.n_voxels for one in trials}
        with seeded(seed):
            mapper = cls(tuple(targets), voxels, *settings, **named)
        for one in trials:
            mapper.set_statistics(one)
        return mapper

    @classmethod
    def source(cls, folder: str, targets: Mapping[EmbeddingSpace, Any]) -> Self:
        """Return the checkpoint that learning begins at, once it gives these very targets."""
        source = cls.from_pretrained(folder)
        if source.targets != tuple(targets):
            raise UserError(
                f"The mapper in {folder} gives {', '.join(s.name for s in source.targets)}, asked "
                f"for were {', '.join(s.name for s in targets)}; name the same spaces in the same "
                "order."
            )
        return source

    def put(self, name: str, values: np.ndarray | torch.Tensor) -> None:
        """Set a buffer or a parameter by its name."""
        getattr(self, name).data.copy_(torch.as_tensor(values))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw first weights by a seed, and leave torch's randomness as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def disturbed(
    voxels: torch.Tensor, batch: Batch, subject: str, voxel_dropout: float, noise: float
) -> torch.Tensor:
    """Return standardised voxels (n, V) of a subject's trials as training shows them.

    A share of the voxels is silent in each trial of an epoch, and noise of this standard deviation
    is added; a validation batch stays as it is.
    """
    if batch.training and voxel_dropout:
        kept = batch.random("voxel dropout", voxels.shape[1:], subject) >= voxel_dropout
        voxels = voxels * kept / (1 - voxel_dropout)
    if batch.training and noise:
        # uniform numbers of this SD do as well as normal ones and are drawn faster
        drawn = batch.random("noise", voxels.shape[1:], subject)
        voxels = voxels + noise * 12**0.5 * (drawn - 0.5)
    return voxels


def identified(
    found: Iterable[tuple[EmbeddingSpace, torch.Tensor, torch.Tensor]],
) -> dict[str, float]:
    """Return figures for trackers: two-way identification of validation trials, chance 0.5.

    ``found``: each space with predictions (n, ...) and the true embeddings (n, ...).
    """
    return {
        f"validation two-way identification, {space.name}": float(
            two_way_identification(
                z[:MEASURED].flatten(1).numpy(), goals[:MEASURED].flatten(1).numpy()
            )
        )
        for space, z, goals in found
    }

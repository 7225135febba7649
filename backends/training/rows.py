"""What mappers learn from: the training rows of one or several subjects, and batches of them."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.types import EmbeddingSpace, Trials, UserError

if TYPE_CHECKING:
    import torch

Outputs = Mapping[Any, "torch.Tensor"]


class TrialRows:
    """The training rows of one or several subjects and what they should become.

    Betas stay where they are and are read by rows. A sample is a training row of a subject;
    samples are numbered subject after subject, in the order of the rows. A subject's synthetic
    rows, if any, are samples too, but are never held out.

    Parameters
    ----------
    trials
        One entry a subject.
    targets
        Space -> stimulus -> embedding of the space's shape, for every training stimulus; empty
        where nothing but the betas is learned from.
    """

    def __init__(
        self,
        trials: Sequence[Trials],
        targets: Mapping[EmbeddingSpace, Mapping[str, np.ndarray]] | None = None,
    ) -> None:
        from backends.training.goals import stack

        self.trials = {one.subject.name: one for one in trials}
        rows = {name: one.rows("train") for name, one in self.trials.items()}
        for name, found in rows.items():
            if not len(found):
                raise UserError(f"{name} has no training trials; a mapper learns from those.")
            if self.trials[name].table["stimulus"].iloc[found].nunique() < 2:
                raise UserError(
                    f"{name} has {len(found)} training trial(s) of one stimulus, too few to learn "
                    "from; leave that subject out, or mark more of its trials as train."
                )
        extra = {name: one.synthetic() for name, one in self.trials.items()}
        rows = {name: np.concatenate([found, extra[name]]) for name, found in rows.items()}
        self.rows = np.concatenate(list(rows.values()))
        self.subject = np.repeat(np.arange(len(rows)), [len(r) for r in rows.values()])
        self.measured = np.concatenate([~np.isin(rows[name], extra[name]) for name in rows])
        every = [one.table["stimulus"].iloc[rows[n]].to_numpy() for n, one in self.trials.items()]
        self.names, self.stimulus = np.unique(np.concatenate(every), return_inverse=True)
        repeats = [one.table["repeat"].iloc[rows[n]].to_numpy() for n, one in self.trials.items()]
        # a study with too few stimuli is split by repeat, so repeats are what can be held out
        shared = any(set(self.names) & set(one.stimuli("test")) for one in trials)
        self.group = np.concatenate(repeats) if shared else self.stimulus
        self.goals = {
            space: stack(space, found, self.names).reshape(-1, *space.shape)
            for space, found in (targets or {}).items()
        }

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.rows)

    def split(self, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the samples to learn from and those held out, all trials of a stimulus together.

        A stimulus that is held out for one subject is held out for all. ``share`` is that of the
        stimuli (of the repeats, where train and test share stimuli), at least one.
        """
        if not share:
            return np.arange(len(self)), np.arange(0)
        groups = np.unique(self.group[self.measured])
        count = max(1, round(share * len(groups)))
        if count >= len(groups):
            raise UserError(
                f"validation={share:g} of {len(groups)} training stimuli (or repeats) leaves none "
                "to learn from; choose a smaller share, or validation=0."
            )
        chosen = np.random.default_rng([seed, len(groups)]).permutation(groups)[:count]
        held_out = np.isin(self.group, chosen) & self.measured
        return np.flatnonzero(~held_out), np.flatnonzero(held_out)

    def fingerprint(self) -> str:
        """Return a short hash of which trials of which voxels are learned from, and to what."""
        digest = hashlib.sha256(" ".join(self.names).encode())
        for array in (self.rows, self.subject, self.stimulus):
            digest.update(np.ascontiguousarray(array, dtype=np.int64).tobytes())
        for one in self.trials.values():
            digest.update(f"{one.subject.name} {one.subject.voxels.hash}".encode())
        for space, goals in self.goals.items():
            some = goals[:: max(1, len(goals) // 64)].contiguous()  # all can be gigabytes
            digest.update(f"{space}".encode() + some.numpy().tobytes())
        return digest.hexdigest()[:16]


class Batch:
    """Some samples of `TrialRows`; betas and goals are read when they are asked for.

    ``samples`` int (n,); ``epoch`` from 0; ``training`` is False for validation, where nothing may
    be random.
    """

    def __init__(
        self,
        data: TrialRows,
        samples: np.ndarray,
        *,
        epoch: int = 0,
        seed: int = 0,
        training: bool = False,
        device: str | torch.device = "cpu",
    ) -> None:
        self.data, self.samples, self.epoch = data, samples, epoch
        self.seed, self.training, self.device = seed, training, device

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.samples)

    @cached_property
    def places(self) -> dict[str, np.ndarray]:
        """Subject -> int (n_s,), where in the batch that subject's samples are; none is empty."""
        owner = self.data.subject[self.samples]
        found = {name: np.flatnonzero(owner == i) for i, name in enumerate(self.data.trials)}
        return {name: places for name, places in found.items() if len(places)}

    @cached_property
    def betas(self) -> dict[str, torch.Tensor]:
        """Subject -> float32 (n_s, V), in the data's own unit."""
        import torch

        found = {}
        for name, places in self.places.items():
            rows = self.data.rows[self.samples[places]]
            order = np.argsort(rows)  # files are read forwards
            read = np.asarray(self.data.trials[name].betas[rows[order]], np.float32)
            betas = np.empty_like(read)
            betas[order] = read
            found[name] = torch.from_numpy(betas).to(self.device)
        return found

    @cached_property
    def stimuli(self) -> torch.Tensor:
        """int64 (n,): equal numbers are one stimulus, also across subjects."""
        import torch

        return torch.from_numpy(self.data.stimulus[self.samples]).to(self.device)

    @cached_property
    def goals(self) -> dict[EmbeddingSpace, torch.Tensor]:
        """Space -> float32 (n, *shape)."""
        rows = self.stimuli.cpu()
        return {space: z[rows].to(self.device) for space, z in self.data.goals.items()}

    def merge(self, parts: Mapping[str, Outputs]) -> dict[Any, torch.Tensor]:
        """Return outputs (n, ...) in the order of the batch from those of each subject."""
        import torch

        back = torch.from_numpy(np.argsort(np.concatenate([self.places[name] for name in parts])))
        back = back.to(self.device)
        keys = next(iter(parts.values()))
        return {key: torch.cat([part[key] for part in parts.values()])[back] for key in keys}

    def random(self, purpose: str, shape: Sequence[int], subject: str = "") -> torch.Tensor:
        """Return uniform numbers in [0, 1), float32 (n, *shape), or for one subject's samples.

        They depend on seed, epoch, sample and purpose alone: not on the batch that a sample is in,
        nor on the process that computes it.
        """
        import torch

        chosen = self.samples[self.places[subject]] if subject else self.samples
        word = zlib.crc32(purpose.encode())
        drawn = [
            np.random.default_rng([self.seed, self.epoch, sample, word]).random(shape, np.float32)
            for sample in chosen
        ]
        return torch.from_numpy(np.stack(drawn)).to(self.device)

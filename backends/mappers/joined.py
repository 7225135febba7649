"""joined: encoders that were trained apart, one for each space, as one decoder.

NeuralDiffuser (Li et al. 2023; HaoyyLi/NeuralDiffuser) trains eight: text context c, latents z and
CLIP's layers g_2, g_4 ... g_12. Each has its own layer of each subject. Made by
``python -m backends import-checkpoint``, not trained here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, Self

import numpy as np
import torch
from torch import nn

from backends.mappers.parts.voxel2sd import LowLevel
from explorer.mapper import Mapper
from explorer.types import EmbeddingSpace, Trials, UserError, resolve

LOW_LEVEL = "low-level"  # a member that is no mapper


class Joined(Mapper):
    """Several encoders of the same subjects; each gives its own targets.

    Parameters
    ----------
    targets, voxels
        See `Mapper`; the targets of the members one after the other.
    members
        For each: ``cls`` (of ``MAPPERS``, or `LOW_LEVEL`), how many ``targets`` it has, and its
        ``architecture``.
    """

    def __init__(
        self,
        targets: Sequence[EmbeddingSpace],
        voxels: Mapping[str, int],
        members: Sequence[Mapping[str, Any]],
    ) -> None:
        super().__init__(targets, voxels, members=[dict(one) for one in members])
        if len({space.name for space in self.targets}) != len(self.targets):
            raise UserError(
                "Two encoders give the same space, of "
                f"{', '.join(space.name for space in self.targets)}; join each space once."
            )
        self.members, rest = nn.ModuleList(), list(self.targets)
        for one in members:
            mine, rest = rest[: one["targets"]], rest[one["targets"] :]
            self.members.append(_member(one, mine, voxels))

    @classmethod
    def of(
        cls, voxels: Mapping[str, int], parts: Sequence[tuple[Mapping[str, Any], nn.Module]]
    ) -> Self:
        """Return the decoder of made encoders, each with what the constructor is told of it."""
        spaces = [space for _, module in parts for space in spaces_of(module)]
        with torch.device("meta"):  # the made ones take their places
            made = cls(spaces, voxels, [about for about, _ in parts])
        for subject, count in voxels.items():
            made.register_buffer(f"mean_{subject}", torch.zeros(count))
            made.register_buffer(f"sd_{subject}", torch.ones(count))
        made.members = nn.ModuleList(module for _, module in parts)
        return made.eval()

    def forward(self, betas: torch.Tensor, subject: str) -> dict[EmbeddingSpace, torch.Tensor]:
        """Return raw embeddings (n, ...) per target for betas (n, V) in the data's own unit."""
        voxels = self.standardise(betas, subject)
        found: dict[EmbeddingSpace, torch.Tensor] = {}
        for member in self.members:
            found |= member(voxels, subject)
        return found

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
        """Refuse: its members are trained, each by itself."""
        raise UserError(
            "A joined decoder is made of trained encoders, not trained: python -m backends "
            "import-checkpoint FILE --also FILE=MODEL/LAYER --convert"
        )


def spaces_of(member: nn.Module) -> tuple[EmbeddingSpace, ...]:
    """Return what a member gives."""
    return (member.space,) if isinstance(member, LowLevel) else member.targets


def _member(
    about: Mapping[str, Any], targets: Sequence[EmbeddingSpace], voxels: Mapping[str, int]
) -> nn.Module:
    from backends import MAPPERS

    if about["cls"] == LOW_LEVEL:
        return LowLevel(targets[0], voxels, **about["architecture"])
    return resolve(MAPPERS[about["cls"]])(targets, voxels, **about["architecture"])

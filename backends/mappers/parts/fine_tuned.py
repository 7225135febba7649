"""What follows MinD-Vis' and NeuroLens' fMRI encoder in ``finetuned.pth``: tokens -> context.

Two convolutions of one token's width over the sequence (``channel_mapper``), then a linear layer
over the width (``dim_mapper``; zjc062/mind-vis, code/dc_ldm/ldm_for_fmri.py). Nothing bends
between the convolutions, so they are one matrix and one offset.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch

from backends.mappers.parts.foreign import shape_of
from explorer.types import Trials, UserError

STAGE = "cond_stage_model."
NAMES = [
    f"{STAGE}{layer}.{kind}"
    for layer in ("channel_mapper.0", "channel_mapper.1", "dim_mapper")
    for kind in ("weight", "bias")
]


class ToContext(NamedTuple):
    """Tokens (L, W) -> context (Q, D): ``(mix @ tokens + offset[:, None]) @ weight.T + bias``.

    ``mix`` (Q, L), ``offset`` (Q,), ``weight`` (D, W), ``bias`` (D,).
    """

    mix: torch.Tensor
    offset: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor


def to_context(state: Mapping[str, torch.Tensor]) -> ToContext:
    """Return what makes a context of tokens, of a file's ``model_state_dict``."""
    if missing := [name for name in NAMES if name not in state]:
        raise UserError(
            f"The file lacks {', '.join(missing)}, so its encoder's tokens become no context; it "
            "was trained with global pooling, or is damaged."
        )
    kept = {name: state[name].detach().double() for name in NAMES}
    first, begin, second, end, weight, bias = (kept[name] for name in NAMES)
    shapes = [shape_of(kept, NAMES[i], n) for i, n in ((0, 3), (2, 3), (4, 2))]
    (half, _, one), (number, also, other), (values, _) = shapes
    fits = half == also and one == other == 1 and begin.shape == (half,) and end.shape == (number,)
    if not fits or bias.shape != (values,):
        raise UserError(
            f"{', '.join(NAMES)} do not belong together: they have the shapes "
            f"{', '.join(str(tuple(kept[name].shape)) for name in NAMES)}; copy the file again."
        )
    mix = second[..., 0] @ first[..., 0]
    offset = second[..., 0] @ begin + end
    return ToContext(*(part.float() for part in (mix, offset, weight, bias)))


def wrapped(trials: Trials, patches: int, patch: int) -> np.ndarray:
    """Return int32 (L * patch,): the voxel at each place, which begins anew after the last.

    As published, at least one place and at most a whole patch is filled so (code/dataset.py,
    pad_to_patch_size).
    """
    count, places = trials.subject.voxels.n_voxels, patches * patch
    if not 0 < places - count <= patch:
        raise UserError(
            f"The file reads {patches} patches of {patch} voxels, so its participant had "
            f"{places - patch} to {places - 1}, and {trials.subject.dataset}/"
            f"{trials.subject.name} has {count}; name the data and participant it was trained on."
        )
    return (np.arange(places) % count).astype(np.int32)


def statistics(trials: Trials, order: np.ndarray) -> tuple[float, float]:
    """Return one mean and standard deviation of all training betas at the places of ``order``."""
    rows = trials.rows("train")
    if not len(rows):
        raise UserError(
            f"{trials.subject.dataset}/{trials.subject.name} has no training trial, whose mean "
            "and SD the published training standardised by."
        )
    values = np.asarray(trials.betas[rows], dtype=np.float64)[:, order]
    mean, sd = float(values.mean()), float(values.std())
    if not np.isfinite(mean) or not sd > 0:
        raise UserError(
            f"The training betas of {trials.subject.dataset}/{trials.subject.name} have the mean "
            f"{mean:g} and the SD {sd:g}, by which nothing can be standardised."
        )
    return mean, sd

"""Which voxels, and which parcels, one decoded trial rests on.

Attributions are of the raw betas in units of the subject's training standard deviation (gradient
times that deviation), so that a voxel with a large scale does not look unimportant. They describe
what this decoder uses, not what the brain uses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from explorer.brain.parcels import UNASSIGNED
from explorer.request import METHODS
from explorer.types import EmbeddingSpace, Parcellation, UserError

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from explorer.mapper import Mapper

Target = Callable[["torch.Tensor"], "torch.Tensor"]
"""Raw predictions (n, ...) -> what to explain, one number a trial (n,), of that trial alone."""

# Of the retrieval margin: CLIP's initial value, Radford et al. 2021, arXiv 2103.00020.
TEMPERATURE = 0.07
NODES = 32  # of Gauss-Legendre along the path of integrated gradients; see `completeness_error`
INCOMPLETE = 0.05  # relative; above it a map of integrated gradients lacks a part worth saying
ROWS_AT_ONCE = 100  # trials whose attributions are in double precision at a time
SMALL = 10  # voxels; fewer make a mean per voxel too noisy to read (our choice)


def retrieval_margin(
    gallery: np.ndarray | torch.Tensor,
    index: int | Sequence[int] | np.ndarray,
    temperature: float = TEMPERATURE,
) -> Target:
    """Return the target ``z_true - logsumexp(z_others)``, the log odds of the shown image.

    ``z`` is the cosine between prediction and gallery item divided by ``temperature``. The chance
    level, when all items are equally similar, is ``-log(N - 1)``.

    Parameters
    ----------
    gallery
        (N, ...) embeddings of the N >= 2 candidates; scaled to unit norm here.
    index
        Row of the shown image: one for all trials, or one for each.
    """
    import torch

    with _plain_autograd():
        items = torch.as_tensor(gallery).detach().float().flatten(1)
        items = torch.nn.functional.normalize(items, dim=1)
    rows = np.atleast_1d(np.asarray(index))
    if len(items) < 2 or rows.dtype.kind not in "iu":
        raise UserError(
            f"A retrieval margin needs at least 2 candidates and whole numbers that point at the "
            f"shown ones, found {len(items)} candidates and {rows.dtype} numbers."
        )
    if rows.min() < 0 or rows.max() >= len(items):
        raise UserError(
            f"The shown image has row {rows.min() if rows.min() < 0 else rows.max()} of a gallery "
            f"of {len(items)}; rows go from 0 to {len(items) - 1}."
        )
    if not temperature > 0:
        raise UserError(f"The temperature is a positive number, found {temperature}.")

    def margin(prediction: torch.Tensor) -> torch.Tensor:
        unit = torch.nn.functional.normalize(prediction.flatten(1), dim=1)  # (n, D)
        z = unit @ items.to(unit.device).T / temperature  # (n, N)
        true = torch.as_tensor(rows, device=z.device).long().expand(len(z))[:, None]
        others = z.scatter(1, true, -torch.inf)
        return z.gather(1, true)[:, 0] - others.logsumexp(dim=1)

    return margin


def fixed_direction(direction: np.ndarray | torch.Tensor) -> Target:
    """Return the target ``prediction . w / |w|``, the raw prediction along a fixed direction.

    ``direction`` w has the space's shape, or a leading axis with one direction a trial; a natural
    one is the shown image's embedding. For a linear mapper gradient x input then sums to the
    prediction along w, less its intercept: a closed form.
    """
    import torch

    with _plain_autograd():
        w = torch.as_tensor(direction).detach().float()
    if not w.isfinite().all() or not w.any():
        raise UserError("A fixed direction needs finite numbers that are not all zero.")

    def along(prediction: torch.Tensor) -> torch.Tensor:
        if w.shape not in (prediction.shape, prediction.shape[1:]):
            raise UserError(
                f"The direction has shape {tuple(w.shape)}, predictions "
                f"{tuple(prediction.shape)}; give one direction, or one a trial, of "
                "that space."
            )
        rows = w.to(prediction.device).expand_as(prediction).flatten(1)
        return (prediction.flatten(1) * torch.nn.functional.normalize(rows, dim=1)).sum(dim=1)

    return along


@dataclass(frozen=True, eq=False)
class LogLikelihood:
    """The target ``log p(embedding | betas)`` in nats, of a mapper that gives a density.

    Such a mapper has ``log_prob(betas, embedding, subject, space=...)``, differentiable to the
    betas. ``embedding`` (n, ...): what was shown in each trial, raw.
    """

    embedding: np.ndarray

    def of(
        self, mapper: Mapper, betas: torch.Tensor, subject: str, space: EmbeddingSpace
    ) -> torch.Tensor:
        """Return one number a trial (n,)."""
        import torch

        shown = torch.as_tensor(self.embedding).to(betas)
        return mapper.log_prob(betas, shown, subject, space=space)


def attribute(
    mapper: Mapper,
    betas: np.ndarray | torch.Tensor,
    subject: str,
    target: Target | LogLikelihood,
    method: str = "gradient",
    *,
    space: EmbeddingSpace | None = None,
) -> np.ndarray:
    """Return the attribution of ``target`` to every voxel, float32 (n, V), signed.

    With mean m and standard deviation s of the training betas: "gradient" is ``s * dF/dbeta``;
    "gradient x input" is ``(beta - m) * dF/dbeta``, whose zero is the average response, not "no
    brain"; "integrated gradients" is ``(beta - m)`` times the mean of dF/dbeta on the straight way
    from m to the betas, by captum, and sums to ``F(beta) - F(m)`` but for `completeness_error`.
    One forward and one backward pass in fp32 and eval mode, or one a node of the path; a row never
    depends on the others.

    Parameters
    ----------
    mapper
        A `Mapper`; its weights get no gradient.
    betas
        (n, V) in the data's own unit.
    subject
        Whose voxels they are.
    target
        What to explain: of the prediction, e.g. from `retrieval_margin`, or `LogLikelihood`.
    method
        One of `explorer.request.METHODS`.
    space
        Which of the mapper's outputs the target reads; the first by default.

    References
    ----------
    Simonyan et al. 2013, arXiv 1312.6034 (gradient); Shrikumar et al. 2016, arXiv 1605.01713;
    Sundararajan et al. 2017, arXiv 1703.01365 (integrated gradients).
    """
    import torch

    if method not in METHODS:
        raise UserError(f"method is one of {', '.join(METHODS)}, found {method!r}.")
    space = mapper.targets[0] if space is None else space
    mean, sd = mapper.statistics(subject)
    explain = _explained(mapper, subject, target, space)
    with _plain_autograd(), torch.autocast(mean.device.type, enabled=False), _evaluating(mapper):
        rows = _rows(betas, mean)
        if method == METHODS[2]:
            from captum.attr import IntegratedGradients

            # One node of the path a pass, as a target may know which row is which trial.
            attributed = IntegratedGradients(explain).attribute(
                rows, mean[None], n_steps=NODES, internal_batch_size=len(rows)
            )
        else:
            rows.requires_grad_()
            (gradient,) = torch.autograd.grad(explain(rows).sum(), rows)
            attributed = gradient * (sd if method == METHODS[0] else rows.detach() - mean)
        out = attributed.detach().float().cpu().numpy()
    if not np.isfinite(out).all():
        trial = int(np.flatnonzero(~np.isfinite(out).all(axis=1))[0])
        raise UserError(
            f"The gradient of trial {trial + 1} of {len(out)} is not finite, so this mapper "
            "cannot be explained there; check its weights."
        )
    return out


def completeness_error(
    mapper: Mapper,
    betas: np.ndarray | torch.Tensor,
    subject: str,
    target: Target | LogLikelihood,
    attribution: np.ndarray,
    *,
    space: EmbeddingSpace | None = None,
) -> np.ndarray:
    """Return how far attributions (n, V) are from complete, float64 (n,), 0 is exact.

    ``|sum of a - (F(beta) - F(m))| / |F(beta) - F(m)|`` with m the training mean; integrated
    gradients are complete up to the steps of the path (Sundararajan et al. 2017). Other arguments
    as in `attribute`.
    """
    import torch

    mean, _ = mapper.statistics(subject)
    space = mapper.targets[0] if space is None else space
    explain = _explained(mapper, subject, target, space)
    with torch.no_grad(), torch.autocast(mean.device.type, enabled=False), _evaluating(mapper):
        rows = _rows(betas, mean)
        change = (explain(rows) - explain(mean.expand_as(rows))).double().cpu().numpy()
    missed = np.abs(np.asarray(attribution, dtype=np.float64).sum(axis=1) - change)
    return missed / np.maximum(np.abs(change), np.finfo(np.float32).tiny)


def is_flat(attribution: np.ndarray) -> np.ndarray:
    """Return bool (...): whether an attribution (..., V) is all zeros and explains nothing."""
    return ~np.any(attribution, axis=-1)


def mean_map(attribution: np.ndarray) -> np.ndarray:
    """Return float64 (V,): each trial's share of abs(a) per voxel, averaged over trials (n, V).

    Every trial counts the same, however steep its target was; flat trials are left out. Sums to 1;
    NaN throughout when all trials are flat.
    """
    total, counted = np.zeros(np.shape(attribution)[1]), 0
    for begin in range(0, len(attribution), ROWS_AT_ONCE):
        rows = np.abs(np.asarray(attribution[begin : begin + ROWS_AT_ONCE], dtype=np.float64))
        rows = rows[~is_flat(rows)]
        total += (1 / rows.sum(axis=1)) @ rows
        counted += len(rows)
    return total / counted if counted else np.full(len(total), np.nan)


def parcel_statistics(
    attribution: np.ndarray, parcellation: Parcellation
) -> dict[str, np.ndarray]:
    """Return per trial and parcel what `per_parcel` tabulates, float64 (n, n_labels + 1) each.

    Keys ``share``, ``mean``, ``enrichment`` and ``signed``; the last column is (unassigned).
    """
    rows = np.atleast_2d(attribution)
    if rows.shape[1] != parcellation.n_voxels:
        raise UserError(
            f"Atlas {parcellation.name!r} covers {parcellation.n_voxels} voxels, the attribution "
            f"has {rows.shape[1]}; both must be of one voxel space."
        )
    masks = parcellation.masks().T.astype(np.float64)  # (V, L + 1)
    voxels = masks.sum(axis=0)
    voxels[voxels == 0] = np.nan  # an empty parcel has no value, rather than 0
    total = np.empty((len(rows), 1))
    summed, signed = np.empty((2, len(rows), len(voxels)))
    for begin in range(0, len(rows), ROWS_AT_ONCE):  # in double precision, a few at a time
        some = slice(begin, begin + ROWS_AT_ONCE)
        part = np.asarray(rows[some], dtype=np.float64)
        signed[some] = part @ masks
        size = np.abs(part)
        total[some, 0] = size.sum(axis=1)
        summed[some] = size @ masks
    total[total == 0] = np.nan  # a flat gradient has no shares
    share = np.where(np.isnan(voxels), np.nan, summed / total)
    return {
        "share": share,
        "mean": summed / voxels,
        "enrichment": share / (voxels / rows.shape[1]),
        "signed": np.where(np.isnan(voxels), np.nan, signed),
    }


def per_parcel(attribution: np.ndarray, parcellation: Parcellation) -> pd.DataFrame:
    """Tabulate an attribution (V,), or the average over trials of (n, V), by parcel.

    Returns
    -------
    DataFrame
        One row a label in the atlas's order, then (unassigned): ``parcel`` (`Label.key`),
        ``name``, ``hemisphere``, ``voxels``; ``share`` of all abs(a) (0 to 1, grows with the
        parcel's size; sums to 1 over a partition, not over overlapping masks), ``mean`` abs(a)
        per voxel (noisy in small parcels), ``enrichment`` = share / share of voxels (1 is no
        preference), ``signed`` sum of a; ``small``: fewer than 10 voxels. A parcel without voxels
        has NaN, and so have share and enrichment of a flat attribution; with several trials the
        flat ones are left out of both.
    """
    import pandas as pd

    statistics = parcel_statistics(attribution, parcellation)
    flat = np.isnan(statistics["share"]).all(axis=1)
    labels = parcellation.labels
    voxels = parcellation.masks().sum(axis=1)
    columns = {
        "parcel": [label.key for label in labels] + [UNASSIGNED],
        "name": [label.name for label in labels] + [UNASSIGNED],
        "hemisphere": [label.hemisphere for label in labels] + [""],
        "voxels": voxels,
    }
    for measure in ("share", "mean", "enrichment", "signed"):
        values = statistics[measure]
        if measure in ("share", "enrichment") and not flat.all():
            values = values[~flat]
        columns[measure] = values.mean(axis=0)
    return pd.DataFrame({**columns, "small": voxels < SMALL})


def _rows(betas: np.ndarray | torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Return a float32 copy of betas (n, V) beside ``mean``; not finite ones raise `UserError`."""
    import torch

    rows = torch.as_tensor(betas).detach().to(mean.device, torch.float32, copy=True)
    if not rows.isfinite().all():
        bad = int((~rows.isfinite()).sum())
        raise UserError(
            f"{bad} of {rows.numel()} betas are not finite; leave those voxels or trials out."
        )
    return rows


def _explained(
    mapper: Mapper, subject: str, target: Target | LogLikelihood, space: EmbeddingSpace
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return betas (n, V) -> the target (n,), which must have that shape and a gradient."""
    import torch

    def explain(rows: torch.Tensor) -> torch.Tensor:
        if isinstance(target, LogLikelihood):
            found = target.of(mapper, rows, subject, space)
        else:
            found = target(mapper(rows, subject)[space])
        if found.shape != (len(rows),):
            raise TypeError(
                f"a target returns one number a trial, shape ({len(rows)},), this one "
                f"{tuple(found.shape)}"
            )
        if torch.is_grad_enabled() and rows.requires_grad and not found.requires_grad:
            raise TypeError(
                f"{type(mapper).__name__}.forward cut the gradient to the betas (no_grad, detach "
                "or numpy inside); importance needs a differentiable mapper"
            )
        return found

    return explain


@contextlib.contextmanager
def _plain_autograd() -> Iterator[None]:
    """Record gradients whatever mode the caller is in."""
    import torch

    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextlib.contextmanager
def _evaluating(mapper: Mapper) -> Iterator[None]:
    """Hold a mapper in eval mode: dropout and batch statistics make trials depend on luck."""
    training = mapper.training
    if training:
        mapper.eval()
    try:
        yield
    finally:
        if training:
            mapper.train()

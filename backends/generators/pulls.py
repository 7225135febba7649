"""Pictures pulled towards something while they are drawn: decoded features, or betas.

A denoiser's prediction says which clean picture is expected, x̂0, and the gradient of a loss of
that picture with respect to the noisy latents changes the prediction before the scheduler makes
its step (`guided`; Dhariwal & Nichol 2021, arXiv 2105.05233; on x̂0: Chung et al. 2023, arXiv
2209.14687).

Libraries are imported where they are used: options are read without any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from explorer.protocols import Condition
from explorer.types import EmbeddingSpace, UserError

if TYPE_CHECKING:
    import torch

    from backends.encoders.gnet import GNet
    from backends.encoders.voxelwise import Encoding

    # pixels (n, 3, H, W) in about -1 ... 1 -> one number a picture (n,), differentiable
    Loss = Callable[[torch.Tensor], torch.Tensor]
    # a space -> what computes it, differentiably, from such pixels
    Features = Mapping[EmbeddingSpace, Callable[[torch.Tensor], torch.Tensor]]

FEWEST_VOXELS = 10  # whose correlation says anything: our choice


@dataclass(frozen=True, eq=False)
class Pull:
    """Something that pictures are pulled towards: down the gradient of ``loss``.

    ``kappa``: the length of the pull, as a share of the prediction's own length. ``share``: in
    which part of the steps it acts, counted from the noisy end.
    """

    loss: Loss
    kappa: float
    share: float

    def acts(self, step: int, steps: int) -> bool:
        """Return whether it acts in a step, 1-based."""
        return self.kappa > 0 and step <= round(self.share * steps)


def guided(
    latents: torch.Tensor,
    predict: Callable[[torch.Tensor], torch.Tensor],
    clean: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    decode: Callable[[torch.Tensor], torch.Tensor],
    pulls: Sequence[Pull],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a prediction (n, ...) with its pulls, and the clean latents that it then expects.

    ``prediction + kappa * |prediction| * g / |g|`` with ``g`` the gradient of the loss of x̂0 with
    respect to the noisy latents, through the denoiser. Lengths are of a row, so a row never
    depends on the others. The gradient's own length is not used: it differs by orders of magnitude
    between noise levels and networks (published scales are 300,000), its direction does not.

    Parameters
    ----------
    latents
        (n, ...), noisy.
    predict
        Noisy latents -> noise or velocity, with classifier-free guidance.
    clean
        Noisy latents and prediction -> x̂0; for noise ``(x - sqrt(1 - a) * eps) / sqrt(a)`` with
        ``a`` the scheduler's cumulative product, for a rectified flow ``x - sigma * velocity``.
        It must fall as the prediction rises, as both do.
    decode
        Clean latents -> pixels (n, 3, H, W) in about -1 ... 1.
    pulls
        Each with its own gradient.
    """
    import torch

    with torch.enable_grad():
        noisy = latents.detach().requires_grad_()
        prediction = predict(noisy)
        pixels = decode(clean(noisy, prediction))
        gradients = [
            torch.autograd.grad(pull.loss(pixels).sum(), noisy, retain_graph=True)[0]
            for pull in pulls
        ]
    plain = prediction.detach()
    pulled = plain
    for pull, gradient in zip(pulls, gradients, strict=True):
        length = _norm(gradient)
        direction = torch.where(length > 0, gradient / length.clamp_min(1e-30), 0)
        pulled = pulled + pull.kappa * _norm(plain) * direction
    return pulled, clean(latents, pulled)


def towards_features(
    features: Features,
    targets: Mapping[EmbeddingSpace, torch.Tensor],
    weights: Mapping[EmbeddingSpace, float],
) -> Loss:
    """Return the loss of pictures whose features should be the decoded ones (n, *shape).

    The mean of the layers' errors by their weights: ``1 - cosine`` in a space of unit norm, else
    the squared error over the target's squared length, so that layers with large numbers do not
    outweigh others (Li et al., NeuralDiffuser, divides by the length too).
    """
    import torch

    used = [space for space in targets if space in features and weights.get(space, 0) > 0]
    if not used:
        raise UserError(
            f"Feature guidance needs a weight above 0 for one of the decoded layers, which are "
            f"{', '.join(space.name for space in targets if space in features) or 'none'}."
        )
    total = sum(weights[space] for space in used)

    def loss(pixels: torch.Tensor) -> torch.Tensor:
        error = 0
        for space in used:
            found, target = features[space](pixels).flatten(1), targets[space].flatten(1)
            if space.unit_norm:
                one = 1 - torch.nn.functional.cosine_similarity(found, target)
            else:
                one = (found - target).square().sum(1) / target.square().sum(1)
            error = error + weights[space] / total * one
        return error

    return loss


def towards_betas(
    features: Features, conditions: Sequence[Condition], encoders: Sequence[Encoding | GNet]
) -> Loss:
    """Return the loss of pictures that should evoke the measured betas, one condition a picture.

    ``1 - Pearson correlation`` over the condition's voxels (all where it names none) of measured
    and predicted betas, both in units of a voxel's standard deviation around its training mean, as
    elsewhere in the app. ``encoders``: the encoding model of each condition's subject.
    """
    import torch

    features = _readable(features)
    spaces = {space for encoder in encoders for space in encoder.spaces}
    goals = [_measured(one, encoder) for one, encoder in zip(conditions, encoders, strict=True)]

    def loss(pixels: torch.Tensor) -> torch.Tensor:
        found = {space: features[space](pixels) for space in spaces}
        errors = []
        for i, (encoder, (measured, chosen)) in enumerate(zip(encoders, goals, strict=True)):
            betas = encoder({space: found[space][i : i + 1] for space in encoder.spaces})
            z = ((betas - encoder.intercept) / encoder.voxel_sd)[0, chosen]
            pair = torch.stack([z - z.mean(), measured - measured.mean()])
            errors.append(1 - torch.nn.functional.cosine_similarity(pair[:1], pair[1:]))
        return torch.cat(errors)

    return loss


def load_encoder(
    condition: Condition, checkpoints: Path, features: Features, device: str
) -> Encoding | GNet:
    """Return the encoding model of a condition's subject; `UserError` where guidance lacks one."""
    from backends.encoders.gnet import GNet
    from backends.encoders.voxelwise import Encoding
    from explorer.mapper import read_card

    subject, betas = condition.subject, condition.betas
    if subject is None or betas is None:
        raise UserError(
            "Brain guidance pulls pictures towards measured betas, and this condition has none; "
            "choose a subject's trial, or a brain_kappa of 0."
        )
    who = f"{subject.dataset}/{subject.name}"
    folder = Path(checkpoints) / "encoding" / subject.dataset / subject.name
    if not (folder / "card.json").is_file():
        raise UserError(
            f"There is no encoding model for {who}; train one with: python -m backends "
            f"train-encoding --dataset {subject.dataset}=PATH"
        )
    encoder = (GNet if read_card(folder).cls == "gnet" else Encoding).load(folder, device=device)
    made_for = encoder.card.voxels.get(subject.name, (0, "none"))
    if made_for != (subject.voxels.n_voxels, subject.voxels.hash):
        raise UserError(
            f"The encoding model in {folder} was made for {made_for[0]} voxels (hash "
            f"{made_for[1]}), {who} has {subject.voxels.n_voxels} (hash {subject.voxels.hash}); "
            "train it again on these."
        )
    if blind := [s.name for s in encoder.spaces if s not in _readable(features)]:
        known = " or ".join(space.name for space in features)
        raise UserError(
            f"The encoding model for {who} reads {blind[0]}, which has no gradient here; train it "
            f"on {known}: python -m backends train-encoding --dataset {subject.dataset}=PATH "
            f"--space {next(iter(features)).name}"
        )
    return encoder


def _readable(features: Features) -> Features:
    """Return what encoding models read: a generator's own features, and pixels."""
    from backends.encoders.gnet import PIXELS, pixels_for_gnet

    return {PIXELS: pixels_for_gnet, **features}


def _measured(condition: Condition, encoder: Encoding | GNet) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the chosen voxels' betas in training SD, and which voxels those are."""
    import torch

    device = encoder.intercept.device
    betas = torch.as_tensor(np.asarray(condition.betas, np.float32), device=device)
    use = np.ones(len(betas), bool) if condition.voxels is None else condition.voxels
    where = torch.as_tensor(np.flatnonzero(use), device=device)
    if len(where) < FEWEST_VOXELS:
        raise UserError(
            f"Brain guidance needs {FEWEST_VOXELS} voxels or more to correlate, the chosen "
            f"parcels have {len(where)}; choose larger ones or more of them."
        )
    z = ((betas - encoder.intercept) / encoder.voxel_sd)[where]
    if undefined := int((~z.isfinite()).sum()):
        raise UserError(
            f"Brain guidance pulls towards measured betas, and {undefined} of this trial's "
            f"{len(where)} are NaN or infinite; choose other parcels or another trial, or a "
            "brain_kappa of 0."
        )
    return z, where


def _norm(rows: torch.Tensor) -> torch.Tensor:
    """Return the length of each row (n, 1, ...), to be multiplied with rows (n, ...)."""
    return rows.flatten(1).norm(dim=1).view(-1, *[1] * (rows.ndim - 1))

"""Every guidance of the sampling loops: by scale, by attention, by decoded features, by betas.

Classifier-free and self-attention guidance change a denoiser's prediction at a noisy x
(`predicted`). The prediction says which clean picture is expected, x̂0, and the gradient of a loss
of that picture with respect to x changes it once more, before the scheduler makes its step
(`guided`; Dhariwal & Nichol 2021, arXiv 2105.05233; on x̂0: Chung et al. 2023, arXiv 2209.14687).

Libraries are imported where they are used: options are read without any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from explorer.protocols import Condition, Option
from explorer.types import EmbeddingSpace, UserError

if TYPE_CHECKING:
    import torch

    from backends.encoders.gnet import GNet
    from backends.encoders.voxelwise import Encoding

    # pixels (n, 3, H, W) in about -1 ... 1 -> one number a picture (n,), differentiable
    Loss = Callable[[torch.Tensor], torch.Tensor]
    # a space -> what computes it, differentiably, from such pixels
    Features = Mapping[EmbeddingSpace, Callable[[torch.Tensor], torch.Tensor]]
    # latents (a + b, ...), which pictures the first a are of, and which the other b -> predictions
    # (a + b, ...), the first with the brain and the others without
    Predict = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

FEWEST_VOXELS = 10  # whose correlation says anything: our choice
BLUR = (9, 1.0)  # latents: size and SD of the Gaussian (StableDiffusionSAGPipeline in diffusers)

SCALED = (
    Option(
        *("guidance_from", 0.0, 1.0, 0.0),
        "The share of the steps before guidance begins; until then scales above 1 count as 1.",
    ),
    Option(
        *("guidance_to", 0.0, 1.0, 1.0),
        "The share of the steps after which guidance ends (Kynkäänniemi et al. 2024); from then "
        "on scales above 1 count as 1.",
    ),
    Option(
        *("rescale", 0.0, 1.0, 0.0),
        "How far the guided prediction gets the contrast of the unguided one (Lin et al. 2024), "
        "against washed-out or burnt colours at high scales.",
    ),
)
SELF_ATTENTION = Option(
    *("self_attention", 0.0, 2.0, 0.0),
    "How far the picture is led away from what the model makes of it after a blur where it "
    "attends most (Hong et al. 2023); 0 is off, NeuralDiffuser has 0.75, and a step takes up to "
    "twice as long.",
)


@dataclass(frozen=True, eq=False)
class Level:
    """A noise level, ``x = signal * x0 + noise * eps``, and what a network predicts of x there.

    ``predicts``: eps, ``signal * eps - noise * x0`` or, for a rectified flow with ``signal = 1 -
    noise``, ``eps - x0``, by diffusers' names.
    """

    timestep: torch.Tensor
    signal: float | torch.Tensor
    noise: float | torch.Tensor
    predicts: Literal["epsilon", "v_prediction", "flow_prediction"]

    def clean(self, noisy: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
        """Return the clean latents x̂0 that a prediction expects at noisy ones."""
        if self.predicts == "epsilon":
            return (noisy - self.noise * prediction) / self.signal
        kept = self.signal if self.predicts == "v_prediction" else 1
        return kept * noisy - self.noise * prediction

    def moved(self, prediction: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
        """Return the prediction whose x̂0 is that of ``prediction`` plus ``change``."""
        signal = self.signal if self.predicts == "epsilon" else 1
        return prediction - change * signal / self.noise


def at_step(
    scale: torch.Tensor, step: int, steps: int, options: Mapping[str, float]
) -> torch.Tensor:
    """Return the guidance scales (n,) of a step, 1-based; outside the interval 1 at most."""
    acts = options["guidance_from"] <= (step - 1) / steps < options["guidance_to"]
    return scale if acts else scale.clamp(max=1)


def predicted(
    latents: torch.Tensor,
    level: Level,
    scale: torch.Tensor,
    predict: Predict,
    unet: torch.nn.Module,
    options: Mapping[str, float],
    same: bool = False,
) -> torch.Tensor:
    """Return the prediction (n, ...) with classifier-free and self-attention guidance by row.

    ``uncond + scale * (cond - uncond)``, of which only rows that matter are computed: none with
    the brain at scale 0, none without it at scale 1.

    Self-attention guidance (Hong et al. 2023, arXiv 2210.00939) blurs x̂0 where the network
    attends, adds the same noise again and asks a second time. The paper's ``eps + s * (eps(x) -
    eps(blurred x))`` is, in clean latents, ``x̂0 + s * (blurred x̂0 - x̂0 of the blurred x)``, which
    holds for a velocity too. As there, both are without the brain; only rows at scale 1 have it.
    What it adds is a constant to pulls: its gradient would take twice the memory.

    Parameters
    ----------
    latents
        (n, C, S, S), noisy.
    scale
        (n,), of this step.
    predict
        What asks the network.
    unet
        The network, whose middle block has self-attention.
    options
        "rescale" (Lin et al. 2024, arXiv 2305.08891, eq. 15 and 16; nothing is guided at 0 and 1)
        and "self_attention", where there is one.
    same
        All rows are equal but for their scale, so one of each kind is enough.
    """
    import torch

    strength = options.get("self_attention", 0)
    with_brain, without = (scale != 0).nonzero().flatten(), (scale != 1).nonzero().flatten()

    def ask(noisy: torch.Tensor, told: torch.Tensor) -> list[torch.Tensor]:
        """Return predictions of rows with the brain and those without it, each (n, ...)."""
        c, u = (told[:1], without[:1]) if same else (told, without)
        both = predict(torch.cat([noisy[c], noisy[u]]), c, u)
        return _spread(both, len(c), told, without, len(noisy))

    with attention(unet, strength > 0) as maps:
        told, untold = ask(latents, with_brain)
    # rows at scale 0 lack one and rows at scale 1 the other: their factors are 0 there
    factor = scale[:, None, None, None]
    result = untold * (1 - factor) + factor * told
    if options["rescale"]:
        dims, share = (1, 2, 3), options["rescale"]
        ratio = told.std(dims, keepdim=True) / result.std(dims, keepdim=True)
        rescaled = share * ratio * result + (1 - share) * result
        result = torch.where((factor == 0) | (factor == 1), result, rescaled)
    if strength > 0:
        with torch.no_grad():
            plain = factor == 1
            rows = len(with_brain[:1] if same else with_brain)
            seen = _spread(torch.cat(maps), rows, with_brain, without, len(latents))
            expected = level.clean(latents, torch.where(plain, told, untold))
            blurred = blur(expected, torch.where(plain[:, :, 0, 0], *seen))
            noisy = latents + level.signal * (blurred - expected)  # the noise stays as it is
            again = torch.where(plain, *ask(noisy, (scale == 1).nonzero().flatten()))
            change = strength * (blurred - level.clean(noisy, again))
        result = level.moved(result, change)
    return result


@contextmanager
def attention(unet: torch.nn.Module, on: bool = True) -> Iterator[list[torch.Tensor]]:
    """Collect how much each position is attended to in a UNet's middle block, while it is open.

    One tensor (n, positions) a call of the UNet that succeeds: self-attention of the first
    transformer block, summed over queries, mean over heads, so 1 on average. Hooks beside the
    attention processor leave the prediction as it is, whichever processor computes it, and calls
    by other threads are not collected.
    """
    import torch

    maps: list[torch.Tensor] = []
    if not on:
        yield maps
        return
    layer = unet.mid_block.attentions[0].transformer_blocks[0].attn1
    thread, found = get_ident(), []

    def look(attn: Any, given: tuple[torch.Tensor]) -> None:
        if get_ident() != thread:
            return
        with torch.no_grad():
            query, key = (attn.head_to_batch_dim(to(given[0])) for to in (attn.to_q, attn.to_k))
            shares = attn.get_attention_scores(query, key).float()  # (n * heads, S, S)
        found[:] = [shares.unflatten(0, (-1, attn.heads)).mean(1).sum(1)]

    def keep(*_: Any) -> None:
        if get_ident() == thread:  # a call that ran out of memory does not come here
            maps.extend(found)

    handles = [layer.register_forward_pre_hook(look), unet.register_forward_hook(keep)]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def blur(latents: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
    """Return latents (n, C, S, S), blurred where positions (n, s * s) are attended to above mean.

    ``s * s`` positions are a coarser grid of the same square. The Gaussian is `BLUR`.
    """
    import torch
    from torchvision.transforms.functional import gaussian_blur

    side = round(attended.shape[1] ** 0.5)
    above = attended > attended.mean(dim=1, keepdim=True)
    mask = above.unflatten(1, (1, side, side)).to(latents)
    mask = torch.nn.functional.interpolate(mask, latents.shape[-2:])
    size, sd = BLUR
    return torch.where(mask > 0, gaussian_blur(latents, [size] * 2, [sd] * 2), latents)


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
            f"train-encoding --dataset {subject.dataset}."
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
            f"on {known}: python -m backends train-encoding --space."
        )
    return encoder


def chosen(
    generator: str, options: Sequence[Option], given: Mapping[str, float]
) -> dict[str, float]:
    """Return every option's value, those given and the defaults; what is not on offer is refused.

    ``generator``: its name, for the message.
    """
    known = {option.name: option for option in options}
    for name, value in given.items():
        if name not in known:
            raise UserError(
                f"The generator {generator} has no option {name!r}, it has {', '.join(known)}; "
                "leave it out."
            )
        known[name].check(value)
    return {name: option.default for name, option in known.items()} | dict(given)


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
    z = (betas - encoder.intercept) / encoder.voxel_sd
    return z[where], where


def _norm(rows: torch.Tensor) -> torch.Tensor:
    """Return the length of each row (n, 1, ...), to be multiplied with rows (n, ...)."""
    return rows.flatten(1).norm(dim=1).view(-1, *[1] * (rows.ndim - 1))


def _spread(
    rows: torch.Tensor, split: int, one: torch.Tensor, other: torch.Tensor, n: int
) -> list[torch.Tensor]:
    """Return two tensors (n, ...): the first ``split`` rows at ``one``, the rest at ``other``.

    A single row stands for all of them. 0 elsewhere.
    """
    both = []
    for part, where in ((rows[:split], one), (rows[split:], other)):
        whole = rows.new_zeros((n, *rows.shape[1:]))
        whole[where] = part
        both.append(whole)
    return both

"""NeuralDiffuser's guidance by features as its code computes it, beside ours in `pulls`.

What differs from ours (HaoyyLi/NeuralDiffuser, src/recon.py and
src/modules/stable_diffusion_pipe/guided_diffusion.py, cond_fn): the gradient goes through the
prediction with the brain alone, not the guided one; the expected picture is not the textbook's;
CLIP is shown ImageNet's mean and SD; the length of the gradient counts, times kappa in its own
unit; a layer's error is divided by the length of its target once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from explorer.protocols import Option
from explorer.types import EmbeddingSpace, UserError

if TYPE_CHECKING:
    import torch

    from backends.generators.guidance import Level
    from backends.generators.pulls import Features, Loss

PUBLISHED = Option(
    *("published_kappa", 0.0, 3_000_000.0, 0.0),
    "How strongly features pull as NeuralDiffuser published it, in its own unit, instead of "
    "feature_kappa; 0 is off. It drew with 300,000, feature_eta 0.2, scale 7.5, self_attention "
    "0.75, strength 0.75 and 50 steps.",
)
SIDE = 224
MEAN, SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


@dataclass(frozen=True, eq=False)
class PublishedPull:
    """A pull whose gradient counts with its length: ``kappa`` times it.

    ``share``: in which part of the steps it acts, counted from the noisy end, rounded down.
    """

    loss: Loss
    kappa: float
    share: float

    def acts(self, step: int, steps: int) -> bool:
        """Return whether it acts in a step, 1-based."""
        return self.kappa > 0 and step <= int(self.share * steps)


def change(
    latents: torch.Tensor,
    level: Level,
    predict: Callable[[torch.Tensor], torch.Tensor],
    decode: Callable[[torch.Tensor], torch.Tensor],
    pull: PublishedPull,
) -> torch.Tensor:
    """Return what a pull adds to the guided prediction: ``sqrt(1 - a) kappa grad L``.

    Of the expected picture, which is ``s x0 + (1 - s) x`` with ``s = sqrt(1 - a)`` and ``x0 = (x -
    (1 - a) eps) / sqrt(a)``: the code has no root there, where the textbook has one.

    Parameters
    ----------
    latents
        (n, C, S, S), noisy.
    level
        Their noise level, of a network that predicts noise.
    predict
        Noisy latents -> noise, with the brain alone.
    decode
        Latents -> pixels in about -1 ... 1.
    pull
        Its loss, and how strong it is.
    """
    import torch

    if level.predicts != "epsilon":
        raise UserError(
            "published_kappa is of networks that predict noise, as Stable Diffusion 1.x; these "
            "weights predict a velocity: use feature_kappa."
        )
    with torch.enable_grad():
        noisy = latents.detach().requires_grad_()
        clean = (noisy - level.noise**2 * predict(noisy)) / level.signal
        seen = level.noise * clean + (1 - level.noise) * noisy
        (gradient,) = torch.autograd.grad(pull.loss(decode(seen)).sum(), noisy)
    return level.noise * pull.kappa * gradient


def seen_as_published(
    encode: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what computes features of pixels (n, 3, H, W) in about -1 ... 1, as published."""

    def see(pixels: torch.Tensor) -> torch.Tensor:
        import torch

        small = torch.nn.functional.interpolate(
            ((pixels + 1) / 2).clamp(0, 1), SIDE, mode="bilinear", antialias=True
        )
        mean, sd = (torch.tensor(v, device=pixels.device)[:, None, None] for v in (MEAN, SD))
        return encode((small - mean) / sd)

    return see


def towards_as_published(
    features: Features,
    targets: Mapping[EmbeddingSpace, torch.Tensor],
    weights: Mapping[EmbeddingSpace, float],
) -> Loss:
    """Return the loss ``sum over layers of w a mean((f - t)^2)`` of pictures, one target each.

    ``w`` is ``1 / |t|``, divided by its sum over the layers, and ``a`` the layer's weight.
    """
    import torch

    used = [space for space in targets if space in features and space in weights]
    if not any(weights[space] > 0 for space in used):
        raise UserError(
            "Feature guidance needs a weight above 0 for one of the decoded layers, which are "
            f"{', '.join(space.name for space in used) or 'none'}."
        )
    shares = torch.stack([1 / targets[space].norm() for space in used])
    shares = shares / shares.sum()

    def loss(pixels: torch.Tensor) -> torch.Tensor:
        error = 0
        for space, share in zip(used, shares, strict=True):
            apart = (features[space](pixels) - targets[space]).flatten(1).square().mean(1)
            error = error + share * weights[space] * apart
        return error

    return loss

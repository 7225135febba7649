"""Guidance of a denoiser's prediction at a noisy x: by scale, and by its own attention.

Classifier-free and self-attention guidance; what pulls the expected picture is in `pulls`.
Libraries are imported where they are used: options are read without any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import get_ident
from typing import TYPE_CHECKING, Any, Literal

from explorer.protocols import Option

if TYPE_CHECKING:
    import torch

    from backends.generators.memory import Denoiser, Inputs

    # latents (a + b, ...), which pictures the first a are of, and which the other b -> predictions
    # (a + b, ...), the first with the brain and the others without
    Predict = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

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

    timestep: torch.Tensor | int
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


def asking(
    network: Denoiser, timestep: torch.Tensor | float, cond: Inputs, null: Inputs
) -> Predict:
    """Return what asks a network at a time: rows told ``cond``, and others told ``null``."""
    import torch

    def predict(
        noisy: torch.Tensor, with_brain: torch.Tensor, without: torch.Tensor
    ) -> torch.Tensor:
        told = {name: torch.cat([cond[name][with_brain], null[name][without]]) for name in cond}
        return network(noisy, timestep, told)

    return predict


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

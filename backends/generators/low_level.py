"""Drawing over decoded latents of Stable Diffusion's autoencoder, as published image-to-image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from backends.embedders.published import StableDiffusionLatents
from backends.generators.sampling import decoded_in
from explorer.protocols import Condition, Option
from explorer.types import UserError

if TYPE_CHECKING:
    import torch

    from backends.generators.ddim import DDIM

(LATENTS,) = StableDiffusionLatents.spaces
STRENGTH = Option(
    "strength",
    0.0,
    1.0,
    0.75,
    "The share of the steps that are drawn anew over decoded latents, where the mapper "
    "gives them; 1 keeps next to nothing of them.",
)


def begun(
    generator: str,
    shape: tuple[int, ...],
    noise: torch.Tensor,
    conditions: Sequence[Condition],
    ddim: DDIM,
    strength: float,
) -> tuple[torch.Tensor, int]:
    """Return the first latents (n, C, S, S) and how many steps are left out.

    Where no condition has latents those are the noise and 0. `UserError` where only some have
    them, or where the weights draw others.

    Parameters
    ----------
    generator, shape
        Its name, and the latents (C, S, S) that its weights draw.
    noise
        (n, C, S, S), a row a condition.
    strength
        The share of the steps to draw.
    """
    import torch

    with_latents = [LATENTS in condition.embeddings for condition in conditions]
    if not any(with_latents):
        return noise, 0
    if not all(with_latents):
        raise UserError(
            f"Of {len(conditions)} conditions {sum(with_latents)} have {LATENTS.name}, the "
            "others have not; draw them apart."
        )
    if shape != LATENTS.shape:
        raise UserError(
            f"{generator} cannot start from {LATENTS.name} {LATENTS.shape}: these weights "
            f"draw latents {shape}; name weights of 512 x 512 pixels with "
            f"--generator {generator}=PATH_OR_ID."
        )
    steps = len(ddim.timesteps)
    kept = max(1, min(int(steps * strength), steps))
    found = [decoded_in(generator, one.embeddings, LATENTS) for one in conditions]
    return ddim.noised(torch.stack(found).to(noise), noise, steps - kept), steps - kept

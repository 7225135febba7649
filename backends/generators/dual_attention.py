"""Two transformers in the place of each of a UNet's, as Versatile Diffusion mixes two contexts.

diffusers has this as `DualTransformer2DModel`, which its own blocks have passed an argument that
it does not take since 0.17, and whose mixture is an attribute that all calls share. Here it comes
with the call, so that two requests can be drawn at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from diffusers import Transformer2DModel

from explorer.files import reason

TEXT_TOKENS, VISION_TOKENS = 77, 257


class Dual(torch.nn.Module):
    """Two transformers on the same states, one for image tokens and one for text tokens.

    What they add is mixed by the share of the text's. A context of `VISION_TOKENS` or of
    `TEXT_TOKENS` alone asks one of them; of both the text comes first.
    """

    def __init__(self, vision: Transformer2DModel, text: Transformer2DModel) -> None:
        super().__init__()
        self.vision, self.text = vision, text

    def forward(
        self,
        states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        cross_attention_kwargs: Mapping[str, torch.Tensor] | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor]:
        """Return states (n, C, S, S); ``cross_attention_kwargs`` has the text's "mix" (n, 1)."""
        tokens = encoder_hidden_states.shape[1]
        if tokens in (VISION_TOKENS, TEXT_TOKENS):
            one = self.vision if tokens == VISION_TOKENS else self.text
            return one(states, encoder_hidden_states, return_dict=False)
        text, vision = encoder_hidden_states.split((TEXT_TOKENS, VISION_TOKENS), dim=1)
        (read,) = self.text(states, text, return_dict=False)
        (seen,) = self.vision(states, vision, return_dict=False)
        share = cross_attention_kwargs["mix"][:, :, None, None]
        return (read * share + seen * (1 - share),)


def doubled(unet: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """Return a UNet with the transformers of another beside its own.

    The other's residual blocks are for text and are left where they are; each of its transformers
    must have a place of its shape, or `ValueError` is raised.

    Parameters
    ----------
    unet
        A `UNet2DConditionModel`, which is changed.
    tensors
        The other's, by diffusers' names.
    """
    own = {name: m for name, m in unet.named_modules() if isinstance(m, Transformer2DModel)}
    state = {name: value for name, value in tensors.items() if ".attentions." in name}
    for name, transformer in own.items():
        other, begin = deepcopy(transformer), f"{name}."
        part = {k.removeprefix(begin): state.pop(k) for k in list(state) if k.startswith(begin)}
        try:
            other.load_state_dict(part)
        except RuntimeError as error:
            raise ValueError(f"at {name}: {reason(error)}") from error
        place, _, number = name.rpartition(".")
        unet.get_submodule(place)[int(number)] = Dual(transformer, other)
    if state:
        raise ValueError(f"it has {next(iter(state))}, for which there is no place")
    # the mixture comes in as what is added to time, and goes on to the transformers
    unet.register_forward_pre_hook(_passed_on, with_kwargs=True)
    return unet


def _passed_on(
    unet: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    added = dict(kwargs.get("added_cond_kwargs") or {})
    mix = {"mix": added.pop("mix")} if "mix" in added else None
    told = {"added_cond_kwargs": added or None, "cross_attention_kwargs": mix}
    return args, {**kwargs, **told}

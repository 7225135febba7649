"""MinD-Vis' and NeuroLens' ``finetuned.pth`` in the place of folders in diffusers' layout.

Both have the fMRI encoder in the same file, which a mapper of ours takes over: here are the
networks that draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from backends.generators.one_file import Layout, OneFile
from backends.generators.sgm_names import counted, quantiser, shape_of, unet
from backends.generators.weights import Part
from explorer.types import UserError

if TYPE_CHECKING:
    import torch

    from backends.generators.one_file import Converted

FILE = "finetuned.pth"
TIME = "time_embed_condtion."  # as it is spelt there


def mindvis_unet(state: Mapping[str, torch.Tensor], side: int = 64) -> Converted:
    """Return a UNet of CompVis' names, with one head an attention and told more with the time."""
    config, found = unet({k: v for k, v in state.items() if not k.startswith(TIME)}, side, heads=1)
    told = any(name.startswith(TIME) for name in state)
    return config | ({"class_embed_type": "identity"} if told else {}), found


def own_unet(state: Mapping[str, torch.Tensor], side: int = 32, heads: int = 8) -> Converted:
    """Return a UNet of Stable Diffusion 1.x under diffusers' own names."""
    levels = range(counted(state, "down_blocks."))
    attends = [counted(state, f"down_blocks.{i}.attentions.") for i in levels]
    across = next((name for name in state if name.endswith("attn2.to_k.weight")), "attn2")
    config = {
        "sample_size": side,
        "in_channels": shape_of(state, "conv_in.weight")[1],
        "out_channels": shape_of(state, "conv_out.weight")[0],
        "block_out_channels": [
            shape_of(state, f"down_blocks.{i}.resnets.0.conv1.weight")[0] for i in levels
        ],
        "layers_per_block": counted(state, "down_blocks.0.resnets."),
        "attention_head_dim": heads,  # heads, by its old name
        "cross_attention_dim": shape_of(state, across)[1],
        "down_block_types": ["CrossAttnDownBlock2D" if n else "DownBlock2D" for n in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if n else "UpBlock2D" for n in attends[::-1]],
    }
    return config, dict(state)


def own_autoencoder(state: Mapping[str, torch.Tensor]) -> Converted:
    """Return the autoencoder of Stable Diffusion 1.x under diffusers' own names."""
    number = counted(state, "encoder.down_blocks.")
    first = "encoder.down_blocks.{}.resnets.0.conv1.weight"
    config = {
        "latent_channels": shape_of(state, "post_quant_conv.weight")[0],
        "block_out_channels": [shape_of(state, first.format(i))[0] for i in range(number)],
        "layers_per_block": counted(state, "encoder.down_blocks.0.resnets."),
        "down_block_types": ["DownEncoderBlock2D"] * number,
        "up_block_types": ["UpDecoderBlock2D"] * number,
        "scaling_factor": 0.18215,
    }
    return config, dict(state)


MINDVIS = Layout(
    f"{FILE} of MinD-Vis' fine-tuned model",
    "model_state_dict",
    {"unet": "model.diffusion_model.", "vae": "first_stage_model."},
    {
        "cond_stage_model.": "the fMRI encoder and its mappers, which a mapper of ours takes over",
        "first_stage_model.loss.": "the autoencoder's training",
        "model_ema.": "running means, which the published drawing does not use",
        **dict.fromkeys(
            ("alphas_cumprod", "sqrt_", "log_one_minus_", "posterior_", "lvlb_weights"),
            "what follows from the noise schedule",
        ),
        "betas": "the noise schedule, which is compared with ours",
        "logvar": "the training's loss",
    },
    {  # pretrains/ldm/label2img/config.yaml
        **{"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear"},
        **{"num_train_timesteps": 1000, "prediction_type": "epsilon", "clip_sample": False},
        "set_alpha_to_one": False,
    },
    {"unet": mindvis_unet, "vae": quantiser},
    "betas",
)
NEUROLENS = Layout(
    f"{FILE} of NeuroLens' fine-tuned model",
    "model_state_dict",
    {"unet": "unet.", "vae": "vae."},
    {
        "cond_stage_model.": "the fMRI encoder and its mappers, which a mapper of ours takes over",
        "clip_model.": "what the training aligned it to",
        "logvar": "the training's loss",
        "lvlb_weights": "the training's loss",
    },
    {  # of Stable Diffusion 1.5
        **{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
        **{"num_train_timesteps": 1000, "prediction_type": "epsilon", "clip_sample": False},
        **{"set_alpha_to_one": False, "steps_offset": 1},
    },
    {"unet": own_unet, "vae": own_autoencoder},
)


class Finetuned(OneFile):
    """The networks that draw in `FILE`.

    Parameters
    ----------
    name, hub, size, parts, usual, source
        As `Weights`; ``source`` is the file, or a folder that holds `FILE`.
    layout
        How the file keeps its networks.
    """

    def __init__(
        self,
        name: str,
        hub: str,
        size: str,
        parts: tuple[Part, ...],
        usual: Path,
        source: str | Path | None,
        layout: Layout,
    ) -> None:
        place = Path(source).expanduser() if source else usual
        checkpoint = place / FILE if place.is_dir() or not source else place
        if not checkpoint.is_file():
            raise UserError(
                f"{name} needs the file {FILE} of {hub} ({size}), and {checkpoint} is none; "
                f"name it with --generator {name}=FILE, or put it into {usual}."
            )
        super().__init__(checkpoint, layout, name, hub, size, parts)

    @property
    def command(self) -> str:
        """Where a person gets the file."""
        return f"{FILE} as {self.hub} links it"

    @property
    def again(self) -> str:
        """What a person can do where the file is not what it should be."""
        return f"get it again: {self.command}"

    def told(self) -> dict[str, torch.Tensor]:
        """Return what MinD-Vis' UNet is told with the time, by names within; {} for nothing."""
        own = self._own("unet")
        return {name[len(TIME) :]: own[name] for name in own if name.startswith(TIME)}

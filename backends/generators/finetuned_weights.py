"""MinD-Vis' and NeuroLens' ``finetuned.pth`` in the place of folders in diffusers' layout.

What a training saved, read by names; what it holds beside tensors is not built. Both have the
fMRI encoder in the same file, which a mapper of ours takes over: here are the networks that draw.
Every tensor is used or left out for a reason that is written down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.embedders.files import hash_of_files
from backends.generators.sgm_names import (
    counted,
    filled,
    quantiser,
    shape_of,
    unet,
)
from backends.generators.weights import Part, Weights
from explorer.files import damaged, plain_tensor, reason
from explorer.inert import read_inert
from explorer.types import UserError, resolve

if TYPE_CHECKING:
    import torch

    Converted = tuple[dict[str, Any], dict[str, torch.Tensor]]

FILE = "finetuned.pth"
TIME = "time_embed_condtion."  # as it is spelt there


@dataclass(frozen=True)
class Layout:
    """How a file keeps its networks.

    ``networks``: beginnings of their names, by folder. ``left_out``: beginnings of names without
    a place, and why. ``read``: what makes a network's configuration and state of its tensors.
    ``betas``: the name of a noise schedule that must be that of ``schedule``.
    """

    title: str
    networks: Mapping[str, str]
    left_out: Mapping[str, str]
    schedule: Mapping[str, Any]
    read: Mapping[str, Callable[[Mapping[str, torch.Tensor]], Converted]]
    betas: str = ""


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
    "MinD-Vis' fine-tuned model",
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
    "NeuroLens' fine-tuned model",
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


class Finetuned(Weights):
    """The networks that draw in one file of a training.

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
        self.checkpoint = place / FILE if place.is_dir() or not source else place
        self.layout = layout
        if not self.checkpoint.is_file():
            raise UserError(
                f"{name} needs the file {FILE} of {hub} ({size}), and {self.checkpoint} is none; "
                f"name it with --generator {name}=FILE, or put it into {usual}."
            )
        super().__init__(name, hub, size, parts, self.checkpoint.parent, self.checkpoint)

    @property
    def command(self) -> str:
        """Where a person gets the file."""
        return f"{FILE} as {self.hub} links it"

    @cached_property
    def fingerprint(self) -> str:
        """Names the exact file; reading it takes seconds, so it is made when asked for."""
        return hash_of_files(self.checkpoint)

    def path(self, part: Part) -> Path:
        """Return the file, in which all parts lie."""
        return self.checkpoint

    def config(self, part: Part) -> dict[str, Any]:
        """Return the configuration of a part."""
        if part.folder == "scheduler":
            return dict(self.layout.schedule)
        return self._converted(part.folder)[0]

    def load(self, part: Part, dtype: torch.dtype | None = None) -> Any:
        """Return a part's network in eval mode and without gradients, on the CPU.

        ``dtype``: of its numbers, None for float32.
        """
        import inspect

        import torch

        config, state = self._converted(part.folder)
        cls = resolve(part.cls)
        known = inspect.signature(cls.__init__).parameters
        config = {key: value for key, value in config.items() if key in known}
        try:
            return filled(lambda: cls(**config), state, dtype or torch.float32)
        except Exception as error:  # whatever diffusers says of sizes that do not fit
            raise self._foreign(reason(error)) from error

    def told(self) -> dict[str, torch.Tensor]:
        """Return what MinD-Vis' UNet is told with the time, by names within; {} for nothing."""
        own = self._own("unet")
        return {name[len(TIME) :]: own[name] for name in own if name.startswith(TIME)}

    @cached_property
    def state(self) -> dict[str, torch.Tensor]:
        """Its tensors by their published names; each of them has a place or is left out."""
        found, _ = read_inert(self.checkpoint, f"get it again: {self.command}")
        found = found.get("model_state_dict", found) if isinstance(found, Mapping) else found
        if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
            raise self._foreign("it holds no tensors by name")
        known = (*self.layout.networks.values(), *self.layout.left_out)
        if lost := [name for name in found if not name.startswith(known)]:
            raise self._foreign(f"nothing is known of {', '.join(lost[:3])}")
        self._check_schedule(found.get(self.layout.betas))
        return dict(found)

    def _find(self, source: str | Path | None) -> dict[str, Path]:
        return {self.hub: self.checkpoint.parent}

    def _check(self, part: Part) -> None:
        config = self.config(part)
        for key, expected in part.expects.items():
            if config.get(key) != expected:
                raise self._foreign(f"its {key} is {config.get(key)}, expected {expected}")

    def _own(self, folder: str) -> dict[str, torch.Tensor]:
        begin = self.layout.networks[folder]
        return {
            name[len(begin) :]: plain_tensor(value, f"{self.checkpoint}: {name}")
            for name, value in self.state.items()
            if name.startswith(begin) and not name.startswith(tuple(self.layout.left_out))
        }

    def _converted(self, folder: str) -> Converted:
        try:
            return self.layout.read[folder](self._own(folder))
        except ValueError as error:
            begin = self.layout.networks[folder]
            raise self._foreign(f"of {begin}* {reason(error)}") from error

    def _check_schedule(self, betas: Any) -> None:
        import torch
        from diffusers import DDIMScheduler

        if betas is None:
            return
        ours = DDIMScheduler.from_config(self.layout.schedule).betas
        found = plain_tensor(betas, f"{self.checkpoint}: {self.layout.betas}").float()
        if found.shape != ours.shape or not torch.allclose(found, ours, rtol=1e-3):
            raise self._foreign("its noise schedule is not the published one")

    def _foreign(self, why: str) -> UserError:
        about = f"{FILE} of {self.layout.title}"
        return damaged(self.checkpoint, why, about, f"get it again: {self.command}")

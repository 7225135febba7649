"""MindEye2's ``unclip6_epoch0_step110000.ckpt`` in the place of folders in diffusers' layout.

A Lightning checkpoint of Stability's generative-models, read by names: what it holds beside
tensors is not built. The configuration that goes with it (MedARC-AI/MindEyeV2,
src/generative_models/configs/unclip6.yaml) is written here. Its tensors stay in the file until
they are used, so nothing is written anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.embedders.files import hash_of_files
from backends.generators.sgm_names import autoencoder, filled, unet
from backends.generators.weights import Part, Weights
from explorer.files import damaged, plain_tensor, reason
from explorer.inert import read_inert
from explorer.types import UserError, resolve

if TYPE_CHECKING:
    import torch

FILE = "unclip6_epoch0_step110000.ckpt"
SIDE = 96  # latents of 768 x 768 pixels, as MindEye2 draws (src/utils.py, unclip_recon)
SCALING = 0.13025  # scale_factor
SCHEDULE = {  # LegacyDDPMDiscretization and EpsScaling
    **{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
    **{"num_train_timesteps": 1000, "prediction_type": "epsilon", "clip_sample": False},
}
NETWORKS = {"unet": "model.diffusion_model.", "vae": "first_stage_model."}
LEFT_OUT = {  # beginnings of names that have no place here, and why
    "conditioner.": "the image encoder, in whose place tokens are decoded",
    "first_stage_model.loss.": "the autoencoder's training",
    "model_ema.": "running means, which the published drawing does not use",
    "denoiser.sigmas": "the noise schedule, which is compared with ours",
}


def checkpoint_in(source: str | Path | None, usual: Path) -> Path | None:
    """Return the checkpoint that a source, or else the usual folder, is or holds; None for none.

    A folder with a UNet in diffusers' layout is none.
    """
    place = Path(source).expanduser() if source else usual
    if place.is_file():
        return place
    if (place / "unet").is_dir():
        return None
    found = sorted(place.glob("*.ckpt"))
    named = [path for path in found if path.name == FILE]
    if len(found) > 1 and not named:
        raise UserError(
            f"{place} holds {', '.join(path.name for path in found)}; name the checkpoint itself "
            "with --generator sdxl-unclip=FILE."
        )
    return (named or found or [None])[0]


class Checkpoint(Weights):
    """The parts of SDXL unCLIP in one checkpoint.

    Parameters
    ----------
    file
        The checkpoint.
    name, hub, size, parts
        As `Weights`.
    """

    def __init__(self, file: Path, name: str, hub: str, size: str, parts: Sequence[Part]) -> None:
        self.checkpoint = file
        super().__init__(name, hub, size, parts, file.parent, file)

    @property
    def command(self) -> str:
        """What a person types to get the file."""
        return command(self.hub, self.usual)

    @cached_property
    def fingerprint(self) -> str:
        """Names the exact file; reading it takes seconds, so it is made when asked for."""
        return hash_of_files(self.checkpoint)

    def config(self, part: Part) -> dict[str, Any]:
        """Return the configuration of a part."""
        return dict(SCHEDULE) if part.folder == "scheduler" else self._converted(part.folder)[0]

    def load(self, part: Part, dtype: torch.dtype | None = None) -> Any:
        """Return a part's network in eval mode and without gradients, on the CPU.

        ``dtype``: of its numbers, None for float32.
        """
        import torch

        config, state = self._converted(part.folder)
        self._check_config(part, config)
        cls = resolve(part.cls)
        try:
            return filled(lambda: cls(**config), state, dtype or torch.float32)
        except Exception as error:  # whatever diffusers says of sizes that do not fit
            raise self._foreign(reason(error)) from error

    @cached_property
    def state(self) -> dict[str, torch.Tensor]:
        """Its tensors by their published names; each of them has a place or is left out."""
        found, _ = read_inert(self.checkpoint, f"get it again with: {self.command}")
        found = found.get("state_dict", found) if isinstance(found, Mapping) else found
        if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
            raise self._foreign("it holds no tensors by name")
        known = (*NETWORKS.values(), *LEFT_OUT)
        if lost := [name for name in found if not name.startswith(known)]:
            raise self._foreign(f"nothing is known of {', '.join(lost[:3])}")
        self._check_schedule(found.get("denoiser.sigmas"))
        return dict(found)

    def _find(self, source: str | Path | None) -> dict[str, Path]:
        return dict.fromkeys([self.hub, *(part.hub for part in self.parts)], self.checkpoint)

    def _check(self, part: Part) -> None:
        if part.folder in NETWORKS:
            self._check_config(part, self.config(part))

    def path(self, part: Part) -> Path:
        """Return the file, in which all parts lie."""
        return self.checkpoint

    def _converted(self, folder: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        begin = NETWORKS[folder]
        own = {
            name[len(begin) :]: plain_tensor(value, f"{self.checkpoint}: {name}")
            for name, value in self.state.items()
            if name.startswith(begin) and not name.startswith(tuple(LEFT_OUT))
        }
        try:
            return unet(own, SIDE) if folder == "unet" else autoencoder(own, SCALING)
        except ValueError as error:
            raise self._foreign(f"of {begin}* {reason(error)}") from error

    def _check_config(self, part: Part, config: Mapping[str, Any]) -> None:
        for key, expected in part.expects.items():
            if config.get(key) != expected:
                raise self._foreign(f"its {key} is {config.get(key)}, expected {expected}")

    def _check_schedule(self, sigmas: Any) -> None:
        import torch
        from diffusers import DDIMScheduler

        if sigmas is None:
            return
        kept = DDIMScheduler.from_config(SCHEDULE).alphas_cumprod
        ours = ((1 - kept) / kept).sqrt()
        found = plain_tensor(sigmas, f"{self.checkpoint}: denoiser.sigmas").float()
        if found.shape != ours.shape or not torch.allclose(found, ours, rtol=1e-3):
            raise self._foreign("its noise levels (denoiser.sigmas) are not those of unclip6.yaml")

    def _foreign(self, why: str) -> UserError:
        return damaged(
            self.checkpoint,
            why,
            f"{FILE} of MindEye2",
            f"get it with: {self.command}",
        )


def command(hub: str, folder: Path) -> str:
    """Return what a person types to get the checkpoint into a folder."""
    return f"hf download {hub} {FILE} --repo-type dataset --local-dir {folder}"


def absent(name: str, hub: str, size: str, usual: Path) -> UserError:
    """Return what to say where the usual folder has no weights."""
    return UserError(
        f"{name} needs {FILE} of {hub} ({size}), and {usual} has none; get it with: "
        f"{command(hub, usual)}; or name the file, or a folder in diffusers' layout, with "
        f"--generator {name}=PATH."
    )

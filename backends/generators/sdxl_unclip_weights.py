"""MindEye2's ``unclip6_epoch0_step110000.ckpt`` in the place of folders in diffusers' layout.

A Lightning checkpoint of Stability's generative-models. The configuration that goes with it
(MedARC-AI/MindEyeV2, src/generative_models/configs/unclip6.yaml) is written here.
"""

from __future__ import annotations

from pathlib import Path

from backends.generators.one_file import Layout, OneFile
from backends.generators.sgm_names import autoencoder, unet
from backends.generators.weights import Part
from explorer.types import UserError

FILE = "unclip6_epoch0_step110000.ckpt"
SIDE = 96  # latents of 768 x 768 pixels, as MindEye2 draws (src/utils.py, unclip_recon)
SCALING = 0.13025  # scale_factor
SCHEDULE = {  # LegacyDDPMDiscretization and EpsScaling
    **{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
    **{"num_train_timesteps": 1000, "prediction_type": "epsilon", "clip_sample": False},
}
UNCLIP = Layout(
    f"{FILE} of MindEye2",
    "state_dict",
    {"unet": "model.diffusion_model.", "vae": "first_stage_model."},
    {
        "conditioner.": "the image encoder, in whose place tokens are decoded",
        "first_stage_model.loss.": "the autoencoder's training",
        "model_ema.": "running means, which the published drawing does not use",
        "denoiser.sigmas": "the noise schedule, which is compared with ours",
    },
    SCHEDULE,
    {"unet": lambda own: unet(own, SIDE), "vae": lambda own: autoencoder(own, SCALING)},
    "denoiser.sigmas",
    "sigmas",
    "its noise levels (denoiser.sigmas) are not those of unclip6.yaml",
)


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


class Checkpoint(OneFile):
    """The parts of SDXL unCLIP in one checkpoint.

    Parameters
    ----------
    file
        The checkpoint.
    name, hub, size, parts
        As `Weights`.
    """

    def __init__(
        self, file: Path, name: str, hub: str, size: str, parts: tuple[Part, ...]
    ) -> None:
        super().__init__(file, UNCLIP, name, hub, size, parts)

    @property
    def command(self) -> str:
        """What a person types to get the file."""
        return command(self.hub, self.usual)

    @property
    def again(self) -> str:
        """What a person can do where the file is not what it should be."""
        return f"get it with: {self.command}"


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

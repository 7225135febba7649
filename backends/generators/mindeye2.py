"""What MindEye2 does with a drawn picture: blur, caption and refinement.

Scotti et al. 2024 (arXiv 2403.11207); MedARC-AI/MindEyeV2, src/recon_inference.ipynb,
src/enhanced_recon_inference.ipynb and src/final_evaluations.ipynb. Pixels are in -1 ... 1.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from backends.embedders.files import hash_of_files
from backends.generators.ddim import DDIM, read_schedule, spaced_as_sgm
from backends.generators.finetuned_weights import own_autoencoder
from backends.generators.memory import Denoiser, best_dtype, place
from backends.generators.older_weights import OLDER
from backends.generators.sgm_names import filled, shape_of
from backends.generators.weights import (
    TRANSFORMER,
    Part,
    Weights,
    pipeline_parts,
    said,
    text_parts,
)
from explorer import stopping
from explorer.files import damaged, guard, plain_tensor, reason
from explorer.inert import read_inert
from explorer.types import UserError

if TYPE_CHECKING:
    import torch

BLUR_FILE = "sd_image_var_autoenc.pth"  # Stable Diffusion's autoencoder, as released with MindEye2
CONVERTER_FILE = "bigG_to_L_epoch8.pth"  # ViT-bigG/14 tokens to what GIT sees of a picture
LONGEST_CAPTION = 20  # tokens, with those that begin and end it

SEEN = 256  # pixels to which drawn pictures are reduced before they are refined
REFINED = 768
STEPS, LEFT = 25, 12  # of which the last are done
REFINING_SCALE = 5.0
REFINED_SIZES = (768.0, 768.0, 0.0, 0.0, 1024.0, 1024.0)  # original, crop, target
UNWANTED = (
    "painting, extra fingers, mutated hands, poorly drawn hands, poorly drawn face, deformed, "
    "ugly, blurry, bad anatomy, bad proportions, extra limbs, cloned face, skinny, glitchy, "
    "double torso, extra arms, extra hands, mangled fingers, missing lips, ugly face, distorted "
    "face, extra legs, anime"
)  # the published negative prompt


class Blur:
    """The low-level branch's picture: decoded latents through Stable Diffusion's autoencoder.

    Parameters
    ----------
    source
        A folder of Stable Diffusion 1.x, or of its autoencoder, in diffusers' layout; or the file
        `BLUR_FILE`.
    device
        Where it computes, in float32.
    """

    def __init__(self, source: Path, device: str) -> None:
        self.source, self.device = source, device
        self._weights: Weights | None = None
        if not source.is_file():
            inside = "" if (source / "config.json").is_file() else "vae"
            part = Part(inside, "diffusers:AutoencoderKL", expects={"latent_channels": 4})
            hub = "stable-diffusion-v1-5/stable-diffusion-v1-5"
            name = "sdxl-unclip=PATH?vae"
            self._weights = Weights(name, hub, "335 MB", (part,), source, source)
        self._network: Any = None

    @property
    def fingerprint(self) -> str:
        """Names the exact files."""
        return self._weights.fingerprint if self._weights else hash_of_files(self.source)

    def picture(self, latents: torch.Tensor) -> torch.Tensor:
        """Return pixels (1, 3, 8 H, 8 W) of scaled latents (4, H, W)."""
        if self._network is None:
            self._network = self._loaded().to(self.device)
        scaling = self._network.config.scaling_factor
        return self._network.decode(latents[None] / scaling).sample.clamp(-1, 1)

    def _loaded(self) -> Any:
        if self._weights:
            return self._weights.load(self._weights.parts[0])
        import torch
        from diffusers import AutoencoderKL

        state = {
            ".".join(OLDER.get(part, part) for part in name.split(".")): value
            for name, value in named_tensors(self.source, BLUR_FILE).items()
        }
        try:
            config, state = own_autoencoder(state)
            return filled(lambda: AutoencoderKL(**config), state, torch.float32)
        except Exception as error:  # whatever diffusers says of sizes that do not fit
            raise damaged(self.source, reason(error), f"{BLUR_FILE} of MindEye2") from error


class Captioner:
    """Words for tokens of ViT-bigG/14: GIT, told them in the place of its own picture's.

    Parameters
    ----------
    folder
        GIT in transformers' layout (microsoft/git-large-coco), with or without `CONVERTER_FILE`.
    converter
        `CONVERTER_FILE` where it lies elsewhere.
    device
        Where it computes, in float32.
    """

    def __init__(self, folder: Path, converter: Path, device: str) -> None:
        own = folder / CONVERTER_FILE
        self.converter, self.device = own if own.is_file() else converter, device
        parts = (
            Part("", "transformers:GitForCausalLM", TRANSFORMER),
            Part("", "", ("tokenizer_config.json", "vocab.txt")),
        )
        name = "sdxl-unclip=PATH?captioner"
        self._weights = Weights(name, "microsoft/git-large-coco", "1.6 GB", parts, folder, folder)
        if not self.converter.is_file():
            raise UserError(
                f"sdxl-unclip needs {CONVERTER_FILE} of pscotti/mindeyev2 to caption, and "
                f"{folder} has none; get it with: hf download pscotti/mindeyev2 {CONVERTER_FILE} "
                f"--repo-type dataset --local-dir {folder}."
            )
        self._network: Any = None

    @property
    def fingerprint(self) -> str:
        """Names the exact files."""
        return self._weights.fingerprint + hash_of_files(self.converter)

    def words(self, tokens: torch.Tensor) -> str:
        """Return the caption of tokens (T, D)."""
        import torch

        if self._network is None:
            self._load()
        with torch.inference_mode():
            seen = self._convert(tokens[None].to(self.device))
            # four axes, as transformers expects of pictures
            ids = self._network.generate(pixel_values=seen[:, None], max_length=LONGEST_CAPTION)
        return self._tokenizer.decode(ids[0], skip_special_tokens=True).strip()

    def _load(self) -> None:
        from transformers import BertTokenizer

        network = self._weights.load(self._weights.parts[0])
        folder = self._weights.path(self._weights.parts[0])
        again = f"get it again with: {self._weights.command}"
        with guard(folder, "the tokenizer of GIT", again):
            self._tokenizer = BertTokenizer.from_pretrained(folder, local_files_only=True)
        vision = network.config.vision_config
        seen = (vision.image_size // vision.patch_size) ** 2 + 1, vision.hidden_size
        self._convert = converter(self.converter, seen).to(self.device)
        network.git.image_encoder = already_seen()
        self._network = network.to(self.device)


def already_seen() -> torch.nn.Module:
    """Return what stands in for GIT's image encoder: it gives what it is given."""
    import torch

    class Seen(torch.nn.Module):
        def forward(self, pixel_values: torch.Tensor, **_: Any) -> SimpleNamespace:
            return SimpleNamespace(last_hidden_state=pixel_values[:, 0])

    return Seen()


def converter(file: Path, seen: tuple[int, int]) -> torch.nn.Module:
    """Return MindEye2's map from tokens (n, T, D) to what GIT sees (n, *seen): two linear layers.

    The first is over tokens, the second over their numbers.
    """
    import torch

    class Converter(torch.nn.Module):
        def __init__(self, tokens: int, size: int) -> None:
            super().__init__()
            self.linear1 = torch.nn.Linear(tokens, seen[0])
            self.linear2 = torch.nn.Linear(size, seen[1])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear2(self.linear1(x.mT).mT)

    state = named_tensors(file, CONVERTER_FILE)
    try:
        given = [shape_of(state, f"linear{i}.weight")[1] for i in (1, 2)]
        return filled(lambda: Converter(*given), state, torch.float32)
    except ValueError as error:
        raise damaged(file, reason(error), f"{CONVERTER_FILE} for this GIT") from error


def named_tensors(file: Path, what: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a file of `torch.save`, alone or as its ``model_state_dict``."""
    found, _ = read_inert(file)
    found = found.get("model_state_dict", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise damaged(file, "it holds no tensors by name", f"{what} of MindEye2")
    return {name: plain_tensor(value, f"{file}: {name}") for name, value in found.items()}


class Refiner:
    """Stable Diffusion XL over a picture: the last 12 of 25 steps, told a caption.

    Parameters
    ----------
    folder
        Any SDXL in diffusers' layout; MindEye2 took one fine-tuned for photographs.
    device
        Where it computes: in half precision on a GPU, but for its autoencoder.

    Notes
    -----
    Guidance is 5 between the caption and the published negative prompt. MindEye2 reads captions
    with the text encoders that SDXL began with, and the negative prompt with its own; here both
    are read with those in the folder.
    """

    def __init__(self, folder: Path, device: str) -> None:
        told = {"addition_embed_type": "text_time", "projection_class_embeddings_input_dim": 2816}
        parts = (
            *pipeline_parts(cross_attention_dim=2048, **told),
            *text_parts(),
            *text_parts("_2", "CLIPTextModelWithProjection"),
        )
        hub, self.size = "stabilityai/stable-diffusion-xl-base-1.0", "6.9 GB"
        self.name = "sdxl-unclip=PATH?refiner"
        self._weights = Weights(self.name, hub, self.size, parts, folder, folder)
        self._parts = {part.folder: part for part in parts}
        self.device, self.dtype = device, best_dtype(device)
        self._denoiser: Denoiser | None = None

    @property
    def fingerprint(self) -> str:
        """Names the exact files."""
        return self._weights.fingerprint

    def refined(
        self, picture: torch.Tensor, words: str, source: torch.Generator, working: float
    ) -> torch.Tensor:
        """Return pixels (1, 3, S, S) of a picture (1, 3, H, W) drawn anew with a caption.

        As published, the picture is first reduced to 256 x 256 and enlarged again.

        Parameters
        ----------
        source
            Of all noise.
        working
            Bytes a row of this size takes beside the weights, see `memory.place`.
        """
        import torch

        if self._denoiser is None:
            self._load(working)
        small = resized(picture, min(SEEN, self._side))
        start = self._encoded(resized(small, self._side), source)
        noise = torch.randn(start.shape[1:], generator=source)[None].to(self.device)
        cond, null = self._told(words), self._told(UNWANTED)
        both = {name: torch.cat([cond[name], null[name]]) for name in cond}
        first = STEPS - LEFT
        latents = self._ddim.noised(start, noise, first)
        for step in stopping.steps(range(first, STEPS)):
            level = self._ddim.level(step)
            rows = self._denoiser(torch.cat([latents, latents]), level.timestep, both)
            with_words, without = rows.chunk(2)
            prediction = without + REFINING_SCALE * (with_words - without)
            latents, _ = self._ddim.step(latents, prediction, step)
        scaling = self._vae.config.scaling_factor
        return self._vae.decode(latents / scaling).sample.clamp(-1, 1)

    def _load(self, working: float) -> None:
        weights, parts = self._weights, self._parts
        unet = weights.load(parts["unet"], self.dtype)
        place(unet, self.device, working)
        self._vae = weights.load(parts["vae"]).to(self.device)  # in half precision it overflows
        self._side = unet.config.sample_size * 2 ** (len(self._vae.config.block_out_channels) - 1)
        self._side = min(self._side, REFINED)
        self._texts = [
            (words, encoder.to(self.device, self.dtype))
            for words, encoder in (weights.words(parts, number) for number in ("", "_2"))
        ]
        schedule = read_schedule(
            weights.config(parts["scheduler"]),
            str(weights.path(parts["scheduler"]) / "scheduler_config.json"),
            f"name another SDXL with --generator {self.name}=PATH_OR_ID",
        )
        self._ddim = sgm_steps(schedule, STEPS)
        self._denoiser = Denoiser(unet, self.name, self.size, self.device, self.dtype, _added)

    def _encoded(self, picture: torch.Tensor, source: torch.Generator) -> torch.Tensor:
        import torch

        found = self._vae.encode(picture).latent_dist
        drawn = torch.randn(found.mean.shape[1:], generator=source)[None].to(self.device)
        return (found.mean + found.std * drawn) * self._vae.config.scaling_factor

    def _told(self, words: str) -> dict[str, torch.Tensor]:
        import torch

        one, two = (said(*text, words) for text in self._texts)
        context = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1).float()
        sizes = torch.tensor([REFINED_SIZES], device=self.device)
        return {"context": context, "text_embeds": two.text_embeds.float(), "time_ids": sizes}


def _added(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: inputs[name] for name in ("text_embeds", "time_ids")}


def sgm_steps(schedule: dict[str, Any], steps: int) -> DDIM:
    """Return the steps of sgm's Euler sampler on a schedule.

    It never clips, and after the last step no noise is left.
    """
    spaced = spaced_as_sgm(steps, schedule.get("num_train_timesteps", 1000))
    return DDIM({**schedule, "set_alpha_to_one": True, "clip_sample": False}, steps, spaced)


def resized(picture: torch.Tensor, side: int) -> torch.Tensor:
    """Return pixels (n, 3, side, side), bilinear with antialiasing as torchvision's Resize."""
    from torch.nn.functional import interpolate

    how = {"mode": "bilinear", "antialias": True, "align_corners": False}
    return interpolate(picture, (side, side), **how)


def blended(picture: torch.Tensor, blur: torch.Tensor, share: float) -> torch.Tensor:
    """Return a picture with a share of a blurry one that is laid over it; MindEye2 takes 0.25.

    At the picture's own size, and published ones at 256 x 256, to which all were reduced before.
    """
    side = picture.shape[-1]
    return (1 - share) * picture.clamp(-1, 1) + share * resized(blur, side)

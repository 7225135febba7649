"""Pictures from Stable Diffusion and its kin: decoded embeddings in the place of a prompt.

One loop draws for all families; a family says which weights it needs and how its UNet is told an
embedding, and no embedding. The loop is ours because the published pipelines compute both rows at
every scale, one scale a call, and a pipeline class in a folder would run that folder's code.

Two families can further be pulled (`guidance`) towards decoded features of CLIP ViT-B/32, as in
NeuralDiffuser but on the textbook x̂0, and towards betas. They also have its self-attention
guidance, which there is on without being mentioned and here an option that is off.

Sampling is DDIM without added noise (eta 0; Song et al. 2021, arXiv 2010.02502), so that a picture
rests on its first noise alone. Published safety checkers are never loaded: they blacken pictures.

MindEye2's SDXL unCLIP is not among the families. Its UNet could be written as a
`UNet2DConditionModel` (``cross_attention_dim`` 1664 for the 256 tokens; "text_time" with four time
ids, no pooled text and 1024 inputs; MedARC-AI/MindEyeV2, configs/unclip6.yaml), but it was
published only as a pickled checkpoint under the names of another library, which is not read here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.embedders.pocket import PocketClip
from backends.embedders.published import (
    ResNet50,
    StableDiffusionLatents,
    ViTB16,
    ViTB32,
    ViTBigG14,
    ViTH14,
    ViTL14,
)
from backends.generators.gallery import Galleries
from backends.generators.guidance import (
    SCALED,
    SELF_ATTENTION,
    Level,
    Pull,
    at_step,
    chosen,
    guided,
    load_encoder,
    predicted,
    towards_betas,
    towards_features,
)
from explorer.protocols import Condition, Embedder, Neighbour, Option, Step
from explorer.types import EmbeddingSpace, UserError

if TYPE_CHECKING:
    import torch

    from backends.generators.guidance import Features
    from backends.generators.tuning import Trainee
    from backends.generators.weights import Part

CONTEXT = EmbeddingSpace("stable-diffusion", "context", (77, 768))
(LATENTS,) = StableDiffusionLatents.spaces
VIT_H = EmbeddingSpace("ViT-H-14", "image", (1024,))
VIT_BIGG = EmbeddingSpace("ViT-bigG-14", "image", (1280,))

PREVIEWS = 3  # looks at the unfinished pictures of a sweep
ROWS_AT_ONCE = 32  # of the UNet, halved when memory runs out
PICTURES_AT_ONCE = 16
SHOWN = 5  # neighbours beside a picture that was drawn from their name
WORKING = 1.5e9  # bytes one row of 64 x 64 latents may take besides the weights: our choice
ADDED = ("image_embeds", "text_embeds", "time_ids")  # what a UNet takes as added_cond_kwargs

# Latents to RGB in -1 ... 1, without decoding (comfyanonymous/ComfyUI, comfy/latent_formats.py)
SD1_COLOURS = (
    *((0.3512, 0.2297, 0.3227), (0.3250, 0.4974, 0.2350)),
    *((-0.2829, 0.1762, 0.2721), (-0.2120, -0.2616, -0.7177)),
)
SDXL_COLOURS = (
    *((0.3920, 0.4054, 0.4549), (-0.2634, -0.0196, 0.0653)),
    *((0.0568, 0.1687, -0.0755), (-0.3112, -0.2359, -0.2076)),
)

BLOCKS = tuple(space for space in ViTB32.spaces if space.layer.startswith("block"))
PULLS = (
    Option(
        *("feature_kappa", 0.0, 1.0, 0.0),
        "How strongly the picture's features in CLIP ViT-B/32 are pulled towards the decoded "
        "ones, as a share of the model's own prediction; 0 is off, and it acts at scale 0 too.",
    ),
    Option(
        *("feature_eta", 0.0, 1.0, 0.2),
        "The share of the steps, from the noisy end, in which features are pulled.",
    ),
    *(
        Option(
            *(f"{space.layer}_weight", 0.0, 2.0, weight),
            f"How much the features of CLIP's {space.layer} count, where the mapper decodes them.",
        )  # as published by NeuralDiffuser
        for space, weight in zip(BLOCKS, (1.5, 1.2, 1.0, 1.0, 1.0, 1.0), strict=True)
    ),
    Option(
        *("brain_kappa", 0.0, 1.0, 0.0),
        "How strongly the picture is pulled towards one that should evoke the measured betas, by "
        "the subject's encoding model; 0 is off, and it acts at scale 0 too.",
        betas=True,
    ),
    Option(
        *("brain_alpha", 0.0, 1.0, 0.5),
        "The share of the steps, from the noisy end, in which betas pull.",
    ),
)

Inputs = dict[str, "torch.Tensor"]  # what a UNet is told beside latents and time, (n, ...) each


def _part(folder: str, cls: str, *files: str, hub: str = "", **expects: Any) -> Part:
    from backends.generators.weights import NETWORK, Part

    return Part(folder, cls, files or NETWORK, expects, hub)


def _pipeline(**unet: Any) -> tuple[Part, ...]:
    """Return UNet (of this configuration), autoencoder and scheduler."""
    return (
        _part("unet", "diffusers:UNet2DConditionModel", in_channels=4, **unet),
        _part("vae", "diffusers:AutoencoderKL", latent_channels=4),
        _part("scheduler", "", "scheduler_config.json"),
    )


def _text(number: str = "", cls: str = "CLIPTextModel") -> tuple[Part, ...]:
    """Return a text encoder and its tokenizer, which give the context of an empty prompt."""
    from backends.generators.weights import TRANSFORMER

    words = ("tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")
    return (
        _part(f"text_encoder{number}", f"transformers:{cls}", *TRANSFORMER),
        _part(f"tokenizer{number}", "", *words),
    )


class LatentDiffusion:
    """What all families share: loading, the loop, guidance, previews.

    ``prediction = uncond + scale * (cond - uncond)``: scale 0 is the generator without the brain,
    1 plain conditional sampling. Only rows that matter are computed, all scales in one batch.

    Parameters
    ----------
    checkpoints
        Its folder ``generators/NAME`` holds the weights, unless ``source`` is given; previews use
        ``taesd`` there or in the folder of the weights.
    device
        Where it computes: in bfloat16 or float16 on a GPU, in float32 elsewhere.
    source
        Another folder in diffusers' layout, or a hub id.

    Attributes
    ----------
    hub, size
        The weights it was made for, and how large they are in all.
    remarks : list of str
        One sentence each about what somebody must know of the weights that were loaded.
    """

    name: str
    hub: str
    size: str
    accepts: tuple[EmbeddingSpace, ...] = ()
    provenance = "generated"
    guided = True
    needs = ()
    options: tuple[Option, ...] = SCALED
    default_steps = 30
    tiny = "taesd"  # the folder of its tiny autoencoder
    colours: tuple[tuple[float, ...], ...] = SD1_COLOURS  # () has no preview but by a tiny one

    def __init__(
        self, checkpoints: Path, device: str = "cpu", source: str | Path | None = None
    ) -> None:
        from backends.generators.weights import Weights, place

        usual = Path(checkpoints) / "generators" / self.name
        self.weights = Weights(self.name, self.hub, self.size, self.parts(), usual, source)
        self.device, self.dtype = device, best_dtype(device)
        self._checkpoints = Path(checkpoints)
        self.remarks: list[str] = []
        self._rows_at_once = ROWS_AT_ONCE
        parts = {part.folder: part for part in self.weights.parts}
        self.unet = self._adapted(self.weights.load(parts["unet"], self.dtype))
        working = WORKING * (self.unet.config.sample_size / 64) ** 2
        placement = place(self.unet, device, working)
        if placement != "whole":
            self.remarks.append(
                f"{self.name} is slower than it could be: for want of free memory on {device}, "
                f"its UNet is {placement}."
            )
        # in half precision published autoencoders overflow
        self.decoder = self.weights.load(parts[self._decoder]).to(device)
        self.scheduler = self.weights.config(parts["scheduler"])
        side = self.unet.config.sample_size
        self.latent_shape = (self.unet.config.in_channels, side, side)
        self._prepare(parts)
        if (self.weights.folder / "safety_checker").is_dir():
            self.remarks.append(
                f"{self.name} does not use the safety checker that lies with its weights: it "
                "would blacken pictures."
            )
        self._tiny = self._find_tiny(Path(checkpoints))

    @property
    def fingerprint(self) -> str:
        """Names the exact files of its weights; reading them all takes seconds, once."""
        return self.weights.fingerprint

    # ----------------------------------------------------------------------- what a family decides

    _decoder = "vae"

    @classmethod
    def parts(cls) -> tuple[Part, ...]:
        """Return the parts of its weights; "unet", "scheduler" and the decoder are among them."""
        raise NotImplementedError

    def _adapted(self, unet: Any) -> Any:
        """Return the UNet with what must be built into it before it is placed."""
        return unet

    def _prepare(self, parts: Mapping[str, Part]) -> None:
        """Load and compute what no condition changes."""

    def _inputs(
        self,
        embeddings: torch.Tensor,
        conditions: Sequence[Condition],
        noise: Sequence[torch.Generator],
        options: Mapping[str, float],
    ) -> tuple[Inputs, Inputs]:
        """Return what the UNet is told with the embeddings (n, ...), and what without them."""
        raise NotImplementedError

    def _added(self, inputs: Inputs) -> dict[str, Any]:
        return {name: inputs[name] for name in ADDED if name in inputs}

    def _begin(
        self,
        noise: torch.Tensor,
        conditions: Sequence[Condition],
        scheduler: Any,
        options: Mapping[str, float],
    ) -> tuple[torch.Tensor, int]:
        """Return the first latents (n, C, S, S) and how many steps are left out."""
        return noise * scheduler.init_noise_sigma, 0

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return pixels (1, 3, H, W) in -1 ... 1 of latents (1, C, S, S)."""
        return self.decoder.decode(latents / self.decoder.config.scaling_factor).sample

    # ------------------------------------------------------------------------------------- drawing

    def sweep(
        self,
        condition: Condition,
        scales: Sequence[float],
        steps: int,
        seed: int,
        **options: float,
    ) -> Iterator[Step]:
        """Yield previews and one finished `Step` per scale, all scales in one batch."""
        looks = {round(steps * k / (PREVIEWS + 1)) for k in range(1, PREVIEWS + 1)}
        for step, latents in self._draw([condition], scales, [seed], steps, options):
            if step == steps:
                for index, scale in enumerate(scales):  # a large picture takes seconds to decode
                    image = self._pictures(latents[index : index + 1])[0]
                    yield Step(index, float(scale), step, steps, image, True)
            elif step in looks:
                for index, image in enumerate(self._previews(latents)):
                    yield Step(index, float(scales[index]), step, steps, image, False)

    def generate(
        self,
        conditions: Sequence[Condition],
        scale: float,
        seeds: Sequence[int],
        steps: int,
        **options: float,
    ) -> np.ndarray:
        """Return uint8 (n, H, W, 3): each condition's finished picture, with its own seed."""
        return self._pictures(self.latents(conditions, scale, seeds, steps, **options))

    def latents(
        self,
        conditions: Sequence[Condition],
        scale: float,
        seeds: Sequence[int],
        steps: int,
        **options: float,
    ) -> torch.Tensor:
        """Return the finished latents float32 (n, C, S, S) of each condition, before decoding."""
        import torch

        if len(conditions) != len(seeds):
            raise UserError(
                f"Give one seed a condition: {len(conditions)} and {len(seeds)} found."
            )
        found = []
        for begin in range(0, len(conditions), PICTURES_AT_ONCE):
            part = slice(begin, begin + PICTURES_AT_ONCE)
            *_, (_, last) = self._draw(conditions[part], [scale], seeds[part], steps, options)
            found.append(last)
        return torch.cat(found)

    def _draw(
        self,
        conditions: Sequence[Condition],
        scales: Sequence[float],
        seeds: Sequence[int],
        steps: int,
        options: Mapping[str, float],
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield (1-based step, estimate of the clean latents); after the last the latents.

        Rows are the scales of one condition, or conditions at one scale.
        """
        import torch
        from diffusers import DDIMScheduler

        options = self._checked(options)
        # each picture has noise of its own, drawn on the CPU: the same alone and on any device
        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        embeddings = torch.stack([self._embedding(condition) for condition in conditions])
        cond, null = self._inputs(embeddings, conditions, generators, options)
        noise = torch.stack([torch.randn(self.latent_shape, generator=g) for g in generators])
        scheduler = DDIMScheduler.from_config(self.scheduler)
        scheduler.set_timesteps(steps, device=self.device)
        latents, first = self._begin(noise.to(self.device), conditions, scheduler, options)
        shared = len(conditions) < len(scales)
        n = max(len(conditions), len(scales))
        guidance = torch.tensor([float(s) for s in scales], device=self.device).expand(n)
        latents = latents.expand(n, -1, -1, -1)
        cond = {name: value.expand(n, *value.shape[1:]) for name, value in cond.items()}
        null = {name: value.expand(n, *value.shape[1:]) for name, value in null.items()}
        pulls = [self._pulls(condition, options) for condition in conditions]
        for step, timestep in enumerate(scheduler.timesteps[first:], start=first + 1):
            scale = at_step(guidance, step, steps, options)
            given = latents, _level(scheduler, timestep), cond, null, scale, options
            acting = [
                [pull for pull in one if pull.acts(step - first, steps - first)] for one in pulls
            ]
            if any(acting):
                prediction = self._pulled(acting * (n // len(acting)), *given)
            else:
                prediction = self._prediction(*given, same=shared and step == first + 1)
            made = scheduler.step(prediction, timestep, latents, eta=0.0)
            latents = made.prev_sample
            yield step, latents if step == steps else made.pred_original_sample

    def _pulls(self, condition: Condition, options: Mapping[str, float]) -> list[Pull]:
        """Return what the picture of a condition is pulled towards."""
        pulls = []
        if options.get("feature_kappa", 0) > 0:
            decoded = [space for space in self._features if space in condition.embeddings]
            targets = {space: self._tensor(condition.embeddings, space)[None] for space in decoded}
            weights = {space: options[f"{space.layer}_weight"] for space in BLOCKS}
            loss = towards_features(self._features, targets, weights)
            pulls.append(Pull(loss, options["feature_kappa"], options["feature_eta"]))
        if options.get("brain_kappa", 0) > 0:
            asked = condition, self._checkpoints, self._features, self.device
            loss = towards_betas(self._features, [condition], [load_encoder(*asked)])
            pulls.append(Pull(loss, options["brain_kappa"], options["brain_alpha"]))
        return pulls

    @cached_property
    def _features(self) -> Features:
        """What guidance sees of pictures; loaded when first seen with."""
        eyes = cache(lambda: ViTB32(self._checkpoints, self.device))

        def seen(space: EmbeddingSpace) -> Callable[[torch.Tensor], torch.Tensor]:
            return lambda pixels: eyes().see(pixels, space)

        return {space: seen(space) for space in ViTB32.spaces}

    def _pulled(
        self,
        pulls: Sequence[Sequence[Pull]],
        latents: torch.Tensor,
        level: Level,
        cond: Inputs,
        null: Inputs,
        scale: torch.Tensor,
        options: Mapping[str, float],
    ) -> torch.Tensor:
        """Return the prediction (n, C, S, S) with each row's pulls, row by row.

        A gradient through UNet and decoder takes all the memory that one picture may.
        """
        import torch

        from backends.generators.weights import is_out_of_memory

        found = []
        for i, pull in enumerate(pulls):
            row = slice(i, i + 1)
            told = [{name: value[row] for name, value in one.items()} for one in (cond, null)]
            how = level, *told, scale[row], options
            try:
                predict = partial(lambda how, z: self._prediction(z, *how, same=False), how)
                found.append(guided(latents[row], predict, level.clean, self._decode, pull)[0])
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._refuse_for_memory()
        return torch.cat(found)

    def _prediction(
        self,
        latents: torch.Tensor,
        level: Level,
        cond: Inputs,
        null: Inputs,
        scale: torch.Tensor,
        options: Mapping[str, float],
        same: bool,
    ) -> torch.Tensor:
        """Return the guided prediction float32 (n, C, S, S).

        ``same``: all rows have the same latents and inputs, so one of each kind is enough.
        """
        import torch

        def predict(
            noisy: torch.Tensor, with_brain: torch.Tensor, without: torch.Tensor
        ) -> torch.Tensor:
            told = {
                name: torch.cat([cond[name][with_brain], null[name][without]]) for name in cond
            }
            return self._predict(noisy, level.timestep, told)

        return predicted(latents, level, scale, predict, self.unet, options, same)

    def _predict(
        self, latents: torch.Tensor, timestep: torch.Tensor, inputs: Inputs
    ) -> torch.Tensor:
        """Return the UNet's prediction float32 (n, C, S, S), in smaller batches if it must be."""
        import torch

        from backends.generators.weights import is_out_of_memory

        found, begin = [], 0
        while begin < len(latents):
            part = slice(begin, begin + self._rows_at_once)
            told = {name: value[part].to(self.dtype) for name, value in inputs.items()}
            error = None
            try:
                predicted = self.unet(
                    latents[part].to(self.dtype),
                    timestep,
                    encoder_hidden_states=told.get("context"),
                    class_labels=told.get("class_labels"),
                    added_cond_kwargs=self._added(told) or None,
                ).sample
            except RuntimeError as raised:
                if not is_out_of_memory(raised):
                    raise
                error = str(raised)  # the error itself would keep the tensors alive
            if error is not None:
                self._fewer_rows(len(latents[part]))
                continue
            # a UNet that also predicts variances gives them as further channels
            found.append(predicted[:, : self.latent_shape[0]].float())
            begin = part.stop
        return torch.cat(found)

    def _fewer_rows(self, rows: int) -> None:
        """Halve the rows of a batch that did not fit; one row alone raises `UserError`."""
        if rows == 1:
            self._refuse_for_memory()
        self._rows_at_once = rows // 2
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()

    def _refuse_for_memory(self) -> None:
        from backends.generators.weights import GB, free_memory

        free = free_memory(self.device)
        left = f", with {free / GB:.1f} GB free" if free is not None else ""
        raise UserError(
            f"{self.name} ran out of memory on {self.device} with a single picture{left}; close "
            f"other programs, use a device on which its weights ({self.size}) and a few GB more "
            "fit, or choose pocket-diffusion."
        )

    # ---------------------------------------------------------------------------- in and out of it

    def _checked(self, options: Mapping[str, float]) -> dict[str, float]:
        """Return all options; an unknown one or one out of range raises `UserError`."""
        return chosen(self.name, self.options, options)

    def _embedding(self, condition: Condition) -> torch.Tensor:
        """Return the condition's embedding on the device; none raises `UserError`."""
        space = next((space for space in self.accepts if space in condition.embeddings), None)
        if space is None:
            found = ", ".join(space.name for space in condition.embeddings) or "none"
            known = ", ".join(space.name for space in self.accepts)
            raise UserError(
                f"{self.name} draws from {known}, the mapper gave {found}; choose a mapper with "
                "such a target."
            )
        return self._tensor(condition.embeddings, space)

    def _tensor(
        self, values_of: Mapping[EmbeddingSpace, torch.Tensor], space: EmbeddingSpace
    ) -> torch.Tensor:
        import torch

        values = torch.as_tensor(values_of[space])
        return values.float().reshape(space.shape).to(self.device)

    def _pictures(self, latents: torch.Tensor) -> np.ndarray:
        from backends.generators.weights import is_out_of_memory

        pictures = []
        for row in latents.split(1):  # a decoder takes more memory than the UNet
            try:
                pictures.append(_pixels(self._decode(row)))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._refuse_for_memory()
        return np.concatenate(pictures)

    def _previews(self, latents: torch.Tensor) -> np.ndarray:
        """Return rough pictures uint8 (n, H, W, 3); none where latents cannot be shown."""
        import torch

        if self._tiny is not None:
            rows = [_pixels(self._tiny.decode(row).sample) for row in latents.split(1)]
            return np.concatenate(rows)
        if not self.colours:
            return np.empty((0, 1, 1, 3), np.uint8)
        factors = torch.tensor(self.colours, device=latents.device)
        return _pixels(torch.einsum("nchw,cr->nrhw", latents, factors))

    def _find_tiny(self, checkpoints: Path) -> Any:
        """Return the tiny autoencoder of its latents, None without any."""
        from backends.generators.weights import taesd

        places = [self.weights.folder / self.tiny, checkpoints / self.tiny]
        found = next((place for place in places if self.tiny and place.is_dir()), None)
        return None if found is None else taesd(found).to(self.device)

    def _words(self, parts: Mapping[str, Part], number: str = "") -> tuple[Any, Any]:
        """Return a tokenizer and its text encoder, on the CPU."""
        from transformers import CLIPTokenizer

        words = CLIPTokenizer.from_pretrained(
            self.weights.path(parts[f"tokenizer{number}"]), local_files_only=True
        )
        return words, self.weights.load(parts[f"text_encoder{number}"])

    def _empty_prompt(self, parts: Mapping[str, Part], number: str = "") -> Any:
        """Return what a text encoder says of an empty prompt; it is not kept."""
        return said(*self._words(parts, number), "")


def _level(scheduler: Any, timestep: torch.Tensor) -> Level:
    """Return the noise level of a timestep, by the scheduler's cumulative product."""
    kept = scheduler.alphas_cumprod[int(timestep)].item()
    return Level(timestep, kept**0.5, (1 - kept) ** 0.5, scheduler.config.prediction_type)


def said(words: Any, encoder: Any, prompt: str) -> Any:
    """Return what a text encoder says of a prompt, padded and cut to 77 tokens."""
    import torch

    shape = {"padding": "max_length", "max_length": 77, "truncation": True}
    ids = words(prompt, **shape, return_tensors="pt").input_ids
    with torch.inference_mode():
        return encoder(ids.to(encoder.device), output_hidden_states=True)


def best_dtype(device: str) -> torch.dtype:
    """Return the type in which a UNet computes on a device."""
    import torch

    if not device.startswith("cuda"):
        return torch.float32
    fast = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if fast else torch.float16


def _pixels(decoded: torch.Tensor) -> np.ndarray:
    """Return uint8 (n, H, W, 3) of pixels (n, 3, H, W) in about -1 ... 1."""
    import torch

    grey_levels = decoded.clamp(-1, 1).add(1).mul(127.5).round()
    return grey_levels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


class StableContext(LatentDiffusion):
    """Stable Diffusion 1.4 or 1.5 with a decoded text context (77, 768) in place of a prompt's.

    Without the brain it gets the null that the mapper has learned, or else the context of the
    empty prompt, as the model was trained; a fine-tuned one gets its own. Where the mapper also
    decodes latents z, drawing starts from them with noise up to the share ``strength`` of the
    steps, as published image-to-image.
    """

    name, size = "sd15-context", "4.3 GB"
    hub = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    accepts = (CONTEXT,)
    needs = ("betas",)
    options = (
        *SCALED,
        SELF_ATTENTION,
        *PULLS,
        Option(
            "strength",
            0.0,
            1.0,
            0.75,
            "The share of the steps that are drawn anew over decoded latents, where the mapper "
            "gives them; 1 keeps next to nothing of them.",
        ),
    )

    def __init__(
        self, checkpoints: Path, device: str = "cpu", source: str | Path | None = None
    ) -> None:
        """Load its weights, and those fine-tuned from them in ``source``."""
        from backends.generators.tuning import tuned_card, tuned_remarks

        self._tuned, self._source = tuned_card(source, self.name), source
        began = (self._tuned.settings["base"] or None) if self._tuned else source
        super().__init__(checkpoints, device, began)
        if self._tuned:
            self.remarks += tuned_remarks(self._tuned)

    @classmethod
    def parts(cls) -> tuple[Part, ...]:
        """Return its parts, as in Stable Diffusion 1.x."""
        return (*_pipeline(cross_attention_dim=768), *_text())

    @classmethod
    def for_training(cls, checkpoints: Path, source: str | Path | None = None) -> Trainee:
        """Return what `backends.commands.finetune` trains; it begins with published weights."""
        from backends.generators.tuning import NoiseTrainee, tuned_card

        if tuned_card(source, cls.name):
            raise UserError(
                f"{source} is fine-tuned already; name the weights that it began with: "
                f"--generator {cls.name}=PATH_OR_ID."
            )
        made = cls(checkpoints, "cpu", source)
        side = made.latent_shape[1] * 2 ** (len(made.decoder.config.block_out_channels) - 1)
        return NoiseTrainee(
            made.decoder,
            made.scheduler,
            generator=cls.name,
            space=CONTEXT,
            unet=made.unet,
            null=made._null,
            base=made.fingerprint,
            source=made.weights.source,
            shape=made.latent_shape,
            side=side,
        )

    @property
    def fingerprint(self) -> str:
        """Names the exact files of its weights, fine-tuned ones included."""
        from backends.embedders.files import hash_of_files
        from explorer.mapper import CARD, WEIGHTS

        if not self._tuned:
            return super().fingerprint
        folder = Path(self._source).expanduser()
        return super().fingerprint + hash_of_files(folder / CARD, folder / WEIGHTS)

    def _adapted(self, unet: Any) -> Any:
        import torch

        from backends.generators.tuning import Learned, read_tuned

        if self._tuned:
            learned = Learned(CONTEXT, unet, torch.zeros(CONTEXT.shape))
            read_tuned(self._source, self._tuned, learned, self.weights.fingerprint)
            self._projection = learned.projection.to(self.device)
            self._null = learned.null.to(self.device)
        return unet

    def _prepare(self, parts: Mapping[str, Part]) -> None:
        if not self._tuned:
            self._null = self._empty_prompt(parts).last_hidden_state[0].to(self.device)

    def _inputs(
        self,
        embeddings: torch.Tensor,
        conditions: Sequence[Condition],
        noise: Sequence[torch.Generator],
        options: Mapping[str, float],
    ) -> tuple[Inputs, Inputs]:
        import torch

        if self._tuned:  # one null in training and here, whatever a mapper has
            null = self._null.expand(len(embeddings), -1, -1)
            return {"context": self._projection(embeddings)}, {"context": null}
        nulls = [
            self._tensor(condition.nulls, CONTEXT) if CONTEXT in condition.nulls else self._null
            for condition in conditions
        ]
        return {"context": embeddings}, {"context": torch.stack(nulls)}

    def _begin(
        self,
        noise: torch.Tensor,
        conditions: Sequence[Condition],
        scheduler: Any,
        options: Mapping[str, float],
    ) -> tuple[torch.Tensor, int]:
        import torch

        with_latents = [LATENTS in condition.embeddings for condition in conditions]
        if not any(with_latents):
            return super()._begin(noise, conditions, scheduler, options)
        if not all(with_latents):
            raise UserError(
                f"Of {len(conditions)} conditions {sum(with_latents)} have {LATENTS.name}, the "
                "others have not; draw them apart."
            )
        if self.latent_shape != LATENTS.shape:
            raise UserError(
                f"{self.name} cannot start from {LATENTS.name} {LATENTS.shape}: these weights "
                f"draw latents {self.latent_shape}; name weights of 512 x 512 pixels with "
                f"--generator {self.name}=PATH_OR_ID."
            )
        steps = len(scheduler.timesteps)
        kept = max(1, min(int(steps * options["strength"]), steps))
        z = torch.stack([self._tensor(condition.embeddings, LATENTS) for condition in conditions])
        first = steps - kept
        return scheduler.add_noise(z, noise, scheduler.timesteps[first : first + 1]), first


class StableLabel(LatentDiffusion):
    """Stable Diffusion 1.4 or 1.5 with a class name as its prompt: that of the nearest pictures.

    The decoded embedding is compared with a gallery, by default the data set's own training
    stimuli; ``source`` ``PATH_OR_ID?gallery=FOLDER`` names a folder with one sub-folder a class.
    Only the name reaches the picture: where and how large things are was not decoded. Without the
    brain the prompt is empty. As ridge with nearest neighbours on GOD was published, but with
    names as a person writes them.
    """

    name, size = "sd15-label", "4.3 GB"
    hub = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    embedders = (ViTL14, ViTH14, ViTBigG14, ViTB32, ResNet50, ViTB16, PocketClip)
    accepts = tuple(cls.spaces[0] for cls in embedders)
    needs = ("dataset",)
    options = (
        *SCALED,
        Option(
            "votes",
            1,
            25,
            1,
            "How many of the nearest pictures decide the class name, by majority; 1 takes the "
            "nearest one's.",
            whole=True,
        ),
    )

    def __init__(
        self,
        checkpoints: Path,
        device: str = "cpu",
        source: str | Path | None = None,
        cache: Path | None = None,
    ) -> None:
        weights, _, folder = str(source or "").partition("?gallery=")
        self._galleries = Galleries(self.name, folder or None, cache)
        self._embedders: dict[EmbeddingSpace, Embedder] = {}
        super().__init__(checkpoints, device, weights or None)

    @classmethod
    def parts(cls) -> tuple[Part, ...]:
        """Return its parts, as in Stable Diffusion 1.x."""
        return (*_pipeline(cross_attention_dim=768), *_text())

    def _prepare(self, parts: Mapping[str, Part]) -> None:
        words, encoder = self._words(parts)
        self._text = words, encoder.to(self.device)
        self._null = said(*self._text, "").last_hidden_state

    def sweep(
        self,
        condition: Condition,
        scales: Sequence[float],
        steps: int,
        seed: int,
        **options: float,
    ) -> Iterator[Step]:
        """Yield steps that say the class name and its neighbours; see `LatentDiffusion.sweep`."""
        prompt, found = self.prompt(condition, **options)
        gallery, votes = self._galleries.of(condition), int(self._checked(options)["votes"])
        whose = f"most of the {votes} nearest" if votes > 1 else "the nearest"
        note = (
            f'drawn from the words "{prompt}" alone, the class of {whose} of {len(gallery)} '
            f"{gallery.title}; nothing else of the image was decoded"
        )
        for step in super().sweep(condition, scales, steps, seed, **options):
            yield replace(step, note=note, neighbours=found)

    def prompt(self, condition: Condition, **options: float) -> tuple[str, tuple[Neighbour, ...]]:
        """Return a condition's class name, and its nearest pictures (5, or as many as vote)."""
        votes, z = int(self._checked(options)["votes"]), self._embedding(condition)
        space = next(space for space in self.accepts if space in condition.embeddings)
        given = z.cpu().numpy(), space, self._embedder(space)
        gallery = self._galleries.of(condition)
        words, found = gallery.prompt(*given, votes, majority=votes > 1)
        return words, found if votes > SHOWN else gallery.nearest(*given, SHOWN)

    def _embedder(self, space: EmbeddingSpace) -> Embedder:
        if space not in self._embedders:
            cls = next(cls for cls in self.embedders if space in cls.spaces)
            self._embedders[space] = cls(self._checkpoints, self.device)
        return self._embedders[space]

    def _inputs(
        self,
        embeddings: torch.Tensor,
        conditions: Sequence[Condition],
        noise: Sequence[torch.Generator],
        options: Mapping[str, float],
    ) -> tuple[Inputs, Inputs]:
        import torch

        prompts = [self.prompt(condition, **options)[0] for condition in conditions]
        context = torch.cat([said(*self._text, one).last_hidden_state for one in prompts])
        return {"context": context}, {"context": self._null.expand_as(context)}


class StableUnCLIP(LatentDiffusion):
    """Stable Diffusion 2.1 unCLIP: told a ViT-H/14 image embedding beside an empty prompt.

    The embedding is noised as in its training, to a level that it is told too. Without the brain
    it gets zeros (diffusers, pipeline_stable_unclip_img2img.py).
    """

    name, size = "unclip", "5.2 GB"
    hub = "sd2-community/stable-diffusion-2-1-unclip"  # Stability AI took its own away in 2025
    accepts = (VIT_H,)
    needs = ("betas",)
    options = (
        *SCALED,
        SELF_ATTENTION,
        *PULLS,
        Option(
            "noise_level",
            0.0,
            999.0,
            0.0,
            "How much noise is added to the decoded embedding before drawing: more gives more "
            "varied pictures that follow it less.",
            whole=True,
        ),
    )

    @classmethod
    def parts(cls) -> tuple[Part, ...]:
        """Return its parts; the image encoder is left out, as embeddings are decoded."""
        told = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 2048}
        normalizer = "diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer"
        return (
            *_pipeline(cross_attention_dim=1024, **told),
            *_text(),
            _part(
                "image_normalizer", f"{normalizer}:StableUnCLIPImageNormalizer", embedding_dim=1024
            ),
            _part("image_noising_scheduler", "", "scheduler_config.json"),
        )

    def _prepare(self, parts: Mapping[str, Part]) -> None:
        from diffusers import DDPMScheduler

        self._context = self._empty_prompt(parts).last_hidden_state.to(self.device)
        normalizer = self.weights.load(parts["image_normalizer"]).to(self.device)
        self._normalizer = normalizer.requires_grad_(False)  # its own `to` makes parameters anew
        noising = self.weights.config(parts["image_noising_scheduler"])
        self._noising = DDPMScheduler.from_config(noising)

    def _inputs(
        self,
        embeddings: torch.Tensor,
        conditions: Sequence[Condition],
        noise: Sequence[torch.Generator],
        options: Mapping[str, float],
    ) -> tuple[Inputs, Inputs]:
        import torch
        from diffusers.models.embeddings import get_timestep_embedding

        drawn = torch.stack([torch.randn(VIT_H.shape, generator=g) for g in noise])
        level = torch.full((len(embeddings),), int(options["noise_level"]), device=self.device)
        scaled = self._normalizer.scale(embeddings)
        noised = self._noising.add_noise(scaled, drawn.to(self.device), level)
        told = get_timestep_embedding(level, VIT_H.size, True, 0)
        labels = torch.cat([self._normalizer.unscale(noised), told], dim=1)
        context = self._context.expand(len(labels), -1, -1)
        return (
            {"context": context, "class_labels": labels},
            {"context": context, "class_labels": torch.zeros_like(labels)},
        )


class Kandinsky(LatentDiffusion):
    """The decoder of Kandinsky 2.2, told a ViT-bigG/14 image embedding and no text at all.

    Without the brain it gets the embedding of an empty picture, as published: that takes the image
    encoder of the prior's repository, once (diffusers, pipeline_kandinsky2_2_prior.py).
    """

    name, size = "kandinsky", "about 9 GB"
    hub = "kandinsky-community/kandinsky-2-2-decoder"
    accepts = (VIT_BIGG,)
    tiny, colours = "", ()  # latents of another autoencoder than Stable Diffusion's
    _decoder = "movq"

    @classmethod
    def parts(cls) -> tuple[Part, ...]:
        """Return its parts, from the repositories of decoder and prior."""
        from backends.generators.weights import TRANSFORMER

        told = {"encoder_hid_dim_type": "image_proj", "encoder_hid_dim": VIT_BIGG.size}
        encoder = "transformers:CLIPVisionModelWithProjection"
        prior = "kandinsky-community/kandinsky-2-2-prior"
        return (
            _part(
                "unet",
                "diffusers:UNet2DConditionModel",
                addition_embed_type="image",
                in_channels=4,
                **told,
            ),
            _part("movq", "diffusers:VQModel", latent_channels=4),
            _part("scheduler", "", "scheduler_config.json"),
            _part("image_encoder", encoder, *TRANSFORMER, hub=prior, projection_dim=VIT_BIGG.size),
        )

    def _prepare(self, parts: Mapping[str, Part]) -> None:
        import torch

        encoder = self.weights.load(parts["image_encoder"])
        side = encoder.config.image_size
        with torch.inference_mode():
            self._null = encoder(torch.zeros(1, 3, side, side)).image_embeds.to(self.device)

    def _inputs(
        self,
        embeddings: torch.Tensor,
        conditions: Sequence[Condition],
        noise: Sequence[torch.Generator],
        options: Mapping[str, float],
    ) -> tuple[Inputs, Inputs]:
        return {"image_embeds": embeddings}, {"image_embeds": self._null.expand_as(embeddings)}

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.decoder.decode(latents, force_not_quantize=True).sample


class IPAdapter(LatentDiffusion):
    """IP-Adapter on Stable Diffusion 1.5: told a ViT-H/14 image embedding beside an empty prompt.

    Without the brain it gets zeros in its place, as in its training (Ye et al. 2023, arXiv
    2308.06721).
    """

    name, size = "ip-adapter", "4.3 GB"
    hub = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    adapter = ("models", "ip-adapter_sd15.safetensors")
    accepts = (VIT_H,)

    @classmethod
    def parts(cls) -> tuple[Part, ...]:
        """Return the parts of Stable Diffusion 1.5, and the adapter's own file."""
        return (*_pipeline(cross_attention_dim=768), *_text(), cls._adapter_part())

    @classmethod
    def _adapter_part(cls) -> Part:
        folder, file = cls.adapter
        return _part(folder, "", file, hub="h94/IP-Adapter")

    def _adapted(self, unet: Any) -> Any:
        from diffusers.loaders import IPAdapterMixin

        class Loader(IPAdapterMixin):
            """What diffusers' own loader takes for a pipeline."""

            unet: Any

        part = self._adapter_part()
        path = self.weights.file(part, part.files[0])
        loader = Loader()
        loader.unet = unet
        try:
            loader.load_ip_adapter(
                str(path.parent), subfolder="", weight_name=path.name, local_files_only=True
            )
            width = unet.encoder_hid_proj.image_projection_layers[0].image_embeds.in_features
            if width != VIT_H.size:
                raise ValueError(f"it reads embeddings of {width} values, not {VIT_H.size}")
        except Exception as error:  # whatever diffusers says of a file that does not fit
            first = str(error).strip().split("\n")[0].rstrip(".")
            raise UserError(
                f"{path} cannot be loaded as an IP-Adapter of {self.name} "
                f"({type(error).__name__}: {first}); get it again with: {self.weights.command}."
            ) from error
        return unet.eval().requires_grad_(False)

    def _prepare(self, parts: Mapping[str, Part]) -> None:
        self._prompt = {"context": self._empty_prompt(parts).last_hidden_state}

    def _inputs(
        self,
        embeddings: torch.Tensor,
        conditions: Sequence[Condition],
        noise: Sequence[torch.Generator],
        options: Mapping[str, float],
    ) -> tuple[Inputs, Inputs]:
        import torch

        n, image = len(embeddings), embeddings[:, None]  # one picture each
        prompt = {
            name: value.to(self.device).expand(n, *value.shape[1:])
            for name, value in self._prompt.items()
        }
        zeros = torch.zeros_like(image)
        return {**prompt, "image_embeds": image}, {**prompt, "image_embeds": zeros}

    def _added(self, inputs: Inputs) -> dict[str, Any]:
        return super()._added(inputs) | {"image_embeds": [inputs["image_embeds"]]}


class IPAdapterXL(IPAdapter):
    """IP-Adapter on Stable Diffusion XL, with a ViT-H/14 image embedding like the smaller one.

    The prompt is empty with and without the brain, as in the adapter's training: the zeros that
    the published pipeline takes for an absent negative prompt would make guidance about text too.
    """

    name, size = "ip-adapter-xl", "7.6 GB"
    hub = "stabilityai/stable-diffusion-xl-base-1.0"
    adapter = ("sdxl_models", "ip-adapter_sdxl_vit-h.safetensors")
    tiny, colours = "taesdxl", SDXL_COLOURS

    @classmethod
    def parts(cls) -> tuple[Part, ...]:
        """Return the parts of Stable Diffusion XL in half precision, and the adapter's file."""
        told = {"addition_embed_type": "text_time", "projection_class_embeddings_input_dim": 2816}
        full = (
            *_pipeline(cross_attention_dim=2048, **told),
            *_text(),
            *_text("_2", "CLIPTextModelWithProjection"),
        )
        return (*(part.in_half() for part in full), cls._adapter_part())

    def _prepare(self, parts: Mapping[str, Part]) -> None:
        import torch

        # as in pipeline_stable_diffusion_xl.py: the last but one states of both encoders
        one, two = self._empty_prompt(parts), self._empty_prompt(parts, "_2")
        context = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1)
        factor = 2 ** (len(self.decoder.config.block_out_channels) - 1)
        pixels = float(self.latent_shape[1] * factor)
        size = torch.tensor([[pixels, pixels, 0, 0, pixels, pixels]])  # original, crop, target
        self._prompt = {"context": context, "text_embeds": two.text_embeds, "time_ids": size}

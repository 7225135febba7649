"""The stages that train pocket-diffusion: its autoencoder, then its denoiser."""

from __future__ import annotations

import numpy as np
import torch

from backends.commands.demo.build import Build
from backends.embedders.pocket import WordTokenizer, clip_model
from backends.generators.networks import (
    AUTOENCODER,
    DENOISER,
    LATENT,
    SCHEDULER,
    Autoencoder,
    PocketNetworks,
)
from backends.generators.pocket import IMAGE
from backends.simulation.scenes import object_mask
from backends.training.fit import fit
from backends.training.plan import batches, clock, in_chunks
from explorer.mapper import read_card, read_weights

CONDITION_DROPOUT = 0.12
CONDITION_NOISE = 0.4  # at most, relative to the length of an embedding
TIMESTEP_SHIFT = 2.0
OBJECT_WEIGHT = 4.0  # of an error on an object, relative to one on the background
LATENT_NOISE = 0.05  # relative to latents of about unit size


def autoencoder(build: Build) -> None:
    """Train pocket-diffusion's autoencoder: absolute error of pixels and of their gradients.

    A little noise is added to the latents in training, so that the decoder forgives the small
    errors of a denoiser (our choice, instead of a variational bottleneck).
    """
    sizes = build.sizes
    model = fresh_networks(build).autoencoder
    model.start_from_principal_components(
        build.batch(build.pictures, np.arange(min(len(build.pictures), 512)))
    )

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        rows = batches(len(build.library), sizes.autoencoder_batch, step, sizes.autoencoder.seed)
        pixels = build.batch(build.pictures, rows)
        latents = model.encode(pixels)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        error = model.decode(latents + LATENT_NOISE * noise).float() - pixels
        down = (error[:, :, 1:] - error[:, :, :-1]).abs().mean()
        across = (error[..., 1:] - error[..., :-1]).abs().mean()
        return error.abs().mean() + 0.5 * (down + across)

    seconds = build.fit("autoencoder", model, loss, sizes.autoencoder)
    psnr = psnr_of(build, model)
    build.progress(f"autoencoder: {clock(seconds)}, PSNR {psnr:.2f} dB on held-out pictures")


def denoiser(build: Build) -> None:
    """Train pocket-diffusion's denoiser: rectified flow on latents (Liu et al. 2023).

    Timesteps are logit-normal and shifted towards noise, where shapes are decided (Esser et
    al. 2024, equation 23). Errors on objects weigh more: they cover a seventh of a picture and
    are what people look at. Half of the conditions are noised, because embeddings decoded from
    a brain never are exact; `CONDITION_DROPOUT` of them are replaced by the learned null.
    """
    sizes = build.sizes
    networks = fresh_networks(build)
    networks.autoencoder = networks.autoencoder.to("cpu")
    ae_seconds = fit(
        "autoencoder",
        networks.autoencoder,
        _finished,
        sizes.autoencoder,
        work=build.work,
        progress=None,
    )
    networks = networks.to(build.device)
    latents = latents_of(build, networks)
    embeddings = clip_embeddings(build)
    covers = torch.from_numpy(np.stack([object_mask(s, LATENT[1]) for s in build.library]))
    trained = torch.nn.ModuleDict({"denoiser": networks.denoiser, "condition": networks.condition})

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        rows = batches(len(build.library), sizes.denoiser_batch, step, sizes.denoiser.seed)
        rows = torch.from_numpy(rows)
        clean = latents[rows].float().to(build.device)
        noise = torch.randn(clean.shape, generator=generator).to(build.device)
        time = torch.randn(len(rows), generator=generator).sigmoid()
        time = (TIMESTEP_SHIFT * time / (1 + (TIMESTEP_SHIFT - 1) * time)).to(build.device)
        mixed = torch.lerp(clean, noise, time[:, None, None, None])
        given = embeddings[rows]
        amount = torch.rand(len(rows), 1, generator=generator).mul(2).sub(1).clamp(min=0)
        # a unit vector in 128 dimensions: noise of this size has `amount` of its length
        wobble = torch.randn(given.shape, generator=generator) / given.shape[1] ** 0.5
        given = (given + CONDITION_NOISE * amount * wobble).to(build.device)
        tokens = networks.condition(given)
        dropped = torch.rand(len(rows), generator=generator) < CONDITION_DROPOUT
        tokens = torch.where(
            dropped[:, None, None].to(build.device), networks.condition.null, tokens
        )
        flow = networks.velocity(mixed, tokens, time * 1000).float()
        weight = 1 + (OBJECT_WEIGHT - 1) * covers[rows, None].to(build.device)
        return ((flow - (noise - clean)).square() * weight).mean() / weight.mean()

    seconds = build.fit("denoiser", trained, loss, sizes.denoiser)
    metrics = {
        "autoencoder PSNR (dB)": psnr_of(build, networks),
        "N": len(build.held_out),
    }
    settings = {
        "architecture": {"autoencoder": AUTOENCODER, "denoiser": DENOISER},
        "scheduler": SCHEDULER,
        "plan": repr(sizes.denoiser),
        "batch": sizes.denoiser_batch,
        "timestep_shift": TIMESTEP_SHIFT,
        "object_weight": OBJECT_WEIGHT,
        "autoencoder_plan": repr(sizes.autoencoder),
        "condition_dropout": CONDITION_DROPOUT,
        "condition_noise": CONDITION_NOISE,
    }
    build.write(
        "pocket-diffusion",
        "generator",
        networks,
        ae_seconds + seconds,
        settings,
        metrics,
        targets=(IMAGE,),
    )


@torch.inference_mode()
def psnr_of(build: Build, model: Autoencoder | PocketNetworks) -> float:
    """Return the mean PSNR in dB of held-out pictures that went through the latents and back."""
    errors = torch.cat(
        [
            (model.decode(model.encode(part)).clamp(-1, 1) - part)
            .div(2)
            .square()
            .mean(dim=(1, 2, 3))
            .cpu()
            for part in build.held_out_batches()
        ]
    )
    return float((-10 * errors.log10()).mean())


def fresh_networks(build: Build) -> PocketNetworks:
    """Return untrained networks, the same each time."""
    torch.manual_seed(build.sizes.autoencoder.seed)
    return PocketNetworks(AUTOENCODER, DENOISER).to(build.device)


@torch.inference_mode()
def latents_of(build: Build, networks: PocketNetworks) -> torch.Tensor:
    """Return the library's standardised latents float16, and set the networks' statistics."""
    with build.half_precision():
        parts = [
            networks.autoencoder.encode(build.batch(build.pictures, np.arange(p.start, p.stop)))
            .float()
            .cpu()
            for p in in_chunks(len(build.pictures), 64)
        ]
    latents = torch.cat(parts)
    networks.standardise(latents)
    return ((latents - networks.latent_mean) / networks.latent_scale).half().clone()


@torch.inference_mode()
def clip_embeddings(build: Build) -> torch.Tensor:
    """Return the library's pocket-clip image embeddings float32 (n, 128), unit norm."""
    folder = build.checkpoints / "pocket-clip"
    vocabulary = read_card(folder).settings["architecture"]["vocabulary"]
    model = clip_model(WordTokenizer(vocabulary).size)
    model.load_state_dict(read_weights(folder, model.state_dict()))
    model.to(build.device).eval()
    with build.half_precision():
        parts = [
            model.encode_image(
                build.batch(build.pictures, np.arange(p.start, p.stop)), normalize=True
            )
            .float()
            .cpu()
            for p in in_chunks(len(build.pictures), 128)
        ]
    return torch.cat(parts).clone()


def _finished(step: int, generator: torch.Generator) -> torch.Tensor:
    """Stand in for the loss of a model that must already be trained."""
    raise RuntimeError("the autoencoder has not finished training; run that stage first")

"""Builds everything the embedded study needs, from seeds: data, pocket models, mappers.

``python -m backends build-demo``. On two cores the study, the pocket models and ridge take under
110 minutes, the mappers of the other systems some 15 more, and ``--quick`` under 4 in all. Every
stage resumes where it stopped; a finished one is skipped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from backends.embedders.pocket import WordTokenizer, clip_model
from backends.generators.networks import AUTOENCODER, DENOISER, LATENT, SCHEDULER, PocketNetworks
from backends.generators.pocket import IMAGE
from backends.simulation.judge import judge_network, names
from backends.simulation.scenes import (
    CATEGORIES,
    SETTINGS,
    Scene,
    object_mask,
    render,
    sample_scenes,
)
from backends.training.fit import fit
from backends.training.machine import versions
from backends.training.plan import Plan, Progress, batches, clock, in_chunks
from explorer.mapper import read_card, read_weights, write_checkpoint
from explorer.types import Card, EmbeddingSpace, Trials, UserError

LICENCE = "MIT"
LIBRARY_SEED = (
    17  # the pictures the models learn from; the study's stimuli have seeds of their own
)
HELD_OUT_SEED = 18  # the figures on the cards are measured on these
CONDITION_DROPOUT = 0.12
CONDITION_NOISE = 0.4  # at most, relative to the length of an embedding
TIMESTEP_SHIFT = 2.0
OBJECT_WEIGHT = 4.0  # of an error on an object, relative to one on the background
LATENT_NOISE = 0.05  # relative to latents of about unit size
# The other four systems, one mapper of all subjects each: target layers of pocket-clip, settings.
# Narrow, so that all of them ship in a few megabytes.
SYSTEMS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "contrastive": (
        ("image", "text"),
        {"width": 128, "hidden": 128, "voxel_dropout": 0.5, "noise": 1.0, "epochs": 30},
    ),
    "flow": (("image",), {"epochs": 20}),
    "masked": (("image", "tokens", "context"), {"pretrain_epochs": 4, "epochs": 8}),
    "mixer": (("image", "tokens", "context"), {"epochs": 20, "hidden": 16}),
}


@dataclass(frozen=True)
class Sizes:
    """How much is made and for how long each model learns."""

    pictures: int
    held_out: int
    clip: Plan
    clip_batch: int
    autoencoder: Plan
    autoencoder_batch: int
    judge: Plan
    judge_batch: int
    denoiser: Plan
    denoiser_batch: int
    adapters: Plan
    adapters_batch: int


FULL = Sizes(
    pictures=16_000,
    held_out=512,
    clip=Plan(steps=1_500, lr=1e-3, weight_decay=0.1, warmup=100, average=0.99, seed=1),
    clip_batch=192,
    autoencoder=Plan(steps=6_000, lr=4e-4, warmup=200, average=0.998, seed=2),
    autoencoder_batch=8,
    judge=Plan(steps=1_000, lr=3e-3, weight_decay=0.05, average=0.98, seed=3),
    judge_batch=64,
    denoiser=Plan(steps=9_000, lr=7e-4, weight_decay=0.01, warmup=300, average=0.999, seed=4),
    denoiser_batch=64,
    adapters=Plan(steps=500, lr=2e-3, warmup=50, average=0.98, seed=5),
    adapters_batch=256,
)
QUICK = Sizes(
    pictures=192,
    held_out=48,
    clip=Plan(steps=12, lr=1e-3, seed=1),
    clip_batch=48,
    autoencoder=Plan(steps=12, lr=1e-3, average=0.99, seed=2),
    autoencoder_batch=8,
    judge=Plan(steps=12, lr=2e-3, seed=3),
    judge_batch=48,
    denoiser=Plan(steps=12, lr=6e-4, average=0.99, seed=4),
    denoiser_batch=16,
    adapters=Plan(steps=12, lr=1e-3, seed=5),
    adapters_batch=48,
)


class Build:
    """One build: where its files go and what its stages share.

    ``work`` keeps the rendered pictures and the resume files; ``checkpoints`` and ``assets`` what
    ships. Each stage is a method; `STAGES` gives their order.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        assets: Path,
        checkpoints: Path,
        work: Path,
        device: str,
        command: str,
        progress: Progress,
    ) -> None:
        self.sizes, self.assets, self.checkpoints, self.work = sizes, assets, checkpoints, work
        self.device, self.command, self.progress = device, command, progress
        self.quick = sizes is QUICK
        work.mkdir(parents=True, exist_ok=True)
        checkpoints.mkdir(parents=True, exist_ok=True)

    # ------------------------------------------------------------------------------ what is shared

    @cached_property
    def library(self) -> list[Scene]:
        """The scenes that the models learn from."""
        return sample_scenes(self.sizes.pictures, LIBRARY_SEED)

    @cached_property
    def held_out(self) -> list[Scene]:
        """Scenes that no model learns from."""
        return sample_scenes(self.sizes.held_out, HELD_OUT_SEED)

    @cached_property
    def pictures(self) -> torch.Tensor:
        """The library rendered: uint8 (n, 3, 128, 128), kept in the work folder."""
        return self._rendered("library", self.library)

    @cached_property
    def held_out_pictures(self) -> torch.Tensor:
        """The held-out scenes rendered: uint8 (n, 3, 128, 128)."""
        return self._rendered("held-out", self.held_out)

    def _rendered(self, name: str, scenes: Sequence[Scene]) -> torch.Tensor:
        file = self.work / f"{name}-{len(scenes)}.npy"
        if not file.exists():
            pixels = np.empty((len(scenes), 3, 128, 128), np.uint8)
            told = time.monotonic()
            for i, scene in enumerate(scenes):
                pixels[i] = render(scene).transpose(2, 0, 1)
                if time.monotonic() - told > 10:
                    told = time.monotonic()
                    self.progress(f"pictures: {i + 1}/{len(scenes)} rendered")
            part = file.with_suffix(".part.npy")
            np.save(part, pixels)
            part.replace(file)
        return torch.from_numpy(np.load(file, allow_pickle=False))

    def _batch(self, pictures: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        chosen = pictures[torch.from_numpy(rows)].to(self.device)
        return chosen.float().div_(127.5).sub_(1).contiguous(memory_format=torch.channels_last)

    def _fit(
        self,
        name: str,
        model: torch.nn.Module,
        loss: Callable[[int, torch.Generator], torch.Tensor],
        plan: Plan,
    ) -> float:
        return fit(
            name, model, loss, plan, work=self.work, device=self.device, progress=self.progress
        )

    def _write(
        self,
        name: str,
        kind: str,
        model: torch.nn.Module,
        seconds: float,
        settings: Mapping[str, Any],
        metrics: Mapping[str, Any],
        **card: Any,
    ) -> None:
        settings = dict(settings)
        architecture = settings.pop("architecture")
        write_checkpoint(
            self.checkpoints / name,
            model.state_dict(),
            Card(
                kind=kind,
                name=name,
                cls=name,
                dataset="simulated",
                command=self.command,
                licence=LICENCE,
                settings={"library_seed": LIBRARY_SEED, "pictures": self.sizes.pictures}
                | settings,
                metrics=metrics,
                seconds=round(seconds, 1),
                device=device_name(self.device),
                versions=versions("torch", "diffusers", "open_clip_torch", "numpy"),
                **card,
            ),
            half=True,
            architecture=architecture,
        )
        told = ", ".join(f"{k} {v:.3g}" for k, v in metrics.items() if isinstance(v, float))
        self.progress(f"{name}: written after {clock(seconds)} of training; {told}")

    # --------------------------------------------------------------------------------- the stages

    def clip(self) -> None:
        """Train pocket-clip: symmetric InfoNCE of pictures and captions (Radford et al. 2021).

        A batch's captions differ most in place, colour and light, which would leave little reason
        to see what kind of object it is. So each picture is also matched against the names of the
        categories, as in contrastive training on labels (Yang et al. 2022, arXiv 2204.03610).
        """
        sizes = self.sizes
        tokenizer = WordTokenizer.learn([scene.caption for scene in self.library])
        torch.manual_seed(sizes.clip.seed)
        model = clip_model(tokenizer.size).to(self.device)
        texts = tokenizer([scene.caption for scene in self.library])
        names_of = list(CATEGORIES)
        kinds = tokenizer(names_of)
        kind = torch.tensor([names_of.index(scene.category) for scene in self.library])

        def loss(step: int, generator: torch.Generator) -> torch.Tensor:
            rows = batches(len(self.library), sizes.clip_batch, step, sizes.clip.seed)
            pixels = self._batch(self.pictures, rows)
            # nudged by up to 3 pixels: edges must not fall on the same patch borders each epoch
            dx, dy = torch.randint(-3, 4, (2,), generator=generator).tolist()
            pixels = shifted(pixels, dx, dy)
            image = model.encode_image(pixels, normalize=True).float()
            both = torch.cat([texts[rows], kinds]).to(self.device)
            text = model.encode_text(both, normalize=True).float()
            logits = model.logit_scale.exp().clamp(max=100) * image @ text.T
            pairs, kinds_said = logits[:, : len(rows)], logits[:, len(rows) :]
            right = torch.arange(len(rows), device=self.device)
            caption = (F.cross_entropy(pairs, right) + F.cross_entropy(pairs.T, right)) / 2
            return caption + F.cross_entropy(kinds_said, kind[rows].to(self.device))

        seconds = self._fit("pocket-clip", model, loss, sizes.clip)
        with torch.inference_mode():
            image = torch.cat(
                [
                    model.encode_image(part, normalize=True).float().cpu()
                    for part in self._held_out_batches()
                ]
            )
            text = model.encode_text(
                tokenizer([scene.caption for scene in self.held_out]).to(self.device),
                normalize=True,
            )
        ranks = (image @ text.float().cpu().T).argsort(dim=1, descending=True)
        found = ranks == torch.arange(len(image))[:, None]
        metrics = {
            "image to caption, top 1": found[:, 0].float().mean().item(),
            "image to caption, top 5": found[:, :5].any(dim=1).float().mean().item(),
            "chance of top 1": 1 / len(image),
            "N": len(image),
        }
        architecture = {"vocabulary": list(tokenizer.vocabulary)}
        plan = {"architecture": architecture, "plan": repr(sizes.clip), "batch": sizes.clip_batch}
        self._write("pocket-clip", "embedder", model, seconds, plan, metrics, targets=(IMAGE,))

    def judge(self) -> None:
        """Train pocket-judge: category and setting, on pictures slightly blurred and noised."""
        sizes = self.sizes
        torch.manual_seed(sizes.judge.seed)
        model = judge_network().to(self.device, memory_format=torch.channels_last)
        categories = list(CATEGORIES)
        category = torch.tensor([categories.index(s.category) for s in self.library])
        setting = torch.tensor([SETTINGS.index(s.setting) for s in self.library])

        def loss(step: int, generator: torch.Generator) -> torch.Tensor:
            rows = batches(len(self.library), sizes.judge_batch, step, sizes.judge.seed)
            pixels = self._batch(self.pictures, rows)
            dx, dy = torch.randint(-6, 7, (2,), generator=generator).tolist()
            pixels = shifted(pixels, dx, dy)
            amount = torch.rand((len(rows), 1, 1, 1), generator=generator).to(pixels)
            soft = F.avg_pool2d(pixels, 3, stride=1, padding=1, count_include_pad=False)
            pixels = torch.lerp(pixels, soft, amount)
            pixels = pixels + 0.05 * torch.randn(pixels.shape, generator=generator).to(pixels)
            logits = model(pixels).float()
            right = category[rows].to(self.device), setting[rows].to(self.device)
            return F.cross_entropy(
                logits[:, : len(categories)], right[0], label_smoothing=0.05
            ) + F.cross_entropy(logits[:, len(categories) :], right[1], label_smoothing=0.05)

        seconds = self._fit("pocket-judge", model, loss, sizes.judge)
        with torch.inference_mode():
            logits = torch.cat([model(part).float().cpu() for part in self._held_out_batches()])
        said = names(logits.numpy())
        metrics = {
            f"{what} accuracy": float(
                np.mean(
                    [
                        getattr(s, what) == name
                        for s, name in zip(self.held_out, said[what], strict=True)
                    ]
                )
            )
            for what in ("category", "supercategory", "setting")
        } | {"N": len(self.held_out)}
        plan = {"architecture": {"width": 32}, "plan": repr(sizes.judge)}
        self._write("pocket-judge", "judge", model, seconds, plan, metrics)

    def autoencoder(self) -> None:
        """Train pocket-diffusion's autoencoder: absolute error of pixels and of their gradients.

        A little noise is added to the latents in training, so that the decoder forgives the small
        errors of a denoiser (our choice, instead of a variational bottleneck).
        """
        sizes = self.sizes
        model = self._fresh_networks().autoencoder
        model.start_from_principal_components(
            self._batch(self.pictures, np.arange(min(len(self.pictures), 512)))
        )

        def loss(step: int, generator: torch.Generator) -> torch.Tensor:
            rows = batches(
                len(self.library), sizes.autoencoder_batch, step, sizes.autoencoder.seed
            )
            pixels = self._batch(self.pictures, rows)
            latents = model.encode(pixels)
            noise = torch.randn(latents.shape, generator=generator).to(latents)
            error = model.decode(latents + LATENT_NOISE * noise).float() - pixels
            down = (error[:, :, 1:] - error[:, :, :-1]).abs().mean()
            across = (error[..., 1:] - error[..., :-1]).abs().mean()
            return error.abs().mean() + 0.5 * (down + across)

        seconds = self._fit("autoencoder", model, loss, sizes.autoencoder)
        with torch.inference_mode():
            errors = torch.cat(
                [
                    (model.decode(model.encode(part)).clamp(-1, 1) - part)
                    .div(2)
                    .square()
                    .mean(dim=(1, 2, 3))
                    .cpu()
                    for part in self._held_out_batches()
                ]
            )
        psnr = float((-10 * errors.log10()).mean())
        self.progress(f"autoencoder: {clock(seconds)}, PSNR {psnr:.2f} dB on held-out pictures")

    def denoiser(self) -> None:
        """Train pocket-diffusion's denoiser: rectified flow on latents (Liu et al. 2023).

        Timesteps are logit-normal and shifted towards noise, where shapes are decided (Esser et
        al. 2024, equation 23). Errors on objects weigh more: they cover a seventh of a picture and
        are what people look at. Half of the conditions are noised, because embeddings decoded from
        a brain never are exact; `CONDITION_DROPOUT` of them are replaced by the learned null.
        """
        sizes = self.sizes
        networks = self._fresh_networks()
        networks.autoencoder = networks.autoencoder.to("cpu")
        ae_seconds = fit(
            "autoencoder",
            networks.autoencoder,
            _finished,
            sizes.autoencoder,
            work=self.work,
            progress=None,
        )
        networks = networks.to(self.device)
        latents = self._latents(networks)
        embeddings = self._clip_embeddings()
        covers = torch.from_numpy(np.stack([object_mask(s, LATENT[1]) for s in self.library]))
        trained = torch.nn.ModuleDict(
            {"denoiser": networks.denoiser, "condition": networks.condition}
        )

        def loss(step: int, generator: torch.Generator) -> torch.Tensor:
            rows = batches(len(self.library), sizes.denoiser_batch, step, sizes.denoiser.seed)
            rows = torch.from_numpy(rows)
            clean = latents[rows].float().to(self.device)
            noise = torch.randn(clean.shape, generator=generator).to(self.device)
            time = torch.randn(len(rows), generator=generator).sigmoid()
            time = (TIMESTEP_SHIFT * time / (1 + (TIMESTEP_SHIFT - 1) * time)).to(self.device)
            mixed = torch.lerp(clean, noise, time[:, None, None, None])
            given = embeddings[rows]
            amount = torch.rand(len(rows), 1, generator=generator).mul(2).sub(1).clamp(min=0)
            # a unit vector in 128 dimensions: noise of this size has `amount` of its length
            wobble = torch.randn(given.shape, generator=generator) / given.shape[1] ** 0.5
            given = (given + CONDITION_NOISE * amount * wobble).to(self.device)
            tokens = networks.condition(given)
            dropped = torch.rand(len(rows), generator=generator) < CONDITION_DROPOUT
            tokens = torch.where(
                dropped[:, None, None].to(self.device), networks.condition.null, tokens
            )
            flow = networks.velocity(mixed, tokens, time * 1000).float()
            weight = 1 + (OBJECT_WEIGHT - 1) * covers[rows, None].to(self.device)
            return ((flow - (noise - clean)).square() * weight).mean() / weight.mean()

        seconds = self._fit("denoiser", trained, loss, sizes.denoiser)
        with torch.inference_mode():
            errors = torch.cat(
                [
                    (networks.decode(networks.encode(part)).clamp(-1, 1) - part)
                    .div(2)
                    .square()
                    .mean(dim=(1, 2, 3))
                    .cpu()
                    for part in self._held_out_batches()
                ]
            )
        metrics = {
            "autoencoder PSNR (dB)": float((-10 * errors.log10()).mean()),
            "N": len(errors),
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
        self._write(
            "pocket-diffusion",
            "generator",
            networks,
            ae_seconds + seconds,
            settings,
            metrics,
            targets=(IMAGE,),
        )

    def adapters(self) -> None:
        """Train the adapters from pocket-clip's tokens and text context to its image embedding."""
        from backends.embedders.pocket import PocketClip
        from backends.generators.adapters import Adapter, as_decoded
        from backends.generators.pocket import ADAPTED

        sizes, embedder = self.sizes, PocketClip(self.checkpoints, self.device)
        torch.manual_seed(sizes.adapters.seed)
        adapters = torch.nn.ModuleDict({space.layer: Adapter(*space.shape) for space in ADAPTED})
        made = self._adapter_examples(embedder, self.pictures, self.library)
        for layer, adapter in adapters.items():
            adapter.set_statistics(made[layer])

        def loss(step: int, generator: torch.Generator) -> torch.Tensor:
            rows = batches(len(self.library), sizes.adapters_batch, step, sizes.adapters.seed)
            goal, lost = made["image"][rows], []
            for layer, adapter in adapters.items():
                found = adapter(as_decoded(made[layer][rows], adapter, generator))
                lost.append(1 - (found.float() * goal).sum(dim=1).mean())
            return torch.stack(lost).sum()

        seconds = fit(
            "pocket-adapters",
            adapters,
            loss,
            sizes.adapters,
            work=self.work,
            progress=self.progress,
        )
        held_out = self._adapter_examples(embedder, self.held_out_pictures, self.held_out)
        metrics: dict[str, Any] = {}
        with torch.inference_mode():
            for layer, adapter in adapters.items():
                found = (adapter(held_out[layer]) * held_out["image"]).sum(dim=1)
                metrics[f"{layer} to image, cosine"] = found.mean().item()
        self._write(
            "pocket-adapters",
            "generator",
            adapters,
            seconds,
            {"architecture": {}, "plan": repr(sizes.adapters), "batch": sizes.adapters_batch},
            metrics | {"N": len(self.held_out)},
            targets=ADAPTED,
        )

    @torch.inference_mode()
    def _adapter_examples(
        self, embedder: Any, pictures: torch.Tensor, scenes: Sequence[Scene]
    ) -> dict[str, torch.Tensor]:
        """Return pocket-clip's image (n, 128), tokens and context of pictures, in half precision.

        The image embeddings are float32.
        """
        ids = embedder.tokenizer([scene.caption for scene in scenes])
        found: dict[str, list[torch.Tensor]] = {"image": [], "tokens": [], "context": []}
        with self._half_precision():
            for part in in_chunks(len(pictures), 128):
                pixels = self._batch(pictures, np.arange(part.start, part.stop))
                found["image"].append(embedder.encode(pixels).float().cpu())
                found["tokens"].append(embedder.encode_tokens(pixels).half().cpu())
                found["context"].append(embedder.encode_context(ids[part]).half().cpu())
        return {layer: torch.cat(parts).clone() for layer, parts in found.items()}

    def data(self) -> None:
        """Write the simulated study; a finished one is left as it is."""
        from backends.datasets.simulated import build

        if (self.assets / "dataset.json").exists():
            self.progress(f"data: {self.assets} is there already")
            return
        build(self.assets, self.progress, quick=self.quick)

    def mappers(self) -> None:
        """Fit a ridge from betas to pocket-clip/image for every subject."""
        from backends.datasets.simulated import Simulated
        from backends.embedders.pocket import PocketClip
        from backends.embedders.store import embed_stimuli

        study = Simulated(self.assets, progress=self.progress)
        embedder = PocketClip(self.checkpoints, self.device)
        embeddings = {IMAGE: embed_stimuli(study, list(study.stimuli.index), embedder, IMAGE)}
        study.keep_embeddings(embeddings[IMAGE], IMAGE, embedder.fingerprint)
        for subject in study.subjects():
            self._mapper("ridge", [study.load(subject)], embeddings, {})

    def systems(self) -> None:
        """Train the mappers of the other systems, each on all subjects together (`SYSTEMS`)."""
        from backends.datasets.simulated import Simulated
        from backends.embedders.pocket import PocketClip
        from backends.embedders.store import embed_stimuli

        study = Simulated(self.assets, progress=self.progress)
        embedder = PocketClip(self.checkpoints, self.device)
        spaces = {space.layer: space for space in (*embedder.spaces, *embedder.text_spaces)}
        stimuli, embeddings = list(study.stimuli.index), {}
        every = [study.load(subject) for subject in study.subjects()]
        for kind, (layers, settings) in SYSTEMS.items():
            for layer in layers:
                if layer not in embeddings:
                    space = spaces[layer]
                    embeddings[layer] = embed_stimuli(
                        study, stimuli, embedder, space, self.progress
                    )
            targets = {spaces[layer]: embeddings[layer] for layer in layers}
            if self.quick:
                settings = {k: 1 if "epochs" in k else v for k, v in settings.items()}
            self._mapper(kind, every, targets, settings)

    def encoding(self) -> None:
        """Fit the encoding models, from pocket-clip's image embedding to each subject's betas."""
        from backends.datasets.simulated import Simulated
        from backends.embedders.pocket import PocketClip
        from backends.embedders.store import embed_stimuli
        from backends.encoders.voxelwise import train_encoding

        study = Simulated(self.assets, progress=self.progress)
        embedder = PocketClip(self.checkpoints, self.device)
        embeddings = {IMAGE: embed_stimuli(study, list(study.stimuli.index), embedder, IMAGE)}
        for subject in study.subjects():
            card = train_encoding(
                study.load(subject),
                embeddings,
                self.checkpoints / "encoding" / "simulated" / subject,
                command=self.command,
                licence=LICENCE,
                half=True,
                progress=self.progress,
            )
            self.progress(f"encoding of {subject}: {card.metrics['test']}")

    def evaluation(self) -> None:
        """Compare all mappers on the test trials: the tables that the page shows."""
        import shutil

        from backends import DATASETS, EMBEDDERS, GENERATORS, MAPPERS
        from backends.reports.mappers import compare, write
        from explorer.evidence import evaluation
        from explorer.workbench import Workbench

        bench = Workbench(
            *(DATASETS, EMBEDDERS, MAPPERS, GENERATORS),
            checkpoints=self.checkpoints,
            paths={"simulated": self.assets},
            device=self.device,
        )
        limit = 24 if self.sizes is QUICK else None
        found = compare(bench, "simulated", limit=limit, progress=self.progress)
        folder = self.checkpoints / evaluation.FOLDER / "simulated"
        folder.mkdir(parents=True, exist_ok=True)
        for path in write(found, self.work / "evaluation"):
            if path.name in (evaluation.TABLE, evaluation.TRIALS, evaluation.MEANING):
                shutil.copyfile(path, folder / f"{path.name}.part")
                (folder / f"{path.name}.part").replace(folder / path.name)

    # ------------------------------------------------------------------------------ stage helpers

    def _mapper(
        self,
        kind: str,
        trials: Sequence[Trials],
        targets: Mapping[EmbeddingSpace, Mapping[str, np.ndarray]],
        settings: Mapping[str, Any],
    ) -> None:
        """Train a mapper of some subjects and write its checkpoint."""
        from backends import MAPPERS
        from backends.commands.train import train_mapper
        from explorer.types import resolve

        name = "-".join([kind, *(one.subject.name for one in trials)])
        card = train_mapper(
            kind,
            resolve(MAPPERS[kind]),
            trials,
            targets,
            self.checkpoints / "mappers" / "simulated" / name,
            command=self.command,
            licence=LICENCE,
            device=device_name(self.device),
            half=True,
            progress=self.progress,
            run_on=self.device,
            trackers=(),
            **settings,
        )
        self.progress(f"{name}: {card.metrics['test']}")

    def _held_out_batches(self) -> list[torch.Tensor]:
        every = self.held_out_pictures
        return [
            self._batch(every, np.arange(part.start, part.stop))
            for part in in_chunks(len(every), 64)
        ]

    def _fresh_networks(self) -> PocketNetworks:
        torch.manual_seed(self.sizes.autoencoder.seed)
        networks = PocketNetworks(AUTOENCODER, DENOISER).to(self.device)
        networks.autoencoder.to(memory_format=torch.channels_last)
        return networks

    def _half_precision(self) -> torch.autocast:
        """Return the context in which the examples are made: rounding does no harm there."""
        return torch.autocast(self.device.split(":")[0], dtype=torch.bfloat16)

    @torch.inference_mode()
    def _latents(self, networks: PocketNetworks) -> torch.Tensor:
        """Return the library's standardised latents float16, and set the networks' statistics."""
        with self._half_precision():
            parts = [
                networks.autoencoder.encode(self._batch(self.pictures, np.arange(p.start, p.stop)))
                .float()
                .cpu()
                for p in in_chunks(len(self.pictures), 64)
            ]
        latents = torch.cat(parts)
        networks.standardise(latents)
        return ((latents - networks.latent_mean) / networks.latent_scale).half().clone()

    @torch.inference_mode()
    def _clip_embeddings(self) -> torch.Tensor:
        """Return the library's pocket-clip image embeddings float32 (n, 128), unit norm."""
        folder = self.checkpoints / "pocket-clip"
        vocabulary = read_card(folder).settings["architecture"]["vocabulary"]
        model = clip_model(WordTokenizer(vocabulary).size)
        model.load_state_dict(read_weights(folder, model.state_dict()))
        model.to(self.device).eval()
        with self._half_precision():
            parts = [
                model.encode_image(
                    self._batch(self.pictures, np.arange(p.start, p.stop)), normalize=True
                )
                .float()
                .cpu()
                for p in in_chunks(len(self.pictures), 128)
            ]
        return torch.cat(parts).clone()


STAGES = (
    "data",
    "clip",
    "autoencoder",
    "judge",
    "denoiser",
    "adapters",
    "mappers",
    "systems",
    "encoding",
    "evaluation",
)


def run(build: Build, only: Sequence[str] = ()) -> None:
    """Run all stages in order, or those named in ``only``; each resumes where it stopped."""
    unknown = [stage for stage in only if stage not in STAGES]
    if unknown:
        raise UserError(f"There is no stage {unknown[0]!r}; choose from {', '.join(STAGES)}.")
    began = time.monotonic()
    for stage in only or STAGES:
        getattr(build, stage)()
    build.progress(f"done in {clock(time.monotonic() - began)}")


def _finished(step: int, generator: torch.Generator) -> torch.Tensor:
    """Stand in for the loss of a model that must already be trained."""
    raise RuntimeError("the autoencoder has not finished training; run that stage first")


def shifted(pixels: torch.Tensor, dx: int, dy: int) -> torch.Tensor:
    """Return pixels (n, 3, H, W) moved right by dx and down by dy, borders repeated."""
    room = max(abs(dx), abs(dy))
    if not room:
        return pixels
    padded = F.pad(pixels, (room,) * 4, mode="replicate")
    height, width = pixels.shape[2:]
    return padded[:, :, room - dy : room - dy + height, room - dx : room - dx + width]


def device_name(device: str) -> str:
    """Return what the card says of the hardware: the GPU's name, or the number of CPU threads."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"

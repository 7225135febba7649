"""pocket-diffusion: a small latent diffusion model for the simulated scenes, from diffusers parts.

The networks (``networks``) and the steps on a rectified flow (``solver``) are put together here: a
pipeline class inside a checkpoint folder would run that folder's code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.generators.guidance import SCALED, SELF_ATTENTION, Level, at_step, predicted
from backends.generators.memory import has_fast_bfloat16
from backends.generators.pulls import (
    Pull,
    guided,
    load_encoder,
    towards_betas,
    towards_features,
)
from backends.generators.sampling import Sampling, Wanted, pixels, source_of_noise, through
from backends.generators.solver import Fitted, Multistep, read_solver
from explorer.files import guard
from explorer.protocols import Condition, Option, TrainedOn
from explorer.types import CARD, WEIGHTS, EmbeddingSpace, UserError

if TYPE_CHECKING:
    import torch

    from backends.encoders.voxelwise import Encoding
    from backends.generators.networks import PocketNetworks
    from backends.generators.pulls import Features, Loss
    from backends.generators.tuning import Trainee

IMAGE = EmbeddingSpace("pocket-clip", "image", (128,), unit_norm=True)
TOKENS = EmbeddingSpace("pocket-clip", "tokens", (64, 192))
CONTEXT = EmbeddingSpace("pocket-clip", "context", (24, 96))
ADAPTED = (TOKENS, CONTEXT)  # by `adapters` into an image embedding
SIDE = 128  # pixels of a picture
ROWS_AT_ONCE = 32
CANDIDATES = 8
OPTIONS = (
    *SCALED,
    SELF_ATTENTION,
    Option(
        *("feature_kappa", 0, 1, 0),
        "How strongly the picture's pocket-clip features are pulled towards the decoded ones, as "
        "a share of the model's own prediction; 0 is off, 0.1 to 0.2 a good start, and it acts at "
        "guidance scale 0 too.",
    ),
    Option(
        *("feature_eta", 0, 1, 0.5),
        "The share of the steps, from the noisy end, in which features are pulled.",
    ),
    Option(
        *("image_weight", 0, 2, 1),
        "How much the image embedding counts among the features that are pulled.",
    ),
    Option(
        *("tokens_weight", 0, 2, 1),
        "How much the features of 8 x 8 patches count, where the mapper decodes them.",
    ),
    Option(
        *("brain_kappa", 0, 1, 0),
        "How strongly the picture is pulled towards one that should evoke the measured betas, by "
        "the subject's encoding model; 0 is off, 0.1 to 0.2 a good start, and it acts at guidance "
        "scale 0 too.",
        betas=True,
    ),
    Option(
        *("brain_alpha", 0, 1, 0.5),
        "The share of the steps, from the noisy end, in which betas pull.",
    ),
    Option(
        *("candidates", 1, CANDIDATES, 1),
        "How many pictures are drawn, from this seed on, of which only the best is shown.",
        whole=True,
    ),
    Option(
        *("best_by", 0, 1, 0),
        "What says which candidate is best: 0 the decoded embedding, 1 the predicted betas.",
        whole=True,
        betas=True,
    ),
)


class PocketDiffusion(Sampling):
    """Pictures of a decoded pocket-clip image embedding, with classifier-free guidance.

    Decoded tokens or text context go through an adapter into an image embedding first.

    ``prediction = uncond + scale * (cond - uncond)``: scale 0 is the generator without the brain,
    1 the plain conditional model. Further guidance (`guidance`) is off unless an option turns it
    on: by the denoiser's own attention, by decoded features, and by the betas themselves through
    an encoding model.
    """

    name = "pocket-diffusion"
    accepts = (IMAGE, *ADAPTED)
    provenance = "generated"
    guided = True
    needs = ("betas",)
    options: tuple[Option, ...] = OPTIONS
    trained_on = TrainedOn(
        "the simulated scenes of the embedded study alone", ("simulated", "simulated-imagery")
    )
    default_steps = 8

    def __init__(
        self, checkpoints: Path, device: str = "cpu", source: str | Path | None = None
    ) -> None:
        """Load ``pocket-diffusion`` from the checkpoints; damaged files raise `UserError`.

        ``source``: a folder of weights fine-tuned from those (`backends.generators.finetuning`).
        """
        import torch

        self._checkpoints = Path(checkpoints)
        networks, settings, base = _load(self._checkpoints)
        self.remarks: list[str] = []
        self._projection: torch.nn.Module | None = None
        if source:
            self._tune(networks, source, base)
        self.networks = networks.to(device).eval().requires_grad_(False)
        if has_fast_bfloat16(device):
            # Module.to itself: diffusers' own warns of layers to keep exact, and here are none
            torch.nn.Module.to(networks.denoiser, torch.bfloat16)
            torch.nn.Module.to(networks.autoencoder.correction.decoder, torch.bfloat16)
        self.device = device
        self.scheduler = dict(settings["scheduler"])
        self.fitted = read_solver(self._checkpoints / "pocket-diffusion")
        self._encoders: dict[tuple[str, str, str] | None, Encoding] = {}
        if self._projection is not None:
            self._projection.to(device)

    @classmethod
    def for_training(cls, checkpoints: Path, source: str | Path | None = None) -> Trainee:
        """Return what `backends.generators.finetuning` trains; it begins with what ships."""
        from backends.generators.tuning import FlowTrainee

        if source:
            raise UserError(
                f"pocket-diffusion is fine-tuned from the weights in checkpoints, found {source}; "
                "leave out --generator."
            )
        networks, settings, base = _load(Path(checkpoints))
        networks.eval()
        return FlowTrainee(
            networks,
            settings["timestep_shift"],
            generator="pocket-diffusion",
            space=IMAGE,
            base=base,
            source="",
            side=SIDE,
        )

    def _tune(self, networks: PocketNetworks, source: str | Path, base: str) -> None:
        """Put fine-tuned weights into the networks, and keep their projection."""
        from backends.generators.tuning import Learned, read_tuned, tuned_card, tuned_remarks

        card = tuned_card(source, "pocket-diffusion")
        if card is None:
            raise UserError(
                f"{source} has no card.json, expected a folder that python -m backends finetune "
                "pocket-diffusion wrote; its other weights ship and are not named."
            )
        learned = Learned(IMAGE, networks.denoiser, networks.condition.null[0])
        read_tuned(source, card, learned, base)
        networks.condition.null.data.copy_(learned.null[None])
        self._projection = learned.projection
        self.remarks += tuned_remarks(card)

    def autoencoded(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return images uint8 (H, W, 3), encoded and decoded again, uint8 (n, 128, 128, 3)."""
        encode, decode = self.networks.encode, self.networks.decode
        return through(encode, decode, images, SIDE, self.device)

    def alike_without_brain(self, **options: float) -> bool:
        """Return whether a seed's picture at scale 0 is the same for all: nothing pulls it."""
        how = self._chosen(options)
        return how["feature_kappa"] == how["brain_kappa"] == 0 and how["candidates"] == 1

    # ------------------------------------------------------------------------------------- drawing

    def _at_once(self, how: Mapping[str, float]) -> int:
        return ROWS_AT_ONCE // int(how["candidates"])

    def _draw(
        self,
        conditions: Sequence[Condition],
        scales: Sequence[float],
        seeds: Sequence[int],
        steps: int,
        how: Mapping[str, float],
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield (1-based step, estimate of the clean latents (n, 16, 16, 16)).

        A picture has one row for each of its candidates, side by side.
        """
        import torch

        n, pictures = int(how["candidates"]), max(len(conditions), len(scales))
        rows = _rows(list(conditions) * (pictures // len(conditions)), how)
        noise = torch.cat([self._noise(seed + i) for seed in seeds for i in range(n)])
        latents = noise.repeat(pictures // len(seeds), 1, 1, 1)
        guidance = torch.tensor([float(s) for s in scales], device=self.device)
        guidance = guidance.repeat(pictures // len(scales)).repeat_interleave(n)
        embeddings = torch.stack([self._embedding(one) for one in rows])
        if self._projection is not None:
            embeddings = self._projection(embeddings)
        tokens, pulls = self.networks.condition(embeddings), self._pulls(rows, how)
        walk = self._solver(steps).begin(latents, guidance)
        for step, timestep in enumerate(walk.timesteps, start=1):
            sigma = walk.sigmas[step - 1].to(latents)
            level = Level(timestep, 1 - sigma, sigma, "flow_prediction")
            acting = [pull for pull in pulls if pull.acts(step, steps)]
            alike = n == 1 == len(conditions)  # one noise and one embedding
            predict = partial(
                predicted,
                level=level,
                scale=at_step(guidance, step, steps, how),
                predict=partial(self._velocity, tokens, timestep),
                unet=self.networks.denoiser,
                options=how,
                same=alike and step == 1 and not acting,
            )
            if acting:
                velocity, clean = guided(
                    latents, predict, level.clean, self.networks.decode, acting
                )
            else:
                velocity = predict(latents)
                clean = level.clean(latents, velocity)
            latents = walk.next(latents, velocity, clean)
            yield step, latents if step == steps else clean

    def _solver(self, steps: int) -> Fitted | Multistep:
        """Return how a number of steps is taken: fitted ones where there are as many."""
        if self.fitted is not None and steps == len(self.fitted.sigmas):
            return self.fitted
        return Multistep(steps, self.scheduler)

    def _velocity(
        self,
        tokens: torch.Tensor,
        timestep: torch.Tensor,
        latents: torch.Tensor,
        with_brain: torch.Tensor,
        without: torch.Tensor,
    ) -> torch.Tensor:
        """Return the velocity (a + b, 16, 16, 16) with tokens of rows (a,), and without (b,)."""
        import torch

        null = self.networks.condition.null.expand(len(without), -1, -1)
        told = torch.cat([tokens[with_brain], null])
        return self.networks.velocity(latents, told, timestep.expand(len(latents)))

    def _pulls(self, rows: Sequence[Condition], how: Mapping[str, float]) -> list[Pull]:
        """Return what pictures are pulled towards, [] without further guidance."""
        pulls = []
        if how["feature_kappa"] > 0:
            weights = {IMAGE: how["image_weight"], TOKENS: how["tokens_weight"]}
            loss = self._towards_features(rows, weights)
            pulls.append(Pull(loss, how["feature_kappa"], how["feature_eta"]))
        if how["brain_kappa"] > 0:
            loss = self._towards_betas(rows)
            pulls.append(Pull(loss, how["brain_kappa"], how["brain_alpha"]))
        return pulls

    def _towards_features(
        self, conditions: Sequence[Condition], weights: Mapping[EmbeddingSpace, float]
    ) -> Loss:
        """Return the loss of pictures whose features are not those decoded, one condition each.

        The image embedding is what is drawn from, by an adapter if the mapper gives none.
        """
        import torch

        targets = {IMAGE: torch.stack([self._embedding(one) for one in conditions])}
        if all(TOKENS in one.embeddings for one in conditions):
            decoded = [self._tensor(one.embeddings, TOKENS) for one in conditions]
            targets[TOKENS] = torch.stack(decoded)
        return towards_features(self._features, targets, weights)

    def _towards_betas(self, conditions: Sequence[Condition]) -> Loss:
        encoders = [self._encoder(one) for one in conditions]
        return towards_betas(self._features, conditions, encoders)

    def _encoder(self, condition: Condition) -> Encoding:
        """Return the encoding model of a condition's subject, loaded once."""
        subject = condition.subject
        key = (subject.dataset, subject.name, subject.voxels.hash) if subject else None
        if key not in self._encoders or condition.betas is None:
            self._encoders[key] = load_encoder(
                condition, self._checkpoints, self._features, self.device
            )
        return self._encoders[key]

    @cached_property
    def _features(self) -> Features:
        """What guidance sees of pictures; loaded by the first that is guided."""
        from backends.embedders.pocket import PocketClip

        clip = PocketClip(self._checkpoints, self.device)
        return {IMAGE: clip.encode, TOKENS: clip.encode_tokens}

    def _finished(
        self, latents: torch.Tensor, wanted: Sequence[Wanted], how: Mapping[str, float]
    ) -> Iterator[tuple[np.ndarray, str]]:
        """Yield the best candidate for each wanted picture, and a note of the choice."""
        import torch

        decoded, n = self.networks.decode(latents), int(how["candidates"])
        if n == 1:
            yield from ((picture, "") for picture in pixels(decoded))
            return
        rows = _rows([one.condition for one in wanted], how)
        if how["best_by"]:
            loss, measure = self._towards_betas(rows), "predicted to measured betas"
        else:
            loss = self._towards_features(rows, {IMAGE: 1.0})
            measure = "pocket-clip similarity to the decoded embedding"
        with torch.no_grad():
            alike = 1 - loss(decoded.clamp(-1, 1)).view(-1, n)  # (conditions, candidates)
        best = alike.argmax(dim=1)
        first = torch.arange(len(best), device=best.device) * n
        for picture, one in zip(pixels(decoded[first + best]), alike, strict=True):
            yield (
                picture,
                f"best of {n} by {measure}: {one.max():.3f}, the {n} have {one.mean():.3f} on "
                "average",
            )

    def _previews(self, latents: torch.Tensor, how: Mapping[str, float]) -> np.ndarray:
        """Return the previews of the first candidates."""
        return pixels(self.networks.preview(latents[:: int(how["candidates"])]))

    def _embedding(self, condition: Condition) -> torch.Tensor:
        """Return the condition's embedding (128,) on the device; none raises `UserError`."""
        import torch

        space, decoded = self._decoded(condition)
        if space == IMAGE:
            return decoded
        with torch.no_grad():  # not inference mode: guidance needs gradients beside it
            return self._adapters[space.layer](decoded[None])[0]

    @cached_property
    def _adapters(self) -> torch.nn.ModuleDict:
        """Layer -> its adapter; loaded by the first mapper that needs one."""
        from torch.nn import ModuleDict

        from backends.generators.adapters import Adapter
        from explorer.mapper import read_weights

        adapters = ModuleDict({space.layer: Adapter(*space.shape) for space in ADAPTED})
        weights = read_weights(self._checkpoints / "pocket-adapters", adapters.state_dict())
        adapters.load_state_dict(weights)
        return adapters.to(self.device).eval().requires_grad_(False)

    def _noise(self, seed: int) -> torch.Tensor:
        """Return the starting noise (1, 16, 16, 16) of a seed, the same on every device."""
        import torch

        shape = (1, *self.networks.latent_shape)
        return torch.randn(shape, generator=source_of_noise(seed)).to(self.device)


def _rows(conditions: Sequence[Condition], how: Mapping[str, float]) -> list[Condition]:
    """Return the condition of each row: one for every candidate."""
    return [condition for condition in conditions for _ in range(int(how["candidates"]))]


def _load(checkpoints: Path) -> tuple[PocketNetworks, Mapping[str, Any], str]:
    """Return the networks that ship, their card's settings, and the hash of their files."""
    from diffusers import DPMSolverMultistepScheduler

    from backends.embedders.files import described, hash_of_files
    from backends.generators.networks import PocketNetworks
    from explorer.mapper import read_card, read_weights

    folder = checkpoints / "pocket-diffusion"
    settings = read_card(folder).settings
    networks = described(folder, lambda: PocketNetworks(**settings["architecture"]))
    with guard(folder / CARD, "the card of pocket-diffusion"):
        DPMSolverMultistepScheduler(**settings["scheduler"])
    networks.load_state_dict(read_weights(folder, networks.state_dict()))
    return networks, settings, hash_of_files(folder / WEIGHTS, folder / CARD)

"""Fine-tunes a generator on what a mapper decodes from training trials, as system 3 does.

Of a diffusion model its cross-attention and a projection of the decoded embedding are trained
(`backends.generators.tuning`), with a share of conditions dropped for one learned null, so that it
can be guided. Options of one command take the place of the original's three edited files
(NeuroLens: no guidance, alignment at the encoder, alignment at the generator). What differs:

- The null of training is the null of sampling.
- The head that aligns at encoder level ends in a linear layer: after the original's SiLU no value
  is below -0.28, and image embeddings have such values.
- A dropped condition is aligned with no picture.
- Training stimuli are held out to choose the epoch; the original chose it on the test set.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.training.counted import count
from backends.training.engine import train_network
from backends.training.holding import alone
from backends.training.machine import launched, versions
from backends.training.plan import Course, Progress, in_chunks
from backends.training.rows import Batch, TrialRows
from explorer.mapper import write_checkpoint
from explorer.matching import split_hash
from explorer.types import Card, EmbeddingSpace, Trials, UserError

if TYPE_CHECKING:
    import torch

    from backends.generators.tuning import Trainee
    from explorer.mapper import Mapper

Image = Callable[[str], np.ndarray]  # stimulus -> the picture that was shown, uint8 (H, W, 3)
Goals = Mapping[EmbeddingSpace, Mapping[str, np.ndarray]]
DROPOUT = 0.1  # of conditions, as in NeuroLens
WEIGHTS = {"none": 0.0, "encoder": 0.03, "generator": 0.04}  # of alignment, as in NeuroLens
MIXTURES = 4  # of tokens, that the aligning head reads, as in NeuroLens
DECODED = 1 / 8  # of the samples, whose expected picture is made: that costs most of a step
ROWS_AT_ONCE = 64
EXAMPLES = 512  # decoded training trials for the projection's mean and deviation
COURSE = Course(epochs=2, batch=16, lr=3e-4, patience=0)


@alone
def finetune(
    trainee: Trainee,
    mapper: Mapper,
    trials: Sequence[Trials],
    goals: Goals,
    folder: Path,
    *,
    alignment: str = "none",
    guidance: bool = True,
    embedder: Any = None,
    course: Course = COURSE,
    command: str = "",
    licence: str = "",
    device: str = "cpu",
    progress: Progress | None = None,
) -> Card:
    """Fine-tune a generator, write what it learned into ``folder``, and return its card.

    An interrupted run goes on from ``folder.run``. Under ``accelerate launch`` the first process
    writes.

    Parameters
    ----------
    trainee
        The generator; its UNet is changed in place.
    mapper
        What decodes the trials; it learns nothing itself.
    trials
        One entry a subject that the mapper knows.
    goals
        See `goals_of`.
    alignment
        "encoder": a head on the projected condition should give the shown picture's embedding;
        "generator": the picture that the denoiser expects should have it; "none".
    guidance
        Whether conditions are dropped for a learned null.
    embedder
        Whose first space alignment is about; for the generator's level it has a differentiable
        ``encode`` of pixels 128 x 128.
    course
        How it learns; the epoch with the lowest loss on held-out training stimuli is kept.
    command, licence
        For the card.
    device
        Where to compute.
    """
    import torch

    from backends.generators.memory import has_fast_bfloat16

    check(alignment, trainee.generator, trainee.space, mapper)
    if alignment != "none" and embedder is None:
        raise UserError(f"alignment={alignment} needs an embedder of pictures, found none.")
    if course.precision == "auto" and has_fast_bfloat16(device):
        course = replace(course, precision="bf16")
    for part in (mapper, *trainee.frozen):
        part.to(device).eval()
    mapper.requires_grad_(False)
    latents, shown = _latent_space(trainee), embedder.spaces[0] if embedder else None
    data = TrialRows(trials, goals)
    some = np.unique(np.linspace(0, len(data) - 1, EXAMPLES).astype(int))
    torch.manual_seed(course.seed)  # first weights, also of what was made before
    trainee.learned.projection.down.reset_parameters()
    trainee.learned.projection.to(device).set_statistics(
        _decode(mapper, trainee.space, Batch(data, some, device=device))
    )
    trainee.learned.null.requires_grad_(guidance)
    model = torch.nn.ModuleDict({"learned": trainee.learned})
    if alignment == "encoder":
        model["head"] = _head(trainee.learned.null.shape, shown.size)

    def predict(batch: Batch) -> dict[str, torch.Tensor]:
        clean = batch.goals[latents]
        noise = _normal(batch.random("noise", clean.shape[1:]))
        noisy, when, goal = trainee.noised(clean, noise, batch.random("time", (1,))[:, 0])
        tokens = trainee.told(trainee.learned.projection(_decode(mapper, trainee.space, batch)))
        there = torch.ones(len(batch), dtype=torch.bool, device=clean.device)
        if guidance and batch.training:
            there = batch.random("condition", (1,))[:, 0] >= DROPOUT
        given = torch.where(there[:, None, None], tokens, trainee.learned.null)
        prediction = trainee.predict(noisy, given, when)
        outputs = {"error": (prediction - goal).square().flatten(1).mean(dim=1)}
        if alignment == "encoder":
            outputs["apart"] = there * _apart(model["head"](tokens), batch.goals[shown])
        elif alignment == "generator":
            some = (there & (batch.random("decoded", (1,))[:, 0] < DECODED)).nonzero().flatten()
            outputs["apart"] = torch.zeros_like(outputs["error"])
            if len(some):
                expected = trainee.clean(noisy[some], prediction[some], when[some])
                found = embedder.encode(_resized(trainee.decode(expected)))
                apart = _apart(found, batch.goals[shown][some]) / DECODED
                outputs["apart"] = outputs["apart"].index_put((some,), apart)
        return outputs

    def loss(outputs: Mapping[str, torch.Tensor], batch: Batch) -> torch.Tensor:
        error = outputs["error"].mean()
        if alignment == "none":
            return error
        return error + WEIGHTS[alignment] * outputs["apart"].mean()

    state = folder.with_name(f"{folder.name}.run")
    name = f"{trainee.generator}, {folder.name}"
    own = {"run": state, "device": device, "progress": progress, "trackers": ()}
    history = train_network(name, model, predict, loss, data, course, **own)
    subjects = [one.subject for one in trials]
    card = Card(
        kind="generator",
        name=folder.name,
        cls=trainee.generator,
        dataset=subjects[0].dataset,
        command=command,
        licence=licence,
        subjects=tuple(subject.name for subject in subjects),
        voxels={s.name: (s.voxels.n_voxels, s.voxels.hash) for s in subjects},
        targets=(trainee.space,),
        split_hash=split_hash(*trials),
        settings={
            "base": trainee.source,
            "base hash": trainee.base,
            "mapper": mapper.card.name if mapper.card else type(mapper).__name__,
            "alignment": alignment,
            "alignment weight": WEIGHTS[alignment],
            "guidance": guidance,
            "condition_dropout": DROPOUT if guidance else 0.0,
            "course": asdict(course),
        },
        metrics={"training": history.to_dict()},
        seconds=round(history.seconds, 1),
        device=device,
        versions=versions("torch", "diffusers", "numpy"),
    )
    if launched()[0] == 0:
        write_checkpoint(folder, trainee.learned.stored(), card, half=True)
        shutil.rmtree(state, ignore_errors=True)  # the same command then trains anew
    return card


def goals_of(
    trainee: Trainee,
    trials: Sequence[Trials],
    image: Image,
    embedder: Any = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict[EmbeddingSpace, dict[str, np.ndarray]]:
    """Return space -> training stimulus -> its picture's latents, and its embedding.

    They are the same for every way of fine-tuning a generator. Embeddings are those of the first
    space of ``embedder``, if there is one.
    """
    import torch

    from backends.embedders.pocket import to_tensor

    names = list(dict.fromkeys(name for one in trials for name in one.stimuli("train")))
    latents = _latent_space(trainee)
    found: dict[EmbeddingSpace, dict[str, np.ndarray]] = {latents: {}}
    for part in trainee.frozen:
        part.to(device).eval()
    for part in in_chunks(len(names), ROWS_AT_ONCE):
        images = [image(name) for name in names[part]]
        pixels = to_tensor(images, trainee.side).to(device)
        with torch.inference_mode():
            rows = torch.cat([trainee.encode(row) for row in pixels.split(8)]).float().cpu()
        found[latents] |= dict(zip(names[part], rows.numpy(), strict=True))
        if embedder is not None:
            space = embedder.spaces[0]
            rows = embedder.embed(images, space)
            found.setdefault(space, {}).update(zip(names[part], rows, strict=True))
        if progress:
            progress(
                count("latents", len(found[latents]), len(names), "training pictures", "encoded")
            )
    return found


def check(alignment: str, generator: str, space: EmbeddingSpace, mapper: Mapper) -> None:
    """Refuse an unknown alignment, and a mapper that decodes nothing the generator draws from."""
    if alignment not in WEIGHTS:
        raise UserError(f"alignment is {', '.join(WEIGHTS)}, found {alignment!r}.")
    if space not in mapper.targets:
        found = ", ".join(target.name for target in mapper.targets) or "nothing"
        raise UserError(
            f"{generator} is fine-tuned on decoded {space.name}, the mapper gives {found}; choose "
            "another mapper."
        )


def _head(null: Sequence[int], size: int) -> torch.nn.Module:
    """Return what aligns at encoder level: tokens (n, T, W) to embeddings (n, size)."""
    from torch import nn

    tokens, width = null
    return nn.Sequential(
        nn.Conv1d(tokens, MIXTURES, 1),
        nn.Flatten(),
        nn.Linear(MIXTURES * width, 2 * size),
        nn.GELU(),
        nn.Linear(2 * size, size),
    )


def _latent_space(trainee: Trainee) -> EmbeddingSpace:
    return EmbeddingSpace(trainee.generator, "latents", trainee.shape)


def _apart(found: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """Return one minus the cosine of embeddings (n, *shape), float32 (n,)."""
    import torch

    flat = found.float().flatten(1), shown.flatten(1)
    return 1 - torch.nn.functional.cosine_similarity(*flat)


def _decode(mapper: Mapper, space: EmbeddingSpace, batch: Batch) -> torch.Tensor:
    """Return what the mapper decodes of a batch's trials (n, *shape), without gradient."""
    import torch

    with torch.no_grad():
        parts = {
            subject: {space: mapper(betas, subject)[space]}
            for subject, betas in batch.betas.items()
        }
    return batch.merge(parts)[space].float()


def _normal(uniform: torch.Tensor) -> torch.Tensor:
    """Return standard normal numbers from uniform ones in [0, 1)."""
    import torch

    return torch.special.ndtri(uniform.clamp(1e-6, 1 - 1e-6))


def _resized(pixels: torch.Tensor) -> torch.Tensor:
    """Return pixels (n, 3, 128, 128) for pocket-clip, differentiable."""
    import torch

    if pixels.shape[-1] == 128:
        return pixels
    return torch.nn.functional.interpolate(
        pixels, size=(128, 128), mode="bilinear", antialias=True, align_corners=False
    )

"""The build of the embedded study, in miniature: every model stage, resumed and loadable."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from backends.commands.build_demo import STAGES, run
from backends.commands.demo import pocket_judge, pocket_solver
from backends.commands.demo.build import QUICK, Build, shifted
from backends.embedders.pocket import PocketClip
from backends.generators.networks import AUTOENCODER, SCHEDULER, Autoencoder
from backends.generators.pocket import IMAGE, PocketDiffusion
from backends.generators.solver import Multistep
from backends.simulation.judge import PocketJudge
from backends.simulation.scenes import render, sample_scenes
from backends.training.plan import Plan
from explorer.mapper import read_card
from explorer.protocols import Condition
from explorer.types import UserError, resolve

MINIATURE = dataclasses.replace(
    QUICK,
    pictures=24,
    held_out=8,
    clip=Plan(steps=2, lr=1e-3),
    clip_batch=8,
    autoencoder=Plan(steps=2, lr=1e-4, average=0.9),
    autoencoder_batch=4,
    judge=Plan(steps=2, lr=1e-3),
    judge_batch=8,
    denoiser=Plan(steps=3, lr=1e-3, average=0.9),
    denoiser_batch=4,
    adapters=Plan(steps=2, lr=1e-3),
    adapters_batch=8,
    solver_pictures=8,
)


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    said = []
    build = Build(
        MINIATURE,
        assets=root / "assets",
        checkpoints=root / "checkpoints",
        work=root / "work",
        device="cpu",
        command="python -m backends build-demo",
        progress=said.append,
    )
    run(build, only=("clip", "autoencoder", "judge", "denoiser", "solver", "adapters"))
    build.said = said
    return build


def test_each_stage_writes_a_checkpoint_that_opens(build):
    pictures = [render(scene) for scene in sample_scenes(2, 5)]
    embeddings = PocketClip(build.checkpoints).embed(pictures, IMAGE)
    assert embeddings.shape == (2, 128)
    assert len(PocketJudge(build.checkpoints).classify(pictures)) == 2
    given = Condition({IMAGE: torch.from_numpy(embeddings[0])})
    assert PocketDiffusion(build.checkpoints).generate([given], 2.0, [0], 2).shape[0] == 1


def test_the_default_steps_are_the_fitted_ones(build):
    generator = PocketDiffusion(build.checkpoints)
    assert len(generator.fitted.sigmas) == PocketDiffusion.default_steps == pocket_solver.STEPS
    assert generator._solver(pocket_solver.STEPS) is generator.fitted
    assert generator._solver(20) == Multistep(20, generator.scheduler)
    written = json.loads((build.checkpoints / "pocket-diffusion" / "solver.json").read_text())
    assert written["about"]["pictures"] == 8


def test_fitted_steps_end_nearer_to_where_many_steps_do(monkeypatch):
    """Of Gaussians, whose best denoiser is known; those measured on are not fitted to."""

    def velocity(paths, latents, timestep, sigma):
        variance = (0.5 + paths.scales[:, None, None, None] / 4) ** 2  # another at each scale
        signal = (1 - sigma) * variance
        clean = signal / ((1 - sigma) * signal + sigma**2) * latents
        return (latents - clean) / sigma

    monkeypatch.setattr(pocket_solver, "_velocity", velocity)
    noise = torch.randn(64, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    scales = torch.tensor(list(pocket_solver.SCALES)).repeat(13)[:64]
    walk, states = Multistep(30, SCHEDULER).begin(noise), [noise]
    paths = pocket_solver.Paths(
        SimpleNamespace(scheduler=SCHEDULER), None, scales, noise[None], walk.sigmas
    )
    for sigma in walk.sigmas[:-1]:
        flow = velocity(paths, states[-1], sigma * 1000, sigma)
        states.append(walk.next(states[-1], flow, states[-1] - sigma * flow))
    paths = dataclasses.replace(paths, states=torch.stack(states))
    _, latents = pocket_solver.fit(paths, 5)
    usual = pocket_solver._drawn(paths, Multistep(5, SCHEDULER))
    fitted, multistep = (
        (one - states[-1])[~paths.fitted].square().mean() for one in (latents, usual)
    )
    assert 0 < fitted < multistep / 3


def test_cards_say_how_they_came_about(build):
    for name, kind in (
        ("pocket-clip", "embedder"),
        ("pocket-judge", "judge"),
        ("pocket-diffusion", "generator"),
        ("pocket-adapters", "generator"),
    ):
        card = read_card(build.checkpoints / name)
        assert (card.kind, card.name, card.licence) == (kind, name, "MIT")
        assert card.settings["library_seed"] == 17 and card.settings["pictures"] == 24
        assert {"torch", "diffusers", "open_clip_torch"} <= set(card.versions)
        assert card.seconds > 0
        assert card.metrics["N"] == 8


def test_a_second_run_trains_nothing_and_gives_the_same_weights(build):
    before = (build.checkpoints / "pocket-judge" / "model.safetensors").read_bytes()
    build.said.clear()
    pocket_judge.train(build)
    assert not any("step" in sentence for sentence in build.said)
    assert (build.checkpoints / "pocket-judge" / "model.safetensors").read_bytes() == before


def test_unknown_stages_are_named(build):
    with pytest.raises(UserError, match="no stage 'clop'; choose from data, clip, autoencoder"):
        run(build, only=("clop",))
    assert all(callable(resolve(stage)) for stage in STAGES.values())


def test_the_autoencoder_starts_as_principal_components(build):
    pixels = torch.stack([torch.from_numpy(render(s)) for s in sample_scenes(32, 6)])
    pixels = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
    model = Autoencoder(**AUTOENCODER)
    model.start_from_principal_components(pixels)
    with torch.inference_mode():
        latents = model.encode(pixels)
        error = (model.decode(latents) - pixels).square().mean()
    blocks = torch.nn.functional.unfold(pixels, 8, stride=8).transpose(1, 2).reshape(-1, 192)
    values = torch.linalg.eigvalsh(torch.cov(blocks.double().T))
    best = values[:-16].sum() / 192  # the error of 16 components, and no linear map does better
    assert best * 0.99 < error < best * 1.1
    assert latents.var(dim=(0, 2, 3)).mean() == pytest.approx(1, abs=0.05)


def test_shifts_move_pictures_and_repeat_the_border():
    pixels = torch.arange(16.0).view(1, 1, 4, 4)
    moved = shifted(pixels, 1, 0)
    assert np.array_equal(moved[0, 0, 0], [0, 0, 1, 2])
    assert np.array_equal(shifted(pixels, 0, -1)[0, 0, :, 0], [4, 8, 12, 12])
    assert shifted(pixels, 0, 0) is pixels

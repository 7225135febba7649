"""Steps from noise to picture: fitted ones against DPM-Solver++, and what a damaged file says."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

from backends.generators.networks import SCHEDULER, Norm
from backends.generators.solver import Fitted, Multistep, read_solver
from explorer.types import UserError

STEPS = 5


def as_weights(steps):
    """Return DPM-Solver++ as weights of the noise and of every x̂0: it is linear in them."""
    scheduler = DPMSolverMultistepScheduler(**SCHEDULER)
    scheduler.set_timesteps(steps)
    one = torch.eye(steps + 1, dtype=torch.float64)
    latents, rows = one[:1], []
    for step, timestep in enumerate(scheduler.timesteps):
        velocity = (latents - one[step + 1]) / scheduler.sigmas[step].double()
        latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0].double()
        rows.append(tuple(latents[0].tolist()))
    return Fitted(tuple(scheduler.sigmas[:-1].tolist()), tuple(rows))


def drawn(solver, noise, scales=(1.0, 8.0)):
    """Walk with a made-up denoiser whose velocity depends on place and time."""
    walk, latents = solver.begin(noise, torch.tensor(scales)), noise
    for sigma in walk.sigmas[:STEPS]:
        velocity = torch.sin(latents) + sigma
        latents = walk.next(latents, velocity, latents - sigma * velocity)
    return latents


def test_fitted_steps_with_the_weights_of_dpm_solver_draw_what_it_draws():
    noise = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    fitted, multistep = as_weights(STEPS), Multistep(STEPS, SCHEDULER)
    torch.testing.assert_close(drawn(fitted, noise), drawn(multistep, noise), rtol=0, atol=1e-4)
    # two ways of one solver do not mix
    torch.testing.assert_close(drawn(fitted, -noise), drawn(multistep, -noise), rtol=0, atol=1e-4)


def test_strong_guidance_has_weights_of_its_own_whatever_is_drawn_beside():
    noise = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    usual = as_weights(STEPS)
    strong = tuple(tuple(0.5 * weight for weight in row) for row in usual.weights)
    both = replace(usual, strong=strong)
    mixed = drawn(both, noise, (5.0, 5.1))
    assert torch.equal(mixed[:1], drawn(usual, noise[:1], (1.0,)))
    alone = drawn(replace(usual, weights=strong), noise[1:], (1.0,))
    assert torch.equal(mixed[1:], alone) and not torch.equal(alone, drawn(usual, noise)[1:])


def test_what_is_written_is_read_again(tmp_path):
    assert read_solver(tmp_path) is None
    (tmp_path / "solver.json").write_text(json.dumps(as_weights(STEPS).to_dict()))
    assert read_solver(tmp_path) == as_weights(STEPS)
    both = replace(as_weights(STEPS), strong=as_weights(STEPS).weights)
    (tmp_path / "solver.json").write_text(json.dumps(both.to_dict()))
    assert read_solver(tmp_path) == both


@pytest.mark.parametrize(
    "change",
    [
        {"sigmas": [0.9, 0.95]},
        {"sigmas": [1.1, 0.5]},
        {"weights": [[1, 2, 3], [1, 2, 3]]},  # the first step cannot know what the second expects
        {"weights": [[1, 2, 0], [1, float("nan"), 3]]},
        {"weights": [[1, 2, 0]]},
        {"weights": "many"},
        {"sigmas": None},
        {"strong": [[1, 2, 3], [1, 2, 3]]},
    ],
)
def test_damaged_steps_are_refused_in_a_sentence(tmp_path, change):
    right = {"sigmas": [0.9, 0.5], "weights": [[1, 2, 0], [1, 2, 3]]}
    (tmp_path / "solver.json").write_text(json.dumps(right))
    read_solver(tmp_path)
    (tmp_path / "solver.json").write_text(json.dumps(right | change))
    with pytest.raises(UserError, match=r"solver\.json does not hold fitted steps, expected fall"):
        read_solver(tmp_path)


def test_a_norm_in_bfloat16_is_that_in_float32_but_for_rounding():
    torch.manual_seed(0)
    norm = Norm(4, 8)
    norm.weight.data.normal_()
    norm.bias.data.normal_()
    x = (3 + 2 * torch.randn(2, 8, 5, 5)).bfloat16().contiguous(memory_format=torch.channels_last)
    usual = torch.nn.GroupNorm(4, 8)
    usual.load_state_dict(norm.state_dict())
    exact = usual(x.float()).detach()
    found = norm.bfloat16()(x)
    assert found.dtype == torch.bfloat16
    assert np.abs((found.float() - exact).detach().numpy()).max() < 0.03

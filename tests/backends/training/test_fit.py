"""The loop that trains what ships: it learns, averages, and resumes exactly."""

import re

import pytest
import torch

from backends.training.fit import fit
from backends.training.plan import Plan
from explorer.types import UserError


def line(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Linear(3, 1)


def problem(model, stop_at=None):
    """Return a loss with a known solution; it raises at ``stop_at`` as a killed run would."""
    weights = torch.tensor([[1.0, -2.0, 0.5]])

    def loss(step, generator):
        if step == stop_at:
            raise KeyboardInterrupt
        points = torch.randn(64, 3, generator=generator)
        return (model(points).float() - points @ weights.T - 0.25).square().mean()

    return loss


def test_it_finds_the_weights_that_made_the_data(tmp_path):
    model = line()
    fit("line", model, problem(model), Plan(steps=400, lr=0.05, weight_decay=0.0), work=tmp_path)
    assert torch.allclose(model.weight, torch.tensor([[1.0, -2.0, 0.5]]), atol=0.02)
    assert model.bias.item() == pytest.approx(0.25, abs=0.02)
    assert not model.training


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(tmp_path, monkeypatch, average):
    plan = Plan(steps=30, lr=0.05, average=average)
    whole = line()
    fit("line", whole, problem(whole), plan, work=tmp_path / "whole")
    monkeypatch.setattr("backends.training.state.EVERY", 0.0)  # save every step
    broken = line()
    with pytest.raises(KeyboardInterrupt):
        fit("line", broken, problem(broken, stop_at=17), plan, work=tmp_path / "broken")
    resumed = line(seed=9)  # other weights: everything must come from the file
    fit("line", resumed, problem(resumed), plan, work=tmp_path / "broken")
    assert torch.equal(whole.weight, resumed.weight) and torch.equal(whole.bias, resumed.bias)


def test_a_finished_run_is_not_trained_again(tmp_path):
    plan = Plan(steps=5, lr=0.05)
    model = line()
    seconds = fit("line", model, problem(model), plan, work=tmp_path)
    again = line(seed=3)
    assert fit("line", again, problem(again, stop_at=0), plan, work=tmp_path) == pytest.approx(
        seconds, abs=0.5
    )
    assert torch.equal(model.weight, again.weight)


def test_the_average_lags_behind_the_weights(tmp_path):
    plain, averaged = line(), line()
    fit("a", plain, problem(plain), Plan(steps=12, lr=0.05), work=tmp_path)
    fit("b", averaged, problem(averaged), Plan(steps=12, lr=0.05, average=0.999), work=tmp_path)
    start = line()
    moved = (plain.weight - start.weight).norm()
    assert 0 < (averaged.weight - start.weight).norm() < moved


def test_a_state_of_another_plan_is_refused(tmp_path):
    model = line()
    fit("line", model, problem(model), Plan(steps=3, lr=0.05), work=tmp_path)
    with pytest.raises(UserError, match=re.escape("line.state.pt belongs to another training")):
        fit("line", model, problem(model), Plan(steps=4, lr=0.05), work=tmp_path)


def test_a_loss_that_is_not_finite_is_named(tmp_path):
    model = line()

    def loss(step, generator):
        return model.weight.sum() * float("nan")

    with pytest.raises(UserError, match="bad: the loss became nan at step 0; lower the learning"):
        fit("bad", model, loss, Plan(steps=3, lr=0.05), work=tmp_path)


def test_progress_ends_with_the_last_step(tmp_path):
    said = []
    model = line()
    plan = Plan(steps=7, lr=0.05)
    fit("line", model, problem(model), plan, work=tmp_path, progress=said.append)
    assert said[-1].startswith("line: step 7/7, loss ") and said[-1].endswith("0 s left")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda s: s.update(step=-1), "it says step -1 of 3"),
        (lambda s: s.update(step=4), "it says step 4 of 3"),
        (lambda s: s.update(step="3"), "it says step '3' of 3"),
        (lambda s: s.update(seconds=float("nan")), "after nan seconds"),
        (lambda s: s.update(model={}), "its tensors are those of another model"),
        (
            lambda s: s["model"].update(weight=torch.zeros(2, 2)),
            "weight is torch.float32 .2, 2.",
        ),
        (lambda s: s["averaged"].update(weight=[1.0]), "'weight' is a list"),
        (lambda s: s.update(optimiser=3), "cannot be read as the state of a training"),
        (
            lambda s: s["optimiser"]["state"][0].update(exp_avg=torch.zeros(7)),
            "exp_avg of its optimiser does not fit the model",
        ),
    ],
)
def test_a_damaged_state_is_one_sentence(tmp_path, spoil, said):
    plan, model = Plan(steps=3, lr=0.05, average=0.9), line()
    fit("line", model, problem(model), plan, work=tmp_path)
    file = tmp_path / "line.state.pt"
    state = torch.load(file, weights_only=True)
    spoil(state)
    torch.save(state, file)
    with pytest.raises(UserError, match=said):
        fit("line", line(), problem(model), plan, work=tmp_path)

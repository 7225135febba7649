"""Flows: exactly invertible, densities that are right where the truth is known, honest samples."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import kstest, multivariate_normal, multivariate_t

from backends.mappers.flow import Flow
from backends.mappers.parts.codes import principal_axes
from backends.mappers.parts.coupling import ActNorm, ConditionalFlow
from explorer.matching import split_hash
from explorer.types import Card, EmbeddingSpace, Subject, Trials, UserError, VoxelSpace

SPACE = EmbeddingSpace("toy", "vector", (2, 2))
VOXELS = {"sub-01": 150, "sub-02": 90}
TRAIN, TEST = 1200, 250
SPREAD = np.array([2.0, 1.0, 0.5, 0.2])  # of the embedding's four numbers
NOISE = 4.0  # of a voxel, whose signal has a standard deviation near 2.3


def tuning(subject: str) -> np.ndarray:
    rng = np.random.default_rng(list(VOXELS).index(subject))
    return rng.standard_normal((4, VOXELS[subject])) / SPREAD[:, None] ** 0.5


def planted(subject: str) -> tuple[Trials, dict]:
    """Make betas = embedding @ tuning + noise, in odd units; every stimulus shown once."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((TRAIN + TEST, 4)) * SPREAD + 1
    rng = np.random.default_rng(70 + VOXELS[subject])
    betas = (x - 1) @ tuning(subject) + NOISE * rng.standard_normal((len(x), VOXELS[subject]))
    names = [f"s{i:04d}" for i in range(len(x))]
    table = pd.DataFrame({"stimulus": names, "repeat": 0, "session": 1, "run": 1})
    table["split"] = ["train"] * TRAIN + ["test"] * TEST
    who = Subject("toy", subject, VoxelSpace(VOXELS[subject], f"hash-{subject}"))
    trials = Trials(who, (3 + 0.1 * betas).astype(np.float32), "units", table)
    x = x.astype(np.float32).reshape(-1, 2, 2)
    return trials, {SPACE: dict(zip(names, x, strict=True))}


def test_rows(subject: str = "sub-01") -> tuple[torch.Tensor, torch.Tensor]:
    trials, targets = planted(subject)
    rows = trials.rows("test")
    truth = np.stack([targets[SPACE][s] for s in trials.table["stimulus"].iloc[rows]])
    return torch.from_numpy(trials.betas[rows]), torch.from_numpy(truth)


test_rows.__test__ = False


@pytest.fixture(scope="module")
def fitted() -> Flow:
    both = [planted(subject)[0] for subject in VOXELS]
    targets = planted("sub-01")[1]
    return Flow.fit(
        both,
        targets,
        seed=0,
        variance=1.0,
        hidden=24,
        steps=4,
        epochs=20,
        lr=5e-3,
        batch=100,
        validation=0.2,
    )


def rough(size: int, given: int, steps: int = 6, hidden: int = 16) -> ConditionalFlow:
    """Return a flow whose every weight is far from its start."""
    flow = ConditionalFlow(size, given, steps, hidden)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        flow.base.fill_(1.5)
    return flow.eval()


# ------------------------------------------------------------------------------------------ layers


@pytest.mark.parametrize("size", [1, 2, 8, 33])
def test_the_inverse_undoes_the_flow(size):
    flow = rough(size, 5)
    x, c = torch.randn(50, size), torch.randn(50, 5)
    z, _ = flow(x, c)
    assert (z - x).abs().max() > 0.5
    assert (flow.inverse(z, c) - x).abs().max() < 1e-4


def test_the_volume_is_that_of_the_jacobian():
    flow = rough(8, 3).double()
    x, c = torch.randn(5, 8).double(), torch.randn(5, 3).double()
    _, volume = flow(x, c)
    for row in range(5):
        jacobian = torch.autograd.functional.jacobian(
            lambda v, row=row: flow(v[None], c[row : row + 1])[0][0], x[row]
        )
        assert torch.linalg.slogdet(jacobian).logabsdet.item() == pytest.approx(
            volume[row].item(), rel=1e-6
        )
    density = flow.log_prob(x, c)
    z, _ = flow(x, c)
    normal = multivariate_normal(np.zeros(8)).logpdf(z.detach().numpy())
    np.testing.assert_allclose(density.detach().numpy(), normal + volume.detach().numpy())


@pytest.mark.parametrize("size", [2, 7])
def test_two_steps_let_every_dimension_depend_on_the_condition(size):
    flow = rough(size, 3, steps=2)
    torch.nn.init.zeros_(flow.linear.weight)
    c = torch.randn(1, 3, requires_grad=True)
    for k in range(size):
        (gradient,) = torch.autograd.grad(flow(torch.ones(1, size), c)[0][0, k], c)
        assert gradient.abs().max() > 1e-4


def test_a_wild_net_cannot_scale_beyond_its_bound():
    flow = rough(4, 2, steps=1)
    torch.nn.init.constant_(flow.couplings[0].net[-1].bias, 1e6)
    _, volume = flow.couplings[0](torch.randn(3, 4), torch.randn(3, 2))
    torch.testing.assert_close(volume, torch.full((3,), 10.0))  # two dimensions, exp(5) each


def test_actnorm_sets_itself_once_and_remembers_it():
    norm = ActNorm(3).train()
    first, second = 5 + 3 * torch.randn(200, 3), torch.randn(200, 3)
    z, volume = norm(first)
    torch.testing.assert_close(z.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(3))
    assert volume.item() == pytest.approx(-first.std(0, correction=0).log().sum().item())
    loaded = ActNorm(3).train()
    loaded.load_state_dict(norm.state_dict())
    torch.testing.assert_close(loaded(second)[0], norm(second)[0])
    torch.testing.assert_close(loaded(first)[0], z)
    assert not ActNorm(3).eval()(first)[0].equal(z)


def test_a_loaded_state_gives_the_same_density_even_in_training_mode():
    flow, other = ConditionalFlow(6, 2, 3, 8), ConditionalFlow(6, 2, 3, 8)
    x, c = 4 + torch.randn(300, 6), torch.randn(300, 2)
    flow.initialise(x, c)
    other.load_state_dict(flow.state_dict())
    new = torch.randn(9, 6), torch.randn(9, 2)
    for mode in (False, True):
        assert torch.equal(flow.train(mode).log_prob(*new), other.train(mode).log_prob(*new))
    assert any(not flow.order_0.equal(ConditionalFlow(6, 2, 3, 8).order_0) for _ in range(9))


def test_a_flow_begins_as_the_best_linear_gaussian():
    c = torch.randn(4000, 2)
    spread = torch.tensor([0.5, 2.0, 1.0])
    x = c @ torch.tensor([[1.0, 2.0, 0.0], [0.0, -1.0, 3.0]]) + 7 + spread * torch.randn(4000, 3)
    flow = ConditionalFlow(3, 2, 4, 8)
    flow.initialise(x, c)
    truth = -(spread.log() + 0.5 * math.log(2 * math.pi) + 0.5).sum()  # minus the entropy
    assert flow.eval().log_prob(x, c).mean().item() == pytest.approx(truth.item(), abs=0.03)


def test_it_learns_a_spread_that_depends_on_the_condition():
    """The first number is exp(c) e, and the second bends with the first."""
    c = torch.randn(1000, 1)
    first = c.exp() * torch.randn(1000, 1)
    x = torch.cat([first, first.tanh() + 0.3 * torch.randn(1000, 1)], dim=1)
    truth = -(c.mean() + math.log(0.3) + math.log(2 * math.pi) + 1).item()
    flow = ConditionalFlow(2, 1, 4, 24)
    flow.initialise(x, c)
    linear = flow.log_prob(x, c).mean().item()
    optimiser = torch.optim.Adam(flow.parameters(), lr=1e-2)
    for _ in range(100):
        optimiser.zero_grad()
        (-flow.log_prob(x, c).mean()).backward()
        optimiser.step()
    learned = flow.eval().log_prob(x, c).mean().item()
    assert linear < truth - 0.8
    assert learned > truth - 0.15


@pytest.mark.parametrize("size", [2, 8, 100])
def test_the_base_is_as_wide_as_most_held_out_rows_ask_for(size):
    """A few rows far out, which would double the mean of |z|^2, hardly move it."""
    flow, c = ConditionalFlow(size, 2, 2, 8).eval(), torch.randn(2001, 2)
    x = 1.7 * torch.randn(2001, size)
    x[:40] *= 7
    flow.set_base(x, c)
    assert flow.base.item() == pytest.approx(1.7, rel=0.1)
    squares = flow(x, c)[0].square().sum(dim=1)
    assert squares.mean() > 1.4 * size
    width, tails = flow.base.item(), flow.tails.item()
    flow.set_base(x, c)  # nothing is left to do
    assert (flow.base.item(), flow.tails.item()) == (pytest.approx(width), tails)


@pytest.mark.parametrize("size", [2, 8, 100])
def test_the_base_has_the_tails_of_held_out_rows(size):
    flow, c = ConditionalFlow(size, 2, 2, 8).eval(), torch.randn(4000, 2)
    normal = torch.randn(4000, size)
    flow.set_base(normal, c)
    assert flow.tails == 0 or flow.tails >= 48
    assert flow.base.item() == pytest.approx(1, rel=0.03)
    heavy = (
        0.6 * normal / torch.distributions.Chi2(torch.tensor(6.0)).sample((4000, 1)).div(6).sqrt()
    )
    flow.set_base(heavy, c)
    assert flow.tails in (4, 6, 8)
    assert flow.base.item() == pytest.approx(0.6, rel=0.05)
    found = flow.log_prob(heavy, c).detach()
    theirs = multivariate_t(
        np.zeros(size), np.eye(size) * flow.base.item() ** 2, flow.tails.item()
    )
    np.testing.assert_allclose(found, theirs.logpdf(heavy.double().numpy()), rtol=1e-4, atol=2e-3)
    drawn = flow.inverse(flow.draw([1, 2], 4000), c).detach().square().sum(dim=1)
    assert kstest(drawn, heavy.square().sum(dim=1)).pvalue > 0.01


def test_principal_axes_whiten_and_keep_what_was_asked_for():
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    spread = np.array([3.0, 2.0, 1.0, 0.1, 0.1, 0.0])
    rows = torch.from_numpy((rng.standard_normal((900, 6)) * spread) @ turn + 4).float()
    centre, axes, found = principal_axes(rows, 10, 1.0, 0, "toy")
    assert len(found) == 5  # one direction never varies
    torch.testing.assert_close(axes @ axes.T, torch.eye(5), atol=1e-5, rtol=0)
    code = (rows - centre) @ axes.T / found
    torch.testing.assert_close(code.T @ code / 900, torch.eye(5), atol=1e-4, rtol=0)
    assert len(principal_axes(rows, 10, 0.99, 0, "toy")[2]) == 3
    assert len(principal_axes(rows, 2, 0.99, 0, "toy")[2]) == 2
    wide = principal_axes(rows.T[:, :5].contiguous(), 9, 1.0, 0, "toy")[1]
    few = principal_axes(rows[:4], 9, 1.0, 0, "toy")  # fewer rows than dimensions
    assert few[1].shape == (3, 6) and wide.shape[1] == 5
    torch.testing.assert_close(few[1] @ few[1].T, torch.eye(3), atol=1e-5, rtol=0)
    some = principal_axes(rows, 10, 0.99, 0, "toy", at_most=300)
    np.testing.assert_allclose((some[1] @ axes[:3].T).abs().diagonal(), 1, atol=0.05)
    with pytest.raises(UserError, match="same embedding in toy; choose another space"):
        principal_axes(torch.ones(9, 3), 2, 0.9, 0, "toy")


# ------------------------------------------------------------------------------------------ mapper


def posterior(subject: str, betas: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the true mean (n, 4) and covariance of the embedding given betas."""
    a = tuning(subject)
    covariance = np.linalg.inv(np.diag(1 / SPREAD**2) + a @ a.T / NOISE**2)
    return (betas.numpy() - 3) / 0.1 @ a.T @ covariance / NOISE**2 + 1, covariance


@pytest.mark.parametrize("subject", VOXELS)
def test_the_density_of_new_trials_approaches_the_true_one(fitted, subject):
    betas, truth = test_rows(subject)
    mean, covariance = posterior(subject, betas)
    flat = truth.flatten(1).numpy()
    best = multivariate_normal(np.zeros(4), covariance).logpdf(flat - mean).mean()
    blind = multivariate_normal(np.ones(4), np.diag(SPREAD**2)).logpdf(flat).mean()
    with torch.no_grad():
        found = fitted.log_prob(betas, truth, subject).mean().item()
        turned = fitted.log_prob(betas.roll(1, 0), truth, subject).mean().item()
    assert best - blind > 2  # the betas say much
    # 700 trials do not give the linear map exactly
    assert best - 0.12 * (best - blind) < found < best + 0.1
    assert turned < blind
    with torch.no_grad():
        centre = fitted(betas, subject)[SPACE].flatten(1).numpy()
    error, least = np.square(centre - flat), np.diag(covariance)
    assert (error.mean(0) < 1.35 * least).all()


def test_the_truths_rank_among_samples_is_uniform_on_single_trials(fitted):
    """Kolmogorov-Smirnov over 250 trials of new stimuli, p > 0.01; other brains are told apart."""
    for subject in VOXELS:
        betas, truth = test_rows(subject)
        ranks = fitted.density_rank(betas, truth, subject, 99, seed=0)
        assert ranks.shape == (TEST,) and 0 < ranks.min() and ranks.max() < 1
        assert kstest(ranks, "uniform").pvalue > 0.01
    for flow in (fitted.directions[0].to_embedding, fitted.directions[0].to_betas):
        assert 0.9 < flow.base < 1.2 and flow.base != 1
    shuffled = fitted.density_rank(betas.roll(1, 0), truth, subject, 99, seed=0)
    assert kstest(shuffled, "uniform").pvalue < 1e-6 and np.median(shuffled) < 0.1


def test_samples_follow_the_condition_and_the_true_spread(fitted):
    betas, _ = test_rows()
    made = fitted.sample(betas[:5], "sub-01", 300)
    assert made.shape == (5, 300, 2, 2) and made.isfinite().all()
    assert fitted.sample(betas[:5], "sub-01", 1).shape == (5, 1, 2, 2)
    mean, covariance = posterior("sub-01", betas[:5])
    flat = made.flatten(2).numpy()
    sd = np.sqrt(np.diag(covariance))
    assert (np.abs(flat.mean(1) - mean) / sd < 0.8).all()
    assert (np.abs(flat.std(1) / sd - 1) < 0.35).all()
    apart = np.abs(mean[0] - mean[1]) / sd
    assert apart.max() > 2  # two trials that must differ, and do
    k = apart.argmax()
    assert np.abs(flat[0, :, k].mean() - flat[1, :, k].mean()) > sd[k]


def test_a_sample_depends_on_trial_number_and_seed_alone(fitted):
    betas, _ = test_rows()
    five = fitted.sample(betas[:3], "sub-01", 5, seed=4)
    torch.testing.assert_close(fitted.sample(betas[1:2], "sub-01", 5, seed=4), five[1:2])
    torch.testing.assert_close(fitted.sample(betas[:3], "sub-01", 2, seed=4), five[:, :2])
    assert (fitted.sample(betas[:3], "sub-01", 5, seed=5) - five).abs().min(0).values.max() > 0.1
    assert torch.equal(fitted.sample(betas[:3], "sub-01", 5, seed=4), five)


def test_log_prob_has_a_gradient_towards_the_betas(fitted):
    betas, truth = test_rows()
    betas = betas[:4].clone().requires_grad_()
    before = fitted.log_prob(betas, truth[:4], "sub-01")
    (gradient,) = torch.autograd.grad(before.sum(), betas)
    step = 1e-5 * gradient / gradient.norm(dim=1, keepdim=True) * betas.detach().std()
    rise = fitted.log_prob(betas + 100 * step, truth[:4], "sub-01") - before
    assert (rise > 0).all()
    alone = torch.autograd.grad(fitted.log_prob(betas, truth[:4], "sub-01")[2], betas)[0]
    assert not alone[[0, 1, 3]].any()
    torch.testing.assert_close(alone[2], gradient[2])


@pytest.mark.parametrize("subject", VOXELS)
def test_betas_are_predicted_from_embeddings(fitted, subject):
    _, truth = test_rows(subject)
    given = truth.clone().requires_grad_()
    betas = fitted.predict_betas(given, subject)
    assert betas.shape == (TEST, VOXELS[subject])
    clean = 3 + 0.1 * (truth.flatten(1).numpy() - 1) @ tuning(subject)
    error = np.square(betas.detach().numpy() - clean).mean()
    assert error < 0.05 * clean.var()
    betas[0].sum().backward()
    assert given.grad[0].abs().min() > 0 and not given.grad[1:].any()


def test_the_reverse_density_knows_its_own_trial(fitted):
    betas, truth = test_rows()
    with torch.no_grad():
        own = fitted.log_prob_betas(betas, truth, "sub-01")
        other = fitted.log_prob_betas(betas, truth.roll(1, 0), "sub-01")
    assert own.shape == (TEST,) and (own > other).float().mean() > 0.9


def test_a_saved_flow_gives_the_same_densities_and_samples(fitted, tmp_path):
    both = [planted(subject)[0] for subject in VOXELS]
    card = Card(
        *("mapper", "flow", "flow", "toy", "test", "CC0"),
        subjects=fitted.subjects,
        voxels={s: (v, f"hash-{s}") for s, v in VOXELS.items()},
        targets=fitted.targets,
        split_hash=split_hash(*both),
    )
    fitted.save_pretrained(tmp_path / "there", card)
    loaded = Flow.from_pretrained(tmp_path / "there")
    betas, truth = test_rows("sub-02")
    with torch.no_grad():
        for a, b in ((fitted, loaded), (fitted, loaded.train())):
            assert torch.equal(
                a.log_prob(betas, truth, "sub-02"), b.log_prob(betas, truth, "sub-02")
            )
            assert torch.equal(a.predict_betas(truth, "sub-02"), b.predict_betas(truth, "sub-02"))
    made = fitted.sample(betas[:2], "sub-02", 3), loaded.sample(betas[:2], "sub-02", 3)
    assert torch.equal(*made)
    fitted.save_pretrained(tmp_path / "half", card, half=True)
    near = Flow.from_pretrained(tmp_path / "half").log_prob(betas, truth, "sub-02")
    torch.testing.assert_close(
        near, fitted.log_prob(betas, truth, "sub-02").detach(), atol=0.05, rtol=0.01
    )


def test_bad_input_is_named(fitted):
    trials, targets = planted("sub-01")
    betas, truth = test_rows()
    with pytest.raises(UserError, match="1 sample or more of each trial, found n=0"):
        fitted.sample(betas, "sub-01", 0)
    with pytest.raises(UserError, match=r"toy/vector has the shape \(2, 2\), found \(4,\)"):
        fitted.log_prob(betas, truth.flatten(1), "sub-01")
    with pytest.raises(UserError, match="spaces are toy/vector, not toy/other"):
        fitted.sample(betas, "sub-01", 2, space=EmbeddingSpace("toy", "other", (4,)))
    with pytest.raises(UserError, match="knows the subject.* not 'sub-09'"):
        fitted.predict_betas(truth, "sub-09")
    for wrong, message in (
        ({"components": 0}, "components is a whole number from 1"),
        ({"variance": 0.0}, "variance a share above 0 up to 1, found components=128, variance=0"),
        ({"noise": 0.0}, "noise is above 0 and cycle not below 0"),
        ({"alphas": (0.0,)}, "alphas must be positive"),
        ({"folds": 1201}, "1200 training stimuli .* found folds=1201"),
    ):
        with pytest.raises(UserError, match=message):
            Flow.fit([trials], targets, seed=0, **wrong)

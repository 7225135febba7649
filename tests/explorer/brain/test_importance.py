"""Importance against finite differences, captum and closed forms; parcels against algebra."""

import numpy as np
import pytest
import torch

from explorer.brain.importance import (
    NODES,
    LogLikelihood,
    attribute,
    completeness_error,
    fixed_direction,
    is_flat,
    per_parcel,
    retrieval_margin,
)
from explorer.brain.maps import parcel_importance
from explorer.mapper import Mapper
from explorer.metrics import auc
from explorer.request import METHODS
from explorer.types import EmbeddingSpace, Label, Parcellation, UserError

SPACE = EmbeddingSpace("fake", "image", (6,), True)
VOXELS = 40


class Linear(Mapper):
    """A ridge as it is at decoding time: with statistics that matter."""

    def __init__(self, weights: torch.Tensor, seed: int = 0):
        super().__init__([SPACE], {"s": weights.shape[0]})
        draw = torch.Generator().manual_seed(seed)
        self.weights = torch.nn.Parameter(weights)
        self.bias = torch.nn.Parameter(torch.randn(6, generator=draw))
        self.mean_s.copy_(torch.randn(len(weights), generator=draw) * 3)
        self.sd_s.copy_(torch.rand(len(weights), generator=draw) * 4 + 0.5)

    def forward(self, betas, subject):
        return {SPACE: self.standardise(betas, subject) @ self.weights + self.bias}

    @classmethod
    def fit(cls, trials, targets, *, seed, progress=None, **settings):
        raise NotImplementedError


class Curved(Linear):
    """A smooth nonlinear mapper with dropout, which eval mode must switch off."""

    def forward(self, betas, subject):
        hidden = torch.tanh(self.standardise(betas, subject) @ self.weights + self.bias)
        return {SPACE: torch.nn.functional.dropout(hidden, 0.5, self.training)}


@pytest.fixture
def weights():
    return torch.randn(VOXELS, 6, generator=torch.Generator().manual_seed(1)) * 0.2


@pytest.fixture
def betas():
    return np.random.default_rng(2).normal(size=(8, VOXELS)).astype(np.float32) * 2


@pytest.fixture
def gallery():
    return np.random.default_rng(3).normal(size=(12, 6)).astype(np.float32)


def partition(sizes, voxel_hash="h"):
    """Return parcels of these sizes, one after the other, and the rest unassigned."""
    labels = tuple(Label(f"p{i}", "L") for i in range(len(sizes)))
    membership = np.full(VOXELS, -1)
    membership[: sum(sizes)] = np.repeat(np.arange(len(sizes)), sizes)
    return Parcellation("planted", "partition", labels, membership, voxel_hash)


# ------------------------------------------------------------------------------------ attribution


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [Linear, Curved])
def test_equals_captum(kind, method, weights, betas, gallery):
    from captum.attr import InputXGradient, IntegratedGradients, Saliency

    mapper = kind(weights).eval()
    index = np.arange(len(betas))
    target = retrieval_margin(gallery, index)
    mean, sd = mapper.statistics("s")

    def explained(z):  # captum sees units of standard deviation, which is what we attribute to
        return target(mapper(z * sd + mean, "s")[SPACE])

    z = (torch.from_numpy(betas) - mean) / sd
    if method == "gradient":
        expected = Saliency(explained).attribute(z.requires_grad_(), abs=False)
    elif method == "integrated gradients":  # a trial at a time: its target knows one row
        rows = []
        for row in range(len(z)):
            one = retrieval_margin(gallery, row)
            path = IntegratedGradients(lambda z, one=one: one(mapper(z * sd + mean, "s")[SPACE]))
            rows.append(path.attribute(z[row : row + 1].requires_grad_(), n_steps=NODES))
        expected = torch.cat(rows)
    else:
        expected = InputXGradient(explained).attribute(z.requires_grad_())
    found = attribute(mapper, betas, "s", target, method)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("kind", [Linear, Curved])
def test_gradient_agrees_with_finite_differences(kind, weights, betas, gallery):
    mapper = kind(weights).eval()
    target = retrieval_margin(gallery, 4)
    gradient = attribute(mapper, betas[:1], "s", target)[0]
    exact, rows = mapper.double(), torch.from_numpy(betas[:1]).double()
    items = torch.nn.functional.normalize(torch.from_numpy(gallery).double(), dim=1)

    def margin(at):  # written out again, so that the target is tested too
        z = torch.nn.functional.normalize(exact(at, "s")[SPACE][0], dim=0) @ items.T / 0.07
        return (z[4] - torch.logsumexp(torch.cat([z[:4], z[5:]]), 0)).item()

    _, sd = exact.statistics("s")
    with torch.no_grad():
        for voxel in (0, 7, VOXELS - 1):
            step = torch.zeros_like(rows)
            step[0, voxel] = 1e-5 * sd[voxel]
            slope = (margin(rows + step) - margin(rows - step)) / 2e-5
            assert gradient[voxel] == pytest.approx(slope, rel=2e-3, abs=1e-4)


def test_linear_mapper_on_a_fixed_direction_has_its_closed_form(weights, betas):
    mapper = Linear(weights).eval()
    direction = np.arange(6, dtype=np.float32) - 2.5
    unit = direction / np.linalg.norm(direction)
    slope = weights.numpy() @ unit
    mean, sd = (b.numpy() for b in mapper.statistics("s"))
    z = (betas - mean) / sd
    target = fixed_direction(direction)
    gradient = attribute(mapper, betas, "s", target)
    np.testing.assert_allclose(gradient, np.tile(slope, (8, 1)), rtol=1e-4, atol=1e-6)
    contribution = attribute(mapper, betas, "s", target, "gradient x input")
    np.testing.assert_allclose(contribution, z * slope, rtol=1e-4, atol=1e-5)
    decoded = mapper.decode(betas, "s")[SPACE]
    whole = (decoded - mapper.bias.detach().numpy()) @ unit
    np.testing.assert_allclose(contribution.sum(axis=1), whole, rtol=1e-4, atol=1e-4)


def test_integrated_gradients_of_a_linear_mapper_are_gradient_times_input(weights, betas):
    """Exactly so on a fixed direction (parcels, 5), and then nothing is missing of the sum."""
    mapper, target = Linear(weights).eval(), fixed_direction(np.arange(6) - 2.5)
    path = attribute(mapper, betas, "s", target, "integrated gradients")
    contribution = attribute(mapper, betas, "s", target, "gradient x input")
    np.testing.assert_allclose(path, contribution, rtol=1e-4, atol=1e-5)
    assert (completeness_error(mapper, betas, "s", target, path) < 1e-4).all()


def test_integrated_gradients_are_complete_where_gradient_times_input_is_not(
    weights, betas, gallery
):
    mapper, target = Curved(weights).train(), retrieval_margin(gallery, np.arange(8))
    path = attribute(mapper, betas, "s", target, "integrated gradients")
    assert (completeness_error(mapper, betas, "s", target, path) < 1e-3).all()
    contribution = attribute(mapper, betas, "s", target, "gradient x input")
    assert np.median(completeness_error(mapper, betas, "s", target, contribution)) > 0.1
    half = completeness_error(mapper, betas, "s", target, path / 2)
    np.testing.assert_allclose(half, 0.5, atol=1e-3)
    assert mapper.training


def test_the_page_says_how_much_integrated_gradients_miss(workbench):
    from explorer.page import brain
    from explorer.request import Request, View

    request = Request("fake", "sub-01", "test-04", "linear", "painter")
    assert parcel_importance(workbench, request, View()).completeness is None
    view = View(method="integrated gradients", target="fixed direction")
    found = parcel_importance(workbench, request, view)
    assert 0 <= found.completeness < 1e-3
    value = brain.with_map(brain.frame(request, view, workbench, ""), found)
    told = value["sentences"]["method"]["integrated gradients"]
    assert (
        told.startswith("The response times the mean gradient") and " Here the sum misses " in told
    )
    # without an intercept the way begins where a cosine jumps: the margin's change is all there
    jumps = parcel_importance(workbench, request, View(method="integrated gradients"))
    assert jumps.completeness == pytest.approx(1, abs=1e-3)
    told = brain.with_map(value, jumps)["sentences"]["method"]["integrated gradients"]
    assert "misses 100 % of that change, because this mapper's decision bends sharply" in told
    # a little is nothing to warn of
    assert brain._missing(0.05) == "Here the sum misses 5 % of that change."
    assert "misses 6 % of that change, because" in brain._missing(0.06)


def test_one_direction_a_trial(weights, betas, gallery):
    mapper = Linear(weights).eval()
    together = attribute(mapper, betas, "s", fixed_direction(gallery[:8]))
    for row in (0, 5):
        alone = attribute(mapper, betas[row : row + 1], "s", fixed_direction(gallery[row]))
        np.testing.assert_allclose(together[row], alone[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_a_trial_alone_equals_its_row_in_a_batch(method, weights, betas, gallery):
    mapper = Curved(weights).eval()
    together = attribute(mapper, betas, "s", retrieval_margin(gallery, np.arange(8)), method)
    for row in range(8):
        target = retrieval_margin(gallery, row)
        alone = attribute(mapper, betas[row : row + 1], "s", target, method)
        np.testing.assert_allclose(together[row], alone[0], rtol=1e-4, atol=1e-6)


def test_units_do_not_matter(weights, betas, gallery):
    """The same data in other units, with statistics to match, have the same attribution."""
    a, b = Linear(weights).eval(), Linear(weights).eval()
    factor = torch.logspace(-2, 2, VOXELS)
    b.mean_s.mul_(factor)
    b.sd_s.mul_(factor)
    target = retrieval_margin(gallery, 0)
    for method in METHODS:
        first = attribute(a, betas, "s", target, method)
        second = attribute(b, betas * factor.numpy(), "s", target, method)
        np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-5)


def test_only_the_input_gets_a_gradient_and_modes_are_left_alone(weights, betas, gallery):
    mapper = Curved(weights).train()
    target = retrieval_margin(gallery, 0)
    with torch.inference_mode():
        first = attribute(mapper, betas, "s", target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        second = attribute(mapper, betas, "s", target)
    np.testing.assert_array_equal(first, second)
    assert mapper.training
    assert all(p.grad is None for p in mapper.parameters())


def test_gradient_times_input_of_the_average_response_is_zero(weights, gallery):
    mapper = Linear(weights).eval()
    mean, _ = mapper.statistics("s")
    average = mean.numpy()[None]
    target = retrieval_margin(gallery, 0)
    assert is_flat(attribute(mapper, average, "s", target, "gradient x input")).all()
    assert not is_flat(attribute(mapper, average, "s", target, "gradient")).any()


def test_margin_is_the_log_odds_of_the_shown_image(gallery):
    prediction = torch.from_numpy(gallery[2:3]) * 5  # length must not matter
    unit = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
    odds = np.exp(unit @ unit[2] / 0.2)
    expected = np.log(odds[7] / (odds.sum() - odds[7]))
    found = retrieval_margin(gallery, 7, temperature=0.2)(prediction)
    assert found.item() == pytest.approx(expected, abs=1e-5)
    same = retrieval_margin(np.ones((9, 6), np.float32), 3)(prediction)
    assert same.item() == pytest.approx(-np.log(8), abs=1e-5)


def test_a_second_space_can_be_explained(betas):
    other = EmbeddingSpace("fake", "tokens", (2, 3))

    class Two(Linear):
        def forward(self, betas, subject):
            out = super().forward(betas, subject)[SPACE]
            return {SPACE: out, other: -2 * out.reshape(-1, 2, 3)}

    mapper = Two(torch.ones(VOXELS, 6)).eval()
    direction = np.ones(6, np.float32)
    first = attribute(mapper, betas, "s", fixed_direction(direction))
    second = attribute(mapper, betas, "s", fixed_direction(direction.reshape(2, 3)), space=other)
    np.testing.assert_allclose(second, -2 * first, rtol=1e-5)


# ----------------------------------------------------------------------------------- bad arguments


def test_bad_arguments_are_named(weights, betas, gallery):
    mapper, target = Linear(weights).eval(), retrieval_margin(gallery, 0)
    with pytest.raises(
        UserError, match="method is one of gradient, .*, integrated gradients, found 'x'"
    ):
        attribute(mapper, betas, "s", target, "x")
    broken = betas.copy()
    broken[1, 3] = np.nan
    with pytest.raises(UserError, match="1 of 320 betas are not finite; leave"):
        attribute(mapper, broken, "s", target)
    with pytest.raises(UserError, match=r"\(trials, 40\), found \(8, 39\)"):
        attribute(mapper, betas[:, 1:], "s", target)
    with pytest.raises(UserError, match="knows the subject.s. s, not 't'"):
        attribute(mapper, betas, "t", target)
    with pytest.raises(UserError, match="at least 2 candidates .* found 1 candidates"):
        retrieval_margin(gallery[:1], 0)
    with pytest.raises(UserError, match="row 12 of a gallery of 12; rows go from 0 to 11"):
        retrieval_margin(gallery, 12)
    with pytest.raises(UserError, match="row -1 of a gallery of 12"):
        retrieval_margin(gallery, [0, -1])
    with pytest.raises(UserError, match="row -1 of a gallery of 12"):
        retrieval_margin(gallery, [3, -1, 4])
    assert retrieval_margin(gallery[:2], 1)(torch.from_numpy(gallery[:1])).shape == (1,)
    with pytest.raises(UserError, match="whole numbers .* float64 numbers"):
        retrieval_margin(gallery, 0.5)
    with pytest.raises(UserError, match="temperature is a positive number, found 0"):
        retrieval_margin(gallery, 0, temperature=0)
    with pytest.raises(UserError, match="finite numbers that are not all zero"):
        fixed_direction(np.zeros(6))
    with pytest.raises(UserError, match=r"direction has shape \(5,\), predictions \(8, 6\)"):
        attribute(mapper, betas, "s", fixed_direction(np.ones(5)))


def test_a_mapper_or_target_that_cannot_be_explained_says_so(weights, betas):
    class Cut(Linear):
        def forward(self, betas, subject):
            return {SPACE: super().forward(betas, subject)[SPACE].detach()}

    class Broken(Linear):
        def forward(self, betas, subject):
            return {SPACE: torch.sqrt(super().forward(betas, subject)[SPACE].square() * 0)}

    target = fixed_direction(np.ones(6))
    with pytest.raises(TypeError, match="Cut.forward cut the gradient to the betas"):
        attribute(Cut(weights), betas, "s", target)
    with pytest.raises(UserError, match="gradient of trial 1 of 8 is not finite"):
        attribute(Broken(weights), betas, "s", target)
    with pytest.raises(TypeError, match=r"one number a trial, shape \(8,\), this one \(8, 6\)"):
        attribute(Linear(weights), betas, "s", lambda prediction: prediction)


class Dense(Linear):
    """A linear mapper with a Gaussian density of unit variance around what it decodes."""

    def log_prob(self, betas, embedding, subject, *, space=None):
        return -0.5 * (embedding - self(betas, subject)[space]).square().sum(dim=1)


@pytest.mark.parametrize("method", METHODS)
def test_a_log_likelihood_is_the_mappers_own(method, weights, betas):
    mapper = Dense(weights)
    shown = np.random.default_rng(4).normal(size=(len(betas), 6)).astype(np.float32)
    found = attribute(mapper, betas, "s", LogLikelihood(shown), method)
    mean, sd = (x.numpy() for x in mapper.statistics("s"))
    z = (betas - mean) / sd
    gradient = (shown - z @ weights.numpy() - mapper.bias.detach().numpy()) @ weights.numpy().T
    half = (shown - z @ weights.numpy() / 2 - mapper.bias.detach().numpy()) @ weights.numpy().T
    expected = {"gradient": gradient, "gradient x input": gradient * z}.get(method, half * z)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    alone = attribute(mapper, betas[2:3], "s", LogLikelihood(shown[2:3]), method)
    np.testing.assert_allclose(alone[0], found[2], rtol=1e-4, atol=1e-6)


# ----------------------------------------------------------------------------------------- parcels


@pytest.mark.parametrize("method", METHODS)
def test_a_planted_parcel_is_found_and_a_permuted_label_map_is_not(method, betas, gallery):
    """Only p1 carries weight: it is first whatever the method; shuffled labels are at chance."""
    rng = np.random.default_rng(7)
    weights = torch.randn(VOXELS, 6, generator=torch.Generator().manual_seed(8)) * 0.01
    weights[10:20] *= 20
    mapper = Linear(weights).eval()
    atlas = partition([10, 10, 10, 10])
    target = retrieval_margin(gallery, np.arange(8))
    found = attribute(mapper, betas, "s", target, method)
    table = per_parcel(found, atlas)
    assert table["enrichment"].idxmax() == 1 and table["enrichment"][1] > 3
    planted = np.arange(VOXELS) // 10 == 1
    assert auc(np.abs(found).mean(axis=0), planted) > 0.99
    shuffled = []
    for _ in range(200):
        membership = rng.permutation(atlas.membership)
        labels = Parcellation("shuffled", "partition", atlas.labels, membership, "h")
        shuffled.append(per_parcel(found, labels)["enrichment"][1])
    assert np.mean(shuffled) == pytest.approx(1, abs=0.1)


def test_weights_of_a_planted_parcel_set_its_enrichment():
    """k-fold weights in a share f of the voxels: enrichment k / (k f + 1 - f), analytically."""
    k, f = 5.0, 0.25
    weights = torch.full((VOXELS, 6), 0.1)
    weights[:10] *= k
    mapper = Linear(weights).eval()
    rows = np.zeros((1, VOXELS), np.float32)
    found = attribute(mapper, rows, "s", fixed_direction(np.ones(6)))
    table = per_parcel(found, partition([10, 30]))
    assert table["enrichment"][0] == pytest.approx(k / (k * f + 1 - f), rel=1e-5)

"""The mixer: its losses by hand, what it finds in every kind of space, subjects joined."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from backends.mappers.mixer import Mixer
from backends.mappers.parts.codes import whitening_axes
from backends.mappers.parts.losses import bimixco, soft_clip
from backends.mappers.parts.mixing import BlendsLearner, solve_layers
from backends.mappers.ridge import Ridge
from backends.training.fewer import fewer
from backends.training.plan import Course
from backends.training.ridge_solver import ALPHAS
from backends.training.rows import Batch, TrialRows
from explorer.metrics import two_way_identification
from explorer.types import Card, EmbeddingSpace, Subject, Trials, UserError, VoxelSpace

IMAGE = EmbeddingSpace("toy", "image", (10,), unit_norm=True)
CONTEXT = EmbeddingSpace("toy", "context", (3, 4))
LATENTS = EmbeddingSpace("toy", "latents", (2, 5, 6))
SMALL = {"streams": 3, "hidden": 8, "blocks": 1, "prior_width": 16, "prior_depth": 1, "epochs": 10}
TRAIN, TEST, VOXELS = 60, 20, 16


def planted(seed=0):
    """Return two subjects who saw the same pictures, with maps of their own from six causes."""
    rng = np.random.default_rng(seed)
    n = TRAIN + TEST
    causes = rng.standard_normal((n, 6))
    table = pd.DataFrame({"stimulus": [f"s{i}" for i in range(n)], "run": 1, "repeat": 0})
    table["split"] = ["train"] * TRAIN + ["test"] * TEST
    table["session"] = np.arange(n) // 20 + 1
    trials = []
    for k in range(2):
        betas = causes @ rng.standard_normal((6, VOXELS)) + 0.5 * rng.standard_normal((n, VOXELS))
        subject = Subject("toy", f"sub-0{k + 1}", VoxelSpace(VOXELS, f"hash-{k}"))
        trials.append(Trials(subject, (5 + 3 * betas).astype(np.float32), "units", table))
    rows = {s: causes @ rng.standard_normal((6, s.size)) for s in (IMAGE, CONTEXT, LATENTS)}
    rows[IMAGE] = rows[IMAGE] / np.linalg.norm(rows[IMAGE], axis=1, keepdims=True)
    targets = {
        s: {f"s{i}": x.reshape(s.shape).astype(np.float32) for i, x in enumerate(z)}
        for s, z in rows.items()
    }
    return trials, targets


@pytest.fixture(scope="module")
def data():
    return planted()


@pytest.fixture(scope="module")
def both(data):
    """Return a mixer of both subjects to three spaces at once."""
    trials, targets = data
    return Mixer.fit(trials, targets, seed=0, prior=True, batch=16, lr=5e-3, **SMALL)


def identified(mapper, one, targets, space=IMAGE):
    rows = one.rows("test")
    found = mapper.decode(one.betas[rows], one.subject.name)[space]
    truth = np.stack([targets[space][s] for s in one.table["stimulus"].iloc[rows]])
    return two_way_identification(found.reshape(TEST, -1), truth.reshape(TEST, -1))


def save(mapper, folder):
    card = Card(
        *("mapper", "toy", "mixer", "toy", "test", "MIT"), subjects=mapper.subjects,
        voxels={s: (VOXELS, "hash") for s in mapper.subjects}, targets=mapper.targets,
    )  # fmt: skip
    mapper.save_pretrained(folder, card)
    return str(folder)


# ------------------------------------------------------------------------------------------ losses


def unit(*shape, seed=1):
    rng = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=rng), dim=-1)


def test_bimixco_by_hand():
    predicted, gallery = unit(3, 4), unit(5, 4, seed=2)
    shares = torch.tensor([[0.7, 0, 0, 0.3, 0], [0, 1.0, 0, 0, 0], [0, 0, 0.6, 0, 0.4]])
    logits = (predicted @ gallery.T / 0.2).double().numpy()
    total = 0.0
    for i in range(3):
        for j in range(5):
            forth = math.log(np.exp(logits[i]).sum()) - logits[i, j]
            back = math.log(np.exp(logits[:, j]).sum()) - logits[i, j]
            total += float(shares[i, j]) * (forth + back) / 2
    assert bimixco(predicted, gallery, shares, 0.2).item() == pytest.approx(total / 3, rel=1e-5)


def test_soft_clip_by_hand():
    predicted, true = unit(4, 3), unit(4, 3, seed=2)
    logits = (predicted @ true.T / 0.3).double()
    answers = (true @ true.T / 0.3).double().softmax(1)
    forth = -(logits.log_softmax(1) * answers).sum(1).mean()
    back = -(logits.T.log_softmax(1) * answers).sum(1).mean()
    found = soft_clip(predicted, true, 0.3)
    assert found.item() == pytest.approx(float(forth + back) / 2, rel=1e-5)
    assert soft_clip(true, true, 0.3) < found  # the truth is the best prediction


def learner(data, weights=(1.0, 1.0, 1.0)):
    trials, targets = data
    rows, course = TrialRows(trials, targets), Course(epochs=9, validation=0.2)
    mapper = Mixer(tuple(targets), {t.subject.name: VOXELS for t in trials}, 6, 3, 2, 1, None)
    found = BlendsLearner(mapper, rows, course, None, 0.4, weights, (0.1, 0.05, 0.1))
    return found, rows, rows.split(0.2, 0)


def test_a_blend_depends_on_sample_and_epoch_alone(data):
    found, rows, (train, held_out) = learner(data)
    batch = Batch(rows, train, epoch=2, training=True)
    shares, partners = found.mixture(batch)
    assert 0.3 < (shares < 1).mean() < 0.7 and shares.min() >= 0.5
    assert (rows.subject[partners] == rows.subject[train]).all()
    assert not set(partners[shares < 1]) & set(held_out)
    some = np.array([40, 3, 17])
    for whole, part in zip((shares, partners),
                           found.mixture(Batch(rows, train[some], epoch=2, training=True)),
                           strict=True):  # fmt: skip
        np.testing.assert_array_equal(whole[some], part)
    other, _ = found.mixture(Batch(rows, train, epoch=3, training=True))
    assert not np.array_equal(other, shares)
    for quiet in (Batch(rows, train, epoch=4, training=True), Batch(rows, held_out)):
        assert (found.mixture(quiet)[0] == 1).all()


@torch.no_grad()
def test_a_trial_passes_its_own_subjects_layer_only(data):
    found, rows, (train, _) = learner(data)
    batch = Batch(rows, train[::5], epoch=1, training=True)
    before = found.predict(batch)
    found.mapper.layers["of_sub-02"].weight.add_(1.0)
    after = found.predict(batch)
    mine = torch.from_numpy(rows.subject[train[::5]] == 0)
    for key, z in before.items():
        torch.testing.assert_close(after[key][mine], z[mine])
        assert not torch.isclose(after[key][~mine], z[~mine]).all(), key
    # blending after the layer is blending the betas before it
    shares, partners = found.mixture(batch)
    place = int(np.flatnonzero((shares < 1) & mine.numpy())[0])
    betas = [Batch(rows, np.array([s])).betas["sub-01"] for s in (train[::5][place],
                                                                  partners[place])]  # fmt: skip
    blend = shares[place] * betas[0] + (1 - shares[place]) * betas[1]
    alone = found.mapper.heads[1](found.mapper.shared(found.mapper.layer(blend, "sub-01")))
    torch.testing.assert_close(alone[0], after[1, "tokens"][place], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_blend_is_no_truth_to_regress_to(data):
    found, rows, (train, _) = learner(data, (1.0, 0.0, 0.0))
    batch = Batch(rows, train, epoch=1, training=True)
    shares, _ = found.mixture(batch)
    goals = found._goals(1, batch.stimuli)
    error = torch.from_numpy(2 * shares - 1).mean()
    value = found.loss({(1, "tokens"): goals + 1}, batch)
    assert value.item() == pytest.approx(error.item() / 3, rel=1e-4)  # of three targets


# ----------------------------------------------------------------------------------- what it finds


def test_planted_maps_are_found_in_every_kind_of_space(both, data):
    trials, targets = data
    assert [type(head).__name__ for head in both.heads] == ["TokenHead", "TokenHead", "LatentHead"]
    for one in trials:
        assert identified(both, one, targets, IMAGE) > 0.85  # chance 0.5
        assert identified(both, one, targets, CONTEXT) > 0.85
        assert identified(both, one, targets, LATENTS) > 0.75
    assert both.history["training trials"] == {"sub-01": TRAIN, "sub-02": TRAIN}


def test_a_priors_sample_is_decided_by_its_seed_and_differentiable(both, data):
    betas = torch.from_numpy(data[0][0].betas[-3:]).requires_grad_()
    z = torch.randn(2, 3, 4)
    prior = both.heads[1].prior
    torch.testing.assert_close(prior.sample(z, 4, 7), prior.sample(z, 4, 7))
    torch.testing.assert_close(prior.sample(z[1:], 4, 7), prior.sample(z, 4, 7)[1:])
    first = np.random.default_rng(7).standard_normal((3, 4)).astype(np.float32)
    once = prior(torch.from_numpy(first).expand_as(z), torch.tensor([99, 99]), z)
    torch.testing.assert_close(prior.sample(z, 1, 7), once)
    both(betas, "sub-01")[CONTEXT].square().sum().backward()
    assert (betas.grad.abs().sum(1) > 0).all()
    regressed = both.regress(betas, "sub-01")
    assert not torch.equal(regressed[CONTEXT], both(betas, "sub-01")[CONTEXT])
    torch.testing.assert_close(regressed[LATENTS], both(betas, "sub-01")[LATENTS])


def test_without_a_prior_the_answer_is_contrastive_or_regressed(data):
    trials, targets = data
    settings = SMALL | {"batch": 16, "lr": 5e-3}
    mapper = Mixer.fit(trials, {CONTEXT: targets[CONTEXT]}, seed=0, **settings)
    mapper.requires_grad_(False)
    rows = TrialRows(trials, {CONTEXT: targets[CONTEXT]})
    batch = Batch(rows, rows.split(0.1, 0)[1])
    codes = solve_layers(mapper, rows, 5, ALPHAS, 0, "cpu", None)
    tokens = mapper.heads[0](mapper.shared(codes[torch.from_numpy(batch.samples)]))
    found = mapper._raw(mapper._contrastive(tokens, 0), 0) - mapper.centre_0
    away = batch.goals[CONTEXT] - mapper.centre_0
    errors = {scale: (scale * found - away).square().sum() for scale in (0.7, 1.0, 1.3)}
    assert min(errors, key=errors.get) == 1.0  # the gain brings it nearest to the truth
    betas = torch.from_numpy(trials[1].betas[-4:])
    given = mapper(betas, "sub-02")[CONTEXT]
    torch.testing.assert_close(given, mapper.retrieve(betas, "sub-02")[CONTEXT])
    mapper.answer = "regressed"
    assert not torch.allclose(given, mapper(betas, "sub-02")[CONTEXT])


def test_layers_can_learn_with_the_rest(data):
    trials, targets = data
    only = {IMAGE: targets[IMAGE]}
    settings = SMALL | {"layers": "learned", "width": 12, "lr": 0.02, "batch": 20}
    settings["answer"] = "regressed"
    mapper = Mixer.fit(trials, only, seed=0, **settings | {"epochs": 15})
    betas = torch.from_numpy(trials[1].betas[-4:])
    torch.testing.assert_close(
        mapper(betas, "sub-02")[IMAGE], mapper.regress(betas, "sub-02")[IMAGE]
    )
    assert identified(mapper, trials[1], targets) > 0.75
    start = Mixer.fit(trials, only, seed=0, **settings | {"epochs": 1, "lr": 1e-9})
    moved = mapper.layers["of_sub-01"].weight - start.layers["of_sub-01"].weight
    assert moved.norm() > 0.05 * start.layers["of_sub-01"].weight.norm()


def test_principal_axes_whiten():
    rows = torch.randn(200, 3) @ torch.diag(torch.tensor([3.0, 1.0, 1e-5])) + 4
    axes, centre = whitening_axes(rows, 8)
    codes = (rows - centre) @ axes.T
    assert axes.shape == (2, 3)  # what is constant is no direction
    torch.testing.assert_close(codes.T @ codes / 200, torch.eye(2), rtol=0, atol=1e-4)
    with pytest.raises(UserError, match="All training stimuli have the same embedding;"):
        whitening_axes(torch.ones(5, 3), 2)


# ----------------------------------------------------------------------------- few trials, further


def test_a_further_subject_begins_with_what_others_taught(both, data, tmp_path):
    trials, targets = data
    folder = save(both, tmp_path / "source")
    settings = {"epochs": 1, "share": 0.5, "lr": 1e-9}
    mapper = Mixer.fit([trials[1]], targets, seed=0, from_checkpoint=folder, width=9, **settings)
    assert mapper.subjects == ("sub-02",)
    assert mapper.history["training trials"] == {"sub-02": TRAIN // 2}
    for key, value in both.state_dict().items():
        if not key.startswith(("layers", "mean_", "sd_", "gain_")):
            torch.testing.assert_close(mapper.state_dict()[key], value, rtol=0, atol=1e-6)
    assert identified(mapper, trials[1], targets) > 0.8
    with pytest.raises(UserError, match="gives toy/image, toy/context, toy/latents, asked for "):
        Mixer.fit([trials[1]], {IMAGE: targets[IMAGE]}, seed=0, from_checkpoint=folder)
    plain = Mixer([IMAGE], {"sub-01": VOXELS}, 6, 3, 2, 1, None)
    folder = save(plain, tmp_path / "plain")
    with pytest.raises(UserError, match="has no code .* add layers=learned"):
        Mixer.fit([trials[1]], {IMAGE: targets[IMAGE]}, seed=0, from_checkpoint=folder)


def test_fewer_trials_are_whole_stimuli_and_sessions(data):
    one = data[0][0]
    half = fewer(one, share=0.5, seed=3)
    assert len(half.rows("train")) == TRAIN // 2 and half.stimuli("test") == one.stimuli("test")
    for row in (0, 7, len(half.table) - 1):
        number = int(half.table["stimulus"][row][1:])
        np.testing.assert_array_equal(half.betas[[row]], one.betas[[number]])
    less = set(fewer(one, share=0.2, seed=3).stimuli("train"))
    assert less < set(half.stimuli("train")) != set(fewer(one, share=0.5, seed=4).stimuli("train"))
    assert fewer(data[0][1], share=0.5, seed=3).stimuli("train") == half.stimuli("train")
    first = fewer(one, sessions=1)
    assert set(first.table["session"][first.rows("train")]) == {1}
    assert fewer(one) is one
    only = {IMAGE: data[1][IMAGE]}  # a fair comparison: ridge on the very same trials
    ridges = Ridge.fit([one], only, seed=3, share=0.5), Ridge.fit([half], only, seed=3)
    for a, b in zip(*(ridge.parameters() for ridge in ridges), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(UserError, match=r"has 3 session\(s\) with training trials, .* were 9;"):
        fewer(one, sessions=9)
    with pytest.raises(UserError, match="found sessions=0, share=0"):
        fewer(one, share=0.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": "frozen"}, "layers is ridge or learned, found 'frozen'"),
        ({"answer": "mean"}, "answer is contrastive or regressed, found 'mean'"),
        ({"streams": 2}, "streams is a whole number from 3, found 2"),
        ({"prior_width": 8}, "prior_width is a whole number from 16, found 8"),
        ({"mix": 2.0}, "found regression=1, contrast=1, low_level=0.5, mix=2"),
        ({"temperatures": (0.1, 0.0, 0.1)}, "temperatures are three numbers .* found 0.1, 0, 0.1"),
        ({"alphas": ()}, "alphas must be positive numbers"),
    ],
)
def test_settings_that_cannot_be_are_refused(data, settings, message):
    trials, targets = data
    with pytest.raises(UserError, match=message):
        Mixer.fit(trials, targets, seed=0, **settings)


def test_a_space_of_another_kind_is_refused():
    space = EmbeddingSpace("toy", "video", (2, 3, 4, 5))
    with pytest.raises(UserError, match=r"shape \(D,\), \(T, D\) and \(C, H, W\), found"):
        Mixer([space], {"sub-01": 4}, 6, 3, 2, 1, None)

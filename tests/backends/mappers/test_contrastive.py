"""The contrastive mapper: its loss by hand, voxels chosen, planted maps found, subjects joined."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from backends.mappers.contrastive import Contrastive
from backends.mappers.parts.losses import info_nce
from backends.mappers.ridge import Ridge
from backends.training.rows import Batch, TrialRows
from explorer.metrics import two_way_identification
from explorer.types import Card, EmbeddingSpace, Subject, Trials, UserError, VoxelSpace

IMAGE = EmbeddingSpace("toy", "image", (24,), unit_norm=True)
TEXT = EmbeddingSpace("toy", "text", (3, 4))
SMALL = {"width": 48, "hidden": 48, "epochs": 30, "batch": 64}
TEST, VOXELS = 50, 40


def planted(train=150, noise=0.7, silent=0, seed=0):
    """Two subjects with other training stimuli, the same test stimuli, and a map of their own.

    Six causes make the embeddings and the betas, both linearly; the first ``silent`` voxels of a
    subject answer to nothing.
    """
    rng = np.random.default_rng(seed)
    n = 2 * train + TEST
    causes = rng.standard_normal((n, 6))
    image = causes @ rng.standard_normal((6, 24)) + 2.0  # away from the origin, as CLIP is
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    text = (causes @ rng.standard_normal((6, 12))).reshape(n, 3, 4)
    names = [f"s{i}" for i in range(n)]
    trials = []
    for k in range(2):
        number = np.r_[k * train : (k + 1) * train, n - TEST : n]
        betas = causes[number] @ rng.standard_normal((6, VOXELS)) / 6**0.5
        betas += noise * rng.standard_normal(betas.shape)
        betas[:, :silent] = rng.standard_normal((len(number), silent))
        table = pd.DataFrame({"stimulus": [names[i] for i in number], "session": 1, "run": 1})
        table["split"], table["repeat"] = ["train"] * train + ["test"] * TEST, 0
        subject = Subject("toy", f"sub-0{k + 1}", VoxelSpace(VOXELS, f"hash-{k}"))
        trials.append(Trials(subject, (5 + 3 * betas).astype(np.float32), "units", table))
    targets = {IMAGE: image, TEXT: text}
    return trials, {
        s: dict(zip(names, z.astype(np.float32), strict=True)) for s, z in targets.items()
    }


def truth(one, named, split="test"):
    return np.stack([named[s] for s in one.table["stimulus"].iloc[one.rows(split)]])


def identified(mapper, one, targets, space=IMAGE):
    """Return two-way identification among the test stimuli, chance 0.5."""
    found = mapper.decode(one.betas[one.rows("test")], one.subject.name)[space]
    return two_way_identification(found, truth(one, targets[space]))


def only(targets, *spaces):
    return {space: targets[space] for space in spaces}


@pytest.fixture(scope="module")
def data():
    return planted()


@pytest.fixture(scope="module")
def both(data):
    trials, targets = data
    return Contrastive.fit(trials, targets, seed=0, **SMALL)


def save(mapper, trials, folder):
    spaces = {
        t.subject.name: t.subject.voxels for t in trials if t.subject.name in mapper.subjects
    }
    voxels = {name: (space.n_voxels, space.hash) for name, space in spaces.items()}
    card = Card(
        *("mapper", "toy", "contrastive", "toy", "test", "MIT"),
        subjects=mapper.subjects, voxels=voxels, targets=mapper.targets,
    )  # fmt: skip
    mapper.save_pretrained(folder, card)
    return str(folder)


# ---------------------------------------------------------------------------------------- the loss


def test_the_loss_is_cross_entropy_both_ways():
    rng = torch.Generator().manual_seed(1)
    a, b = (torch.nn.functional.normalize(torch.randn(5, 3, generator=rng)) for _ in range(2))
    cosines = (a @ b.T).numpy() / 0.1
    by_hand = [
        math.log(np.exp(row).sum()) - row[i]
        for matrix in (cosines, cosines.T)
        for i, row in enumerate(matrix)
    ]
    found = info_nce(a, b, torch.arange(5), 0.1)
    assert found.item() == pytest.approx(np.mean(by_hand), rel=1e-5)


def test_chance_is_the_logarithm_of_the_batch_and_perfect_is_zero():
    one = torch.nn.functional.normalize(torch.ones(8, 8))
    assert info_nce(one, one, torch.arange(8), 0.1).item() == pytest.approx(math.log(8))
    assert info_nce(torch.eye(8), torch.eye(8), torch.arange(8), 0.01).item() < 1e-6


def test_trials_of_one_stimulus_are_not_negatives():
    true = torch.eye(4)[[0, 0, 1, 2]]
    found = info_nce(true, true, torch.tensor([0, 0, 1, 2]), 0.01)
    # the two trials of the first stimulus share its answer: log 2 each way, the others 0
    assert found.item() == pytest.approx(math.log(2) / 2, abs=1e-5)
    predicted = true.clone().requires_grad_()
    info_nce(predicted, true, torch.tensor([0, 0, 1, 2]), 0.01).backward()
    assert predicted.grad.abs().max() < 1e-4  # nothing pushes them apart


# ----------------------------------------------------------------------------------- what it finds


def test_planted_maps_are_found_in_two_subjects_and_two_targets(both, data):
    trials, targets = data
    shuffled = {
        space: dict(zip(named, np.random.default_rng(3).permutation(list(named.values())),
                        strict=True))
        for space, named in targets.items()
    }  # fmt: skip
    for one in trials:
        wrong = Ridge.fit([one], shuffled, seed=0)
        for space in (IMAGE, TEXT):
            assert identified(both, one, targets, space) > 0.93  # chance 0.5
            assert abs(identified(wrong, one, targets, space) - 0.5) < 0.2


@torch.no_grad()
def test_embeddings_have_the_size_of_true_ones(both, data):
    trials, targets = data
    held_out = TrialRows(trials, targets)
    _, samples = held_out.split(0.1, 0)
    batch = Batch(held_out, samples)
    for one in trials:
        found = both(batch.betas[one.subject.name], one.subject.name)
        places = torch.from_numpy(batch.places[one.subject.name])
        for i, space in enumerate(both.targets):
            goals = batch.goals[space][places]
            centre = both.centre(space).reshape(space.shape)
            gain = getattr(both, f"gain_{one.subject.name}")[i]
            errors = {
                scale: float((centre + scale * (found[space] - centre) - goals).square().mean())
                for scale in (0.9, 1.0, 1.1, 0.0)
            }
            assert errors[1.0] == min(errors.values()) and gain > 0  # least squares
            assert errors[1.0] < 0.5 * errors[0.0]  # nearer than the mean embedding
    named = [targets[TEXT][s] for s in held_out.names]
    np.testing.assert_allclose(both.centre(TEXT).numpy(), np.mean(named, 0).ravel(), atol=1e-5)


def test_the_voxels_that_answer_are_chosen():
    trials, targets = planted(silent=15)
    targets = only(targets, IMAGE)
    mapper = Contrastive.fit(trials, targets, seed=0, voxels=20, **SMALL | {"epochs": 3})
    for one in trials:
        columns = getattr(mapper, f"columns_{one.subject.name}")
        assert len(columns) == 20 and columns.min() >= 15 and (columns.diff() > 0).all()
        assert mapper.layers[f"of_{one.subject.name}"].in_features == 20
        betas = torch.from_numpy(one.betas[:3]).requires_grad_()
        mapper(betas, one.subject.name)[IMAGE].square().sum().backward()
        assert set(np.flatnonzero(betas.grad.abs().sum(0))) <= set(columns.tolist())


def test_subject_layers_learn_and_are_saved(both, data, tmp_path):
    trials, targets = data
    start = Contrastive.fit(trials, targets, seed=0, **SMALL | {"epochs": 1, "lr": 1e-9})
    for subject in both.subjects:
        name = f"layers.of_{subject}.weight"
        assert name in dict(both.named_parameters())
        moved = (both.get_parameter(name) - start.get_parameter(name)).norm()
        assert moved > 0.05 * start.get_parameter(name).norm()
    loaded = Contrastive.from_pretrained(save(both, trials, tmp_path / "there"))
    betas = torch.from_numpy(trials[1].betas[:4])
    for space, z in both(betas, "sub-02").items():
        torch.testing.assert_close(loaded(betas, "sub-02")[space], z.detach())
    assert loaded.architecture["selected"] == {"sub-01": VOXELS, "sub-02": VOXELS}


def test_noise_is_of_training_alone_and_decided_by_the_seed(data):
    trials, targets = data
    settings = SMALL | {"epochs": 2, "voxel_dropout": 0.3, "noise": 0.5}
    one, again = (Contrastive.fit(trials, targets, seed=1, **settings) for _ in range(2))
    other = Contrastive.fit(trials, targets, seed=1, **settings | {"noise": 0.0})
    betas = trials[0].betas[:5]
    first = one.decode(betas, "sub-01")[IMAGE]
    np.testing.assert_array_equal(first, one.decode(betas, "sub-01")[IMAGE])
    np.testing.assert_array_equal(first, again.decode(betas, "sub-01")[IMAGE])
    assert not np.allclose(first, other.decode(betas, "sub-01")[IMAGE])


def test_history_tells_how_training_went(both):
    assert both.history["epochs"] == 30 and both.history["stopped"] == ""
    assert both.history["validation loss"] < math.log(30)  # 30 held out; chance


# ---------------------------------------------------------------------------- a further subject


def test_a_new_subject_fits_its_layer_only(both, data, tmp_path):
    trials, targets = data
    folder = save(both, trials, tmp_path / "source")
    few = planted(train=150)[0][0]  # the first subject again, under another name
    few = replace(few, subject=replace(few.subject, name="sub-03"))
    mapper = Contrastive.fit(
        [few], targets, seed=4, from_checkpoint=folder, width=9, **{"epochs": 30, "batch": 64}
    )
    assert mapper.subjects == ("sub-03",) and mapper.architecture["width"] == 48
    for key, value in both.state_dict().items():
        if not key.endswith(("sub-01", "sub-02")) and not key.startswith("layers"):
            assert torch.equal(mapper.state_dict()[key], value), key
    assert all(parameter.requires_grad for parameter in mapper.parameters())
    assert identified(mapper, few, targets) > 0.9


def test_a_checkpoint_with_other_targets_is_refused(both, data, tmp_path):
    trials, targets = data
    folder = save(both, trials, tmp_path / "source")
    with pytest.raises(UserError, match="gives toy/image, toy/text, asked for were toy/image;"):
        Contrastive.fit(trials, only(targets, IMAGE), seed=0, from_checkpoint=folder)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"activation": "relu"}, "activation is identity or gelu, found 'relu'"),
        ({"temperature": 0.0}, "temperature is above 0, .* found temperature=0"),
        ({"voxel_dropout": 1.0}, "voxel_dropout from 0 to below 1"),
        ({"width": 0}, "voxels, width and hidden are whole numbers from 1, .* width=0"),
        ({"lr": -1.0}, "lr and clip are above 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, sentence, data):
    with pytest.raises(UserError, match=sentence):
        Contrastive.fit(*data, seed=0, **settings)

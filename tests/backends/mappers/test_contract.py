"""What every mapper in `MAPPERS` keeps to."""

import numpy as np
import pandas as pd
import pytest
import torch

from backends import MAPPERS
from explorer.mapper import Mapper
from explorer.types import Card, EmbeddingSpace, Subject, Trials, UserError, VoxelSpace, resolve

VECTOR = EmbeddingSpace("toy", "vector", (5,), unit_norm=True)
TOKENS = EmbeddingSpace("toy", "tokens", (2, 3))
VOXELS = {"sub-01": 14, "sub-02": 9}
# of mappers whose defaults are too slow for a test
SETTINGS: dict[str, dict] = {
    "flow": {"epochs": 8, "hidden": 16, "steps": 2},
    "masked": {
        **{"patch": 4, "width": 16, "depth": 1, "heads": 2, "latents": 8, "patch_dropout": 0.0},
        **{"pretrain_epochs": 2, "epochs": 10, "batch": 16, "lr": 5e-3, "validation": 0.0},
    },
    "mlp": {"epochs": 30, "width": 64, "batch": 16, "lr": 3e-3, "voxel_dropout": 0.0},
    "mixer": {
        **{"epochs": 15, "hidden": 8, "blocks": 1},
        **{"prior": True, "prior_width": 16, "prior_depth": 1},
    },
}


def toy(subject: str, seed: int = 0) -> tuple[Trials, dict]:
    """Trials of 40 stimuli, two repeats each, with odd units and one voxel that never varies."""
    v, rng = VOXELS[subject], np.random.default_rng(seed)
    causes = rng.standard_normal((40, 5))
    number = np.repeat(np.arange(40), 2)
    betas = causes[number] @ rng.standard_normal((5, v)) + 0.5 * rng.standard_normal((80, v))
    betas = betas * np.geomspace(0.01, 100, v) + 3
    betas[:, 2] = 0.1
    table = pd.DataFrame({"stimulus": [f"s{i}" for i in number], "session": 1, "run": 1})
    table["split"] = np.where(number < 30, "train", "test")
    table["repeat"] = np.tile([0, 1], 40)
    voxels = VoxelSpace(v, f"hash-{subject}")
    trials = Trials(Subject("toy", subject, voxels), betas.astype(np.float32), "units", table)
    vectors = causes / np.linalg.norm(causes, axis=1, keepdims=True)
    tokens = rng.standard_normal((40, 2, 3))
    return trials, {
        VECTOR: {f"s{i}": x.astype(np.float32) for i, x in enumerate(vectors)},
        TOKENS: {f"s{i}": x.astype(np.float32) for i, x in enumerate(tokens)},
    }


# published predictions are looked up, not learned: tests/backends/test_published.py
@pytest.fixture(
    scope="module", params=[name for name in MAPPERS if name not in ("published", "joined")]
)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def fitted(name) -> Mapper:
    both = [toy(subject)[0] for subject in VOXELS]
    targets = toy("sub-01")[1]
    return resolve(MAPPERS[name]).fit(both, targets, seed=0, **SETTINGS.get(name, {}))


@pytest.fixture
def betas() -> torch.Tensor:
    return torch.from_numpy(toy("sub-01")[0].betas[60:68])


def test_outputs_have_the_shape_of_their_spaces(fitted, betas):
    assert fitted.targets == (VECTOR, TOKENS)
    assert fitted.subjects == tuple(VOXELS)
    found = fitted(betas, "sub-01")
    assert {space: z.shape for space, z in found.items()} == {VECTOR: (8, 5), TOKENS: (8, 2, 3)}
    assert all(z.dtype == torch.float32 and z.isfinite().all() for z in found.values())


def test_it_learned_something_that_holds_for_new_stimuli(fitted):
    trials, targets = toy("sub-01")
    rows = trials.rows("test")
    truth = np.stack([targets[VECTOR][s] for s in trials.table["stimulus"].iloc[rows]])
    found = fitted.decode(trials.betas[rows], "sub-01")[VECTOR]
    assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.8


def test_a_trial_decodes_alone_as_it_does_among_others(fitted, betas):
    for space, together in fitted(betas, "sub-01").items():
        alone = torch.cat([fitted(row[None], "sub-01")[space] for row in betas])
        torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


def test_some_voxels_decode_alone_as_they_do_amid_the_mean(fitted, betas):
    chosen = np.random.default_rng(3).random(betas.shape[1]) < 0.4
    mean = fitted.statistics("sub-01")[0].numpy()
    wanted = fitted.decode(np.where(chosen, betas.numpy(), mean), "sub-01")
    for space in fitted.targets:
        found = fitted.decode_alone(betas.numpy(), "sub-01", chosen, space)
        np.testing.assert_allclose(found, wanted[space], rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_input_and_every_parameter(name, betas):
    trials, targets = toy("sub-01")
    mapper = resolve(MAPPERS[name]).fit([trials], targets, seed=0, **SETTINGS.get(name, {}))
    mapper.requires_grad_(True)
    betas = betas.clone().requires_grad_(True)
    found = mapper(betas, "sub-01")
    total = sum(z.square().sum() for z in found.values())
    if hasattr(mapper, "predict_betas"):  # half of its parameters lead back to the brain
        for space, z in found.items():
            total = total + mapper.predict_betas(z, "sub-01", space=space).square().sum()
    if hasattr(mapper, "retrieve"):  # the contrastive branch stands beside what is decoded
        total = total + sum(z.square().sum() for z in mapper.retrieve(betas, "sub-01").values())
    total.backward()
    assert betas.grad.isfinite().all()
    assert (betas.grad.abs().sum(dim=0) > 0).sum() >= VOXELS["sub-01"] - 1  # one never varies
    for key, parameter in mapper.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


def test_the_same_seed_gives_the_same_mapper(name, fitted):
    both = [toy(subject)[0] for subject in VOXELS]
    again = resolve(MAPPERS[name]).fit(both, toy("sub-01")[1], seed=0, **SETTINGS.get(name, {}))
    for key, value in fitted.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, msg=key)


def test_only_training_rows_decide(name, fitted):
    spoiled = []
    for subject in VOXELS:
        trials = toy(subject)[0]
        betas = trials.betas.copy()
        betas[trials.rows("test")] = np.nan
        spoiled.append(Trials(trials.subject, betas, "units", trials.table))
    targets = {
        space: {s: z for s, z in named.items() if s in spoiled[0].stimuli("train")}
        for space, named in toy("sub-01")[1].items()
    }
    again = resolve(MAPPERS[name]).fit(spoiled, targets, seed=0, **SETTINGS.get(name, {}))
    for key, value in fitted.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, msg=key)


@pytest.mark.parametrize("half", [False, True])
def test_what_is_saved_comes_back(name, fitted, betas, tmp_path, half):
    card = Card(
        "mapper", "toy", name, "toy", "test", "MIT", subjects=fitted.subjects,
        voxels={s: (v, f"hash-{s}") for s, v in VOXELS.items()}, targets=fitted.targets,
    )  # fmt: skip
    fitted.save_pretrained(tmp_path / "there", card, half=half)
    loaded = resolve(MAPPERS[name]).from_pretrained(tmp_path / "there")
    assert loaded.targets == fitted.targets
    assert not any(p.requires_grad for p in loaded.parameters())
    for space, z in fitted(betas, "sub-01").items():
        near = {"rtol": 0, "atol": 5e-3} if half else {"rtol": 1e-6, "atol": 1e-6}
        torch.testing.assert_close(loaded(betas, "sub-01")[space], z.detach(), **near)


def test_a_space_in_which_all_stimuli_are_alike_is_refused(name):
    trials, targets = toy("sub-01")
    alike = EmbeddingSpace("toy", "alike", (3,))
    grey = dict.fromkeys(targets[VECTOR], np.array([0.1, 127.3, -7.7], np.float32))
    with pytest.raises(
        UserError, match="All training stimuli have the same embedding in toy/alike; choose anoth"
    ):
        resolve(MAPPERS[name]).fit(
            [trials], {VECTOR: targets[VECTOR], alike: grey}, seed=0, **SETTINGS.get(name, {})
        )


def test_strangers_are_refused(fitted, betas):
    with pytest.raises(UserError, match="sub-01, sub-02, not 'sub-09'"):
        fitted(betas, "sub-09")
    with pytest.raises(UserError, match=r"\(trials, 9\), found \(8, 14\)"):
        fitted(betas, "sub-02")


def test_progress_is_told(name):
    trials, targets = toy("sub-01")
    said: list[str] = []
    settings = SETTINGS.get(name, {})
    resolve(MAPPERS[name]).fit([trials], targets, seed=0, progress=said.append, **settings)
    assert said
    assert all(isinstance(sentence, str) and sentence for sentence in said)

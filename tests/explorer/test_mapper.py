"""The abstract mapper: its statistics, its strict checkpoint, and whether it fits the data."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from explorer.mapper import (
    Mapper,
    read_card,
    read_weights,
    training_statistics,
    write_card,
    write_checkpoint,
)
from explorer.matching import check_fits, split_hash
from explorer.types import Card, EmbeddingSpace, Subject, Trials, UserError, VoxelSpace

SPACE = EmbeddingSpace("fake", "image", (3,), True)


class Affine(Mapper):
    """A linear map; ``power`` is a setting of its own, which must come back when it is loaded."""

    def __init__(self, targets, voxels, power=1):
        super().__init__(targets, voxels, power=power)
        self.power = power
        size = sum(voxels.values())
        self.weights = torch.nn.Parameter(torch.linspace(-1, 1, size * 3).reshape(size, 3))
        self.register_buffer("count", torch.tensor(7))  # not a float: stored as it is

    def forward(self, betas, subject):
        return {self.targets[0]: self.standardise(betas, subject) ** self.power @ self.weights}

    @classmethod
    def fit(cls, trials, targets, *, seed, progress=None, **settings):
        mapper = cls(tuple(targets), {t.subject.name: t.betas.shape[1] for t in trials})
        for each in trials:
            mapper.set_statistics(each)
        return mapper


def make_trials(voxels=5, name="s-1", seed=0, digest="h", test=("c",)):
    rng = np.random.default_rng(seed)
    stimuli = ["a", "b", "a", *test]
    table = pd.DataFrame({"stimulus": stimuli, "repeat": 0, "session": 1, "run": 1})
    table["split"] = ["train"] * 3 + ["test"] * len(test)
    betas = (rng.normal(size=(len(table), voxels)) * 4 + 100).astype(np.float32)
    return Trials(Subject("study", name, VoxelSpace(voxels, digest)), betas, "psc", table)


def make_card(trials, **changes):
    voxels = trials.subject.voxels
    name = trials.subject.name
    card = Card(
        "mapper", "affine", "affine", "study", "cmd", "MIT",
        subjects=(name,), voxels={name: (voxels.n_voxels, voxels.hash)}, targets=(SPACE,),
        split_hash=split_hash(trials), settings={"seed": 3}, metrics={"r": 0.5},
    )  # fmt: skip
    return replace(card, **changes)


@pytest.fixture
def trials():
    return make_trials()


@pytest.fixture
def saved(trials, tmp_path):
    """Return a checkpoint folder with a mapper that was saved in it."""
    mapper = Affine.fit([trials], {SPACE: {}}, seed=0)
    mapper.save_pretrained(tmp_path / "there" / "affine", make_card(trials))
    return tmp_path / "there" / "affine"


# -------------------------------------------------------------------------------------- statistics


def test_statistics_come_from_training_rows_only(trials):
    mean, sd = training_statistics(trials)
    np.testing.assert_allclose(mean, trials.betas[:3].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(sd, trials.betas[:3].std(axis=0), rtol=1e-5)
    trials.betas[3] = 1e6  # the test row
    again, _ = training_statistics(trials)
    np.testing.assert_array_equal(mean, again)


def test_statistics_are_read_in_blocks(trials, monkeypatch):
    whole = training_statistics(trials)
    monkeypatch.setattr("explorer.mapper.ROWS_AT_ONCE", 2)
    for a, b in zip(whole, training_statistics(trials), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_constant_voxel_standardises_to_zero(trials):
    trials.betas[:3, 2] = 12345.678
    mapper = Affine.fit([trials], {SPACE: {}}, seed=0)
    z = mapper.standardise(torch.from_numpy(trials.betas[:3]), "s-1")
    assert (z[:, 2] == 0).all()
    np.testing.assert_allclose(z[:, [0, 1, 3, 4]].mean(dim=0), 0, atol=1e-4)
    np.testing.assert_allclose(z[:, [0, 1, 3, 4]].std(dim=0, correction=0), 1, rtol=1e-3)


def test_one_trial_decodes_alone_and_the_same_way(trials):
    mapper = Affine.fit([trials], {SPACE: {}}, seed=0)
    together = mapper.decode(trials.betas, "s-1")[SPACE]
    alone = mapper.decode(trials.betas[3:], "s-1")[SPACE]
    assert together.dtype == np.float32 and together.shape == (4, 3)
    np.testing.assert_allclose(together[3:], alone, rtol=1e-5, atol=1e-6)


def test_statistics_that_cannot_be_taken(trials):
    trials.betas[1, 4] = np.nan
    with pytest.raises(UserError, match=r"study/s-1 .* not finite \(first in voxel 4\)"):
        training_statistics(trials)
    none = replace(trials, table=trials.table.assign(split="test"))
    with pytest.raises(UserError, match="study/s-1 has no training trial"):
        training_statistics(none)


def test_a_subject_or_voxel_count_it_does_not_know(trials):
    mapper = Affine.fit([trials], {SPACE: {}}, seed=0)
    with pytest.raises(UserError, match=r"reads betas of shape \(trials, 5\), found \(2, 4\)"):
        mapper.decode(np.zeros((2, 4)), "s-1")
    with pytest.raises(UserError, match="knows the subject.s. s-1, not 's-2'"):
        mapper.decode(np.zeros((2, 5)), "s-2")
    with pytest.raises(UserError, match="subject 's.1': its name has a dot"):
        Affine([SPACE], {"s.1": 3})


def test_the_abstract_class_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        Mapper([SPACE], {"s": 3})


# -------------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize("half", [False, True])
def test_round_trip(half, trials, tmp_path):
    mapper = Affine([SPACE], {"s-1": 5}, power=2)
    mapper.set_statistics(trials)
    mapper.save_pretrained(tmp_path / "m", make_card(trials), half=half)
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["card.json", "model.safetensors"]
    state = load_file(tmp_path / "m" / "model.safetensors")
    assert state["weights"].dtype == (torch.float16 if half else torch.float32)
    assert state["mean_s-1"].dtype == torch.float32  # betas may be beyond what float16 holds
    assert state["count"].dtype == torch.int64

    loaded = Affine.from_pretrained(tmp_path / "m")
    assert loaded.power == 2 and loaded.targets == (SPACE,) and not loaded.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in loaded.parameters())
    assert loaded.count == 7
    expected = mapper.weights.half().float() if half else mapper.weights
    torch.testing.assert_close(loaded.weights, expected, rtol=0, atol=0)
    if not half:
        np.testing.assert_array_equal(
            loaded.decode(trials.betas, "s-1")[SPACE], mapper.decode(trials.betas, "s-1")[SPACE]
        )
    wanted = make_card(trials, settings={"seed": 3, "architecture": {"power": 2}})
    assert loaded.card == wanted == mapper.card


def test_saving_again_replaces_the_whole_folder(trials, saved):
    (saved / "left over.txt").write_text("from an older version")
    mapper = Affine.from_pretrained(saved)
    with torch.no_grad():
        mapper.weights.fill_(0.5)
    mapper.save_pretrained(saved, make_card(trials))
    assert sorted(p.name for p in saved.iterdir()) == ["card.json", "model.safetensors"]
    assert (Affine.from_pretrained(saved).weights == 0.5).all()
    assert [p.name for p in saved.parent.iterdir()] == ["affine"]  # nothing temporary is left


@pytest.mark.parametrize("failure", ["weights", "card", "rename"])
def test_an_interrupted_save_changes_nothing(failure, trials, saved, monkeypatch):
    mapper = Affine.from_pretrained(saved)
    before = {p.name: p.read_bytes() for p in saved.iterdir()}

    def fail(*args, **kwargs):
        raise KeyboardInterrupt if failure != "rename" else OSError("disk full")

    if failure == "rename":
        from pathlib import Path

        rename = Path.rename

        def rename_once(self, target):
            # the second rename, which puts the new folder in its place
            return fail() if "old" not in f"{self}{target}" else rename(self, target)

        monkeypatch.setattr(Path, "rename", rename_once)
    else:
        name = "safetensors.torch.save_file" if failure == "weights" else "json.dumps"
        monkeypatch.setattr(name, fail)
    with torch.no_grad():
        mapper.weights.fill_(0.5)
    with pytest.raises((KeyboardInterrupt, OSError)):
        mapper.save_pretrained(saved, make_card(trials))
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before
    assert [p.name for p in saved.parent.iterdir()] == ["affine"]


def test_weights_that_are_not_finite_are_not_written(trials, tmp_path):
    mapper = Affine.fit([trials], {SPACE: {}}, seed=0)
    with torch.no_grad():
        mapper.weights[0, 0] = 1e6
    with pytest.raises(UserError, match="weights holds values that are not finite in float16"):
        mapper.save_pretrained(tmp_path / "m", make_card(trials), half=True)
    assert not (tmp_path / "m").exists()
    mapper.save_pretrained(tmp_path / "m", make_card(trials))
    with pytest.raises(UserError, match="weight holds values that are not finite; .* not written"):
        write_checkpoint(tmp_path / "n", {"weight": torch.tensor([torch.nan])}, mapper.card)


# ---------------------------------------------------------------------------------- damaged
# folders


def test_missing_files(saved, tmp_path):
    with pytest.raises(UserError, match="nowhere.card.json is missing: a checkpoint is a folder"):
        Affine.from_pretrained(tmp_path / "nowhere")
    (saved / "model.safetensors").unlink()
    with pytest.raises(UserError, match="model.safetensors is missing"):
        Affine.from_pretrained(saved)


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_truncated_weights(saved, kept):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match="model.safetensors is damaged or cut short"):
        Affine.from_pretrained(saved)


def test_weights_of_another_version_or_shape(saved):
    path = saved / "model.safetensors"
    state = load_file(path)
    save_file({k: v for k, v in state.items() if k != "weights"}, path)
    with pytest.raises(UserError, match="3 tensors, expected 4; 'weights' is missing"):
        Affine.from_pretrained(saved)
    save_file({**state, "extra": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="5 tensors, expected 4; 'extra' is unknown"):
        Affine.from_pretrained(saved)
    save_file({**state, "weights": torch.zeros(4, 3)}, path)
    with pytest.raises(UserError, match=r"'weights' has shape \(4, 3\), its card says \(5, 3\)"):
        Affine.from_pretrained(saved)
    save_file({**state, "sd_s-1": torch.full((5,), torch.nan)}, path)
    with pytest.raises(UserError, match="'sd_s-1' holds values that are not finite"):
        Affine.from_pretrained(saved)


def test_read_weights_serves_any_checkpoint(saved):
    state = read_weights(saved, Affine([SPACE], {"s-1": 5}).state_dict())
    assert set(state) == {"mean_s-1", "sd_s-1", "weights", "count"}


def edited(folder, **changes):
    """Change fields of a card on disk; None removes one."""
    values = json.loads((folder / "card.json").read_text()) | changes
    values = {k: v for k, v in values.items() if v is not None}
    (folder / "card.json").write_text(json.dumps(values))
    return folder


def test_cards_that_are_not_valid(saved):
    with pytest.raises(UserError, match="affine: card.json has the unknown field 'colour'"):
        read_card(edited(saved, colour="red"))
    with pytest.raises(UserError, match="card.json is not a valid card: .*'licence'"):
        read_card(edited(saved, colour=None, licence=None))
    with pytest.raises(UserError, match="names the subject 's-1' but not its voxels"):
        read_card(edited(saved, licence="MIT", voxels={}))
    (saved / "card.json").write_text("[1, 2]")
    with pytest.raises(UserError, match="holds a list, expected an object"):
        read_card(saved)
    (saved / "card.json").write_text('{"kind": "map')
    with pytest.raises(UserError, match="card.json cannot be read as JSON"):
        read_card(saved)
    (saved / "card.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="card.json cannot be read as JSON"):
        read_card(saved)


def test_checkpoints_of_another_kind_or_constructor(saved):
    with pytest.raises(UserError, match="of kind 'judge', expected 'mapper'"):
        Affine.from_pretrained(edited(saved, kind="judge"))
    settings = {"architecture": {"depth": 3}}
    with pytest.raises(UserError, match="another version of Affine .*depth.*train it again"):
        Affine.from_pretrained(edited(saved, kind="mapper", settings=settings))


def test_a_card_survives_json(trials, tmp_path):
    card = make_card(trials, versions={"torch": "2"}, seconds=1.5)
    write_card(tmp_path, card)
    assert read_card(tmp_path) == card
    assert [p.name for p in tmp_path.iterdir()] == ["card.json"]


# ---------------------------------------------------------------------------------- does it fit?


def test_a_card_fits_what_it_was_made_for(trials):
    card = make_card(trials)
    check_fits(card, trials)
    check_fits(card, trials.subject)


def test_another_voxel_set_is_refused_with_both_numbers(trials):
    card = make_card(trials)
    with pytest.raises(UserError, match=r"5 voxels of s-1 \(hash h\), study/s-1 has 6 \(hash h\)"):
        check_fits(card, make_trials(voxels=6).subject)
    with pytest.raises(UserError, match=r"5 voxels .*\(hash h\), .* has 5 \(hash other\)"):
        check_fits(card, make_trials(digest="other"))
    with pytest.raises(UserError, match="trained for s-1, not for s-2; train one for study/s-2"):
        check_fits(card, make_trials(name="s-2").subject)


def test_another_split_is_refused(trials):
    card = make_card(trials)
    train, test = card.split_hash.split("-")
    other = make_trials(test=("c", "d"))
    with pytest.raises(UserError, match=f"another choice of test stimuli .hash {test}. than"):
        check_fits(card, other)
    moved = trials.table.assign(split=["train", "test", "train", "test"])
    with pytest.raises(UserError, match=f"another choice of train stimuli .hash {train}. than"):
        check_fits(card, replace(trials, table=moved))
    check_fits(replace(card, split_hash=""), other)  # an old card that does not say


def test_the_split_hash_is_of_stimuli_not_of_rows(trials):
    again = make_trials(test=("c", "c"), seed=5)  # another repeat, other betas
    assert split_hash(again) == split_hash(trials)
    backwards = Trials(
        trials.subject, trials.betas[::-1], "psc", trials.table[::-1].reset_index(drop=True)
    )
    assert split_hash(backwards) == split_hash(trials)
    assert split_hash(make_trials(test=("d",))) != split_hash(trials)


def test_a_study_that_ships_without_training_rows_still_fits(trials):
    card = make_card(trials)
    rows = trials.rows("test")
    shipped = replace(
        trials, betas=trials.betas[rows], table=trials.table.iloc[rows].reset_index(drop=True)
    )
    assert split_hash(shipped).startswith("00000000-")
    check_fits(card, shipped)


def test_a_card_of_several_subjects_is_compared_subject_by_subject():
    one, two = make_trials(name="s-1"), make_trials(voxels=7, name="s-2", test=("e",))
    card = make_card(
        one,
        subjects=("s-1", "s-2"),
        voxels={"s-1": (5, "h"), "s-2": (7, "h")},
        split_hash=split_hash(one, two),
    )
    check_fits(card, one)
    check_fits(card, two)
    with pytest.raises(UserError, match="another choice of test stimuli"):
        check_fits(card, make_trials(voxels=7, name="s-2"))
    mapper = Affine([SPACE], {"s-1": 5, "s-2": 7})
    assert mapper.subjects == ("s-1", "s-2") and len(mapper.statistics("s-2")[0]) == 7


def test_a_card_that_is_nested_too_deep_or_a_folder_is_one_sentence(tmp_path):
    (tmp_path / "card.json").write_text("[" * 100_000)
    with pytest.raises(
        UserError, match=r"card\.json cannot be read as JSON \(.*\); copy it again"
    ):
        read_card(tmp_path)
    (tmp_path / "other" / "card.json").mkdir(parents=True)
    with pytest.raises(
        UserError, match=r"card\.json cannot be read as JSON \(.*\); copy it again"
    ):
        read_card(tmp_path / "other")

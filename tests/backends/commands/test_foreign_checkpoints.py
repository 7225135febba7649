"""Files of trainings: opened whatever was pickled beside the tensors, in one file or several."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from backends.commands.foreign_checkpoints import open_checkpoint
from backends.commands.import_checkpoint import alone, convert
from explorer.types import UserError
from tests.miniatures.checkpoints import PEOPLE, converted, mindeye2, saved


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("old", [False, True])
def test_a_file_that_wants_to_run_something_is_read_and_runs_nothing(tmp_path, old):
    path, made = tmp_path / "evil.pth", tmp_path / "made"
    content = {"model_state_dict": mindeye2(), "config": Evil(made)}
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    found = open_checkpoint(path)
    assert not made.exists() and found.kind == "mindeye2" and found.config == {}
    assert found.unbuilt in (("io.open",), ("_io.open",))
    assert found.told()[-1] == f"Pickled beside them, and not built: {found.unbuilt[0]}"


def test_the_last_checkpoint_of_mindeye2s_training_opens(tmp_path):
    """Its scheduler's state, as torch 2.1 wrote it, holds a bound method."""
    net = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-4)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-4, total_steps=9)
    kept = {k: v for k, v in scheduler.__dict__.items() if k != "optimizer"}
    path = tmp_path / "last.pth"
    torch.save(
        {
            "epoch": 149,
            "model_state_dict": mindeye2(),
            "optimizer_state_dict": optimiser.state_dict(),
            "lr_scheduler": kept | {"anneal_func": scheduler._annealing_cos},
            "train_losses": [np.float32(1.5)],
        },
        path,
    )
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    found = open_checkpoint(path)
    assert found.kind == "mindeye2" and found.unknown == found.missing == ()
    assert "lr_scheduler" in found.beside and found.unbuilt
    plain = converted(saved(tmp_path / "plain.pth", mindeye2()))
    assert all(torch.equal(z, plain[name]) for name, z in converted(found).items())


def test_deepspeeds_entry_and_an_average_are_told_and_chosen(tmp_path):
    path, doubled = tmp_path / "a.pt", {k: 2 * z for k, z in mindeye2().items()}
    torch.save({"module": mindeye2(), "ema_state_dict": doubled, "ema_decay": 0.999}, path)
    plain, average = open_checkpoint(path), open_checkpoint(path, ema=True)
    name = "ridge.linears.0.weight"
    assert torch.equal(2 * plain.state[name], average.state[name])
    wanted = "Also an average of the weights (ema_state_dict): "
    assert plain.told()[-1] == f"{wanted}add --ema to read the average"
    assert average.told()[-1] == f"{wanted}the average is read"
    torch.save({"module": mindeye2()}, path)
    assert open_checkpoint(path).told()[-1] == "Missing: none"
    with pytest.raises(UserError, match="holds no average of its weights; leave out --ema"):
        open_checkpoint(path, ema=True)


def test_an_average_alone_or_beside_its_rate_and_an_empty_state_before_the_models(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"ema": {"decay": torch.tensor(0.99), "shadow": mindeye2()}}, path)
    with pytest.raises(UserError, match="nothing but an average of weights; add --ema to read it"):
        open_checkpoint(path)
    found = open_checkpoint(path, ema=True)
    assert found.kind == "mindeye2" and found.unknown == found.missing == ()
    torch.save({"state_dict": {}, "model": mindeye2()}, path)
    assert open_checkpoint(path).kind == "mindeye2"


def sharded(folder, state, places=None):
    """Write a checkpoint in two files with its index, as huggingface_hub does."""
    names = sorted(state)
    files = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, some in files.items():
        save_file({name: state[name] for name in some}, folder / file)
    told = {name: file for file, some in files.items() for name in some}
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": told | (places or {})}))
    return path


def test_a_checkpoint_in_several_files_is_read_by_its_index(tmp_path):
    found = open_checkpoint(sharded(tmp_path, mindeye2()))
    assert found.kind == "mindeye2" and found.unknown == found.missing == ()
    for name, z in mindeye2().items():
        assert torch.equal(found.state[name], z)
    for places, said in (
        ({"ridge.linears.9.weight": "a.safetensors"}, "names 'ridge.linears.9.weight' in a.safe"),
        ({"x": "../a.safetensors"}, "names '../a.safetensors', expected a file beside it"),
        ({"x": "c.safetensors"}, "c.safetensors"),
        ({sorted(mindeye2())[0]: "b.safetensors"}, "which model.safetensors.index.json does not"),
    ):
        with pytest.raises(UserError, match=said):
            open_checkpoint(sharded(tmp_path, mindeye2(), places))
    sharded(tmp_path, mindeye2()).write_text('{"weight_map": [1]}')
    with pytest.raises(UserError, match="has no weight_map of tensors and their files"):
        open_checkpoint(tmp_path / "model.safetensors.index.json")


@pytest.mark.parametrize("layers", ["ridge", "voxelenc"])
def test_one_subject_of_several_converts_alone(tmp_path, layers):
    found = saved(tmp_path / "both.pth", mindeye2(layers))
    one, whose = alone(found, ["subj01", "subj02"], "subj02")
    assert whose == ["subj02"]
    asked = {"title": "", "command": "", "known": {}}
    mapper, card, _ = convert(one, PEOPLE[1:], "bigG/tokens", **asked)
    both, _, _ = convert(found, PEOPLE, "bigG/tokens", **asked)
    assert card.subjects == ("subj02",)
    betas = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    for space, z in mapper.decode(betas, "subj02").items():
        np.testing.assert_array_equal(z, both.decode(betas, "subj02")[space])
    for everybody, only in ((["subj01"], "subj01"), (["subj01", "subj02"], "subj03")):
        with pytest.raises(UserError, match="has 2 subjects' layers; name all of them in the"):
            alone(found, everybody, only)


def test_files_that_cannot_be_read_are_one_sentence(tmp_path):
    with pytest.raises(
        UserError, match=r"ends in \.pth, \.pt, \.ckpt, \.safetensors, \.index\.json, found"
    ):
        open_checkpoint(tmp_path / "none.pth")
    (tmp_path / "weights.h5").write_bytes(b"x")
    with pytest.raises(UserError, match=r"found .*weights\.h5; name that file"):
        open_checkpoint(tmp_path / "weights.h5")
    for name in ("cut.pth", "cut.safetensors"):
        (tmp_path / name).write_bytes(b"not a checkpoint")
        with pytest.raises(UserError, match=f"{name} (is damaged|cannot be read)"):
            open_checkpoint(tmp_path / name)
    whole = tmp_path / "whole.pt"
    torch.save(mindeye2(), whole)
    (tmp_path / "half.pt").write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"half\.pt (is damaged|cannot be read)"):
        open_checkpoint(tmp_path / "half.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match=r"list\.pt holds no tensors of a model"):
        open_checkpoint(tmp_path / "list.pt")

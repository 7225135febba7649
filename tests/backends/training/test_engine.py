"""The training of mappers: learn, resume, keep the best, do the same on two processes."""

import os
import re
import resource
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backends.training.engine import train_network
from backends.training.rows import Batch, TrialRows
from explorer.types import UserError
from tests.backends.training.toy import COURSE, problem_of, recorded, same, squares, study

ROOT = Path(__file__).resolve().parents[3]


def run_child(mode, folder, **environment):
    """Start this file as a program of its own (see the end)."""
    paths = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, mode, str(folder)]
    return subprocess.Popen(command, env=os.environ | paths | environment)


def test_it_finds_the_linear_maps_that_were_planted_in_two_subjects():
    trials, targets, truth = study()
    model, predict, _, data = problem_of(trials, targets)
    course = replace(COURSE, epochs=120, lr=0.05, weight_decay=0.0)
    history = train_network("toy", model, predict, squares, data, course)
    for name, spread in truth.items():
        torch.testing.assert_close(model[name].weight.detach() @ spread, torch.eye(4), atol=0.02,
                                   rtol=0)  # fmt: skip
    assert history.validation[-1] < 1e-3 and history.stopped == "" and not model.training


def test_rows_are_read_a_batch_at_a_time_and_test_rows_never():
    trials, targets, _ = study()
    model, predict, loss, data = problem_of(trials, targets)
    train_network("toy", model, predict, loss, data, COURSE)
    for one in trials:
        assert max(len(rows) for rows in one.betas.asked) <= 16
        assert all((np.diff(rows) > 0).all() for rows in one.betas.asked)  # files go forwards
        assert set(np.concatenate(one.betas.asked)) == set(one.rows("train"))


def test_pieces_change_no_result():
    whole, history, losses = recorded(COURSE)
    pieces, other, again = recorded(replace(COURSE, accumulate=3))
    assert again == pytest.approx(losses, abs=1e-5)
    assert other.validation == pytest.approx(history.validation, abs=1e-5)
    same(whole, pieces, atol=1e-5, rtol=1e-4)


def test_two_processes_do_what_one_does(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    children = [
        run_child("two", tmp_path, RANK=str(rank), LOCAL_RANK=str(rank), **address)
        for rank in range(2)
    ]
    model, history, losses = recorded(COURSE)
    assert [child.wait(timeout=300) for child in children] == [0, 0]
    assert len(list((tmp_path / "run" / "afterimage").glob("events.*"))) == 1  # of the first
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found["processes"] == 2 and len(losses) == len(found["losses"]) == 4 * 6
        assert found["losses"] == pytest.approx(losses, abs=1e-4)
        assert found["validation"] == pytest.approx(history.validation, abs=1e-4)
        for key, value in model.state_dict().items():
            torch.testing.assert_close(found["state"][key], value, atol=1e-4, rtol=1e-3)


def test_a_killed_run_goes_on_to_the_same_result(tmp_path):
    child = run_child("killed", tmp_path / "run")
    whole, history, losses = recorded(COURSE)
    assert child.wait(timeout=300) == -signal.SIGKILL
    said = []
    resumed, other, rest = recorded(COURSE, tmp_path / "run", progress=said.append)
    assert said[0] == "toy: goes on from step 12/24"
    assert rest == losses[12:] and other.validation == history.validation
    same(whole, resumed, atol=0, rtol=0)
    finished, again, none = recorded(COURSE, tmp_path / "run")
    assert none == [] and again.validation == history.validation
    same(whole, finished, atol=0, rtol=0)


def test_a_state_of_other_settings_or_trials_is_refused(tmp_path):
    recorded(COURSE, tmp_path)
    with pytest.raises(
        UserError, match=r"state\.pt was left by a run with other settings or other"
    ):
        recorded(replace(COURSE, lr=0.01), tmp_path)
    trials, targets, _ = study(noise=0.3)
    fewer = [replace(one, table=one.table.assign(split=one.table["split"].where(
        one.table["stimulus"] != "s00", "test"))) for one in trials]  # fmt: skip
    model, predict, loss, data = problem_of(fewer, targets)
    with pytest.raises(UserError, match="delete it to begin anew"):
        train_network("toy", model, predict, loss, data, COURSE, run=tmp_path, trackers=())


def test_the_best_epoch_is_kept_and_patience_ends(tmp_path):
    trials, targets, _ = study(noise=2.0)
    model, predict, _, data = problem_of(trials, targets)
    said = []
    course = replace(COURSE, epochs=200, lr=0.05, patience=3, weight_decay=0.0)
    history = train_network(
        "toy", model, predict, squares, data, course, run=tmp_path, trackers=(),
        progress=said.append,
    )  # fmt: skip
    assert history.epochs == history.kept + 3 < 200
    assert history.validation[history.kept - 1] == min(history.validation)
    batch = Batch(data, data.split(0.2, course.seed)[1])
    with torch.no_grad():
        assert float(squares(predict(batch), batch)) == pytest.approx(min(history.validation))
    assert history.stopped == (
        f"The validation loss has not improved for 3 epochs; the weights of epoch {history.kept} "
        "are kept."
    )
    assert said[-1] == f"toy: {history.stopped}"
    assert re.fullmatch(
        rf"toy: epoch {history.epochs}/200, step \d+/1200, loss \d\.\d{{4}}, validation "
        rf"\d\.\d{{4}} \(best {min(history.validation):.4f}\), 0 s left",
        said[-2],
    )
    assert history.to_dict()["epoch kept"] == history.kept
    steps = [(one.done, one.total, one.last) for one in said[:-1]]  # one after each step
    assert steps == [(i, 1200, i == len(steps)) for i in range(1, len(steps) + 1)]


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_that_diverges_keeps_the_last_good_weights(where, tmp_path):
    trials, targets, _ = study()
    model, predict, _, data = problem_of(trials, targets)
    good = {}

    def loss(found, batch):
        if batch.training and batch.epoch == 2:
            good.setdefault("weights", {k: v.clone() for k, v in model.state_dict().items()})
            if where == "gradient":  # the square root of 0 has none
                return (found["z"] - found["z"].detach()).square().sum().sqrt()
            return squares(found, batch) * float("inf")
        return squares(found, batch)

    history = train_network("toy", model, predict, loss, data, COURSE, run=tmp_path, trackers=())
    assert re.fullmatch(
        r"The loss became (inf|nan) in epoch 3; the best weights of the 2 epoch\(s\) before it "
        r"are kept; try a lower lr \(now 0\.02\), a smaller clip \(now 1\)\.",
        history.stopped,
    )
    assert (history.epochs, history.kept) == (2, 2)
    for key, value in good["weights"].items():
        assert torch.equal(model.state_dict()[key], value)


def test_a_loss_that_diverges_at_once_is_an_error_and_leaves_no_state(tmp_path, monkeypatch):
    monkeypatch.setattr("backends.training.state.EVERY", 0.0)
    trials, targets, _ = study()
    model, predict, _, data = problem_of(trials, targets)
    steps = []

    def loss(found, batch):
        steps.append(1)
        return squares(found, batch) * (float("nan") if len(steps) == 3 else 1.0)

    with pytest.raises(
        UserError, match="toy: the loss became nan at step 3, before one epoch was"
    ):
        train_network("toy", model, predict, loss, data, COURSE, run=tmp_path, trackers=())
    assert not (tmp_path / "state.pt").exists()


def test_without_validation_the_last_weights_are_kept():
    _, history, losses = recorded(replace(COURSE, validation=0.0))
    assert history.validation == () and history.kept == history.epochs == 4
    assert len(losses) == 4 * (128 // 16)


def test_half_precision_is_near_and_frozen_weights_stay():
    full, _, losses = recorded(COURSE)
    half, _, rough = recorded(replace(COURSE, precision="bf16"))
    assert rough != losses and rough == pytest.approx(losses, abs=0.05)
    trials, targets, _ = study()
    model, predict, loss, data = problem_of(trials, targets)
    before = model["sub-01"].weight.detach().clone()
    model["sub-01"].requires_grad_(False)
    train_network("toy", model, predict, loss, data, COURSE)
    assert torch.equal(model["sub-01"].weight, before)


def test_what_was_learned_is_logged_for_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trials, targets, _ = study()
    model, predict, loss, data = problem_of(trials, targets)

    def measure(found, batch):
        return {"error": float(squares(found, batch))}

    history = train_network(
        "toy", model, predict, loss, data, COURSE, run=tmp_path, measure=measure
    )
    (file,) = (tmp_path / "afterimage").glob("events.*")
    record = EventAccumulator(str(file)).Reload()
    assert [event.step for event in record.Scalars("loss")] == list(range(24))
    logged = [event.value for event in record.Scalars("validation loss")]
    assert logged == pytest.approx(history.validation) and len(record.Scalars("error")) == 4


def test_pictures_of_validation_trials_are_shown_and_change_nothing(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    plain, history, losses = recorded(COURSE, tmp_path / "plain", trackers=("tensorboard",))
    seen = []

    def pictures(model, batch):
        assert not model.training and not torch.is_grad_enabled()
        torch.rand(5)  # a generator that draws from torch's own randomness
        names = [str(name) for name in batch.data.names[batch.stimuli]]
        seen.append((names, [round(float(p.detach().sum()), 6) for p in model.parameters()]))
        return np.full((len(batch), 8, 16, 3), 40 * len(seen), np.uint8)

    model, other, again = recorded(
        COURSE, tmp_path / "drawn", trackers=("tensorboard",), pictures=pictures
    )
    assert again == losses and other.validation == history.validation
    same(plain, model, atol=0, rtol=0)
    trials, targets, _ = study(noise=0.3)
    data = TrialRows(trials, targets)
    held_out = {str(name) for name in data.names[data.stimulus[data.split(0.2, COURSE.seed)[1]]]}
    first, last = seen[0], seen[-1]
    assert len(seen) >= 2 and all(names == first[0] for names, _ in seen)  # always the same trials
    assert len(set(first[0])) == len(first[0]) == 6 and set(first[0]) <= held_out
    assert last[1] == [round(float(p.detach().sum()), 6) for p in model.parameters()]  # the best
    (file,) = (tmp_path / "drawn" / "afterimage").glob("events.*")
    record = EventAccumulator(str(file)).Reload()
    shown = {event.step for tag in record.Tags()["images"] for event in record.Images(tag)}
    assert {6, 24} <= shown <= {6, 12, 18, 24}  # after the first epoch and at the end


def test_weights_and_biases_is_asked_for_by_name(monkeypatch, tmp_path):
    monkeypatch.setattr("backends.training.engine.find_spec", lambda name: None)
    trials, targets, _ = study()
    parts = problem_of(trials, targets)
    with pytest.raises(UserError, match="wandb is not installed; install it with pip install"):
        train_network("toy", *parts, COURSE, run=tmp_path, trackers=("tensorboard", "wandb"))
    with pytest.raises(UserError, match="one of tensorboard, wandb, found 'paper'"):
        train_network("toy", *parts, COURSE, run=tmp_path, trackers=("paper",))


def test_a_disk_that_takes_nothing_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"state\.pt cannot be written \(.*\); make room on that"):
        recorded(COURSE, tmp_path / "file" / "run")


def test_a_full_disk_costs_only_what_came_after_the_last_state(tmp_path, monkeypatch):
    monkeypatch.setattr("backends.training.state.EVERY", 0.0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    whole, history, losses = recorded(COURSE)
    trials, targets, _ = study(noise=0.3)
    model, predict, loss, data = problem_of(trials, targets, 0.3)

    def filling(found, batch):
        if batch.epoch == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
        return loss(found, batch)

    try:
        with pytest.raises(UserError, match=r"state\.pt cannot be written .* make room on that"):
            train_network("toy", model, predict, filling, data, COURSE, run=tmp_path, trackers=())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]  # nothing half written
    resumed, other, rest = recorded(COURSE, tmp_path)
    assert 0 < len(rest) < len(losses) and rest == losses[-len(rest) :]
    assert other.validation == history.validation
    same(whole, resumed, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epochs": 0}, "epochs is a whole number from 1, found 0"),
        ({"lr": 0.0}, "lr and clip are above 0, .* found lr=0"),
        ({"validation": 1.0}, "validation and warmup are shares from 0 to below 1, found valid"),
        ({"precision": "fp8"}, "precision is auto, fp32 or bf16, found 'fp8'"),
        ({"validation": 0.99}, "of 32 training stimuli .* leaves none to learn from"),
        ({"batch": 4, "accumulate": 5}, "batch of 4 trials cannot be cut into 5 pieces"),
    ],
)
def test_a_course_that_cannot_be_run_is_refused(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        recorded(replace(COURSE, **changes))


if __name__ == "__main__":  # a process of its own, started by `run_child`
    import backends.training.state

    mode, folder = sys.argv[1], Path(sys.argv[2])
    if mode == "killed":
        backends.training.state.EVERY = 0.0
        folder.mkdir()
        recorded(COURSE, folder, kill_at=13)
    recorded(replace(COURSE, epochs=1), folder / "run", trackers=("tensorboard",))  # one before
    model, history, losses = recorded(COURSE)
    found = {"losses": losses, "validation": list(history.validation)}
    found |= {"processes": torch.distributed.get_world_size(), "state": model.state_dict()}
    torch.save(found, folder / f"{os.environ['RANK']}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    os._exit(
        0
    )  # gloo's threads may outlive the group, and abort an interpreter that ends by itself


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("best", {"a": torch.zeros(1)}, "its tensors are those of another model"),
        ("validation", ["x"], "could not convert"),
        ("validation", None, "the state of a training"),
        ("step", 10**9, "it says step 1000000000 of"),
        ("optimiser", {}, "KeyError"),
    ],
)
def test_a_damaged_state_is_one_sentence(tmp_path, key, value, said):
    recorded(COURSE, run=tmp_path)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    torch.save(state | {key: value}, tmp_path / "state.pt")
    with pytest.raises(UserError, match=f"state.pt cannot be read as .*{said}.*; delete it to be"):
        recorded(COURSE, run=tmp_path)

"""The training loops: learn, resume exactly, keep the best, and do the same on two processes."""

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
import pandas as pd
import pytest
import torch

from backends.training.engine import (
    Batch,
    Course,
    Plan,
    TrialRows,
    batches,
    best_device,
    clock,
    fit,
    in_chunks,
    train_network,
)
from explorer.types import EmbeddingSpace, Subject, Trials, UserError, VoxelSpace

ROOT = Path(__file__).resolve().parents[3]
SPACE = EmbeddingSpace("toy", "vector", (4,))
VOXELS = {"sub-01": 6, "sub-02": 5}


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
    monkeypatch.setattr("backends.training.engine.CHECKPOINT_SECONDS", 0.0)  # save every step
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


def test_every_row_comes_once_an_epoch_and_orders_differ():
    epochs = [
        np.concatenate([batches(12, 4, 3 * e + s, seed=1) for s in range(3)]) for e in (0, 1)
    ]
    assert all(sorted(rows) == list(range(12)) for rows in epochs)
    assert not np.array_equal(*epochs)
    assert np.array_equal(batches(12, 4, 5, seed=1), batches(12, 4, 5, seed=1))


def test_the_rate_warms_up_and_falls_to_zero():
    plan = Plan(steps=1000, lr=1.0, warmup=100)
    rates = [plan.rate(step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01) and max(rates) == pytest.approx(1.0, abs=0.03)
    assert np.argmax(rates) in range(95, 105) and rates[-1] < 1e-4


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (605, "10 min 05 s")]
)
def test_durations_read_as_people_write_them(seconds, text):
    assert clock(seconds) == text


def test_chunks_cover_the_range_and_a_wanted_device_is_kept():
    assert [i for part in in_chunks(7, 3) for i in range(7)[part]] == list(range(7))
    assert best_device("cuda:1") == "cuda:1" and best_device() in ("cpu", "cuda")


# ---------------------------------------------------------------------------------------- mappers


class Rows:
    """Betas on demand that remember which rows were asked for."""

    def __init__(self, values):
        self.values, self.shape, self.asked = values, values.shape, []

    def __getitem__(self, rows):
        self.asked.append(np.asarray(rows))
        return self.values[rows]


def study(stimuli=40, repeats=2, noise=0.0):
    """Two subjects who saw the same stimuli; ``goal = betas @ truth`` but for noise.

    The last eight stimuli are test, and their betas are not numbers: nobody may look at them.
    """
    rng = np.random.default_rng(5)
    z = rng.standard_normal((stimuli, 4)).astype(np.float32)
    number = np.repeat(np.arange(stimuli), repeats)
    trials, truth = [], {}
    for name, v in VOXELS.items():
        spread, _ = np.linalg.qr(rng.standard_normal((v, 4)))
        betas = z[number] @ spread.T + noise * rng.standard_normal((len(number), v))
        truth[name] = torch.from_numpy(spread.astype(np.float32))
        table = pd.DataFrame({"stimulus": [f"s{i:02d}" for i in number], "session": 1, "run": 1})
        table["split"] = np.where(number < stimuli - 8, "train", "test")
        table["repeat"] = np.tile(np.arange(repeats), stimuli)
        betas[table["split"] == "test"] = np.nan
        subject = Subject("toy", name, VoxelSpace(v, f"hash-{name}"))
        trials.append(Trials(subject, Rows(betas.astype(np.float32)), "units", table))
    return trials, {SPACE: {f"s{i:02d}": row for i, row in enumerate(z)}}, truth


def problem_of(trials, targets, noise=0.0):
    """Return model, predict, loss and data of a small contrastive mapper with noisy inputs."""
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({name: torch.nn.Linear(v, 4) for name, v in VOXELS.items()})

    def predict(batch):
        parts = {}
        for name, betas in batch.betas.items():
            if batch.training and noise:
                betas = betas + noise * batch.random("noise", betas.shape[1:], name)
            parts[name] = {"z": model[name](betas)}
        return batch.merge(parts)

    def loss(found, batch):
        unit = torch.nn.functional.normalize(found["z"], dim=1)
        logits = unit @ torch.nn.functional.normalize(batch.goals[SPACE], dim=1).T / 0.2
        return torch.nn.functional.cross_entropy(logits, torch.arange(len(logits)))

    return model, predict, loss, TrialRows(trials, targets)


def squares(found, batch):
    return (found["z"] - batch.goals[SPACE]).square().mean()


COURSE = Course(epochs=4, batch=16, lr=0.02, validation=0.2, patience=0, seed=3)


def run_child(mode, folder, **environment):
    """Start this file as a program of its own (see the end)."""
    paths = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, mode, str(folder)]
    return subprocess.Popen(command, env=os.environ | paths | environment)


def recorded(course, run=None, kill_at=None, noise=0.3, trackers=(), **options):
    """Train the contrastive problem: its model, history, and the loss of every step it took."""
    trials, targets, _ = study(noise=0.3)
    model, predict, loss, data = problem_of(trials, targets, noise)
    losses = []

    def watched(found, batch):
        value = loss(found, batch)
        if batch.training:
            losses.append(float(value.detach()))
        if len(losses) == kill_at:
            (run / "state.part").write_bytes(b"cut short")  # as if it died while writing
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    history = train_network(
        "toy", model, predict, watched, data, course, run=run, trackers=trackers, **options
    )
    return model, history, losses


def same(one, other, **near):
    for key, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[key], value, **near)


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


def test_stimuli_are_held_out_for_all_subjects_together():
    trials, targets, _ = study()
    data = TrialRows(trials, targets)
    train, held_out = data.split(0.25, seed=0)
    names = data.names[data.stimulus]
    assert sorted([*train, *held_out]) == list(range(len(data))) and len(data) == 2 * 64
    assert len(set(names[held_out])) == 8 and not set(names[held_out]) & set(names[train])
    assert set(data.subject[held_out]) == {0, 1}
    assert np.array_equal(held_out, data.split(0.25, seed=0)[1])
    assert not np.array_equal(held_out, data.split(0.25, seed=1)[1])
    assert len(data.split(0.0, seed=0)[1]) == 0


def test_repeats_are_held_out_where_train_and_test_share_stimuli():
    trials, targets, _ = study(stimuli=20, repeats=5)
    shared = []
    for one in trials:
        split = np.where(one.table["repeat"] < 4, "train", "test")
        shared.append(replace(one, table=one.table.assign(split=split)))
    data = TrialRows(shared, targets)
    train, held_out = data.split(0.25, seed=0)
    assert len(held_out) == 40 and len(train) == 120
    assert len(set(data.names[data.stimulus[held_out]])) == 20


def test_a_batch_gives_betas_goals_and_order():
    trials, targets, _ = study(noise=1.0)
    data = TrialRows(trials, targets)
    samples = np.array([70, 3, 127, 0])  # of sub-02, sub-01, sub-02, sub-01
    batch = Batch(data, samples)
    assert {name: places.tolist() for name, places in batch.places.items()} == {
        "sub-01": [1, 3],
        "sub-02": [0, 2],
    }
    first, second = (one.betas.values for one in trials)
    np.testing.assert_array_equal(batch.betas["sub-01"].numpy(), first[[3, 0]])
    np.testing.assert_array_equal(batch.betas["sub-02"].numpy(), second[[6, 63]])
    wanted = [targets[SPACE][s] for s in ("s03", "s01", "s31", "s00")]
    np.testing.assert_array_equal(batch.goals[SPACE].numpy(), np.stack(wanted))
    merged = batch.merge({n: {"row": torch.from_numpy(p)} for n, p in batch.places.items()})
    assert merged["row"].tolist() == [0, 1, 2, 3]


def test_random_numbers_belong_to_samples_not_to_batches():
    trials, targets, _ = study()
    data = TrialRows(trials, targets)
    many = Batch(data, np.arange(100), epoch=1, seed=2)
    one = Batch(data, np.array([80]), epoch=1, seed=2)
    drawn = many.random("noise", (50,))
    assert torch.equal(one.random("noise", (50,))[0], drawn[80])
    assert torch.equal(many.random("noise", (50,), "sub-02"), drawn[many.places["sub-02"]])
    assert drawn.min() >= 0 and drawn.max() < 1 and abs(float(drawn.mean()) - 0.5) < 0.02
    others = [
        Batch(data, np.array([80]), epoch=0, seed=2).random("noise", (50,)),
        Batch(data, np.array([80]), epoch=1, seed=3).random("noise", (50,)),
        one.random("dropout", (50,)),
    ]
    assert not any(torch.equal(other[0], drawn[80]) for other in others)


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
    monkeypatch.setattr("backends.training.engine.CHECKPOINT_SECONDS", 0.0)
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
    monkeypatch.setattr("backends.training.engine.CHECKPOINT_SECONDS", 0.0)
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


def test_subjects_without_training_trials_and_targets_without_stimuli_are_refused():
    trials, targets, _ = study()
    with pytest.raises(UserError, match=r"'s00' has no embedding in toy/vector"):
        TrialRows(trials, {SPACE: {}})
    none = replace(trials[1], table=trials[1].table.assign(split="test"))
    with pytest.raises(UserError, match="sub-02 has no training trials"):
        TrialRows([trials[0], none], targets)
    split = np.where(trials[1].table["stimulus"] == "s03", "train", "test")
    few = replace(trials[1], table=trials[1].table.assign(split=split))
    with pytest.raises(
        UserError, match=r"sub-02 has 2 training trial\(s\) of one stimulus, too f"
    ):
        TrialRows([trials[0], few], targets)


if __name__ == "__main__":  # a process of its own, started by `run_child`
    import backends.training.engine

    mode, folder = sys.argv[1], Path(sys.argv[2])
    if mode == "killed":
        backends.training.engine.CHECKPOINT_SECONDS = 0.0
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

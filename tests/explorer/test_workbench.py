"""Decoding, pictures, scores, importance and provenance over a study whose answers are known."""

import dataclasses
import json
import re
import shutil
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from explorer import metrics, records
from explorer.brain import importance
from explorer.brain.maps import (
    map_names,
    map_of_voxels,
    parcel_importance,
    parcellation_of,
    shown_map,
    target_names,
)
from explorer.choosing import default_request, uses_betas
from explorer.decoding import decode
from explorer.drawing import (
    Frame,
    finished_pictures,
    picture_scores,
    reconstruct,
    seconds_needed,
    warm,
)
from explorer.models import content_hash
from explorer.protocols import Neighbour, Option
from explorer.records import make_record
from explorer.request import METHODS, TARGETS, Request, View
from explorer.types import UserError

REQUEST = Request(
    "fake", "sub-01", "test-04", "linear", "painter", scales=(0.0, 1.0, 4.0), steps=4
)


@pytest.fixture
def painted(fakes, monkeypatch):
    """Count the pictures that the fake generator really makes."""
    monkeypatch.setattr(fakes.Generator, "painted", 0)
    return lambda: fakes.Generator.painted


def done(frames):
    return [frame for frame in frames if frame.done]


def every_trial(workbench, subject="sub-01", mapper="linear"):
    stimuli = workbench.catalogue.gallery("fake", subject).index
    return [Request("fake", subject, stimulus, mapper, "painter") for stimulus in stimuli]


# ---------------------------------------------------------------------------------------- decoding


def test_decoding_agrees_with_a_plain_computation(workbench, fakes):
    decoding = decode(workbench, REQUEST)
    mapper = workbench.models.mapper("fake", "sub-01", "linear")
    betas = workbench.catalogue.trials("fake", "sub-01").average("test-04")
    z = mapper.decode(betas[None], "sub-01")[fakes.space][0]
    names = list(workbench.catalogue.gallery("fake", "sub-01").index)
    gallery = fakes.Embedder().embed([fakes.picture(name) for name in names])
    cosines = gallery @ z / np.linalg.norm(z)
    np.testing.assert_allclose(decoding.embedding, z)
    assert decoding.similarity == pytest.approx(cosines[3], abs=1e-6)
    assert decoding.rank == 1 + (cosines > cosines[3]).sum() and decoding.n == 10
    order = np.argsort(-cosines)[:5]
    assert [name for name, _ in decoding.neighbours] == [names[i] for i in order]
    np.testing.assert_allclose([s for _, s in decoding.neighbours], cosines[order], atol=1e-6)
    logits = cosines / importance.TEMPERATURE
    margin = logits[3] - np.log(np.exp(np.delete(logits, 3)).sum())
    assert decoding.margin == pytest.approx(margin, rel=1e-4)
    assert decoding.space == fakes.space and decoding.average_of == 2


def test_the_planted_signal_is_found_far_above_chance(workbench):
    ranks = [decode(workbench, request).rank for request in every_trial(workbench)]
    assert np.mean(ranks) < 2  # chance is 5.5


def test_one_repeat_is_not_the_average(workbench):
    average, first, second = (
        decode(workbench, dataclasses.replace(REQUEST, repeats=repeats))
        for repeats in ((), (0,), (1,))
    )
    assert (first.average_of, second.average_of) == (1, 1)
    both = (first.embedding + second.embedding) / 2  # the mapper is affine
    np.testing.assert_allclose(average.embedding, both, atol=1e-5)
    assert not np.allclose(first.embedding, second.embedding)


def test_a_space_without_unit_norm_is_compared_by_correlation(make_workbench, fakes):
    space = dataclasses.replace(fakes.space, layer="raw", unit_norm=False)
    embedder = type("Raw", (fakes.Embedder,), {"spaces": (space,)})
    generator = type("Raw", (fakes.Generator,), {"accepts": (space,)})
    workbench = make_workbench(embedders={"raw": embedder}, generators={"painter": generator})
    request = default_request(workbench.catalogue, "fake", "sub-02", seed=0)
    decoding = decode(workbench, request)
    true = embedder().embed([fakes.picture(request.stimulus)])[0]
    expected = np.corrcoef(decoding.embedding, true)[0, 1]
    assert decoding.similarity == pytest.approx(expected, abs=1e-6)
    names = list(workbench.catalogue.gallery("fake", "sub-02").index)
    gallery = embedder().embed([fakes.picture(name) for name in names])
    r = np.array([np.corrcoef(decoding.embedding, row)[0, 1] for row in gallery])
    logits, i = r / importance.TEMPERATURE, names.index(request.stimulus)
    margin = logits[i] - np.log(np.exp(np.delete(logits, i)).sum())
    assert decoding.margin == pytest.approx(margin, rel=1e-3)


def test_the_temperature_of_the_card_is_used(make_workbench, fake_checkpoints, tmp_path):
    root = tmp_path / "checkpoints"
    shutil.copytree(fake_checkpoints, root)
    card = root / "mappers" / "fake" / "linear-sub-01" / "card.json"
    values = json.loads(card.read_text())
    values["settings"]["temperature"] = 1e6
    card.write_text(json.dumps(values))
    margin = decode(make_workbench(checkpoints=root), REQUEST).margin
    assert margin == pytest.approx(-np.log(9), abs=1e-4)  # all ten alike


def test_betas_that_are_not_finite_are_refused_for_their_trial_only(make_workbench, fakes):
    class Broken(fakes.Study):
        def load(self, subject):
            trials = super().load(subject)
            trials.betas[trials.rows("test", "test-04")[0], 7] = np.nan
            return trials

    workbench = make_workbench(datasets={"fake": Broken})
    message = "1 of the 200 betas of fake/sub-01 for test-04 are not finite; leave"
    with pytest.raises(UserError, match=message):
        decode(workbench, REQUEST)
    with pytest.raises(UserError, match=message):
        list(reconstruct(workbench, REQUEST))
    other = dataclasses.replace(REQUEST, stimulus="test-05")
    assert decode(workbench, other).n == 10
    assert not parcel_importance(workbench, other, View()).flat
    assert decode(workbench, dataclasses.replace(REQUEST, repeats=(1,))).average_of == 1


def test_damaged_weights_are_one_sentence(make_workbench, fake_checkpoints, tmp_path):
    root = tmp_path / "checkpoints"
    shutil.copytree(fake_checkpoints, root)
    weights = root / "mappers" / "fake" / "linear-sub-01" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match="model.safetensors is damaged or cut short"):
        decode(make_workbench(checkpoints=root), REQUEST)


def test_a_mapper_of_another_split_is_refused(make_workbench, fakes):
    class Resplit(fakes.Study):
        def load(self, subject):
            trials = super().load(subject)
            trials.table.loc[trials.table["stimulus"] == "train-00", "split"] = "test"
            return trials

    with pytest.raises(UserError, match="trained with another choice of train stimuli"):
        decode(make_workbench(datasets={"fake": Resplit}), REQUEST)


# -------------------------------------------------------------------------------------- fitted now


def test_a_mapper_is_fitted_on_the_spot_and_named_as_such(workbench):
    requests = every_trial(workbench, "sub-02", "ridge (fitted now)")
    assert np.mean([decode(workbench, request).rank for request in requests]) < 2
    card = workbench.models.card(requests[0])
    trials = workbench.catalogue.trials("fake", "sub-02")
    assert (card.name, card.cls, card.subjects) == ("ridge (fitted now)", "ridge", ("sub-02",))
    assert card.voxels["sub-02"] == (200, trials.subject.voxels.hash)


def test_a_fit_is_the_same_each_time_and_hashed_by_its_weights(make_workbench):
    request = Request("fake", "sub-02", "test-01", "ridge (fitted now)", "painter")
    first, second = (make_workbench().checkpoint_hashes(request) for _ in range(2))
    assert first == second and re.fullmatch("[0-9a-f]{16}", first["mapper"])
    workbench = make_workbench()
    mapper = workbench.models.mapper("fake", "sub-02", "ridge (fitted now)")
    mapper.get_parameter("weight_sub-02").data[0, 0] += 1
    assert workbench.checkpoint_hashes(request)["mapper"] != first["mapper"]


# ---------------------------------------------------------------------------------------- pictures


def test_a_sweep_streams_previews_and_one_finished_picture_a_scale(workbench):
    frames = list(reconstruct(workbench, REQUEST))
    assert all(isinstance(frame, Frame) for frame in frames) and len(frames) == 12
    assert [frame.scale for frame in done(frames)] == [0, 1, 4]
    assert [frame.index for frame in done(frames)] == [0, 1, 2]
    for frame in frames:
        assert frame.image.dtype == np.uint8 and frame.image.shape == (32, 32, 3)
        assert bool(frame.scores) == frame.done == (frame.step == frame.steps)
    assert set(frames[-1].scores) == {"PixCorr", "SSIM", "pocket-clip"}


def test_finished_pictures_come_at_once_when_asked_again(workbench, painted):
    first = done(reconstruct(workbench, REQUEST))
    assert painted() == 3
    again = list(reconstruct(workbench, REQUEST))
    assert painted() == 3 and all(frame.done for frame in again)
    for a, b in zip(first, again, strict=True):
        assert (a.index, a.scale, a.scores) == (b.index, b.scale, b.scores)
        np.testing.assert_array_equal(a.image, b.image)


def test_a_picture_serves_any_sweep_that_holds_its_scale(workbench, painted):
    alone = done(reconstruct(workbench, dataclasses.replace(REQUEST, scales=(4.0,))))[0]
    both = done(reconstruct(workbench, dataclasses.replace(REQUEST, scales=(9.0, 4.0))))
    assert painted() == 2
    assert {frame.index: frame.scale for frame in both} == {0: 9.0, 1: 4.0}
    reused = next(frame for frame in both if frame.scale == 4)
    np.testing.assert_array_equal(alone.image, reused.image)


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"stimulus": "test-05"},
        {"repeats": (0,)},
        {"options": (("contrast", 0.5),)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_whatever_decides_a_picture_makes_another_one(workbench, changed):
    one = done(reconstruct(workbench, REQUEST))[-1].image
    other = done(reconstruct(workbench, dataclasses.replace(REQUEST, **changed)))[-1].image
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("changed", [{"steps": 3}, {"generator": "unguided"}])
def test_other_steps_or_another_generator_are_not_answered_from_memory(workbench, changed):
    assert len(done(reconstruct(workbench, REQUEST))) == 3
    assert finished_pictures(workbench, dataclasses.replace(REQUEST, **changed)) == []


def test_a_stopped_sweep_keeps_what_is_finished_and_only_that(workbench, fakes, painted):
    sweep = reconstruct(workbench, REQUEST)
    for frame in sweep:
        if frame.index == 1 and frame.step == 2:
            break
    sweep.close()
    assert [frame.scale for frame in finished_pictures(workbench, REQUEST)] == [0]
    frames = list(reconstruct(workbench, REQUEST))
    assert painted() == 3  # the first was not painted again
    assert [frame.scale for frame in done(frames)] == [0, 1, 4]


def test_closing_the_iterator_stops_the_generator(make_workbench, fakes):
    closed = []

    class Watched(fakes.Generator):
        def sweep(self, *args, **options):
            try:
                yield from super().sweep(*args, **options)
            finally:
                closed.append(True)

    sweep = reconstruct(make_workbench(generators={"painter": Watched}), REQUEST)
    next(sweep)
    assert not closed
    sweep.close()
    assert closed == [True]


def test_a_generator_without_guidance_gives_one_picture(workbench, fakes):
    request = dataclasses.replace(REQUEST, generator="unguided", scales=(2.0, 8.0), steps=1)
    assert [frame.scale for frame in done(reconstruct(workbench, request))] == [2]
    other = dataclasses.replace(request, scales=(5.0,))
    assert len(finished_pictures(workbench, other)) == 1  # the scale changes nothing


def test_a_generator_is_given_what_it_needs_and_no_more(make_workbench, fakes):
    seen = []

    class Peeking(fakes.Generator):
        def sweep(self, condition, *args, **options):
            seen.append(condition)
            yield from super().sweep(condition, *args, **options)

    class Needy(Peeking):
        needs = ("betas", "stimulus", "dataset")

    for generator in (Peeking, Needy):
        list(reconstruct(make_workbench(generators={"painter": generator}), REQUEST))
    modest, needy = seen
    assert (modest.stimulus, modest.betas, modest.subject, modest.dataset) == (None,) * 4
    assert modest.embeddings[fakes.space].shape == (8,)
    assert needy.stimulus == "test-04" and needy.betas.shape == (200,)
    assert needy.subject.name == "sub-01" and needy.dataset.image("test-04").shape == (
        32,
        32,
        3,
    )


def test_a_generator_is_given_the_null_that_a_mapper_learned(make_workbench, fakes):
    import torch

    seen = []

    class Peeking(fakes.Generator):
        def sweep(self, condition, *args, **options):
            seen.append(condition.nulls)
            yield from super().sweep(condition, *args, **options)

    class Knowing(fakes.Linear):
        def unconditional(self):
            return {fakes.space: torch.ones(8)}

    class Forgetful(fakes.Linear):
        def unconditional(self):
            raise UserError("trained without a null")

    for mapper in (fakes.Linear, Forgetful, Knowing):
        bench = make_workbench(
            generators={"painter": Peeking}, mappers={"linear": mapper, "ridge": mapper}
        )
        list(reconstruct(bench, REQUEST))
    assert seen[:2] == [{}, {}] and seen[2][fakes.space].tolist() == [1] * 8


def test_what_must_stand_beside_a_picture_is_kept_and_recorded(make_workbench, fakes):
    near = (Neighbour("train-01", "warm", 0.5), Neighbour("train-02", "", float("nan")))

    class Noting(fakes.Generator):
        def sweep(self, condition, *args, **options):
            for step in super().sweep(condition, *args, **options):
                yield dataclasses.replace(step, note="retrieved", neighbours=near)

    bench = make_workbench(generators={"painter": Noting})
    for frames in (done(reconstruct(bench, REQUEST)), finished_pictures(bench, REQUEST)):
        assert {(frame.note, frame.neighbours) for frame in frames} == {("retrieved", near)}
    notes = make_record(bench, REQUEST, View())["notes"]
    assert [note["scale"] for note in notes] == list(REQUEST.scales)
    assert notes[0]["neighbours"] == [["train-01", "warm", 0.5], ["train-02", "", None]]
    assert make_record(make_workbench(), REQUEST, View())["notes"] == []


def test_other_weights_make_other_pictures(make_workbench, fake_checkpoints, tmp_path, painted):
    root = tmp_path / "checkpoints"
    shutil.copytree(fake_checkpoints, root)
    (root / "painter").mkdir()
    (root / "painter" / "model.safetensors").write_bytes(b"one")
    before = make_workbench(checkpoints=root).checkpoint_hashes(REQUEST)
    (root / "painter" / "model.safetensors").write_bytes(b"two")
    after = make_workbench(checkpoints=root).checkpoint_hashes(REQUEST)
    assert before["mapper"] == after["mapper"] and before["generator"] != after["generator"]
    assert content_hash(root / "nowhere") == "none"


# ------------------------------------------------------------------------------------ second axis


def test_a_grid_is_a_sweep_for_each_value_and_shares_its_pictures(workbench, painted):
    grid = dataclasses.replace(REQUEST, axis="contrast", values=(0.5, 1.0))
    frames = done(reconstruct(workbench, grid))
    assert [(f.row, f.index, f.scale) for f in frames] == [
        *((0, 0, 0), (0, 1, 1), (0, 2, 4), (1, 0, 0), (1, 1, 1), (1, 2, 4))
    ]
    assert painted() == 6
    plain = done(reconstruct(workbench, REQUEST))  # contrast 1 is the default
    assert painted() == 6
    for one, other in zip(frames[3:], plain, strict=True):
        assert np.array_equal(one.image, other.image) and one.scores == other.scores
    assert (frames[0].image != frames[3].image).any()
    seeds = dataclasses.replace(REQUEST, axis="seed", values=(5, 0))
    rows = done(reconstruct(workbench, seeds))
    assert painted() == 9  # seed 0 was there, and came first
    assert [f.row for f in rows] == [1, 1, 1, 0, 0, 0]
    record = json.loads(json.dumps(make_record(workbench, grid, View())))
    assert [score["contrast"] for score in record["scores"]] == [0.5] * 3 + [1.0] * 3
    assert record["provenance"] == "generated" and records.from_record(record)[0] == grid


def test_a_stopped_grid_keeps_the_rows_that_are_finished(workbench, painted):
    grid = dataclasses.replace(REQUEST, axis="seed", values=(1, 2, 3))
    frames = reconstruct(workbench, grid)
    for frame in frames:
        if frame.done and frame.row == 1:
            frames.close()
    assert [(f.row, f.index) for f in finished_pictures(workbench, grid)] == [
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 0),
    ]
    assert painted() == 4


def test_how_long_a_sweep_takes_is_told_from_one_step_or_an_earlier_sweep(
    make_workbench, fakes, monkeypatch
):
    clock, drawn = {"now": 0.0, "step": 6.0}, []

    class Timed(fakes.Generator):
        def sweep(self, condition, scales, steps, *args, **options):
            drawn.append((len(scales), steps))
            for step in super().sweep(condition, scales, steps, *args, **options):
                clock["now"] += clock["step"]
                yield step

    class Found(Timed):
        provenance = "retrieved"

    now = SimpleNamespace(monotonic=lambda: clock["now"])
    monkeypatch.setattr("explorer.drawing.time", now)
    bench = make_workbench(generators={"painter": Timed, "unguided": Found})
    grid = dataclasses.replace(REQUEST, axis="seed", values=(1, 2))
    assert seconds_needed(bench, grid) == 6 * 4 * 6 and drawn == [(1, 1)]  # 6 pictures of 4 steps
    clock["step"] = 0.5
    list(reconstruct(bench, REQUEST))
    assert seconds_needed(bench, REQUEST) == 0  # all are there
    assert seconds_needed(bench, grid) == 6 * 4 * 0.5 and len(drawn) == 2
    other = dataclasses.replace(REQUEST, options=(("contrast", 0.5),))
    assert seconds_needed(bench, other) == 3 * 4 * 0.5 and drawn[2:] == [
        (1, 1),
        (1, 1),
        (1, 2),
    ]  # quick
    assert seconds_needed(bench, dataclasses.replace(REQUEST, generator="unguided")) == 0
    assert len(drawn) == 5


def test_the_chosen_parcels_reach_a_generator_whose_option_asks_for_betas(make_workbench, fakes):
    seen = []

    class Guided(fakes.Generator):
        needs = ("betas",)
        options = (Option("pull", 0, 1, 0, "Towards the betas.", betas=True),)

        def sweep(self, condition, scales, steps, seed, pull=0.0):
            seen.append(condition.voxels)
            yield from super().sweep(condition, scales, steps, seed, 1 + pull)

    bench = make_workbench(generators={"painter": Guided})
    rois = ("fusiform L", "precentral R")
    free, chosen = REQUEST, dataclasses.replace(REQUEST, rois=rois)
    assert not uses_betas(bench.catalogue, chosen)
    list(reconstruct(bench, free))
    assert (
        len(finished_pictures(bench, chosen)) == 3
    )  # as long as nothing pulls, parcels change nothing
    pulled = dataclasses.replace(chosen, options=(("pull", 0.5),))
    assert uses_betas(bench.catalogue, pulled) and finished_pictures(bench, pulled) == []
    assert bench.checkpoint_hashes(pulled)["encoding model"] == "none"
    list(reconstruct(bench, pulled))
    atlas = parcellation_of(bench, "fake", "sub-01")
    keys = [label.key for label in atlas.labels]
    assert seen[0] is None
    member = [keys[i] in rois for i in atlas.membership]
    assert seen[1].tolist() == member and sum(member) == 50
    grid = dataclasses.replace(chosen, axis="pull", values=(0.0, 0.5))
    assert uses_betas(bench.catalogue, grid) and len(finished_pictures(bench, grid)) == 6
    assert decode(bench, pulled).rank == decode(bench, free).rank


def test_running_out_of_memory_is_one_sentence(make_workbench, fakes):
    class Hungry(fakes.Generator):
        def sweep(self, *args, **options):
            yield from super().sweep(*args, **options)
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate")

        generate = sweep

    class Broken(fakes.Generator):
        def sweep(self, *args, **options):
            raise RuntimeError("a bug")

    bench = make_workbench(generators={"painter": Hungry, "unguided": Broken})
    with pytest.raises(UserError, match="painter ran out of memory; give fewer guidance scales"):
        list(reconstruct(bench, REQUEST))
    with pytest.raises(RuntimeError, match="a bug"):
        list(reconstruct(bench, dataclasses.replace(REQUEST, generator="unguided")))


# ------------------------------------------------------------------------------------------ scores


def test_the_shown_picture_scores_highest_on_itself(workbench, fakes):
    truth = fakes.picture("test-04")
    scores = picture_scores(workbench, "fake", "test-04", truth)
    assert scores == pytest.approx({"PixCorr": 1, "SSIM": 1, "pocket-clip": 1})
    other = picture_scores(workbench, "fake", "test-04", fakes.picture("test-05"))
    assert all(other[name] < 0.9 for name in scores)


def test_a_picture_of_another_size_is_resized_to_the_shown_one(workbench, fakes):
    truth = fakes.picture("test-04")
    large = truth.repeat(4, axis=0).repeat(4, axis=1)
    small = metrics.match_size(large, 32, 32)
    scores = picture_scores(workbench, "fake", "test-04", large)
    assert scores["PixCorr"] == pytest.approx(metrics.pixcorr(truth, small))
    assert scores["SSIM"] == pytest.approx(metrics.ssim(truth, small))


def test_pictures_smaller_than_ssims_window_are_enlarged(make_workbench, fakes):
    class Tiny(fakes.Study):
        def image(self, stimulus):
            return super().image(stimulus)[4::8, 4::8]

    workbench = make_workbench(datasets={"fake": Tiny}, embedders={})
    tiny = fakes.picture("test-04")[4::8, 4::8]
    scores = picture_scores(workbench, "fake", "test-04", tiny)
    assert scores == pytest.approx({"PixCorr": 1, "SSIM": 1})


def test_without_weights_the_similarity_is_left_out_and_said(make_workbench, fakes):
    class Bare(fakes.Embedder):
        def __init__(self, checkpoints, device):
            raise UserError("card.json is missing.")

    embedders = {"other": fakes.Embedder, "pocket-clip": Bare}
    workbench = make_workbench(embedders=embedders)
    assert set(done(reconstruct(workbench, REQUEST))[0].scores) == {"PixCorr", "SSIM"}
    assert workbench.catalogue.problems() == [
        "Pictures are not compared in pocket-clip: card.json is missing."
    ]


# -------------------------------------------------------------------------------------- importance


@pytest.fixture
def dense(make_workbench, fakes):
    """Return a workbench whose mapper also gives a density."""

    class Dense(fakes.Linear):
        def log_prob(self, betas, embedding, subject, *, space=None):
            return -0.5 * (embedding - self(betas, subject)[space]).square().sum(dim=1)

    return make_workbench(mappers={"linear": Dense, "ridge": fakes.Linear})


def test_the_log_likelihood_is_a_target_where_a_mapper_gives_one(workbench, dense):
    assert target_names(dense, "fake", "sub-01", "linear") == list(TARGETS)
    for bench, subject, name in (
        (workbench, "sub-01", "linear"),
        (dense, "sub-02", "ridge (fitted now)"),
        (dense, "sub-01", ""),
    ):
        assert target_names(bench, "fake", subject, name) == list(TARGETS[:2])
    with pytest.raises(UserError, match="linear gives an embedding and no density, so it has no"):
        parcel_importance(workbench, REQUEST, View(target="log-likelihood"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", TARGETS)
def test_the_planted_parcels_lead_and_shares_sum_to_one(dense, fakes, method, target):
    workbench, view = dense, View(method=method, target=target)
    tables = [parcel_importance(workbench, r, view).table for r in every_trial(workbench)]
    assert all(table["share"].sum() == pytest.approx(1) for table in tables)
    table = tables[0].assign(enrichment=np.mean([t["enrichment"] for t in tables], axis=0))
    present = table[table["voxels"] > 0]
    planted = present[present["name"].isin(fakes.informative)]["enrichment"]
    others = present[~present["name"].isin(fakes.informative)]["enrichment"]
    assert len(planted) == 4 and len(others) == 4 and planted.min() > others.max()


def test_a_map_is_the_attribution_of_its_trial(workbench, fakes):
    view = View(method="gradient x input", target="fixed direction")
    parcel_map = parcel_importance(workbench, REQUEST, view)
    mapper = workbench.models.mapper("fake", "sub-01", "linear")
    w = fakes.Embedder().embed([fakes.picture("test-04")])[0]
    betas = workbench.catalogue.trials("fake", "sub-01").average("test-04")
    weight = mapper.get_parameter("weight_sub-01").detach().numpy()
    z = (betas - mapper.get_buffer("mean_sub-01").numpy()) / mapper.get_buffer("sd_sub-01").numpy()
    np.testing.assert_allclose(parcel_map.voxels, z * (weight @ w), atol=1e-5)
    total = parcel_map.table["signed"].dropna().sum()
    assert total == pytest.approx(decode(workbench, REQUEST).embedding @ w, rel=1e-4)
    assert (parcel_map.atlas, parcel_map.n_voxels) == ("Desikan-Killiany", 200)
    assert (parcel_map.method, parcel_map.target) == (view.method, view.target)


def test_scales_steps_and_seed_do_not_change_the_map(workbench):
    other = dataclasses.replace(REQUEST, scales=(7.0,), steps=9, seed=5)
    assert parcel_importance(workbench, REQUEST, View()) is parcel_importance(
        workbench, other, View()
    )
    measure = View(measure="share", camera="lateral", parcel="fusiform L")
    assert parcel_importance(workbench, REQUEST, View()) is parcel_importance(
        workbench, REQUEST, measure
    )


def test_colour_limits_are_the_same_for_all_trials(workbench):
    maps = [parcel_importance(workbench, request, View()) for request in every_trial(workbench)]
    assert all(m.limits == maps[0].limits for m in maps)
    other = parcel_importance(workbench, REQUEST, View(method="gradient x input"))
    assert other.limits != maps[0].limits
    for measure, (low, high) in maps[0].limits.items():
        assert high > 0 and low == (-high if measure == "signed" else 0)
    values = [m.table.set_index("parcel")["mean"].drop("(unassigned)") for m in maps]
    values = np.concatenate([v.dropna() for v in values])
    assert maps[0].limits["mean"][1] == pytest.approx(np.percentile(values, 99), rel=1e-6)


def test_small_parcels_do_not_stretch_the_limits(make_workbench, fakes):
    class Shrunk(fakes.Study):
        def load(self, subject):
            trials = super().load(subject)
            voxels = trials.subject.voxels
            (atlas,) = voxels.parcellations.values()
            membership = atlas.membership.copy()
            mine = np.flatnonzero(membership == membership[0])
            membership[mine[5:]] = -1  # five voxels are left of this parcel
            small = dataclasses.replace(atlas, membership=membership)
            space = dataclasses.replace(voxels, parcellations={atlas.name: small})
            trials.betas[:, mine[:5]] *= 1e-6
            who = dataclasses.replace(trials.subject, voxels=space)
            return dataclasses.replace(trials, subject=who)

    parcel_map = parcel_importance(make_workbench(datasets={"fake": Shrunk}), REQUEST, View())
    row = parcel_map.table[parcel_map.table["voxels"] == 5]
    assert row["small"].item()
    large = parcel_map.table[~parcel_map.table["small"]]
    assert parcel_map.limits["enrichment"][1] < 3 * large["enrichment"].max()


def test_a_mapper_that_ignores_the_betas_gives_a_flat_map(make_workbench, fakes):
    class Deaf(fakes.Linear):
        def forward(self, betas, subject):
            return {space: 0 * z + 1 for space, z in super().forward(betas, subject).items()}

    workbench = make_workbench(mappers={"linear": Deaf})
    parcel_map = parcel_importance(workbench, REQUEST, View())
    assert parcel_map.flat and parcel_map.table["share"].isna().all()
    assert parcel_map.limits["share"] == (0, 1)


def test_voxels_without_an_atlas_are_all_unassigned(make_workbench, fakes):
    class Nowhere(fakes.Study):
        def load(self, subject):
            trials = super().load(subject)
            space = dataclasses.replace(trials.subject.voxels, projection=None, parcellations={})
            who = dataclasses.replace(trials.subject, voxels=space)
            return dataclasses.replace(trials, subject=who)

    workbench = make_workbench(datasets={"fake": Nowhere})
    table = parcel_importance(workbench, REQUEST, View()).table
    assert list(table["parcel"]) == ["(unassigned)"]
    assert table["share"].item() == pytest.approx(1)
    with pytest.raises(UserError, match="has no atlas 'Schaefer'; choose one of none"):
        parcel_importance(workbench, REQUEST, View(atlas="Schaefer"))


# -------------------------------------------------------------------------------- several visitors


def with_maps(fakes, **maps):
    class Mapped(fakes.Study):
        def load(self, subject):
            trials = super().load(subject)
            who = dataclasses.replace(trials.subject, **maps)
            return dataclasses.replace(trials, subject=who)

    return Mapped


def test_what_is_known_of_the_voxels_can_be_shown_without_a_model(make_workbench, fakes):
    size = np.linspace(-1, 1, 200)
    workbench = make_workbench(
        datasets={"fake": with_maps(fakes, maps={"prf size": size})}, mappers={}, generators={}
    )
    names = ["importance", "noise ceiling", "ncsnr", "prf size", "parcels"]
    assert map_names(workbench, "fake", "sub-01") == names
    subject = workbench.catalogue.trials("fake", "sub-01").subject
    shown = shown_map(workbench, REQUEST, View(shows="prf size"))
    assert (shown.title, shown.kind) == ("prf size", "diverging")
    np.testing.assert_array_equal(shown.values, size)
    masks = parcellation_of(workbench, "fake", "sub-01").masks()
    for mean, mask in zip(shown.table["mean"], masks, strict=True):
        assert np.isnan(mean) if not mask.any() else mean == pytest.approx(size[mask].mean())
    for repeats, title in (((), "mean of 2 trials"), ((1,), "one trial")):
        request = dataclasses.replace(REQUEST, repeats=repeats)
        ceiling = map_of_voxels(workbench, request, View(shows="noise ceiling"))
        assert ceiling.title == f"noise ceiling, % of variance ({title})"
        expected = metrics.noise_ceiling(subject.ncsnr, 2 - len(repeats))
        np.testing.assert_array_equal(ceiling.values, expected)
    assert shown_map(workbench, REQUEST, View(shows="parcels")).values is None


def test_a_map_that_a_subject_lacks_is_one_sentence(make_workbench, fakes):
    workbench = make_workbench(datasets={"fake": with_maps(fakes, ncsnr=None)})
    assert map_names(workbench, "fake", "sub-01") == ["importance", "parcels"]
    with pytest.raises(UserError, match="has no map 'ncsnr' of its voxels; choose one of import"):
        shown_map(workbench, REQUEST, View(shows="ncsnr"))


def test_two_visitors_at_once_load_a_model_once(make_workbench, fakes):
    loads, barrier = [], threading.Barrier(6)

    class Counted(fakes.Linear):
        @classmethod
        def from_pretrained(cls, folder, device="cpu"):
            loads.append(folder)
            return super().from_pretrained(folder, device)

    workbench = make_workbench(mappers={"linear": Counted})

    def visit():
        barrier.wait()
        warm(workbench, REQUEST)

    threads = [threading.Thread(target=visit) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1


def test_visitors_at_once_get_their_own_answers(workbench):
    requests = every_trial(workbench)
    alone = {r.stimulus: done(reconstruct(workbench, r))[-1].image for r in requests}
    fresh = {}

    def visit(request):
        frames = done(reconstruct(workbench, dataclasses.replace(request, scales=(8.0, 1.5))))
        fresh[request.stimulus] = next(f.image for f in frames if f.scale == 8)

    threads = [threading.Thread(target=visit, args=(request,)) for request in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(fresh) == set(alone)
    for stimulus, image in fresh.items():
        np.testing.assert_array_equal(image, alone[stimulus])


def test_warming_up_leaves_nothing_to_load(make_workbench, fakes):
    made = []

    class Counted(fakes.Generator):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(self)

    workbench = make_workbench(generators={"painter": Counted})
    warm(workbench, default_request(workbench.catalogue, seed=0))
    assert len(made) == 1
    list(reconstruct(workbench, REQUEST))
    assert len(made) == 1
    warm(workbench, dataclasses.replace(REQUEST, mapper="", generator=""))  # only the trial itself


def test_a_device_that_is_not_there_is_one_sentence(make_workbench):
    with pytest.raises(UserError, match="device 'abacus' cannot be used here .*; choose cpu or a"):
        decode(make_workbench(device="abacus"), REQUEST)
    assert make_workbench(device="auto").models.device in ("cpu", "cuda")


# -------------------------------------------------------------------------------------- provenance


def test_a_record_makes_the_same_request_and_view_again(workbench):
    request = dataclasses.replace(REQUEST, repeats=(1,), options=(("contrast", 0.5),))
    view = View(measure="signed", parcel="fusiform L")
    record = json.loads(json.dumps(make_record(workbench, request, view), allow_nan=False))
    assert records.from_record(record) == (request, view)
    assert records.changes(workbench, record) == []
    assert record["decoding"]["rank"] == decode(workbench, request).rank
    assert record["data"]["simulated"] is True and record["scores"] == []


def test_a_record_holds_the_scores_of_what_is_finished(workbench):
    sweep = reconstruct(workbench, REQUEST)
    first = next(frame for frame in sweep if frame.done)
    sweep.close()
    (entry,) = make_record(workbench, REQUEST, View())["scores"]
    assert entry == {"scale": 0.0, **first.scores}


def test_a_score_that_is_no_number_is_null_in_the_record(make_workbench, fakes):
    class Grey(fakes.Generator):
        def _paint(self, *_):
            return np.full((32, 32, 3), 127, np.uint8)

    workbench = make_workbench(generators={"painter": Grey})
    assert np.isnan(done(reconstruct(workbench, REQUEST))[0].scores["PixCorr"])
    text = json.dumps(make_record(workbench, REQUEST, View()), allow_nan=False)
    assert json.loads(text)["scores"][0]["PixCorr"] is None


def test_a_record_of_other_weights_or_voxels_says_what_changed(workbench):
    record = make_record(workbench, REQUEST, View())
    record["checkpoints"]["mapper"] = "0" * 16
    record["data"]["voxel_hash"] = "feed"
    weights, voxels = records.changes(workbench, record)
    assert re.match("The weights of the mapper are others .* not 0000000000000000", weights)
    assert re.match(r"The voxels are others than the record's \(hash \w+, not feed\)", voxels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: [record], 'no record of Afterimage: it lacks "afterimage": 1'),
        (lambda record: record | {"afterimage": 2}, "no record of Afterimage"),
        (lambda record: record | {"view": None}, "record's 'view' holds fields among against, at"),
        (
            lambda record: record | {"request": {"mood": 1}},
            "'request' holds fields among axis, dataset",
        ),
        (lambda record: record | {"request": {"dataset": "fake"}}, "'request' is damaged .*missi"),
        (
            lambda record: record | {"request": record["request"] | {"scales": [-1]}},
            "A guidance scale lies between 0 and 30",
        ),
    ],
)
def test_what_is_no_record_is_refused(workbench, change, message):
    with pytest.raises(UserError, match=message):
        records.from_record(change(make_record(workbench, REQUEST, View())))

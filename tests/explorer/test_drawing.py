"""Pictures of a trial: sweeps, grids, what is kept of them, and their scores."""

import dataclasses
import json

import numpy as np
import pytest

from explorer import metrics, records
from explorer.brain.maps import (
    parcellation_of,
)
from explorer.choosing import uses_betas
from explorer.decoding import decode
from explorer.drawing import draw_together, picture_scores, reconstruct, seconds_needed
from explorer.finished import Frame, finished_pictures
from explorer.protocols import Option
from explorer.records import make_record
from explorer.request import View
from explorer.types import UserError
from tests.explorer.asking import REQUEST, done


@pytest.fixture
def painted(fakes, monkeypatch):
    """Count the pictures that the fake generator really makes."""
    monkeypatch.setattr(fakes.Generator, "painted", 0)
    return lambda: fakes.Generator.painted


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


def test_without_the_brain_one_picture_serves_all_trials(workbench, fakes, painted, monkeypatch):
    monkeypatch.setattr(
        *(fakes.Generator, "alike_without_brain"),
        lambda self, contrast=1.0: contrast == 1,
        raising=False,
    )
    first = done(reconstruct(workbench, REQUEST))
    gallery = workbench.catalogue.gallery(REQUEST.dataset, REQUEST.subject).index
    another = next(stimulus for stimulus in gallery if stimulus != REQUEST.stimulus)
    asked = dataclasses.replace(REQUEST, stimulus=another)
    found = sorted(done(reconstruct(workbench, asked)), key=lambda frame: frame.index)
    assert painted() == 5  # of its three the first was there
    np.testing.assert_array_equal(found[0].image, first[0].image)
    assert found[0].scores != first[0].scores  # against its own stimulus
    assert not np.array_equal(found[1].image, first[1].image)
    other = [{"seed": 5}, {"steps": 3}, {"options": (("contrast", 0.5),)}]
    for number, changed in enumerate(other, start=1):
        list(reconstruct(workbench, dataclasses.replace(asked, **changed)))
        assert painted() == 5 + 3 * number, changed


def test_pictures_of_many_trials_are_drawn_together_and_found_again(
    workbench, fakes, painted, monkeypatch
):
    batches = []

    def noted(self, conditions, scale, seeds, steps, **options):
        batches.append((len(conditions), scale, tuple(seeds)))
        drawn = self.generate(conditions, scale, seeds, steps, **options)
        return [(image, f"note {i}") for i, image in enumerate(drawn)]

    gallery = list(workbench.catalogue.gallery(REQUEST.dataset, REQUEST.subject).index)[:3]
    one = dataclasses.replace(REQUEST, scales=(4.0,))
    asked = [dataclasses.replace(one, stimulus=stimulus) for stimulus in gallery]
    draw_together(workbench, asked)
    assert painted() == 0  # a generator that tells no notes is left to reconstruct
    alone = [done(reconstruct(workbench, request))[0] for request in asked[:1]]
    monkeypatch.setattr(fakes.Generator, "noted", noted, raising=False)
    other = dataclasses.replace(one, scales=(2.0,))
    draw_together(workbench, [*asked, dataclasses.replace(asked[2], seed=7), other])
    assert batches == [(3, 4.0, (one.seed, one.seed, 7))]  # the first is there, the last alone
    before = painted()
    found = [done(reconstruct(workbench, request))[0] for request in asked]
    assert painted() == before and [f.note for f in found] == ["", "note 0", "note 1"]
    np.testing.assert_array_equal(found[0].image, alone[0].image)
    assert set(found[1].scores) == {"PixCorr", "SSIM", "pocket-clip"}
    assert found[1].scores["pocket-clip"] != found[2].scores["pocket-clip"]


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
    assert record["mapper"]["class"] == "linear"
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

    monkeypatch.setattr("explorer.stopping.clock", lambda: clock["now"])
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

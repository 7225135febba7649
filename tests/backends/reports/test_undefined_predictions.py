"""Predictions that are not finite: counted as failed, told, and never a way to a better table."""

import numpy as np
import pytest

from backends.mappers.published import Published
from backends.reports.closeness import SCORES, Closeness
from backends.reports.mapper_tables import markdown
from backends.reports.mappers import AVERAGED, SHUFFLED, SINGLE, compare
from explorer.types import UserError


@pytest.fixture
def truth():
    return np.random.default_rng(0).standard_normal((40, 3, 4)) + 1


def values(predictions, truth):
    near = Closeness.of(predictions, truth)
    return {name: score.of(score.each(near).mean(axis=0)) for name, score in SCORES.items()}


def test_the_worst_half_made_undefined_makes_no_score_better(truth):
    noisy = truth + np.random.default_rng(1).standard_normal(truth.shape)
    whole = values(noisy, truth)
    near = Closeness.of(noisy, truth)
    worst = np.argsort(near.error.diagonal())[20:]
    noisy[worst] = np.nan
    half = values(noisy, truth)
    for name in ("two-way", "top-1", "top-5", "brain-to-image", "image-to-brain", "cosine"):
        assert half[name] < whole[name], name
    assert np.isfinite(list(half.values())).all()


def test_what_one_undefined_prediction_costs_is_known(truth):
    predictions = truth.copy()
    predictions[7, 1, 2] = np.inf
    found = values(predictions, truth)
    assert found["two-way"] == found["top-1"] == found["brain-to-image"] == pytest.approx(39 / 40)
    assert found["cosine"] == pytest.approx(39 / 40)
    assert found["image-to-brain"] == 0  # of 40 candidates all are drawn, also the unknown one
    near = Closeness.of(predictions, truth)
    assert near.undefined.tolist() == [i == 7 for i in range(40)]
    assert found["r2"] == pytest.approx(1 - near.spread[7] / near.spread.sum())
    assert found["rmse"] == pytest.approx(np.sqrt(near.spread[7] / 40))
    moved = near.shuffled(np.roll(np.arange(40), 1))
    assert np.flatnonzero(moved.undefined).tolist() == [8]
    assert all("not finite" in score.sentence for score in SCORES.values())


def published(fakes, make_workbench, tmp_path, change, order="appearance"):
    names = [f"test-{i:02d}" for i in range(1, 11)]
    rows = fakes.Embedder().embed([fakes.picture(name) for name in names])
    np.save(tmp_path / "theirs.npy", change(rows))
    options = {"dataset": "fake", "subject": "sub-01", "space": "fake-clip/image"}
    given = (tmp_path / "theirs.npy", options | {"order": str(order)})
    return make_workbench(
        mappers={"linear": fakes.Linear, "ridge": fakes.Linear, "published": Published},
        published={"theirs": given},
    )


def test_a_published_row_that_is_not_finite_is_told_and_keeps_its_place_in_n(
    fakes, make_workbench, tmp_path
):
    def broken(rows):
        rows[3, 2] = np.nan
        return rows

    bench = published(fakes, make_workbench, tmp_path, broken)
    found = compare(bench, "fake", subjects=["sub-01"], mappers=["theirs"])
    line = found.table[(found.table["betas"] == AVERAGED) & (found.table["score"] == "two-way")]
    assert line["N"].tolist() == [10] and line["undefined"].tolist() == [1]
    assert line["value"].tolist() == [pytest.approx(0.9)]
    assert found.notes[-1] == (
        "theirs, sub-01: the predictions of 1 of 10 test images in fake-clip/image (averaged "
        "repeats) are not finite (first 'test-04') and count as failed."
    )
    assert found.notes[:-1] == tuple(bench.catalogue.problems())  # what was told on opening
    assert all(note in markdown(found) for note in found.notes)
    each = found.trials.set_index("stimulus")["two-way"]
    assert each["test-04"] == 0 and (each.drop("test-04") == 1).all()


def test_test_images_without_a_published_row_are_counted(fakes, make_workbench, tmp_path):
    order = tmp_path / "order.txt"
    order.write_text("".join(f"test-{i:02d}\n" for i in range(1, 9)))
    bench = published(fakes, make_workbench, tmp_path, lambda rows: rows[:8], order)
    found = compare(bench, "fake", subjects=["sub-01"], mappers=["theirs"])
    assert set(found.table["N"]) == {8}
    assert found.notes[0].startswith("theirs: Not declared by its makers, so unknown: whether")
    assert found.notes[1:] == (
        "theirs, sub-01: 2 of 10 test images have no published prediction (first 'test-09'); they "
        "are left out, and the others are told apart among themselves.",
    )


def test_a_repeat_whose_betas_are_not_finite_fails_alone(fakes, make_workbench):
    class Study(fakes.Study):
        def load(self, subject):
            trials = super().load(subject)
            trials.betas[trials.rows("test", "test-02")[1], 5] = np.nan
            return trials

    bench = make_workbench(datasets={"fake": Study})
    found = compare(bench, "fake", subjects=["sub-01"], mappers=["linear"])
    count = found.table[found.table["score"] == "top-1"].set_index("betas")["undefined"]
    assert count.to_dict() == {AVERAGED: 1, SINGLE: 1, SHUFFLED: 1}
    assert len(found.notes) == 2 and all("first 'test-02'" in note for note in found.notes)


def test_true_embeddings_that_are_not_finite_are_nothing_to_compare_with(fakes, make_workbench):
    class Embedder(fakes.Embedder):
        def embed(self, images, space):
            rows = super().embed(images, space)
            rows[0] = np.nan
            return rows

    bench = make_workbench(embedders={"pocket-clip": Embedder})
    with pytest.raises(UserError, match=r"true embeddings of 1 of 10 stimuli are not finite"):
        compare(bench, "fake", subjects=["sub-01"], mappers=["linear"])

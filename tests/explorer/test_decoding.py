"""What is decoded from a trial's betas, over a study whose answers are known."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from explorer.brain import importance
from explorer.brain.maps import (
    parcel_importance,
)
from explorer.choosing import default_request
from explorer.decoding import decode
from explorer.drawing import reconstruct
from explorer.request import View
from explorer.types import UserError
from tests.explorer.asking import REQUEST, every_trial


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

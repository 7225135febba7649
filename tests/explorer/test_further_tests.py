"""Further test sets of the same people: which mappers serve them; stimuli without a picture."""

import base64
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from explorer.choosing import check_request, default_request
from explorer.decoding import decode, undecoded
from explorer.drawing import reconstruct, warm
from explorer.evidence.critics import findings
from explorer.page import trial
from explorer.page.pictures import shown_uri
from explorer.request import Request
from explorer.types import UserError, VoxelSpace

NAMED = "linear (trained on fake)"


@pytest.fixture
def further(fakes):
    """Return a study of the fake one's people and voxels: eight other pictures, test only."""

    class Further(fakes.Study):
        test_only = True
        words: tuple[str, ...] = ()
        shifted = False

        def load(self, subject):
            trials = super().load(subject)
            rows = np.flatnonzero(
                trials.table["stimulus"].isin([f"train-{i:02d}" for i in range(8)])
            )
            table = trials.table.iloc[rows].reset_index(drop=True).assign(split="test")
            who = trials.subject
            if self.shifted:
                v = who.voxels
                who = replace(who, voxels=VoxelSpace(v.n_voxels, "other", v.projection))
            return replace(trials, subject=who, betas=trials.betas[rows], table=table)

        def without_picture(self, stimulus):
            return f"{stimulus} is a word: no picture stands for it." * (stimulus in self.words)

        def image(self, stimulus):
            if why := self.without_picture(stimulus):
                raise UserError(why)
            return super().image(stimulus)

    return Further


def bench_of(make_workbench, fakes, further, checkpoints=None, **changed):
    kind = type("Further", (further,), changed)
    own = {"checkpoints": checkpoints} if checkpoints else {}
    return make_workbench(datasets={"fake": fakes.Study, "other": kind}, **own)


def test_a_mapper_of_the_same_voxels_is_offered_and_named_after_its_study(
    make_workbench, fakes, further
):
    bench = bench_of(make_workbench, fakes, further)
    assert bench.catalogue.mapper_names("other", "sub-01") == [NAMED]
    assert bench.catalogue.mapper_names("fake", "sub-01") == ["linear"]
    request = default_request(bench.catalogue, "other", "sub-01", seed=0)
    assert (request.mapper, request.generator) == (NAMED, "painter")
    found = decode(bench, request)
    assert found.n == 8
    # the same trial of the study it was trained on, through the mapper by hand
    study = fakes.Study().load("sub-01")
    rows = study.rows("train", request.stimulus)
    mapper = bench.models.mapper("fake", "sub-01", "linear")
    by_hand = mapper.decode(study.betas[rows], "sub-01")[fakes.space][0]
    np.testing.assert_allclose(found.embedding, by_hand, rtol=1e-5)
    assert not [p for p in bench.catalogue.problems() if "under the data set's name" in p]


def test_what_the_card_measured_is_told_as_its_own_studys(
    make_workbench, fakes, further, fake_checkpoints, tmp_path
):
    folder = tmp_path / "mappers/fake/linear-sub-01"
    shutil.copytree(fake_checkpoints / "mappers/fake/linear-sub-01", folder)
    card = json.loads((folder / "card.json").read_text())
    figures = {"two-way identification": 0.875, "chance": 0.5, "N": 10}
    card["metrics"] = {"test": {fakes.space.name: figures}}
    (folder / "card.json").write_text(json.dumps(card))
    bench = bench_of(make_workbench, fakes, further, checkpoints=tmp_path)
    said = {}
    for name, stimulus, mapper in (("fake", "test-01", "linear"), ("other", "train-01", NAMED)):
        request = Request(name, "sub-01", stimulus, mapper, "painter")
        said[name] = trial.decoded(decode(bench, request), request, bench)["decoder"]
    assert "over 10 test images, chance" in said["fake"]
    assert "over 10 test images of fake, chance" in said["other"]


def test_it_serves_under_its_own_name_too(make_workbench, fakes, further):
    bench = make_workbench(datasets={"fake": further})
    (name,) = bench.catalogue.mapper_names("fake", "sub-01")
    assert name == NAMED
    assert decode(bench, default_request(bench.catalogue, "fake", "sub-01", seed=0)).n == 8


def test_a_study_with_training_trials_takes_no_mapper_of_another(make_workbench, fakes, further):
    bench = bench_of(make_workbench, fakes, further, test_only=False)
    assert bench.catalogue.mapper_names("other", "sub-01") == []
    assert any("under the data set's name 'fake'" in p for p in bench.catalogue.problems())


def test_other_voxels_and_people_without_a_mapper_are_told(make_workbench, fakes, further):
    bench = bench_of(make_workbench, fakes, further, shifted=True)
    for subject in ("sub-01", "sub-02"):
        assert bench.catalogue.mapper_names("other", subject) == []
        with pytest.raises(UserError, match="no mapper for other/sub-0., which has no training"):
            bench.catalogue.offer("other", subject, "linear")
    told = bench.catalogue.problems()
    assert not any("was made for" in p for p in told), "a namesake's mapper is no matter here"
    assert any("other/sub-01, and it has no training trials to make one; train one on" in p
               for p in told)  # fmt: skip


def test_a_mapper_of_a_named_split_is_not_offered_and_told(
    make_workbench, fakes, further, fake_checkpoints, tmp_path
):
    """Such a split may train on pictures that the further test set shows."""
    folder = tmp_path / "mappers/fake/linear-sub-01"
    shutil.copytree(fake_checkpoints / "mappers/fake/linear-sub-01", folder)
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"split": "random"}))
    bench = bench_of(make_workbench, fakes, further, checkpoints=tmp_path)
    assert bench.catalogue.mapper_names("other", "sub-01") == []
    told = bench.catalogue.problems()
    assert any("trained on the split random of fake, which may train on pictures that other" in p
               for p in told)  # fmt: skip


def test_training_on_it_is_refused_before_anything_is_embedded(fakes, further, tmp_path):
    from backends import DATASETS
    from backends.commands.training_data import gather_asked

    nothing = {"device": "cpu", "embedders": None, "captions": None, "cache": None}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "other", further)
        with pytest.raises(UserError, match="other is A fake study, a further test set without"):
            gather_asked(f"other={tmp_path}", None, None, checkpoints=tmp_path, **nothing)


def test_a_stimulus_without_a_picture_is_drawn_and_nothing_is_scored(
    make_workbench, fakes, further
):
    bench = bench_of(make_workbench, fakes, further, words=("train-03",))
    request = Request("other", "sub-01", "train-03", NAMED, "painter", scales=(0.0, 1.0), steps=2)
    check_request(bench.catalogue, request)
    why = "train-03 is a word: no picture stands for it."
    assert undecoded(bench, request) == why
    with pytest.raises(UserError, match=why):
        decode(bench, request)
    warm(bench, request)
    frames = [frame for frame in reconstruct(bench, request) if frame.done]
    assert len(frames) == 2
    assert all(frame.scores == {} for frame in frames)
    shown = trial.opening(request, bench)["trial"]
    assert shown["caption"] == why
    kind, _, drawn = shown["src"].partition(";base64,")
    assert kind == "data:image/svg+xml"
    assert "train-03 is a word: no picture" in base64.b64decode(drawn).decode()
    seen = Request("other", "sub-01", "train-02", NAMED, "painter")
    assert trial.opening(seen, bench)["trial"]["src"].startswith("data:image/webp")
    page = trial.gallery(bench, request, trial.stimuli(bench, request, ""), 0)
    kinds = [item["src"].partition(";")[0] for item in page["items"]]
    assert kinds.count("data:image/svg+xml") == 1


def test_the_sentence_in_place_of_a_picture_cannot_break_its_drawing(
    make_workbench, fakes, further
):
    bench = bench_of(make_workbench, fakes, further)
    study = bench.catalogue.dataset("other")
    study.without_picture = lambda stimulus: "</text><script>alert(1)</script> & so on"
    drawn = base64.b64decode(shown_uri(bench.catalogue, "other", "x").partition(",")[2]).decode()
    assert "<script>" not in drawn
    assert "&lt;script&gt;" in drawn


def test_critics_ask_the_study_that_a_mapper_was_trained_on(make_workbench, fakes, further):
    bench = bench_of(make_workbench, fakes, further)
    request = default_request(bench.catalogue, "other", "sub-01", seed=0)
    found = {one.name: one for one in findings(bench, request)}
    known = found["generalisation"].table
    assert (known["N"][known["of"] == "all test images: two-way"] == 8).all()
    assert "category-only decoder" in found and "bottleneck" in found
    apart = bench_of(make_workbench, fakes, type("Alone", (further,), {"shifted": True}))
    with pytest.raises(UserError, match="no mapper for other/sub-01"):
        list(findings(apart, replace(request, dataset="other")))

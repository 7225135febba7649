"""A study as tables and arrays: the numbers are those of the page's own functions."""

from __future__ import annotations

import numpy as np
import pytest

import explorer
from explorer.decoding import decode
from explorer.evidence.lesions import lesion_effects
from explorer.evidence.statistics import subject_map
from explorer.request import View
from explorer.types import UserError

TROUBLE = "<b>bold</b> ${alert(1)} {{value}}"  # a caption of the fake study


def test_the_choices_are_told_and_an_unknown_one_names_those_there_are(study):
    assert (study.name, study.subject, study.mapper) == ("fake", "sub-01", "linear")
    assert study.generators == ["painter", "plain"] and study.subjects == ["sub-01", "sub-02"]
    with pytest.raises(UserError, match="no subject 'sub-09'; choose one of sub-01, sub-02"):
        study.choose(subject="sub-09")
    with pytest.raises(UserError, match="no mapper 'mixer'.*linear"):
        study.choose(mapper="mixer")
    with pytest.raises(UserError, match="no generator 'oils'; choose one of painter, plain"):
        study.choose(generator="oils")
    plain = study.choose(generator="plain")
    assert plain.request.steps == 1 and plain.choose(seed=3).generator == "plain"


def test_betas_are_those_of_the_study_by_stimulus_and_by_trial(study):
    trials = study.bench.catalogue.trials("fake", "sub-01")
    averaged, single = study.betas(), study.betas(average=False)
    assert averaged.shape == (10, study.voxels.n_voxels) and averaged.to_numpy().dtype == "f4"
    assert np.array_equal(averaged.loc["test-03"], trials.average("test-03"))
    rows = study.table.index[study.table["split"] == "test"]
    assert single.index.equals(rows) and np.array_equal(single.loc[rows[4]], trials.betas[4])
    assert len(study.betas("train")) == 60
    with pytest.raises(UserError, match="split is train or test, found 'all'"):
        study.betas("all")


def test_every_decoding_is_what_a_trial_of_its_own_gives(study):
    found = study.decodings()
    assert list(found.index) == list(study.trials.index) and found.attrs["chance rank"] == 5.5
    for trial in study:
        own = decode(study.bench, trial.request)
        row = found.loc[trial.stimulus]
        assert row["rank"] == own.rank and row["similarity"] == pytest.approx(own.similarity)
        assert row["margin"] == pytest.approx(own.margin, rel=1e-5)
        assert row["two-way"] == pytest.approx(1 - (own.rank - 1) / 9)
        assert np.array_equal(study.embeddings().loc[trial.stimulus], trial.decoding.embedding)
    first = study.decodings(repeats=[0])
    assert not np.allclose(first["similarity"], found["similarity"])


def test_a_trial_is_found_by_its_id_and_by_its_number(study):
    assert study[4].stimulus == study["test-04"].stimulus == "test-04" and len(study) == 10
    assert np.array_equal(study[4].picture, study.picture("test-04"))
    for wrong in (0, 11):
        with pytest.raises(UserError, match=f"test trials 1 to 10, found {wrong}"):
            study[wrong]
    with pytest.raises(UserError, match="no test stimulus 'x'; choose one of its 10"):
        study["x"]
    with pytest.raises(UserError, match="no repeat 5"):
        study.trial(1, repeats=[4])
    with pytest.raises(UserError, match="no stimulus 'x'; it has 70, test-01 to train-59"):
        study.picture("x")


def test_a_sweep_has_a_picture_and_scores_at_every_scale(study):
    swept = study[2].sweep([0, 4, 1])
    assert swept.scales == (0, 4, 1) and swept.pictures.shape == (3, 32, 32, 3)
    assert list(swept.scores.index) == [0, 4, 1] and swept.scores.loc[0, "PixCorr"] < 1
    assert swept._repr_html_().count("data:image/webp") == 4
    again = study[2].sweep([4], seed=1)
    assert not np.array_equal(again.pictures[0], swept.pictures[1])
    assert study.choose(generator="plain")[2].sweep().pictures.shape[0] == 1


def test_controls_are_a_table_and_say_why_one_cannot_be_had(study):
    found = study[2].controls()
    assert found.table.loc["another trial's brain", "n"] == 10
    assert found["nearest training image"].reason in found._repr_html_()
    with pytest.raises(UserError, match="no control 'x'; choose one of true embedding"):
        found["x"]


def test_maps_hold_the_numbers_of_the_page(study):
    trial = study[5]
    effects = lesion_effects(study.bench, trial.request)
    lesions = trial.lesions()
    assert lesions.table.equals(effects.table) and lesions.facts["rank"] == effects.intact.rank
    assert lesions.columns["effect"][0] == -lesions.columns["effect"][1]
    parcel = lesions.top["parcel"][0]
    changed = trial.lesion(parcel)
    assert changed.intact.margin - changed.lesioned.margin == pytest.approx(
        lesions.table.set_index("parcel").loc[parcel, "effect"], abs=1e-5
    )
    found = study.statistics(permutations=20)
    own = subject_map(study.bench, study.request, View(), permutations=20)
    assert found.table.equals(own.table) and found.facts["stimuli"] == 10
    assert found.notes[0] == (own.banner or own.randomised.sentence)


def test_what_a_notebook_shows_is_text_and_holds_its_pictures(study):
    shown = [study._repr_html_(), study[3]._repr_html_(), study[3].importance()._repr_html_()]
    for html in shown:
        assert "data:image/webp;base64," in html and "http" not in html
        assert "<script" not in html and "<b>" not in html
    assert "&lt;b&gt;bold&lt;/b&gt;" in shown[1] and "A fake study" in shown[0]
    assert "simulated: no measurement" in shown[0]
    assert "<b>" not in study[3].sweep([1.0])._repr_html_()


def test_a_terminal_shows_a_line_and_no_pixels(study):
    trial = study[2]
    for one, named in (
        (study, study.subject),
        (trial, trial.stimulus),
        (trial.sweep([0, 4]), "scales 0, 4"),
        (trial.importance(), "enrichment"),
        (trial.controls(), "no brain"),
    ):
        assert named in repr(one) and len(repr(one)) < 400 and "array(" not in repr(one)


def test_a_trial_shows_what_was_drawn_and_draws_nothing(fakes, study):
    trial = study.choose(seed=77)[6]
    before = fakes.Generator.painted
    assert trial._repr_html_().count('alt="scale 4"') == 0
    trial.sweep()
    painted = fakes.Generator.painted
    assert painted > before and trial._repr_html_().count('alt="scale 4"') == 1
    assert fakes.Generator.painted == painted


def test_pictures_under_a_closed_licence_are_said_to_be(fakes, study, monkeypatch):
    monkeypatch.setattr(fakes.Study, "redistributable", False)
    assert "clear the outputs before the notebook goes to others" in study._repr_html_()


def test_the_package_has_one_door():
    assert "open_study" in dir(explorer)
    with pytest.raises(AttributeError, match="no attribute 'close_study'"):
        explorer.close_study  # noqa: B018


def test_a_data_set_that_is_not_there_is_told_with_those_that_are(tmp_path):
    with pytest.raises(UserError, match=r'one of simulated.*open_study\("nsd2=PATH"\)'):
        explorer.open_study("nsd2")
    gone = tmp_path / "my-study"
    with pytest.raises(UserError, match=f"There is no file or folder {gone}; check the path"):
        explorer.open_study(gone)
    with pytest.raises(UserError, match="no folder .*nowhere with checkpoints"):
        explorer.open_study(checkpoints=tmp_path / "nowhere")

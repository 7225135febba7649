"""NSD's design and responses: bases, runs, and files of somebody else."""

import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io

from backends.datasets.nsd import NSD
from explorer.types import UserError
from tests.miniatures.nsd import DESIGN, INSIDE, ids_of, make, save_design, save_responses


def test_runs_are_those_of_the_responses_or_of_the_design(tmp_path):
    root = make(tmp_path, (1, 2))
    runs = NSD(root, "study").load("subj01").table["run"].to_numpy().reshape(2, 750)
    assert np.bincount(runs[1])[1:].tolist() == [63, 62] * 6
    assert (np.diff(runs, axis=1) >= 0).all()
    other = np.tile(np.repeat(np.arange(12) + 1, [62, 63] * 6), 2)
    trial = np.tile(np.concatenate([np.arange(k) + 1 for k in [62, 63] * 6]), 2)
    save_responses(root, 1, (1, 2), RUN=other, TRIAL=trial)
    np.testing.assert_array_equal(NSD(root, "study").load("subj01").table["run"], other)


@pytest.mark.parametrize(
    ("key", "place", "value", "sentence"),
    [
        ("subjectim", (2, 17), 0, "subjectim counts from 1 to 73000, found 0"),
        ("subjectim", (2, 17), 73_001, "subjectim counts from 1 to 73000, found 73001"),
        ("masterordering", (0, 5), 0, "masterordering counts from 1 to 10000, found 0"),
        ("masterordering", (0, 5), 10_001, "masterordering counts from 1 to 10000, found 10001"),
        ("sharedix", (0, 5), -1, "sharedix counts from 1 to 73000, found -1"),
        (
            "subjectim",
            (6, 17),
            70_000,
            "first 1000 images of every subject must be those of share",
        ),
        ("subjectim", (6, 9999), int(DESIGN["sharedix"][0, 0]), "test images would be trained on"),
    ],
)
def test_design_with_numbers_out_of_range_is_refused(tmp_path, key, place, value, sentence):
    root = make(tmp_path)
    changed = DESIGN[key].copy()
    changed[place] = value
    save_design(root, **{key: changed})
    with pytest.raises(UserError, match=sentence):
        NSD(root, "study").load("subj01")


def test_a_design_that_counts_from_0_is_refused(tmp_path):
    root = make(tmp_path)
    save_design(root, **{key: values - 1 for key, values in DESIGN.items()})
    with pytest.raises(UserError, match="counts from 1 to 10000, found 0"):
        NSD(root, "study").load("subj01")


def test_a_design_of_another_size_or_kind_is_refused(tmp_path):
    root = make(tmp_path)
    path = save_design(root, sharedix=DESIGN["sharedix"][:, :515])
    with pytest.raises(UserError, match=r"sharedix needs shape \(1000,\), found \(515,\)"):
        NSD(root, "study").load("subj01")
    scipy.io.savemat(path, {key: DESIGN[key] for key in ("masterordering", "sharedix")})
    with pytest.raises(UserError, match="lacks the variable subjectim"):
        NSD(root, "study").load("subj01")
    save_design(root)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match="nsd_expdesign.mat is damaged or cut short"):
        NSD(root, "study").load("subj01")
    path.unlink()
    with pytest.raises(UserError, match="missing; it says which image was shown .* s3://natural"):
        NSD(root, "study").load("subj01")


def test_responses_of_the_right_subject_are_agreed_with(tmp_path):
    root = make(tmp_path, (1, 3))
    assert any("a mix-up of subjects cannot be noticed" in s for s in NSD(root, "s").remarks())
    save_responses(root, 1, (1, 2, 3, 4))
    study = NSD(root, "study")
    assert len(study.load("subj01").table) == 1500
    assert not any("mix-up" in sentence for sentence in study.remarks())


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"subject": 2}, "responses.tsv is of subject 2, not 1: two subjects' files are mixed"),
        (
            {"subject": 2, "SUBJECT": np.ones(750, int)},
            r"trial \d+ of session 1 shows 73KID \d+, but nsd_expdesign.mat says \d+ for subj01",
        ),
        ({"73KID": ids_of(1, 1) - 1}, "shows 73KID .* but nsd_expdesign.mat says"),
        ({"73KID": np.r_[0, ids_of(1, 1)[1:]]}, "73KID counts from 1 to 73000, found 0 in sess"),
        ({"SESSION": np.r_[2, np.ones(749, int)]}, "has 749 trials of session 1, expected 750"),
        ({"73KID": ["x"] * 750}, "responses.tsv is damaged or lacks a column"),
    ],
)
def test_responses_of_somebody_else_are_refused(tmp_path, changed, sentence):
    """The shared images fall at the same trials in everybody: only the ids tell people apart."""
    root = make(tmp_path)
    subject = changed.pop("subject", 1)
    path = save_responses(root, subject, (1,), **changed)
    shutil.copy(path, tmp_path / "copy.tsv")
    right = root / "nsddata/ppdata/subj01/behav/responses.tsv"
    right.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(tmp_path / "copy.tsv", right)
    with pytest.raises(UserError, match=sentence):
        NSD(root, "study").load("subj01")


def test_ids_are_told_with_their_bases_and_rows_with_their_files(tmp_path):
    root = make(tmp_path, (1, 2))
    study = NSD(root, "study")
    shared = np.sort(DESIGN["sharedix"][0]).astype(int)
    number = shared[384]  # from 1, as the files count
    assert study.ids(f"nsd-{number - 1:05d}") == {
        "NSD's 73k, from 0": str(number - 1),
        "NSD's 73k, from 1": str(number),
        "NSD's shared1000, from 1": "385",
        "file name": f"shared0385_nsd{number:05d}.png",
    }
    own = np.setdiff1d(np.arange(73_000), shared - 1)[5]
    table = pd.DataFrame({"cocoId": np.arange(73_000) + 500, "cocoSplit": "val2017"})
    path = root / "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
    table.assign(nsdId=np.arange(73_000)).to_csv(path)
    assert NSD(root, "study").ids(f"nsd-{own:05d}") == {
        "NSD's 73k, from 0": str(own),
        "NSD's 73k, from 1": str(own + 1),
        "COCO": f"val2017 {own + 500}",
    }
    origin = study.picture_origin("nsd-00042")
    assert (origin.row, origin.key) == (42, "imgBrick")
    for trial, session, row in ((0, 1, 0), (749, 1, 749), (750, 2, 0), (1499, 2, 749)):
        (origin,) = study.origins("subj01", trial)
        assert origin.file.endswith(f"betas_session{session:02d}.hdf5")
        assert (origin.row, origin.key) == (row, "betas")
        with h5py.File(origin.file) as file:
            stored = file["betas"][origin.row].T[INSIDE] / 300
        raw = NSD(root, "raw", norm="none").load("subj01")
        np.testing.assert_allclose(raw.betas[trial], stored, rtol=1e-6)
    with pytest.raises(UserError, match="study/subj01 has the trials 0 to 1499, not 1500"):
        study.origins("subj01", 1500)
    assert study.split_by == "NSD: the 1,000 images that all eight people share are test"
    assert not study.test_only

"""BOLD5000 in miniature, written from the release's facts: arrays of regions, pictures, harm."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from backends.datasets.bold5000 import BOLD5000
from explorer.types import UserError
from tests.miniatures.bold5000 import (
    LIST,
    REPEATED,
    RUNS,
    SESSION,
    STEMS,
    WIDTHS,
    D,
    array,
    copy,
    spoil,
    write_lists,
    write_mindvis,
    write_rois,
)


@pytest.fixture(scope="module")
def mindvis(tmp_path_factory) -> Path:
    """MinD-Vis's folder; tests read it and write elsewhere."""
    return write_mindvis(tmp_path_factory.mktemp("BOLD5000"))


def test_trials_follow_sorted_sessions_and_runs(mindvis):
    table = BOLD5000(mindvis, "b").load("CSI4").table
    assert table["stimulus"].tolist() == STEMS
    assert table["session"].tolist() == SESSION.tolist()
    assert table["run"].tolist() == [r for _, r in RUNS for _ in range(37)]


def test_the_prefix_is_stripped_and_is_not_what_makes_a_repeat(mindvis):
    table = BOLD5000(mindvis, "b").load("CSI4").table
    assert not table["stimulus"].str.startswith("rep_").any()
    test = table[table["split"] == "test"]
    assert set(test["stimulus"]) == {n.rpartition(".")[0] for n in REPEATED[:106]}
    for name, rows in test.groupby("stimulus"):
        assert rows["repeat"].tolist() == list(range(STEMS.count(name)))
    first = [
        i for i, name in enumerate(LIST) if name.startswith("rep_") and i == STEMS.index(STEMS[i])
    ]
    assert first, "the miniature has prefixed first presentations, as the real lists have"
    assert (table["repeat"][first] == 0).all()


def test_columns_are_regions_left_before_right(mindvis):
    trials = BOLD5000(mindvis, "b", norm="none").load("CSI4")
    order = [(roi, side) for roi in WIDTHS for side in ("LH", "RH")]
    stored = np.concatenate([array(roi, side, WIDTHS[roi]) for roi, side in order], axis=1)
    assert trials.beta_unit == "percent signal change"
    np.testing.assert_array_equal(trials.betas[:], stored.astype(np.float32))
    rois = trials.subject.voxels.parcellations["ROIs"]
    assert rois.kind == "partition"
    keys = [f"{roi} {side[0]}" for roi, side in order]
    assert [label.key for label in rois.labels] == keys
    widths = [WIDTHS[roi] for roi, _ in order]
    assert rois.membership.tolist() == np.repeat(np.arange(10), widths).tolist()


def test_no_column_is_padded_where_sixteen_divide_them(mindvis):
    """MinD-Vis's wrap padding would make 32 of these 16."""
    assert 2 * sum(WIDTHS.values()) == 16
    assert BOLD5000(mindvis, "b").load("CSI4").betas.shape == (3108, 16)


def test_z_scores_come_from_the_training_trials_of_a_session(tmp_path, mindvis):
    copy(mindvis, tmp_path)
    values = array("EarlyVis", "LH", 3)
    test = np.isin(STEMS, [n.rpartition(".")[0] for n in REPEATED])
    values[test] += 1000  # would move any mean that they are counted in
    write_rois(tmp_path, LHEarlyVis=values)
    trials = BOLD5000(tmp_path, "b").load("CSI4")
    assert trials.beta_unit == "z-score within session"
    betas = trials.betas[:]
    for session in (1, 9):
        rows = (SESSION == session) & ~test
        np.testing.assert_allclose(betas[rows].mean(axis=0), 0, atol=2e-4)
        np.testing.assert_allclose(betas[rows].std(axis=0), 1, atol=2e-4)
        assert (betas[(SESSION == session) & test, :3] > 500).all()


def test_the_type_is_chosen_and_types_are_never_mixed(tmp_path, mindvis):
    """A search for "CSI4" and "LOC" in the name, as MinD-Vis makes it, would find both."""
    copy(mindvis, tmp_path)
    b = array("LOC", "LH", 2) + 5
    nothing = {side + roi: None for roi in WIDTHS for side in ("LH", "RH")}
    write_rois(tmp_path, "CSI4_GLMbetas-TYBEB-FITHRF", **(nothing | {"LHLOC": b}))
    assert BOLD5000(tmp_path, "b").load("CSI4").betas.shape[1] == 16
    chosen = BOLD5000(tmp_path, "b", type="b", norm="none").load("CSI4")
    np.testing.assert_array_equal(chosen.betas[7], b[7].astype(np.float32))
    with pytest.raises(
        UserError, match="no roi betas of type A; it has roi of type B, roi of type D"
    ):
        BOLD5000(tmp_path, "b", type="A")


def write_v73(file: Path, values: np.ndarray) -> None:
    with h5py.File(file, "w", userblock_size=512) as out:
        out["betas"] = values.T  # MATLAB's axes come out reversed
    with open(file, "r+b") as out:
        out.write(b"MATLAB 7.3 MAT-file".ljust(116) + b" " * 8 + b"\x00\x02IM")


def test_mat_arrays_of_both_versions_are_the_same(tmp_path, mindvis):
    write_lists(tmp_path)
    folder = tmp_path / "mat"
    folder.mkdir()
    left, right = array("LOC", "LH", 2), array("LOC", "RH", 2)
    scipy.io.savemat(folder / f"{D}_allses_LHLO.mat", {"x": left})  # spelt as CSI2 and CSI3 are
    write_v73(folder / f"{D}_allses_RHLO.mat", right)
    trials = BOLD5000(tmp_path, "b", norm="none").load("CSI4")
    rois = trials.subject.voxels.parcellations["ROIs"]
    assert [label.key for label in rois.labels] == ["LOC L", "LOC R"]
    both = np.concatenate([left, right], axis=1).astype(np.float32)
    np.testing.assert_array_equal(trials.betas[[3000, 5]], both[[3000, 5]])


def test_dead_voxels_are_left_out_and_counted(tmp_path, mindvis):
    copy(mindvis, tmp_path)
    dead = array("EarlyVis", "LH", 3)
    dead[SESSION == 5, 0] = np.nan
    dead[:, 2] = 4.5
    write_rois(tmp_path, LHEarlyVis=dead)
    dataset = BOLD5000(tmp_path, "b", norm="none")
    trials = dataset.load("CSI4")
    np.testing.assert_array_equal(trials.betas[:, 0], dead[:, 1].astype(np.float32))
    voxels = trials.subject.voxels
    assert voxels.n_voxels == 14
    assert voxels.parcellations["ROIs"].membership[:2].tolist() == [0, 1]
    assert voxels.hash != BOLD5000(mindvis, "b").load("CSI4").subject.voxels.hash
    assert any(r.startswith("CSI4: 2 voxels were left out") for r in dataset.remarks())


def test_remarks_say_what_is_lacking(tmp_path, mindvis):
    copy(mindvis, tmp_path)
    next(tmp_path.rglob("*RHRSC.npy")).unlink()
    said = BOLD5000(tmp_path, "b").remarks()
    assert any("CSI4 lacks the array of RSC R" in r for r in said)
    assert any(
        "106 of the 113 test images were shown, 1 of them 5 times, 13 of" in r for r in said
    )
    assert any(
        "2952 of 2952 pictures are not here" in r and "BOLD5000_Stimuli.zip" in r for r in said
    )
    assert not any("\n" in r for r in said)


def test_pictures_are_found_whatever_their_ending_and_case(mindvis):
    dataset = BOLD5000(mindvis, "b")
    assert dataset.image("COCO_train2014_000000001000").shape == (4, 5, 3)
    grey = dataset.image("n00009000_7")
    assert grey.shape == (4, 4, 3)
    assert np.abs(grey.astype(int) - 200).max() < 3
    blue = dataset.image("banquetHall2")
    assert blue.shape == (4, 4, 3), "Original_Images are not what was shown"
    assert blue[0, 0, 2] > 200


def test_the_pickle_of_mindvis_is_named_and_not_loaded(mindvis):
    with pytest.raises(
        UserError, match="church6.*img_dict.npy is a pickle.*never loaded: put Pres"
    ):
        BOLD5000(mindvis, "b").image("church6")


def test_the_pickle_alone_is_refused_by_name(tmp_path):
    folder = tmp_path / "BOLD5000_Stimuli" / "Scene_Stimuli" / "Presented_Stimuli"
    folder.mkdir(parents=True)
    np.save(folder / "img_dict.npy", {"a": 1}, allow_pickle=True)
    with pytest.raises(UserError, match="is a pickle.*never loaded, and there is nothing else"):
        BOLD5000(tmp_path, "b")


def test_stimuli_are_told_by_their_names(mindvis):
    stimuli = BOLD5000(mindvis, "b").stimuli
    columns = ["caption", "category", "source"]
    rows = dict(
        zip(stimuli.index, stimuli[columns].itertuples(index=False, name=None), strict=True)
    )
    assert rows["nursery1"] == ("nursery", "Scene", "SUN")
    assert rows["banquetHall2"] == ("banquet hall", "Scene", "SUN")
    assert rows["COCO_train2014_000000001000"] == ("", "COCO", "COCO 1000")
    assert rows["n00009000_7"] == ("desk, writing desk", "ImageNet", "n00009000")
    assert rows["n00009001_7"] == ("", "ImageNet", "n00009001")


def test_lists_and_pictures_beside_the_betas_are_found(mindvis):
    dataset = BOLD5000(mindvis / "BOLD5000_GLMsingle_ROI_betas" / "py", "b")
    assert dataset.load("CSI4").table["stimulus"].tolist() == STEMS
    assert dataset.image("banquetHall2").shape == (4, 4, 3)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"source": "surface"}, "source is one of auto, roi, volume; found 'surface'"),
        ({"type": "E"}, "type is one of A, B, C, D; found 'E'"),
        ({"norm": "run"}, "norm is one of session, none; found 'run'"),
        ({"source": "volume"}, "no volume betas of type D; it has roi of type D: choose with"),
    ],
)
def test_options_are_checked(mindvis, options, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        BOLD5000(mindvis, "b", **options)


SESS5 = "BOLD5000_Stimuli/Stimuli_Presentation_Lists/CSI4/CSI4_sess05"


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (
            lambda r: write_rois(r, RHPPA=np.ones((5254, 1))),
            r"RHPPA.npy has shape \(5254, 1\), the count of CSI1 and CSI2 and CSI3, expected "
            r"\(3108, voxels\)",
        ),
        (
            lambda r: write_rois(r, RHPPA=np.ones((3107, 1))),
            r"RHPPA.npy has shape \(3107, 1\), expected \(3108, voxels\) for CSI4's 3108 trials",
        ),
        (
            lambda r: spoil(r, "*LHLOC.npy", lambda b: b[:-100]),
            "LHLOC.npy is damaged or cut short",
        ),
        (
            lambda r: np.save(next(r.rglob("*LHLOC.npy")), {"a": 1}, allow_pickle=True),
            "LHLOC.npy holds pickled Python objects",
        ),
        (
            lambda r: [f.unlink() for f in (r / SESS5).iterdir()],
            "CSI4, session 5: expected presentation lists of runs 1 to 9, found 0",
        ),
        (
            lambda r: (r / SESS5 / "CSI4_sess05_run03.txt").unlink(),
            r"CSI4, session 5: expected .* 1 to 9, found 8 \(see run 3\)",
        ),
        (
            lambda r: spoil(r, "CSI4_sess05_run03.txt", lambda b: b[: b.rindex(b"\n", 0, -1)]),
            "CSI4_sess05_run03.txt lists 36 trials, expected 37",
        ),
        (
            lambda r: (r / SESS5 / "CSI4_sess05_run03.txt").rename(
                r / SESS5 / "CSI2_sess05_run03.txt"
            ),
            "CSI2_sess05_run03.txt lies in the folder of another subject or session",
        ),
        (
            lambda r: write_rois(r / "again"),
            r"CSI4_GLMbetas.*npy is there twice, .*; keep one of them",
        ),
        (
            lambda r: spoil(r, "repeated_stimuli*", lambda b: b + b"one_more.jpg\n"),
            "repeated_stimuli_113_list.txt names 114 images, expected the 113",
        ),
        (
            lambda r: spoil(r, "repeated_stimuli*", lambda b: b.replace(b"000044.jpg", b"9.jpg")),
            "COCO_train2014_000000000044 was shown more than once but is not among the repeated",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path, mindvis, harm, sentence):
    copy(mindvis, tmp_path)
    harm(tmp_path)
    with pytest.raises(UserError, match=sentence) as caught:
        BOLD5000(tmp_path, "b").load("CSI4")
    assert "\n" not in str(caught.value)

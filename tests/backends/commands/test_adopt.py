"""Somebody's own GLM becomes a plain folder: told first, written whole, refused where unclear."""

import re
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from backends.__main__ import app
from backends.commands import adopted_study
from backends.commands.doctor import diagnose
from backends.datasets.folder import Folder
from explorer.brain.fslr import cortex, fsaverage5_vertices
from explorer.images import read_picture
from explorer.types import UserError
from tests.miniatures.glmsingle import (
    EACH,
    RUNS,
    SHAPE,
    shown,
    single_trials,
    write_bids,
    write_mask,
    write_results,
)

N = RUNS * EACH
MASK = "sub-01_space-T1w_desc-brain_mask.nii.gz"


@pytest.fixture
def mask(tmp_path) -> np.ndarray:
    """Write results, events and mask of one person, and return the mask."""
    write_bids(tmp_path / "bids")
    write_results(tmp_path / "glm")
    return write_mask(tmp_path / MASK)


def adopt(tmp_path, *words: str, results: str = "glm", mask: str = MASK, code: int = 0) -> str:
    """Run the command in ``tmp_path`` and return what it printed."""
    where = str(tmp_path / mask) if mask.endswith("gz") else mask
    given = ["adopt", str(tmp_path / results), "--events", str(tmp_path / "bids")]
    given += ["--mask", where, "--out", str(tmp_path / "study"), *words]
    found = CliRunner().invoke(app, given)
    if found.exception and not isinstance(found.exception, SystemExit):
        raise found.exception
    assert found.exit_code == code, found.output
    return found.output


def refused(tmp_path, sentence: str, *words: str, **where: str) -> None:
    with pytest.raises(UserError, match=sentence):
        adopt(tmp_path, "--test-repeats", "5", "--write", *words, **where)
    assert not (tmp_path / "study").exists() and not list(tmp_path.glob(".study*"))


def expected(mask: np.ndarray) -> np.ndarray:
    return single_trials()[mask].T


def test_it_tells_first_and_writes_nothing(tmp_path, mask):
    told = adopt(tmp_path, code=1)
    assert f"{N} trials, 59 of 59 voxels; a beta is percent signal change" in told
    assert "betasmd (4, 5, 3, 36)" in told and "3 files, run-1: 12, run-2: 12, run-3: 12" in told
    last = pd.read_csv(
        tmp_path / "bids/sub-01/func/sub-01_task-x_run-3_events.tsv", sep="\t"
    ).onset.idxmax()
    picture = f"p{shown()[2, -1]}.png"
    assert re.search(
        rf"last +trial 35: beta 35 of TYPED\S+, row {last} of sub-01_task-x_run-3_events.tsv "
        rf"\(both from 0\), 81 s, {picture}, no split",
        told,
    )
    assert "3 rows are no trials" in told and "Space T1w: voxels decode, and cannot be" in told
    assert "Nothing says which stimuli are test" in told
    assert "3 times: 2, 4 times: 2, 5 times: 2, 6 times: 2." in told
    assert "Nothing was written" in told and not (tmp_path / "study").exists()


def test_the_adopted_study_opens_and_holds_the_same_betas(tmp_path, mask):
    adopt(tmp_path, "--test-repeats", "5", "--write")
    study = Folder(tmp_path / "study", "mine")
    trials = study.load("sub-01")
    np.testing.assert_array_equal(trials.betas[:], expected(mask))
    assert trials.table["stimulus"].tolist() == [f"p{i}" for i in shown().ravel()]
    assert trials.table["run"].tolist() == np.repeat([1, 2, 3], EACH).tolist()
    assert trials.beta_unit == "percent signal change"
    often = np.bincount(shown().ravel())
    assert set(trials.stimuli("test")) == {f"p{i}" for i in np.flatnonzero(often >= 5)}
    assert trials.subject.voxels.mask.sum() == 59 and trials.subject.voxels.projection is None
    assert trials.table["source_trial"].tolist() == [str(n) for n in range(N)]
    (origin,) = trials.betas.lies(14)
    assert (Path(origin.file).name, origin.row) == ("betas.npy", 14)
    assert origin.note.startswith("trial 14 of glm/TYPED_FITHRF_GLMDENOISE_RR.hdf5, row ")
    assert origin.note.endswith(" of sub-01_task-x_run-2_events.tsv, both from 0")
    assert diagnose(tmp_path / "study") == []
    shot = read_picture(tmp_path / "bids" / "stimuli" / "p3.png")
    np.testing.assert_array_equal(study.image("p3"), shot)


def test_the_adopted_study_decodes(tmp_path, mask):
    """The most alike of the other test trials showed the same picture."""
    adopt(tmp_path, "--test-repeats", "5", "--write")
    trials = Folder(tmp_path / "study", "mine").load("sub-01")
    test = trials.rows("test")
    betas, names = trials.betas[test], trials.table["stimulus"].iloc[test].to_numpy()
    alike = np.corrcoef(betas)
    np.fill_diagonal(alike, -1)
    assert (names[alike.argmax(axis=1)] == names).all()


def test_pickled_results_are_refused_with_the_way_out(tmp_path, mask):
    file = tmp_path / "glm" / "TYPED_FITHRF_GLMDENOISE_RR.hdf5"
    file.unlink()
    np.save(file.with_suffix(".npy"), {"betasmd": single_trials()})
    sentence = r"not read; let GLMsingle write HDF5 \(its options wantfileoutputs.*wanthdf5=1\)"
    refused(tmp_path, sentence)
    np.save(tmp_path / "glm" / "TYPED_FITHRF_GLMDENOISE_RR_betasmd.npy", single_trials())
    adopt(tmp_path, "--test-repeats", "5", "--write")  # as the sentence says
    trials = Folder(tmp_path / "study", "mine").load("sub-01")
    np.testing.assert_array_equal(trials.betas[:], expected(mask))


@pytest.mark.parametrize(
    ("turn", "sentence"),
    [
        (lambda b: np.moveaxis(b, -1, 0), "trials come first, expected"),
        (lambda b: b.T, r"axes are reversed.*save it transposed \(betas.T\)"),
        (lambda b: b.reshape(-1, N).T, "trials come first, expected"),
        (lambda b: b[:3], r"fits neither the 59 voxels of the mask or surface nor its grid"),
        (lambda b: b[..., :-2], r"has 34 trials, the events have 36 \(run-1: 12, run-2: 12, run"),
    ],
)
def test_other_axes_are_named(tmp_path, mask, turn, sentence):
    write_results(tmp_path / "glm", np.ascontiguousarray(turn(single_trials())))
    refused(tmp_path, sentence)


@pytest.mark.parametrize("shape", [(60, 1, 1, N), (60, N), (*SHAPE, N), (59, N), (59, 1, 1, N)])
def test_flat_betas_are_the_masks_voxels_in_c_order(tmp_path, mask, shape):
    betas = single_trials()[mask] if shape[0] == 59 else single_trials()
    write_results(tmp_path / "glm", betas.reshape(shape))
    adopt(tmp_path, "--test-repeats", "5", "--write")
    trials = Folder(tmp_path / "study", "mine").load("sub-01")
    np.testing.assert_array_equal(trials.betas[:], expected(mask))


def test_catch_trials_in_the_events_are_found_by_their_number(tmp_path, mask):
    write_results(tmp_path / "glm", single_trials())
    for file in (tmp_path / "bids").rglob("*events.tsv"):
        table = pd.read_csv(file, sep="\t", keep_default_na=False)
        table.loc[table["trial_type"] == "blank", "stim_file"] = "grey.png"
        table.to_csv(file, sep="\t", index=False)
    refused(tmp_path, r"has 36 trials, the events have 39 .* leaving out 'blank' would make them")
    adopt(tmp_path, "--test-repeats", "5", "--write", "--leave-out", "blank")
    trials = Folder(tmp_path / "study", "mine").load("sub-01")
    assert trials.table["stimulus"].tolist() == [f"p{i}" for i in shown().ravel()]


def test_a_surface_is_drawn_and_hemispheres_are_joined(tmp_path, mask):
    rng = np.random.default_rng(0)
    both = rng.normal(0, 2, (20_484, N)).astype(np.float32)
    for side, betas in (("L", both[:10_242]), ("R", both[10_242:])):
        write_results(tmp_path / "surf" / f"hemi-{side}", betas[:, None, None])
    told = adopt(tmp_path, "--test-repeats", "5", "--write", results="surf", mask="fsaverage5")
    assert "Space fsaverage5: every voxel is drawn on fsaverage5." in told
    trials = Folder(tmp_path / "study", "mine").load("sub-01")
    np.testing.assert_array_equal(trials.betas[[0, 35]], both.T[[0, 35]])
    projection = trials.subject.voxels.projection.tocoo()
    np.testing.assert_array_equal(projection.row, projection.col)
    assert projection.nnz == 20_484 and set(projection.data) == {1}


def test_fslr_has_several_voxels_at_a_vertex(tmp_path, mask):
    betas = np.random.default_rng(0).normal(0, 2, (59_412, N)).astype(np.float32)
    write_results(tmp_path / "sub-01_space-fsLR_den-91k", betas[:, None, None])
    words = "--test-repeats", "5", "--write"
    told = adopt(tmp_path, *words, results="sub-01_space-fsLR_den-91k", mask="")
    assert "Space fsLR: every voxel is drawn on fsaverage5." in told
    assert diagnose(tmp_path / "study") == []
    voxels = Folder(tmp_path / "study", "mine").load("sub-01").subject.voxels
    np.testing.assert_array_equal(voxels.projection.tocsc().indices, fsaverage5_vertices(59_412))
    np.testing.assert_array_equal(voxels.fslr, np.flatnonzero(cortex()))  # kept for CIFTI files


def test_surfaces_that_lie_otherwise_are_named(tmp_path, mask):
    turned = np.ones((N, 10_242), np.float32)
    write_results(tmp_path / "hemi-L", turned)
    refused(tmp_path, "trials come first", results="hemi-L", mask="fsaverage5")
    refused(tmp_path, r"of one hemisphere \(hemi-L\), so its betas lie on", results="hemi-L")
    write_results(tmp_path / "hemi-lh", turned.T)
    refused(tmp_path, "found hemi-LH", results="hemi-lh", mask="fsaverage5")
    sentence = "both hemispheres of fsaverage5 have 20,484 vertices, and the betas have 10,242"
    (tmp_path / "hemi-lh").rename(tmp_path / "left")
    refused(tmp_path, sentence, results="left", mask="fsaverage5")


def test_runs_without_betas_are_told(tmp_path):
    for session in ("01", "02"):
        write_bids(tmp_path / "bids", session=session)
    write_results(tmp_path / "glm" / "ses-02")
    write_mask(tmp_path / MASK)
    told = adopt(tmp_path, "--test-repeats", "5", "--write")
    assert "3 of 6 runs with events have no betas here and are not used: sub-01 ses-01 run" in told
    table = Folder(tmp_path / "study", "mine").load("sub-01").table
    assert len(table) == N and set(table["session"]) == {2}


def test_several_people_are_joined_with_their_own_events_and_masks(tmp_path):
    for i, who in enumerate(("01", "02")):
        write_bids(tmp_path / "bids", who)
        write_results(tmp_path / "glm" / f"sub-{who}", single_trials() + np.float32(i))
        (tmp_path / "masks" / f"sub-{who}").mkdir(parents=True)
        write_mask(tmp_path / "masks" / f"sub-{who}" / f"sub-{who}_mask.nii.gz", left_out=1 + i)
    masks = str(tmp_path / "masks")
    adopt(tmp_path, "--test-repeats", "5", "--write", mask=masks)
    study = Folder(tmp_path / "study", "mine")
    assert study.subjects() == ["sub-01", "sub-02"]
    flat = single_trials().reshape(-1, N).T
    np.testing.assert_array_equal(study.load("sub-01").betas[:], flat[:, 1:])
    np.testing.assert_array_equal(study.load("sub-02").betas[:], flat[:, 2:] + np.float32(1))
    (tmp_path / "study").rename(tmp_path / "done")
    (tmp_path / "glm" / "sub-02").rename(tmp_path / "glm" / "sub-03")
    refused(tmp_path, "is of sub-03, and the events are of sub-01, sub-02", mask=masks)
    (tmp_path / "glm" / "sub-03").rename(tmp_path / "glm" / "other")
    refused(tmp_path, "is of nobody named, and the events are of sub-01, sub-02", mask=masks)


def test_voxels_without_numbers_are_left_out_of_betas_and_mask(tmp_path, mask):
    betas = single_trials()
    betas[1, 2, 0] = np.nan
    betas[2, 2, 2, 5] = np.inf
    betas[3, 0, 1] = 0
    write_results(tmp_path / "glm", betas)
    told = adopt(tmp_path, "--test-repeats", "5", "--write")
    for sentence in ("are not finite in any trial", "never vary", "are not finite in some trials"):
        assert f"sub-01: 1 of 59 voxels {sentence} and are left out." in told
    for place in ((1, 2, 0), (2, 2, 2), (3, 0, 1)):
        mask[place] = False
    trials = Folder(tmp_path / "study", "mine").load("sub-01")
    np.testing.assert_array_equal(trials.subject.voxels.mask, mask)
    np.testing.assert_array_equal(trials.betas[:], betas[mask].T)


def test_a_volume_in_mni_space_is_drawn(tmp_path, mask):
    told = adopt(tmp_path, "--test-repeats", "5", "--write", "--space", "MNI152NLin2009cAsym")
    assert "Space MNI152NLin2009cAsym: the voxels of the cortex are drawn" in told
    assert diagnose(tmp_path / "study") == []
    voxels = Folder(tmp_path / "study", "mine").load("sub-01").subject.voxels
    assert voxels.projection.nnz > 20


def test_zscores_come_from_training_trials_of_a_session(tmp_path):
    for session, size in (("01", 1), ("02", 3)):
        write_bids(tmp_path / "bids", session=session)
        write_results(tmp_path / "glm" / f"ses-{session}", single_trials() * size + size)
    mask = write_mask(tmp_path / MASK)
    adopt(tmp_path, "--test-repeats", "9", "--write", "--zscore", "session")
    trials = Folder(tmp_path / "study", "mine").load("sub-01")
    assert trials.beta_unit == "z-score within session"
    assert trials.table["session"].tolist() == [1] * N + [2] * N
    train = (trials.table["split"] == "train").to_numpy()
    for session in (1, 2):
        of = (trials.table["session"] == session).to_numpy()
        np.testing.assert_allclose(trials.betas[of & train].mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(trials.betas[of & train].std(axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(trials.betas[:N], trials.betas[N:], atol=1e-4)
    assert trials.betas.shape[1] == mask.sum()


@pytest.mark.parametrize(
    ("factor", "sentence"), [(300, "has the SD 553"), (0.01, "has the SD 0.0184")]
)
def test_another_unit_has_to_be_named(tmp_path, mask, factor, sentence):
    write_results(tmp_path / "glm", single_trials() * np.float32(factor))
    refused(tmp_path, f"{sentence}.* say what their unit is with --unit")
    adopt(tmp_path, "--test-repeats", "5", "--write", "--unit", "percent x 300")
    assert Folder(tmp_path / "study", "m").load("sub-01").beta_unit == "percent x 300"


def test_glmsingles_own_order_is_held_against_the_events(tmp_path, mask):
    order = shown().ravel()
    np.save(tmp_path / "glm" / "stimorder.npy", order)
    assert "GLMsingle's 8 conditions are one stimulus each" in adopt(tmp_path, code=1)
    np.save(tmp_path / "glm" / "stimorder.npy", np.roll(order, 1))
    refused(tmp_path, r"stimorder.npy: trial \d+ \(from 0\) is condition \d.* in another order")
    order[0] = 99  # the picture of trial 0 is another condition elsewhere
    np.save(tmp_path / "glm" / "stimorder.npy", order)
    refused(tmp_path, rf"trial \d+ \(from 0\) is condition {shown()[0, 0]}.* in another order")


def test_splits_by_column_and_list(tmp_path, mask):
    for file in (tmp_path / "bids").rglob("*events.tsv"):
        table = pd.read_csv(file, sep="\t", keep_default_na=False)
        table["part"] = np.where(table["stim_file"].isin(["p1.png", "p2.png"]), "test", "train")
        table.to_csv(file, sep="\t", index=False)
    assert "Split: 6 train and 2 test stimuli" in adopt(tmp_path, "--split-column", "part")
    (tmp_path / "test.txt").write_text("p1.png\np2\n\n")
    listed = ("--test-list", str(tmp_path / "test.txt"))
    assert "Split: 6 train and 2 test stimuli" in adopt(tmp_path, *listed)
    (tmp_path / "test.txt").write_text("p1\nq7\n")
    with pytest.raises(UserError, match="1 of 2 lines name no stimulus of the events, first 'q7'"):
        adopt(tmp_path, *listed)
    with pytest.raises(UserError, match="Give one of --test-repeats, --split-column"):
        adopt(tmp_path, *listed, "--test-repeats", "5")
    assert "No stimulus is test" in adopt(tmp_path, "--test-repeats", "50", code=1)


def test_pictures_that_lack_are_told_and_nothing_is_written(tmp_path, mask):
    (tmp_path / "bids" / "stimuli" / "p4.png").unlink()
    assert "1 of 8 stimuli have no one picture of their name" in adopt(
        tmp_path, "--test-repeats", "5", code=1
    )
    refused(tmp_path, "was not written: 1 of 8 stimuli have no one picture")


def test_a_failure_while_writing_leaves_nothing(tmp_path, mask, monkeypatch):
    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(adopted_study, "_copy", full)
    refused(tmp_path, r"study cannot be written .*No space left")


def test_places_that_do_not_belong_together_are_refused(tmp_path, mask):
    moved = tmp_path / "sub-02_space-MNI152NLin2009cAsym" / "TYPED.hdf5"
    moved.parent.mkdir()
    write_results(tmp_path / "glm").rename(moved)
    sentence = "is of sub-02, and the events are of sub-01"
    refused(tmp_path, sentence, results=moved.parent.name)
    moved = moved.parent.rename(tmp_path / "sub-01_space-MNI152NLin2009cAsym")
    refused(tmp_path, "is in the space T1w, and .* is named space-MNI152", results=moved.name)
    other = tmp_path / "mask.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 4), np.uint8), np.eye(4)), other)
    refused(tmp_path, "fits neither the 80 voxels", results=moved.name, mask="mask.nii.gz")
    refused(
        tmp_path,
        "is named space-MNI152NLin2009cAsym, and --mask says fsaverage5",
        results=moved.name,
        mask="fsaverage5",
    )

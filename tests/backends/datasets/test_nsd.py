"""NSD's raw release in miniature: its files, bases, axes and units, and what goes wrong with them.

Volumes are 6 x 7 x 5 voxels, everything else has its real size. Betas are planted: a voxel holds
100 x + 10 y + z plus, by turns, the low or the high byte of the image's 73KID (from 1), so that a
wrong image, voxel order, axis or unit shows in every single value.
"""

import gzip
import shutil
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import scipy.io

from backends.datasets import nsd
from backends.datasets.nsd import NSD
from explorer.types import UserError

SHAPE = (6, 7, 5)
AFFINE = np.diag([1.8, 1.8, 1.8, 1.0])
B3 = "betas_fithrf_GLMdenoise_RR"
FSAVERAGE = 163_842
X, Y, Z = np.indices(SHAPE)
BASE = 100 * X + 10 * Y + Z
LOW = (X + Y + Z) % 2 == 0
INSIDE = (X > 0) & (X < 5) & (Y > 1) & (Z > 0)  # nsdgeneral, 4 x 5 x 4


# -------------------------------------------------------------------------------------- miniatures


def make_design() -> dict[str, np.ndarray]:
    """Sessions 1 to 3 show 75 shared and 675 own images three times each, in any order."""
    rng = np.random.default_rng(0)
    early = np.r_[1:75, 1000, 1001:1676]  # 1000 is the last position that is shared
    late = np.setdiff1d(np.arange(1, 10_001), early)
    order = np.concatenate([rng.permutation(np.tile(part, 3)) for part in (early, late)])
    ids = rng.permutation(73_000) + 1
    shared, own = ids[:1000], ids[1000:].reshape(8, 9000)
    subjects = np.concatenate([np.tile(shared, (8, 1)), own], axis=1)
    # MATLAB's numbers are doubles, and everything has two dimensions
    found = {
        "masterordering": order[None],
        "subjectim": subjects,
        "sharedix": np.sort(shared)[None],
    }
    return {key: values.astype(np.float64) for key, values in found.items()}


DESIGN = make_design()


def ids_of(subject: int, session: int) -> np.ndarray:
    """Return 73KID (from 1) of each of a session's 750 trials, trial by trial as in MATLAB."""
    found = []
    for trial in range((session - 1) * 750 + 1, session * 750 + 1):
        position = DESIGN["masterordering"][0, trial - 1]
        found.append(int(DESIGN["subjectim"][subject - 1, int(position) - 1]))
    return np.array(found)


def planted(ids: np.ndarray) -> np.ndarray:
    """Return int16 (X, Y, Z, trials) betas."""
    code = np.where(LOW[..., None], ids % 256, ids // 256)
    return (BASE[..., None] + code).astype(np.int16)


def save_volume(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, AFFINE), path)
    return path


def save_surface(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.MGHImage(np.asarray(values, np.float32), np.eye(4)), path)
    return path


def save_betas(folder: Path, session: int, values: np.ndarray, ending: str = "hdf5") -> Path:
    """Write a session's betas int16 (X, Y, Z, 750) as NSD does."""
    path = folder / f"betas_session{session:02d}.{ending}"
    folder.mkdir(parents=True, exist_ok=True)
    if ending != "hdf5":
        return save_volume(path, values)
    with h5py.File(path, "w") as file:  # MATLAB's (X, Y, Z, 750), chunks [1 1 1 750]
        file.create_dataset("betas", data=values.T, chunks=(values.shape[-1], 1, 1, 1))
    return path


def betas_folder(root: Path, subject: int = 1, space: str = "func1pt8mm", prep: str = B3) -> Path:
    return root / "nsddata_betas" / "ppdata" / f"subj{subject:02d}" / space / prep


def roi_folder(root: Path, subject: int = 1, space: str = "func1pt8mm") -> Path:
    return root / "nsddata" / "ppdata" / f"subj{subject:02d}" / space / "roi"


def nsdgeneral() -> np.ndarray:
    """1 inside, 0 and -1 outside: that -1 is what `!= 0` takes for a label."""
    return np.where(INSIDE, 1, np.where(X == 0, -1, 0)).astype(np.float32)


def save_design(root: Path, **changed: np.ndarray) -> Path:
    path = root / "nsddata" / "experiments" / "nsd" / "nsd_expdesign.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {**DESIGN, **changed})
    return path


def save_responses(root: Path, subject: int, sessions: tuple[int, ...], **changed) -> Path:
    n = 750 * len(sessions)
    columns = {
        "SUBJECT": np.full(n, subject),
        "SESSION": np.repeat(sessions, 750),
        "RUN": np.tile(np.repeat(np.arange(12) + 1, [63, 62] * 6), len(sessions)),
        "TRIAL": np.tile(np.concatenate([np.arange(k) + 1 for k in [63, 62] * 6]), len(sessions)),
        "73KID": np.concatenate([ids_of(subject, s) for s in sessions]),
        "ISCORRECT": np.where(np.arange(n) % 9 == 0, np.nan, 1),
    }
    path = root / f"nsddata/ppdata/subj{subject:02d}/behav/responses.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({**columns, **changed}).to_csv(path, sep="\t", index=False, na_rep="NaN")
    return path


def make(
    root: Path, sessions: tuple[int, ...] = (1,), ending: str = "hdf5", subject: int = 1
) -> Path:
    """Write one subject's volumes; the design is the same for everybody."""
    save_design(root)
    save_volume(roi_folder(root, subject) / "nsdgeneral.nii.gz", nsdgeneral())
    for session in sessions:
        values = planted(ids_of(subject, session))
        save_betas(betas_folder(root, subject), session, values, ending)
    return root


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return sessions 1 and 3 of subject 1 and session 1 of subject 4; only to be read."""
    root = tmp_path_factory.mktemp("nsd")
    make(root, (1, 3))
    return make(root, (1,), subject=4)


def decode(betas: np.ndarray) -> np.ndarray:
    """Return the 73KID that is planted in betas (n, V) of percent signal change."""
    code = np.round(betas * 300) - BASE[INSIDE]
    low, high = code[:, LOW[INSIDE]], code[:, ~LOW[INSIDE]]
    assert (low == low[:, :1]).all() and (high == high[:, :1]).all(), "voxels disagree"
    return (256 * high[:, 0] + low[:, 0]).astype(int)


# ------------------------------------------------------------------------------------------ trials


@pytest.mark.parametrize("ending", ["hdf5", "nii", "nii.gz"])
def test_every_trial_shows_the_image_its_betas_were_planted_with(tmp_path, ending):
    """Off by one in any base, a reversed axis, another voxel order or unit: each breaks it."""
    study = NSD(make(tmp_path, (1, 2), ending), "study", norm="none")
    trials = study.load("subj01")
    betas = trials.betas[:]
    assert (betas.shape, betas.dtype) == ((1500, 80), np.float32)
    shown = [f"nsd-{k - 1:05d}" for k in decode(betas)]
    assert trials.table["stimulus"].tolist() == shown
    # nibabel's (X, Y, Z) in C order, as volume[mask > 0] gives it
    ids = np.concatenate([ids_of(1, 1), ids_of(1, 2)])
    np.testing.assert_allclose(betas[7], planted(ids)[..., 7][INSIDE] / 300, rtol=1e-6)
    assert trials.beta_unit == "percent signal change"


def test_every_format_gives_the_same_voxels_in_the_same_order(tmp_path):
    loaded = []
    for ending in ("hdf5", "nii", "nii.gz"):
        root = make(tmp_path / ending.replace(".", ""), (1,), ending)
        loaded.append(NSD(root, "study", norm="none").load("subj01"))
    assert len({trials.subject.voxels.hash for trials in loaded}) == 1
    for trials in loaded[1:]:
        np.testing.assert_array_equal(trials.betas[[5, 700, 5]], loaded[0].betas[[5, 700, 5]])


def test_hdf5_is_preferred_to_what_has_to_be_unpacked(tmp_path):
    root = make(tmp_path, (1,), "hdf5")
    for ending in ("nii.gz", "nii"):  # would be refused
        (betas_folder(root) / f"betas_session01.{ending}").write_bytes(b"")
    assert NSD(root, "study").load("subj01").betas[0].shape == (80,)
    (betas_folder(root) / "betas_session01.hdf5").unlink()
    with pytest.raises(UserError, match=r"betas_session01.nii is damaged or cut short"):
        NSD(root, "study").load("subj01")


def test_the_shared_images_are_test_for_everybody(shared):
    study = NSD(shared, "study")
    assert study.subjects() == ["subj01", "subj04"]
    tables = [study.load(subject).table for subject in study.subjects()]
    everybody = {f"nsd-{int(k) - 1:05d}" for k in DESIGN["sharedix"][0]}
    for table in tables:
        test = set(table["stimulus"][table["split"] == "test"])
        assert len(test) > 50
        assert test <= everybody
        assert not set(table["stimulus"][table["split"] == "train"]) & everybody
    # The shared images come at the same trials in everybody, the others never do.
    first, second = (table["stimulus"].to_numpy()[:750] for table in tables)
    np.testing.assert_array_equal(first == second, tables[0]["split"][:750] == "test")


def test_a_missing_session_takes_its_own_trials_away_and_no_others(shared):
    trials = NSD(shared, "study", norm="none").load("subj01")
    assert trials.table["session"].unique().tolist() == [1, 3]
    assert [f"nsd-{k - 1:05d}" for k in decode(trials.betas[:])] == trials.table[
        "stimulus"
    ].tolist()
    assert trials.table["trial"].tolist() == [*range(1, 751)] * 2
    counts = trials.table.groupby("stimulus").size()
    assert set(counts) == {1, 2, 3}
    for _, rows in trials.table.groupby("stimulus"):
        assert rows["repeat"].tolist() == list(range(len(rows)))


def test_incomplete_subjects_are_told_from_missing_files(shared):
    told = " ".join(NSD(shared, "study").remarks())
    assert "subj01: 2 of 40 sessions are here; the trials of session 2, 4-40 are left out" in told
    assert "subj04: 1 of 30 sessions are here; the trials of session 2-30 are left out" in told


def test_all_sessions_of_a_subject_who_came_for_30(tmp_path):
    root = make(tmp_path, (), subject=8)
    for session in range(1, 31):
        path = betas_folder(root, 8) / f"betas_session{session:02d}.hdf5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            file.create_dataset("betas", (750, *SHAPE[::-1]), np.int16, chunks=(750, 1, 1, 1))
    study = NSD(root, "study")
    trials = study.load("subj08")
    assert len(trials.table) == 22_500
    assert len(set(trials.table["stimulus"])) == len(set(DESIGN["masterordering"][0, :22_500]))
    assert any("subj08: all 30 sessions are here (the others" in s for s in study.remarks())
    (betas_folder(root, 8) / "betas_session31.hdf5").write_bytes(b"")
    with pytest.raises(UserError, match="session 31, but subj08 came for sessions 1 to 30: two"):
        NSD(root, "study")


def test_runs_are_those_of_the_responses_or_of_the_design(tmp_path):
    root = make(tmp_path, (1, 2))
    runs = NSD(root, "study").load("subj01").table["run"].to_numpy().reshape(2, 750)
    assert np.bincount(runs[1])[1:].tolist() == [63, 62] * 6
    assert (np.diff(runs, axis=1) >= 0).all()
    other = np.tile(np.repeat(np.arange(12) + 1, [62, 63] * 6), 2)
    trial = np.tile(np.concatenate([np.arange(k) + 1 for k in [62, 63] * 6]), 2)
    save_responses(root, 1, (1, 2), RUN=other, TRIAL=trial)
    np.testing.assert_array_equal(NSD(root, "study").load("subj01").table["run"], other)


# ---------------------------------------------------------------------------------------- z-scores


def test_z_scores_come_from_the_training_trials_of_a_session(tmp_path):
    root = make(tmp_path, (1, 2))
    rng = np.random.default_rng(1)
    stored = rng.integers(-900, 900, (2, *SHAPE, 750), dtype=np.int16)
    stored[1, 2, 3, 1] = 0  # was not measured in session 2: a constant
    test = DESIGN["masterordering"][0, :1500].reshape(2, 750) <= 1000
    stored[..., :] += np.where(test, 5000, 0)[:, None, None, None].astype(np.int16)
    for i, values in enumerate(stored):
        save_betas(betas_folder(root), i + 1, values)
    stored[1, 2, 3, 1] = 0
    save_betas(betas_folder(root), 2, stored[1])
    trials = NSD(root, "study").load("subj01")
    assert trials.beta_unit == "z-score within session"
    found = trials.betas[:].reshape(2, 750, 80)
    for i in range(2):
        values = stored[i][INSIDE].T / 300  # (750, V)
        mean, sd = values[~test[i]].mean(axis=0), values[~test[i]].std(axis=0)
        expected = np.divide(values - mean, sd, out=np.zeros_like(values), where=sd > 0)
        np.testing.assert_allclose(found[i], expected, rtol=1e-4, atol=1e-4)
    dead = np.flatnonzero((np.argwhere(INSIDE) == (2, 3, 1)).all(axis=1))
    assert (found[1][:, dead] == 0).all()
    assert found[0][:, dead].std() > 0
    np.testing.assert_allclose(trials.betas[1400], found.reshape(1500, 80)[1400])


def test_a_session_is_read_once_for_all_its_test_trials(tmp_path, monkeypatch):
    root = make(tmp_path, (1, 2, 3))
    opened = []
    whole = nsd._hdf5_block
    monkeypatch.setattr(nsd, "_hdf5_block", lambda p, m: opened.append(p.name) or whole(p, m))
    monkeypatch.setattr(nsd, "BLOCK_BYTES", 1)  # only the last session is kept
    trials = NSD(root, "study").load("subj01")
    assert opened == []
    averages = [trials.average(stimulus) for stimulus in trials.stimuli("test")]
    assert sorted(opened) == [f"betas_session0{s}.hdf5" for s in (1, 2, 3)]
    rows = trials.betas[trials.rows("test", trials.stimuli("test")[3])]
    np.testing.assert_allclose(averages[3], rows.mean(axis=0), rtol=1e-5)
    trials.betas[trials.rows("train")[0]]  # a training trial needs its session again
    assert len(opened) == 4


# ----------------------------------------------------------------------------------- wrong numbers


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


def test_another_subjects_nsdgeneral_is_known_by_its_count(tmp_path):
    """13,039 voxels: the whole mask of subject 5 in the folder of subject 1."""
    root = make(tmp_path, ())
    folder = betas_folder(root)
    folder.mkdir(parents=True)
    (folder / "betas_session01.hdf5").write_bytes(b"")  # the ROI is looked at first
    mask = (np.arange(30 * 29 * 16) < 13_039).reshape(30, 29, 16).astype(np.float32)
    save_volume(roi_folder(root) / "nsdgeneral.nii.gz", mask)
    with pytest.raises(UserError, match=r"13,039 is subject 5's nsdgeneral at 1\.8 mm: two subj"):
        NSD(root, "study").load("subj01")


def test_another_subjects_volume_is_known_by_its_size(tmp_path):
    root = make(tmp_path, ())
    folder = betas_folder(root)
    folder.mkdir(parents=True)
    with h5py.File(folder / "betas_session01.hdf5", "w") as file:
        file.create_dataset("betas", (750, 78, 97, 79), np.int16, chunks=(750, 1, 1, 1))
    with pytest.raises(
        UserError, match=r"79 x 97 x 78 \(the size of subj05 .* ROIs of subj01 .* 6 x 7 x 5"
    ):
        NSD(root, "study").load("subj01")
    mask = np.zeros((79, 97, 78), np.float32)
    mask[5, 6, 7] = 1
    save_volume(roi_folder(root) / "nsdgeneral.nii.gz", mask)
    with pytest.raises(UserError, match=r"\(the size of subj05 at 1.8 mm\), not of subj01: two"):
        NSD(root, "study").load("subj01")


def test_the_axes_of_hdf5_are_matlabs(tmp_path):
    """Somebody's copy that h5py sees as (X, Y, Z, trials) is not taken for (trials, Z, Y, X)."""
    root = make(tmp_path)
    with h5py.File(betas_folder(root) / "betas_session01.hdf5", "w") as file:
        file["betas"] = planted(ids_of(1, 1))
    with pytest.raises(UserError, match=r"shape \(750, 5, 7, 6\) .*expected 750 trials"):
        NSD(root, "study").load("subj01")


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (
            lambda folder: save_betas(folder, 1, planted(ids_of(1, 1))[..., :749]),
            r"shape \(6, 7, 5, 749\) \(X, Y, Z, trials\), expected 750 trials",
        ),
        (
            lambda folder: save_betas(folder, 1, planted(ids_of(1, 1)).astype(np.float32)),
            "holds float32, expected int16",
        ),
        (
            lambda folder: save_betas(folder, 1, planted(ids_of(1, 1))[:, :, 1:]),
            "is 6 x 7 x 4, but the ROIs of subj01 in func1pt8mm are 6 x 7 x 5: spaces or two",
        ),
        (
            lambda folder: h5py.File(folder / "betas_session01.hdf5", "w").close(),
            "lacks the array betas",
        ),
    ],
)
def test_betas_of_another_kind_are_refused(tmp_path, write, sentence):
    root = make(tmp_path)
    write(betas_folder(root))
    with pytest.raises(UserError, match=sentence):
        NSD(root, "study").load("subj01")


def test_a_header_that_scales_is_refused(tmp_path):
    """Dividing by 300 what nibabel has already divided would be silent."""
    root = make(tmp_path, ())
    image = nib.Nifti1Image(planted(ids_of(1, 1)), AFFINE)
    image.header.set_slope_inter(1 / 300, 0)
    betas_folder(root).mkdir(parents=True)
    nib.save(image, betas_folder(root) / "betas_session01.nii.gz")
    with pytest.raises(UserError, match="is scaled by its header .* NSD's are not"):
        NSD(root, "study").load("subj01")


@pytest.mark.parametrize("ending", ["hdf5", "nii", "nii.gz"])
def test_a_session_cut_short_takes_one_sentence(tmp_path, ending):
    root = make(tmp_path, (1,), ending)
    path = betas_folder(root) / f"betas_session01.{ending}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(UserError, match=f"betas_session01.{ending} is damaged or cut short"):
        NSD(root, "study").load("subj01").betas[0]


def test_a_session_that_is_damaged_inside_takes_one_sentence(tmp_path):
    root = make(tmp_path)
    path = betas_folder(root) / "betas_session01.hdf5"
    with h5py.File(path, "w") as file:
        data = planted(ids_of(1, 1)).T
        file.create_dataset("betas", data=data, chunks=(750, 1, 1, 1), compression="gzip")
        places = [file["betas"].id.get_chunk_info(i) for i in range(210)]
    content = bytearray(path.read_bytes())
    for place in places:
        content[place.byte_offset : place.byte_offset + place.size] = bytes(place.size)
    path.write_bytes(content)
    with pytest.raises(UserError, match="betas_session01.hdf5 is damaged or cut short"):
        NSD(root, "study").load("subj01").betas[0]


def test_an_roi_cut_short_takes_one_sentence(tmp_path):
    root = make(tmp_path)
    path = roi_folder(root) / "nsdgeneral.nii.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:700]))
    with pytest.raises(UserError, match="nsdgeneral.nii.gz is damaged or cut short"):
        NSD(root, "study").load("subj01")


# ------------------------------------------------------------------------------------------ images


def save_images(root: Path, rows: dict[int, np.ndarray], shape=(73_000, 425, 425, 3)) -> Path:
    """Write ``imgBrick`` at full size; what is not written takes no room."""
    path = root / "nsddata_stimuli" / "stimuli" / "nsd" / "nsd_stimuli.hdf5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        bricks = file.create_dataset("imgBrick", shape, np.uint8, chunks=(1, *shape[1:]))
        for row, image in rows.items():
            bricks[row] = image
    return path


def test_an_image_is_its_row_counted_from_0(tmp_path):
    root = make(tmp_path)
    pictures = {}
    for row in (0, 41, 42, 43, 72_999):
        pictures[row] = np.full((425, 425, 3), row % 251, np.uint8)
        pictures[row][:100, :, 0] = 255  # red on top
    save_images(root, pictures)
    study = NSD(root, "study")
    for row, picture in pictures.items():
        found = study.image(f"nsd-{row:05d}")
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, picture)


def test_images_that_are_missing_or_of_another_shape_take_one_sentence(tmp_path):
    root = make(tmp_path)
    study = NSD(root, "study")
    with pytest.raises(UserError, match=r"nsd_stimuli.hdf5 is missing; it holds the images \(37"):
        study.image("nsd-00000")
    assert any("no picture can be shown" in sentence for sentence in study.remarks())
    path = save_images(root, {}, (73_000, 3, 9, 9))
    with pytest.raises(UserError, match=r"needs imgBrick of shape .* found \(73000, 3, 9, 9\)"):
        study.image("nsd-00000")
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(UserError, match="nsd_stimuli.hdf5 is damaged or cut short"):
        study.image("nsd-00000")
    for name in ("nsd-73000", "nsd-0", "nsd-000001", "73000", "nsd-00001\n"):
        with pytest.raises(UserError, match="has the stimuli nsd-00000 to nsd-72999, not"):
            study.image(name)


def test_stimuli_are_all_73000_with_their_place_in_coco(tmp_path):
    root = make(tmp_path)
    stimuli = NSD(root, "study").stimuli
    assert (len(stimuli), stimuli.index[0], stimuli.index[-1]) == (
        73_000,
        "nsd-00000",
        "nsd-72999",
    )
    assert set(stimuli["source"]) == {""}
    order = np.random.default_rng(0).permutation(73_000)  # joined by nsdId, never by row
    table = pd.DataFrame({"cocoId": order + 500, "cocoSplit": "train2017", "nsdId": order})
    path = root / "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
    table.assign(shared1000=False).to_csv(path)
    stimuli = NSD(root, "study").stimuli
    assert stimuli.loc["nsd-00042", "source"] == "COCO train2017 542"
    table.assign(nsdId=order + 1).to_csv(path)
    with pytest.raises(UserError, match="nsd_stim_info_merged.csv is damaged or not NSD's"):
        _ = NSD(root, "study").stimuli


# ------------------------------------------------------------------------------------- which betas


def test_the_best_betas_are_chosen_and_the_others_are_told(tmp_path):
    root = make(tmp_path)
    values = planted(ids_of(1, 1))
    for space, prep in (("func1pt8mm", "betas_fithrf"), ("func1mm", B3)):
        save_betas(betas_folder(root, 1, space, prep), 1, values)
    save_volume(roi_folder(root, 1, "func1mm") / "nsdgeneral.nii.gz", nsdgeneral())
    study = NSD(root, "study")
    assert (study.space, study.prep) == ("func1pt8mm", "b3")
    assert "b3 in func1pt8mm" in study.note
    told = " ".join(study.remarks())
    assert "Further betas are here: ?space=func1pt8mm&prep=b2 (subj01); ?space=func1mm" in told
    for chosen in ({"prep": "b2"}, {"prep": "betas_fithrf"}, {"space": "func1mm"}):
        assert NSD(root, "study", **chosen).load("subj01").betas.shape == (750, 80)
    hashes = {NSD(root, "s", space=s).load("subj01").subject.voxels.hash for s in nsd.SPACES
              if s != "fsaverage"}  # fmt: skip
    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"space": "MNI"}, "space is one of auto, func1pt8mm, func1mm, fsaverage; found 'MNI'"),
        ({"prep": "b4"}, "prep is one of auto, b3, b2, b1; found 'b4'"),
        ({"norm": "run"}, "norm is one of session, none; found 'run'"),
        ({"roi": "../../secret"}, "roi is the name of an ROI file, such as nsdgeneral; found"),
        ({"roi": "all"}, "roi=all is for space=fsaverage"),
        ({"prep": "b1"}, "no betas of space auto and preparation b1; choose among space=func1pt8"),
    ],
)
def test_options_that_are_not_on_offer(shared, options, sentence):
    with pytest.raises(UserError, match=sentence):
        NSD(shared, "study", **options)


def test_a_release_without_betas_says_which_can_be_read(tmp_path):
    root = make(tmp_path, ())
    folder = betas_folder(root, 1, "nativesurface")
    folder.mkdir(parents=True)
    (folder / "lh.betas_session01.hdf5").write_bytes(b"")
    assert NSD.recognise(root)
    with pytest.raises(UserError, match=r"holds no betas .* \(nativesurface and MNI cannot\)"):
        NSD(root, "study")


def test_it_is_recognised_by_its_folders(shared, tmp_path):
    for place in (shared, shared / "nsddata", shared / "nsddata_betas"):
        assert NSD.recognise(place)
        assert NSD(place, "study").subjects() == ["subj01", "subj04"]
    (tmp_path / "nsddata").mkdir()
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file", tmp_path / "nowhere", tmp_path / "nsddata"):
        assert NSD.recognise(place) is False
    with pytest.raises(UserError, match="does not hold NSD; give the folder that has nsddata and"):
        NSD(tmp_path, "study")


def test_people_without_betas_are_not_offered(shared):
    with pytest.raises(UserError, match="subjects subj01, subj04 in func1pt8mm, b3, not 'subj02'"):
        NSD(shared, "study").load("subj02")


# ---------------------------------------------------------------------------------- ROIs and ncsnr


def volume(*places: tuple[tuple[int, int, int], int]) -> np.ndarray:
    """Return an ROI volume: -1 outside, 0 in a slice of cortex without label, and values."""
    values = np.full(SHAPE, -1, np.float32)
    values[2] = 0
    for place, value in places:
        values[place] = value
    return values


def test_functional_rois_overlap_may_be_empty_and_never_hold_minus_1(tmp_path):
    root = make(tmp_path)
    folder = roi_folder(root)
    # PPA: three voxels, of which two lie in nsdgeneral; V1v and PPA share one; RSC is nowhere.
    save_volume(
        folder / "floc-places.nii.gz", volume(((1, 2, 1), 2), ((1, 2, 2), 2), ((0, 0, 0), 2))
    )
    save_volume(folder / "lh.prf-visualrois.nii.gz", volume(((1, 2, 1), 1), ((1, 3, 1), 7)))
    save_volume(folder / "rh.prf-visualrois.nii.gz", volume(((4, 2, 1), 1)))
    save_volume(folder / "prf-visualrois.nii.gz", volume(((4, 4, 4), 3)))  # split files win
    study = NSD(root, "study")
    voxels = study.load("subj01").subject.voxels
    atlas = voxels.parcellations["ROIs"]
    assert atlas.kind == "masks"
    keys = [label.key for label in atlas.labels]
    assert keys[:2] == ["V1v L", "V1v R"]
    assert keys[-3:] == ["OPA", "PPA", "RSC"]
    places = np.argwhere(INSIDE).tolist()
    members = {key: np.flatnonzero(row).tolist() for key, row in zip(keys, atlas.membership)}  # noqa: B905
    assert members["PPA"] == [places.index([1, 2, 1]), places.index([1, 2, 2])]
    assert members["V1v L"] == [places.index([1, 2, 1])]
    assert members["V1v R"] == [places.index([4, 2, 1])]
    assert members["hV4 L"] == [places.index([1, 3, 1])]
    assert members["RSC"] == members["V2v L"] == []
    told = " ".join(study.remarks())
    assert "voxels of each ROI in nsdgeneral: V1v 2 of 2," in told
    assert "PPA 2 of 3, RSC 0 of 0" in told


def test_streams_reach_out_of_nsdgeneral_and_can_be_read_themselves(tmp_path):
    root = make(tmp_path)
    save_volume(
        roi_folder(root) / "streams.nii.gz",
        volume(((1, 2, 1), 1), ((5, 6, 4), 1), ((5, 5, 4), 5), ((1, 4, 3), 5)),
    )
    study = NSD(root, "study")
    atlas = study.load("subj01").subject.voxels.parcellations["streams"]
    assert atlas.kind == "partition"
    assert [label.name for label in atlas.labels] == ["early", "ventral"]
    assert np.bincount(atlas.membership + 1).tolist() == [78, 1, 1]
    assert any("streams early 1 of 2, streams ventral 1 of 2" in s for s in study.remarks())
    trials = NSD(root, "study", roi="streams", norm="none").load("subj01")
    space = trials.subject.voxels
    assert space.n_voxels == 4
    assert space.parcellations["streams"].membership.tolist() == [0, 1, 1, 0]
    assert space.parcellations["nsdgeneral"].membership.tolist() == [0, 0, -1, -1]
    order = [(1, 2, 1), (1, 4, 3), (5, 5, 4), (5, 6, 4)]
    expected = [planted(ids_of(1, 1))[(*place, 3)] / 300 for place in order]
    np.testing.assert_allclose(trials.betas[3], expected, rtol=1e-6)


def test_hcp_numbers_repeat_on_both_sides_and_stay_apart(tmp_path):
    root = make(tmp_path)
    folder = roi_folder(root)
    save_volume(folder / "lh.HCP_MMP1.nii.gz", volume(((1, 2, 1), 1), ((1, 3, 1), 4)))
    save_volume(folder / "rh.HCP_MMP1.nii.gz", volume(((4, 2, 1), 1), ((4, 3, 1), 180)))
    label = root / "nsddata/freesurfer/fsaverage/label"
    label.mkdir(parents=True)
    (label / "HCP_MMP1.mgz.ctab").write_text("0 Unknown\n1 V1\n4 V2 10 20 30 0\n")
    atlas = NSD(root, "study").load("subj01").subject.voxels.parcellations["HCP_MMP1"]
    keys = [label.key for label in atlas.labels]
    assert keys == ["V1 L", "V2 L", "V1 R", "HCP_MMP1 180 R"]
    assert [label.colour for label in atlas.labels][:2] == [(128, 128, 128), (10, 20, 30)]
    assert np.bincount(atlas.membership + 1).tolist() == [76, 1, 1, 1, 1]
    (label / "HCP_MMP1.mgz.ctab").write_text("V1 one\n")
    with pytest.raises(UserError, match="HCP_MMP1.mgz.ctab needs lines of a number and a name"):
        NSD(root, "study").load("subj01")


def test_an_roi_that_is_missing_is_named_with_what_is_there(tmp_path):
    root = make(tmp_path)
    save_volume(roi_folder(root) / "streams.nii.gz", volume(((1, 2, 1), 1)))
    with pytest.raises(UserError, match=r"no Kastner2015.nii.gz.* one of streams, nsdgeneral"):
        NSD(root, "study", roi="Kastner2015").load("subj01")


def test_rois_of_another_space_are_refused(tmp_path):
    root = make(tmp_path)
    save_volume(roi_folder(root) / "streams.nii.gz", np.ones((9, 9, 9), np.float32))
    with pytest.raises(UserError, match="streams is 9 x 9 x 9, but nsdgeneral is 6 x 7 x 5"):
        NSD(root, "study").load("subj01")


def test_ncsnr_follows_the_voxels_and_what_was_not_measured_is_left_out(tmp_path):
    root = make(tmp_path)
    before = NSD(root, "study", norm="none")
    assert before.load("subj01").subject.ncsnr is None
    assert any("ncsnr.nii.gz is missing" in sentence for sentence in before.remarks())
    values = (BASE / 1000).astype(np.float32)
    values[0] = np.nan  # outside the ROI
    values[2, 3, 1] = values[3, 3, 1] = np.nan
    save_volume(betas_folder(root) / "ncsnr.nii.gz", values)
    study = NSD(root, "study", norm="none")
    trials = study.load("subj01")
    keep = INSIDE & np.isfinite(values)
    np.testing.assert_allclose(trials.subject.ncsnr, values[keep])
    assert trials.subject.voxels.n_voxels == 78
    np.testing.assert_array_equal(trials.subject.voxels.mask, keep)
    expected = planted(ids_of(1, 1))[..., 9][keep] / 300
    np.testing.assert_allclose(trials.betas[9], expected, rtol=1e-6)
    assert trials.subject.voxels.hash != before.load("subj01").subject.voxels.hash
    assert any("2 of 80 voxels of nsdgeneral are not numbers" in s for s in study.remarks())
    save_volume(betas_folder(root) / "ncsnr.nii.gz", values[1:])
    with pytest.raises(UserError, match="ncsnr.nii.gz is 5 x 7 x 5, but the ROIs of subj01"):
        NSD(root, "study").load("subj01")


# ----------------------------------------------------------------------------- places on the brain


def save_native(root: Path, layers: tuple[str, ...] = ("layerB2",)) -> dict[str, np.ndarray]:
    """Write transforms of a surface of 50 native vertices; return native of each fsaverage vertex.

    Fsaverage vertex j lies at native vertex j % 50. Native vertex n of the left hemisphere lies,
    counted from 1, at voxel (2, 3, 2) + (n / 50, 0, 0), the right one at (5, 6, 4), but vertices
    48 and 49 lie nowhere.
    """
    folder = root / "nsddata/ppdata/subj01/transforms"
    native = np.arange(FSAVERAGE) % 50
    for h, place in (("lh", (2, 3, 2)), ("rh", (5, 6, 4))):
        save_surface(folder / f"{h}.white-to-fsaverage.mgz", native[:, None, None] + 1)
        at = np.tile(np.array(place, float), (50, 1))
        if h == "lh":
            at[:, 0] += np.arange(50) / 50
        at[48:] = 9999
        for i, layer in enumerate(layers):  # deeper layers lie 0.5 voxels further in y
            shifted = np.where(at == 9999, at, at + [0, 0.5 * i, 0])
            path = folder / f"{h}.func1pt8-to-{layer}.mgz"
            save_surface(path, shifted[:, None, None, :])
    return {"lh": native, "rh": native}


def test_volumes_reach_fsaverage5_between_voxels(tmp_path):
    root = make(tmp_path)
    save_native(root)
    study = NSD(root, "study")
    voxels = study.load("subj01").subject.voxels
    projection = voxels.projection.toarray()
    assert projection.shape == (20_484, 80)
    places = np.argwhere(INSIDE).tolist()
    # Counted from 0: vertex 10 lies at (1.2, 2, 1), between (1, 2, 1) and (2, 2, 1).
    first, second = places.index([1, 2, 1]), places.index([2, 2, 1])
    for vertex in (10, 60, 10_210):
        row = projection[vertex]
        assert np.flatnonzero(row).tolist() == [first, second]
        np.testing.assert_allclose(row[[first, second]], [0.8, 0.2], rtol=1e-5)
    assert np.flatnonzero(projection[0]).tolist() == [first]
    right = places.index([4, 5, 3])
    assert np.flatnonzero(projection[10_242 + 7]).tolist() == [right]
    nowhere = np.arange(10_242) % 50 >= 48
    assert (projection[:10_242][nowhere] == 0).all()
    sums = projection.sum(axis=1)
    assert ((np.abs(sums - 1) < 1e-5) | (sums == 0)).all()
    assert "Desikan-Killiany" in voxels.parcellations
    told = " ".join(study.remarks())
    assert "3 of 80 voxels reach the surface" in told
    assert "for want of nsddata/freesurfer/fsaverage/surf/lh.sphere" in told


def test_only_voxels_that_are_read_have_weight(tmp_path):
    root = make(tmp_path)
    mask = np.zeros(SHAPE, np.float32)
    mask[2, 2, 1] = mask[4, 4, 4] = 1
    save_volume(roi_folder(root) / "nsdgeneral.nii.gz", mask)
    save_native(root)
    projection = NSD(root, "study").load("subj01").subject.voxels.projection.toarray()
    np.testing.assert_allclose(projection[10], [1, 0])  # 0.2 of it is read, and made whole
    assert (projection[0] == 0).all()  # lies at (1, 2, 1) alone


def test_depths_are_averaged(tmp_path):
    root = make(tmp_path)
    save_native(root, ("layerB1", "layerB2", "layerB3"))
    projection = NSD(root, "study").load("subj01").subject.voxels.projection.toarray()
    places = np.argwhere(INSIDE).tolist()
    here, there = places.index([1, 2, 1]), places.index([1, 3, 1])
    np.testing.assert_allclose(projection[0][[here, there]], [0.5, 0.5], rtol=1e-5)


def save_spheres(root: Path) -> np.ndarray:
    """Write fsaverage's spheres; return for each vertex the nearest of the first 10,242."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((10_242, 3))
    points *= 100 / np.linalg.norm(points, axis=1, keepdims=True)
    nearest = np.r_[np.arange(10_242), rng.integers(0, 10_242, FSAVERAGE - 10_242)]
    folder = root / "nsddata/freesurfer/fsaverage/surf"
    folder.mkdir(parents=True, exist_ok=True)
    for h in ("lh", "rh"):
        nib.freesurfer.write_geometry(
            folder / f"{h}.sphere", points[nearest], np.array([[0, 1, 2]])
        )
    return nearest


def test_the_spheres_give_every_fsaverage_vertex_a_place(tmp_path):
    root = make(tmp_path)
    save_native(root)
    nearest = save_spheres(root)
    study = NSD(root, "study")
    voxels = study.load("subj01").subject.voxels
    projection = voxels.projection.toarray()
    vertex = 123
    own = np.flatnonzero(nearest == vertex) % 50
    own = own[own < 48]
    places = np.argwhere(INSIDE).tolist()
    expected = np.zeros(80)
    expected[places.index([1, 2, 1])] = np.mean(1 - own / 50)
    expected[places.index([2, 2, 1])] = np.mean(own / 50)
    np.testing.assert_allclose(projection[vertex], expected, rtol=1e-4)
    assert "sphere" not in " ".join(study.remarks())


def test_missing_transforms_are_named(tmp_path):
    root = make(tmp_path)
    study = NSD(root, "study")
    assert study.load("subj01").subject.voxels.projection is None
    told = " ".join(study.remarks())
    folder = "nsddata/ppdata/subj01/transforms"
    for name in ("lh.white-to-fsaverage.mgz", "rh.func1pt8-to-layerB2.mgz"):
        assert f"{folder}/{name}" in told
    save_native(root)
    (root / folder / "rh.func1pt8-to-layerB2.mgz").unlink()
    study = NSD(root, "study")
    assert study.load("subj01").subject.voxels.projection is None
    (told,) = [s for s in study.remarks() if "no map on the brain" in s]
    assert f"for want of {folder}/rh.func1pt8-to-layerB2.mgz; take" in told


def test_transforms_of_another_subject_are_refused(tmp_path):
    root = make(tmp_path)
    save_native(root)
    folder = root / "nsddata/ppdata/subj01/transforms"
    save_surface(folder / "lh.func1pt8-to-layerB2.mgz", np.ones((40, 1, 1, 3)))
    with pytest.raises(UserError, match="has 40 native vertices, but .* asks for vertex 50: two"):
        NSD(root, "study").load("subj01")
    save_surface(folder / "lh.white-to-fsaverage.mgz", np.zeros((FSAVERAGE, 1, 1)))
    with pytest.raises(UserError, match="counted from 1, for each of 163842, found .* down to 0"):
        NSD(root, "study").load("subj01")


# --------------------------------------------------------------------------------------- fsaverage


def save_hemisphere(folder: Path, h: str, session: int, trials: dict[int, np.ndarray]) -> Path:
    """Write ``.mgh`` betas at full size, of which only some trials take room on disk."""
    path = folder / f"{h}.betas_session{session:02d}.mgh"
    folder.mkdir(parents=True, exist_ok=True)
    header = nib.MGHImage(np.zeros((1, 1, 1, 1), np.float32), np.eye(4)).header
    header["dims"] = (FSAVERAGE, 1, 1, 750)
    with open(path, "wb") as file:
        file.write(header.binaryblock[:284].ljust(284, b"\0"))
        file.truncate(284 + 4 * FSAVERAGE * 750)
        for trial, values in trials.items():
            file.seek(284 + 4 * FSAVERAGE * trial)
            file.write(values.astype(">f4").tobytes())
    return path


VERTEX = np.arange(FSAVERAGE, dtype=np.float32)


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return session 2 on fsaverage: left betas are vertex + trial, right ones are negative."""
    root = tmp_path_factory.mktemp("fsaverage")
    save_design(root)
    folder = betas_folder(root, 1, "fsaverage")
    for h, sign in (("lh", 1), ("rh", -1)):
        trials = {t: sign * (VERTEX / 1000 + t) for t in (0, 5, 749)}
        save_hemisphere(folder, h, 2, trials)
        labels = np.where(VERTEX % 3 == 0, -1, 0)
        labels[[7, 20_000] if h == "lh" else [3, 12_000]] = 1
        label = root / "nsddata/freesurfer/fsaverage/label"
        save_surface(label / f"{h}.nsdgeneral.mgz", labels[:, None, None])
    save_hemisphere(folder, "lh", 3, {})
    return root


def test_surfaces_are_read_left_then_right_as_they_are(surfaces):
    study = NSD(surfaces, "study", norm="none")
    assert study.space == "fsaverage"
    trials = study.load("subj01")
    assert trials.table["session"].unique().tolist() == [2]
    betas = trials.betas[[749, 5, 749]]
    expected = [[0.007 + t, 20 + t, -0.003 - t, -12 - t] for t in (749, 5, 749)]
    np.testing.assert_allclose(betas, expected, rtol=1e-5)  # percent: never divided by 300
    assert trials.table["stimulus"].iloc[5] == f"nsd-{ids_of(1, 2)[5] - 1:05d}"
    assert trials.subject.voxels.mask is None


def test_a_session_that_lacks_a_hemisphere_is_left_out(surfaces):
    told = " ".join(NSD(surfaces, "study").remarks())
    assert "session 3 lacks rh.betas_session03.mgh and is left out" in told


def test_surfaces_reach_fsaverage5_by_index(surfaces):
    study = NSD(surfaces, "study", norm="none")
    projection = study.load("subj01").subject.voxels.projection
    assert projection.shape == (20_484, 4)
    rows, columns = projection.nonzero()
    assert (rows.tolist(), columns.tolist()) == ([7, 10_242 + 3], [0, 2])
    told = " ".join(study.remarks())
    assert "what lies between the vertices of fsaverage5 has no place, for want of" in told


def test_all_vertices_can_be_read(surfaces):
    trials = NSD(surfaces, "study", roi="all", norm="none").load("subj01")
    assert trials.betas.shape == (750, 2 * FSAVERAGE)
    row = trials.betas[749]
    np.testing.assert_allclose(row[[0, 1000, FSAVERAGE]], [749, 750, -749])
    projection = trials.subject.voxels.projection
    assert projection.nnz == 20_484
    assert projection.indices[10_241:10_243].tolist() == [10_241, FSAVERAGE]


def test_labels_of_the_native_surface_are_carried_over(surfaces, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(surfaces, root, symlinks=True, copy_function=link)
    label = root / "nsddata/freesurfer/subj01/label"
    for h in ("lh", "rh"):
        values = np.full(50, -1.0)
        values[7 if h == "lh" else 3] = 2  # FFA-1, at fsaverage vertices 7, 57 ... and 3, 53 ...
        save_surface(label / f"{h}.floc-faces.mgz", values[:, None, None])
    assert "ROIs" not in NSD(root, "study").load("subj01").subject.voxels.parcellations
    save_native(root)
    atlas = NSD(root, "study").load("subj01").subject.voxels.parcellations["ROIs"]
    keys = [label.key for label in atlas.labels]
    assert atlas.membership[keys.index("FFA-1 L")].tolist() == [True, False, False, False]
    assert atlas.membership[keys.index("FFA-1 R")].tolist() == [False, False, True, False]


def link(source: str, target: str) -> None:
    Path(target).symlink_to(source)


def test_vertices_that_are_not_numbers_are_left_out(surfaces, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(surfaces, root, symlinks=True, copy_function=link)
    path = betas_folder(root, 1, "fsaverage") / "rh.betas_session02.mgh"
    path.unlink()
    values = -VERTEX / 1000
    values[12_000] = np.nan
    save_hemisphere(path.parent, "rh", 2, {0: values})
    study = NSD(root, "study", norm="none")
    np.testing.assert_allclose(study.load("subj01").betas[0], [0.007, 20, -0.003], rtol=1e-5)
    assert any("1 of 4 voxels of nsdgeneral are not numbers" in s for s in study.remarks())
    # ncsnr, where it is, says which were measured in every session
    for h in ("lh", "rh"):
        snr = np.where(VERTEX == (7 if h == "lh" else 12_000), np.nan, 0.5)
        save_surface(path.parent / f"{h}.ncsnr.mgh", snr[:, None, None])
    subject = NSD(root, "study", norm="none").load("subj01").subject
    assert subject.ncsnr.tolist() == [0.5, 0.5]


def test_surfaces_of_another_size_or_cut_short_are_refused(surfaces, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(surfaces, root, symlinks=True, copy_function=link)
    path = betas_folder(root, 1, "fsaverage") / "rh.betas_session02.mgh"
    path.unlink()
    save_surface(path, np.zeros((10_242, 1, 1, 2)))
    with pytest.raises(UserError, match=r"holds float32 \(10242, 1, 1, 2\), expected float32"):
        NSD(root, "study").load("subj01")
    save_hemisphere(path.parent, "rh", 2, {})
    with open(path, "r+b") as file:
        file.truncate(10_000_000)
    with pytest.raises(UserError, match=r"damaged or cut short \(10000000 of 491526284 bytes\)"):
        NSD(root, "study").load("subj01")
    label = root / "nsddata/freesurfer/fsaverage/label/lh.nsdgeneral.mgz"
    label.unlink()
    with pytest.raises(UserError, match=r"no lh.nsdgeneral.mgz .* one of all"):
        NSD(root, "study").load("subj01")
    save_surface(label, np.ones((10_242, 1, 1)))
    with pytest.raises(UserError, match="labels 10242 vertices, expected fsaverage's 163842"):
        NSD(root, "study").load("subj01")

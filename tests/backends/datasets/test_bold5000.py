"""BOLD5000 in miniature, written from the release's facts, and its real presentation lists."""

import csv
import re
from collections import Counter
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import scipy.io
from PIL import Image

from backends.datasets import bold5000
from backends.datasets.bold5000 import BOLD5000
from explorer.types import UserError

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "bold5000_lists"
D = "CSI4_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR"
LONG = (1, 4, 9)  # the sessions of CSI4 that have ten runs
RUNS = [(s, r) for s in range(1, 10) for r in range(1, 11 if s in LONG else 10)]
SESSION = np.repeat([s for s, _ in RUNS], 37)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def csi4_list() -> list[str]:
    """3,108 names: 106 repeated images as often as CSI4 saw them, ``rep_`` on all but one."""
    rng = np.random.default_rng(0)
    often = np.repeat([1, 2, 3, 4, 5], [16, 39, 37, 13, 1])
    names, marked = [], []
    for image, times in enumerate(often):
        plain = rng.integers(times)  # which presentation is the one without rep_
        for time in range(times):
            names.append(REPEATED[image])
            marked.append(bool(times > 1 and time != plain))
    single = [f"COCO_train2014_{i:012d}.jpg" for i in range(1000, 2800)]
    single += [f"n{i:08d}_{i}.JPEG" for i in range(2000, 3038)]
    single += ["nursery1.jpg", "nightclub12.jpg", "banquetHall2.jpg", "church6.jpg"]
    single += [f"n{i:08d}_7.jpeg" for i in range(9000, 9004)]
    names += single
    marked += [False] * len(single)
    order = rng.permutation(len(names))
    return ["rep_" * marked[i] + names[i] for i in order]


REPEATED = [f"COCO_train2014_{i:012d}.jpg" for i in range(45)]
REPEATED += [f"n{i:08d}_{i}.JPEG" for i in range(45)] + [f"scene{i}.jpg" for i in range(23)]
LIST = csi4_list()
STEMS = [name.removeprefix("rep_").rpartition(".")[0] for name in LIST]


def write_lists(root: Path, who: str = "CSI4") -> Path:
    """Write the presentation lists in folders, and the list of 113."""
    lists = root / "BOLD5000_Stimuli" / "Stimuli_Presentation_Lists" / who
    for i, (session, run) in enumerate(RUNS):
        folder = lists / f"{who}_sess{session:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        text = "\n".join(LIST[37 * i : 37 * i + 37]) + "\n"
        (folder / f"{who}_sess{session:02d}_run{run:02d}.txt").write_text(text)
    scenes = root / "BOLD5000_Stimuli" / "Scene_Stimuli"
    scenes.mkdir(exist_ok=True)
    (scenes / "repeated_stimuli_113_list.txt").write_text("\n".join(REPEATED) + "\n")
    return lists


WIDTHS = {"EarlyVis": 3, "LOC": 2, "OPA": 1, "PPA": 1, "RSC": 1}


def array(roi: str, side: str, width: int) -> np.ndarray:
    """Float64 (3108, width): a session's mean and a column's own noise; stands for its file."""
    rng = np.random.default_rng([ord(c) for c in side + roi])
    return SESSION[:, None] * 10 + rng.standard_normal((len(LIST), width))


def write_rois(root: Path, stem: str = D, **replace) -> Path:
    folder = root / "BOLD5000_GLMsingle_ROI_betas" / "py"
    folder.mkdir(parents=True, exist_ok=True)
    for roi, width in WIDTHS.items():
        for side in ("LH", "RH"):
            values = replace.get(side + roi, array(roi, side, width))
            if values is not None:
                np.save(folder / f"{stem}_allses_{side}{roi}.npy", values)
    return folder


@pytest.fixture(scope="module")
def mindvis(tmp_path_factory) -> Path:
    """MinD-Vis's folder with CSI4 in it; tests read it and write elsewhere."""
    root = tmp_path_factory.mktemp("BOLD5000")
    write_lists(root)
    write_rois(root)
    shown = root / "BOLD5000_Stimuli" / "Scene_Stimuli" / "Presented_Stimuli"
    original = shown.parent / "Original_Images" / "Scene"
    for folder in (original, *(shown / f for f in ("COCO", "ImageNet", "Scene"))):
        folder.mkdir(parents=True)
    Image.new("RGB", (5, 4), "red").save(shown / "COCO" / "COCO_train2014_000000001000.jpg")
    Image.new("L", (4, 4), 200).save(shown / "ImageNet" / "n00009000_7.JPEG")
    Image.new("RGB", (4, 4), "blue").save(shown / "Scene" / "banquethall2.JPG", format="jpeg")
    Image.new("RGB", (9, 9), "white").save(original / "banquetHall2.jpg")
    np.save(shown / "img_dict.npy", {"a": np.zeros(2)}, allow_pickle=True)
    labels = root / "BOLD5000_Stimuli" / "Image_Labels"
    labels.mkdir()
    (labels / "imagenet_final_labels.txt").write_text("n00009000 desk, writing desk\n")
    return root


def copy(mindvis: Path, root: Path) -> Path:
    """Copy the text files and arrays, to be spoilt."""
    for file in mindvis.rglob("*"):
        if file.suffix in (".txt", ".npy") and file.name != "img_dict.npy":
            target = root / file.relative_to(mindvis)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return root


# -------------------------------------------------------------------------------- the real lists


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> BOLD5000:
    if not SHARED.is_dir():
        pytest.skip("bold5000_lists is not in ../shared/data")
    root = tmp_path_factory.mktemp("real")
    for who, n in zip(bold5000.PEOPLE, (5254, 5254, 5254, 3108), strict=True):
        (root / f"{who}_imgnames.txt").write_text((SHARED / f"sub-{who}_imgnames.txt").read_text())
        betas = np.random.default_rng(n).standard_normal((n, 2)).astype(np.float32)
        np.save(root / f"{who}{D[4:]}_allses_LHPPA.npy", betas)
    return BOLD5000(root, "bold5000")


def test_real_lists_have_the_trials_and_repeats_of_the_paper(real):
    assert real.subjects() == ["CSI1", "CSI2", "CSI3", "CSI4"]
    assert len(real.stimuli) == 4916
    assert dict(real.stimuli["category"].value_counts()) == {
        "COCO": 2000,
        "ImageNet": 1916,
        "Scene": 1000,
    }
    expected = {
        "CSI1": (5254, 15, {4: 112, 3: 1}),
        "CSI2": (5254, 15, {4: 112, 3: 1}),
        "CSI3": (5254, 15, {4: 107, 5: 3, 3: 2, 2: 1}),
        "CSI4": (3108, 9, {1: 16, 2: 39, 3: 37, 4: 13, 5: 1}),
    }
    for who, (trials, sessions, repeats) in expected.items():
        table = real.load(who).table
        assert (len(table), table["session"].max()) == (trials, sessions)
        test = table[table["split"] == "test"]["stimulus"]
        assert Counter(test.value_counts()) == repeats
        train = table[table["split"] == "train"]["stimulus"]
        assert train.is_unique
        assert not set(train) & set(test)
        runs = table.groupby(["session", "run"]).size()
        assert (runs == 37).all()
        assert len(runs) == trials // 37
    assert len(train) == 2846


def test_a_stimulus_that_is_test_for_one_is_test_for_all(real):
    test = {w: set(real.load(w).stimuli("test")) for w in real.subjects()}
    assert [len(names) for names in test.values()] == [113, 113, 113, 106]
    assert test["CSI4"] < test["CSI1"] == test["CSI2"] == test["CSI3"]
    kinds = Counter(real.stimuli["category"][sorted(test["CSI1"])])
    assert kinds == {"COCO": 45, "ImageNet": 45, "Scene": 23}
    assert not [r for r in real.remarks() if "can be told from these lists" in r]


def test_csi4_alone_says_that_its_lists_show_too_few_repeats(tmp_path):
    if not SHARED.is_dir():
        pytest.skip("bold5000_lists is not in ../shared/data")
    text = (SHARED / "sub-CSI4_imgnames.txt").read_text()
    (tmp_path / "sub-CSI4_imgnames.txt").write_text(text)
    write_rois(tmp_path)
    alone = BOLD5000(tmp_path, "b")
    assert len(alone.load("CSI4").stimuli("test")) == 90
    assert any(r.startswith("Only 90 of the 113 repeated images") for r in alone.remarks())


@pytest.mark.parametrize("run", [1, 2, 3, 4, 10])
def test_runs_of_the_list_are_the_runs_of_the_real_events(real, run):
    """Run 10 is the tenth: sorted as text it would be the second."""
    with open(SHARED / f"sub-1_ses-1_run{run}_5000scenes.tsv", newline="") as file:
        shown = [row["ImgName"] for row in csv.DictReader(file, delimiter="\t")]
    table = real.load("CSI1").table
    rows = table[(table["session"] == 1) & (table["run"] == run)]
    assert real.stimuli["file"][rows["stimulus"]].tolist() == shown


# ----------------------------------------------------------------------------------- ROI arrays


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


# --------------------------------------------------------------------------------------- images


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


# ------------------------------------------------------------------------------------- bad input


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


def spoil(root: Path, name: str, change) -> None:
    file = next(root.rglob(name))
    file.write_bytes(change(file.read_bytes()))


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


def test_a_list_of_another_subject_is_told_by_its_length_or_its_order(tmp_path):
    write_rois(tmp_path)
    (tmp_path / "CSI1_imgnames.txt").write_text("\n".join(LIST))
    with pytest.raises(UserError, match="lists 3108 trials, the count of CSI4, expected 5254 for"):
        BOLD5000(tmp_path, "b").load("CSI4")
    long = "\n".join([*LIST, *(f"more{i}.jpg" for i in range(5254 - len(LIST)))])
    for who in ("CSI1", "CSI2"):
        (tmp_path / f"{who}_imgnames.txt").write_text(long)
    with pytest.raises(UserError, match="lists of CSI1 and CSI2 are the same.*files are mixed"):
        BOLD5000(tmp_path, "b").load("CSI4")


def test_betas_without_lists_say_where_lists_come_from(tmp_path):
    write_rois(tmp_path)
    with pytest.raises(UserError, match="no presentation list.*Stimuli_Presentation_Lists"):
        BOLD5000(tmp_path, "b").load("CSI4")
    assert "no presentation list" in " ".join(BOLD5000(tmp_path, "b").remarks())


# -------------------------------------------------------------------------------------- volumes

SHAPE = (5, 4, 3)


@pytest.fixture(autouse=True)
def small_volumes(monkeypatch):
    """Make CSI4's volumes small: 436,100 voxels a trial are no test."""
    monkeypatch.setitem(bold5000.PEOPLE, "CSI4", bold5000.PEOPLE["CSI4"]._replace(shape=SHAPE))


def volume(session: int) -> np.ndarray:
    """Float32 (X, Y, Z, trials): the trial's number and each voxel's own noise; a NaN border."""
    rng = np.random.default_rng(session)
    n = int((SESSION == session).sum())
    values = rng.standard_normal((*SHAPE, n)) + 5 * session
    values[0] = np.nan  # outside of the head, as GLMsingle leaves it
    values[1, 0] = 0
    return values.astype(np.float32)


def write_volumes(root: Path, sessions=(1, 5), ending: str = "nii.gz", **replace) -> None:
    for session in sessions:
        image = nibabel.Nifti1Image(replace.get(f"s{session}", volume(session)), AFFINE)
        nibabel.save(image, root / f"{D}_ses-{session:02d}.{ending}")


@pytest.fixture
def volumes(tmp_path) -> Path:
    write_lists(tmp_path)
    write_volumes(tmp_path)
    brain = np.ones(SHAPE, np.uint8)
    brain[-1] = 0
    nibabel.save(nibabel.Nifti1Image(brain, AFFINE), tmp_path / "CSI4_brainmask.nii.gz")
    masks = tmp_path / "derivatives" / "spm" / "sub-CSI4"
    masks.mkdir(parents=True)
    loc = np.zeros(SHAPE, np.int16)
    loc[2, 1, :2] = 1
    nibabel.save(nibabel.Nifti1Image(loc, AFFINE), masks / "sub-CSI4_mask-LHLOC.nii.gz")
    return tmp_path


def test_the_published_shapes_of_the_volumes(monkeypatch):
    monkeypatch.undo()
    shapes = [(71, 89, 72), (72, 92, 70), (72, 88, 67), (70, 89, 70)]
    assert [person.shape for person in bold5000.PEOPLE.values()] == shapes


@pytest.mark.parametrize("ending", ["nii.gz", "nii"])
def test_volumes_are_read_within_the_mask(volumes, ending):
    for file in volumes.glob("*_ses-*"):
        file.unlink()
    write_volumes(volumes, ending=ending)
    trials = BOLD5000(volumes, "b", norm="none").load("CSI4")
    voxels = trials.subject.voxels
    mask = np.ones(SHAPE, bool)
    mask[0] = mask[-1] = mask[1, 0] = False
    np.testing.assert_array_equal(voxels.mask, mask)
    np.testing.assert_array_equal(voxels.affine, AFFINE)
    assert voxels.projection is None
    assert trials.table["session"].unique().tolist() == [1, 5]
    assert trials.table["stimulus"].tolist() == [
        s for s, n in zip(STEMS, SESSION, strict=True) if n in (1, 5)
    ]
    for row, session, trial in ((0, 1, 0), (369, 1, 369), (370, 5, 0), (702, 5, 332)):
        np.testing.assert_array_equal(trials.betas[row], volume(session)[mask][:, trial])
    some = trials.betas[[700, 3, 400]]
    np.testing.assert_array_equal(some[1], volume(1)[mask][:, 3])


def test_volumes_are_z_scored_within_session_from_training_trials(volumes):
    trials = BOLD5000(volumes, "b", source="volume").load("CSI4")
    betas, table = trials.betas[:], trials.table
    for session in (1, 5):
        rows = ((table["session"] == session) & (table["split"] == "train")).to_numpy()
        np.testing.assert_allclose(betas[rows].mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(betas[rows].std(axis=0), 1, atol=1e-4)
    for _, rows in table.groupby(["stimulus", "split"]):
        assert rows["repeat"].tolist() == list(range(len(rows)))


def test_region_masks_lie_over_the_volume(volumes):
    voxels = BOLD5000(volumes, "b").load("CSI4").subject.voxels
    rois = voxels.parcellations["ROIs"]
    assert (rois.kind, [label.key for label in rois.labels]) == ("masks", ["LOC L"])
    x, y, z = np.nonzero(voxels.mask)
    places = set(
        zip(x[rois.membership[0]], y[rois.membership[0]], z[rois.membership[0]], strict=True)
    )
    assert places == {(2, 1, 0), (2, 1, 1)}


def test_volumes_say_what_is_lacking_and_why_there_is_no_map(volumes):
    said = BOLD5000(volumes, "b").remarks()
    assert any("CSI4 lacks session 2, 3, 4, 6, 7, 8, 9, so these trials" in r for r in said)
    assert any("own space and are not drawn on fsaverage5: that needs" in r for r in said)
    assert any(r.startswith("CSI4: 15 voxels were left out") for r in said)
    assert any("gunzip them" in r for r in said)
    write_rois(volumes)
    assert (
        "There are volume betas too; open them with ?source=volume."
        in BOLD5000(volumes, "b").remarks()
    )


def test_without_a_mask_the_voxels_that_change_are_taken(volumes):
    (volumes / "CSI4_brainmask.nii.gz").unlink()
    dataset = BOLD5000(volumes, "b")
    mask = np.ones(SHAPE, bool)
    mask[0] = mask[1, 0] = False
    np.testing.assert_array_equal(dataset.load("CSI4").subject.voxels.mask, mask)
    assert any("CSI4 has no brain mask (CSI4_brainmask.nii.gz of" in r for r in dataset.remarks())


def test_a_header_without_position_is_told(volumes):
    image = nibabel.Nifti1Image(volume(1), AFFINE)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nibabel.save(image, volumes / f"{D}_ses-01.nii.gz")
    (volumes / f"{D}_ses-05.nii.gz").unlink()
    assert any("state no position (sform and qform" in r for r in BOLD5000(volumes, "b").remarks())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"s5": np.zeros((72, 92, 70, 2), np.uint8)},
            r"shape \(72, 92, 70, 2\), the volume of CSI2; expected \(5, 4, 3, 333\) for CSI4's "
            "session 5",
        ),
        ({"s5": volume(5)[..., :-1]}, r"has shape \(5, 4, 3, 332\); expected \(5, 4, 3, 333\)"),
        ({"s1": volume(5)}, r"shape \(5, 4, 3, 333\); expected \(5, 4, 3, 370\) .* session 1"),
    ],
)
def test_another_volume_is_refused(volumes, change, sentence):
    write_volumes(volumes, **change)
    with pytest.raises(UserError, match=sentence):
        BOLD5000(volumes, "b").load("CSI4")


def test_a_session_that_lies_elsewhere_is_refused(volumes):
    image = nibabel.Nifti1Image(volume(5), AFFINE + np.eye(4) * [0.5, 0, 0, 0])
    nibabel.save(image, volumes / f"{D}_ses-05.nii.gz")
    with pytest.raises(UserError, match="another affine.*two subjects' files are mixed"):
        BOLD5000(volumes, "b").load("CSI4")


def test_a_tenth_session_of_csi4_is_refused(volumes):
    (volumes / f"{D}_ses-05.nii.gz").rename(volumes / f"{D}_ses-10.nii.gz")
    with pytest.raises(UserError, match="ses-10.nii.gz: CSI4 has sessions 1 to 9"):
        BOLD5000(volumes, "b").load("CSI4")


@pytest.mark.parametrize("keep", [0, 100, 20_000])
def test_a_volume_cut_short_is_refused(volumes, keep):
    spoil(volumes, "*ses-05.nii.gz", lambda b: b[:keep])
    with pytest.raises(
        UserError, match="ses-05.nii.gz is .*cut short; download it again"
    ) as caught:
        np.asarray(BOLD5000(volumes, "b").load("CSI4").betas[[500]])
    assert "\n" not in str(caught.value)


def test_an_unpacked_volume_cut_short_is_refused(volumes):
    (volumes / f"{D}_ses-05.nii.gz").unlink()
    write_volumes(volumes, sessions=(5,), ending="nii")
    spoil(volumes, "*ses-05.nii", lambda b: b[:-400])
    with pytest.raises(UserError, match="ses-05.nii is .*cut short; download it again"):
        np.asarray(BOLD5000(volumes, "b").load("CSI4").betas[[-1]])


def test_a_mask_of_another_shape_is_refused(volumes):
    image = nibabel.Nifti1Image(np.ones((3, 3, 3), np.uint8), AFFINE)
    nibabel.save(image, volumes / "CSI4_brainmask.nii.gz")
    with pytest.raises(
        UserError, match=r"brainmask.nii.gz has shape \(3, 3, 3\), expected \(5, 4"
    ):
        BOLD5000(volumes, "b").load("CSI4")


# -------------------------------------------------------------------------------- ds001499 (BIDS)


def write_events(root: Path, change=lambda row: row) -> None:
    """Write events as ds001499 has them: CRLF, plain names, the repeat told by ``ImgType``."""
    kinds = {"C": "coco", "n": "imagenet"}
    for i, (session, run) in enumerate(RUNS):
        folder = root / "sub-CSI4" / f"ses-{session:02d}" / "func"
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"sub-CSI4_ses-{session:02d}_task-5000scenes_run-{run:02d}"
        lines = ["onset\tduration\tSubj\tSess\tRun\tTrial\tImgName\tImgType"]
        for trial, name in enumerate(LIST[37 * i : 37 * i + 37]):
            plain = name.removeprefix("rep_")
            kind = "rep_" * (name != plain) + kinds.get(plain[0], "scenes")
            row = [6 + 10 * trial, 1, 4, session, run, trial + 1, plain, kind]
            lines.append("\t".join(map(str, change(row))))
        (folder / f"{stem}_events.tsv").write_bytes("\r\n".join([*lines, ""]).encode())
    (folder / "sub-CSI4_ses-09_task-localizer_events.tsv").write_text("onset\tduration\n")


def test_the_raw_release_says_that_it_holds_no_betas(tmp_path):
    write_events(tmp_path)
    assert BOLD5000.recognise(tmp_path)
    with pytest.raises(UserError, match="ds001499.*no betas; download the betas .*GLMsingle"):
        BOLD5000(tmp_path, "b")


def test_betas_beside_the_raw_release_are_read_with_its_events_and_images(tmp_path):
    write_events(tmp_path)
    write_rois(tmp_path)
    (tmp_path / "stimuli").mkdir()
    Image.new("RGB", (3, 3), "red").save(tmp_path / "stimuli" / "church6.jpg")
    dataset = BOLD5000(tmp_path, "b")
    table = dataset.load("CSI4").table
    assert table["stimulus"].tolist() == STEMS
    assert table["session"].tolist() == SESSION.tolist()
    assert len(set(table["stimulus"][table["split"] == "test"])) == 90  # no list of 113 here
    assert dataset.image("church6").shape == (3, 3, 3)


def test_events_of_another_subject_are_refused(tmp_path):
    write_events(tmp_path, lambda row: [*row[:2], 3, *row[3:]])
    write_rois(tmp_path)
    with pytest.raises(
        UserError, match="holds trials of subject 3: two subjects' files are mixed"
    ):
        BOLD5000(tmp_path, "b").load("CSI4")


def test_release_one_is_told(tmp_path):
    (tmp_path / "CSI1_ROIs_TR34.mat").write_bytes(b"")
    assert BOLD5000.recognise(tmp_path)
    with pytest.raises(UserError, match=r"release 1 \(time points of ROIs.*release 2 on figshare"):
        BOLD5000(tmp_path, "b")


def test_only_its_own_folders_are_recognised(tmp_path, mindvis):
    assert BOLD5000.recognise(mindvis)
    assert BOLD5000.recognise(mindvis / "BOLD5000_GLMsingle_ROI_betas" / "py")
    doubled = tmp_path / "zip" / "BOLD5000_GLMsingle_ROI_betas" / "BOLD5000_GLMsingle_ROI_betas"
    write_rois(doubled.parent)
    assert BOLD5000.recognise(tmp_path / "zip")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "CSI4_notes.txt").write_text("")
    assert not BOLD5000.recognise(tmp_path / "other")
    assert not BOLD5000.recognise(tmp_path / "nowhere")
    assert not BOLD5000.recognise(tmp_path / "other" / "CSI4_notes.txt")
    with pytest.raises(UserError, match="other holds no betas of BOLD5000"):
        BOLD5000(tmp_path / "other", "b")

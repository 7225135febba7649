"""What was shown to BOLD5000's people: the real presentation lists, events of ds001499, harm."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backends.datasets import bold5000_files
from backends.datasets.bold5000 import BOLD5000
from explorer.types import UserError
from tests.miniatures.bold5000 import (
    LIST,
    SESSION,
    STEMS,
    D,
    write_events,
    write_mindvis,
    write_rois,
)

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "bold5000_lists"


@pytest.fixture(scope="module")
def mindvis(tmp_path_factory) -> Path:
    """MinD-Vis's folder; tests read it and write elsewhere."""
    return write_mindvis(tmp_path_factory.mktemp("BOLD5000"))


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> BOLD5000:
    if not SHARED.is_dir():
        pytest.skip("bold5000_lists is not in ../shared/data")
    root = tmp_path_factory.mktemp("real")
    for who, n in zip(bold5000_files.PEOPLE, (5254, 5254, 5254, 3108), strict=True):
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

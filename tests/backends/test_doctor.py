"""The doctor: silent about a healthy folder, one sentence for each thing wrong, hands off."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from backends.doctor import diagnose

V = 6


@pytest.fixture
def root(tmp_path) -> Path:
    """Two subjects who saw the same four pictures."""
    rng = np.random.default_rng(0)
    root = tmp_path / "study"
    (root / "stimuli").mkdir(parents=True)
    (root / "dataset.json").write_text(json.dumps({"title": "T"}))
    for i in range(4):
        picture = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(picture).save(root / "stimuli" / f"{i}.png")
    save(root / "stimuli" / "stimuli.tsv", {"file": [f"{i}.png" for i in range(4)]})
    for name in ("sub-01", "sub-02"):
        (root / name).mkdir()
        np.save(root / name / "betas.npy", rng.standard_normal((8, V)).astype(np.float32))
        split = ["train", "train", "test", "test"] * 2
        save(root / name / "trials.tsv", {"stimulus": list("01230123"), "split": split})
        save(root / name / "voxels.tsv", {"vertex": [3, 4, 5, 10_300, 10_301, -1]})
    return root


def save(file: Path, columns: dict) -> None:
    pd.DataFrame(columns).to_csv(file, sep="\t", index=False)


def edit(file: Path, change) -> None:
    betas = np.load(file)
    change(betas)
    np.save(file, betas)


def test_a_healthy_folder_has_nothing_wrong_and_stays_as_it_is(root):
    def state() -> dict:
        return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in root.rglob("*.*")}

    before = state()
    assert diagnose(root) == []
    assert state() == before


def test_every_picture_is_opened_and_long_lists_are_cut(root):
    for i in range(4):
        (root / "stimuli" / f"{i}.png").unlink()
    table = {"file": [f"{i}.png" for i in range(9)]}
    save(root / "stimuli" / "stimuli.tsv", table)
    found = diagnose(root)
    assert len(found) == 6
    assert "picture of stimulus '0' is missing" in found[0]
    assert found[5] == "... and 4 more pictures cannot be read."


def test_values_are_all_looked_at(root):
    def spoil(betas):
        betas[6, 2] = np.inf
        betas[1, :2] = np.nan
        betas[:, 4] = 7

    edit(root / "sub-02" / "betas.npy", spoil)
    found = diagnose(root)
    assert len(found) == 2
    assert "sub-02" in found[0]
    assert (
        "2 of 8 trials hold values that are not finite (first trial 1, from 0; 3 of 6" in found[0]
    )
    assert "1 of 6 voxels never vary over training trials (first voxel 4" in found[1]


def test_several_wrong_files_give_several_sentences(root):
    (root / "sub-01" / "betas.npy").write_bytes(b"\x93NUMPY")
    save(root / "sub-01" / "trials.tsv", {"stimulus": ["0"], "split": ["val"]})
    (root / "sub-02" / "trials.tsv").unlink()
    save(root / "sub-02" / "voxels.tsv", {"vertex": [1, 2]})
    found = diagnose(root)
    assert len(found) == 4
    assert "sub-01/betas.npy is damaged or cut short" in found[0]
    assert "row 1 has the split 'val'" in found[1]
    assert "sub-02/trials.tsv is missing" in found[2]
    assert "betas.npy has 6 voxels, voxels.tsv has 2 rows" in found[3]


def test_splits_hold_for_all_subjects(root):
    split = ["test", "train", "train", "test"] * 2
    save(root / "sub-02" / "trials.tsv", {"stimulus": list("01230123"), "split": split})
    found = diagnose(root)
    assert len(found) == 2
    assert "1 stimuli are test for sub-01 but train for sub-02 (e.g. '2')" in found[0]
    assert "1 stimuli are test for sub-02 but train for sub-01 (e.g. '0')" in found[1]


def test_a_split_without_trials_and_odd_voxels_are_mentioned(root):
    save(root / "sub-01" / "trials.tsv", {"stimulus": list("01230123"), "split": ["train"] * 8})
    voxels = {"vertex": [3, 3, 5, 10_300, 10_301, -1], "ncsnr": [0.1, -0.2, 0, 0, 0, 0]}
    save(root / "sub-02" / "voxels.tsv", voxels)
    found = "\n".join(diagnose(root))
    assert "sub-01: no trial has the split test" in found
    assert "ncsnr is a ratio from 0, found -0.2" in found
    assert "1 vertices hold more than one voxel" in found
    save(root / "sub-02" / "voxels.tsv", {"vertex": [-1] * V})
    assert any("no voxel of voxels.tsv has a vertex" in s for s in diagnose(root))


def test_without_a_description_there_is_one_sentence(root, tmp_path):
    (root / "dataset.json").unlink()
    assert len(diagnose(root)) == 1
    assert "dataset.json is missing" in diagnose(root)[0]
    assert "is not a folder" in diagnose(tmp_path / "nowhere")[0]


def test_a_named_folder_that_is_missing_is_mentioned(root):
    named = {"title": "T", "subjects": {"a": "sub-01", "b": "sub-09"}}
    (root / "dataset.json").write_text(json.dumps(named))
    found = diagnose(root)
    assert len(found) == 1
    assert "sub-09 is missing; dataset.json names it as the folder of b" in found[0]


def test_the_embedded_study_is_healthy_without_its_training_rows(tmp_path):
    from backends.simulation.study import Recipe, Study, write

    tiny = Recipe(n_train=4, n_test=4, subjects=("subj01",), scale=0.3, n_reference=8)
    write(Study(tiny, tmp_path / "cache"), tmp_path / "study")
    assert diagnose(tmp_path / "study") == []

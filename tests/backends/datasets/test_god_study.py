"""Stimulus ids, lists and regions of GOD: the real ones, and wrong ones."""

import csv
from pathlib import Path

import numpy as np
import pytest

from backends.datasets.god_study import as_mask, image_name, read_id_list
from explorer.types import UserError

IDS = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "god_metadata"


def real(folder: Path, name: str) -> Path:
    if not (folder / name).exists():
        pytest.skip(f"{name} is not in ../shared/data/{folder.name}")
    return folder / name


@pytest.mark.parametrize(
    ("name", "count"), [("imageID_training.csv", 1200), ("imageID_test.csv", 50)]
)
def test_all_real_ids_decode_to_their_file_names(name, count):
    file = real(IDS, name)
    with open(file, newline="") as opened:
        rows = list(csv.reader(opened))
    assert len(rows) == count
    assert [image_name(float(text)) for text, _ in rows] == [f.split(".")[0] for _, f in rows]
    listed = read_id_list(file)
    assert list(listed.values()) == [picture for _, picture in rows]


def test_real_ids_that_lost_their_zeros_are_the_same_stimuli():
    text = real(IDS, "stimulus_ImageNetTest.tsv").read_text()
    rows = [line.split("\t") for line in text.splitlines()]
    assert ["n01621127_19020", "1621127.01902"] in [row[:2] for row in rows]
    for name, identity, *_ in rows:
        assert image_name(float(identity)) == name
    imagined = real(IDS, "category_GODImagery.tsv").read_text().splitlines()
    categories = [line.split("\t")[:2] for line in imagined]
    assert len(categories) == 50
    assert {name.split("_")[0] for name, *_ in rows} == {category for category, _ in categories}
    assert all(image_name(float(identity)) == name for name, identity in categories)


def test_a_list_whose_ids_are_not_its_files_is_refused(tmp_path):
    file = tmp_path / "image_test_id.csv"
    file.write_text('1443537.022563,"n01621127_19020.JPEG"\n')
    with pytest.raises(UserError, match="line 1: the id 1443537.022563 is n01443537_22563, not"):
        read_id_list(file)
    file.write_text("id,file\n")
    with pytest.raises(UserError, match='needs rows of id,"file"'):
        read_id_list(file)


def test_rois_that_are_neither_are_refused():
    for wrong in (np.arange(9), np.array([1, 1, 3]), np.array([0.5, 2.0]), np.zeros((8, 2))):
        with pytest.raises(UserError, match="ROI V1 needs a mask over 8 voxels or a list"):
            as_mask(wrong, 8, "ROI V1")

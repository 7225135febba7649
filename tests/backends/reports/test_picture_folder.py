"""A folder of drawn pictures: every stimulus has files of its own, and an index says which."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from backends.commands.drawn_folder import Job, draw
from backends.reports.picture_folder import file_names, load, pictures_of
from explorer.types import UserError

COLLIDING = ["house 1", "house_1", "cup(2)", "cup_2_", "Tree", "tree", "Stra\u00dfe", "strasse"]


def test_ids_that_differ_in_cleaned_characters_or_case_have_names_of_their_own():
    names = file_names([*COLLIDING, "plain", "n01443537_22563.JPEG", "caf\u00e9", "cafe\u0301"])
    assert len({name.casefold() for name in names.values()}) == len(names)
    assert names["plain"] == "plain" and names["n01443537_22563.JPEG"] == "n01443537_22563.JPEG"
    assert names["house 1"].startswith("house_1-") and names["house_1"].startswith("house_1-")
    assert names == file_names([*reversed(list(names))])  # not by their order
    long = file_names(["x" * 400, "x" * 399 + "y"])
    assert len(set(long.values())) == 2 and all(len(name) < 120 for name in long.values())
    assert not any(
        set(name) & set(r'/\:*?"<>|') for name in file_names(['a/b:c*?"<>|', "..\\x"]).values()
    )


@pytest.fixture
def colliding(fakes, make_workbench):
    """Return a bench whose test images have ids that were one file, each of its own colour."""
    renamed = dict(zip([f"test-{i:02d}" for i in range(1, 9)], COLLIDING, strict=True))

    class Study(fakes.Study):
        def __init__(self, path=None, name="fake"):
            super().__init__(path, name)
            self.stimuli = self.stimuli.rename(index=renamed)

        def load(self, subject):
            trials = super().load(subject)
            trials.table["stimulus"] = trials.table["stimulus"].replace(renamed)
            return trials

    return make_workbench(datasets={"fake": Study})


def test_as_many_files_as_stimuli_and_each_scored_as_itself(colliding, tmp_path):
    job = Job("fake", ("sub-02",), "ridge (fitted now)", "painter", scale=2.0, steps=2, samples=2)
    draw(colliding, job, tmp_path / "out")
    settings, table = load(tmp_path / "out")
    files = list((tmp_path / "out").rglob("*.png"))
    assert len(files) == len({f.name.casefold() for f in files}) == 10 * 2
    index = json.loads((tmp_path / "out" / "index.json").read_text(encoding="utf-8"))
    assert set(COLLIDING) < set(index["sub-02"])
    for row in table.to_dict("records"):
        assert index["sub-02"][row["stimulus"]][row["sample"]] == row["file"]
    stimuli, _, made = pictures_of(colliding, tmp_path / "out", "sub-02")
    for stimulus, picture in zip(stimuli, made[1], strict=True):
        with Image.open(tmp_path / "out" / index["sub-02"][stimulus][1]) as image:
            np.testing.assert_array_equal(np.asarray(image), picture)
    assert len({picture.tobytes() for picture in made[0]}) == 10
    few = Job("fake", ("sub-02",), "ridge (fitted now)", "painter", 2.0, 2, limit=2)
    draw(colliding, few, tmp_path / "few")  # a name does not depend on what else is drawn
    assert {f.name for f in (tmp_path / "few").rglob("*.png")} < {f.name for f in files}


def test_a_folder_in_which_ids_share_a_file_is_refused(colliding, tmp_path):
    job = Job("fake", ("sub-02",), "ridge (fitted now)", "painter", scale=2.0, steps=2)
    file = draw(colliding, job, tmp_path / "out")
    table = pd.read_parquet(file)
    table.loc[table["stimulus"].isin(["house 1", "house_1"]), "file"] = "sub-02/house_1-0.png"
    table.to_parquet(file)
    with pytest.raises(UserError, match="gave 'house 1', 'house_1' one file, so pictures of one"):
        load(tmp_path / "out")

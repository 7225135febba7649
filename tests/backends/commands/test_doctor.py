"""The doctor: what lies at a path and how to open it; one sentence for each thing wrong."""

import json
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from backends import DATASETS
from backends.commands import doctor
from backends.commands.doctor import diagnose, examine
from backends.datasets.folder import Folder
from explorer.naming import named_path
from explorer.types import UserError, resolve
from tests.miniatures.god import TEST, TRAIN, write_god

V = 6
REAL = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "miyawaki2008_v1_figure"


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


def test_equal_pictures_across_train_and_test_are_told(root):
    """The last of two subjects alone trains on it: test for one is test for all."""
    shots = root / "stimuli"
    (shots / "2.png").write_bytes((shots / "1.png").read_bytes())
    split = ["test", "train", "train", "test"] * 2
    save(root / "sub-02" / "trials.tsv", {"stimulus": list("01230123"), "split": split})
    found = diagnose(root)
    assert len(found) == 3
    assert "1 test stimuli have the picture of a training stimulus under another id" in found[2]
    assert "first '2', which is '1'" in found[2]
    (root / "dataset.json").write_text(json.dumps({"title": "T", "split_unit": "repeat"}))
    assert diagnose(root) == []


def test_a_card_in_place_of_pictures_is_told(root):
    for i in range(4):
        Image.new("RGB", (6, 6), "lightgrey").save(root / "stimuli" / f"{i}.png")
    (found,) = diagnose(root)
    assert "4 stimuli have one and the same picture ('0', '1', '2', ...), 2 of them test" in found


def test_pictures_of_other_families_are_looked_at_too(tmp_path, monkeypatch):
    write_god(tmp_path / "Subject1.h5")
    rng = np.random.default_rng(0)
    for folder, names in (("training", TRAIN), ("test", TEST)):
        (tmp_path / "images" / folder).mkdir(parents=True)
        for name in names:
            picture = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / "images" / folder / f"{name}.png")
    assert not [s for s in examine(str(tmp_path), DATASETS)[0] if "picture of" in s]
    shots = tmp_path / "images"
    copied = (shots / "training" / f"{TRAIN[2]}.png").read_bytes()
    (shots / "test" / f"{TEST[1]}.png").write_bytes(copied)
    (shots / "training" / f"{TRAIN[0]}.png").write_bytes(b"")
    lines, well = examine(str(tmp_path), DATASETS)
    assert not well
    assert any(f"first '{TEST[1]}', which is '{TRAIN[2]}'" in line for line in lines)
    sentence = f"1 of 8 pictures cannot be shown; first: The picture of {TRAIN[0]} cannot be read"
    assert any(sentence in line for line in lines)
    monkeypatch.setattr(doctor, "MOST_COMPARED", 3)
    lines = examine(str(tmp_path), DATASETS)[0]
    assert (
        "  - 8 pictures are too many to be looked at here, so equal ones under two ids"
        in " ".join(lines)
    )


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
    from backends.simulation.shipping import write
    from backends.simulation.study import Recipe, Study

    tiny = Recipe(n_train=4, n_test=4, subjects=("subj01",), scale=0.3, n_reference=8)
    write(Study(tiny, tmp_path / "cache"), tmp_path / "study")
    assert diagnose(tmp_path / "study") == []


# --------------------------------------------------------------------------------- any data set


def test_a_plain_folder_is_told_in_full(root):
    lines, well = examine(str(root), DATASETS)
    assert well
    assert lines[0] == f"{root} is folder: T"
    assert lines[1] == (
        "  sub-01: 6 voxels (on the surface, Desikan-Killiany); 8 trials: 4 train (images: 2, "
        "each shown 2 times), 4 test (images: 2, each shown 2 times); a beta is arbitrary units"
    )
    assert "  - The pictures have no captions; stimuli.tsv may have a column caption." in lines
    assert any(line.startswith("Licence: ") and "may not be shown" in line for line in lines)
    assert lines[-1] == f"python app.py --dataset study={root}"


def test_what_is_wrong_is_told_before_the_command(root):
    (root / "sub-02" / "betas.npy").unlink()
    lines, well = examine(str(root), DATASETS)
    assert not well
    problems = lines[lines.index("Problems:") + 1 :]
    assert problems[0].startswith("  - sub-02: ") and "betas.npy is missing" in problems[0]
    assert lines[-1] == f"python app.py --dataset study={root}"  # sub-01 can be looked at
    (root / "sub-01" / "trials.tsv").unlink()
    lines, well = examine(str(root), DATASETS)
    assert not well and lines[-1].endswith("no subject can be opened, for the reasons above.")
    (root / "dataset.json").write_text("{")
    lines, well = examine(str(root), DATASETS)
    assert not well and lines[0] == f"{root} looks like folder, but cannot be opened."
    assert "cannot be read as JSON" in lines[-1] and len(lines) == 2


def test_what_cannot_be_shown_is_found(root):
    (root / "stimuli" / "2.png").unlink()  # the first test picture
    lines, well = examine(str(root), DATASETS)
    assert not well and any("sub-01: " in line and "'2' is missing" in line for line in lines)


def test_an_unknown_path_gets_what_each_family_looks_for(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    lines, well = examine(str(tmp_path), DATASETS)
    assert not well and "is no data set that is known here" in lines[0]
    for name, entry in DATASETS.items():
        assert f"  {name}: {resolve(entry).looks_for}" in lines
    lines, well = examine(str(tmp_path / "gone"), DATASETS)
    assert (lines, well) == ([f"doctor: there is nothing at {tmp_path / 'gone'}; check the path."],
                             False)  # fmt: skip


def test_the_command_keeps_options_and_quotes_what_a_shell_would_read(root, tmp_path):
    odd = root.rename(tmp_path / "my (own) data")
    (odd / "prep.txt").write_text("b3")

    class Prepared(Folder):
        def __init__(self, path, name, prep: str = "b2"):
            super().__init__(path, name)
            if prep not in ("b2", "b3"):
                raise UserError(f"prep is b2 or b3, found {prep!r}.")
            self.title = f"prepared by {prep}"

        @classmethod
        def recognise(cls, path):
            return (path / "prep.txt").is_file()

        def remarks(self):
            return ["sub-01 lacks session 7 of 40; it is in the bucket."]

    families = {"prepared": Prepared, "folder": Folder}
    lines, well = examine(f"{odd}?prep=b3", families)
    assert well and lines[0].endswith("is prepared: prepared by b3")
    assert "  - sub-01 lacks session 7 of 40; it is in the bucket." in lines
    assert lines[-1] == f"python app.py --dataset 'prepared={odd}?prep=b3'"
    (command,) = shlex.split(lines[-1])[3:]
    name, path, options = named_path(command)
    assert (name, path, options) == ("prepared", odd, {"prep": "b3"})
    lines, well = examine(f"{odd}?prep=b9", families)
    assert not well and lines[-1] == "prep is b2 or b3, found 'b9'."
    lines, well = examine(f"{odd}?colour=red", families)
    assert not well and lines[-1] == ("doctor: prepared has no option 'colour'; it takes prep.")
    plain, _ = examine(str(odd), {"folder": Folder})
    assert plain[-1] == f"python app.py --dataset 'my-own-data={odd}'"
    named, _ = examine(str(odd.rename(tmp_path / "folder")), {"folder": Folder})
    assert named[-1].endswith(f"--dataset study={tmp_path / 'folder'}")  # not a family's name


@pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL.name} is not in ../shared/data")
def test_real_files_are_told():
    lines, well = examine(str(REAL), DATASETS)
    assert well
    assert any("S1: 797 voxels" in line and "80 trials: 60 train" in line for line in lines)
    assert lines[-1] == f"python app.py --dataset miyawaki2008={REAL}"


def test_the_audit_names_a_copy_across_the_splits(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    (tmp_path / "stimuli").mkdir()
    (tmp_path / "dataset.json").write_text(json.dumps({"title": "T"}))
    pictures = rng.integers(0, 256, (12, 4, 4, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
    names = [f"{i:02d}" for i in range(12)]
    for name, picture in zip(names, pictures, strict=True):
        Image.fromarray(picture).save(tmp_path / "stimuli" / f"{name}.png")
    Image.fromarray(pictures[2]).save(tmp_path / "stimuli" / "10.png", compress_level=1)
    save(tmp_path / "stimuli" / "stimuli.tsv", {"file": [f"{name}.png" for name in names]})
    (tmp_path / "sub-01").mkdir()
    np.save(tmp_path / "sub-01" / "betas.npy", rng.standard_normal((12, 3)).astype(np.float32))
    split = ["train"] * 8 + ["test"] * 4
    save(tmp_path / "sub-01" / "trials.tsv", {"stimulus": names, "split": split})
    lines, _ = examine(str(tmp_path), DATASETS)
    (told,) = [line for line in lines if "Leak audit in pocket-clip/image" in line]
    assert "the closest is '10', like '02' (1.000)" in told
    assert any("'10', which is '02'" in line for line in lines)

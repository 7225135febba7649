"""The plain folder: the documented lines work, options are optional, mistakes are named."""

import json
import re
import textwrap
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from backends.datasets import layout, layout_voxels
from backends.datasets.folder import Folder
from explorer.types import FSAVERAGE5_VERTICES, UserError, voxel_hash
from tests.miniatures.studies import make_folder

V = 6


def snippets() -> list[str]:
    """Return the lines of the documentation that a notebook would run."""
    blocks = re.findall(r"::\n\n((?:    .*\n|\n)+)", layout.__doc__)
    return [textwrap.dedent(b) for b in blocks if "pathlib" in b or "to_csv" in b]


@pytest.fixture
def given() -> dict:
    rng = np.random.default_rng(0)
    return {
        "pictures": rng.integers(0, 256, (4, 8, 10, 3), dtype=np.uint8),
        "betas": rng.standard_normal((8, V)),
        "shown": [0, 1, 2, 3, 0, 1, 2, 3],
        "split": ["train", "train", "test", "test"] * 2,
        "vertex": [5, 10_300, -1, 44, 20_483, 7],
    }


@pytest.fixture
def root(tmp_path, monkeypatch, given) -> Path:
    monkeypatch.chdir(tmp_path)
    names = dict(given)
    for code in snippets():
        exec(code, names)  # the documentation's own words
    return tmp_path / "my-study"


def rewrite(place: Path, /, **columns) -> None:
    """Set columns of a table; None takes one away."""
    table = pd.read_csv(place, sep="\t", dtype=str, keep_default_na=False)
    for name, values in columns.items():
        table = table.drop(columns=name) if values is None else table.assign(**{name: values})
    table.to_csv(place, sep="\t", index=False)


def test_the_documented_lines_write_a_folder_that_opens(root, given):
    assert len(snippets()) == 2
    assert len(snippets()[0].strip().splitlines()) == 10
    study = Folder(root, "mine")
    assert (study.name, study.title, study.simulated) == ("mine", "My study", False)
    assert (study.licence, study.split_unit) == ("not stated", "stimulus")
    assert study.subjects() == ["sub-01"]
    trials = study.load("sub-01")
    np.testing.assert_allclose(trials.betas[[6, 1]], given["betas"][[6, 1]], rtol=1e-6)
    assert trials.betas[:].dtype == np.float32
    assert trials.table["repeat"].tolist() == [0] * 4 + [1] * 4
    assert trials.table["session"].tolist() == [1] * 8
    assert trials.stimuli("test") == ["002", "003"]
    np.testing.assert_array_equal(study.image("003"), given["pictures"][3])
    assert study.stimuli.loc["001", ["caption", "category", "source"]].tolist() == ["", "", ""]


def test_vertices_give_a_projection_and_the_atlas(root, given):
    voxels = Folder(root, "mine").load("sub-01").subject.voxels
    projection = voxels.projection.toarray()
    for voxel, vertex in enumerate(given["vertex"]):
        expected = np.zeros(FSAVERAGE5_VERTICES)
        if vertex >= 0:
            expected[vertex] = 1
        np.testing.assert_array_equal(projection[:, voxel], expected)
    from explorer.brain.atlases import desikan_killiany

    atlas, laid = desikan_killiany(), voxels.parcellations["Desikan-Killiany"]
    assert laid.membership[2] == -1
    assert laid.membership[0] == atlas.vertices[5]


def test_voxels_at_one_vertex_share_it():
    shared = layout_voxels.project(np.array([9, 9, 3, -1])).toarray()
    assert shared[9].tolist() == [0.5, 0.5, 0, 0]
    assert shared[3].tolist() == [0, 0, 1, 0]
    assert shared.sum() == 2


def test_parcels_rois_ncsnr_and_scale_are_read(root, given):
    stored = np.round(given["betas"] * 1000).astype(np.int16)
    np.save(root / "sub-01" / "betas.npy", stored)
    scale = np.linspace(0.001, 0.006, V)
    rewrite(
        root / "sub-01" / "voxels.tsv",
        vertex=None,
        parcel=["V1 L", "V1 R", "", "V1 L", "hV4", "V1 R"],
        roi_FFA=[1, 0, 0, 0, 1, 0],
        roi_V1=[1, 1, 0, 1, 0, 1],
        ncsnr=np.arange(V) / 10,
        scale=scale,
    )
    description = {"title": "T", "atlas": "retinotopy", "beta_unit": "percent signal change"}
    (root / "dataset.json").write_text(json.dumps(description))
    trials = Folder(root, "mine").load("sub-01")
    np.testing.assert_allclose(trials.betas[2], stored[2] * scale, rtol=1e-5)
    assert trials.beta_unit == "percent signal change"
    voxels = trials.subject.voxels
    assert voxels.projection is None
    np.testing.assert_allclose(trials.subject.ncsnr, np.arange(V) / 10, rtol=1e-6)
    parts = voxels.parcellations["retinotopy"]
    assert [label.key for label in parts.labels] == ["V1 L", "V1 R", "hV4"]
    assert [label.hemisphere for label in parts.labels] == ["L", "R", ""]
    assert parts.membership.tolist() == [0, 1, -1, 0, 2, 1]
    masks = voxels.parcellations["ROIs"]
    assert [label.key for label in masks.labels] == ["FFA", "V1"]
    assert masks.membership.astype(int).tolist() == [[1, 0, 0, 0, 1, 0], [1, 1, 0, 1, 0, 1]]


def test_the_hash_names_the_voxels_and_not_their_statistics(root):
    def digest() -> str:
        return Folder(root, "mine").load("sub-01").subject.voxels.hash

    file = root / "sub-01" / "voxels.tsv"
    first = digest()
    rewrite(file, ncsnr=[0.1] * V)
    assert digest() == first
    rewrite(file, vertex=[10_300, 5, -1, 44, 20_483, 7])
    assert digest() != first
    file.unlink()
    alone = Folder(root, "mine").load("sub-01").subject.voxels
    assert alone.projection is None
    assert alone.hash != Folder(root, "other").load("sub-01").subject.voxels.hash


def test_betas_are_not_read_before_they_are_asked_for(root):
    betas = np.full((8, V), np.nan, np.float32)
    betas[4] = 2
    np.save(root / "sub-01" / "betas.npy", betas)
    rows = Folder(root, "mine").load("sub-01").betas
    assert rows[4].tolist() == [2] * V
    with pytest.raises(UserError, match=r"betas.npy .*not finite in trial 3, voxel 0"):
        rows[[4, 3]]
    with pytest.raises(UserError, match=r"not finite in trial 7, voxel 0"):
        rows[-1]


def test_pictures_of_every_kind_become_rgb(root):
    shots = root / "stimuli"
    Image.fromarray(np.full((5, 4), 90, np.uint8)).save(shots / "grey.png")
    clear = np.zeros((5, 4, 4), np.uint8)
    clear[0] = 255, 0, 0, 255
    Image.fromarray(clear).save(shots / "clear.png")
    Image.fromarray(np.zeros((5, 4, 3), np.uint8)).convert("CMYK").save(shots / "print.jpg")
    rewrite(shots / "stimuli.tsv", file=["grey.png", "clear.png", "print.jpg", "003.png"])
    study = Folder(root, "mine")
    assert np.unique(study.image("grey")).tolist() == [90]
    assert study.image("clear")[0, 0].tolist() == [255, 0, 0]
    assert study.image("clear")[4, 0].tolist() == [255, 255, 255]
    assert study.image("print").shape == (5, 4, 3)


def test_hostile_words_stay_words(root):
    words = ["<b>&amp;</b>", "${alert(1)}", 'a "quoted" one', "ümläut\\n"]
    rewrite(root / "stimuli" / "stimuli.tsv", caption=words, category=["NA", "", "null", "1"])
    stimuli = Folder(root, "<i>mine</i>").stimuli
    assert stimuli["caption"].tolist() == words
    assert stimuli["category"].tolist() == ["NA", "", "null", "1"]


def test_subjects_may_be_named(root):
    named = {"title": "T", "subjects": {"Ada": "sub-01"}}
    (root / "dataset.json").write_text(json.dumps(named))
    study = Folder(root, "mine")
    assert study.subjects() == ["Ada"]
    assert study.load("Ada").subject.name == "Ada"


def drop(name):
    return lambda root: (root / name).unlink()


def cut(name, keep=100):
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:keep])


def table(name, /, **columns):
    return lambda root: rewrite(root / name, **columns)


def describe(**values):
    return lambda root: (root / "dataset.json").write_text(json.dumps({"title": "T", **values}))


def save(array):
    return lambda root: np.save(root / "sub-01" / "betas.npy", array)


def archive(root):
    with (root / "sub-01" / "betas.npy").open("wb") as file:
        np.savez(file, betas=np.zeros((8, V)))


def huge(root):
    """Declare more voxels than the file holds."""
    with (root / "sub-01" / "betas.npy").open("wb") as file:
        about = {"descr": "<f4", "fortran_order": False, "shape": (8, 10**12)}
        np.lib.format.write_array_header_1_0(file, about)


def scaled(last):
    """Store whole numbers, with a good scale for all voxels but the last."""

    def spoil(root):
        np.save(root / "sub-01" / "betas.npy", np.ones((8, V), np.int16))
        rewrite(root / VOXELS, scale=["0.01"] * (V - 1) + [last])

    return spoil


TRIALS, VOXELS, STIMULI = "sub-01/trials.tsv", "sub-01/voxels.tsv", "stimuli/stimuli.tsv"
MISTAKES = {
    "no description": (drop("dataset.json"), r"dataset.json is missing: a plain data set is"),
    "not JSON": (cut("dataset.json", 5), "cannot be read as JSON"),
    "no title": (describe(title=3), 'needs an object with at least a "title"'),
    "not a bool": (describe(simulated="no"), "'simulated' must be true or false, found 'no'"),
    "not a text": (describe(licence=3), "'licence' must be a text, found 3"),
    "odd split unit": (describe(split_unit="run"), "'split_unit' is .* found 'run'"),
    "odd subjects": (describe(subjects=["a"]), r"maps names to folders, found \['a'\]"),
    "no subject": (describe(subjects={}), "has no subject; expected at least one folder"),
    "a subject elsewhere": (describe(subjects={"a": "../x"}), "'../x', which lies outside"),
    "no betas": (drop("sub-01/betas.npy"), "betas.npy is missing"),
    "cut betas": (cut("sub-01/betas.npy", 200), "betas.npy is damaged or cut short"),
    "empty betas": (cut("sub-01/betas.npy", 0), "betas.npy is damaged or cut short"),
    "pickled betas": (
        save({"typed": {"betasmd": np.zeros((V, 1, 1, 8))}}),
        r"holds pickled Python objects, .* results\['typed'\]\['betasmd'\].reshape\(-1, n\).T of",
    ),
    "an archive": (archive, r"is an archive of arrays \(.npz\), expected one array; save it"),
    "transposed betas": (save(np.zeros((V, 8))), "6 rows, trials.tsv has 8; .* save it transpo"),
    "GLMsingle's axes": (
        save(np.zeros((V, 1, 1, 8))),
        r"found float64 \(6, 1, 1, 8\); .* last axis, betas.reshape\(-1, n\).T of n trials",
    ),
    "betas of columns": (
        save(np.zeros(8, [(f"f{i}", "<f4") for i in range(V)])),
        r"rows and columns, found \[\('f0', '<f4'\), .{20,24}\.\.\. \(8,\); save it so",
    ),
    "complex betas": (save(np.zeros((8, V), complex)), "rows and columns, found complex128"),
    "bfloat16 betas": (
        save(np.zeros((8, V), "V2")),
        r"found .V2 \(8, 6\), as numpy writes bfloat16; save it as float32",
    ),
    "huge betas": (huge, r"betas.npy is damaged .*declares the shape \(8, 1000000000000\)"),
    "text betas": (save(np.array([["a"]])), "needs numbers in rows and columns, found <U1"),
    "flat betas": (save(np.zeros(8)), r"needs numbers in rows and columns, found float64 \(8,\)"),
    "other trial count": (save(np.zeros((7, V))), "has 7 rows, trials.tsv has 8"),
    "other voxel count": (save(np.zeros((8, 5))), "has 5 voxels, voxels.tsv has 6 rows"),
    "whole numbers": (save(np.zeros((8, V), np.int16)), r"int16\), so .* the column 'scale'"),
    "no trials": (drop(TRIALS), "trials.tsv is missing"),
    "no split": (table(TRIALS, split=None), "lacks the column 'split'; it has stimulus"),
    "odd split": (table(TRIALS, split=["train"] * 7 + ["val"]), "row 8 has the split 'val'"),
    "unknown stimulus": (
        table(TRIALS, stimulus=["000"] * 7 + ["x"]),
        "row 8 shows the stimulus 'x', which stimuli.tsv does not name",
    ),
    "train and test": (
        table(TRIALS, split=["train"] * 7 + ["test"]),
        "'003' is both train and test; splits are by stimulus",
    ),
    "repeat twice": (table(TRIALS, repeat=["0"] * 8), "row 5 gives repeat 0 of '000' a second"),
    "half a run": (table(TRIALS, run=["1.5"] * 8), "column 'run' needs whole numbers from 0"),
    "a run in words": (table(TRIALS, run=["one"] * 8), "column 'run' needs numbers"),
    "vertex too large": (table(VOXELS, vertex=["20484"] * V), "vertex 20484 is outside"),
    "a vertex in words": (table(VOXELS, vertex=["lh"] * V), "column 'vertex' needs numbers"),
    "a vertex below nowhere": (
        table(VOXELS, vertex=["-2"] * V),
        "column 'vertex' needs whole numbers from 0, or \u22121 for nowhere",
    ),
    "a repeat from 1": (
        table(TRIALS, repeat=["1"] * 4 + ["2"] * 4),
        "repeats are numbered from 0, and the lowest is 1; subtract it, or leave the column out",
    ),
    "a session no float can tell": (
        table(TRIALS, session=["1e16"] * 8),
        "column 'session' needs whole numbers from 0",
    ),
    "synthetic in words": (
        table(TRIALS, synthetic=["False"] * 7 + ["no"]),
        "column 'synthetic' holds true or false, found 'no'",
    ),
    "ncsnr in percent": (
        table(VOXELS, ncsnr=["12", "0", "3", "44", "61", "20"]),
        r"found up to 61, which looks like a noise ceiling in percent; .* sqrt\(p / \(100 - p\) /",
    ),
    "ncsnr below 0": (table(VOXELS, ncsnr=["-1"] + ["1"] * 5), "is a ratio from 0, found -1; m"),
    "a scale left over": (
        table(VOXELS, scale=["0.01"] * V),
        "'scale' is for whole numbers, and betas.npy holds float32; leave the column out",
    ),
    "scale 0": (scaled("0"), "row 6 of the column 'scale' is 0; it says what .* is above 0"),
    "a scale that mirrors": (scaled("-0.01"), "row 6 of the column 'scale' is \u22120.01"),
    "a parcel of the other side": (
        table(VOXELS, parcel=["V1 L", "V1 L", "V1 R", "", "V1 R", "V1"]),
        r"row 2 has vertex 10300, which lies right, and the parcel 'V1 L' of 'parcel', which lies",
    ),
    "a region of the other side": (
        table(VOXELS, **{"roi_FFA R": ["0", "1", "1", "1", "0", "0"]}),
        r"row 4 has vertex 44, which lies left, and the parcel 'FFA R' of 'roi_FFA R', which lies",
    ),
    "ncsnr missing": (table(VOXELS, ncsnr=["1"] * 5 + [""]), "row 6 of the column 'ncsnr' is not"),
    "odd mask": (table(VOXELS, roi_V1=["yes"] * V), "'roi_V1' holds 0 or 1, found 'yes'"),
    "no stimuli": (drop(STIMULI), "stimuli.tsv is missing"),
    "empty stimuli": (cut(STIMULI, 0), "stimuli.tsv cannot be read as a tab-separated table"),
    "no file column": (table(STIMULI, file=None, other=["x"] * 4), "lacks the column 'file'"),
    "no file name": (table(STIMULI, file=["000.png", "", "b", "c"]), "row 2 has no file"),
    "no id": (table(STIMULI, stimulus=["a", "", "b", "c"]), "row 2 has no id"),
    "two of a name": (table(STIMULI, stimulus=["000"] * 4), "names the stimulus '000' twice"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_sentence(root, mistake):
    spoil, sentence = MISTAKES[mistake]
    spoil(root)
    with pytest.raises(UserError, match=sentence) as caught:
        Folder(root, "mine").load("sub-01")
    assert "\n" not in str(caught.value)


def test_cells_mean_what_tables_of_others_write(root, given):
    """Floats from a column with gaps, numbers no float can hold, truth in words."""
    vertices = [f"{v:.1f}" for v in given["vertex"]]
    rewrite(root / VOXELS, vertex=vertices, scale=["1"] * V)
    before = Folder(root, "mine").load("sub-01")
    assert before.subject.voxels.hash == voxel_hash("fsaverage5", np.array(given["vertex"]))
    np.testing.assert_allclose(before.betas[0], given["betas"][0], rtol=1e-6)
    large = 2**53
    rewrite(root / TRIALS, session=[large, large + 1] * 4, run=["2.0"] * 8)
    rewrite(root / TRIALS, synthetic=["False"] * 4 + ["true", "0", "1", "FALSE"])
    trials = Folder(root, "mine").load("sub-01")
    assert trials.table["session"].tolist() == [large, large + 1] * 4
    assert trials.table["run"].tolist() == [2] * 8
    assert trials.synthetic().tolist() == [4, 6]
    assert trials.rows("train").tolist() == [0, 1, 5]


def test_names_that_no_file_has_are_named(root):
    rewrite(root / STIMULI, file=["a\0b", "001.png", "002.png", "003.png"])
    with pytest.raises(UserError, match=r"stimuli.tsv .*it holds a null byte.*; mend it"):
        Folder(root, "mine").image("001")
    rewrite(root / STIMULI, file=["000.png", "x" * 5000, "002.png", "003.png"])
    rewrite(root / STIMULI, stimulus=["000", "001", "002", "003"])
    with pytest.raises(UserError, match=r"picture of stimulus '001' cannot be read .*too long"):
        Folder(root, "mine").image("001")


def test_a_missing_or_foreign_picture_is_named(root, tmp_path):
    (root / "stimuli" / "001.png").unlink()
    (root / "stimuli" / "002.png").write_bytes(b"GIF89a no picture")
    Image.new("RGB", (2, 2)).save(tmp_path / "secret.png")
    rewrite(root / "stimuli" / "stimuli.tsv", file=["../../secret.png", "001.png", "002.png", "x"])
    rewrite(root / "stimuli" / "stimuli.tsv", stimulus=["000", "001", "002", "003"])
    study = Folder(root, "mine")
    with pytest.raises(UserError, match="'../../secret.png', which lies outside"):
        study.image("000")
    with pytest.raises(UserError, match="picture of stimulus '001' is missing"):
        study.image("001")
    with pytest.raises(UserError, match="picture of stimulus '002' cannot be read"):
        study.image("002")
    with pytest.raises(UserError, match="has no stimulus 'other'; it has 4"):
        study.image("other")


def test_an_unknown_subject_or_place_is_named(root, tmp_path):
    with pytest.raises(UserError, match="mine has the subjects sub-01, not 'sub-02'"):
        Folder(root, "mine").load("sub-02")
    with pytest.raises(UserError, match="is not a folder; give the folder that holds dataset"):
        Folder(tmp_path / "nowhere", "mine")


def volume(root: Path, mask: np.ndarray, affine: np.ndarray) -> None:
    """Put a mask beside the betas, in place of voxels.tsv."""
    (root / "sub-01" / "voxels.tsv").unlink(missing_ok=True)
    image = nibabel.Nifti1Image(mask.astype(np.uint8), affine)
    nibabel.save(image, root / "sub-01" / "mask.nii.gz")


def test_a_mask_places_voxels_of_a_volume(root):
    from explorer.brain.projection import project_volume

    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = -80, -112, -72
    mask = np.zeros((40, 47, 40), bool)
    mask[12, 6:12, 18] = True  # occipital, left
    volume(root, mask, affine)
    voxels = Folder(root, "mine").load("sub-01").subject.voxels
    assert voxels.projection is None and voxels.mask.sum() == V
    (root / "dataset.json").write_text('{"title": "T", "space": "MNI152NLin2009cAsym"}')
    placed = Folder(root, "mine").load("sub-01").subject.voxels
    expected = project_volume(mask, affine)
    np.testing.assert_array_equal(placed.projection.toarray(), expected.toarray())
    assert "Desikan-Killiany" in placed.parcellations and placed.hash == voxels.hash
    volume(root, np.roll(mask, 1, axis=1), affine)
    assert Folder(root, "mine").load("sub-01").subject.voxels.hash != voxels.hash


WIDE = np.eye(4) * 1e7  # no scan is as wide


def test_a_mask_that_does_not_fit_is_named(root):
    mask = np.zeros((3, 3, 3), np.uint8)
    for change, sentence in (
        (lambda: volume(root, mask, np.eye(4)), "marks no voxel"),
        (lambda: volume(root, mask + 1, np.eye(4)), "has 6 voxels, mask.nii.gz marks 27"),
        (lambda: volume(root, mask + 2, np.eye(4)), "holds more than 0 and 1"),
        (
            lambda: volume(root, np.ones((1, 2, 3)), WIDE),
            "an affine that is none",
        ),
        (lambda: volume(root, np.ones((2, 3)), np.eye(4)), r"shape \(2, 3\), expected a mask"),
    ):
        change()
        with pytest.raises(UserError, match=sentence):
            Folder(root, "mine").load("sub-01")


def test_what_a_folder_leaves_open_is_told_and_nothing_else(tmp_path):
    study = make_folder(tmp_path)
    root = study.path
    captions = "The pictures have no captions; stimuli.tsv may have a column caption."
    assert study.remarks() == [captions]
    (root / "sub-01" / "voxels.tsv").unlink()
    told = type(study)(root, "study").remarks()
    assert told[0] == captions and told[1].startswith("sub-01 has no voxels.tsv, so nothing says")
    table = pd.read_csv(root / "stimuli" / "stimuli.tsv", sep="\t").assign(caption="a picture")
    table.to_csv(root / "stimuli" / "stimuli.tsv", sep="\t", index=False)
    (root / "sub-01" / "mask.nii.gz").touch()
    (told,) = type(study)(root, "study").remarks()
    assert told.startswith("sub-01: the mask lies in a space that nobody named, and only MNI152")
    (root / "dataset.json").write_text('{"title": "A study", "space": "MNI152NLin2009cAsym"}')
    assert type(study)(root, "study").remarks() == []

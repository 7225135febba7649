"""Files of atlases: what every reader gives, and how it refuses."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from nibabel.cifti2 import BrainModelAxis, LabelAxis, ScalarAxis

from explorer.brain.atlas_files import load_array_atlas, load_atlas
from explorer.brain.atlases import open_atlas
from explorer.types import FSAVERAGE5_VERTICES as N
from explorer.types import Label, UserError

HALF = N // 2


def keys_of(atlas):
    return [label.key for label in atlas.labels]


# --------------------------------------------------------------------------- one hemisphere a file


NAMES = ["unknown", "V1", "Medial_wall", "V2"]
COLOURS = np.array([[0, 0, 0, 0], [255, 0, 10, 0], [5, 5, 5, 0], [0, 200, 0, 0]])


def write_annot(path, index, names=NAMES):
    nib.freesurfer.write_annot(path, index, COLOURS[: len(names)], names, fill_ctab=True)
    return path


def write_gifti(path, index, table):
    labels = nib.gifti.GiftiLabelTable()
    for key, name in table.items():
        label = nib.gifti.GiftiLabel(key, 1.0, 0.5, 0.0, 1.0)
        label.label = name
        labels.labels.append(label)
    array = nib.gifti.GiftiDataArray(index.astype(np.int32), intent="NIFTI_INTENT_LABEL")
    nib.save(nib.gifti.GiftiImage(labeltable=labels, darrays=[array]), path)
    return path


@pytest.mark.parametrize("vertices", [10_242, 40_962, 163_842])
def test_annot_on_any_fsaverage(vertices, tmp_path):
    index = np.resize([0, 1, 2, 3, 3], vertices)
    both = [write_annot(tmp_path / f"{h}.annot", index) for h in ("lh", "rh")]
    atlas = load_atlas("two", *both)
    assert keys_of(atlas) == ["V1 L", "V2 L", "V1 R", "V2 R"]
    assert atlas.labels[2] == Label("V1", "R", (255, 0, 10))
    np.testing.assert_array_equal(atlas.vertices[:5], [-1, 0, -1, 1, 1])
    np.testing.assert_array_equal(atlas.vertices[HALF : HALF + 5], [-1, 2, -1, 3, 3])


def test_vertices_without_any_annotation_are_unassigned(tmp_path):
    index = np.ones(HALF, dtype=int)
    index[7] = -1
    both = [write_annot(tmp_path / f"{h}.annot", index) for h in ("lh", "rh")]
    assert load_atlas("two", *both).vertices[[6, 7]].tolist() == [0, -1]


def test_gifti_numbers_mean_nothing_between_hemispheres(tmp_path):
    left = write_gifti(
        tmp_path / "l.label.gii", np.resize([3, 9], HALF), {3: "b", 9: "a", 0: "???"}
    )
    plain = write_gifti(tmp_path / "r.label.gii", np.resize([1, 0], HALF), {0: "a", 1: "b"})
    right = tmp_path / "r.label.gii.gz"
    right.write_bytes(gzip.compress(plain.read_bytes()))
    atlas = load_atlas("ab", left, right)
    assert keys_of(atlas) == ["b L", "a L", "a R", "b R"]
    np.testing.assert_array_equal(atlas.vertices[:2], [0, 1])
    np.testing.assert_array_equal(atlas.vertices[HALF : HALF + 2], [3, 2])
    assert atlas.labels[0].colour == (255, 128, 0)


def test_files_that_cannot_be_read(tmp_path):
    whole = write_annot(tmp_path / "lh.annot", np.ones(HALF, dtype=int))
    short = write_annot(tmp_path / "short.annot", np.ones(100, dtype=int))
    with pytest.raises(UserError, match="short.annot labels 100 vertices, expected 10242"):
        load_atlas("x", short, whole)
    with pytest.raises(UserError, match="gone.annot is missing; give the path"):
        load_atlas("x", whole, tmp_path / "gone.annot")
    with pytest.raises(UserError, match="atlas.mat is not an atlas file that can be read; give"):
        load_atlas("x", tmp_path / "atlas.mat", whole)
    cut = tmp_path / "cut.annot"
    for kept in (0, 1000, 81_980):
        cut.write_bytes(whole.read_bytes()[:kept])
        with pytest.raises(UserError, match="cut.annot cannot be read .*; copy the file again"):
            load_atlas("x", cut, whole)
    gifti = write_gifti(tmp_path / "l.label.gii", np.ones(HALF), {1: "a"})
    cut = tmp_path / "cut.label.gii"
    cut.write_bytes(gifti.read_bytes()[:-500])
    with pytest.raises(UserError, match="cut.label.gii cannot be read"):
        load_atlas("x", cut, whole)
    packed = tmp_path / "cut.label.gii.gz"
    packed.write_bytes(gzip.compress(gifti.read_bytes())[:-50])
    with pytest.raises(UserError, match="cut.label.gii.gz cannot be read"):
        load_atlas("x", packed, whole)
    unnamed = write_gifti(tmp_path / "u.label.gii", np.resize([1, 5], HALF), {1: "a"})
    with pytest.raises(UserError, match="left hemisphere: 5121 vertices have the index 5, which"):
        load_atlas("x", unnamed, whole)
    values = nib.gifti.GiftiDataArray(np.ones(HALF, np.float32))
    nib.save(nib.gifti.GiftiImage(darrays=[values]), tmp_path / "v.label.gii")
    with pytest.raises(UserError, match="v.label.gii holds 0 label arrays, expected exactly 1"):
        load_atlas("x", tmp_path / "v.label.gii", whole)


def test_array_and_table(tmp_path):
    vertices = np.resize([10, 20, 30], N).astype(np.int16)
    vertices[HALF:] = np.resize([20, 30], HALF)  # 10 is of the left hemisphere alone
    np.save(tmp_path / "a.npy", vertices)
    table = tmp_path / "a.tsv"
    table.write_text(
        "index\tname\themisphere\tcolour\n10\tV1\tL\t#ff0080\n20\tunknown\t\t\n30\tNA\t\t\n"
    )
    atlas = load_array_atlas("mine", tmp_path / "a.npy", table)
    assert atlas.labels == (Label("V1", "L", (255, 0, 128)), Label("NA", ""))
    assert atlas.vertices[:3].tolist() == [0, -1, 1]
    assert keys_of(atlas) == ["V1 L", "NA"]


def test_arrays_and_tables_that_cannot_be_read(tmp_path):
    array, table = tmp_path / "a.npy", tmp_path / "a.tsv"
    np.save(array, np.ones(N, dtype=int))
    table.write_text("index\tname\n1\tV1\n")
    with pytest.raises(UserError, match="b.npy is missing"):
        load_array_atlas("x", tmp_path / "b.npy", table)
    with pytest.raises(UserError, match="b.tsv is missing"):
        load_array_atlas("x", array, tmp_path / "b.tsv")
    for text, message in {
        "index\tlabel\n1\tV1\n": "lacks the column 'name'",
        "index\tname\none\tV1\n": "cannot be read .*'one'",
        "index\tname\n2\tV1\n": "20484 vertices have the index 1, which the label table",
        "index\tname\themisphere\n1\tV1\tleft\n": "hemisphere is L, R or empty, not 'left'",
        "index\tname\tcolour\n1\tV1\t#f00\n": "cannot be read",
    }.items():
        table.write_text(text)
        with pytest.raises(UserError, match=message):
            load_array_atlas("x", array, table)
    table.write_text("index\tname\n1\tV1\n")
    np.save(array, np.ones(N))
    with pytest.raises(
        UserError, match=r"whole numbers for 20484 vertices .* found float64 \(204"
    ):
        load_array_atlas("x", array, table)
    np.save(array, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="a.npy cannot be read .*allow_pickle=False"):
        load_array_atlas("x", array, table)


# ------------------------------------------------------------------------------------------- CIFTI


TABLE = {0: ("???", (0, 0, 0, 0)), 1: ("L_V1_ROI", (1, 0, 0, 1)), 2: ("R_V1_ROI", (0, 0, 1, 1))}


def write_dlabel(path, vertices=HALF, maps=1, sides=("LEFT", "RIGHT"), axis=None):
    """Write a .dlabel.nii that holds one vertex in fifty: HCP files leave the medial wall out."""
    cortex = np.arange(vertices) % 50 == 7
    models = [BrainModelAxis.from_mask(cortex, name=f"CIFTI_STRUCTURE_CORTEX_{s}") for s in sides]
    whole = models[0] if len(models) == 1 else models[0] + models[1]
    side = np.repeat([1, 2][: len(sides)], cortex.sum())
    values = np.where(np.arange(len(side)) % 2, side, 0)  # every second vertex has a parcel
    axis = axis or LabelAxis([f"map {i}" for i in range(maps)], TABLE)
    image = nib.Cifti2Image(np.tile(values, (maps, 1)).astype(np.float32), (axis, whole))
    nib.save(image, path)
    return cortex


@pytest.mark.parametrize("vertices", [HALF, 40_962])
def test_cifti_holds_both_hemispheres_without_the_medial_wall(vertices, tmp_path):
    cortex = write_dlabel(tmp_path / "V.dlabel.nii", vertices)
    atlas = open_atlas(str(tmp_path / "V.dlabel.nii"))
    assert atlas.name == "V"
    assert atlas.labels == (
        Label("L_V1_ROI", "L", (255, 0, 0)),
        Label("R_V1_ROI", "R", (0, 0, 255)),
    )
    full = np.full(vertices, -1)
    full[np.flatnonzero(cortex)[1::2]] = 0
    np.testing.assert_array_equal(atlas.vertices[:HALF], full[:HALF])
    assert set(atlas.vertices[HALF:]) == {-1, 1}
    assert ("cut to fsaverage5" in atlas.note) == (vertices > HALF)


def test_cifti_on_fs_lr_is_refused_and_the_finest_mesh_must_be_named(tmp_path):
    write_dlabel(tmp_path / "V.dlabel.nii", 32_492)
    with pytest.raises(UserError, match="V.dlabel.nii labels 32492 vertices of fs_LR 32k, expec"):
        open_atlas(str(tmp_path / "V.dlabel.nii"))
    write_dlabel(tmp_path / "V.dlabel.nii", 163_842)
    with pytest.raises(UserError, match="may be fsaverage or the finest fs_LR; if it is fsaver"):
        open_atlas(str(tmp_path / "V.dlabel.nii"))
    (tmp_path / "V.dlabel.nii").rename(tmp_path / "V.fsaverage.dlabel.nii")
    assert "came on fsaverage (163,842" in open_atlas(f"{tmp_path}/V.fsaverage.dlabel.nii").note
    (tmp_path / "V.fsaverage.dlabel.nii").rename(tmp_path / "fsaverage_to_164k_fs_LR.dlabel.nii")
    with pytest.raises(UserError, match="labels 163842 vertices of fs_LR, expected"):
        open_atlas(f"{tmp_path}/fsaverage_to_164k_fs_LR.dlabel.nii")


def test_cifti_of_another_kind(tmp_path):
    path = tmp_path / "V.dlabel.nii"
    write_dlabel(path, maps=2)
    with pytest.raises(UserError, match="holds 2 maps of labels, expected exactly 1"):
        open_atlas(str(path))
    write_dlabel(path, sides=("LEFT",))
    with pytest.raises(UserError, match="lacks CIFTI_STRUCTURE_CORTEX_RIGHT; an atlas needs both"):
        open_atlas(str(path))
    write_dlabel(path, axis=ScalarAxis(["thickness"]))
    with pytest.raises(UserError, match="is no CIFTI file of labels; give a .dlabel.nii"):
        open_atlas(str(path))
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2)), np.eye(4)), path)
    with pytest.raises(UserError, match="is no CIFTI file of labels"):
        open_atlas(str(path))
    write_dlabel(path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(UserError, match="V.dlabel.nii cannot be read"):
        open_atlas(str(path))
    write_dlabel(path)
    with pytest.raises(UserError, match="holds both hemispheres; give it alone"):
        open_atlas(f"{path},{path}")

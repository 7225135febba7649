"""Files of atlases: what every reader gives, and how it refuses."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from nibabel.cifti2 import BrainModelAxis, LabelAxis, ScalarAxis

from explorer.brain import atlas_files
from explorer.brain.atlas_files import load_atlas, refuse_mesh
from explorer.brain.atlases import open_atlas
from explorer.types import FSAVERAGE5_VERTICES as N
from explorer.types import Label, UserError
from tests.miniatures.atlases import TABLE, write_annot, write_dlabel, write_gifti, write_mgh

HALF = N // 2


def keys_of(atlas):
    return [label.key for label in atlas.labels]


# --------------------------------------------------------------------------- one hemisphere a file


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


# ------------------------------------------------------------------------------------------- CIFTI


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


def test_one_key_of_a_cifti_has_one_name(tmp_path):
    path = tmp_path / "V.dlabel.nii"
    write_dlabel(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'Key="2"', b'Key="1"'))
    with pytest.raises(UserError, match="calls the index 1 both 'L_V1_ROI' and 'R_V1_ROI'"):
        open_atlas(str(path))
    path.write_bytes(content.replace(b'"10242"', b'"99999"'))
    with pytest.raises(UserError, match="V.dlabel.nii labels 99999 vertices, expected 10242"):
        open_atlas(str(path))


# ------------------------------------------------------------------------------- GIfTI and numbers


def both(tmp_path, *arguments, **changed):
    """Write one GIfTI a hemisphere and return what --atlas is given."""
    for side in ("lh", "rh"):
        write_gifti(tmp_path / f"{side}.V.label.gii", *arguments, **changed)
    return str(tmp_path / "lh.V.label.gii")


@pytest.mark.parametrize("kind", ["INT32", "FLOAT32", "UINT8"])
def test_labels_are_read_whatever_type_their_numbers_have(kind, tmp_path):
    given = both(tmp_path, np.resize([0, 1, 2], HALF), {0: "???", 1: "A", 2: "B"}, kind=kind)
    atlas = open_atlas(given)
    assert keys_of(atlas) == ["A L", "B L", "A R", "B R"]
    assert atlas.vertices[[0, 1, 2, HALF, HALF + 1, HALF + 2]].tolist() == [-1, 0, 1, -1, 2, 3]


def test_a_map_of_broken_numbers_is_no_atlas(tmp_path):
    given = both(tmp_path, np.resize([0, 1.5], HALF), {0: "???", 1: "A"}, kind="FLOAT32")
    with pytest.raises(UserError, match=r"5121 values that are no whole numbers \(one is 1.5\)"):
        open_atlas(given)


def test_one_key_of_a_gifti_has_one_name_and_one_name_has_one_key(tmp_path):
    index = np.resize([0, 1, 2], HALF)
    given = both(tmp_path, index, [(0, "???"), (1, "A"), (1, "B"), (2, "C")])
    with pytest.raises(UserError, match="lh.V.label.gii calls the index 1 both 'A' and 'B'"):
        open_atlas(given)
    given = both(tmp_path, index, {0: "???", 1: "A", 2: "A"})
    with pytest.raises(UserError, match=r"calls two parcels 'A' \(index 1 and 2\)"):
        open_atlas(given)
    assert keys_of(open_atlas(both(tmp_path, index, [(0, "???"), (1, "A"), (1, "A"), (2, "C")])))


def test_a_name_that_no_vertex_has_is_no_parcel(tmp_path):
    """One table often serves both hemispheres, or several maps."""
    table = {0: "???", 1: "L_V1_ROI", 2: "R_V1_ROI"}
    write_gifti(tmp_path / "lh.V.label.gii", np.resize([0, 1], HALF), table)
    write_gifti(tmp_path / "rh.V.label.gii", np.resize([0, 2], HALF), table)
    assert keys_of(open_atlas(str(tmp_path / "lh.V.label.gii"))) == ["L_V1_ROI L", "R_V1_ROI R"]


def test_a_parcel_that_is_lost_on_the_coarser_mesh_stays_a_parcel(tmp_path):
    index = np.resize([0, 1], 40_962)
    index[HALF:] = 2
    for side in ("lh", "rh"):
        write_mgh(tmp_path / f"{side}.V.mgz", index.astype(np.int32))
    (tmp_path / "V.tsv").write_text("index\tname\n0\tunknown\n1\tA\n2\tB\n")
    atlas = open_atlas(str(tmp_path / "lh.V.mgz"))
    assert keys_of(atlas) == ["A L", "B L", "A R", "B R"]
    assert set(np.unique(atlas.vertices)) == {-1, 0, 2}


def test_gifti_of_several_maps_or_of_some_vertices(tmp_path):
    labels = nib.gifti.GiftiLabelTable()

    def write(*arrays):
        for side in ("lh", "rh"):
            image = nib.gifti.GiftiImage(labeltable=labels, darrays=list(arrays))
            nib.save(image, tmp_path / f"{side}.V.label.gii")
        return str(tmp_path / "lh.V.label.gii")

    def array(values, intent, name=""):
        meta = nib.gifti.GiftiMetaData({"Name": name} if name else {})
        return nib.gifti.GiftiDataArray(values.astype(np.int32), intent=intent, meta=meta)

    index = np.zeros(HALF)
    two = (array(index, "NIFTI_INTENT_LABEL", name) for name in ("7 networks", "17 networks"))
    with pytest.raises(UserError, match="2 label arrays, expected exactly 1: 7 networks, 17 net"):
        open_atlas(write(*two))
    some = array(index[:150], "NIFTI_INTENT_LABEL"), array(index[:150], "NIFTI_INTENT_NODE_INDEX")
    with pytest.raises(UserError, match="labels a list of vertices and not all of them"):
        open_atlas(write(*some))


def test_the_finest_gifti_must_say_that_it_is_on_fsaverage(tmp_path):
    index, table = np.resize([0, 1], 163_842), {0: "???", 1: "A"}
    for name in ("V.164k", "V.164k_fsaverage", "V.164k_fs_LR", "V.fsaverage_LR164k"):
        for side in "LR":
            write_gifti(tmp_path / f"{side}.{name}.label.gii", index, table)
    assert len(open_atlas(str(tmp_path / "L.V.164k_fsaverage.label.gii")).labels) == 2
    with pytest.raises(UserError, match="may be fsaverage or the finest fs_LR; if it is"):
        open_atlas(str(tmp_path / "L.V.164k.label.gii"))
    for name in ("V.164k_fs_LR", "V.fsaverage_LR164k"):
        with pytest.raises(UserError, match="labels 163842 vertices of fs_LR, expected 10242"):
            open_atlas(str(tmp_path / f"L.{name}.label.gii"))


def test_what_a_gifti_packs_is_bounded(tmp_path, monkeypatch):
    given = both(tmp_path, np.zeros(HALF), {0: "???"})
    monkeypatch.setattr(atlas_files, "LARGEST", 4 * HALF)
    assert open_atlas(given).labels == ()
    monkeypatch.setattr(atlas_files, "LARGEST", 4 * HALF - 1)
    with pytest.raises(UserError, match="lh.V.label.gii cannot be read as .* .it unpacks"):
        open_atlas(given)
    monkeypatch.setattr(atlas_files, "LARGEST", 100)
    with pytest.raises(UserError, match="lh.V.label.gii cannot be read as a GIfTI file .it has"):
        open_atlas(given)


# ------------------------------------------------------------------------------------ MGH and MGZ


def test_several_packed_arrays_are_bounded_together(tmp_path, monkeypatch):
    arrays = [nib.gifti.GiftiDataArray(np.zeros(HALF, np.int32)) for _ in range(2)]
    for side in ("lh", "rh"):
        nib.save(nib.gifti.GiftiImage(darrays=arrays), tmp_path / f"{side}.V.label.gii")
    monkeypatch.setattr(atlas_files, "LARGEST", 6 * HALF)
    with pytest.raises(UserError, match="it unpacks to more than 61,452 bytes"):
        open_atlas(str(tmp_path / "lh.V.label.gii"))


def test_a_gifti_that_says_both_hemispheres_is_refused(tmp_path):
    given = both(tmp_path, np.zeros(HALF), {0: "???"}, side="CortexLeft")
    image = nib.load(given)
    image.meta["AnatomicalStructurePrimary"] = "CortexRight"
    nib.save(image, given)
    with pytest.raises(UserError, match="says both CortexLeft and CortexRight; mend its metadata"):
        open_atlas(given)


@pytest.mark.parametrize("value", [np.inf, -np.inf, 0.5, 2.0**53, -(2.0**53)])
def test_numbers_that_are_no_labels(value):
    with pytest.raises(UserError, match="x holds 1 values that are no whole numbers"):
        atlas_files.whole(np.array([1.0, value]), "x")


def test_numbers_of_any_type_are_whole():
    values = np.array([1.0, np.nan, 2.0**53 - 1])
    assert atlas_files.whole(values, "x").tolist() == [1, -1, 2**53 - 1]
    assert atlas_files.whole(np.array([True, False]), "x").tolist() == [1, 0]
    with pytest.raises(UserError, match="x holds complex64, a file of labels holds whole numbers"):
        atlas_files.whole(np.zeros(2, np.complex64), "x")


def test_another_mesh_is_told_before_its_values_are_looked_at(tmp_path):
    for side in ("lh", "rh"):
        write_mgh(tmp_path / f"{side}.V.mgz", np.full(2_562, 0.5, np.float32))
    with pytest.raises(UserError, match="labels 2562 vertices of fsaverage4, expected 10242"):
        open_atlas(str(tmp_path / "lh.V.mgz"))


def test_a_cifti_of_endless_vertices_takes_no_memory(tmp_path):
    left, right = (
        BrainModelAxis.from_mask(np.ones(4, bool), name=f"CIFTI_STRUCTURE_CORTEX_{side}")
        for side in ("LEFT", "RIGHT")
    )
    whole = left + right
    whole.nvertices = {name: 10**15 for name in whole.nvertices}
    image = nib.Cifti2Image(np.zeros((1, 8), np.float32), (LabelAxis(["m"], TABLE), whole))
    nib.save(image, tmp_path / "V.dlabel.nii")
    with pytest.raises(UserError, match="V.dlabel.nii labels 1000000000000000 vertices, expected"):
        open_atlas(str(tmp_path / "V.dlabel.nii"))


def test_published_numbers_have_their_names(tmp_path):
    index = np.resize(np.arange(26), HALF).astype(np.int32)
    for side in ("lh", "rh"):
        write_mgh(tmp_path / f"{side}.wang15_mplbl.v1_0.mgz", index)
        write_mgh(tmp_path / f"{side}.benson14_varea.mgz", index % 13)
    wang = open_atlas(str(tmp_path / "lh.wang15_mplbl.v1_0.mgz"))
    assert len(wang.labels) == 50 and wang.name == "wang15_mplbl.v1_0"
    at = {number: wang.labels[wang.vertices[number]].key for number in (1, 12, 13, 15, 17, 25)}
    assert at == {1: "V1v L", 12: "MST L", 13: "hMT L", 15: "LO1 L", 17: "V3a L", 25: "FEF L"}
    assert wang.vertices[0] == -1
    benson = open_atlas(str(tmp_path / "rh.benson14_varea.mgz"))
    assert [label.name for label in benson.labels[:4]] == ["V1", "V2", "V3", "hV4"]
    assert len(benson.labels) == 24 and benson.labels[-1].key == "V3a R"


@pytest.mark.parametrize("table", ["V.mgz.ctab", "V.ctab", "V.tsv", "lh.V.tsv", ",mine.tsv"])
def test_numbers_take_their_names_from_a_table(table, tmp_path):
    index = np.resize([-1, 0, 1, 2, np.nan], HALF).astype(np.float32)
    for side in ("lh", "rh"):
        write_mgh(tmp_path / f"{side}.V.mgz", index)
    given = str(tmp_path / "lh.V.mgz")
    with pytest.raises(UserError, match="holds numbers and no names; put a table beside it"):
        open_atlas(given)
    text = "# remark\n0 Unknown 0 0 0 0\n1 V1 1 2 3 0\n2 V2\n"
    if table.endswith("tsv"):
        text = "index\tname\tcolour\n0\tUnknown\t\n1\tV1\t#010203\n2\tV2\t\n"
    (tmp_path / table.strip(",")).write_text(text)
    if table.startswith(","):
        given = f"{given},{tmp_path}/rh.V.mgz,{tmp_path}/mine.tsv"
    else:
        (tmp_path / table.replace("lh.", "rh.")).write_text(text)
    atlas = open_atlas(given)
    assert keys_of(atlas) == ["V1 L", "V2 L", "V1 R", "V2 R"]
    assert atlas.vertices[:5].tolist() == [-1, -1, 0, 1, -1]
    assert [label.colour for label in atlas.labels[:2]] == [(1, 2, 3), (128, 128, 128)]


def test_mgh_files_that_are_no_atlas(tmp_path):
    (tmp_path / "V.tsv").write_text("index\tname\n0\tunknown\n1\tA\n")
    for side in ("lh", "rh"):
        write_mgh(tmp_path / f"{side}.V.mgh", np.linspace(0, 1, HALF).astype(np.float32))
        four = nib.MGHImage(np.zeros((HALF, 1, 1, 2), np.int32), np.eye(4))
        nib.save(four, tmp_path / f"{side}.W.mgz")
        write_mgh(tmp_path / f"{side}.V.mgz", np.resize([0, 1, 7], HALF).astype(np.int32))
    with pytest.raises(UserError, match="values that are no whole numbers .* a map and no atlas"):
        open_atlas(str(tmp_path / "lh.V.mgh"))
    with pytest.raises(UserError, match=r"is an array \(10242, 1, 1, 2\); a file of labels has"):
        open_atlas(str(tmp_path / "lh.W.mgz"))
    with pytest.raises(UserError, match="left hemisphere: 3414 vertices have the index 7, which"):
        open_atlas(str(tmp_path / "lh.V.mgz"))
    with pytest.raises(UserError, match="lh.A.annot names its own parcels; give it without the"):
        open_atlas(f"{tmp_path}/lh.A.annot,{tmp_path}/V.tsv")


@pytest.mark.parametrize(
    ("count", "mesh"),
    [
        *((642, "fsaverage3"), (2562, "fsaverage4")),
        *((4002, "fs_LR 4k"), (7842, "fs_LR 8k"), (32492, "fs_LR 32k"), (59292, "fs_LR 59k")),
    ],
)
def test_meshes_that_cannot_be_cut_are_named(count, mesh):
    for name in ("areas.npy", "areas.annot"):
        with pytest.raises(UserError, match=f"{name} labels {count} vertices of {mesh}, expected"):
            refuse_mesh(count, name)
    with pytest.raises(UserError, match=r"labels 7 vertices, expected 10242"):
        refuse_mesh(7, "areas.npy")


def test_parts_of_a_colour_are_cut_to_what_a_colour_can_be():
    assert atlas_files._rgb((-0.5, None, 2.0, 1.0)) == (0, 0, 255)
    assert atlas_files._rgb((0.5, 0.0, 1.0)) == (128, 0, 255)

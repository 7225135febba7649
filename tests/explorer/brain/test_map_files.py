"""Maps as files: what is planted comes out at its place, read by nibabel and nilearn."""

import gzip
import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import scipy.sparse as sp
from nilearn.image import load_img
from nilearn.surface import InMemoryMesh, PolyMesh, SurfaceImage, load_surf_data

from explorer.brain import fslr
from explorer.brain.map_files import FORMS, MapValues, check_form, forms, map_file, mesh_of
from explorer.brain.surfaces import HALF, surface_mesh
from explorer.types import FSAVERAGE5_VERTICES, UserError, VoxelSpace

LEFT, RIGHT = 4_711, 815  # vertices of a hemisphere, which the other one has too
TOLD = {"Units": "ratio", "Title": "enrichment", "Description": "For this decoder only."}
AFFINE = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
SHAPE = (91, 30, 20)


@pytest.fixture(scope="module")
def planted():
    """Return a surface study of two voxels, one in each hemisphere, and their values."""
    at = np.array([LEFT, HALF + RIGHT])
    projection = sp.csr_matrix((np.ones(2), (at, [0, 1])), (FSAVERAGE5_VERTICES, 2))
    vertices = np.full(FSAVERAGE5_VERTICES, np.nan)
    vertices[at] = 2.5, -1.25
    values = MapValues("enrichment", np.array([2.5, -1.25]), vertices, TOLD)
    return VoxelSpace(2, "h", projection), values


@pytest.fixture
def volume():
    """Return a volume in MNI space with x falling from right to left, as radiologists store it."""
    mask = np.zeros(SHAPE, dtype=bool)
    mask[70, 10, 5] = mask[20, 10, 5] = mask[45, 3, 7] = True
    space = VoxelSpace(3, "h", mask=mask, affine=AFFINE, space="MNI152NLin2009cAsym")
    values = np.full(3, np.nan)
    order = np.argwhere(mask)[:, 0]
    values[order == 70], values[order == 20] = -3.0, 4.0
    return space, MapValues("noise ceiling", values, None, TOLD)


def saved(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


def test_each_hemisphere_has_its_own_gifti_file(planted, tmp_path):
    space, values = planted
    found = {}
    for side, structure, vertex, value in (
        ("left", "CortexLeft", LEFT, 2.5),
        ("right", "CortexRight", RIGHT, -1.25),
    ):
        file = saved(tmp_path, f"{side}.func.gii", map_file(values, space, f"{side}.func.gii"))
        image = nib.load(file)
        (array,) = image.darrays
        assert array.data.shape == (HALF,) and array.data.dtype == np.float32
        assert np.flatnonzero(np.isfinite(array.data)).tolist() == [vertex]
        assert array.data[vertex] == value and array.meta["Name"] == "enrichment"
        told = dict(image.meta)
        assert told == {"AnatomicalStructurePrimary": structure, **TOLD}
        np.testing.assert_array_equal(load_surf_data(file), array.data)
        found[side] = str(file)
    pial = surface_mesh("pial").items()
    mesh = PolyMesh(**{s: InMemoryMesh(part["vertices"], part["faces"]) for s, part in pial})
    parts = SurfaceImage(mesh, found).data.parts
    assert parts["left"][LEFT] == 2.5 and parts["right"][RIGHT] == -1.25


def test_cifti_has_both_hemispheres_by_their_names(planted, tmp_path):
    space, values = planted
    image = nib.load(saved(tmp_path, "a.dscalar.nii", map_file(values, space, "dscalar.nii")))
    assert isinstance(image, nib.Cifti2Image)
    assert image.nifti_header.get_intent()[0] == "ConnDenseScalar"
    maps, models = (image.header.get_axis(i) for i in (0, 1))
    assert list(maps.name) == ["enrichment"] and maps.meta[0] == TOLD
    assert models.nvertices == {
        f"CIFTI_STRUCTURE_CORTEX_{side}": HALF for side in ("LEFT", "RIGHT")
    }
    data = image.get_fdata()[0]
    planted_at = np.flatnonzero(np.isfinite(data))
    names, vertices = models.name[planted_at], models.vertex[planted_at]
    assert list(names) == ["CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT"]
    assert vertices.tolist() == [LEFT, RIGHT] and data[planted_at].tolist() == [2.5, -1.25]
    assert mesh_of(space, "dscalar.nii") == "fsaverage5"


def test_data_of_fslr_stay_there_in_cifti_and_are_on_fsaverage5_in_gifti(planted, tmp_path):
    """Grayordinates: of the left cortex, of the right one, and one below the cortex."""
    columns = np.array([100, 29_696 + 7, 59_412 + 3])
    own = fslr.vertices(fslr.GRAYORDINATES)[columns]
    assert own[2] == -1
    space = replace(planted[0], n_voxels=3, projection=None, fslr=own)
    values = replace(planted[1], voxels=np.array([1.0, 2.0, 3.0]))
    image = nib.load(saved(tmp_path, "b.dscalar.nii", map_file(values, space, "dscalar.nii")))
    models = image.header.get_axis(1)
    assert len(models) == fslr.CORTEX and set(models.nvertices.values()) == {32_492}
    counts = {name: len(axis) for name, _, axis in models.iter_structures()}
    assert list(counts.values()) == [29_696, 29_716]
    data = image.get_fdata()[0]
    assert np.flatnonzero(np.isfinite(data)).tolist() == columns[:2].tolist()
    assert data[columns[:2]].tolist() == [1.0, 2.0]
    assert models.vertex[columns[1]] == own[1] - 32_492
    assert mesh_of(space, "dscalar.nii") == "fsLR"
    assert mesh_of(space, "left.func.gii") == "fsaverage5"
    left = nib.load(saved(tmp_path, "l.func.gii", map_file(values, space, "left.func.gii")))
    assert left.darrays[0].data.shape == (HALF,)


def test_a_volume_keeps_its_affine_and_its_sides(volume, tmp_path):
    space, values = volume
    content = map_file(values, space, "nii.gz")
    image = load_img(saved(tmp_path, "a.nii.gz", content))
    np.testing.assert_array_equal(image.affine, AFFINE)
    data = image.get_fdata()
    assert (data[~space.mask] == 0).all() and np.isnan(data[45, 3, 7])
    world = image.affine @ np.array([[70, 10, 5, 1], [20, 10, 5, 1]]).T
    assert data[70, 10, 5] == -3 and data[20, 10, 5] == 4
    assert world[0].tolist() == [-50, 50]  # left is negative
    assert int(image.header["sform_code"]) == 4 and image.header.get_xyzt_units()[0] == "mm"
    assert bytes(image.header["descrip"]).startswith(b"noise ceiling; ratio")
    (extension,) = nib.Nifti1Image.from_bytes(gzip.decompress(content)).header.extensions
    assert json.loads(extension.get_content()) == {"Name": "noise ceiling", **TOLD}
    native = replace(space, space="")
    image = load_img(saved(tmp_path, "b.nii.gz", map_file(values, native, "nii.gz")))
    assert int(image.header["sform_code"]) == 2


def test_the_same_map_gives_the_same_bytes(planted, volume):
    for space, values in (planted, volume):
        for form in forms(space, values.vertices is not None):
            assert map_file(values, space, form) == map_file(values, space, form)


def test_a_form_that_does_not_fit_is_refused_in_one_sentence(planted, volume):
    assert forms(planted[0], True) == FORMS[:3] and forms(volume[0], False) == FORMS[3:]
    for (space, values), form, said in (
        (planted, "nii.gz",
         "A .nii.gz file does not fit these data: the study gives no volume for its 2 voxels; "
         "save left.func.gii or right.func.gii or dscalar.nii."),
        (volume, "left.func.gii",
         "A .func.gii file does not fit these data: the study gives no places on a surface for "
         "its 3 voxels; save nii.gz."),
        (volume, "dlabel.nii",
         "A map is saved as left.func.gii, right.func.gii, dscalar.nii, nii.gz, found "
         "'dlabel.nii'."),
    ):  # fmt: skip
        with pytest.raises(UserError) as told:
            map_file(values, space, form)
        assert str(told.value) == said
    with pytest.raises(UserError, match=r"save the table as CSV\.$"):
        check_form("nii.gz", VoxelSpace(2, "h"), False)
    with pytest.raises(UserError, match="has no value at any voxel: nothing to save"):
        map_file(replace(volume[1], voxels=np.full(3, np.nan)), volume[0], "nii.gz")

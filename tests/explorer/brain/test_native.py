"""A subject's own surface at the places of fsaverage5: planted in files as FreeSurfer's."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from explorer.brain.native import native_surface
from explorer.brain.surfaces import HALF, SIDES, bundled, offered_surfaces, surface_mesh
from explorer.types import UserError, VoxelSpace

ORDER = np.random.default_rng(5).permutation(HALF)  # native vertex k is fsaverage5's ORDER[k]


def own(side, stem):
    """Return the subject's shape in fsaverage5's order: the group's, larger by a tenth."""
    return (1.1 * bundled(f"{stem}_{side}")[0]).astype(np.float32)


@pytest.fixture(scope="module")
def surf(tmp_path_factory):
    """Write surf/ of a subject whose vertices are in another order, on a sphere of radius 1."""
    folder = tmp_path_factory.mktemp("subject") / "surf"
    folder.mkdir()
    for h, side in zip(("lh", "rh"), SIDES, strict=True):
        faces = np.zeros((1, 3), dtype=int)
        for name, points in (
            ("inflated", own(side, "infl")),
            ("pial", own(side, "pial")),
            ("sphere.reg", bundled(f"sphere_{side}")[0] / 100),
        ):
            nib.freesurfer.write_geometry(str(folder / f"{h}.{name}"), points[ORDER], faces)
        sulc = np.arange(HALF, dtype=np.float32)[ORDER]
        nib.freesurfer.write_morph_data(str(folder / f"{h}.sulc"), sulc)
    return folder


def copied(surf, tmp_path, without=()):
    for file in surf.iterdir():
        if file.name not in without:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_each_vertex_is_the_subjects_nearest_on_the_sphere(surf):
    space = VoxelSpace(2, "h", native=native_surface(surf))
    for surface, stem in (("native inflated", "infl"), ("native pial", "pial")):
        mesh = surface_mesh(surface, space)
        for side in SIDES:
            np.testing.assert_allclose(mesh[side]["vertices"], own(side, stem), atol=1e-4)
            np.testing.assert_array_equal(mesh[side]["sulc"], np.arange(HALF))
            np.testing.assert_array_equal(mesh[side]["faces"], bundled(f"pial_{side}")[1])


def test_known_places_need_no_sphere(surf, tmp_path):
    folder = copied(surf, tmp_path, without=("lh.sphere.reg", "rh.sphere.reg"))
    at = np.argsort(ORDER)
    mesh = native_surface(folder, lambda h: at)()["pial"]
    np.testing.assert_allclose(mesh["right"]["vertices"], own("right", "pial"), atol=1e-4)
    with pytest.raises(UserError, match=r"lh\.sphere\.reg is missing"):
        native_surface(folder)()
    with pytest.raises(UserError, match=r"each of fsaverage5's has its place among them; found"):
        native_surface(folder, lambda h: at + 1)()


def test_mixed_up_hemispheres_are_refused(surf, tmp_path):
    folder = copied(surf, tmp_path)
    (folder / "lh.pial").write_bytes((surf / "rh.pial").read_bytes())
    (folder / "rh.pial").write_bytes((surf / "lh.pial").read_bytes())
    with pytest.raises(UserError, match=r"lh\.pial lies to the right of rh\.pial"):
        native_surface(folder)()


def test_it_is_offered_only_where_there_is_one(surf, tmp_path, painted):
    rois, space = painted
    assert native_surface(tmp_path) is None
    assert offered_surfaces(space, rois) == ("inflated", "pial", "flat")
    with_own = replace(space, native=native_surface(surf))
    assert offered_surfaces(with_own, rois)[3:] == ("native inflated", "native pial")
    assert offered_surfaces(with_own, replace(rois, surface=None)) == ()
    with pytest.raises(UserError, match="This data set has no surface of the subject's own"):
        surface_mesh("native pial", space)

"""Places of NSD's voxels on fsaverage5, from volumes and on surfaces."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from backends.datasets.nsd import NSD
from explorer.types import UserError
from tests.miniatures.nsd import (
    FSAVERAGE,
    INSIDE,
    SHAPE,
    VERTEX,
    betas_folder,
    ids_of,
    make,
    roi_folder,
    save_hemisphere,
    save_native,
    save_spheres,
    save_surface,
    save_volume,
)


def test_volumes_reach_fsaverage5_between_voxels(tmp_path):
    root = make(tmp_path)
    save_native(root)
    study = NSD(root, "study")
    voxels = study.load("subj01").subject.voxels
    projection = voxels.projection.toarray()
    assert projection.shape == (20_484, 80)
    places = np.argwhere(INSIDE).tolist()
    # Counted from 0: vertex 10 lies at (1.2, 2, 1), between (1, 2, 1) and (2, 2, 1).
    first, second = places.index([1, 2, 1]), places.index([2, 2, 1])
    for vertex in (10, 60, 10_210):
        row = projection[vertex]
        assert np.flatnonzero(row).tolist() == [first, second]
        np.testing.assert_allclose(row[[first, second]], [0.8, 0.2], rtol=1e-5)
    assert np.flatnonzero(projection[0]).tolist() == [first]
    right = places.index([4, 5, 3])
    assert np.flatnonzero(projection[10_242 + 7]).tolist() == [right]
    nowhere = np.arange(10_242) % 50 >= 48
    assert (projection[:10_242][nowhere] == 0).all()
    sums = projection.sum(axis=1)
    assert ((np.abs(sums - 1) < 1e-5) | (sums == 0)).all()
    assert "Desikan-Killiany" in voxels.parcellations
    told = " ".join(study.remarks())
    assert "3 of 80 voxels reach the surface" in told
    assert "for want of nsddata/freesurfer/fsaverage/surf/lh.sphere" in told


def test_only_voxels_that_are_read_have_weight(tmp_path):
    root = make(tmp_path)
    mask = np.zeros(SHAPE, np.float32)
    mask[2, 2, 1] = mask[4, 4, 4] = 1
    save_volume(roi_folder(root) / "nsdgeneral.nii.gz", mask)
    save_native(root)
    projection = NSD(root, "study").load("subj01").subject.voxels.projection.toarray()
    np.testing.assert_allclose(projection[10], [1, 0])  # 0.2 of it is read, and made whole
    assert (projection[0] == 0).all()  # lies at (1, 2, 1) alone


def test_depths_are_averaged(tmp_path):
    root = make(tmp_path)
    save_native(root, ("layerB1", "layerB2", "layerB3"))
    projection = NSD(root, "study").load("subj01").subject.voxels.projection.toarray()
    places = np.argwhere(INSIDE).tolist()
    here, there = places.index([1, 2, 1]), places.index([1, 3, 1])
    np.testing.assert_allclose(projection[0][[here, there]], [0.5, 0.5], rtol=1e-5)


def test_the_spheres_give_every_fsaverage_vertex_a_place(tmp_path):
    root = make(tmp_path)
    save_native(root)
    nearest = save_spheres(root)
    study = NSD(root, "study")
    voxels = study.load("subj01").subject.voxels
    projection = voxels.projection.toarray()
    vertex = 123
    own = np.flatnonzero(nearest == vertex) % 50
    own = own[own < 48]
    places = np.argwhere(INSIDE).tolist()
    expected = np.zeros(80)
    expected[places.index([1, 2, 1])] = np.mean(1 - own / 50)
    expected[places.index([2, 2, 1])] = np.mean(own / 50)
    np.testing.assert_allclose(projection[vertex], expected, rtol=1e-4)
    assert "sphere" not in " ".join(study.remarks())


def test_missing_transforms_are_named(tmp_path):
    root = make(tmp_path)
    study = NSD(root, "study")
    assert study.load("subj01").subject.voxels.projection is None
    told = " ".join(study.remarks())
    folder = "nsddata/ppdata/subj01/transforms"
    for name in ("lh.white-to-fsaverage.mgz", "rh.func1pt8-to-layerB2.mgz"):
        assert f"{folder}/{name}" in told
    save_native(root)
    (root / folder / "rh.func1pt8-to-layerB2.mgz").unlink()
    study = NSD(root, "study")
    assert study.load("subj01").subject.voxels.projection is None
    (told,) = [s for s in study.remarks() if "no map on the brain" in s]
    assert f"for want of {folder}/rh.func1pt8-to-layerB2.mgz; take" in told


def test_transforms_of_another_subject_are_refused(tmp_path):
    root = make(tmp_path)
    save_native(root)
    folder = root / "nsddata/ppdata/subj01/transforms"
    save_surface(folder / "lh.func1pt8-to-layerB2.mgz", np.ones((40, 1, 1, 3)))
    with pytest.raises(UserError, match="has 40 native vertices, but .* asks for vertex 50: two"):
        NSD(root, "study").load("subj01")
    save_surface(folder / "lh.white-to-fsaverage.mgz", np.zeros((FSAVERAGE, 1, 1)))
    with pytest.raises(UserError, match="counted from 1, for each of 163842, found .* down to 0"):
        NSD(root, "study").load("subj01")


def test_surfaces_are_read_left_then_right_as_they_are(nsd_surfaces):
    study = NSD(nsd_surfaces, "study", norm="none")
    assert study.space == "fsaverage"
    trials = study.load("subj01")
    assert trials.table["session"].unique().tolist() == [2]
    betas = trials.betas[[749, 5, 749]]
    expected = [[0.007 + t, 20 + t, -0.003 - t, -12 - t] for t in (749, 5, 749)]
    np.testing.assert_allclose(betas, expected, rtol=1e-5)  # percent: never divided by 300
    assert trials.table["stimulus"].iloc[5] == f"nsd-{ids_of(1, 2)[5] - 1:05d}"
    assert trials.subject.voxels.mask is None


def test_a_session_that_lacks_a_hemisphere_is_left_out(nsd_surfaces):
    told = " ".join(NSD(nsd_surfaces, "study").remarks())
    assert "session 3 lacks rh.betas_session03.mgh and is left out" in told


def test_surfaces_reach_fsaverage5_by_index(nsd_surfaces):
    study = NSD(nsd_surfaces, "study", norm="none")
    projection = study.load("subj01").subject.voxels.projection
    assert projection.shape == (20_484, 4)
    rows, columns = projection.nonzero()
    assert (rows.tolist(), columns.tolist()) == ([7, 10_242 + 3], [0, 2])
    told = " ".join(study.remarks())
    assert "what lies between the vertices of fsaverage5 has no place, for want of" in told


def test_all_vertices_can_be_read(nsd_surfaces):
    trials = NSD(nsd_surfaces, "study", roi="all", norm="none").load("subj01")
    assert trials.betas.shape == (750, 2 * FSAVERAGE)
    row = trials.betas[749]
    np.testing.assert_allclose(row[[0, 1000, FSAVERAGE]], [749, 750, -749])
    projection = trials.subject.voxels.projection
    assert projection.nnz == 20_484
    assert projection.indices[10_241:10_243].tolist() == [10_241, FSAVERAGE]


def test_labels_of_the_native_surface_are_carried_over(nsd_surfaces, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(nsd_surfaces, root, symlinks=True, copy_function=link)
    label = root / "nsddata/freesurfer/subj01/label"
    for h in ("lh", "rh"):
        values = np.full(50, -1.0)
        values[7 if h == "lh" else 3] = 2  # FFA-1, at fsaverage vertices 7, 57 ... and 3, 53 ...
        save_surface(label / f"{h}.floc-faces.mgz", values[:, None, None])
    assert "ROIs" not in NSD(root, "study").load("subj01").subject.voxels.parcellations
    save_native(root)
    atlas = NSD(root, "study").load("subj01").subject.voxels.parcellations["ROIs"]
    keys = [label.key for label in atlas.labels]
    assert atlas.membership[keys.index("FFA-1 L")].tolist() == [True, False, False, False]
    assert atlas.membership[keys.index("FFA-1 R")].tolist() == [False, False, True, False]


def link(source: str, target: str) -> None:
    Path(target).symlink_to(source)


def test_vertices_that_are_not_numbers_are_left_out(nsd_surfaces, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(nsd_surfaces, root, symlinks=True, copy_function=link)
    path = betas_folder(root, 1, "fsaverage") / "rh.betas_session02.mgh"
    path.unlink()
    values = -VERTEX / 1000
    values[12_000] = np.nan
    save_hemisphere(path.parent, "rh", 2, {0: values})
    study = NSD(root, "study", norm="none")
    np.testing.assert_allclose(study.load("subj01").betas[0], [0.007, 20, -0.003], rtol=1e-5)
    assert any("1 of 4 voxels of nsdgeneral are not numbers" in s for s in study.remarks())
    # ncsnr, where it is, says which were measured in every session
    for h in ("lh", "rh"):
        snr = np.where(VERTEX == (7 if h == "lh" else 12_000), np.nan, 0.5)
        save_surface(path.parent / f"{h}.ncsnr.mgh", snr[:, None, None])
    subject = NSD(root, "study", norm="none").load("subj01").subject
    assert subject.ncsnr.tolist() == [0.5, 0.5]


def test_surfaces_of_another_size_or_cut_short_are_refused(nsd_surfaces, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(nsd_surfaces, root, symlinks=True, copy_function=link)
    path = betas_folder(root, 1, "fsaverage") / "rh.betas_session02.mgh"
    path.unlink()
    save_surface(path, np.zeros((10_242, 1, 1, 2)))
    with pytest.raises(UserError, match=r"holds float32 \(10242, 1, 1, 2\), expected float32"):
        NSD(root, "study").load("subj01")
    save_hemisphere(path.parent, "rh", 2, {})
    with open(path, "r+b") as file:
        file.truncate(10_000_000)
    with pytest.raises(UserError, match=r"491,526,284 bytes, and the file has 10,000,000\); copy"):
        NSD(root, "study").load("subj01")
    label = root / "nsddata/freesurfer/fsaverage/label/lh.nsdgeneral.mgz"
    label.unlink()
    with pytest.raises(UserError, match=r"no lh.nsdgeneral.mgz .* one of all"):
        NSD(root, "study").load("subj01")
    save_surface(label, np.ones((10_242, 1, 1)))
    with pytest.raises(UserError, match="labels 10242 vertices, expected fsaverage's 163842"):
        NSD(root, "study").load("subj01")


def mapped(root, mapping: str) -> np.ndarray:
    space = NSD(root, "study", mapping=mapping).load("subj01").subject.voxels
    return space.projection.toarray()


def test_nearest_and_cubic_mappings_are_those_of_nsds_own_tool(tmp_path):
    root = make(tmp_path)
    everywhere = np.ones(SHAPE, np.float32)
    save_volume(roi_folder(root) / "nsdgeneral.nii.gz", everywhere)
    save_native(root)
    number = np.arange(everywhere.size).reshape(SHAPE)
    nearest, cubic = mapped(root, "nearest"), mapped(root, "cubic")
    for vertex in (0, 10, 24, 26, 47):  # at (1 + vertex / 50, 2, 1), counted from 0
        t = vertex / 50
        expected = np.zeros(everywhere.size)
        expected[number[1 + round(t), 2, 1]] = 1
        np.testing.assert_allclose(nearest[vertex], expected)
        # Catmull and Rom: through its points, with slopes of half the neighbours' difference
        values = np.eye(4)
        slope = (values[2] - values[0]) / 2, (values[3] - values[1]) / 2
        curve = (
            (2 * t**3 - 3 * t**2 + 1) * values[1]
            + (t**3 - 2 * t**2 + t) * slope[0]
            + (3 * t**2 - 2 * t**3) * values[2]
            + (t**3 - t**2) * slope[1]
        )
        expected = np.zeros(everywhere.size)
        expected[number[[0, 1, 2, 3], 2, 1]] = curve
        np.testing.assert_allclose(cubic[vertex], expected, atol=1e-6)
    assert nearest[25, number[2, 2, 1]] == 1  # halves are rounded up
    nowhere = np.arange(10_242) % 50 >= 48
    for projection in (nearest, cubic):
        assert (projection[:10_242][nowhere] == 0).all()
    # At the border, (4, 5, 3) counted from 0, what lies outside repeats it: a whole voxel.
    assert np.flatnonzero(cubic[10_242]).tolist() == [number[4, 5, 3]]


def test_surfaces_need_no_mapping(nsd_surfaces):
    with pytest.raises(UserError, match="mapping=cubic is for volumes, fsaverage needs none"):
        NSD(nsd_surfaces, "study", mapping="cubic")


def test_the_mapping_changes_no_voxels_and_is_told(tmp_path):
    root = make(tmp_path)
    save_native(root)
    studies = [NSD(root, "study", mapping=m) for m in ("linear", "nearest", "cubic")]
    assert len({study.load("subj01").subject.voxels.hash for study in studies}) == 1
    assert any("fsaverage5 (cubic mapping)" in s for s in studies[2].remarks())
    with pytest.raises(UserError, match="mapping is one of linear, nearest, cubic; found 'wta'"):
        NSD(root, "study", mapping="wta")


def test_a_cubic_weight_that_lies_mostly_on_unread_voxels_is_left_out(tmp_path):
    """Its weights may be below 0, so what is left of them cannot always be made whole."""
    root = make(tmp_path)
    mask = np.zeros(SHAPE, np.float32)
    mask[2, 2, 1] = 1
    save_volume(roi_folder(root) / "nsdgeneral.nii.gz", mask)
    save_native(root)
    projection = mapped(root, "cubic")
    assert projection[40] == 1  # at 1.8: the voxel at 2 has most of the weight
    assert projection[10] == 0  # at 1.2
    assert np.isfinite(projection).all()


def test_a_subjects_own_surface_takes_the_vertices_of_nsds_transform(nsd_surfaces, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(nsd_surfaces, root, symlinks=True, copy_function=link)
    assert NSD(root, "study", norm="none").load("subj01").subject.voxels.native is None
    native = save_native(root)["lh"][:10_242]
    surf = root / "nsddata/freesurfer/subj01/surf"
    surf.mkdir(parents=True)
    at = np.stack([np.arange(50), np.zeros(50), np.zeros(50)], axis=1)
    for h, points in (("lh", at - 60), ("rh", at + 10)):
        for shape in ("inflated", "pial"):
            nib.freesurfer.write_geometry(str(surf / f"{h}.{shape}"), points, np.zeros((1, 3)))
        nib.freesurfer.write_morph_data(str(surf / f"{h}.sulc"), np.arange(50) / 50)
    mesh = NSD(root, "study", norm="none").load("subj01").subject.voxels.native()["pial"]
    np.testing.assert_array_equal(mesh["left"]["vertices"][:, 0], native - 60)
    np.testing.assert_array_equal(mesh["right"]["vertices"][:, 0], native + 10)
    np.testing.assert_allclose(mesh["right"]["sulc"], native / 50)

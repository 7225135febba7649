"""Volumes in MNI space onto the surface, against nilearn and planted places."""

import nibabel as nib
import numpy as np
import pytest

from explorer.brain.atlases import desikan_killiany
from explorer.brain.parcels import lay
from explorer.brain.projection import project_volume
from explorer.types import FSAVERAGE5_VERTICES as N
from explorer.types import UserError

HALF = N // 2


@pytest.fixture(scope="module")
def atlas():
    return desikan_killiany()


SHAPE, SIZE = (62, 74, 62), 3.0


@pytest.fixture(scope="module")
def whole():
    """Return a mask over all of MNI space, its affine, and the projection of that volume."""
    affine = np.diag([-SIZE, SIZE, SIZE, 1.0])  # x runs from right to left, as in many files
    affine[:3, 3] = 92, -128, -74
    mask = np.ones(SHAPE, dtype=bool)
    return mask, affine, project_volume(mask, affine)


def positions(mask, affine):
    """Return millimetres (V, 3) of the voxels of a mask, in C order."""
    return np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]


def middle(part=0.5):
    """Return the vertices (20,484, 3) between white matter and pial surface, as nilearn has them.

    Coordinates are read through nilearn's own loader, not through ours.
    """
    from nilearn.datasets import load_fsaverage

    mesh = load_fsaverage("fsaverage5")
    return np.concatenate(
        [
            (1 - part) * mesh["white_matter"].parts[h].coordinates
            + part * mesh["pial"].parts[h].coordinates
            for h in ("left", "right")
        ]
    )


def test_places_in_mni_come_out_where_the_vertices_are(whole):
    mask, affine, projection = whole
    assert projection.shape == (N, mask.size) and projection.dtype == np.float32
    np.testing.assert_allclose(projection.sum(axis=1), 1, rtol=1e-5)
    found = projection @ positions(mask, affine)
    far = np.linalg.norm(found - middle(), axis=1)
    assert np.median(far) < 1.0 and far.max() < SIZE  # within one voxel everywhere


def test_a_smooth_map_comes_out_as_nilearn_projects_it(whole):
    from nilearn.datasets import load_fsaverage
    from nilearn.surface import vol_to_surf

    mask, affine, projection = whole
    x, y, z = positions(mask, affine).T
    smooth = np.sin(x / 25) + np.cos(y / 30) * np.sin(z / 20)
    ours = projection @ smooth
    mesh = load_fsaverage("fsaverage5")
    volume = nib.Nifti1Image(smooth.reshape(SHAPE).astype(np.float32), affine)
    theirs = np.concatenate(
        [
            vol_to_surf(volume, mesh["pial"].parts[h], inner_mesh=mesh["white_matter"].parts[h])
            for h in ("left", "right")
        ]
    )
    assert np.abs(ours - theirs).max() < 0.15  # the map reaches from -2 to 2
    assert np.corrcoef(ours, theirs)[0, 1] > 0.9995


def test_voxels_are_counted_in_c_order_and_lacking_ones_leave_gaps(whole):
    mask, affine, projection = whole
    left = mask & (positions(mask, affine)[:, 0] < -4).reshape(SHAPE)
    part = project_volume(left, affine)
    assert part.shape == (N, left.sum())
    found = part @ positions(left, affine)
    seen = np.diff(part.indptr) > 0
    assert seen[:HALF].mean() > 0.9 and not seen[HALF:].any()
    np.testing.assert_allclose(part.sum(axis=1)[seen], 1, rtol=1e-5)
    well = seen & (middle()[:, 0] < -10)
    assert np.abs(found - middle())[well].max() < SIZE


def test_most_voxels_of_the_cortex_are_found(whole, atlas):
    """A voxel that no vertex sees belongs to no parcel, so none of the cortex may be passed by."""
    mask, affine, projection = whole
    inside = np.concatenate([middle(d) for d in (0.2, 0.5, 0.8)])
    index = np.rint((inside - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T).astype(int)
    cortex = np.unique(np.ravel_multi_index(index.T, SHAPE))
    seen = np.asarray((projection != 0).sum(axis=0)).ravel() > 0
    assert seen[cortex].mean() > 0.995
    laid = lay(atlas, projection, "h")
    y = positions(mask, affine)[:, 1]
    keys = [label.key for label in atlas.labels]
    occipital = np.isin(laid.membership, [keys.index(f"cuneus {h}") for h in "LR"])
    assert occipital.sum() > 100 and y[occipital].max() < -55


def rows_by_hand(vertices, mask, affine):
    """Yield the weights (V,) of each vertex, face by face and point by point."""
    from nilearn.datasets import load_fsaverage

    mesh, inverse = load_fsaverage("fsaverage5"), np.linalg.inv(affine)
    number = {tuple(place): i for i, place in enumerate(np.argwhere(mask).tolist())}
    grid = [np.array([a, b, 4 - a - b]) for a in range(5) for b in range(5 - a)]
    for vertex in vertices:
        side, own = ("left" if vertex < HALF else "right"), vertex % HALF
        white, pial = (mesh[name].parts[side] for name in ("white_matter", "pial"))
        weights = np.zeros(mask.sum())
        for face in white.faces[(white.faces == own).any(axis=1)]:
            corner = face.tolist().index(own)
            points = [part for part in grid if part[corner] == part.max()]  # nearest to this one
            shares = [1 / (part == part.max()).sum() for part in points]
            for depth in (0.1, 0.3, 0.5, 0.7, 0.9):
                corners = (1 - depth) * white.coordinates[face] + depth * pial.coordinates[face]
                places = np.array(points) / 4 @ corners @ inverse[:3, :3].T + inverse[:3, 3]
                for place, share in zip(np.rint(places).astype(int).tolist(), shares, strict=True):
                    if tuple(place) in number:
                        weights[number[tuple(place)]] += share
        yield weights / max(weights.sum(), 1e-9)


def test_each_row_is_what_its_faces_meet_point_by_point():
    """In a volume with holes whose borders cut through the brain, its first voxels among them."""
    affine = np.diag([-4.0, 4, 4, 1])
    affine[:3, 3] = 40, -60, -20
    mask = np.random.default_rng(0).random((18, 20, 16)) < 0.7
    projection = project_volume(mask, affine)
    count = np.diff(projection.indptr)
    touched, few = np.flatnonzero(count), np.flatnonzero((count > 0) & (count < 3))
    vertices = np.random.default_rng(1).choice(touched, 8, replace=False).tolist()
    vertices += few[[0, len(few) // 2, -1]].tolist() + np.flatnonzero(count == 0)[:2].tolist()
    for vertex, row in zip(vertices, rows_by_hand(vertices, mask, affine), strict=True):
        np.testing.assert_allclose(projection[vertex].toarray()[0], row, atol=1e-6)


def test_the_outermost_voxels_of_a_volume_count():
    """One place of the cortex as the first and as the last voxel of a volume."""
    affine = np.diag([3.0, 3, 3, 1])
    affine[:3, 3] = -90, -125, -75
    place = np.rint((middle()[100] - affine[:3, 3]) / 3).astype(int)
    seen = []
    for begin, size in ((place, (4, 4, 4)), (np.zeros(3, int), tuple(place + 1))):
        moved, mask = affine.copy(), np.zeros(size, bool)
        moved[:3, 3] += affine[:3, :3] @ begin
        mask[tuple(place - begin)] = True
        seen.append(np.flatnonzero(np.diff(project_volume(mask, moved).indptr)).tolist())
    assert seen[0] == seen[1] and len(seen[0]) > 1


def test_volumes_that_lie_elsewhere_are_refused(whole):
    mask, affine, _ = whole
    moved = affine.copy()
    moved[:3, 3] += 500
    with pytest.raises(UserError, match="None of the 284456 voxels lies in the cortex .* MNI"):
        project_volume(mask, moved)
    with pytest.raises(UserError, match=r"bool mask \(X, Y, Z\) and an affine .* float64 \(62, 7"):
        project_volume(mask.astype(float), affine)
    with pytest.raises(UserError, match="affine cannot be inverted; check the file's header"):
        project_volume(mask, np.zeros((4, 4)))

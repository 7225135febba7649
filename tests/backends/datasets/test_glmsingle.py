"""GLMsingle's files: which is read, how axes lie, and where surfaces have vertices."""

import h5py
import numpy as np
import pytest

from backends.datasets import glmsingle
from backends.datasets.glmsingle import Grid, blocks, check_axes, find_results, look, surface
from explorer.types import UserError
from tests.miniatures.glmsingle import SHAPE, single_trials, write_results


def test_the_kind_with_most_methods_that_every_session_has_is_read(tmp_path):
    for session in ("ses-01", "ses-02"):
        write_results(tmp_path / session, kind="TYPEC")
    assert {f.name[:5] for f in find_results(tmp_path)} == {"TYPEC"}
    write_results(tmp_path / "ses-01", kind="TYPED")
    assert {f.name[:5] for f in find_results(tmp_path)} == {"TYPEC"}
    write_results(tmp_path / "ses-02", kind="TYPED")
    assert [f.parent.name for f in find_results(tmp_path)] == ["ses-01", "ses-02"]
    assert {f.name[:5] for f in find_results(tmp_path)} == {"TYPED"}
    with pytest.raises(UserError, match="TYPEB is in every one of the 2 folders|TYPEB"):
        find_results(tmp_path, "TYPEB")
    np.save(tmp_path / "ses-01" / "TYPED_mine.npy", single_trials())
    with pytest.raises(UserError, match="nothing says which to read"):
        find_results(tmp_path)


def test_a_folder_without_single_trials_says_so(tmp_path):
    with h5py.File(tmp_path / "TYPEA_ONOFF.hdf5", "w") as file:
        file["betasmd"] = np.ones(SHAPE)
    with pytest.raises(UserError, match=r"has no results of GLMsingle \(TYPED_\*.hdf5"):
        find_results(tmp_path)
    file = write_results(tmp_path)
    with h5py.File(file, "a") as opened:
        del opened["betasmd"]
    with pytest.raises(UserError, match="has no array 'betasmd'; it has FRACvalue, HRFindex"):
        glmsingle.open_betas(file)


def test_blocks_give_every_voxel_once_in_c_order(monkeypatch):
    betas, mask = single_trials(), np.random.default_rng(0).random(SHAPE) < 0.4
    mask[2] = False
    grid = Grid("", int(mask.sum()), mask, np.eye(4))
    monkeypatch.setattr(glmsingle, "BLOCK", 40)  # a slab at a time
    for array in (betas, betas.reshape(-1, 1, 1, 36), betas[mask], betas[mask][:, None, None]):
        parts = list(blocks(array, grid))
        assert [p[0].start for p in parts[1:]] == [p[0].stop for p in parts[:-1]]
        assert len(parts) > 1
        np.testing.assert_array_equal(np.concatenate([p[1] for p in parts]), betas[mask])


def test_singleton_axes_of_the_grid_itself_do_not_confuse():
    mask = np.ones((1, 6, 5), bool)
    mask[0, 0, 0] = False
    betas = np.arange(6 * 5 * 4.0).reshape(1, 6, 5, 4)
    grid = Grid("", 29, mask, np.eye(4))
    for array in (betas, betas[0]):
        check_axes(array.shape, grid, 4, "it")
        found = np.concatenate([values for _, values in blocks(array, grid)])
        np.testing.assert_array_equal(found, betas[mask])


def test_z_scored_betas_are_known_by_their_mean_and_spread():
    betas = single_trials()
    grid = Grid("", betas[..., 0].size, np.ones(SHAPE, bool), np.eye(4))
    assert not look(betas, grid).scored
    scored = (betas - betas.mean(-1, keepdims=True)) / betas.std(-1, keepdims=True)
    assert look(scored, grid).scored and look(scored, grid).usable.all()


@pytest.mark.parametrize(
    ("space", "count", "side", "placed"),
    [
        ("fsaverage5", 20_484, "", 20_484),
        ("fsaverage", 163_842, "R", 10_242),
        ("fsaverage6", 81_924, "", 20_484),
        ("fsLR", 32_492, "L", 29_696),
        ("fsLR", 32_492, "R", 29_716),
        ("fsLR", 64_984, "", 59_412),
        ("fsLR", 91_282, "", 59_412),
    ],
)
def test_vertices_of_surfaces(space, count, side, placed):
    vertex = surface(space, count, side)
    assert vertex.shape == (count,) and (vertex >= 0).sum() == placed
    there = vertex[vertex >= 0]
    assert side != "L" or there.max() < 10_242
    assert side != "R" or there.min() >= 10_242
    if not side and space != "fsLR":
        half = count // 2
        np.testing.assert_array_equal(vertex[[0, 10_241]], [0, 10_241])
        np.testing.assert_array_equal(vertex[[half, half + 10_241]], [10_242, 20_483])


def test_another_number_of_vertices_is_named():
    sentence = "both hemispheres of fsLR have 64,984 or 59,412 or 91,282 vertices, and the betas"
    with pytest.raises(UserError, match=sentence):
        surface("fsLR", 20_484)
    with pytest.raises(UserError, match="the L hemisphere of fsaverage has 163,842 vertices"):
        surface("fsaverage", 10_242, "L")

"""From voxels to parcels: shares, means and enrichment against algebra."""

import numpy as np
import pytest

from explorer.brain.importance import is_flat, mean_map, parcel_statistics, per_parcel
from explorer.types import Label, Parcellation, UserError

VOXELS = 40


def partition(sizes, voxel_hash="h"):
    """Return parcels of these sizes, one after the other, and the rest unassigned."""
    labels = tuple(Label(f"p{i}", "L") for i in range(len(sizes)))
    membership = np.full(VOXELS, -1)
    membership[: sum(sizes)] = np.repeat(np.arange(len(sizes)), sizes)
    return Parcellation("planted", "partition", labels, membership, voxel_hash)


def test_statistics_per_parcel_by_hand():
    values = np.zeros(VOXELS)
    values[:4] = [1, -1, 2, 0]  # p0, 4 voxels
    values[4:16] = 0.5  # p1, 12 voxels
    values[16:] = -0.25  # unassigned, 24 voxels
    table = per_parcel(values, partition([4, 12])).set_index("parcel")
    assert list(table.index) == ["p0 L", "p1 L", "(unassigned)"]
    assert list(table["voxels"]) == [4, 12, 24]
    np.testing.assert_allclose(table["share"], [4 / 16, 6 / 16, 6 / 16])
    np.testing.assert_allclose(table["mean"], [1, 0.5, 0.25])
    np.testing.assert_allclose(table["enrichment"], [2.5, 1.25, 0.625])
    np.testing.assert_allclose(table["signed"], [2, 6, -6])
    assert list(table["small"]) == [True, False, False]
    assert table.loc["p0 L", "name"] == "p0" and table.loc["p0 L", "hemisphere"] == "L"
    assert table.loc["(unassigned)", "hemisphere"] == ""


def test_shares_sum_to_one_and_enrichment_averages_to_one():
    rng = np.random.default_rng(0)
    table = per_parcel(rng.normal(size=VOXELS), partition([4, 12, 20]))
    assert table["share"].sum() == pytest.approx(1)
    assert np.average(table["enrichment"], weights=table["voxels"]) == pytest.approx(1)


def test_empty_parcels_and_flat_gradients_have_no_value():
    table = per_parcel(np.ones(VOXELS), partition([10, 0, 30]))
    empty, none_left = table.iloc[1], table.iloc[3]
    assert empty["voxels"] == none_left["voxels"] == 0 and empty["small"]
    measures = ["share", "mean", "enrichment", "signed"]
    assert empty[measures].isna().all() and none_left[measures].isna().all()
    flat = per_parcel(np.zeros(VOXELS), partition([10, 30]))
    assert flat["share"].isna().all() and flat["enrichment"].isna().all()
    assert (flat["mean"][:2] == 0).all() and (flat["signed"][:2] == 0).all()
    assert is_flat(np.zeros((3, VOXELS))).tolist() == [True] * 3


def test_overlapping_masks():
    member = np.zeros((2, VOXELS), dtype=bool)
    member[0, :20], member[1, 10:30] = True, True
    rois = Parcellation("rois", "masks", (Label("V1"), Label("VC")), member, "h")
    table = per_parcel(np.ones(VOXELS), rois)
    np.testing.assert_allclose(table["share"], [0.5, 0.5, 0.25])
    np.testing.assert_allclose(table["enrichment"], 1)
    assert list(table["voxels"]) == [20, 20, 10]


def test_several_trials_are_averaged_and_flat_ones_left_out():
    rng = np.random.default_rng(5)
    atlas = partition([6, 14])
    maps = rng.normal(size=(5, VOXELS)) * np.logspace(-3, 3, 5)[:, None]
    whole = per_parcel(maps, atlas)
    each = [per_parcel(row, atlas) for row in maps]
    for measure in ("share", "mean", "enrichment", "signed"):
        expected = np.mean([t[measure] for t in each], axis=0)
        np.testing.assert_allclose(whole[measure], expected, err_msg=measure)
    with_flat = np.concatenate([maps, np.zeros((2, VOXELS))])
    np.testing.assert_allclose(per_parcel(with_flat, atlas)["share"], whole["share"])
    averaged = mean_map(with_flat)
    assert averaged.sum() == pytest.approx(1)
    np.testing.assert_allclose(per_parcel(averaged, atlas)["share"], whole["share"])
    nothing = mean_map(np.zeros((2, VOXELS)))
    assert nothing.shape == (VOXELS,) and np.isnan(nothing).all()
    assert parcel_statistics(with_flat, atlas)["share"].shape == (7, 3)


def test_size_biases_of_duplicated_voxels():
    """A parcel is doubled, with weights copied, or halved as ridge does."""
    rng = np.random.default_rng(6)
    values = np.abs(rng.normal(size=VOXELS))
    single = partition([20, 20])
    doubled = np.concatenate([np.zeros(20, int), np.ones(40, int)])
    twice = Parcellation("twice", "partition", single.labels, doubled, "h")
    before = per_parcel(values, single).iloc[1]
    copied = per_parcel(np.concatenate([values, values[20:]]), twice).iloc[1]
    halved = per_parcel(np.concatenate([values[:20], values[20:] / 2, values[20:] / 2]), twice)
    assert copied["signed"] == pytest.approx(2 * before["signed"])
    assert copied["mean"] == pytest.approx(before["mean"])
    assert halved.iloc[1]["signed"] == pytest.approx(before["signed"])
    assert halved.iloc[1]["share"] == pytest.approx(before["share"])
    assert halved.iloc[1]["mean"] == pytest.approx(before["mean"] / 2)


def test_another_voxel_count_is_refused_with_both_numbers():
    with pytest.raises(UserError, match="covers 40 voxels, the attribution has 41"):
        per_parcel(np.ones(41), partition([10]))


def test_ten_voxels_are_enough():
    table = per_parcel(np.ones(VOXELS), partition([9, 10, 11]))
    assert list(table["small"]) == [True, False, False, False]

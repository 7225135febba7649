"""Lesions: laws, and known answers of a linear mapper."""

from dataclasses import replace

import numpy as np
import pytest

from explorer.brain.maps import parcellation_of
from explorer.brain.parcels import UNASSIGNED
from explorer.choosing import default_request
from explorer.decoding import decode, decoded_space, request_betas
from explorer.drawing import reconstruct
from explorer.evidence import lesions
from explorer.evidence.faithfulness import faithfulness
from explorer.evidence.lesions import ANOTHER, NOISE, TRAINING_MEAN, ZERO, Lesion
from explorer.request import View
from explorer.types import Parcellation, UserError, VoxelSpace

FUSIFORM = ("fusiform L", "fusiform R")


@pytest.fixture
def request_(workbench):
    return replace(
        default_request(workbench.catalogue, "fake", "sub-01", seed=0), stimulus="test-03"
    )


@pytest.fixture
def linear(workbench):
    return workbench.models.mapper("fake", "sub-01", "linear")


def voxels_of(bench, *parcels):
    parcellation = parcellation_of(bench, "fake", "sub-01")
    keys = [label.key for label in parcellation.labels]
    return np.isin(parcellation.membership, [keys.index(parcel) for parcel in parcels])


def every(bench, request):
    table = lesions.lesion_effects(bench, request).table
    return tuple(table["parcel"][table["voxels"] > 0])


# ----------------------------------------------------------------------------------- the betas


def test_gain_1_is_intact_for_every_fill(workbench, request_):
    for fill in lesions.FILLS:
        how = Lesion(FUSIFORM, 1.0, fill)
        betas = lesions.lesioned_betas(workbench, request_, how)
        np.testing.assert_allclose(betas, request_betas(workbench, request_), rtol=1e-6, atol=1e-6)
        found = lesions.lesion(workbench, request_, how)
        assert found.shift == pytest.approx(0, abs=1e-6)
        assert found.intact.margin == pytest.approx(found.lesioned.margin, abs=1e-5)


def test_everything_lesioned_is_the_mean_brain(workbench, request_, linear):
    parcels = tuple(dict.fromkeys([*every(workbench, request_)]))
    betas = lesions.lesioned_betas(workbench, request_, Lesion(parcels))
    np.testing.assert_array_equal(betas, linear.statistics("sub-01")[0].numpy())


def test_what_replaces_betas(workbench, request_, linear):
    own, mean, sd = (
        request_betas(workbench, request_),
        *(s.numpy() for s in linear.statistics("sub-01")),
    )
    where = voxels_of(workbench, *FUSIFORM)
    donor = workbench.catalogue.trials("fake", "sub-01").average("test-05")

    def lesioned(gain, fill, donor=""):  # noqa: ANN001, ANN202
        return lesions.lesioned_betas(workbench, request_, Lesion(FUSIFORM, gain, fill, donor))

    expected = {
        TRAINING_MEAN: mean,
        ZERO: np.zeros_like(mean),
        ANOTHER: donor,
    }
    for fill, values in expected.items():
        name = "test-05" if fill == ANOTHER else ""
        for gain in (0.0, 0.5, 2.0):
            found = lesioned(gain, fill, name)
            np.testing.assert_array_equal(found[~where], own[~where])
            exact = values + gain * (own - values)
            np.testing.assert_allclose(found[where], exact[where], atol=1e-5)
    noise = (lesioned(0.0, NOISE)[where] - mean[where]) / sd[where]
    assert abs(noise.mean()) < 0.5 and 0.7 < noise.std() < 1.3
    np.testing.assert_array_equal(lesioned(0.0, NOISE), lesioned(0.0, NOISE))
    other = lesions.lesioned_betas(
        workbench, replace(request_, seed=9), Lesion(FUSIFORM, 0, NOISE)
    )
    assert (other[where] != lesioned(0.0, NOISE)[where]).all()


def test_a_swap_takes_the_pattern_of_another_trial(workbench, request_):
    how = lesions.swap(FUSIFORM, "test-05")
    betas = lesions.lesioned_betas(workbench, request_, how)
    where = voxels_of(workbench, *FUSIFORM)
    donor = workbench.catalogue.trials("fake", "sub-01").average("test-05")
    np.testing.assert_allclose(betas[where], donor[where], atol=1e-6)
    found = lesions.lesion(workbench, request_, how)
    assert found.donor == "test-05" and "when test-05 was shown" in found.sentence
    chosen = lesions.lesion(workbench, request_, lesions.swap(FUSIFORM))
    assert chosen.donor and chosen.donor != "test-03"


def test_a_wrong_lesion_is_refused(workbench, request_):
    assert repr(Lesion(FUSIFORM, 1).gain) == "1.0"  # one type, whatever a program gave
    for arguments, told in {
        ((),): "at least one parcel",
        (FUSIFORM, 2.5): "between 0 and 2, found 2.5",
        (FUSIFORM, float("nan")): "between 0 and 2, found nan",
        (FUSIFORM, 0, "silence"): "training mean, zero, another trial, matched noise, found 'sile",
        (
            FUSIFORM,
            0,
            ZERO,
            "test-05",
        ): "trial test-05 is given and betas are replaced by the zero",
    }.items():
        with pytest.raises(UserError, match=told):
            Lesion(*arguments)
    for how, told in {
        Lesion(("moon",)): "no parcel 'moon'",
        Lesion(("insula L",)): "insula L has no voxels of fake/sub-01",
        lesions.swap(FUSIFORM, "test-03"): "test-03 is the trial itself",
        lesions.swap(FUSIFORM, "test-99"): "no test stimulus 'test-99'",
    }.items():
        with pytest.raises(UserError, match=told):
            lesions.lesion(workbench, request_, how)
    assert Lesion(["a", "a", "b"], 1).parcels == ("a", "b")  # each once, as a tuple


# ------------------------------------------------------------------------------------- one trial


def test_shift_ranks_and_warnings(workbench, request_, linear):
    found = lesions.lesion(workbench, request_, Lesion(FUSIFORM))
    where, mean = voxels_of(workbench, *FUSIFORM), linear.statistics("sub-01")[0].numpy()
    betas = request_betas(workbench, request_)
    rows = np.stack([betas, np.where(where, mean, betas)])
    a, b = linear.decode(rows, "sub-01")[decoded_space(workbench, request_)].astype(float)
    assert found.voxels == where.sum() == 50
    assert found.shift == pytest.approx(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    decoding = decode(workbench, request_)
    assert found.intact.margin == pytest.approx(decoding.margin)
    assert found.warning == ""
    whole = lesions.lesion(workbench, request_, Lesion(every(workbench, request_)))
    assert whole.warning.startswith("This changes all parcels")
    assert "0, the average response" in whole.sentence
    assert "made up" in lesions.lesion(workbench, request_, Lesion(FUSIFORM, 0, ZERO)).sentence


def test_pictures_are_the_sweeps_and_the_lesioned_brains(workbench, request_):
    request = replace(request_, scales=(0.0, 2.0, 4.0))
    sweep = {f.scale: f.image for f in reconstruct(workbench, request) if f.done}
    how = Lesion(FUSIFORM)
    for scale in (2.0, 4.0):
        pair = lesions.lesion_pictures(workbench, request, how, scale=scale)
        np.testing.assert_array_equal(pair.intact.image, sweep[scale])
        assert (pair.lesioned.image != pair.intact.image).any()
        change = lesions.difference(pair.intact.image, pair.lesioned.image)
        np.testing.assert_array_equal(pair.difference, change)
    assert lesions.lesion_pictures(workbench, request, how).intact.scale == 2.0
    same = lesions.lesion_pictures(workbench, request, Lesion(FUSIFORM, 1.0))
    np.testing.assert_array_equal(same.intact.image, same.lesioned.image)
    assert (same.difference == 128).all()
    painted = workbench.models.generator("painter").painted
    lesions.lesion_pictures(workbench, request, how)
    assert workbench.models.generator("painter").painted == painted  # kept


def test_a_difference_is_signed_around_grey():
    before = np.full((4, 4, 3), 100, np.uint8)
    after = before.copy()
    after[0, 0], after[0, 1], after[0, 2] = 120, 80, 255
    change = lesions.difference(before, after)
    assert list(change[0, :3, 0]) == [138, 118, 206] and (change[1:] == 128).all()
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert lesions.difference(black, white).max() == 255
    assert lesions.difference(white, black).min() == 0
    assert lesions.difference(before, white).shape == (4, 4, 3)


# ------------------------------------------------------------------------------------ all parcels


def test_the_batch_of_effects_equals_single_lesions(workbench, request_):
    effects = lesions.lesion_effects(workbench, request_)
    table = effects.table.set_index("parcel")
    assert list(effects.table["parcel"])[-1] == UNASSIGNED and effects.fill == TRAINING_MEAN
    for parcel in every(workbench, request_):
        one = lesions.lesion(workbench, request_, Lesion((parcel,)))
        row = table.loc[parcel]
        assert row["effect"] == pytest.approx(one.intact.margin - one.lesioned.margin, abs=1e-4)
        assert row["shift"] == pytest.approx(one.shift, abs=1e-6)
        assert row["rank"] == one.lesioned.rank
    empty = table[table["voxels"] == 0]
    assert len(empty) and empty[["effect", "shift", "rank"]].isna().all(axis=None)
    assert lesions.lesion_effects(workbench, request_) is effects
    swapped = lesions.lesion_effects(workbench, request_, fill=ANOTHER).table
    assert not np.allclose(swapped["shift"].dropna(), effects.table["shift"].dropna())


def test_small_parcels_and_no_atlas_say_so(make_workbench, fakes):
    class Small(fakes.Study):
        def load(self, subject):  # noqa: ANN001, ANN202
            trials = super().load(subject)
            voxels = trials.subject.voxels
            membership = np.full(voxels.n_voxels, -1)
            membership[:4] = 0
            atlas = next(iter(voxels.parcellations.values()))
            parcellation = Parcellation(
                "tiny", "partition", atlas.labels[:1], membership, voxels.hash
            )
            tiny = replace(voxels, parcellations={"tiny": parcellation})
            return replace(trials, subject=replace(trials.subject, voxels=tiny))

    class Nowhere(fakes.Study):
        def load(self, subject):  # noqa: ANN001, ANN202
            trials = super().load(subject)
            voxels = VoxelSpace(trials.subject.voxels.n_voxels, trials.subject.voxels.hash)
            return replace(trials, subject=replace(trials.subject, voxels=voxels))

    bench = make_workbench(datasets={"fake": Small})
    request = default_request(bench.catalogue, "fake", "sub-01", seed=0)
    parcel = parcellation_of(bench, "fake", "sub-01").labels[0].key
    found = lesions.lesion(bench, request, Lesion((parcel,)))
    assert found.warning == "These are 4 voxels, fewer than 10: what they do may be chance."
    rest = lesions.lesion(bench, request, Lesion((UNASSIGNED,)))  # all other voxels
    effects = lesions.lesion_effects(bench, request).table["effect"]
    expected = [one.intact.margin - one.lesioned.margin for one in (found, rest)]
    assert effects.tolist() == pytest.approx(expected, abs=1e-4)

    bench = make_workbench(datasets={"fake": Nowhere})
    request = default_request(bench.catalogue, "fake", "sub-01", seed=0)
    effects = lesions.lesion_effects(bench, request)
    assert list(effects.table["parcel"]) == [UNASSIGNED]
    found = lesions.lesion(bench, request, Lesion((UNASSIGNED,)))
    assert "all voxels (no atlas divides them)" in found.warning
    faithful = faithfulness(bench, request, View())
    assert np.isnan(faithful.correlation)
    assert "1 parcels are too few" in faithful.sentence


def test_with_one_test_image_only_shift_and_pictures_tell(make_workbench, fakes):
    bench = make_workbench(datasets={"fake": fakes.OneImage})
    request = default_request(bench.catalogue, "fake", "sub-02", seed=0)
    found = lesions.lesion(bench, request, Lesion(FUSIFORM))
    assert found.shift > 0 and np.isnan(found.lesioned.margin)
    assert "no rank and no margin that could fall" in found.warning
    effects = lesions.lesion_effects(bench, request).table
    assert effects["effect"].isna().all() and effects["shift"].notna().any()
    with pytest.raises(UserError, match="no other test image with such trials"):
        lesions.lesion(bench, request, lesions.swap(FUSIFORM))
    lesions.lesion_pictures(bench, request, Lesion(FUSIFORM))


def test_a_lesion_needs_no_generator(workbench, request_):
    without = replace(request_, generator="")
    found = lesions.lesion(workbench, without, Lesion(FUSIFORM))
    assert found.shift == lesions.lesion(workbench, request_, Lesion(FUSIFORM)).shift
    assert workbench.checkpoint_hashes(without)["generator"] == "none"
    assert faithfulness(workbench, without, View()).parcels == 8


def test_a_request_that_cannot_be_is_refused_before_anything_is_computed(workbench, request_):
    for ask in (
        lambda r: lesions.lesion(workbench, r, Lesion(FUSIFORM)),
        lambda r: lesions.lesion_effects(workbench, r),
        lambda r: lesions.lesion_pictures(workbench, r, Lesion(FUSIFORM)),
    ):
        with pytest.raises(UserError, match="fake/sub-01 has no test stimulus 'nothing'; choose"):
            ask(replace(request_, stimulus="nothing"))
        with pytest.raises(UserError, match=r"repeat"):
            ask(replace(request_, repeats=(7,)))


def test_a_mapper_without_betas_or_embedder_is_not_lesioned(make_workbench, workbench):
    bench = make_workbench(embedders={})
    request = default_request(bench.catalogue, "fake", "sub-01", seed=0)
    with pytest.raises(UserError, match="No embedder here puts images into fake-clip/image"):
        lesions.lesion(bench, request, Lesion(FUSIFORM))
    none = replace(default_request(workbench.catalogue, "fake", "sub-01", seed=0), mapper="")
    assert "no mapper here" in lesions.unlesioned(workbench, none)

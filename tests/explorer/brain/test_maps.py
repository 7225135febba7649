"""Maps of a trial and of its subject's voxels, over a study whose signal is planted."""

import dataclasses

import numpy as np
import pytest

from explorer import metrics
from explorer.brain import maps
from explorer.brain.maps import (
    is_mapped,
    map_names,
    map_of_voxels,
    parcel_importance,
    parcellation_of,
    shown_map,
    target_names,
)
from explorer.decoding import decode
from explorer.request import METHODS, TARGETS, View
from explorer.types import Label, Parcellation, UserError
from tests.explorer.asking import REQUEST, every_trial


@pytest.fixture
def dense(make_workbench, fakes):
    """Return a workbench whose mapper also gives a density."""

    class Dense(fakes.Linear):
        def log_prob(self, betas, embedding, subject, *, space=None):
            return -0.5 * (embedding - self(betas, subject)[space]).square().sum(dim=1)

    return make_workbench(mappers={"linear": Dense, "ridge": fakes.Linear})


def test_the_log_likelihood_is_a_target_where_a_mapper_gives_one(workbench, dense):
    assert target_names(dense, "fake", "sub-01", "linear") == list(TARGETS)
    for bench, subject, name in (
        (workbench, "sub-01", "linear"),
        (dense, "sub-02", "ridge (fitted now)"),
        (dense, "sub-01", ""),
    ):
        assert target_names(bench, "fake", subject, name) == list(TARGETS[:2])
    with pytest.raises(UserError, match="linear gives an embedding and no density, so it has no"):
        parcel_importance(workbench, REQUEST, View(target="log-likelihood"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", TARGETS)
def test_the_planted_parcels_lead_and_shares_sum_to_one(dense, fakes, method, target):
    workbench, view = dense, View(method=method, target=target)
    tables = [parcel_importance(workbench, r, view).table for r in every_trial(workbench)]
    assert all(table["share"].sum() == pytest.approx(1) for table in tables)
    table = tables[0].assign(enrichment=np.mean([t["enrichment"] for t in tables], axis=0))
    present = table[table["voxels"] > 0]
    planted = present[present["name"].isin(fakes.informative)]["enrichment"]
    others = present[~present["name"].isin(fakes.informative)]["enrichment"]
    assert len(planted) == 4 and len(others) == 4 and planted.min() > others.max()


def test_a_map_is_the_attribution_of_its_trial(workbench, fakes):
    view = View(method="gradient x input", target="fixed direction")
    parcel_map = parcel_importance(workbench, REQUEST, view)
    mapper = workbench.models.mapper("fake", "sub-01", "linear")
    w = fakes.Embedder().embed([fakes.picture("test-04")])[0]
    betas = workbench.catalogue.trials("fake", "sub-01").average("test-04")
    weight = mapper.get_parameter("weight_sub-01").detach().numpy()
    z = (betas - mapper.get_buffer("mean_sub-01").numpy()) / mapper.get_buffer("sd_sub-01").numpy()
    np.testing.assert_allclose(parcel_map.voxels, z * (weight @ w), atol=1e-5)
    total = parcel_map.table["signed"].dropna().sum()
    assert total == pytest.approx(decode(workbench, REQUEST).embedding @ w, rel=1e-4)
    assert (parcel_map.atlas, parcel_map.n_voxels) == ("Desikan-Killiany", 200)
    assert (parcel_map.method, parcel_map.target) == (view.method, view.target)


def test_scales_steps_and_seed_do_not_change_the_map(workbench):
    other = dataclasses.replace(REQUEST, scales=(7.0,), steps=9, seed=5)
    assert parcel_importance(workbench, REQUEST, View()) is parcel_importance(
        workbench, other, View()
    )
    measure = View(measure="share", camera="lateral", parcel="fusiform L")
    assert parcel_importance(workbench, REQUEST, View()) is parcel_importance(
        workbench, REQUEST, measure
    )


def test_colour_limits_are_the_same_for_all_trials(workbench):
    maps = [parcel_importance(workbench, request, View()) for request in every_trial(workbench)]
    assert all(m.limits == maps[0].limits for m in maps)
    other = parcel_importance(workbench, REQUEST, View(method="gradient x input"))
    assert other.limits != maps[0].limits
    for measure, (low, high) in maps[0].limits.items():
        assert high > 0 and low == (-high if measure == "signed" else 0)
    values = [m.table.set_index("parcel")["mean"].drop("(unassigned)") for m in maps]
    values = np.concatenate([v.dropna() for v in values])
    assert maps[0].limits["mean"][1] == pytest.approx(np.percentile(values, 99), rel=1e-6)


def test_colour_limits_are_each_subjects_own(make_workbench, tmp_path):
    """Both subjects have a mapper of one name, and one is asked for after the other."""
    both = make_workbench(checkpoints=tmp_path)  # nothing is trained, so that both are fitted
    name = "ridge (fitted now)"
    asked = [
        dataclasses.replace(REQUEST, subject=subject, mapper=name)
        for subject in ("sub-01", "sub-02")
    ]
    found = [parcel_importance(both, request, View()).limits for request in asked]
    alone = parcel_importance(make_workbench(checkpoints=tmp_path), asked[1], View()).limits
    assert found[1] == alone and found[0] != found[1]


def test_small_parcels_do_not_stretch_the_limits(make_workbench, fakes):
    class Shrunk(fakes.Study):
        def load(self, subject):
            trials = super().load(subject)
            voxels = trials.subject.voxels
            (atlas,) = voxels.parcellations.values()
            membership = atlas.membership.copy()
            mine = np.flatnonzero(membership == membership[0])
            membership[mine[5:]] = -1  # five voxels are left of this parcel
            small = dataclasses.replace(atlas, membership=membership)
            space = dataclasses.replace(voxels, parcellations={atlas.name: small})
            trials.betas[:, mine[:5]] *= 1e-6
            who = dataclasses.replace(trials.subject, voxels=space)
            return dataclasses.replace(trials, subject=who)

    parcel_map = parcel_importance(make_workbench(datasets={"fake": Shrunk}), REQUEST, View())
    row = parcel_map.table[parcel_map.table["voxels"] == 5]
    assert row["small"].item()
    large = parcel_map.table[~parcel_map.table["small"]]
    assert parcel_map.limits["enrichment"][1] < 3 * large["enrichment"].max()


def with_parcels(fakes, change):
    """Return a study whose atlas has its membership changed."""

    class Changed(fakes.Study):
        def load(self, subject):
            trials = super().load(subject)
            voxels = trials.subject.voxels
            (atlas,) = voxels.parcellations.values()
            other = dataclasses.replace(atlas, membership=change(atlas.membership.copy()))
            space = dataclasses.replace(voxels, parcellations={atlas.name: other})
            who = dataclasses.replace(trials.subject, voxels=space)
            return dataclasses.replace(trials, subject=who)

    return Changed


def test_what_is_in_no_parcel_does_not_stretch_the_limits(make_workbench, fakes, workbench):
    """The unassigned voxels are those that matter most; they are not on the surface."""
    labels = parcellation_of(workbench, "fake", "sub-01").labels
    best = [i for i, label in enumerate(labels) if label.name in fakes.informative]

    def freed(membership):
        membership[np.isin(membership, best)] = -1
        return membership

    bench = make_workbench(datasets={"fake": with_parcels(fakes, freed)})
    maps = [parcel_importance(bench, request, View()) for request in every_trial(bench)]
    tables = [shown.table["mean"].to_numpy() for shown in maps]
    values = np.concatenate([table[:-1] for table in tables])
    expected = np.percentile(values[np.isfinite(values)], 99)
    assert maps[0].limits["mean"][1] == pytest.approx(expected, rel=1e-6)
    assert max(table[-1] for table in tables) > 1.05 * expected  # so that it would have shown


def test_where_all_parcels_are_small_they_set_the_limits(make_workbench, fakes):
    def thinned(membership):
        for label in np.unique(membership):
            membership[np.flatnonzero(membership == label)[5:]] = -1
        return membership

    bench = make_workbench(datasets={"fake": with_parcels(fakes, thinned)})
    found = parcel_importance(bench, REQUEST, View())
    assert found.table["small"][:-1].all()
    assert found.limits["mean"][1] != 1.0
    assert found.limits["mean"][1] > found.table["mean"][:-1].max() / 3


def test_integrated_gradients_say_what_they_miss_and_take_fewer_trials_for_limits(workbench):
    view = View(method="integrated gradients")
    found = parcel_importance(workbench, REQUEST, view)
    # A mapper without a constant decodes 0 from the mean response, where a cosine jumps: the way
    # from there misses all of the change.
    assert found.completeness == pytest.approx(1, abs=1e-3)
    assert parcel_importance(workbench, REQUEST, View()).completeness is None
    first = parcel_importance(workbench, every_trial(workbench)[0], view)  # one of ten: NODES > 10
    values = first.table.set_index("parcel")["mean"].drop("(unassigned)").dropna()
    assert found.limits["mean"][1] == pytest.approx(np.percentile(values, 99), rel=1e-5)


def test_what_needs_no_model_is_known_before(workbench):
    request = dataclasses.replace(REQUEST, stimulus="test-09")
    assert not is_mapped(workbench, request, View())
    parcel_importance(workbench, request, View())
    assert is_mapped(workbench, request, View())
    assert not is_mapped(workbench, request, View(method="gradient x input"))
    assert is_mapped(workbench, request, View(shows="noise ceiling"))
    assert not is_mapped(workbench, request, View(shows="predicted betas"))
    assert is_mapped(workbench, dataclasses.replace(request, mapper=""), View())


def test_a_mapper_that_ignores_the_betas_gives_a_flat_map(make_workbench, fakes):
    class Deaf(fakes.Linear):
        def forward(self, betas, subject):
            return {space: 0 * z + 1 for space, z in super().forward(betas, subject).items()}

    workbench = make_workbench(mappers={"linear": Deaf})
    parcel_map = parcel_importance(workbench, REQUEST, View())
    assert parcel_map.flat and parcel_map.table["share"].isna().all()
    assert parcel_map.limits["share"] == (0, 1)


def test_voxels_without_an_atlas_are_all_unassigned(make_workbench, fakes):
    class Nowhere(fakes.Study):
        def load(self, subject):
            trials = super().load(subject)
            space = dataclasses.replace(trials.subject.voxels, projection=None, parcellations={})
            who = dataclasses.replace(trials.subject, voxels=space)
            return dataclasses.replace(trials, subject=who)

    workbench = make_workbench(datasets={"fake": Nowhere})
    table = parcel_importance(workbench, REQUEST, View()).table
    assert list(table["parcel"]) == ["(unassigned)"]
    assert table["share"].item() == pytest.approx(1)
    with pytest.raises(UserError, match="has no atlas 'Schaefer'; choose one of none"):
        parcel_importance(workbench, REQUEST, View(atlas="Schaefer"))


# ---------------------------------------------------------------------------------- maps of voxels


def with_maps(fakes, **maps):
    class Mapped(fakes.Study):
        def load(self, subject):
            trials = super().load(subject)
            who = dataclasses.replace(trials.subject, **maps)
            return dataclasses.replace(trials, subject=who)

    return Mapped


def test_what_is_known_of_the_voxels_can_be_shown_without_a_model(make_workbench, fakes):
    size = np.linspace(-1, 1, 200)
    workbench = make_workbench(
        datasets={"fake": with_maps(fakes, maps={"prf size": size})}, mappers={}, generators={}
    )
    names = ["importance", "noise ceiling", "ncsnr", "prf size", "parcels"]
    assert map_names(workbench, "fake", "sub-01") == names
    subject = workbench.catalogue.trials("fake", "sub-01").subject
    shown = shown_map(workbench, REQUEST, View(shows="prf size"))
    assert (shown.title, shown.kind) == ("prf size", "diverging")
    np.testing.assert_array_equal(shown.values, size)
    masks = parcellation_of(workbench, "fake", "sub-01").masks()
    for mean, mask in zip(shown.table["mean"], masks, strict=True):
        assert np.isnan(mean) if not mask.any() else mean == pytest.approx(size[mask].mean())
    for repeats, title in (((), "mean of 2 trials"), ((1,), "one trial")):
        request = dataclasses.replace(REQUEST, repeats=repeats)
        ceiling = map_of_voxels(workbench, request, View(shows="noise ceiling"))
        assert ceiling.title == f"noise ceiling, % of variance ({title})"
        expected = metrics.noise_ceiling(subject.ncsnr, 2 - len(repeats))
        np.testing.assert_array_equal(ceiling.values, expected)
    assert shown_map(workbench, REQUEST, View(shows="parcels")).values is None


def test_a_map_that_a_subject_lacks_is_one_sentence(make_workbench, fakes):
    workbench = make_workbench(datasets={"fake": with_maps(fakes, ncsnr=None)})
    assert map_names(workbench, "fake", "sub-01") == ["importance", "parcels"]
    with pytest.raises(UserError, match="has no map 'ncsnr' of its voxels; choose one of import"):
        shown_map(workbench, REQUEST, View(shows="ncsnr"))


@pytest.mark.parametrize(("size", "top"), [(9, 1.0), (10, 5.0)])
def test_colours_end_where_parcels_of_ten_voxels_or_more_do(workbench, monkeypatch, size, top):
    """Nine voxels are grey, and what is in no parcel is not drawn: they lengthen no colour bar."""
    voxels = workbench.catalogue.trials("fake", "sub-01").subject.voxels
    member, values = np.full(voxels.n_voxels, -1), np.full(voxels.n_voxels, 70.0)
    member[:size], values[:size] = 0, 5.0
    member[size : size + 60], values[size : size + 60] = 1, 1.0
    labels = (Label("few"), Label("many"))
    planted = Parcellation("planted", "partition", labels, member, voxels.hash)
    monkeypatch.setattr(
        maps, "attribute_voxels", lambda bench, request, view, betas, _: np.tile(values, (10, 1))
    )
    limits = maps._find_limits(workbench, REQUEST, View(), planted)
    assert limits["mean"] == (0, pytest.approx(top))

"""Simulated brains: the truth they claim is the truth of their betas."""

import numpy as np
import pytest

from backends.simulation import cortex
from backends.simulation.brains import (
    HEMISPHERE_VERTICES,
    Brain,
    estimate_ncsnr,
    make_brain,
    noiseless,
    trial_noise,
)
from backends.simulation.features import (
    CHANNELS,
    FREQUENCIES,
    GRID,
    GROUPS,
    N_FEATURES,
    ORIENTATIONS,
    PIXELS,
    features,
    gabor_energy,
    scene_features,
)
from backends.simulation.scenes import CATEGORIES, Scene, sample_scenes


@pytest.fixture(scope="module")
def seen() -> np.ndarray:
    return features(sample_scenes(120, 5))


@pytest.fixture(scope="module")
def brain(seen) -> Brain:
    return make_brain("subj01", 0, 3, seen)


def area(brain: Brain, name: str) -> np.ndarray:
    return np.array([p.rpartition(" ")[0] == name for p in brain.parcels])


def in_role(brain: Brain, role: str) -> np.ndarray:
    return np.array([cortex.AREAS[p.rpartition(" ")[0]].role == role for p in brain.parcels])


# ---------------------------------------------------------------------------------------- features


def test_gabor_energy_finds_the_frequency_orientation_and_place_of_a_grating():
    y, x = np.mgrid[:PIXELS, :PIXELS] / PIXELS
    for f, frequency in enumerate(FREQUENCIES):
        for o in range(ORIENTATIONS):
            angle = np.pi * o / ORIENTATIONS
            wave = np.sin(2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle)))
            left_only = 0.5 + 0.4 * wave * (x < 0.5)
            energy = gabor_energy(left_only)
            strongest = energy[:, 4:12, 2:6].mean(axis=(1, 2)).argmax()
            assert strongest == f * ORIENTATIONS + o
            channel = energy[strongest]
            assert channel[:, 2:6].mean() > 5 * channel[:, 10:14].mean()


def test_a_flat_picture_has_no_energy():
    assert np.abs(gabor_energy(np.full((PIXELS, PIXELS), 0.7))).max() < 1e-6


def test_features_say_what_the_scene_says():
    scene = Scene("sea", "dog", "red", 0.3, 2, 0.5, 0.6, "night", 4)
    row = scene_features(scene).astype(float)
    assert row.shape == (N_FEATURES,)
    assert list(CATEGORIES)[row[GROUPS["category"]].argmax()] == "dog"
    assert row[GROUPS["category"]].sum() == row[GROUPS["supercategory"]].sum() == 1
    assert row[GROUPS["number"]].argmax() == 1
    assert row[GROUPS["setting"]].sum() == 1
    assert row[GROUPS["energy"]].size == CHANNELS * GRID**2


def test_groups_cover_every_feature_once():
    covered = np.concatenate([np.arange(N_FEATURES)[part] for part in GROUPS.values()])
    assert covered.tolist() == list(range(N_FEATURES))


# ----------------------------------------------------------------------------------------- anatomy


def test_shares_and_noise_parts_sum_to_one():
    for name, one in cortex.AREAS.items():
        total = sum(one.shares.values())
        assert total == pytest.approx(1 if one.role == "informative" else 0), name
        assert set(one.shares) <= set(GROUPS)
    for role, parts in cortex.NOISE.items():
        assert sum(parts.values()) == pytest.approx(1), role


def test_at_least_eight_controls_a_hemisphere_of_three_kinds():
    roles = [one.role for one in cortex.AREAS.values()]
    controls = [r for r in roles if r != "informative"]
    assert len(controls) >= 8
    assert set(controls) == {"white noise", "structured noise", "shared noise"}


def test_vertices_lie_in_their_parcels_and_ascend(brain):
    from explorer.brain.atlases import desikan_killiany

    atlas = desikan_killiany()
    keys = [atlas.labels[i].key for i in atlas.vertices[brain.vertices]]
    assert keys == brain.parcels.tolist()
    assert (np.diff(brain.vertices) > 0).all()
    assert 3000 <= len(brain.vertices) <= 6000
    counts = {p: (brain.parcels == p).sum() for p in set(brain.parcels)}
    assert len(counts) == 2 * len(cortex.AREAS)
    assert min(counts.values()) >= 10


# --------------------------------------------------------------------------------------- the truth


def test_ncsnr_is_distributed_as_in_nsd_and_differs_by_subject(seen):
    medians = []
    for number, target in enumerate(cortex.MEDIAN_NCSNR):
        other = make_brain("x", number, 3, seen)
        inside = other.ncsnr[other.informative]
        medians.append(np.median(inside))
        assert medians[-1] == pytest.approx(target, abs=0.02)
        assert np.mean((inside >= 0.15) & (inside <= 1.0)) > 0.9
        assert (other.ncsnr[~other.informative] == 0).all()
    assert np.std(medians) > 0.02


def test_signal_sd_over_noise_sd_is_the_true_ncsnr(brain, seen):
    signal = noiseless(brain, seen).std(axis=0) / brain.noise_sd
    np.testing.assert_allclose(signal, brain.ncsnr, atol=1e-4)
    noise = trial_noise(brain, [(0, i, 0) for i in range(1500)])
    ratio = noise.std(axis=0) / brain.noise_sd
    assert ratio.mean() == pytest.approx(1, abs=0.01)
    assert np.abs(ratio - 1).max() < 0.12


def test_estimated_ncsnr_finds_a_planted_one():
    rng = np.random.default_rng(0)
    planted = np.array([0.0, 0.3, 0.6, 1.0])
    signal = rng.standard_normal((4000, 1, 4)) * planted * 2.5
    betas = 7 + signal + 2.5 * rng.standard_normal((4000, 3, 4))
    found = estimate_ncsnr(betas)
    np.testing.assert_allclose(found[1:], planted[1:], atol=0.04)
    assert found[0] < 0.15
    assert estimate_ncsnr(np.ones((5, 3, 2))).tolist() == [0, 0]


def test_information_is_the_share_that_a_perfect_model_explains(brain, seen):
    clean = np.tile(noiseless(brain, seen), (10, 1))
    noisy = clean + trial_noise(brain, [(0, i, 0) for i in range(len(clean))])
    explained = 1 - (noisy - clean).var(axis=0) / noisy.var(axis=0)
    assert np.abs(explained - brain.information).mean() < 0.02


# ---------------------------------------------------------------------------------- what they code


def test_early_cortex_sees_the_opposite_half_of_the_field(brain):
    columns = brain.fields.reshape(GRID, GRID, -1)
    right_half = columns[:, GRID // 2 :].sum(axis=(0, 1))
    left_brain = brain.vertices < HEMISPHERE_VERTICES
    for name in ("pericalcarine", "cuneus", "lingual"):
        here = area(brain, name)
        assert right_half[here & left_brain].mean() > 0.7
        assert right_half[here & ~left_brain].mean() < 0.3
        assert (right_half[here & left_brain] > 0.49).all()
    upper_half = columns[: GRID // 2].sum(axis=(0, 1))
    assert upper_half[area(brain, "lingual")].mean() > 0.75
    assert upper_half[area(brain, "cuneus")].mean() < 0.25


def test_only_the_groups_of_a_parcel_move_its_vertices(brain, seen):
    base = noiseless(brain, seen[:1])
    for group in ("category", "setting", "number", "energy"):
        changed = seen[:1].copy()
        changed[:, GROUPS[group]] += np.float16(0.5)
        moved = np.abs(noiseless(brain, changed) - base)[0] > 1e-5
        for name, one in cortex.AREAS.items():
            here = area(brain, name)
            if group in one.shares:
                assert moved[here].mean() > 0.9, (group, name)
            else:
                assert not moved[here].any(), (group, name)


def test_fusiform_answers_to_faces_more_than_inferior_temporal_does(brain):
    strength = np.square(brain.weights["category"])
    face = np.array([kind == "face" for kind in CATEGORIES.values()])

    def preference(name: str) -> float:
        here = strength[:, area(brain, name)]
        return here[face].mean() / here[~face].mean()

    assert preference("fusiform") > 1.3 * preference("inferiortemporal")


def test_tuning_is_smooth_over_cortex_and_shared_in_part_by_subjects(brain, seen):
    # Neighbours on the mesh are about 4 mm apart, the tuning changes over 11 mm.
    import nilearn
    from nilearn.surface import load_surf_mesh

    place = f"{nilearn.__path__[0]}/datasets/data/fsaverage5/sphere_left.gii.gz"
    sphere = load_surf_mesh(place).coordinates
    left = np.flatnonzero((brain.vertices < HEMISPHERE_VERTICES) & area(brain, "fusiform"))
    points = sphere[brain.vertices[left]]
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    maps = brain.weights["colour"][:, left]
    similar = np.corrcoef(maps.T)
    near = (distance > 0) & (distance < 5)
    far = distance > 45
    assert similar[near].mean() > 0.7
    assert abs(similar[far].mean()) < 0.25

    other = make_brain("subj02", 1, 3, seen)
    common = np.intersect1d(brain.vertices, other.vertices)
    common = common[area(brain, "lateraloccipital")[np.searchsorted(brain.vertices, common)]]
    mine = brain.weights["shape"][:, np.searchsorted(brain.vertices, common)]
    theirs = other.weights["shape"][:, np.searchsorted(other.vertices, common)]
    assert 0.4 < np.corrcoef(mine.ravel(), theirs.ravel())[0, 1] < 0.8


# ------------------------------------------------------------------------------------------- noise


def test_noise_is_shared_exactly_where_it_is_said_to_be(brain):
    noise = trial_noise(brain, [(0, i, 0) for i in range(3000)])
    correlation = np.corrcoef(noise.T)
    chance = 1 / np.sqrt(3000)

    def between(first: np.ndarray, second: np.ndarray) -> float:
        block = correlation[np.ix_(first, second)]
        return float(np.sqrt(np.mean(block[np.abs(block) < 0.999] ** 2)))

    informative = in_role(brain, "informative")
    for name, one in cortex.AREAS.items():
        here = area(brain, name)
        if one.role == "white noise":
            assert between(here, here) < 1.15 * chance
            assert between(here, ~here) < 1.15 * chance
        if one.role == "structured noise":
            assert between(here, here) > 0.25
            assert between(here, ~here) < 1.15 * chance
        if one.role == "shared noise":
            partners = informative & np.array(
                [cortex.AREAS[p.rpartition(" ")[0]].pool == one.pool for p in brain.parcels]
            )
            assert between(here, partners) > 4 * chance
            assert between(here, ~here & ~partners & ~informative) < 1.15 * chance


def test_a_trials_noise_depends_on_its_key_alone(brain):
    keys = [(1, 4, 0), (1, 4, 1), (0, 9, 0)]
    together, alone = trial_noise(brain, keys), trial_noise(brain, keys[2:])
    np.testing.assert_allclose(together[2], alone[0], rtol=1e-5, atol=1e-6)
    assert abs(np.corrcoef(together[0], together[1])[0, 1]) < 0.1


def test_the_same_seed_gives_the_same_brain_and_another_seed_another(brain, seen):
    again = make_brain("subj01", 0, 3, seen)
    np.testing.assert_array_equal(noiseless(again, seen[:5]), noiseless(brain, seen[:5]))
    other = make_brain("subj01", 0, 4, seen)
    assert other.vertices.tolist() != brain.vertices.tolist()

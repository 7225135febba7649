"""The illustrations are deterministic, balanced, truthful in words and clear to the eye."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from backends.simulation.scenes import (
    CATEGORIES,
    COLOURS,
    LIGHTS,
    MARGIN,
    SETTINGS,
    SUPERCATEGORIES,
    Scene,
    background,
    group_extent,
    object_mask,
    render,
    sample_scenes,
)

EXAMPLE = Scene("meadow", "car", "red", 0.5, 1, 0.5, 0.6, "day", 7)


def test_the_nouns_are_24_in_6_groups_of_4_in_8_settings_and_colours() -> None:
    assert len(CATEGORIES) == 24
    assert Counter(CATEGORIES.values()) == dict.fromkeys(SUPERCATEGORIES, 4)
    assert SUPERCATEGORIES == ("face", "animal", "building", "food", "vehicle", "tool")
    assert CATEGORIES["old man"] == "face"
    assert CATEGORIES["saw"] == "tool"
    assert len(SETTINGS) == len(COLOURS) == 8


def test_same_seed_same_scenes_and_same_bytes() -> None:
    scenes = sample_scenes(12, seed=3)
    assert scenes == sample_scenes(12, seed=3)
    for scene in scenes:
        np.testing.assert_array_equal(render(scene), render(scene))
        assert scene.caption == scene.caption


def test_categories_settings_and_colours_are_balanced_and_independent() -> None:
    scenes = sample_scenes(2000, seed=0)
    for field in ("category", "setting", "colour"):
        counts = Counter(getattr(s, field) for s in scenes).values()
        assert max(counts) - min(counts) <= 1, field
    pairs = np.zeros((24, 8))
    for s in scenes:
        pairs[list(CATEGORIES).index(s.category), SETTINGS.index(s.setting)] += 1
    expected = 2000 / (24 * 8)
    chi2 = ((pairs - expected) ** 2 / expected).sum()
    assert chi2 < 220  # 161 degrees of freedom: the 99.9 % quantile of independence is 222
    counts = Counter(s.count for s in scenes)
    for count, share in ((1, 0.70), (2, 0.18), (3, 0.12)):
        assert counts[count] / 2000 == pytest.approx(share, abs=0.04)


def test_different_seeds_never_share_a_scene() -> None:
    seeds = [s.seed for seed in range(20) for s in sample_scenes(100, seed)]
    assert len(set(seeds)) == 2000
    details = {replace(EXAMPLE, seed=seed) for seed in (1, 2, 3)}
    assert len({render(scene).tobytes() for scene in details}) == 3


def test_captions_name_colour_category_and_setting() -> None:
    plural = {"man": "men", "woman": "women", "child": "children", "old man": "old men"}
    scenes = sample_scenes(600, seed=5)
    for s in scenes:
        noun = s.category if s.count == 1 else plural.get(s.category, s.category)
        for word in (noun, s.colour, s.setting):
            assert word in s.caption, s.caption
        assert "  " not in s.caption
        assert "a orange" not in s.caption
        assert "chs " not in s.caption
        assert s.count == 1 or "cap " not in s.caption + " "
    assert len({s.caption for s in scenes}) > 560


def test_attributes_are_plain_values() -> None:
    row = EXAMPLE.attributes()
    assert set(row) == {
        "category", "supercategory", "setting", "colour", "size", "count", "x", "y", "light",
        "seed", "caption",
    }  # fmt: skip
    assert {type(v) for v in row.values()} == {str, float, int}
    assert all(type(v) in (str, float, int) for v in sample_scenes(1, 1)[0].attributes().values())


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("category", CATEGORIES)
def test_every_category_renders_in_every_setting_and_stands_out(
    setting: str, category: str
) -> None:
    number = list(CATEGORIES).index(category) + SETTINGS.index(setting)
    scene = Scene(setting, category, list(COLOURS)[number % 8], 0.6, 1, 0.5, 0.6,
                  LIGHTS[number % 3], number)  # fmt: skip
    image, mask = render(scene), object_mask(scene)
    assert image.shape == (128, 128, 3)
    assert image.dtype == np.uint8
    assert mask.shape == (128, 128)
    assert mask.dtype == np.float32
    assert 0.04 < mask.mean() < 0.36
    assert mask.max() == 1.0
    change = np.abs(image.astype(int) - background(scene)).sum(axis=2)
    assert (change[mask > 0.5] > 30).mean() > 0.8
    outside = np.ones((128, 128), bool)
    outside[32:122, 20:108] = False  # the box of the object, its rim and its shadow
    assert change[outside].max() < 30


def test_mask_and_picture_share_their_geometry() -> None:
    for scene in (replace(EXAMPLE, count=2, size=0.4), replace(EXAMPLE, x=0.3, colour="pink")):
        change = np.abs(render(scene).astype(int) - background(scene)).sum(axis=2) > 60
        mask = object_mask(scene) > 0.5
        change[: np.nonzero(mask.any(axis=1))[0][0]] = False
        overlap = (change & mask).sum() / (change | mask).sum()
        assert overlap > 0.6  # the soft shadow and the rim are the rest


def test_objects_stay_inside_and_have_soft_edges() -> None:
    for scene in sample_scenes(48, seed=11):
        mask = object_mask(scene)
        border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert border.max() < 0.01, scene
        soft = ((mask > 0.1) & (mask < 0.9)).sum()
        assert soft > 0.15 * np.sqrt((mask > 0.5).sum()), scene


def test_other_sizes_show_the_same_scene() -> None:
    small, large = render(EXAMPLE, 64).astype(float), render(EXAMPLE, 128).astype(float)
    reduced = large.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
    assert np.abs(small - reduced).mean() < 8


def test_position_and_light_reach_the_picture() -> None:
    columns = object_mask(replace(EXAMPLE, x=0.3)).sum(axis=0)
    assert np.average(np.arange(128), weights=columns) / 128 == pytest.approx(0.3, abs=0.04)
    day, night = (render(replace(EXAMPLE, light=light)).mean() for light in ("day", "night"))
    assert night < 0.7 * day


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category": "unicorn"}, "Unknown category='unicorn'; choose one of .*'man'"),
        ({"setting": "moon"}, "Unknown setting='moon'"),
        ({"colour": "mauve"}, "Unknown colour='mauve'"),
        ({"light": "noon"}, "Unknown light='noon'"),
        ({"count": 4}, "Unknown count=4"),
        ({"size": 0.0}, "size=0.0 must lie between 0 and 1"),
        ({"seed": -1}, "seed=-1 must not be negative"),
        ({"x": 0.1}, "x=0.1 would put 1 .* choose x between 0.250 and 0.750"),
        ({"y": 0.9, "count": 2, "size": 0.4}, "y=0.9 would put 2 "),
    ],
)
def test_a_scene_that_cannot_be_painted_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(EXAMPLE, **change)


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="n=0 scenes asked for; choose n between 1 and"):
        sample_scenes(0, seed=1)
    with pytest.raises(ValueError, match="seed=-2 must lie between 0 and"):
        sample_scenes(5, seed=-2)
    for painter in (render, object_mask, background):
        with pytest.raises(ValueError, match="size=8 pixels is too small"):
            painter(EXAMPLE, 8)


def test_sampled_groups_keep_the_margin() -> None:
    for s in sample_scenes(300, seed=9):
        half_width, half_height = group_extent(s.count, s.size)
        assert half_width + MARGIN <= s.x <= 1 - half_width - MARGIN
        assert half_height + MARGIN <= s.y <= 1 - half_height - MARGIN

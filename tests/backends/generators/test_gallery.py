"""Galleries: neighbours equal to plain products, clean names, and what cannot be used is said."""

import re

import numpy as np
import pytest
from PIL import Image

from backends.generators.gallery import Gallery, clean_label
from explorer.types import EmbeddingSpace, UserError

UNIT = EmbeddingSpace("toy", "unit", (6,), unit_norm=True)
RAW = EmbeddingSpace("toy", "raw", (2, 3))


class Toy:
    """A picture's first two pixels, as numbers; counts what it embeds."""

    spaces = (UNIT, RAW)
    fingerprint = "toy"

    def __init__(self):
        self.embedded = 0

    def embed(self, images, space):
        self.embedded += len(images)
        rows = np.stack([image[0, :2].reshape(-1) for image in images]).astype(np.float32) - 100
        if space.unit_norm:
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows.reshape(-1, *space.shape)


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    return {f"p{i}": rng.integers(0, 256, (4, 5, 3), dtype=np.uint8) for i in range(300)}


@pytest.mark.parametrize("space", [UNIT, RAW])
def test_neighbours_are_those_of_plain_products(pictures, space):
    gallery = Gallery("toys", dict.fromkeys(pictures, "thing"), pictures.__getitem__)
    sought = np.random.default_rng(1).standard_normal(space.shape).astype(np.float32)
    rows = Toy().embed(list(pictures.values()), space).reshape(300, -1).astype(float)
    one = sought.ravel().astype(float)
    if space is UNIT:
        expected = rows @ one / np.linalg.norm(one) / np.linalg.norm(rows, axis=1)
    else:
        expected = np.array([np.corrcoef(row, one)[0, 1] for row in rows])
    found = gallery.nearest(sought, space, Toy(), k=7)
    best = np.argsort(-expected)[:7]
    assert [n.picture for n in found] == [f"p{i}" for i in best]
    np.testing.assert_allclose([n.similarity for n in found], expected[best], atol=1e-5)
    assert len(gallery.nearest(sought, space, Toy(), k=1000)) == 300


@pytest.mark.parametrize("space", [UNIT, RAW])
def test_of_equal_pictures_the_first_of_the_gallery_is_the_nearest_however_many_are_asked_for(
    pictures, space
):
    equal = ("p3", "p40", "p41", "p299")
    pictures |= dict.fromkeys(equal, pictures["p40"])
    gallery = Gallery("toys", dict.fromkeys(pictures, "thing"), pictures.__getitem__)
    (sought,) = Toy().embed([pictures["p40"]], space)
    for k in (1, 2, 3, 4, 5, 300):
        found = [n.picture for n in gallery.nearest(sought, space, Toy(), k)]
        assert found[:4] == list(equal[:k]), k


def test_a_gallery_is_embedded_once_and_kept_on_disk(pictures, tmp_path):
    first, again = Toy(), Toy()
    for embedder, times in ((first, 2), (again, 1)):
        gallery = Gallery("toys", dict.fromkeys(pictures, ""), pictures.__getitem__, tmp_path)
        for _ in range(times):
            found = gallery.nearest(np.ones(6), UNIT, embedder)
    assert (first.embedded, again.embedded) == (300, 0)
    assert found[0].label == ""


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("n02123045_tabby_cat", "tabby cat"),
        ("n02085620-Chihuahua", "Chihuahua"),
        ("n02123045", ""),
        ("001.Black_footed_Albatross", "Black footed Albatross"),
        ("tench, Tinca tinca", "tench"),
        (" soft-coated_wheaten__terrier ", "soft-coated wheaten terrier"),
        ("n021230456_x", "n021230456 x"),  # nine digits are no WordNet id
        ("7up", "7up"),
        ("2001", "2001"),
        ("", ""),
    ],
)
def test_class_names_are_cleaned(name, clean):
    assert clean_label(name) == clean


def labelled(names):
    """Return a gallery whose picture i lies in the direction i, with these names."""
    images = {}
    for i in range(len(names)):
        images[f"p{i}"] = np.full((2, 2, 3), 100, np.uint8)
        images[f"p{i}"][0].reshape(-1)[i] = 200
    labels = dict(zip(images, names, strict=True))
    return Gallery("toys", labels, images.__getitem__)


def test_the_prompt_is_the_name_of_most_neighbours_or_of_the_nearest():
    gallery = labelled(["cat", "dog", "cow", "cow", "dog"])
    sought = np.array([5, 4, 3, 2, 1, 0], np.float32)
    text, neighbours = gallery.prompt(sought, UNIT, Toy(), k=5)
    assert text == "dog"  # as frequent as cow, and nearer
    assert [n.label for n in neighbours] == ["cat", "dog", "cow", "cow", "dog"]
    assert gallery.prompt(sought, UNIT, Toy(), k=5, majority=False)[0] == "cat"
    assert gallery.prompt(sought, UNIT, Toy(), k=4)[0] == "cow"


def test_a_gallery_without_names_gives_no_prompt():
    with pytest.raises(UserError, match=r"2 of 3 toys have no class name \(first p1\), so they"):
        labelled(["cat", "", ""]).prompt(np.ones(6), UNIT, Toy())


def test_a_folder_names_its_pictures_by_sub_folders(tmp_path, pictures):
    for file in ("n02123045_tabby_cat/a.png", "dog/deep/b.PNG", "loose.png"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pictures["p0"]).save(tmp_path / file)
    (tmp_path / "dog" / "notes.txt").write_text("no picture")
    gallery = Gallery.of_folder(tmp_path)
    assert gallery.labels == {
        "dog/deep/b.PNG": "dog",
        "loose.png": "",
        "n02123045_tabby_cat/a.png": "tabby cat",
    }
    assert np.array_equal(gallery.image("loose.png"), pictures["p0"])


def test_folders_that_are_no_gallery_are_refused(tmp_path):
    with pytest.raises(UserError, match=f"{re.escape(str(tmp_path))} holds no pictures .*one sub"):
        Gallery.of_folder(tmp_path)
    with pytest.raises(UserError, match="nowhere holds no pictures"):
        Gallery.of_folder(tmp_path / "nowhere")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n cut short")
    gallery = Gallery.of_folder(tmp_path)
    with pytest.raises(UserError, match=r"broken.png cannot be read as a picture .*; copy it aga"):
        gallery.nearest(np.ones(6), UNIT, Toy())


def test_training_stimuli_are_a_gallery_without_any_test_stimulus(fakes):
    study = fakes.Study()
    gallery = Gallery.of_training(study, "sub-01")
    assert len(gallery) == 60 and not set(gallery.ids) & set(study.load("sub-01").stimuli("test"))
    assert set(gallery.labels.values()) == {"warm", "cold"}
    sought = fakes.Embedder().embed([fakes.picture("train-07")])[0]
    found = gallery.nearest(sought, fakes.space, fakes.Embedder(), k=3)
    assert found[0].picture == "train-07" and found[0].similarity == pytest.approx(1, abs=1e-5)
    assert found[0].label == study.stimuli.loc["train-07", "category"]


def test_a_study_split_by_repeat_has_nothing_to_retrieve(fakes, monkeypatch):
    study = fakes.Study()
    load = study.load

    def by_repeat(subject):
        trials = load(subject)
        keep = trials.table["stimulus"].str.startswith("test")
        table = trials.table[keep].reset_index(drop=True)
        table["split"] = np.where(table["repeat"] == 0, "train", "test")
        return type(trials)(trials.subject, trials.betas[: len(table)], "made up", table)

    monkeypatch.setattr(study, "load", by_repeat)
    with pytest.raises(UserError, match="fake/sub-01 has no training stimulus that is not a test"):
        Gallery.of_training(study, "sub-01")

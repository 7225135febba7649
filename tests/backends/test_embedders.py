"""Embedders: every entry keeps the contract; words, pixels and the shipped pocket-clip."""

from pathlib import Path

import numpy as np
import pytest

from backends import EMBEDDERS
from backends.embedders import CONTEXT_LENGTH, Pixels, WordTokenizer, to_tensor
from backends.simulation.scenes import render, sample_scenes
from explorer.types import EmbeddingSpace, UserError, resolve

CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"


@pytest.fixture(scope="module")
def scenes():
    return sample_scenes(48, seed=401)


@pytest.fixture(scope="module")
def pictures(scenes):
    return [render(scene) for scene in scenes]


@pytest.fixture(scope="module")
def clip():
    return resolve(EMBEDDERS["pocket-clip"])(CHECKPOINTS)


@pytest.mark.parametrize("name", EMBEDDERS)
def test_every_embedder_keeps_the_contract(name, pictures):
    embedder = resolve(EMBEDDERS[name])(CHECKPOINTS, "cpu")
    larger = np.kron(pictures[0], np.ones((2, 2, 1), np.uint8))[:, :200]
    for space in embedder.spaces:
        assert isinstance(space, EmbeddingSpace) and space.model == name
        rows = embedder.embed([*pictures[:3], larger], space)
        assert rows.shape == (4, *space.shape) and rows.dtype == np.float32
        assert np.isfinite(rows).all()
        alone = embedder.embed(pictures[1:2], space)
        np.testing.assert_allclose(alone[0], rows[1], atol=2e-6)
        if space.unit_norm:
            np.testing.assert_allclose(np.linalg.norm(rows, axis=-1), 1, atol=1e-5)


def test_pixels_are_area_means_row_by_row():
    picture = np.zeros((20, 40, 3), np.uint8)
    picture[:2, 4:8] = 255  # the second cell of the first row
    (row,) = Pixels().embed([picture], Pixels.spaces[0])
    assert row[1] == 1 and row.sum() == 1


def test_words_become_ids_and_the_end_has_the_highest():
    tokenizer = WordTokenizer.learn(["a red cat", "A cat, by the sea!"])
    assert tokenizer.vocabulary == ("a", "by", "cat", "red", "sea", "the")
    ids = tokenizer(["the red zebra", "cat " * 90])
    assert ids.shape == (2, CONTEXT_LENGTH)
    assert ids[0, :5].tolist() == [7, 5, 1, tokenizer.size - 1, 0]
    assert ids[1, -1] == tokenizer.size - 1 and (ids[1, :-1] == 4).all()


def test_tensors_are_centred_and_resized():
    white = np.full((64, 64, 3), 255, np.uint8)
    tensor = to_tensor([white, np.zeros((128, 128, 3), np.uint8)], 128)
    assert tensor.shape == (2, 3, 128, 128)
    assert tensor[0].min() == 1 and tensor[1].max() == -1


def test_pictures_find_their_captions(clip, scenes, pictures):
    image = clip.embed(pictures, clip.spaces[0])
    text = clip.embed_text([scene.caption for scene in scenes])
    assert text.shape == (len(scenes), *clip.text_spaces[0].shape)
    np.testing.assert_allclose(np.linalg.norm(text, axis=1), 1, atol=1e-5)
    found = (image @ text.T).argmax(axis=1) == np.arange(len(scenes))
    assert found.mean() >= 0.9  # chance 1/48


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(UserError, match=r"pocket-clip.*card\.json is missing"):
        resolve(EMBEDDERS["pocket-clip"])(tmp_path)

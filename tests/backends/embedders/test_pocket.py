"""Embedders: every entry keeps the contract; words, pixels and the shipped pocket-clip."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from backends import EMBEDDERS
from backends.embedders.pixels import Pixels
from backends.embedders.pocket import CONTEXT_LENGTH, PocketClip, WordTokenizer, to_tensor
from backends.simulation.scenes import render, sample_scenes
from explorer.types import EmbeddingSpace, UserError, resolve

CHECKPOINTS = Path(__file__).resolve().parents[3] / "checkpoints"


@pytest.fixture(scope="module")
def scenes():
    return sample_scenes(48, seed=401)


@pytest.fixture(scope="module")
def pictures(scenes):
    return [render(scene) for scene in scenes]


@pytest.fixture(scope="module")
def clip():
    return resolve(EMBEDDERS["pocket-clip"])(CHECKPOINTS)


# published models need weights that do not ship: tests/backends/test_targets.py; published
# embeddings lie ready and have no network: tests/backends/datasets/test_laion.py
READY = [name for name, entry in EMBEDDERS.items() if hasattr(resolve(entry), "ready_only")]


@pytest.mark.parametrize(
    "name",
    [n for n, entry in EMBEDDERS.items() if not hasattr(resolve(entry), "hub") and n not in READY],
)
def test_every_embedder_keeps_the_contract(name, pictures):
    embedder = resolve(EMBEDDERS[name])(CHECKPOINTS, "cpu")
    larger = np.kron(pictures[0], np.ones((2, 2, 1), np.uint8))[:, :200]
    for space in embedder.spaces:
        assert isinstance(space, EmbeddingSpace) and space.model == name
        rows = embedder.embed([*pictures[:3], larger], space)
        assert rows.shape == (4, *space.shape) and rows.dtype == np.float32
        assert np.isfinite(rows).all()
        alone = embedder.embed(pictures[1:2], space)
        np.testing.assert_allclose(alone[0], rows[1], atol=2e-5 * max(1, np.abs(rows).max()))
        if space.unit_norm:
            np.testing.assert_allclose(np.linalg.norm(rows, axis=-1), 1, atol=1e-5)
    for space in getattr(embedder, "text_spaces", ()):
        assert space.model == name and space not in embedder.spaces
        rows = embedder.embed_text(["a red cat", "", "by the sea"], space)
        assert rows.shape == (3, *space.shape) and rows.dtype == np.float32
        alone = embedder.embed_text(["by the sea"], space)
        np.testing.assert_allclose(alone[0], rows[2], atol=2e-5 * max(1, np.abs(rows).max()))


@pytest.mark.parametrize("name", READY)
def test_what_lies_ready_embeds_no_picture(name, pictures):
    cls = resolve(EMBEDDERS[name])
    (space,) = cls.spaces
    assert space.model == name and cls.fingerprint_of(CHECKPOINTS) == cls.fingerprint
    with pytest.raises(UserError, match=f"{space.name} holds published embeddings"):
        cls(CHECKPOINTS).embed(pictures[:1], space)


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
    text = clip.embed_text([scene.caption for scene in scenes], clip.text_spaces[0])
    assert text.shape == (len(scenes), *clip.text_spaces[0].shape)
    np.testing.assert_allclose(np.linalg.norm(text, axis=1), 1, atol=1e-5)
    found = (image @ text.T).argmax(axis=1) == np.arange(len(scenes))
    assert found.mean() >= 0.9  # chance 1/48


def test_tokens_are_those_of_the_library_and_average_to_the_embedding(clip, pictures):
    image, tokens = clip.spaces
    found = clip.embed(pictures[:4], tokens)
    tower = copy.deepcopy(clip.model.visual)
    tower.output_tokens = True
    with torch.inference_mode():
        pooled, expected = tower(to_tensor(pictures[:4], 128))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(found).max())
    z = found.mean(axis=1) @ clip.model.visual.proj.numpy()
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    np.testing.assert_allclose(z, clip.embed(pictures[:4], image), atol=1e-5)


def test_tokens_follow_the_places_of_the_picture(clip, pictures):
    changed = pictures[0].copy()
    changed[:16, 112:] = 255 - changed[:16, 112:]  # the last patch of the first row
    before, after = clip.embed([pictures[0], changed], clip.spaces[1])
    assert np.linalg.norm(after - before, axis=1).argmax() == 7


def test_the_context_holds_the_caption_up_to_its_end_and_what_it_is_pooled_from(clip, scenes):
    text, context = clip.text_spaces
    captions = [scene.caption for scene in scenes[:3]]
    found = clip.embed_text(captions, context)
    ends = clip.tokenizer(captions).argmax(dim=1).numpy()
    z = found[np.arange(3), ends] @ clip.model.text_projection.numpy()
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    np.testing.assert_allclose(z, clip.embed_text(captions, text), atol=1e-5)
    (longer,) = clip.embed_text([f"{captions[0]} sea"], context)
    np.testing.assert_allclose(longer[: ends[0]], found[0, : ends[0]], atol=1e-4)
    assert np.abs(longer[ends[0]] - found[0, ends[0]]).max() > 0.01


def test_a_fingerprint_names_the_weights(clip, tmp_path):
    folder = shutil.copytree(CHECKPOINTS / "pocket-clip", tmp_path / "pocket-clip")
    assert PocketClip(tmp_path).fingerprint == clip.fingerprint
    card = json.loads((folder / "card.json").read_text())
    card["settings"]["architecture"]["vocabulary"][0] = "zebra"
    (folder / "card.json").write_text(json.dumps(card))
    assert PocketClip(tmp_path).fingerprint != clip.fingerprint


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(UserError, match=r"pocket-clip.*card\.json is missing"):
        resolve(EMBEDDERS["pocket-clip"])(tmp_path)

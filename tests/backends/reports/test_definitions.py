"""Scores as papers define them: what differs between them, and that each is what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity

from backends.reports.definitions import DEFINITIONS, definition
from backends.reports.feature_networks import NETWORKS, Features, resized
from backends.reports.likeness import Pictures, similarities
from backends.reports.pairs import lpips, mean_ssim, windows
from backends.reports.scores import SCORES, measure, pool_of
from explorer.types import UserError
from tests.backends.reports.test_scores import pictures

BY_ID = {s.id: s for one in DEFINITIONS.values() for s in one.scores}


def value(name, shown, made, score):
    one = DEFINITIONS[name]
    given = [Pictures(images, Features(), one.look) for images in (shown, made)]
    return BY_ID[f"{name}/{score}"].per_item(*given)


def test_mindeye2_resizes_without_and_brain_diffuser_by_pillow():
    shown, made = pictures(2, 512), pictures(2, 512, seed=1)
    rng = np.random.default_rng(0)  # fine noise, which antialiasing takes away
    made = [np.clip(m + rng.normal(0, 60, m.shape), 0, 255).astype(np.uint8) for m in made]

    def correlated(prepare):
        pairs = [[prepare(i).ravel() for i in pair] for pair in zip(shown, made, strict=True)]
        return [np.corrcoef(a, b)[0, 1] for a, b in pairs]

    def tensors(image, antialias=False):
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        for side in (256, 425):
            pixels = torch.nn.functional.interpolate(
                pixels, side, mode="bilinear", antialias=antialias
            )
        return pixels.numpy()

    def pillow(image):
        return np.asarray(Image.fromarray(image).resize((425, 425))) / 255

    found = value("mindeye2", shown, made, "pixcorr-425")
    np.testing.assert_allclose(found, correlated(tensors), atol=1e-5)
    assert np.abs(found - correlated(lambda i: tensors(i, True))).min() > 1e-3
    found = value("brain-diffuser", shown, made, "pixcorr-425")
    np.testing.assert_allclose(found, correlated(pillow), atol=1e-9)


def test_brain_diffusers_ssim_takes_columns_for_channels():
    shown, made = pictures(2, 425), pictures(2, 425, seed=1)
    found = value("brain-diffuser", shown, made, "ssim-columns-425")
    for one, a, b in zip(found, shown, made, strict=True):
        a, b = (rgb2gray(image / 255.0) for image in (a, b))
        settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        columns = [  # as scikit-image 0.17 goes through the last axis
            structural_similarity(a[:, k], b[:, k], data_range=1.0, **settings) for k in range(425)
        ]
        assert one == pytest.approx(np.mean(columns), abs=1e-6)
        whole = structural_similarity(a, b, data_range=1.0, **settings)
        assert abs(one - whole) > 0.005


def test_ssim_from_windows_is_that_of_scikit_image():
    rng = np.random.default_rng(0)
    images = [*pictures(3, 64), np.full((64, 64, 3), 250, np.uint8)]
    images.append(np.clip(images[3] - rng.integers(0, 3, (64, 64, 3)), 0, 255).astype(np.uint8))
    for a in images:
        for b in images:
            expected = structural_similarity(a, b, data_range=255, channel_axis=-1)
            assert mean_ssim(windows(a), windows(b)) == pytest.approx(expected, abs=1e-6)


def test_mind_vis_compares_with_all_others_and_the_default_with_fifty():
    shown, made = pictures(9, 8), pictures(9, 8, seed=1)
    found = value("mind-vis", shown, made, "mse-two-way")
    a, b = ([resized([i], 256)[0].numpy() for i in images] for images in (shown, made))
    error = np.array([[np.square(x - y).mean() for y in a] for x in b])
    np.testing.assert_allclose(found, (error > error.diagonal()[:, None]).sum(1) / 8, atol=1e-6)
    pools = {s.id: pool_of(s, 60) for s in (*SCORES, *BY_ID.values())}
    assert pools["mse-two-way"] == "50 of 59 other images, drawn with seed 0"
    assert pools["mind-vis/mse-two-way"] == pools["clip-l-14-two-way"] == "all 59 other images"
    assert pools["50-way-top-1"] == "49 other of 1,000 ImageNet classes, all draws"
    assert pools["pixcorr-425"] == "" and pool_of(SCORES[9], 20) == "all 19 other images"


class Parts(Features):
    """AlexNet's layers in small, given two pictures at a time; every part is counted."""

    def batches(self, name, images, look=None):
        rng = np.random.default_rng(int(images[0].sum()))
        widths = zip(NETWORKS[name].layers, (64, 192, 384, 256, 256), strict=True)
        rows = {k: rng.random((len(images), w, 2, 2), np.float32) for k, w in widths}
        for begin in range(0, len(images), 2):
            yield {layer: values[begin : begin + 2] for layer, values in rows.items()}


def test_wide_layers_are_compared_in_blocks_as_at_once(monkeypatch):
    shown, made = (Pictures(pictures(7, seed=k), Parts()) for k in (0, 1))
    whole = similarities(shown, made, "alexnet"), lpips(shown, made)
    flat = [p.feature("alexnet", "features.4").reshape(7, -1) for p in (made, shown)]
    r = np.corrcoef(*flat)[:7, 7:]
    np.testing.assert_allclose(whole[0]["features.4"], r, atol=1e-6)
    monkeypatch.setattr("backends.reports.likeness.KEPT", 10**4)
    shown, made = (Pictures(pictures(7, seed=k), Parts()) for k in (0, 1))
    parts = similarities(shown, made, "alexnet"), lpips(shown, made)
    np.testing.assert_allclose(parts[0]["features.11"], whole[0]["features.11"], atol=1e-6)
    np.testing.assert_allclose(parts[1], whole[1], atol=2e-6)


def test_every_network_is_named_and_every_definition_has_ids_of_its_own(tmp_path):
    ids = [s.id for s in (*SCORES, *BY_ID.values())]
    assert len(set(ids)) == len(ids)
    known = Features(tmp_path)
    variants = {s.id: known.variant(s.network) for s in (*SCORES, *BY_ID.values())}
    assert variants["effnet-b1-distance"] == "EfficientNet-B1, torchvision IMAGENET1K_V2"
    # efficientnet_b1(weights=True) of torchvision 0.13 means the first weights
    assert variants["brain-diffuser/effnet-b1-distance"].endswith("IMAGENET1K_V1")
    assert "OpenAI" in variants["clip-l-14-two-way"]
    assert all(variants[i] for i in ids if not i.split("/")[-1].startswith(PIXELS))
    assert len({n.variant for n in NETWORKS.values()}) == len(NETWORKS)
    one = definition("mindeye2")
    images = pictures(3)
    asked = {"scores": one.scores[:1], "look": one.look}
    _, table, _ = measure(images, [images], Features(tmp_path), **asked)
    assert list(table["id"]) == ["mindeye2/pixcorr-425"] and table["pool"][0] == ""
    with pytest.raises(UserError, match="as 'mindeye1' defines them; choose one of mindeye2, br"):
        definition("mindeye1")


PIXELS = ("pixcorr", "ssim", "mse", "pcc", "fid")


def test_a_long_comparison_is_forecast(monkeypatch):
    said = []
    monkeypatch.setattr("backends.reports.pairs.TIMED", 1)
    shown, made = Pictures(pictures(3), Features()), Pictures(pictures(3), Features())
    made.say = said.append
    clock = iter([0.0, 90.0])
    monkeypatch.setattr("backends.reports.pairs.time.perf_counter", lambda: next(clock))
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    BY_ID["mind-vis/ssim-two-way"].per_item(shown, made)
    assert said == ["SSIM, two-way: 9 comparisons, about 14 min"]

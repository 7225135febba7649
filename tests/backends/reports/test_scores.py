"""Scores: known answers on made pictures, and the real architectures with random weights."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from backends.reports import scores as scores_room
from backends.reports.feature_networks import NETWORKS, Features, _folded, resized
from backends.reports.likeness import (
    Pictures,
    correlations,
    frechet,
    n_way_top_k,
)
from backends.reports.pairs import lpips
from backends.reports.scores import SCORES, STAND_INS, Score, measure
from explorer.types import UserError

BY_ID = {score.id: score for score in (*SCORES, *STAND_INS)}


def pictures(n: int = 6, side: int = 48, seed: int = 0) -> list[np.ndarray]:
    """Smooth random colours, so that resizing keeps them apart."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((n, 3, 6, 6), np.float32))
    fine = torch.nn.functional.interpolate(coarse, side, mode="bilinear")
    return list((fine.permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8))


def functions() -> dict:
    def flat(images):
        return np.stack([resized([i], 8)[0].ravel().numpy() for i in images])

    return {
        "pocket-clip": flat,
        "judge-category": lambda images: np.array([[int(i.mean()) // 32] for i in images]),
    }


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Return a folder of random weights of the real architectures, by their published names."""
    from torchvision import models

    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    states = {
        "alexnet": models.alexnet().state_dict(),
        "efficientnet-b1": models.efficientnet_b1().state_dict(),
        # the Frechet distance's network has torchvision's names and 1,008 classes
        "fid-inception": models.inception_v3(
            num_classes=1008, aux_logits=False, init_weights=False
        ).state_dict(),
    }
    swav = models.resnet50().state_dict()
    states["swav"] = {f"module.{k}": v for k, v in swav.items() if not k.startswith("fc.")} | {
        "module.projection_head.0.weight": torch.zeros(2, 2),
        "module.prototypes.weight": torch.zeros(3, 2),
    }
    for name, state in states.items():
        torch.save(state, folder / NETWORKS[name].file)
    return folder


# ------------------------------------------------------------------------------------ pixels alone


@pytest.mark.parametrize("score", ["pixcorr-425", "ssim-grey-425"])
def test_pixel_scores_of_equal_pictures_are_one(score):
    shown = Pictures(pictures(), Features())
    np.testing.assert_allclose(BY_ID[score].per_item(shown, shown), 1, atol=1e-6)


def test_pixcorr_of_a_negative_is_minus_one_and_of_one_colour_unknown():
    images = pictures(2)
    made = [255 - images[0], np.full_like(images[1], 7)]
    found = BY_ID["pixcorr-425"].per_item(Pictures(images, Features()), Pictures(made, Features()))
    assert found[0] == pytest.approx(-1, abs=1e-6)
    assert np.isnan(found[1])


def test_ssim_is_that_of_scikit_image_in_grey_at_425_pixels():
    from skimage.color import rgb2gray
    from skimage.metrics import structural_similarity

    a, b = (Pictures(pictures(2, seed=k), Features()) for k in (0, 1))
    grey = [rgb2gray(resized(p.images, 256, 425).numpy(), channel_axis=1) for p in (a, b)]
    expected = [
        structural_similarity(
            x, y, data_range=1.0, gaussian_weights=True, use_sample_covariance=False
        )
        for x, y in zip(*grey, strict=True)
    ]
    np.testing.assert_allclose(BY_ID["ssim-grey-425"].per_item(a, b), expected)


def test_resizing_goes_by_way_of_256():
    image = np.zeros((512, 512, 3), np.uint8)
    image[::2] = 255  # stripes that antialiasing turns grey
    assert resized([image], 256).shape == (1, 3, 256, 256)
    assert abs(resized([image], 256, 425)[0, :, 50:-50].mean() - 0.5) < 0.01
    assert resized([image], 256)[0, :, 5:-5].std() < 0.05


@pytest.mark.parametrize("score", ["mse-two-way", "pcc-two-way", "ssim-two-way"])
def test_pairwise_rates_of_equal_and_of_swapped_pictures(score):
    images = pictures(3, side=32)
    shown = Pictures(images, Features())
    assert BY_ID[score].per_item(shown, shown).tolist() == [1, 1, 1]
    swapped = Pictures([images[1], images[0], images[2]], Features())
    found = BY_ID[score].per_item(shown, swapped)
    assert found[2] == 1
    assert max(found[:2]) <= 0.5  # nearer to the picture that it is a copy of
    constant = Pictures([np.full_like(images[0], 9)] * 3, Features())
    found = BY_ID["pcc-two-way"].per_item(shown, constant)
    assert np.isnan(found).all() and BY_ID["pcc-two-way"].undefined_as == 0  # no one is nearer


def test_many_pictures_are_compared_with_fifty_others():
    shown = Pictures(pictures(60, side=8), Features())
    found = BY_ID["mse-two-way"].per_item(shown, Pictures(pictures(60, 8, seed=1), Features()))
    np.testing.assert_allclose(found * 50, (found * 50).round(), atol=1e-9)
    assert abs(found.mean() - 0.5) < 0.15


# ---------------------------------------------------------------------------------------- features


def test_two_way_of_features():
    images = pictures(5)
    shown = Pictures(images, Features(functions=functions()))
    assert BY_ID["pocket-clip-two-way"].per_item(shown, shown).tolist() == [1] * 5
    other = Pictures([images[1]] * 5, Features(functions=functions()))
    found = BY_ID["pocket-clip-two-way"].per_item(shown, other)
    assert found[1] == 1
    assert found.mean() == pytest.approx(0.5)  # one answer for all is chance


def test_alexnet_layers_are_the_second_and_the_fifth_convolution(weights):
    from torchvision.models import alexnet

    network = alexnet().eval()
    network.load_state_dict(torch.load(weights / NETWORKS["alexnet"].file, weights_only=True))
    images = pictures(2)
    found = Features(weights).of("alexnet", images)
    mean, sd = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    given = (resized(images, 256) - mean[:, None, None]) / sd[:, None, None]
    with torch.inference_mode():
        second, fifth = network.features[:5](given), network.features[:12](given)
    assert found["features.4"].shape == (2, 192, 31, 31)
    np.testing.assert_allclose(found["features.4"], second.numpy(), atol=1e-5)
    np.testing.assert_allclose(found["features.11"], fifth.numpy(), atol=1e-5)


@pytest.fixture
def clip(tmp_path):
    """Write a ViT of the real input size with little else, in open_clip's layout."""
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    vision = {"image_size": 224, "layers": 1, "width": 8, "head_width": 4, "patch_size": 32}
    text = {"context_length": 77, "vocab_size": 49408, "width": 4, "heads": 2, "layers": 1}
    sizes = {"embed_dim": 768, "vision_cfg": vision, "text_cfg": text}
    model = CLIP(**sizes).eval()
    folder = tmp_path / "ViT-L-14"
    folder.mkdir()
    about = {
        "model_cfg": sizes | {"quick_gelu": False},
        "preprocess_cfg": {"interpolation": "bicubic"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(about))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return model


def test_clip_reads_the_image_vector_at_224_pixels_with_its_own_colours(clip, tmp_path):
    (found,) = Features(tmp_path).of("clip-l-14", pictures(2)).values()
    mean, sd = (torch.tensor(v)[:, None, None] for v in NETWORKS["clip-l-14"].normalise)
    with torch.inference_mode():
        expected = clip.encode_image((resized(pictures(2), 256, 224) - mean) / sd)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # the weights of the embedder of that name serve too
    also = Features(tmp_path / "none", embedders=tmp_path)
    shown = Pictures(pictures(3), also)
    assert BY_ID["clip-l-14-two-way"].per_item(shown, shown).tolist() == [1, 1, 1]


def test_lpips_is_that_of_torchmetrics(weights):
    from torchmetrics.functional.image.lpips import _LPIPS

    theirs = _LPIPS(pretrained=True, net="alex", pnet_rand=True).eval()
    state = torch.load(weights / NETWORKS["alexnet"].file, weights_only=True)
    with torch.no_grad():
        for name, parameter in theirs.net.named_parameters():  # slice1.0.weight is features.0's
            parameter.copy_(state[f"features.{name.split('.', 1)[1]}"])
    images, others = pictures(2), pictures(2, seed=1)
    a, b = (Pictures(x, Features(weights)) for x in (images, others))
    with torch.inference_mode():
        expected = theirs(resized(images, 256), resized(others, 256), normalize=True).ravel()
    assert lpips(a, b)[0, 0] == pytest.approx(float(expected[0]), rel=1e-4)
    assert lpips(a, b)[1, 1] == pytest.approx(float(expected[1]), rel=1e-4)
    assert lpips(a, a)[0, 0] == 0
    assert BY_ID["lpips-two-way"].per_item(a, a).tolist() == [1, 1]


@pytest.mark.parametrize("name", ["efficientnet_b1", "resnet50"])
def test_normalisations_that_are_folded_into_convolutions_change_nothing(name):
    from torchvision import models

    network = getattr(models, name)().eval()
    for module in network.modules():  # as trained ones: away from 0 and 1
        if isinstance(module, torch.nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean):
                torch.nn.init.normal_(values, 0.5, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    pixels = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        before = network(pixels)
        folded = _folded(network)
        after = folded(pixels)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    assert (before - after).abs().max() < 1e-4 * before.abs().max()


@pytest.mark.parametrize("score", ["effnet-b1-distance", "swav-distance"])
def test_distances_come_from_the_pooled_features(weights, score):
    images, others = pictures(3), pictures(3, seed=1)
    a, b = (Pictures(x, Features(weights)) for x in (images, others))
    np.testing.assert_allclose(BY_ID[score].per_item(a, a), 0, atol=1e-6)
    network = {"effnet-b1-distance": "efficientnet-b1", "swav-distance": "swav"}[score]
    width = {"efficientnet-b1": 1280, "swav": 2048}[network]
    assert a.feature(network, "avgpool").shape == (3, width, 1, 1)
    r = correlations(*(p.feature(network, "avgpool")[..., 0, 0] for p in (a, b)))
    np.testing.assert_allclose(BY_ID[score].per_item(a, b), 1 - r)


def test_n_way_is_the_mean_over_draws():
    rng = np.random.default_rng(0)
    truth, found = rng.standard_normal((2, 1, 40))
    found[0, truth.argmax()] = np.sort(found[0])[-4]  # three classes are likelier
    shown, made = Pictures([], Features()), Pictures([], Features())
    for one, logits in ((shown, truth), (made, found)):
        one._found["vit-h-14"] = {"heads": logits}
    exact = n_way_top_k(10, 2)(shown, made)[0]
    own, hits = truth.argmax(), 0
    others = np.delete(np.arange(40), own)
    for _ in range(20_000):
        drawn = rng.choice(others, 9, replace=False)
        hits += (found[0, drawn] > found[0, own]).sum() < 2
    assert exact == pytest.approx(hits / 20_000, abs=0.015)


def test_the_frechet_distance_is_that_of_torchmetrics():
    from torchmetrics.image.fid import FrechetInceptionDistance

    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((40, 5)), rng.standard_normal((60, 5)) * 2 + 1

    class Itself(torch.nn.Module):
        num_features = 5

        def forward(self, images):
            return images.reshape(len(images), -1)[:, :5]

    theirs = FrechetInceptionDistance(Itself(), normalize=True).set_dtype(torch.float64)
    for rows, real in ((a, True), (b, False)):
        theirs.update(torch.from_numpy(rows)[:, :, None, None], real=real)
    assert frechet(a, b) == pytest.approx(float(theirs.compute()), rel=1e-6)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet(a, a + 3) == pytest.approx(45)
    with pytest.raises(UserError, match="at least 2 pictures on each side"):
        frechet(a[:1], b)


def test_fid_takes_the_features_after_the_first_pooling(weights):
    features = Features(weights)
    found = features.of("fid-inception", pictures(2))
    assert found["MaxPool_1"].shape[:2] == (2, 64)
    assert found["AvgPool"].shape == (2, 2048, 1, 1)
    made = [pictures(4, seed=1), pictures(4, seed=2)]
    scores = [BY_ID["fid-64"]]
    _, table, missing = measure(pictures(4), made, features, scores=scores)
    assert not missing
    line = table.iloc[0]
    assert line["low"] < line["value"] < line["high"]
    assert line["better"] == "lower"


# -------------------------------------------------------------------------------------- the table


def test_the_mean_over_samples_is_the_score_and_the_best_has_its_own_column():
    images = pictures(4)
    per_picture, table, missing = measure(
        images,
        [images, [255 - image for image in images]],
        Features(functions=functions()),
        scores=[BY_ID["pixcorr-425"], BY_ID["judge-category"], BY_ID["effnet-b1-distance"]],
    )
    line = table.set_index("id").loc["pixcorr-425"]
    assert line["value"] == pytest.approx(0, abs=1e-6)
    assert line["best of samples"] == pytest.approx(1)
    assert (line["N"], line["samples"], line["better"]) == (4, 2, "higher")
    assert table.set_index("id").loc["judge-category", "chance"] == pytest.approx(1 / 24)
    assert len(per_picture) == 2 * 2 * 4
    assert list(missing) == ["effnet-b1-distance"]


def test_a_long_measurement_is_foreseen_from_four_pictures(monkeypatch):
    seconds = iter(range(1000))  # every look at the clock finds a second gone
    monkeypatch.setattr(scores_room, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    plain = Score("a", "A", True, None, "here", lambda shown, made: np.zeros(len(shown)))
    chosen, told = [plain, replace(plain, id="b", one_by_one=True)], []
    few = [np.zeros((8, 8, 3), np.uint8)] * 60
    measure(few[:49], [few[:49]], Features(), scores=chosen, progress=told.append)
    assert told[0].endswith("A") and next(seconds) == 0
    measure(few, [few, few], Features(), scores=chosen, progress=told.append)
    # 1 s for eight pictures, of 180, and 1 s for 16 comparisons, of 2 x 60 x 51
    assert told[4 - 1] == "2 scores of 120 pictures: about 7 min"


def test_missing_weights_are_named_with_the_command(tmp_path):
    with pytest.raises(
        UserError, match=r"efficientnet_b1-c27df63c.pth \(30 MB\) is not in .*curl"
    ):
        Features(tmp_path).of("efficientnet-b1", pictures(2))
    _, table, missing = measure(pictures(3), [pictures(3)], Features(tmp_path))
    assert set(table["id"]) == {
        *("pixcorr-425", "ssim-grey-425", "mse-two-way", "pcc-two-way", "ssim-two-way")
    }
    assert missing["clip-l-14-two-way"] == (
        f"ViT-L-14/open_clip_model.safetensors (1711 MB) is not in {tmp_path}; get it with hf "
        "download timm/vit_large_patch14_clip_224.openai open_clip_config.json "
        f"open_clip_model.safetensors --local-dir {tmp_path / 'ViT-L-14'}"
    )
    with pytest.raises(UserError, match="pocket-clip is not at hand; this score is left out"):
        Features(tmp_path).of("pocket-clip", pictures(2))


def test_damaged_and_foreign_weights_are_refused(tmp_path):
    file = tmp_path / NETWORKS["efficientnet-b1"].file
    file.write_bytes(b"half a download")
    with pytest.raises(UserError, match="does not hold the weights of efficientnet-b1"):
        Features(tmp_path).of("efficientnet-b1", pictures(2))
    torch.save({"conv1.weight": torch.zeros(3)}, file)
    with pytest.raises(UserError, match="does not hold the weights of efficientnet-b1.*again"):
        Features(tmp_path).of("efficientnet-b1", pictures(2))


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(UserError, match="found 3 images and samples of 2"):
        measure(pictures(3), [pictures(2)], Features())
    with pytest.raises(UserError, match="samples of none"):
        measure(pictures(3), [], Features())

"""Stable Diffusion's pictures pulled towards features of CLIP ViT-B/32, and betas."""

import numpy as np
import pytest
import torch
from PIL import Image

from backends import GENERATORS
from backends.embedders.clip import ViTB32
from backends.generators.pulls import towards_betas
from backends.generators.sd15_context import StableContext
from explorer.protocols import Condition
from explorer.types import UserError, resolve

EYE = ViTB32.spaces[1]  # block 1


def test_what_guidance_sees_is_what_the_embedder_gives(eyes):
    embedder = ViTB32(eyes)
    picture = np.random.default_rng(0).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(picture).resize((96, 96), Image.BICUBIC))
    pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None] / 127.5 - 1
    for space in (EYE, ViTB32.spaces[0]):
        found, expected = embedder.see(pixels, space)[0], embedder.embed([picture], space)[0]
        alike = np.corrcoef(found.flatten().numpy(), expected.flatten())[0, 1]
        assert alike > 0.9999  # Pillow rounds to grey levels


@pytest.mark.parametrize("name", ["sd15-context", "unclip"])
def test_features_pull_the_expected_picture_and_nothing_where_they_are_off(
    name, saved, made, eyes, given
):
    generator = resolve(GENERATORS[name])(eyes, source=saved / name)
    decoded = {EYE: torch.randn(EYE.shape, generator=torch.Generator().manual_seed(2))}
    one, two = (Condition({**given(name, seed).embeddings, **decoded}) for seed in (0, 1))
    plain = made[name].latents([given(name)], 3.0, [7], 2)
    off = generator.latents([one], 3.0, [7], 2)
    torch.testing.assert_close(off, plain, atol=1e-5, rtol=1e-5)

    def error(latents):
        with torch.no_grad():
            seen = generator._features[EYE](generator._decode(latents)).flatten()
        return (seen - decoded[EYE].flatten()).square().sum()

    how = {"feature_kappa": 0.5, "feature_eta": 1.0}
    for scale in (0.0, 3.0):
        without = generator.latents([one], scale, [7], 2)
        alone = generator.latents([one], scale, [7], 2, **how)
        assert error(alone) < error(without), scale
    # a picture is the same alone, among others and in a sweep
    among = generator.latents([two, one], 3.0, [9, 7], 2, **how)
    torch.testing.assert_close(among[1:], alone, atol=1e-3, rtol=1e-3)
    swept = [s.image for s in generator.sweep(one, (0.0, 3.0), 2, 7, **how) if s.done]
    shown = generator.generate([one], 3.0, [7], 2, **how)[0]
    assert np.abs(swept[1].astype(int) - shown).max() <= 2
    # only in the first steps, and in no step
    never = generator.latents([one], 3.0, [7], 2, **how | {"feature_eta": 0.0})
    torch.testing.assert_close(never, plain, atol=1e-5, rtol=1e-5)
    early = generator.latents([one], 3.0, [7], 2, **how | {"feature_eta": 0.5})
    assert not torch.allclose(early, plain, atol=1e-4)
    assert not torch.allclose(early, alone, atol=1e-4)


def test_what_pulls_must_be_there(saved, made, eyes, fakes, tmp_path, given):
    generator = made["sd15-context"]
    with pytest.raises(
        UserError, match="a weight above 0 for one of the decoded layers, which ar"
    ):
        generator.latents([given("sd15-context")], 3.0, [7], 2, feature_kappa=0.1)
    with pytest.raises(UserError, match="and this condition has none; choose a subject's trial"):
        generator.latents([given("sd15-context")], 3.0, [7], 2, brain_kappa=0.1)
    decoded = {**given("sd15-context").embeddings, EYE: torch.zeros(EYE.shape)}
    with pytest.raises(
        UserError, match="ViT-B-32 needs the weights of timm/vit_base_patch32_clip"
    ):
        generator.latents([Condition(decoded)], 3.0, [7], 2, feature_kappa=0.1, feature_eta=1.0)
    decoded[EYE] = torch.full(EYE.shape, torch.nan)
    with pytest.raises(UserError, match="feature_kappa draws nothing from ViT-B-32/block1: 38400"):
        generator.latents([Condition(decoded)], 3.0, [7], 2, feature_kappa=0.1)


def test_betas_pull_through_an_encoding_model_of_features(saved, eyes, fakes, given):
    from backends.encoders.voxelwise import Encoding, train_encoding

    trials = fakes.Study().load("sub-01")
    names = list(dict.fromkeys(trials.table["stimulus"]))
    image = ViTB32.spaces[0]
    rows = ViTB32(eyes).embed([fakes.picture(name) for name in names], image)
    known = {image: dict(zip(names, rows, strict=True))}
    folder = eyes / "encoding" / "fake" / "sub-01"
    train_encoding(trials, known, folder, command="made by a test", licence="CC0")
    generator = StableContext(eyes, source=saved / "sd15-context")
    z, betas = given("sd15-context").embeddings, trials.average("test-03")
    trial = Condition(z, betas=betas, subject=trials.subject)
    encoder = Encoding.load(folder)
    loss = towards_betas(generator._features, [trial], [encoder])
    apart = []
    for kappa in (0.0, 0.5):
        latents = generator.latents([trial], 2.0, [3], 4, brain_kappa=kappa, brain_alpha=1.0)
        with torch.no_grad():
            apart.append(loss(generator._decode(latents)).item())
    assert apart[1] < apart[0] - 1e-3

"""Stable Cascade: diffusers' two pipelines in a row, and the contract of every generator."""

import json

import numpy as np
import pytest
import torch
from diffusers import (
    DDPMWuerstchenScheduler,
    StableCascadeDecoderPipeline,
    StableCascadePriorPipeline,
    StableCascadeUNet,
)
from diffusers.pipelines.stable_cascade.pipeline_stable_cascade import PaellaVQModel
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from backends.generators import cascade
from backends.generators.cascade import IMAGE
from explorer.protocols import Condition, Generator
from explorer.types import EmbeddingSpace, UserError
from tests.miniatures.cascade import SIDE, Small

STEPS = 4


@pytest.fixture(scope="module")
def weights(saved):
    return saved / "cascade"


@pytest.fixture(scope="module")
def generator(made):
    return made["cascade"]


def given(seed=0):
    values = torch.randn(IMAGE.shape, generator=torch.Generator().manual_seed(seed))
    return Condition({IMAGE: values})


@torch.inference_mode()
@pytest.mark.parametrize("scale", [4.0, 1.0])
def test_prior_and_decoder_give_the_latents_of_the_published_pipelines(weights, generator, scale):
    text = {
        "tokenizer": CLIPTokenizer.from_pretrained(weights / "tokenizer"),
        "text_encoder": CLIPTextModelWithProjection.from_pretrained(weights / "text_encoder"),
        "scheduler": DDPMWuerstchenScheduler.from_pretrained(weights / "scheduler"),
    }
    prior = StableCascadeUNet.from_pretrained(weights / "prior").eval()
    decoder = StableCascadeUNet.from_pretrained(weights / "decoder").eval()
    vqgan = PaellaVQModel.from_pretrained(weights / "vqgan").eval()
    source, embedding = torch.Generator().manual_seed(7), given().embeddings[IMAGE]
    first = StableCascadePriorPipeline(prior=prior, **text)
    second = StableCascadeDecoderPipeline(decoder=decoder, vqgan=vqgan, **text)
    for pipeline in (first, second):
        pipeline.set_progress_bar_config(disable=True)
    laid_out = first(
        "",
        image_embeds=embedding[None, None],
        height=int(42.67 * SIDE),
        width=int(42.67 * SIDE),
        guidance_scale=scale,
        num_inference_steps=STEPS,
        generator=source,
    ).image_embeddings
    expected = second(
        laid_out,
        "",
        num_inference_steps=3,
        guidance_scale=0.0,
        generator=source,
        output_type="latent",
        return_dict=False,
    )
    found = generator.latents([given()], scale, [7], STEPS, decoder_steps=3)
    # untrained networks leave latents of several hundreds: against the largest
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    shown = vqgan.decode(vqgan.config.scale_factor * expected).sample.clamp(0, 1)[0] * 255
    (image,) = generator.generate([given()], scale, [7], STEPS, decoder_steps=3)
    assert np.abs(image - shown.permute(1, 2, 0).numpy()).max() <= 1


def test_the_contract(generator, monkeypatch):
    assert isinstance(generator, Generator) and not generator.remarks
    one, two = given(), given(1)
    done = {s.scale: s.image for s in generator.sweep(one, (3.0, 0.0, 1.0), STEPS, 5) if s.done}
    assert list(done) == [3.0, 0.0, 1.0] and done[3.0].shape == (128, 128, 3)
    alone = generator.latents([one], 3.0, [5], STEPS)
    among = generator.latents([two, one], 3.0, [9, 5], STEPS)
    torch.testing.assert_close(among[1:], alone, atol=1e-4, rtol=1e-4)
    assert (among[0] - alone[0]).abs().mean() > 0.05
    shown = generator.generate([one], 3.0, [5], STEPS)[0]
    assert np.abs(shown.astype(int) - done[3.0]).max() <= 1
    zero = generator.latents([one], 0.0, [5], STEPS)
    assert torch.equal(zero, generator.latents([two], 0.0, [5], STEPS))
    ones, halves = (generator.latents([one], scale, [5], STEPS) for scale in (1.0, 0.5))
    assert not torch.allclose(ones, generator.latents([two], 1.0, [5], STEPS), atol=1e-4)
    assert not torch.allclose(halves, ones, atol=1e-4)
    assert not torch.allclose(halves, zero, atol=1e-4)
    null = Condition(one.embeddings, nulls=two.embeddings)
    found = generator.latents([null], 0.0, [5], STEPS)
    expected = generator.latents([two], 1.0, [5], STEPS)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    moments = list(generator.moments([one, two], 3.0, 5, 2))
    assert [m.images.shape for m in moments] == [(2, 128, 128, 3)] * 2
    elsewhere = Condition({EmbeddingSpace("elsewhere", "image", (4,)): torch.zeros(4)})
    with pytest.raises(UserError, match="cascade .*the mapper gave elsewhere/image; choose"):
        generator.generate([elsewhere], 1.0, [0], 2)
    with pytest.raises(UserError, match="decoder_steps is a whole number, found 2.5"):
        generator.generate([one], 1.0, [0], 2, decoder_steps=2.5)
    rows, forward = [], generator.prior.unet.forward

    def counted(sample, **told):
        rows.append(len(sample))
        return forward(sample=sample, **told)

    monkeypatch.setattr(generator.prior.unet, "forward", counted)
    list(generator.sweep(one, (0.0, 1.0, 2.0, 8.0), 3, 0))
    assert rows == [2, 6, 6]  # what does not matter is not computed


def test_an_autoencoder_gives_back_what_its_latents_keep(generator):
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    rows = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        try:
            latents = generator.vqgan.encode(rows).latents
        except ValueError:  # diffusers 0.35.2 refuses its own name for what it returns
            latents = generator.vqgan.down_blocks(generator.vqgan.in_block(rows))
        expected = generator.vqgan.decode(latents).sample
    found = generator.autoencoded([image])[0]
    shown = (expected.clamp(0, 1)[0] * 255).permute(1, 2, 0).numpy()
    assert np.abs(found - shown).max() <= 1


def test_little_memory_moves_weights_and_changes_no_picture(weights, generator, monkeypatch):
    from backends.generators import memory

    monkeypatch.setattr(memory, "free_memory", lambda device: 0)
    small = Small(weights, source=weights)
    assert "its prior is offloaded" in small.remarks[0]
    assert "its decoder is offloaded" in small.remarks[1]
    found = small.latents([given()], 2.0, [7], 2)
    torch.testing.assert_close(found, generator.latents([given()], 2.0, [7], 2))


@pytest.mark.parametrize("config", [{"_class_name": "DDIMScheduler"}, {"scaler": "x"}, {"s": 0}])
def test_another_schedule_is_refused(config, weights, tmp_path, monkeypatch):
    file = tmp_path / "scheduler_config.json"
    file.write_text(json.dumps(config))
    usual = cascade.Weights.config

    def other(self, part):
        return config if part.folder == "scheduler" else usual(self, part)

    monkeypatch.setattr(cascade.Weights, "config", other)
    with pytest.raises(UserError, match="no schedule of Stable Cascade .*; get it again with: hf"):
        Small(tmp_path, source=weights)

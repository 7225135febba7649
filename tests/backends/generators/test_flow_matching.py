"""FLUX with an IP-Adapter: diffusers' own pipeline, true guidance, weights in several files."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
)
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, T5EncoderModel

from backends.generators import memory
from backends.generators.flow_matching import ADAPTER, IMAGE, TOKENS
from explorer.protocols import Condition, Generator
from explorer.types import UserError
from tests.miniatures.flux import SIDE, Small

STEPS = 4


@pytest.fixture(scope="module")
def weights(saved):
    return saved / "flux"


@pytest.fixture(scope="module")
def generator(made):
    return made["flux"]


def given(seed=0):
    values = torch.randn(IMAGE.shape, generator=torch.Generator().manual_seed(seed))
    return Condition({IMAGE: values})


@torch.inference_mode()
@pytest.mark.parametrize(("scale", "told"), [(4.0, 3.5), (1.0, 1.0)])
def test_our_loop_gives_the_latents_of_the_published_pipeline(weights, generator, scale, told):
    pipeline = FluxPipeline(
        transformer=FluxTransformer2DModel.from_pretrained(weights / "transformer").eval(),
        vae=(vae := AutoencoderKL.from_pretrained(weights / "vae").eval()),
        scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(weights / "scheduler"),
        text_encoder=CLIPTextModel.from_pretrained(weights / "text_encoder").eval(),
        tokenizer=CLIPTokenizer.from_pretrained(weights / "tokenizer"),
        text_encoder_2=(t5 := T5EncoderModel.from_pretrained(weights / "text_encoder_2").eval()),
        tokenizer_2=None,  # of an empty text
        feature_extractor=CLIPImageProcessor(),
    )
    pipeline.load_ip_adapter(
        str(weights / ADAPTER[0]),
        weight_name=ADAPTER[1],
        image_encoder_pretrained_model_name_or_path=None,
    )
    pipeline.set_progress_bar_config(disable=True)
    ids = torch.tensor([[1] + [0] * (TOKENS - 1)])
    prompt = {"prompt_embeds": t5(ids)[0]}
    prompt["pooled_prompt_embeds"] = pipeline._get_clip_prompt_embeds("", device="cpu")
    embedding = given().embeddings[IMAGE][None, None]
    side = SIDE * pipeline.vae_scale_factor
    (expected,) = pipeline(
        **prompt,
        **{f"negative_{name}": value for name, value in prompt.items()},
        ip_adapter_image_embeds=[embedding],
        negative_ip_adapter_image_embeds=[torch.zeros_like(embedding)],
        true_cfg_scale=scale,
        guidance_scale=told,
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(7),
        height=side,
        width=side,
        output_type="latent",
        return_dict=False,
    )
    expected = pipeline._unpack_latents(expected, side, side, pipeline.vae_scale_factor)
    how = {"told_guidance": told}
    found = generator.latents([given()], scale, [7], STEPS, **how)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    decoded = vae.decode(expected / 0.3611 + 0.1159).sample[0]
    shown = ((decoded / 2 + 0.5).clamp(0, 1) * 255).permute(1, 2, 0).numpy()
    (image,) = generator.generate([given()], scale, [7], STEPS, **how)
    assert np.abs(image - shown).max() <= 1


def test_the_contract_and_what_a_scale_is(generator, monkeypatch):
    assert isinstance(generator, Generator)
    assert (
        "true classifier-free guidance; the number that it was distilled" in generator.remarks[0]
    )
    one, two = given(), given(1)
    done = {s.scale: s.image for s in generator.sweep(one, (3.0, 0.0, 1.0), STEPS, 5) if s.done}
    assert list(done) == [3.0, 0.0, 1.0] and done[3.0].shape == (16, 16, 3)
    alone = generator.latents([one], 3.0, [5], STEPS)
    among = generator.latents([two, one], 3.0, [9, 5], STEPS)
    torch.testing.assert_close(among[1:], alone, atol=1e-4, rtol=1e-4)
    assert (among[0] - alone[0]).abs().mean() > 0.05
    shown = generator.generate([one], 3.0, [5], STEPS)[0]
    assert np.abs(shown.astype(int) - done[3.0]).max() <= 1
    # scale 0 is without the brain and 1 with it, whatever number is told beside
    for told in (1.0, 7.0):
        zero, half, whole = (
            generator.latents([one], scale, [5], 1, told_guidance=told)
            for scale in (0.0, 0.5, 1.0)
        )
        assert torch.equal(zero, generator.latents([two], 0.0, [5], 1, told_guidance=told))
        torch.testing.assert_close(half, (zero + whole) / 2, atol=1e-5, rtol=1e-5)
        assert (whole - zero).abs().mean() > 1e-4
    assert not torch.allclose(whole, generator.latents([one], 1.0, [5], 1, told_guidance=1.0))
    null = Condition(one.embeddings, nulls=two.embeddings)
    found = generator.latents([null], 0.0, [5], STEPS)
    expected = generator.latents([two], 1.0, [5], STEPS)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    rows, forward = [], generator.transformer.forward

    def counted(hidden_states, **told):
        rows.append(len(hidden_states))
        return forward(hidden_states=hidden_states, **told)

    monkeypatch.setattr(generator.transformer, "forward", counted)
    list(generator.sweep(one, (0.0, 1.0, 2.0, 8.0), 3, 0))
    assert rows == [2, 6, 6]  # one pass at scale 0 and at 1, two at the others
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    assert generator.autoencoded([image]).shape == (1, 16, 16, 3)


def test_little_memory_moves_weights_and_changes_no_picture(weights, generator, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 0)
    small = Small(weights, source=weights)
    assert "its transformer is offloaded" in small.remarks[1]
    found = small.latents([given()], 2.0, [7], 2)
    torch.testing.assert_close(found, generator.latents([given()], 2.0, [7], 2))


def test_weights_in_several_files_are_checked_and_named(weights, generator, tmp_path):
    index = "transformer/diffusion_pytorch_model.safetensors.index.json"
    assert (weights / index).is_file() and f" {index} " in generator.weights.command
    assert "diffusion_pytorch_model-00003-of-00003.safetensors" in generator.weights.command
    shutil.copytree(weights, tmp_path / "own")
    shard = min((tmp_path / "own" / "transformer").glob("*-00002-of-*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    changed = Small(tmp_path, source=tmp_path / "own").fingerprint
    assert changed != generator.fingerprint
    shard.unlink()
    with pytest.raises(UserError, match=f"{shard.name} is damaged or was downloaded in part"):
        Small(tmp_path, source=tmp_path / "own")
    for content in ({"weight_map": {"a": "../a.safetensors"}}, {"weight_map": []}, {}):
        (tmp_path / "own" / index).write_text(json.dumps(content))
        with pytest.raises(UserError, match="index.json is no index of weights"):
            Small(tmp_path, source=tmp_path / "own")


def test_another_spacing_is_refused(weights, tmp_path):
    shutil.copytree(weights, tmp_path / "own")
    file = tmp_path / "own" / "scheduler" / "scheduler_config.json"
    for config in ({"_class_name": "DDIMScheduler"}, {"base_shift": "x"}):
        file.write_text(json.dumps(config))
        with pytest.raises(UserError, match=r"scheduler is no spacing of a flow .*; get it again"):
            Small(tmp_path, source=tmp_path / "own")

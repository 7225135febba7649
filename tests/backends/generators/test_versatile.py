"""Versatile Diffusion: diffusers' own pipeline, its mixture, one context, a low-level start."""

import shutil
import sys

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    UNet2DConditionModel,
    VersatileDiffusionDualGuidedPipeline,
)
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPImageProcessor,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from backends.generators.low_level import LATENTS
from backends.generators.versatile import TEXT, VISION, Versatile
from explorer.protocols import Condition
from explorer.types import UserError

# whose places depend on the version
PLACE = sys.modules[VersatileDiffusionDualGuidedPipeline.__module__]
DualTransformer2DModel = PLACE.DualTransformer2DModel
UNetFlatConditionModel = PLACE.UNetFlatConditionModel
STEPS = 3


@pytest.fixture
def published(saved, monkeypatch):
    """Return diffusers' pipeline of the same weights, with the one mend that it needs to run."""
    forward = DualTransformer2DModel.forward

    def mended(self, *args, encoder_attention_mask=None, **kwargs):
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(DualTransformer2DModel, "forward", mended)
    folder, size = saved / "versatile", {"height": 32, "width": 32}
    encoder = CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder").eval()
    pipeline = VersatileDiffusionDualGuidedPipeline(
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        image_feature_extractor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size),
        text_encoder=CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder").eval(),
        image_encoder=encoder,
        image_unet=UNet2DConditionModel.from_pretrained(folder / "image_unet").eval(),
        text_unet=UNetFlatConditionModel.from_pretrained(folder / "text_unet").eval(),
        vae=AutoencoderKL.from_pretrained(folder / "vae").eval(),
        scheduler=DDIMScheduler.from_pretrained(folder / "scheduler"),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.inference_mode()
@pytest.mark.parametrize("mixing", [0.0, 0.4, 1.0])
def test_our_loop_gives_the_latents_of_the_published_pipeline(mixing, published, made):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    picture, prompt = Image.fromarray(pixels), "a a a"
    grey, seen = published._encode_image_prompt([picture], "cpu", 1, True)
    empty, said = published._encode_text_prompt([prompt], "cpu", 1, True)
    (expected,) = published(
        prompt,
        picture,
        text_to_image_strength=mixing,
        guidance_scale=4.0,
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(7),
        output_type="latent",
        return_dict=False,
    )
    given = Condition({VISION: seen, TEXT: said}, nulls={VISION: grey})
    found = made["versatile"].latents([given], 4.0, [7], STEPS, mixing=mixing)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(made["versatile"]._nulls[TEXT], empty, atol=1e-5, rtol=1e-5)
    # Brain-Diffuser's null is a black picture: diffusers' grey 0.5 is taken as one of 255 levels
    black = published._encode_image_prompt(Image.new("RGB", (40, 40)), "cpu", 1, False)[0]
    torch.testing.assert_close(made["versatile"]._nulls[VISION], black, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(black, seen, atol=1e-2)


def test_one_context_alone_is_its_whole_share_of_the_mixture(made, given):
    generator, both = made["versatile"], given("versatile").embeddings
    for space, share in ((VISION, 0.0), (TEXT, 1.0)):
        alone = generator.latents([Condition({space: both[space]})], 3.0, [5], STEPS)
        mixed = generator.latents([Condition(both)], 3.0, [5], STEPS, mixing=share)
        torch.testing.assert_close(alone, mixed, atol=1e-4, rtol=1e-4)
    half = generator.latents([Condition(both)], 3.0, [5], STEPS, mixing=0.5)
    assert (half - mixed).abs().mean() > 1e-3
    with pytest.raises(UserError, match="Of 2 conditions some have ViT-L-14/text-context or"):
        generator.latents([Condition({VISION: both[VISION]}), Condition(both)], 3.0, [5, 6], 2)


def test_drawing_starts_from_decoded_latents(saved, tmp_path, given):
    shutil.copytree(saved / "versatile", tmp_path / "own")
    for folder, kind in (
        ("image_unet", UNet2DConditionModel),
        ("text_unet", UNetFlatConditionModel),
    ):
        flat = "Flat" if folder == "text_unet" else "2D"
        blocks = {  # attention where 64 x 64 latents are 32 x 32
            "down_block_types": (f"DownBlock{flat}", f"CrossAttnDownBlock{flat}"),
            "up_block_types": (f"CrossAttnUpBlock{flat}", f"UpBlock{flat}"),
        }
        config = {**kind.load_config(tmp_path / "own" / folder), **blocks, "sample_size": 64}
        kind.from_config(config).save_pretrained(tmp_path / "own" / folder)
    generator = Versatile(tmp_path, source=tmp_path / "own")
    z = torch.randn(LATENTS.shape, generator=torch.Generator().manual_seed(5))
    one = Condition({VISION: given("versatile").embeddings[VISION], LATENTS: z})
    near, far = (generator.latents([one], 1.0, [7], 4, strength=s) for s in (0.25, 1.0))
    assert (near - z).norm() < 0.7 * (far - z).norm()


@pytest.mark.parametrize("missing", [True, False])
def test_transformers_without_a_place_or_a_place_without_one_are_refused(missing, saved, tmp_path):
    shutil.copytree(saved / "versatile", tmp_path / "own")
    path = tmp_path / "own" / "text_unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    name = next(name for name in state if ".attentions." in name)
    if missing:
        del state[name]
    else:
        state[name.replace(".attentions.0", ".attentions.9")] = state[name].clone()
    path.unlink()
    save_file(state, path)
    said = "Missing key" if missing else r"attentions\.9.*, for which there is no place"
    with pytest.raises(UserError, match=f"text_unet does not go with the image_unet.*{said}"):
        Versatile(tmp_path, source=tmp_path / "own")


@torch.inference_mode()
def test_weights_from_before_safetensors_are_read_without_unpickling(saved, made, given, tmp_path):
    shutil.copytree(saved / "versatile", tmp_path / "own")
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for path in (tmp_path / "own").glob("*/*.safetensors"):
        state = load_file(path)
        if path.parent.name == "vae":
            for now, then in older.items():
                state = {k.replace(f"attentions.0.{now}.", f"attentions.0.{then}."): v
                         for k, v in state.items()}  # fmt: skip
        if path.name == "model.safetensors":
            state["vision_model.embeddings.position_ids"] = torch.arange(3)[None]
        name = "pytorch_model" if path.name == "model.safetensors" else path.stem
        torch.save(state, path.with_name(f"{name}.bin"))
        path.unlink()
    generator = Versatile(tmp_path, source=tmp_path / "own")
    call = [given("versatile")], 3.0, [5], 2
    expected = made["versatile"].latents(*call)
    torch.testing.assert_close(generator.latents(*call), expected, atol=1e-4, rtol=1e-4)
    shown, again = (one.generate(*call).astype(int) for one in (made["versatile"], generator))
    assert np.abs(shown - again).max() <= 1
    broken = tmp_path / "own" / "image_encoder" / "pytorch_model.bin"
    torch.save({"model": {}}, broken)
    with pytest.raises(UserError, match=f"{broken}: model is a dict, expected a tensor"):
        Versatile(tmp_path, source=tmp_path / "own")

"""CLIP's two activations, held to transformers' own CLIP on the same random weights."""

import json

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

from backends.embedders.clip import ViTB32, ViTH14, ViTL14, quick_gelu_of
from explorer.types import EmbeddingSpace, UserError

VISION = {"image_size": 28, "patch_size": 14, "width": 8, "layers": 2, "heads": 2}
TEXT = {"width": 4, "layers": 1, "heads": 2}
IMAGE = EmbeddingSpace("ViT-B-32", "image", (6,))
SAID = EmbeddingSpace("ViT-B-32", "text", (6,))


class OpenAI(ViTB32):
    spaces, text_spaces = (IMAGE,), (SAID,)


class Other(ViTH14):
    spaces, text_spaces = (IMAGE,), (SAID,)


def tower(state, theirs, layers):
    """Return the blocks of a tower of transformers' CLIP by open_clip's names."""
    found = {}
    for i in range(layers):
        given, made = f"{theirs}.encoder.layers.{i}", f"transformer.resblocks.{i}"
        qkv = [f"{given}.self_attn.{letter}_proj" for letter in "qkv"]
        for kind in ("weight", "bias"):
            found[f"{made}.attn.in_proj_{kind}"] = torch.cat([state[f"{n}.{kind}"] for n in qkv])
            for mine, other in (
                *(("attn.out_proj", "self_attn.out_proj"), ("ln_1", "layer_norm1")),
                *(("ln_2", "layer_norm2"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2")),
            ):
                found[f"{made}.{mine}.{kind}"] = state[f"{given}.{other}.{kind}"]
    return found


def save(folder, activation, half=False, **said):
    """Write a random CLIP of transformers as open_clip's repositories hold it; return it.

    ``said``: what their configuration says further of the model.
    """

    def sizes(about):
        names = {"width": "hidden_size", "layers": "num_hidden_layers"}
        names["heads"] = "num_attention_heads"
        given = {names.get(key, key): value for key, value in about.items()}
        return {**given, "intermediate_size": 4 * about["width"], "hidden_act": activation}

    torch.manual_seed(0)
    config = CLIPConfig(text_config=sizes(TEXT), vision_config=sizes(VISION), projection_dim=6)
    theirs = CLIPModel(config).eval()
    for weight in theirs.parameters():
        weight.data.normal_(0, 0.7)  # large enough for the two activations to differ
        if half:
            weight.data.copy_(weight.half().float())
    state = theirs.state_dict()
    mine = {f"visual.{k}": v for k, v in tower(state, "vision_model", 2).items()}
    mine |= tower(state, "text_model", 1)
    for name, other in (
        *(
            ("visual.ln_pre", "vision_model.pre_layrnorm"),
            ("ln_final", "text_model.final_layer_norm"),
        ),
        ("visual.ln_post", "vision_model.post_layernorm"),
    ):
        mine |= {f"{name}.{kind}": state[f"{other}.{kind}"] for kind in ("weight", "bias")}
    shown, read = "vision_model.embeddings", "text_model.embeddings"
    mine |= {
        "visual.class_embedding": state[f"{shown}.class_embedding"],
        "visual.conv1.weight": state[f"{shown}.patch_embedding.weight"],
        "visual.positional_embedding": state[f"{shown}.position_embedding.weight"],
        "visual.proj": state["visual_projection.weight"].T,
        "token_embedding.weight": state[f"{read}.token_embedding.weight"],
        "positional_embedding": state[f"{read}.position_embedding.weight"],
        "text_projection": state["text_projection.weight"].T,
        "logit_scale": state["logit_scale"],
    }
    folder.mkdir()
    vision = {k: v for k, v in VISION.items() if k != "heads"} | {"head_width": 4}
    text = {**TEXT, "context_length": 77, "vocab_size": 49408}
    about = {"embed_dim": 6, "vision_cfg": vision, "text_cfg": text, **said}
    preprocess = {"mean": [0.4] * 3, "std": [0.3] * 3, "resize_mode": "squash"}
    config = {"model_cfg": about, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file({k: v.contiguous() for k, v in mine.items()}, folder / "open_clip_model.safetensors")
    return theirs


def apart(embedder, theirs):
    """Return the largest difference to transformers' embeddings, of a picture and of a text."""
    picture = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    ids = open_clip.tokenize(["a cat", "the sea"])
    with torch.inference_mode():
        pixels = embedder.prepare(Image.fromarray(picture))[None]
        seen = theirs.visual_projection(theirs.vision_model(pixels).pooler_output)
        read = theirs.text_projection(theirs.text_model(ids).pooler_output)
    return max(
        np.abs(embedder.embed([picture], IMAGE) - seen.numpy()).max(),
        np.abs(embedder.embed_text(["a cat", "the sea"], SAID) - read.numpy()).max(),
    )


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_the_activation_that_is_written_down_is_used(activation, tmp_path):
    quick = activation == "quick_gelu"
    theirs = save(tmp_path / "own", activation, quick_gelu=quick)
    assert apart(OpenAI(tmp_path, source=tmp_path / "own"), theirs) < 1e-5
    save(tmp_path / "wrong", activation, quick_gelu=not quick)
    assert apart(OpenAI(tmp_path, source=tmp_path / "wrong"), theirs) > 1e-3
    save(tmp_path / "beside", activation)
    theirs.config.save_pretrained(tmp_path / "beside")
    embedder = OpenAI(tmp_path, source=tmp_path / "beside")
    assert apart(embedder, theirs) < 1e-5
    # the file that decided is part of what names the weights
    (tmp_path / "beside" / "config.json").write_text(
        json.dumps(theirs.config.to_dict() | {"comment": "another"})
    )
    assert OpenAI(tmp_path, source=tmp_path / "beside").fingerprint != embedder.fingerprint


def test_timm_says_it_in_the_name_of_its_architecture(tmp_path):
    theirs = save(tmp_path / "c", "quick_gelu")
    about = {"architecture": "vit_base_patch32_clip_quickgelu_224"}
    (tmp_path / "c" / "config.json").write_text(json.dumps(about))
    assert apart(OpenAI(tmp_path, source=tmp_path / "c"), theirs) < 1e-5


def test_matrices_in_float16_are_openai_s(tmp_path):
    theirs = save(tmp_path / "c", "quick_gelu", half=True)
    assert apart(OpenAI(tmp_path, source=tmp_path / "c"), theirs) < 1e-5


def test_where_nothing_says_it_others_have_the_usual_one_and_openai_s_are_refused(tmp_path):
    theirs = save(tmp_path / "c", "gelu")
    assert apart(Other(tmp_path, source=tmp_path / "c"), theirs) < 1e-5
    with pytest.raises(UserError, match='does not say whether .* write "quick_gelu": true into i'):
        OpenAI(tmp_path, source=tmp_path / "c")
    assert quick_gelu_of(tmp_path / "c", by_openai=False) == (False, ())


@pytest.mark.parametrize("quick", [True, False])
def test_two_files_that_contradict_each_other_are_refused(quick, tmp_path):
    theirs = save(tmp_path / "c", "gelu" if quick else "quick_gelu", quick_gelu=quick)
    theirs.config.save_pretrained(tmp_path / "c")
    with pytest.raises(
        UserError, match=f'"quick_gelu": {quick!s} and config.json the opp'.lower()
    ):
        Other(tmp_path, source=tmp_path / "c")


class Contexts(ViTL14):
    spaces = (EmbeddingSpace("ViT-L-14", "vision-context", (5, 6)),)
    text_spaces = (EmbeddingSpace("ViT-L-14", "text-context", (77, 6)),)


def test_contexts_are_those_of_versatile_diffusion(tmp_path):
    """All projected states over the length of the class token, or of the end of the caption."""
    theirs = save(tmp_path / "own", "quick_gelu", quick_gelu=True)
    embedder = Contexts(tmp_path, source=tmp_path / "own")
    picture = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    ids = open_clip.tokenize(captions := ["a cat", "the sea is wide", ""])
    ends = [len(ids[i].nonzero()) - 1 for i in range(3)]
    for row, end in zip(ids, ends, strict=True):
        row[end:] = 49407  # as transformers pads
    with torch.inference_mode():
        seen = theirs.vision_model(embedder.prepare(Image.fromarray(picture))[None])
        states = theirs.vision_model.post_layernorm(seen.last_hidden_state)
        states = theirs.visual_projection(states)
        read = theirs.text_projection(theirs.text_model(ids).last_hidden_state)
    vision = states / states[:, :1].norm(dim=-1, keepdim=True)
    text = read / torch.stack([r[e] for r, e in zip(read, ends, strict=True)])[:, None].norm(
        dim=-1, keepdim=True
    )
    found = embedder.embed([picture], Contexts.spaces[0])
    np.testing.assert_allclose(found, vision, atol=1e-5)
    np.testing.assert_allclose(
        embedder.embed_text(captions, *Contexts.text_spaces), text, atol=1e-5
    )

"""Published embedders on miniatures of their architectures: the library's own output, exactly."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as images

from backends import EMBEDDERS
from backends.embedders.choice import make_embedders, read_sources, weights_of
from backends.embedders.clip import ViTB32, ViTH14
from backends.embedders.published import (
    ResNet50,
    StableDiffusionLatents,
    StableDiffusionText,
    ViTB16,
)
from explorer.types import EmbeddingSpace, UserError, resolve

MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
PUBLISHED = [name for name, entry in EMBEDDERS.items() if hasattr(resolve(entry), "hub")]


def pictures(n=3):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (n, 5, 7, 3), np.uint8)
    return [np.asarray(Image.fromarray(c).resize((70, 50), Image.BICUBIC)) for c in coarse]


def normalised(pixels):
    return images.normalize(images.to_tensor(pixels), MEAN, STD)


class TinyResNet(ResNet50):
    spaces = tuple(
        EmbeddingSpace("resnet50", layer, (size,))
        for layer, size in (("pooled", 64), ("layer1", 8), ("layer2", 16), ("layer3", 32))
    )


class TinyViT(ViTB16):
    spaces = (
        EmbeddingSpace("vit-b16", "pooled", (12,)),
        EmbeddingSpace("vit-b16", "tokens", (5, 12)),
    )


class TinyCLIP(ViTH14):
    spaces = (
        EmbeddingSpace("ViT-H-14", "image", (6,)),
        EmbeddingSpace("ViT-H-14", "tokens", (4, 8)),
    )
    text_spaces = (EmbeddingSpace("ViT-H-14", "text", (6,)),)


class TinyText(StableDiffusionText):
    text_spaces = (EmbeddingSpace("stable-diffusion", "context", (9, 8)),)


def save_timm(folder, architecture, **arguments):
    """Write a model as timm's repositories hold it, trained on 32 x 32 cut from 36 x 36."""
    import timm
    from timm.models import save_for_hf

    torch.manual_seed(0)
    model = timm.create_model(architecture, num_classes=3, **arguments).eval()
    for module in model.modules():  # as if it had seen pictures
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    about = {"num_classes": 3, "model_args": arguments}
    save_for_hf(model, folder, model_config=about, safe_serialization=True)
    config = json.loads((folder / "config.json").read_text())
    config["model_args"] = arguments
    config["pretrained_cfg"] |= {
        **{"mean": MEAN, "std": STD, "interpolation": "bilinear", "input_size": [3, 32, 32]},
        **{"crop_pct": 0.5, "test_input_size": [3, 32, 32], "test_crop_pct": 32 / 36},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return model


def cut(picture):
    """Return pixels as timm prepares them: the shorter side 36, the middle 32 x 32."""
    small = Image.fromarray(picture).resize((round(70 / 50 * 36), 36), Image.BILINEAR)
    return normalised(images.center_crop(small, 32))


def test_resnet_gives_what_its_classifier_reads_and_the_stages_before(tmp_path):
    model = save_timm(tmp_path / "r", "resnet50", layers=(1, 1, 1, 1), channels=(2, 4, 8, 16))
    embedder = TinyResNet(tmp_path, source=tmp_path / "r")
    given = pictures()
    found = {space.layer: embedder.embed(given, space) for space in embedder.spaces}
    pixels, seen = torch.stack([cut(picture) for picture in given]), {}
    for name in ("layer1", "layer2", "layer3"):
        getattr(model, name).register_forward_hook(lambda m, i, o, n=name: seen.update({n: o}))
    with torch.inference_mode():
        classes = model(pixels)
        mine = model.fc(torch.from_numpy(found["pooled"]))
    np.testing.assert_allclose(mine, classes, atol=1e-5)
    for name, maps in seen.items():
        np.testing.assert_allclose(found[name], maps.mean((2, 3)), atol=1e-5)
    alone = embedder.embed(given[1:2], embedder.spaces[0])
    np.testing.assert_allclose(alone[0], found["pooled"][1], atol=1e-5)


def test_vit_gives_its_class_token_and_all_tokens(tmp_path):
    arguments = {"img_size": 32, "embed_dim": 12, "depth": 2, "num_heads": 3}
    model = save_timm(tmp_path / "v", "vit_base_patch16_224", **arguments)
    embedder = TinyViT(tmp_path, source=tmp_path / "v")
    pooled, tokens = (embedder.embed(pictures(), space) for space in embedder.spaces)
    with torch.inference_mode():
        classes = model(torch.stack([cut(picture) for picture in pictures()]))
        mine = model.head(torch.from_numpy(pooled))
    np.testing.assert_allclose(mine, classes, atol=1e-5)
    np.testing.assert_allclose(tokens[:, 0], pooled, atol=1e-6)


def save_clip(folder, **activation):
    import open_clip
    from safetensors.torch import save_file

    vision = {"image_size": 28, "layers": 2, "width": 8, "head_width": 4, "patch_size": 14}
    text = {"context_length": 77, "vocab_size": 49408, "width": 4, "heads": 2, "layers": 1}
    sizes = {"embed_dim": 6, "vision_cfg": vision, "text_cfg": text, **activation}
    shown = {"mean": MEAN, "std": STD, "interpolation": "bilinear", "resize_mode": "squash"}
    torch.manual_seed(0)
    model = open_clip.model.CLIP(**sizes).eval()
    folder.mkdir()
    about = {"model_cfg": sizes, "preprocess_cfg": shown}
    (folder / "open_clip_config.json").write_text(json.dumps(about))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return model


def test_clip_gives_vectors_before_normalisation_and_tokens_before_projection(tmp_path):
    import open_clip

    model = save_clip(tmp_path / "c")
    embedder = TinyCLIP(tmp_path, source=tmp_path / "c")
    image, tokens = (embedder.embed(pictures(), space) for space in embedder.spaces)
    squashed = [Image.fromarray(p).resize((28, 28), Image.BILINEAR) for p in pictures()]
    model.visual.output_tokens = True
    with torch.inference_mode():
        expected = model.visual(torch.stack([normalised(p) for p in squashed]))
        said = model.encode_text(open_clip.tokenize(["a cat", "the sea"]))
    np.testing.assert_allclose(image, expected[0], atol=1e-5)
    np.testing.assert_allclose(tokens, expected[1], atol=1e-5)
    text = embedder.embed_text(["a cat", "the sea"], embedder.text_spaces[0])
    np.testing.assert_allclose(text, said, atol=1e-5)


def test_blocks_are_what_their_mlps_add(tmp_path):
    model, seen = save_clip(tmp_path / "c", quick_gelu=True), {}
    spaces = [EmbeddingSpace("ViT-B-32", f"block{i}", (5, 8)) for i in (1, 2)]
    embedder = ViTB32(tmp_path, source=tmp_path / "c")
    for i, block in enumerate(model.visual.transformer.resblocks):
        block.ln_2.register_forward_hook(lambda m, x, y, i=i: seen.update({("before", i): x[0]}))
        block.register_forward_hook(lambda m, x, y, i=i: seen.update({("after", i): y}))
    squashed = [Image.fromarray(p).resize((28, 28), Image.BILINEAR) for p in pictures()]
    with torch.inference_mode():
        model.visual(torch.stack([normalised(p) for p in squashed]))
    for i, space in enumerate(spaces):
        found = embedder.embed(pictures(), space)
        np.testing.assert_allclose(found, seen["after", i] - seen["before", i], atol=1e-5)


def save_text(folder):
    from transformers import CLIPTextConfig, CLIPTextModel

    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    vocabulary = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    sizes = {"hidden_size": 8, "intermediate_size": 16, "projection_dim": 8}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 9}
    ends = {"bos_token_id": 52, "eos_token_id": 53, "pad_token_id": 53}
    torch.manual_seed(0)
    model = CLIPTextModel(CLIPTextConfig(vocab_size=54, **sizes, **layers, **ends)).eval()
    model.save_pretrained(folder / "text_encoder")
    (folder / "tokenizer").mkdir()
    ids = {word: i for i, word in enumerate(vocabulary)}
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(ids))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    about = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 9}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(about))
    return model


def test_the_context_is_padded_and_cut_as_by_stable_diffusion(tmp_path):
    model = save_text(tmp_path / "sd")
    embedder = TinyText(tmp_path, source=tmp_path / "sd")
    found = embedder.embed_text(["ab c", "abcdefghijk"], embedder.text_spaces[0])
    start, end, last = 52, 53, 26  # the last letter of a word has an id of its own
    ids = [
        [start, 0, 1 + last, 2 + last, *[end] * 5],
        [start, 0, 1, 2, 3, 4, 5, 6, end],
    ]
    with torch.inference_mode():
        expected = model(torch.tensor(ids)).last_hidden_state
    np.testing.assert_allclose(found, expected, atol=1e-5)


def save_autoencoder(folder):
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    model = AutoencoderKL(
        block_out_channels=(4,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=2,
    ).eval()
    model.save_pretrained(folder / "vae")
    return model


def test_latents_are_what_stable_diffusion_begins_a_picture_with(tmp_path):
    from diffusers import StableDiffusionImg2ImgPipeline

    model = save_autoencoder(tmp_path / "sd")
    embedder = StableDiffusionLatents(tmp_path, source=tmp_path / "sd")
    (space,) = embedder.spaces
    shown = [p[:50, :50] for p in pictures(1)]
    found = embedder.embed(shown, space)
    assert found.shape == (1, 4, 64, 64)
    none = dict.fromkeys(("text_encoder", "tokenizer", "unet", "scheduler"))
    none |= dict.fromkeys(("safety_checker", "feature_extractor"))
    pipeline = StableDiffusionImg2ImgPipeline(vae=model, **none, requires_safety_checker=False)
    images = [Image.fromarray(p) for p in shown]
    pixels = pipeline.image_processor.preprocess(images, 512, 512)
    with torch.inference_mode():
        expected = model.encode(pixels).latent_dist.mode() * 0.18215
    np.testing.assert_allclose(found, expected, atol=5e-4)  # another order of the same sums
    assert found.std() > 0.02


def test_an_autoencoder_without_all_its_weights_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    save_autoencoder(tmp_path / "sd")
    file = tmp_path / "sd" / "vae" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    del state["encoder.conv_in.weight"]
    save_file(state, file, {"format": "pt"})
    with pytest.raises(UserError, match="as sd-vae .*encoder.conv_in.weight is missing"):
        StableDiffusionLatents(tmp_path, source=tmp_path / "sd")


# ------------------------------------------------------------------------- where weights come from


@pytest.mark.parametrize("name", PUBLISHED)
def test_missing_weights_are_one_sentence_with_the_command(name, tmp_path):
    cls = resolve(EMBEDDERS[name])
    spaces = (*cls.spaces, *cls.text_spaces)
    assert spaces and all(space.model == name == cls.name for space in spaces)
    with pytest.raises(UserError) as caught:
        cls(tmp_path)
    said, usual = str(caught.value), tmp_path / "embedders" / name
    assert f"{name} needs the weights of {cls.hub} ({cls.size}), and {usual} has no" in said
    assert f"hf download {cls.hub} {' '.join(cls.files)} --local-dir {usual}" in said
    assert f"--embedder {name}=PATH_OR_ID" in said


def test_weights_in_the_usual_folder_need_no_naming(tmp_path):
    save_clip_in = tmp_path / "embedders" / "ViT-H-14"
    save_clip_in.parent.mkdir()
    save_clip(save_clip_in)
    embedder = TinyCLIP(tmp_path)
    assert embedder.source == ""
    named = TinyCLIP(tmp_path / "elsewhere", source=save_clip_in)
    assert named.fingerprint == embedder.fingerprint
    file = save_clip_in / "open_clip_config.json"
    file.write_text(file.read_text().replace("bilinear", "bicubic"))
    assert TinyCLIP(tmp_path).fingerprint != embedder.fingerprint


def test_a_hub_id_is_looked_up_where_the_hub_keeps_its_files(tmp_path, monkeypatch):
    from huggingface_hub import constants

    kept = tmp_path / "hub" / "models--somebody--clip"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0" * 40)
    (kept / "snapshots").mkdir()
    save_clip(kept / "snapshots" / ("0" * 40))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    embedder = TinyCLIP(tmp_path, source="somebody/clip")
    assert embedder.folder == kept / "snapshots" / ("0" * 40)
    told = weights_of({embedder.spaces[0]: embedder})
    assert told == {"ViT-H-14": {"weights": "somebody/clip", "hash": embedder.fingerprint}}
    with pytest.raises(UserError, match=r"nobody/clip \(3.9 GB\) could not be downloaded .*=PATH"):
        TinyCLIP(tmp_path, source="nobody/clip")
    with pytest.raises(UserError, match="ViT-H-14=/no/such is neither a folder nor a hub id such"):
        TinyCLIP(tmp_path, source="/no/such")


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"layers": 10**9}, "its layers is 1000000000, expected at most 1000"),
        ({"width": 10**6, "head_width": 10**3}, r"a network of [\d,]{18,} numbers, and the file "),
        ({"width": "wide"}, "cannot be loaded as ViT-H-14 "),
    ],
)
def test_a_configuration_of_more_than_its_weights_takes_no_memory(sizes, said, tmp_path):
    save_clip(tmp_path / "c")
    file = tmp_path / "c" / "open_clip_config.json"
    config = json.loads(file.read_text())
    config["model_cfg"]["vision_cfg"] |= sizes
    file.write_text(json.dumps(config))
    with pytest.raises(UserError, match=said):
        TinyCLIP(tmp_path, source=tmp_path / "c")


@pytest.mark.parametrize("text", ['{"model_cfg":' * 10**5, "[]", "{", '{"model_cfg": 3}', "{}"])
def test_a_damaged_configuration_is_one_sentence(text, tmp_path):
    save_clip(tmp_path / "c")
    (tmp_path / "c" / "open_clip_config.json").write_text(text)
    with pytest.raises(
        UserError, match=r"open_clip_config.json|cannot be loaded as ViT-H-14"
    ) as e:
        TinyCLIP(tmp_path, source=tmp_path / "c")
    assert "\n" not in str(e.value)


def test_embeddings_that_are_no_numbers_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    save_clip(tmp_path / "c")
    file = tmp_path / "c" / "open_clip_model.safetensors"
    state = load_file(file)
    state["visual.proj"][0, 0] = torch.nan
    save_file(state, file)
    embedder = TinyCLIP(tmp_path, source=tmp_path / "c")
    with pytest.raises(UserError, match="ViT-H-14/image came out as NaN or infinite, so the weig"):
        embedder.embed(pictures(), embedder.spaces[0])


@pytest.mark.parametrize("harm", ["cut", "lacking", "other", "quantised"])
def test_weights_that_do_not_fit_are_refused(tmp_path, harm):
    from safetensors.torch import load_file, save_file

    save_clip(tmp_path / "c")
    file = tmp_path / "c" / "open_clip_model.safetensors"
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:-9])
    elif harm == "lacking":
        state = load_file(file)
        del state["visual.proj"]
        save_file(state, file)
    elif harm == "quantised":
        state = load_file(file)
        save_file(state | {"visual.proj": state["visual.proj"].to(torch.int8)}, file)
    if harm == "other":  # whole, but not the size that the class is for
        embedder = ViTH14(tmp_path, source=tmp_path / "c")
        with pytest.raises(UserError, match=r"\(1024,\), the weights in .* give \(6,\); they are"):
            embedder.embed(pictures(), ViTH14.spaces[0])
    else:
        with pytest.raises(UserError, match="cannot be loaded as ViT-H-14"):
            TinyCLIP(tmp_path, source=tmp_path / "c")


def test_a_text_tower_without_all_its_weights_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    save_text(tmp_path / "sd")
    file = tmp_path / "sd" / "text_encoder" / "model.safetensors"
    state = load_file(file)
    name = next(n for n in state if n.endswith("layers.1.mlp.fc1.weight"))
    del state[name]
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match="layers.1.mlp.fc1.weight is missing"):
        TinyText(tmp_path, source=tmp_path / "sd")


def test_sources_are_named_by_embedder():
    assert read_sources(["resnet50=~/w", "ViT-H-14=a/b=c"]) == {
        "resnet50": "~/w",
        "ViT-H-14": "a/b=c",
    }
    for wrong in ("resnet50", "resnet50=", "pixels=~/w", "alexnet=~/w"):
        with pytest.raises(UserError, match="takes NAME=PATH_OR_ID with one of resnet50, vit-b16"):
            read_sources([wrong])


def test_an_embedder_is_loaded_once_for_all_its_spaces(tmp_path):
    save_clip(tmp_path / "c")
    found = make_embedders(
        *(["ViT-H-14/image", "pixels/10x10", "ViT-H-14/tokens"], tmp_path),
        sources={"ViT-H-14": str(tmp_path / "c")},
    )
    assert [space.name for space in found] == ["ViT-H-14/image", "pixels/10x10", "ViT-H-14/tokens"]
    image, _, tokens = found.values()
    assert image is tokens and image.source == str(tmp_path / "c")

"""DreamSim from files in the published layout: networks in small, changes added, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from backends.reports.feature_networks import CLIP_COLOURS, IMAGENET, NETWORKS, Features
from backends.reports.likeness import Pictures
from backends.reports.scores import SEEN_BY_PEOPLE
from explorer.types import UserError

WIDTH, RANK, ALPHA = 64, 2, 1


def layout(patch, clip):
    """Return random tensors of one block in DINO's layout, at 224 pixels."""
    shapes = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, (224 // patch) ** 2 + 1, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, patch, patch),
        "patch_embed.proj.bias": (WIDTH,),
        "blocks.0.attn.qkv.weight": (3 * WIDTH, WIDTH),
        "blocks.0.attn.qkv.bias": (3 * WIDTH,),
        "blocks.0.attn.proj.weight": (WIDTH, WIDTH),
        "blocks.0.attn.proj.bias": (WIDTH,),
        "blocks.0.mlp.fc1.weight": (2 * WIDTH, WIDTH),
        "blocks.0.mlp.fc1.bias": (2 * WIDTH,),
        "blocks.0.mlp.fc2.weight": (WIDTH, 2 * WIDTH),
        "blocks.0.mlp.fc2.bias": (WIDTH,),
        **{f"{n}.{end}": (WIDTH,) for n in NORMS for end in ("weight", "bias")},
    }
    if clip:
        shapes |= {"pos_drop.weight": (WIDTH,), "pos_drop.bias": (WIDTH,), "proj": (WIDTH, 8)}
    return {k: 0.3 * torch.randn(shape) for k, shape in shapes.items()}


NORMS = ("norm", "blocks.0.norm1", "blocks.0.norm2")


def seen(state, pixels, clip, quick):
    """Compute one network by hand: patches, a block, the class token."""
    norm, eps = torch.nn.functional.layer_norm, 1e-5 if clip else 1e-6

    def normed(x, name):
        return norm(x, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"], eps)

    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    mean, sd = (torch.tensor(v)[:, None, None] for v in (CLIP_COLOURS if clip else IMAGENET))
    weight = state["patch_embed.proj.weight"]
    patches = torch.nn.functional.conv2d(
        (pixels - mean) / sd, weight, state["patch_embed.proj.bias"], stride=weight.shape[-1]
    )
    x = torch.cat([state["cls_token"].expand(len(pixels), 1, -1), patches.flatten(2).mT], dim=1)
    x = x + state["pos_embed"]
    x = normed(x, "pos_drop") if clip else x
    q, k, v = linear(normed(x, "blocks.0.norm1"), "blocks.0.attn.qkv").chunk(3, dim=-1)
    x = x + linear(torch.softmax(q @ k.mT / WIDTH**0.5, -1) @ v, "blocks.0.attn.proj")
    inner = linear(normed(x, "blocks.0.norm2"), "blocks.0.mlp.fc1")
    act = inner * torch.sigmoid(1.702 * inner) if quick else torch.nn.functional.gelu(inner)
    x = x + linear(act, "blocks.0.mlp.fc2")
    return normed(x, "norm")[:, 0] @ state["proj"] if clip else x[:, 0]


@pytest.fixture
def published(tmp_path):
    """Write an ensemble as the published zip holds it; return its folder and tuned networks."""
    torch.manual_seed(0)
    root = tmp_path / "dreamsim"
    (root / "ensemble_lora").mkdir(parents=True)
    states = [layout(16, False), layout(16, True), layout(16, True)]
    torch.save(states[0], root / "dino_vitbase16_pretrain.pth")
    torch.save({"state_dict": states[1]}, root / "clip_vitb16_pretrain.pth.tar")
    torch.save({"state_dict": states[2]}, root / "open_clip_vitb16_pretrain.pth.tar")
    changes, tuned = {}, []
    for k, state in enumerate(states):
        a, b = torch.randn(RANK, WIDTH), torch.randn(3 * WIDTH, RANK)
        name = f"base_model.model.extractor_list.{k}.model.blocks.0.attn.qkv.lora_"
        changes |= {f"{name}A.weight": a, f"{name}B.weight": b}
        qkv = "blocks.0.attn.qkv.weight"
        tuned.append(state | {qkv: state[qkv] + ALPHA / RANK * b @ a})
    save_file(changes, root / "ensemble_lora" / "adapter_model.safetensors")
    settings = {"r": RANK, "lora_alpha": ALPHA, "target_modules": ["qkv"], "bias": "none"}
    (root / "ensemble_lora" / "adapter_config.json").write_text(json.dumps(settings))
    return root, tuned


def pictures(n=3):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40, 40, 3), np.uint8) for _ in range(n)]


def test_the_distance_is_one_minus_the_cosine_of_centred_embeddings(published, tmp_path):
    root, tuned = published
    shown, made = pictures(2), pictures(4)[2:]
    score = SEEN_BY_PEOPLE[0]
    found = score.per_item(*(Pictures(x, Features(tmp_path)) for x in (shown, made)))
    embedded = []
    for images in (shown, made):
        large = [Image.fromarray(i).resize((224, 224), Image.Resampling.BICUBIC) for i in images]
        pixels = (
            torch.from_numpy(np.stack([np.asarray(i) for i in large])).permute(0, 3, 1, 2) / 255
        )
        kinds = ((False, False), (True, True), (True, False))
        parts = [seen(s, pixels, *kind) for s, kind in zip(tuned, kinds, strict=True)]
        whole = torch.cat(parts, dim=-1)
        embedded.append(whole - whole.mean(dim=1, keepdim=True))
    expected = 1 - torch.nn.functional.cosine_similarity(*embedded, dim=-1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not score.higher_is_better and found.min() > 0.01
    assert Features(tmp_path).holds("dreamsim") and not Features(root).holds("dreamsim")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r": 0}, "says r = 0 and lora_alpha = 1"),
        ({"bias": "all"}, "says changes of biases, which are not read"),
    ],
)
def test_settings_that_are_not_read_are_refused(published, tmp_path, change, message):
    file = published[0] / "ensemble_lora" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=message):
        Features(tmp_path).of("dreamsim", pictures(1))


def test_changes_of_other_networks_and_missing_ones_are_refused(published, tmp_path):
    root, _ = published
    file = root / "ensemble_lora" / "adapter_model.safetensors"
    name = "base_model.model.extractor_list.3.model.blocks.0.attn.qkv.lora_A.weight"
    from safetensors.torch import load_file

    save_file(load_file(file) | {name: torch.zeros(1)}, file)
    with pytest.raises(UserError, match="extractor_list.3.* changes no matrix of these networks"):
        Features(tmp_path).of("dreamsim", pictures(1))
    (root / "clip_vitb16_pretrain.pth.tar").unlink()
    with pytest.raises(UserError, match="clip_vitb16_pretrain.pth.tar is not in"):
        Features(tmp_path).of("dreamsim", pictures(1))
    with pytest.raises(UserError, match=r"adapter_config.json \(1100 MB\) is not in .*unzip -d"):
        Features(root).of("dreamsim", pictures(1))
    assert "v0.2.0" in NETWORKS["dreamsim"].variant

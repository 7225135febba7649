"""Published checkpoints in miniature: names and shapes of MindEye2 and MinD-Vis, small weights."""

import torch

from backends.commands.foreign_checkpoints import open_checkpoint
from backends.commands.import_checkpoint import convert
from explorer.types import EmbeddingSpace, Subject, VoxelSpace

H, T, D, V = 6, 4, 3, (7, 5)  # as published: 4096, 256, 1664 and nsdgeneral
WIDTH, HEADS, PATCH, LENGTH = 8, 2, 4, 5
TOKENS = EmbeddingSpace("bigG", "tokens", (T, D))
PEOPLE = [Subject("mine", f"subj0{i + 1}", VoxelSpace(v, f"hash-{v}")) for i, v in enumerate(V)]


def random(shapes):
    rng = torch.Generator().manual_seed(1)
    return {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}


def pair(name, out, into=None):
    return {f"{name}.weight": (out,) if into is None else (out, into), f"{name}.bias": (out,)}


def mindeye2(layers="ridge", steps=1):
    """Names and shapes of MindEye2's training in miniature, without prior."""
    shapes = {}
    for i, v in enumerate(V):
        shapes |= pair(f"{layers}.linears.{i}", H, v)
    for block, size in (("mixer_blocks1", H), ("mixer_blocks2", steps)):
        at = f"backbone.{block}.0"
        shapes |= pair(f"{at}.0", size) | pair(f"{at}.1.0", size, size)
        shapes |= pair(f"{at}.1.3", size, size)
    shapes |= pair("backbone.backbone_linear", T * D, H * steps)
    for i in (0, 3, 6):
        shapes |= pair(f"backbone.clip_proj.{i}", D) | pair(f"backbone.clip_proj.{i + 2}", D, D)
    return random(shapes | pair("backbone.blin1", 8, H))


def with_prior():
    """Return what `mindeye2` does with a prior of one layer."""
    net, body = "diffusion_prior.net", "diffusion_prior.net.causal_transformer"
    shapes = pair(f"{net}.to_time_embeds.0.1.net.0.0", 2 * D, D // 2 * 2)
    shapes |= pair(f"{net}.to_time_embeds.0.1.net.1.0", 2 * D, 2 * D)
    shapes |= pair(f"{net}.to_time_embeds.0.1.net.2", D, 2 * D)
    shapes |= {f"{net}.learned_query": (T, D), f"{body}.project_out.weight": (D, D)}
    shapes |= {f"{body}.norm.g": (D,)}
    shapes |= {f"{body}.rel_pos_bias.relative_attention_bias.weight": (32, 1)}
    at = f"{body}.layers.0"
    shapes |= {f"{at}.{name}": (D,) for name in ("0.norm.g", "0.to_out.1.g", "1.0.g")}
    shapes |= {f"{at}.0.null_kv": (2, 2), f"{at}.0.to_q.weight": (2, D)}
    shapes |= {f"{at}.0.to_kv.weight": (4, D), f"{at}.0.to_out.0.weight": (D, 2)}
    shapes |= {f"{at}.1.1.weight": (8, D), f"{at}.1.5.weight": (D, 4)}
    return mindeye2() | random(shapes)


def mind_vis(prefix=""):
    """Names and shapes of MinD-Vis' masked autoencoder in miniature."""
    shapes = {"cls_token": (1, 1, WIDTH), "pos_embed": (1, LENGTH + 1, WIDTH)}
    shapes |= {"patch_embed.proj.weight": (WIDTH, 1, PATCH), "patch_embed.proj.bias": (WIDTH,)}
    block = "blocks.0"
    shapes |= pair(f"{block}.norm1", WIDTH) | pair(f"{block}.norm2", WIDTH)
    shapes |= pair(f"{block}.attn.qkv", 3 * WIDTH, WIDTH)
    for name in ("attn.proj", "mlp.fc1", "mlp.fc2"):
        shapes |= pair(f"{block}.{name}", WIDTH, WIDTH)
    shapes |= pair("norm", WIDTH) | {"mask_token": (1, 1, 4)} | pair("decoder_embed", 4, WIDTH)
    return random({prefix + name: shape for name, shape in shapes.items()})


def saved(path, state):
    """Write a state as training does, and open it."""
    torch.save({"model_state_dict": state}, path)
    return open_checkpoint(path)


def converted(found):
    """Return the state of the mapper that a file gives."""
    mapper, _, _ = convert(
        found, PEOPLE, "bigG/tokens", title="", command="", known={"bigG/tokens": TOKENS}
    )
    return mapper.state_dict()

"""Tiny random weights of Stable Cascade, in the folders of both its repositories."""

import torch
from diffusers import DDPMWuerstchenScheduler, StableCascadeUNet
from diffusers.pipelines.stable_cascade.pipeline_stable_cascade import PaellaVQModel
from transformers import CLIPTextModelWithProjection

from backends.generators.cascade import Cascade

SIDE = 3  # the prior's latents, in place of 24


class Small(Cascade):
    """Draws 128 x 128 pixels."""

    side = SIDE


def network(channels, kinds, **told):
    blocks = {
        "block_out_channels": (8,),
        "num_attention_heads": (2 if "SDCascadeAttnBlock" in kinds else -1,),
        "down_num_layers_per_block": (1,),
        "up_num_layers_per_block": (1,),
        "down_blocks_repeat_mappers": (1,),
        "up_blocks_repeat_mappers": (1,),
        "block_types_per_layer": (kinds,),
        "switch_level": None,
        "conditioning_dim": 8,
        "timestep_ratio_embedding_dim": 8,
        "dropout": (0.1,),
        "self_attn": (True,),
        "clip_text_pooled_in_channels": 1280,
    }
    made = StableCascadeUNet(in_channels=channels, out_channels=channels, **{**blocks, **told})
    for weight in made.parameters():  # some begin at zero, which hides what they are told
        weight.data += 0.05 * torch.randn_like(weight)
    return made


def save(folder, save_text):
    """Write them; ``save_text`` writes a text encoder and its tokenizer."""
    kinds = ("SDCascadeResBlock", "SDCascadeTimestepBlock")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        told = {"clip_text_in_channels": 1280, "clip_image_in_channels": 768}
        prior = network(16, (*kinds, "SDCascadeAttnBlock"), **told)
        decoder = network(4, kinds, effnet_in_channels=16, patch_size=2)
        vqgan = PaellaVQModel(bottleneck_blocks=1, num_vq_embeddings=2, embed_dim=8)
        for part, name in ((prior, "prior"), (decoder, "decoder"), (vqgan, "vqgan")):
            part.save_pretrained(folder / name)
        save_text(folder, width=1280, cls=CLIPTextModelWithProjection)
    DDPMWuerstchenScheduler().save_pretrained(folder / "scheduler")

"""Tiny random weights of FLUX.1 with XLabs' IP-Adapter, its transformer in several files."""

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from safetensors.torch import save_file
from transformers import T5Config, T5EncoderModel

from backends.generators.flow_matching import ADAPTER, IMAGE, Flux

SIDE = 8  # latents, in place of 128


class Small(Flux):
    """Draws 16 x 16 pixels."""

    side = SIDE


def save(folder, save_text):
    """Write them; ``save_text`` writes a text encoder and its tokenizer."""
    heads = {"num_attention_heads": 2, "attention_head_dim": 16, "axes_dims_rope": (4, 4, 8)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = FluxTransformer2DModel(
            num_layers=2, num_single_layers=1, guidance_embeds=True, **heads
        )
        made.save_pretrained(folder / "transformer", max_shard_size="200KB")
        state = {
            "ip_adapter_proj_model.proj.weight": 0.02 * torch.randn(4 * 4096, IMAGE.size),
            "ip_adapter_proj_model.proj.bias": torch.zeros(4 * 4096),
            "ip_adapter_proj_model.norm.weight": torch.ones(4096),
            "ip_adapter_proj_model.norm.bias": torch.zeros(4096),
        }
        for block in range(2):
            for kind in ("k", "v"):
                begin = f"double_blocks.{block}.processor.ip_adapter_double_stream_{kind}_proj"
                state[f"{begin}.weight"] = 0.05 * torch.randn(32, 4096)
                state[f"{begin}.bias"] = torch.randn(32)
        (folder / ADAPTER[0]).mkdir()
        save_file(state, folder / ADAPTER[0] / ADAPTER[1])
        AutoencoderKL(
            block_out_channels=(4, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=16,
            norm_num_groups=4,
            scaling_factor=0.3611,
            shift_factor=0.1159,
        ).save_pretrained(folder / "vae")
        save_text(folder)
        sizes = {"d_model": 4096, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
        T5EncoderModel(T5Config(vocab_size=8, **sizes)).save_pretrained(folder / "text_encoder_2")
    schedule = {"use_dynamic_shifting": True, "shift": 3.0}
    FlowMatchEulerDiscreteScheduler(**schedule).save_pretrained(folder / "scheduler")

"""Little memory changes where weights lie and how many rows go at once, and no picture."""

import numpy as np
import pytest
import torch

from backends.generators import latent_diffusion, memory
from backends.generators.ip_adapter import IPAdapter
from backends.generators.sd15_context import StableContext
from explorer.protocols import Condition
from explorer.types import UserError


def test_a_batch_that_does_not_fit_is_made_in_parts(saved, tmp_path, monkeypatch, given):
    generator = IPAdapter(tmp_path, source=saved / "ip-adapter")
    one, forward = given("ip-adapter"), generator.unet.forward
    expected = [s.image for s in generator.sweep(one, (1.0, 2.0, 3.0, 4.0), 2, 0) if s.done]
    room, tried = 2, []

    def small(latents, *args, **kwargs):
        tried.append(len(latents))
        if len(latents) > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")
        return forward(latents, *args, **kwargs)

    monkeypatch.setattr(generator.unet, "forward", small)
    found = [s.image for s in generator.sweep(one, (1.0, 2.0, 3.0, 4.0), 2, 0) if s.done]
    assert tried == [2, 7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(expected, found, strict=True))
    room = 0
    with pytest.raises(UserError, match="ip-adapter ran out of memory on cpu with a single pict"):
        generator.generate([one], 2.0, [0], 2)
    monkeypatch.setattr(generator.unet, "forward", forward)

    def none_left(*args, **kwargs):
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(generator.decoder, "decode", none_left)
    with pytest.raises(UserError, match="use a device on which its weights"):
        generator.generate([one], 1.0, [0], 2)
    monkeypatch.setattr(generator.unet, "forward", lambda *a, **k: none_left.missing)
    with pytest.raises(AttributeError):  # a mistake of ours is not called a lack of memory
        generator.generate([one], 1.0, [0], 2)


def test_attention_that_a_batch_in_parts_pays_is_that_of_the_whole(made, monkeypatch, given):
    generator, forward, room = made["sd15-context"], made["sd15-context"].unet.forward, 99
    call = [given("sd15-context", seed) for seed in range(3)], 3.0, [1, 2, 3], 3
    expected = generator.latents(*call, self_attention=1.0)

    def small(latents, *args, **kwargs):
        made = forward(latents, *args, **kwargs)
        if len(latents) > room:  # after the attention was seen
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")
        return made

    monkeypatch.setattr(generator.unet, "forward", small)
    monkeypatch.setattr(generator.denoiser, "rows_at_once", generator.denoiser.rows_at_once)
    room = 2
    found = generator.latents(*call, self_attention=1.0)
    assert generator.denoiser.rows_at_once <= room
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["versatile", "mind-vis"])
def test_both_transformers_and_a_time_that_is_told_come_over_layer_by_layer(
    name, saved, made, tmp_path, monkeypatch, given
):
    monkeypatch.setattr(memory, "free_memory", lambda device: 0)
    generator = type(made[name])(tmp_path, source=saved / name)
    assert "its UNet is offloaded" in " ".join(generator.remarks)
    one = [given(name)] if name == "versatile" else [told(type(made[name]).accepts[0])]
    found = generator.latents(one, 3.0, [1], 2)
    torch.testing.assert_close(found, made[name].latents(one, 3.0, [1], 2), atol=1e-4, rtol=1e-4)


def told(space):
    return Condition({space: torch.randn(space.shape, generator=torch.Generator().manual_seed(0))})


@pytest.mark.parametrize(
    ("free", "placed"), [(10**12, "whole"), (2 * 10**7, "sliced"), (0, "offloaded")]
)
def test_little_memory_changes_where_weights_lie_and_no_picture(
    free, placed, saved, made, tmp_path, monkeypatch, given
):
    monkeypatch.setattr(memory, "free_memory", lambda device: free)
    monkeypatch.setattr(
        latent_diffusion, "WORKING", 64 * 1.5e7
    )  # of the tiny models, by their side
    generator = StableContext(tmp_path, source=saved / "sd15-context")
    said = " ".join(generator.remarks)
    assert (f"its UNet is {placed}" in said) == (placed != "whole")
    call = [given("sd15-context")], 3.0, [1], 2
    expected = made["sd15-context"].latents(*call, self_attention=0.5)
    found = generator.latents(*call, self_attention=0.5)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)

"""Adapters: what they learn on planted data, and the shipped ones on pictures of the study."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from backends.embedders.pocket import PocketClip
from backends.generators.adapters import Adapter, as_decoded
from backends.generators.pocket import CONTEXT, IMAGE, TOKENS, PocketDiffusion
from backends.simulation.scenes import render, sample_scenes
from explorer.protocols import Condition

CHECKPOINTS = Path(__file__).resolve().parents[3] / "checkpoints"


def test_an_adapter_finds_the_position_that_matters():
    torch.manual_seed(0)
    tokens = torch.randn(512, 5, 6)
    goal = torch.nn.functional.normalize(tokens[:, 3] @ torch.randn(6, 128), dim=1)
    adapter = Adapter(5, 6)
    adapter.set_statistics(tokens)
    optimiser = torch.optim.Adam(adapter.parameters(), lr=1e-2)
    for _ in range(150):
        loss = 1 - (adapter(tokens[:400]) * goal[:400]).sum(dim=1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert (adapter(tokens[400:]) * goal[400:]).sum(dim=1).mean() > 0.95


def test_statistics_ignore_what_never_varies():
    tokens = torch.randn(64, 3, 4) * 5 + 2
    tokens[:, 0] = 7.0
    adapter = Adapter(3, 4)
    adapter.set_statistics(tokens)
    assert (adapter.scale[0] == 0).all()
    torch.testing.assert_close(adapter.scale[1:], 1 / tokens[:, 1:].std(dim=0))
    other = tokens.clone()
    other[:, 0] = -100.0  # a decoder's error in what says nothing
    torch.testing.assert_close(adapter(other), adapter(tokens))


def test_examples_are_shrunk_and_noisy_as_decoded_ones():
    tokens = torch.randn(4000, 2, 3) * 3 + 10
    adapter = Adapter(2, 3)
    adapter.set_statistics(tokens)
    made = as_decoded(tokens, adapter, torch.Generator().manual_seed(0))
    assert made.mean().item() == pytest.approx(10, abs=0.1)
    slope = ((made - 10) * (tokens - 10)).mean() / (tokens - 10).square().mean()
    assert slope.item() == pytest.approx(2 / 3, abs=0.02)  # the mean of 1/3 to 1
    again = as_decoded(tokens, adapter, torch.Generator().manual_seed(0))
    torch.testing.assert_close(made, again)


def test_the_shipped_adapters_lead_to_the_image_embedding():
    scenes = sample_scenes(24, 31)
    clip = PocketClip(CHECKPOINTS)
    pictures = [render(scene) for scene in scenes]
    image = clip.embed(pictures, IMAGE)
    tokens = clip.embed(pictures, TOKENS)
    context = clip.embed_text([scene.caption for scene in scenes], CONTEXT)
    adapters = PocketDiffusion(CHECKPOINTS)._adapters
    for name, given, least in (("tokens", tokens, 0.9), ("context", context, 0.6)):
        found = adapters[name](torch.from_numpy(given)).numpy()
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
        own = (found * image).sum(axis=1)
        assert own.mean() > least, name
        assert own.mean() > (found @ image.T).mean() + 0.3, name


def test_decoded_tokens_are_drawn_as_the_embedding_that_the_adapter_gives():
    pocket = PocketDiffusion(CHECKPOINTS)
    tokens = torch.randn(64, 192, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        embedding = pocket._adapters["tokens"](tokens[None])[0]
    ways = [Condition({TOKENS: tokens}), Condition({IMAGE: embedding})]
    drawn = [pocket.generate([way], 2.0, [3], 2)[0] for way in ways]
    np.testing.assert_array_equal(*drawn)

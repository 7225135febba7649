"""NeuralDiffuser's guidance as its code has it: against the same written out, and refusals."""

import numpy as np
import pytest
import torch

from backends.generators.guidance import Level
from backends.generators.published_pull import (
    MEAN,
    SD,
    PublishedPull,
    change,
    seen_as_published,
    towards_as_published,
)
from explorer.protocols import Condition
from explorer.types import EmbeddingSpace, UserError

ONE, TWO = EmbeddingSpace("clip", "block1", (3,)), EmbeddingSpace("clip", "block2", (2,))


@pytest.mark.parametrize(("share", "steps", "acting"), [(0.2, 37, 7), (1, 4, 4), (0.2, 4, 0)])
def test_it_acts_in_whole_steps_rounded_down(share, steps, acting):
    pull = PublishedPull(None, 3e5, share)
    assert sum(pull.acts(step, steps) for step in range(1, steps + 1)) == acting
    assert not PublishedPull(None, 0, 1).acts(1, 10)


def test_a_layers_error_is_divided_by_its_targets_length_once():
    targets = {ONE: torch.tensor([[3.0, 0, 4]]), TWO: torch.tensor([[0.0, 20]])}
    features = {space: lambda pixels, n=space.size: pixels[:, :n] for space in targets}
    loss = towards_as_published(features, targets, {ONE: 1.5, TWO: 1.2})
    share = np.array([1 / 5, 1 / 20]) / (1 / 5 + 1 / 20)
    pixels = torch.tensor([[1.0, 1, 1], [3, 0, 4]])
    errors = np.array([[(4 + 1 + 9) / 3, (1 + 361) / 2], [0, (9 + 400) / 2]])
    np.testing.assert_allclose(loss(pixels), errors @ (share * [1.5, 1.2]), rtol=1e-6)
    with pytest.raises(UserError, match="a weight above 0 for one of the decoded layers, which a"):
        towards_as_published(features, targets, {ONE: 0, TWO: 0})


def test_the_change_is_that_of_the_written_out_code():
    """The expected picture lacks a root and is blended; the gradient keeps its length."""
    rng = torch.Generator().manual_seed(0)
    x, matrix = (torch.randn(shape, generator=rng) for shape in ((1, 4, 2, 2), (16, 16)))
    kept = 0.3  # the scheduler's cumulative product
    level = Level(740, kept**0.5, (1 - kept) ** 0.5, "epsilon")
    goal, kappa = torch.randn((1, 16), generator=rng), 50.0

    def predict(noisy):
        return (noisy.flatten(1) @ matrix).reshape(noisy.shape)

    pull = PublishedPull(lambda pixels: (pixels.flatten(1) - goal).square().mean(1), kappa, 1)
    found = change(x, level, predict, lambda z: z.tanh() / 0.18215, pull)
    noisy = x.clone().requires_grad_()
    expected = (noisy - (1 - kept) * predict(noisy)) / kept**0.5
    blended = expected * (1 - kept) ** 0.5 + noisy * (1 - (1 - kept) ** 0.5)
    loss = -((blended.tanh() / 0.18215).flatten(1) - goal).square().mean() * kappa
    (gradient,) = torch.autograd.grad(loss, noisy)
    torch.testing.assert_close(found, -((1 - kept) ** 0.5) * gradient)
    assert not found.requires_grad
    with pytest.raises(UserError, match="published_kappa is of networks that predict noise"):
        change(x, Level(740, 0.5, 0.5, "v_prediction"), predict, lambda z: z, pull)


def test_clip_is_shown_imagenets_constants_at_its_own_size():
    grey = torch.full((1, 3, 96, 96), 0.2)
    grey[:, :, 40:] = 3.0  # beyond white
    seen = seen_as_published(lambda prepared: prepared)(grey)
    assert seen.shape == (1, 3, 224, 224)
    mean, sd = torch.tensor(MEAN), torch.tensor(SD)
    torch.testing.assert_close(seen[0, :, 0, 0], (0.6 - mean) / sd)
    torch.testing.assert_close(seen[0, :, -1, -1], (1 - mean) / sd)


def test_it_pulls_beside_ours_and_not_with_it(saved, made, eyes, given):
    from backends.generators.sd15_context import StableContext
    from tests.backends.generators.test_clip_pulls import EYE

    generator = StableContext(eyes, source=saved / "sd15-context")
    decoded = {EYE: torch.randn(EYE.shape, generator=torch.Generator().manual_seed(2))}
    one = Condition({**given("sd15-context").embeddings, **decoded})
    plain = generator.latents([one], 3.0, [7], 4)
    how = {"published_kappa": 300.0, "feature_eta": 0.5}
    pulled = generator.latents([one], 3.0, [7], 4, **how)
    assert not torch.allclose(pulled, plain, atol=1e-5)
    never = generator.latents([one], 3.0, [7], 4, **how | {"feature_eta": 0.2})  # int(0.8) steps
    torch.testing.assert_close(never, plain)
    with pytest.raises(UserError, match="two ways of one guidance; set one of them to 0"):
        generator.latents([one], 3.0, [7], 4, feature_kappa=0.1, **how)
    # the pull is of the brain's own prediction: its change is the same at every scale
    first = {**how, "feature_eta": 1.0}
    changes = []
    for scale in (1.0, 5.0):
        ends = [generator.latents([one], scale, [7], 1, **extra) for extra in ({}, first)]
        changes.append(ends[1] - ends[0])
    torch.testing.assert_close(changes[0], changes[1], atol=1e-4, rtol=1e-3)

"""Pulls: formulas against algebra, and on pocket-diffusion that pulls pull, row by row."""

from pathlib import Path

import numpy as np
import pytest
import torch

from backends.embedders.pocket import PocketClip
from backends.encoders.voxelwise import Encoding
from backends.generators.pocket import IMAGE, OPTIONS, TOKENS, PocketDiffusion
from backends.generators.pulls import Pull, guided, load_encoder, towards_betas, towards_features
from backends.generators.sampling import chosen
from explorer.protocols import Condition
from explorer.types import Card, EmbeddingSpace, Subject, UserError, VoxelSpace

CHECKPOINTS = Path(__file__).resolve().parents[3] / "checkpoints"
UNIT = EmbeddingSpace("toy", "unit", (4,), unit_norm=True)
RAW = EmbeddingSpace("toy", "raw", (2, 2))
V = 40


# ------------------------------------------------------------------------------------ the formula


def linear(matrix):
    return lambda x: x @ matrix


def squared(goal):
    return lambda pixels: (pixels - goal).square().sum(1)


def test_a_pull_is_kappa_of_the_prediction_down_the_gradient_through_the_denoiser():
    rng = torch.Generator().manual_seed(0)
    x, goal = torch.randn(3, 5, generator=rng), torch.randn(3, 5, generator=rng)
    matrix = torch.randn(5, 5, generator=rng)
    clean = lambda noisy, prediction: noisy - 0.7 * prediction  # noqa: E731
    pull = Pull(squared(goal), kappa=0.3, share=1)
    pulled, expected = guided(x, linear(matrix), clean, lambda z: 2 * z, [pull])
    # x0 = x (1 - 0.7 M), pixels 2 x0: the gradient by the chain rule
    inner = torch.eye(5) - 0.7 * matrix
    gradient = 2 * (2 * x @ inner - goal) @ (2 * inner).T
    plain = x @ matrix
    length = plain.norm(dim=1, keepdim=True)
    by_hand = plain + 0.3 * length * gradient / gradient.norm(dim=1, keepdim=True)
    torch.testing.assert_close(pulled, by_hand)
    torch.testing.assert_close(expected, x - 0.7 * by_hand)
    assert not pulled.requires_grad
    small = guided(x, linear(matrix), clean, lambda z: 2 * z, [Pull(squared(goal), 1e-3, 1)])[1]
    before = squared(goal)(2 * clean(x, plain))
    assert (squared(goal)(2 * small) < before).all()  # it descends


def test_two_pulls_add_up_and_no_gradient_is_no_pull():
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    flat = Pull(lambda pixels: 0 * pixels.sum(1), 0.5, 1)
    one = Pull(squared(torch.ones(4)), 0.2, 1)
    two = Pull(squared(-torch.ones(4)), 0.1, 1)

    def by(*pulls):
        return guided(x, lambda z: 0.5 * z, lambda z, v: z - v, lambda z: z, pulls)[0] - 0.5 * x

    torch.testing.assert_close(by(flat), torch.zeros(2, 4))
    torch.testing.assert_close(by(one, two), by(one) + by(two))


@pytest.mark.parametrize(
    ("share", "steps", "acting"), [(0, 20, 0), (0.2, 37, 7), (0.5, 20, 10), (1, 20, 20)]
)
def test_a_pull_acts_at_the_noisy_end(share, steps, acting):
    pull = Pull(squared(0), 1.0, share)
    assert [step for step in range(1, steps + 1) if pull.acts(step, steps)] == [
        *range(1, acting + 1)
    ]
    assert not Pull(squared(0), 0, 1).acts(1, 20)


# -------------------------------------------------------------------------------------- the losses


def test_feature_errors_are_weighted_by_layer():
    features = {UNIT: lambda p: p[:, :4], RAW: lambda p: p[:, 4:].reshape(-1, 2, 2)}
    pixels = torch.tensor([[1.0, 0, 0, 0, 3, 0, 0, 4], [0, 2, 0, 0, 1, 1, 1, 1]])
    targets = {
        UNIT: torch.tensor([[5.0, 0, 0, 0], [1, 0, 0, 0]]),
        RAW: torch.tensor([[[3.0, 0], [0, 0]], [[1, 1], [1, 1]]]),
    }
    for weights, expected in (
        ({UNIT: 1, RAW: 0}, [0, 1]),  # 1 - cosine, of any length
        ({RAW: 5}, [16 / 9, 0]),  # 4 squared over 3 squared
        ({UNIT: 1, RAW: 3}, [0.75 * 16 / 9, 0.25]),
    ):
        loss = towards_features(features, targets, weights)(pixels)
        torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float32))
    with pytest.raises(UserError, match=r"weight above 0 for one of the decoded layers, which ar"):
        towards_features(features, {UNIT: targets[UNIT]}, {UNIT: 0, RAW: 1})


def planted_encoder(seed=0, features=IMAGE.size, space=IMAGE):
    """Return an encoding model with random weights, and voxels in odd units."""
    rng = torch.Generator().manual_seed(seed)
    model = Encoding("sub-01", V, (space,))
    model.weight.data = torch.randn(features, V, generator=rng)
    model.intercept.data = torch.randn(V, generator=rng) * 50
    model.voxel_sd.copy_(torch.rand(V, generator=rng) * 10 + 0.1)
    model.feature_scale.fill_(1)
    return model.eval().requires_grad_(False)


def subject():
    return Subject("toy", "sub-01", VoxelSpace(V, "h"))


def test_the_brain_loss_is_one_minus_the_correlation_over_the_chosen_voxels():
    encoder = planted_encoder(features=4, space=UNIT)
    features = {UNIT: lambda pixels: pixels}
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.standard_normal((2, 4)).astype(np.float32))
    betas = rng.standard_normal((2, V)) * 20
    half = np.arange(V) % 2 == 0
    conditions = [
        Condition({}, betas=betas[0], subject=subject()),
        Condition({}, betas=betas[1], subject=subject(), voxels=half),
    ]
    loss = towards_betas(features, conditions, [encoder] * 2)(pixels)
    mean, sd = encoder.statistics()
    predicted = (encoder.predict({UNIT: pixels.numpy()}) - mean) / sd
    measured = (betas - mean) / sd
    expected = [
        1 - np.corrcoef(predicted[0], measured[0])[0, 1],
        1 - np.corrcoef(predicted[1, half], measured[1, half])[0, 1],
    ]
    np.testing.assert_allclose(loss.numpy(), expected, atol=1e-5)
    few = Condition({}, betas=betas[0], subject=subject(), voxels=np.arange(V) < 3)
    with pytest.raises(UserError, match="needs 10 voxels or more .* chosen parcels have 3; choos"):
        towards_betas(features, [few], [encoder])
    betas[1, 1] = np.nan
    towards_betas(features, [Condition({}, betas=betas[1], voxels=half)], [encoder])
    with pytest.raises(UserError, match="measured betas, and 1 of this trial's 40 are NaN or inf"):
        towards_betas(features, [Condition({}, betas=betas[1])], [encoder])


def save(encoder, checkpoints):
    about = {"voxels": {"sub-01": (V, "h")}, "targets": encoder.spaces, "subjects": ("sub-01",)}
    card = Card("encoding", "encoding", "encoding", "toy", "made by a test", "CC0", **about)
    encoder.save(checkpoints / "encoding" / "toy" / "sub-01", card)


def test_what_brain_guidance_lacks_is_said(tmp_path):
    betas = np.zeros(V, np.float32)
    given, features = Condition({}, betas=betas, subject=subject()), {IMAGE: None, TOKENS: None}
    with pytest.raises(UserError, match="towards measured betas, and this condition has none; ch"):
        load_encoder(Condition({}, subject=subject()), tmp_path, features, "cpu")
    with pytest.raises(UserError, match="no encoding model for toy/sub-01; .* --dataset toy"):
        load_encoder(given, tmp_path, features, "cpu")
    save(planted_encoder(), tmp_path)
    assert load_encoder(given, tmp_path, features, "cpu").spaces == (IMAGE,)
    other = Subject("toy", "sub-01", VoxelSpace(V, "elsewhere"))
    with pytest.raises(UserError, match=r"40 voxels \(hash h\), toy/sub-01 has 40 \(hash elsewh"):
        load_encoder(Condition({}, betas=betas, subject=other), tmp_path, features, "cpu")
    with pytest.raises(UserError, match="reads pocket-clip/image, which has no gradient here; tr"):
        load_encoder(given, tmp_path, {TOKENS: None}, "cpu")


# ------------------------------------------------------------------------------ pocket-diffusion


@pytest.fixture(scope="module")
def clip():
    return PocketClip(CHECKPOINTS)


@pytest.fixture(scope="module")
def pocket(tmp_path_factory):
    """Return pocket-diffusion beside a planted encoding model."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in ("pocket-diffusion", "pocket-clip", "pocket-adapters"):
        (folder / name).symlink_to(CHECKPOINTS / name)
    save(planted_encoder(), folder)
    return PocketDiffusion(folder)


def condition(seed=0, tokens=False):
    rng = torch.Generator().manual_seed(seed)
    embeddings = {IMAGE: torch.randn(128, generator=rng)}
    if tokens:
        embeddings[TOKENS] = torch.randn(TOKENS.shape, generator=rng)
    wanted = torch.nn.functional.normalize(torch.randn(1, 128, generator=rng), dim=1)
    betas = planted_encoder()({IMAGE: wanted})[0].numpy()
    return Condition(embeddings, betas=betas, subject=subject())


def picture(pocket, given, scale=2.0, steps=4, seed=3, **options):
    return pocket.generate([given], scale, [seed], steps, **options)[0]


def test_off_is_off_and_options_say_what_they_do(pocket):
    given = condition()
    plain = picture(pocket, given)
    never = {"feature_kappa": 1, "feature_eta": 0, "brain_kappa": 1, "brain_alpha": 0}
    assert np.array_equal(plain, picture(pocket, given, **never))
    assert not np.array_equal(plain, picture(pocket, given, feature_kappa=0.3))
    assert all(option.sentence.endswith(".") for option in OPTIONS)
    assert pocket.options is OPTIONS
    off = chosen("pocket-diffusion", OPTIONS, {})
    assert off["feature_kappa"] == off["brain_kappa"] == off["self_attention"] == 0
    assert off["rescale"] == off["guidance_from"] == 0 and off["guidance_to"] == 1
    assert off["candidates"] == 1


def test_pulls_go_on_top_of_self_attention(pocket):
    given = condition()
    pulled = picture(pocket, given, feature_kappa=0.3)
    both = picture(pocket, given, feature_kappa=0.3, self_attention=1)
    assert np.abs(both.astype(int) - pulled).mean() > 1
    assert not np.array_equal(both, picture(pocket, given, self_attention=1))
    with pytest.raises(UserError, match="self_attention lies between 0 and 2, found 2.5"):
        picture(pocket, given, self_attention=2.5)


def test_feature_guidance_brings_the_picture_nearer_to_what_was_decoded(pocket, clip):
    given = condition(1)
    target = given.embeddings[IMAGE].numpy()
    target = target / np.linalg.norm(target)
    alike = [
        float(
            clip.embed([picture(pocket, given, feature_kappa=k, feature_eta=1)], IMAGE)[0] @ target
        )
        for k in (0, 0.2)
    ]
    assert alike[1] > alike[0] + 0.02


def test_decoded_tokens_pull_where_their_weight_is(pocket, clip):
    given = condition(2, tokens=True)
    without = Condition({IMAGE: given.embeddings[IMAGE]})
    how = {"feature_kappa": 0.2, "feature_eta": 1}
    only_image = picture(pocket, given, tokens_weight=0, **how)
    assert np.array_equal(only_image, picture(pocket, without, tokens_weight=0, **how))
    target = given.embeddings[TOKENS].numpy()
    pulled = picture(pocket, given, image_weight=0, **how)
    gaps = [
        np.square(clip.embed([image], TOKENS)[0] - target).sum() for image in (only_image, pulled)
    ]
    assert gaps[1] < gaps[0]


def test_brain_guidance_brings_predicted_betas_nearer_to_the_measured(pocket, clip):
    given, encoder = condition(3), planted_encoder()
    mean, sd = encoder.statistics()
    r = []
    for kappa in (0, 0.2):
        image = picture(pocket, given, brain_kappa=kappa, brain_alpha=1)
        predicted = encoder.predict({IMAGE: clip.embed([image], IMAGE)})[0]
        r.append(np.corrcoef((predicted - mean) / sd, (given.betas - mean) / sd)[0, 1])
    assert r[1] > r[0] + 0.05


def test_a_guided_picture_depends_on_no_other(pocket):
    given, other = condition(4, tokens=True), condition(5, tokens=True)
    how = {"feature_kappa": 0.2, "brain_kappa": 0.2}
    alone = picture(pocket, given, steps=2, **how).astype(int)
    many = pocket.generate([other, given, other], 2.0, [9, 3, 8], 2, **how)
    assert np.abs(many[1] - alone).mean() <= 1
    sweeps = [
        {s.scale: s.image for s in pocket.sweep(given, scales, 2, 3, **how) if s.done}
        for scales in ((2.0, 0.0, 5.0), (5.0, 2.0))
    ]
    for sweep in sweeps:
        assert np.abs(sweep[2.0] - alone).mean() <= 1
    assert np.abs(sweeps[0][5.0].astype(int) - sweeps[1][5.0]).mean() <= 1


def test_the_best_of_n_is_shown_and_said_to_be(pocket, clip):
    given = condition(6)
    target = given.embeddings[IMAGE].numpy()
    each = pocket.generate([given] * 3, 2.0, [3, 4, 5], 4)
    alike = clip.embed(list(each), IMAGE) @ target / np.linalg.norm(target)
    best = each[alike.argmax()].astype(int)
    steps = [s for s in pocket.sweep(given, (2.0, 0.0), 4, 3, candidates=3) if s.done]
    assert [(s.index, s.scale) for s in steps] == [(0, 2.0), (1, 0.0)]
    assert np.abs(steps[0].image - best).mean() <= 1
    assert np.abs(picture(pocket, given, candidates=3) - best).mean() <= 1
    start = "best of 3 by pocket-clip similarity to the decoded embedding: "
    assert steps[0].note.startswith(start)
    assert float(steps[0].note.removeprefix(start).split(",")[0]) == pytest.approx(
        alike.max(), abs=0.01
    )
    by_brain = [s for s in pocket.sweep(given, (2.0,), 4, 3, candidates=2, best_by=1) if s.done]
    assert by_brain[0].note.startswith("best of 2 by predicted to measured betas: ")
    with pytest.raises(UserError, match=r"candidates is a whole number, found 1.5"):
        picture(pocket, given, candidates=1.5)

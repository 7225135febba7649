"""The mixer: published weights give published outputs, its losses by hand, subjects joined."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from backends.mappers.mixer import Mixer, _Learner, bimixco, principal_axes, soft_clip
from backends.mappers.mixer_parts import LEVELS, convert, noise_schedule
from backends.mappers.ridge import Ridge
from backends.training.fewer import fewer
from backends.training.plan import Course
from backends.training.ridge_solver import ALPHAS
from backends.training.rows import Batch, TrialRows
from explorer.metrics import two_way_identification
from explorer.types import Card, EmbeddingSpace, Subject, Trials, UserError, VoxelSpace

IMAGE = EmbeddingSpace("toy", "image", (10,), unit_norm=True)
CONTEXT = EmbeddingSpace("toy", "context", (3, 4))
LATENTS = EmbeddingSpace("toy", "latents", (2, 5, 6))
SMALL = {"streams": 3, "hidden": 8, "blocks": 1, "prior_width": 16, "prior_depth": 1, "epochs": 10}
TRAIN, TEST, VOXELS = 60, 20, 16


def planted(seed=0):
    """Return two subjects who saw the same pictures, with maps of their own from six causes."""
    rng = np.random.default_rng(seed)
    n = TRAIN + TEST
    causes = rng.standard_normal((n, 6))
    table = pd.DataFrame({"stimulus": [f"s{i}" for i in range(n)], "run": 1, "repeat": 0})
    table["split"] = ["train"] * TRAIN + ["test"] * TEST
    table["session"] = np.arange(n) // 20 + 1
    trials = []
    for k in range(2):
        betas = causes @ rng.standard_normal((6, VOXELS)) + 0.5 * rng.standard_normal((n, VOXELS))
        subject = Subject("toy", f"sub-0{k + 1}", VoxelSpace(VOXELS, f"hash-{k}"))
        trials.append(Trials(subject, (5 + 3 * betas).astype(np.float32), "units", table))
    rows = {s: causes @ rng.standard_normal((6, s.size)) for s in (IMAGE, CONTEXT, LATENTS)}
    rows[IMAGE] = rows[IMAGE] / np.linalg.norm(rows[IMAGE], axis=1, keepdims=True)
    targets = {
        s: {f"s{i}": x.reshape(s.shape).astype(np.float32) for i, x in enumerate(z)}
        for s, z in rows.items()
    }
    return trials, targets


@pytest.fixture(scope="module")
def data():
    return planted()


@pytest.fixture(scope="module")
def both(data):
    """Return a mixer of both subjects to three spaces at once."""
    trials, targets = data
    return Mixer.fit(trials, targets, seed=0, prior=True, batch=16, lr=5e-3, **SMALL)


def identified(mapper, one, targets, space=IMAGE):
    rows = one.rows("test")
    found = mapper.decode(one.betas[rows], one.subject.name)[space]
    truth = np.stack([targets[space][s] for s in one.table["stimulus"].iloc[rows]])
    return two_way_identification(found.reshape(TEST, -1), truth.reshape(TEST, -1))


def save(mapper, folder):
    card = Card(
        *("mapper", "toy", "mixer", "toy", "test", "MIT"), subjects=mapper.subjects,
        voxels={s: (VOXELS, "hash") for s in mapper.subjects}, targets=mapper.targets,
    )  # fmt: skip
    mapper.save_pretrained(folder, card)
    return str(folder)


# ------------------------------------------------------------------------------ published weights

H, T, D, DEPTH, HEADS, HEAD, INNER = 8, 10, 12, 2, 2, 36, 20  # as published: 4096, 256, 1664 ...
V = {"subj02": 7, "subj01": 9}


def published(streams, layers="ridge", prior=True):
    """Return random numbers under the names of MindEye2's training, at small sizes."""
    rng = torch.Generator().manual_seed(streams)
    shapes = {}

    def linear(name, fan_in, fan_out, bias=True):
        shapes[f"{name}.weight"] = (fan_out, fan_in)
        shapes.update({f"{name}.bias": (fan_out,)} if bias else {})

    def norm(name, size):
        shapes.update({f"{name}.weight": (size,), f"{name}.bias": (size,)})

    for i, v in enumerate(V.values()):
        linear(f"{layers}.linears.{i}", v, H)
    for i in range(2):
        for block, size in (("mixer_blocks1", H), ("mixer_blocks2", streams)):
            norm(f"backbone.{block}.{i}.0", size)
            linear(f"backbone.{block}.{i}.1.0", size, size)
            linear(f"backbone.{block}.{i}.1.3", size, size)
    linear("backbone.backbone_linear", H * streams, T * D)
    for i in (0, 3, 6):
        norm(f"backbone.clip_proj.{i}", D)
        linear(f"backbone.clip_proj.{i + 2}", D, D)
    if prior:
        net = "diffusion_prior.net"
        linear(f"{net}.to_time_embeds.0.1.net.0.0", D, 2 * D)
        linear(f"{net}.to_time_embeds.0.1.net.1.0", 2 * D, 2 * D)
        linear(f"{net}.to_time_embeds.0.1.net.2", 2 * D, D)
        for name in ("learned_query", "null_brain_embeds", "null_image_embed"):
            shapes[f"{net}.{name}"] = (T, D)
        body = f"{net}.causal_transformer"
        shapes[f"{body}.rel_pos_bias.relative_attention_bias.weight"] = (32, HEADS)
        for i in range(DEPTH):
            at = f"{body}.layers.{i}"
            shapes |= {f"{at}.0.norm.g": (D,), f"{at}.0.null_kv": (2, HEAD)}
            shapes |= {f"{at}.0.to_out.1.g": (D,), f"{at}.1.0.g": (D,)}
            linear(f"{at}.0.to_q", D, HEADS * HEAD, bias=False)
            linear(f"{at}.0.to_kv", D, 2 * HEAD, bias=False)
            linear(f"{at}.0.to_out.0", HEADS * HEAD, D, bias=False)
            linear(f"{at}.1.1", D, 2 * INNER, bias=False)
            linear(f"{at}.1.5", INNER, D, bias=False)
        shapes[f"{body}.norm.g"] = (D,)
        linear(f"{body}.project_out", D, D, bias=False)
    state = {name: 0.4 * torch.randn(shape, generator=rng) for name, shape in shapes.items()}
    if prior:
        state["diffusion_prior.noise_scheduler.alphas_cumprod"] = cosine_schedule()
        for i in range(DEPTH):
            rates = 1 / 10_000 ** (torch.arange(0, 32, 2) / 32)
            state[f"{body}.layers.{i}.0.rotary_emb.freqs"] = rates
    return state


def cosine_schedule():
    angle = [math.cos((i / 100 + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(101)]
    betas = [min(1 - b / a, 0.999) for a, b in zip(angle, angle[1:], strict=False)]
    return torch.tensor(np.cumprod(1 - np.array(betas)), dtype=torch.float32)


def layer_norm(x, gain, bias=0.0):
    away = x - x.mean(-1, keepdim=True)
    return away / (away.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain + bias


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


class Original:
    """The published forward passes in plain operations, read from models.py of MindEyeV2."""

    def __init__(self, state):
        self.state = state

    def linear(self, name, x):
        bias = self.state.get(f"{name}.bias", torch.zeros(()))
        return torch.einsum("...i,oi->...o", x, self.state[f"{name}.weight"]) + bias

    def norm(self, name, x):
        return layer_norm(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def backbone(self, x):
        """(n, seq_len, h) -> backbone (n, T, D), clip_voxels (n, T, D)."""
        first, second = x, x.permute(0, 2, 1)
        for i in range(2):
            for number in (1, 2):
                at = f"backbone.mixer_blocks{number}.{i}"
                y = self.linear(
                    f"{at}.1.3", gelu(self.linear(f"{at}.1.0", self.norm(f"{at}.0", x)))
                )
                if number == 1:
                    first = x = y + first
                else:
                    second = x = y + second
                x = x.permute(0, 2, 1)
        tokens = self.linear("backbone.backbone_linear", x.reshape(len(x), -1)).reshape(-1, T, D)
        c = tokens
        for i in (0, 3, 6):
            c = self.linear(
                f"backbone.clip_proj.{i + 2}", gelu(self.norm(f"backbone.clip_proj.{i}", c))
            )
        return tokens, c

    def attention(self, at, x, bias):
        x = layer_norm(x, self.state[f"{at}.norm.g"])
        q = self.linear(f"{at}.to_q", x).reshape(*x.shape[:2], HEADS, HEAD)
        k, v = self.linear(f"{at}.to_kv", x).split(HEAD, dim=-1)
        null_k, null_v = self.state[f"{at}.null_kv"]
        found = []
        for head in range(HEADS):
            turned = [self.turn(q[:, :, head] * 16), self.turn(k)]
            turned[1] = torch.cat([null_k.expand(len(x), 1, -1), turned[1]], 1)
            a, b = (z / z.norm(dim=-1, keepdim=True) * 4 for z in turned)
            weights = (torch.einsum("nid,njd->nij", a, b) + bias[head]).softmax(-1)
            values = torch.cat([null_v.expand(len(x), 1, -1), v], 1)
            found.append(weights @ values)
        out = self.linear(f"{at}.to_out.0", torch.cat(found, -1))
        return layer_norm(out, self.state[f"{at}.to_out.1.g"])

    def turn(self, x):
        pairs = torch.view_as_complex(x[..., :32].reshape(*x.shape[:-1], 16, 2).contiguous())
        rates = 10_000.0 ** (-torch.arange(16) / 16)
        angles = torch.arange(x.shape[1])[:, None] * rates
        pairs = torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles))
        return torch.cat([pairs.flatten(-2), x[..., 32:]], -1)

    def prior(self, noisy, times, brain):
        net = "diffusion_prior.net"
        rates = torch.exp(torch.arange(D // 2) * -(math.log(10_000) / (D // 2 - 1)))
        time = times[:, None].float() * rates
        time = torch.cat([time.sin(), time.cos()], -1)
        for place in ("0.0", "1.0"):
            time = torch.nn.functional.silu(
                self.linear(f"{net}.to_time_embeds.0.1.net.{place}", time)
            )
        time = self.linear(f"{net}.to_time_embeds.0.1.net.2", time)[:, None]
        x = torch.cat([brain, time, noisy + self.state[f"{net}.learned_query"]], 1)
        body = f"{net}.causal_transformer"
        table = self.state[f"{body}.rel_pos_bias.relative_attention_bias.weight"]
        bias = torch.stack([
            torch.stack([table[self.bucket(i - j)] for j in range(x.shape[1] + 1)])
            for i in range(x.shape[1])
        ]).permute(2, 0, 1)  # fmt: skip
        for i in range(DEPTH):
            x = self.attention(f"{body}.layers.{i}.0", x, bias) + x
            inner = self.linear(
                f"{body}.layers.{i}.1.1", layer_norm(x, self.state[f"{body}.layers.{i}.1.0.g"])
            )
            inner = inner[..., :INNER] * torch.nn.functional.silu(inner[..., INNER:])
            x = self.linear(f"{body}.layers.{i}.1.5", inner) + x
        x = layer_norm(x / x.amax(-1, keepdim=True), self.state[f"{body}.norm.g"])
        return self.linear(f"{body}.project_out", x)[:, -T:]

    @staticmethod
    def bucket(back):
        if back < 16:
            return max(back, 0)
        return min(31, 16 + int(math.log(back / 16) / math.log(128 / 16) * 16))


SPACE = EmbeddingSpace("ViT-bigG-14", "tokens", (T, D))


@pytest.mark.parametrize(("streams", "layers"), [(1, "ridge"), (3, "voxelenc")])
def test_published_weights_give_the_published_outputs(streams, layers):
    state = published(streams, layers)
    original, rng = Original(state), torch.Generator().manual_seed(9)
    if streams > 1:  # their subject's layer serves every stream; ours is checked from the trunk on
        converted = convert(state, tuple(V))
        mapper = Mixer([SPACE], V, **converted.architecture | {"width": H * streams})
        own = {k: v for k, v in mapper.state_dict().items() if k not in converted.state
               or k.startswith("layers")}  # fmt: skip
        mapper.load_state_dict(converted.state | own)
        left_out = converted.left_out
        entered = torch.randn(4, streams, H, generator=rng)
        tokens, contrast = original.backbone(entered)
        found = mapper.heads[0](mapper.trunk(entered.flatten(1)))
    else:
        mapper, left_out = Mixer.from_published(state, V, SPACE)
        betas = torch.randn(4, V["subj01"], generator=rng)
        tokens, contrast = original.backbone(original.linear("ridge.linears.1", betas)[:, None])
        found = mapper.regress(betas, "subj01")[SPACE]
        cosines = torch.nn.functional.cosine_similarity(
            mapper.retrieve(betas, "subj01")[SPACE].flatten(1), contrast.flatten(1)
        )
        torch.testing.assert_close(cosines, torch.ones(4), rtol=0, atol=1e-5)
        assert mapper(betas, "subj01")[SPACE].isfinite().all()
    torch.testing.assert_close(found, tokens, rtol=0, atol=1e-4)
    torch.testing.assert_close(mapper.heads[0].project(tokens), contrast, rtol=0, atol=1e-4)
    noisy, times = torch.randn(4, T, D, generator=rng), torch.tensor([0, 3, 50, 99])
    torch.testing.assert_close(
        mapper.heads[0].prior(noisy, times, tokens), original.prior(noisy, times, tokens),
        rtol=0, atol=1e-4,
    )  # fmt: skip
    assert [part.split(" ")[0] for part in left_out] == [
        "diffusion_prior.net.null_brain_embeds", "diffusion_prior.net.null_image_embed",
    ]  # fmt: skip


def test_parts_without_a_place_are_named():
    state = published(1, prior=False)
    state |= {f"backbone.bupsampler.conv_in.{k}": torch.zeros(2) for k in ("weight", "bias")}
    state |= {f"backbone.blin1.{k}": torch.zeros(2) for k in ("weight", "bias")}
    mapper, left_out = Mixer.from_published(state, V, SPACE)
    assert mapper.heads[0].prior is None
    assert left_out == (
        "backbone.blin1 (2 tensor(s)): the low-level branch",
        "backbone.bupsampler (2 tensor(s)): the low-level branch",
    )


def test_weights_that_are_not_as_published_are_refused():
    state = published(1)
    state["backbone.surprise"] = state.pop("backbone.clip_proj.8.bias")
    del state["diffusion_prior.net.learned_query"]
    message = (
        "unknown are backbone.surprise; missing are backbone.clip_proj.8.bias, "
        "diffusion_prior.net.learned_query;"
    )
    with pytest.raises(UserError, match=message):
        convert(state, tuple(V))
    with pytest.raises(UserError, match=r"layers of 2 subject.* each once .*, found subj01\."):
        convert(published(1), ["subj01"])
    with pytest.raises(UserError, match="layer of subj01 reads 7 voxels, the data have 9;"):
        Mixer.from_published(published(1), {"subj01": 9, "subj02": 7}, SPACE)
    with pytest.raises(UserError, match=r"tokens of shape \(10, 12\), toy/context has \(3, 4\);"):
        Mixer.from_published(published(1), V, CONTEXT)
    state = published(1)
    state["diffusion_prior.noise_scheduler.alphas_cumprod"] = torch.linspace(1, 0, 100)
    with pytest.raises(UserError, match="alphas_cumprod is not that of MindEye2's prior"):
        convert(state, tuple(V))
    state = published(1)
    for name in ("weight", "bias"):
        for i in range(2):
            state[f"ridge.linears.{i}.{name}"] = state[f"ridge.linears.{i}.{name}"][:5]
    with pytest.raises(UserError, match="layers give 5 numbers and the backbone takes 8;"):
        convert(state, tuple(V))


def test_the_noise_schedule_is_the_cosine():
    torch.testing.assert_close(noise_schedule(), cosine_schedule(), rtol=1e-4, atol=1e-6)
    assert len(noise_schedule()) == LEVELS


# ------------------------------------------------------------------------------------------ losses


def unit(*shape, seed=1):
    rng = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=rng), dim=-1)


def test_bimixco_by_hand():
    predicted, gallery = unit(3, 4), unit(5, 4, seed=2)
    shares = torch.tensor([[0.7, 0, 0, 0.3, 0], [0, 1.0, 0, 0, 0], [0, 0, 0.6, 0, 0.4]])
    logits = (predicted @ gallery.T / 0.2).double().numpy()
    total = 0.0
    for i in range(3):
        for j in range(5):
            forth = math.log(np.exp(logits[i]).sum()) - logits[i, j]
            back = math.log(np.exp(logits[:, j]).sum()) - logits[i, j]
            total += float(shares[i, j]) * (forth + back) / 2
    assert bimixco(predicted, gallery, shares, 0.2).item() == pytest.approx(total / 3, rel=1e-5)


def test_soft_clip_by_hand():
    predicted, true = unit(4, 3), unit(4, 3, seed=2)
    logits = (predicted @ true.T / 0.3).double()
    answers = (true @ true.T / 0.3).double().softmax(1)
    forth = -(logits.log_softmax(1) * answers).sum(1).mean()
    back = -(logits.T.log_softmax(1) * answers).sum(1).mean()
    found = soft_clip(predicted, true, 0.3)
    assert found.item() == pytest.approx(float(forth + back) / 2, rel=1e-5)
    assert soft_clip(true, true, 0.3) < found  # the truth is the best prediction


def learner(data, weights=(1.0, 1.0, 1.0)):
    trials, targets = data
    rows, course = TrialRows(trials, targets), Course(epochs=9, validation=0.2)
    mapper = Mixer(tuple(targets), {t.subject.name: VOXELS for t in trials}, 6, 3, 2, 1, None)
    found = _Learner(mapper, rows, course, None, 0.4, weights, (0.1, 0.05, 0.1))
    return found, rows, rows.split(0.2, 0)


def test_a_blend_depends_on_sample_and_epoch_alone(data):
    found, rows, (train, held_out) = learner(data)
    batch = Batch(rows, train, epoch=2, training=True)
    shares, partners = found.mixture(batch)
    assert 0.3 < (shares < 1).mean() < 0.7 and shares.min() >= 0.5
    assert (rows.subject[partners] == rows.subject[train]).all()
    assert not set(partners[shares < 1]) & set(held_out)
    some = np.array([40, 3, 17])
    for whole, part in zip((shares, partners),
                           found.mixture(Batch(rows, train[some], epoch=2, training=True)),
                           strict=True):  # fmt: skip
        np.testing.assert_array_equal(whole[some], part)
    other, _ = found.mixture(Batch(rows, train, epoch=3, training=True))
    assert not np.array_equal(other, shares)
    for quiet in (Batch(rows, train, epoch=4, training=True), Batch(rows, held_out)):
        assert (found.mixture(quiet)[0] == 1).all()


@torch.no_grad()
def test_a_trial_passes_its_own_subjects_layer_only(data):
    found, rows, (train, _) = learner(data)
    batch = Batch(rows, train[::5], epoch=1, training=True)
    before = found.predict(batch)
    found.mapper.layers["of_sub-02"].weight.add_(1.0)
    after = found.predict(batch)
    mine = torch.from_numpy(rows.subject[train[::5]] == 0)
    for key, z in before.items():
        torch.testing.assert_close(after[key][mine], z[mine])
        assert not torch.isclose(after[key][~mine], z[~mine]).all(), key
    # blending after the layer is blending the betas before it
    shares, partners = found.mixture(batch)
    place = int(np.flatnonzero((shares < 1) & mine.numpy())[0])
    betas = [Batch(rows, np.array([s])).betas["sub-01"] for s in (train[::5][place],
                                                                  partners[place])]  # fmt: skip
    blend = shares[place] * betas[0] + (1 - shares[place]) * betas[1]
    alone = found.mapper.heads[1](found.mapper._shared(found.mapper._layer(blend, "sub-01")))
    torch.testing.assert_close(alone[0], after[1, "tokens"][place], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_blend_is_no_truth_to_regress_to(data):
    found, rows, (train, _) = learner(data, (1.0, 0.0, 0.0))
    batch = Batch(rows, train, epoch=1, training=True)
    shares, _ = found.mixture(batch)
    goals = found._goals(1, batch.stimuli)
    error = torch.from_numpy(2 * shares - 1).mean()
    value = found.loss({(1, "tokens"): goals + 1}, batch)
    assert value.item() == pytest.approx(error.item() / 3, rel=1e-4)  # of three targets


# ----------------------------------------------------------------------------------- what it finds


def test_planted_maps_are_found_in_every_kind_of_space(both, data):
    trials, targets = data
    assert [type(head).__name__ for head in both.heads] == ["TokenHead", "TokenHead", "LatentHead"]
    for one in trials:
        assert identified(both, one, targets, IMAGE) > 0.85  # chance 0.5
        assert identified(both, one, targets, CONTEXT) > 0.85
        assert identified(both, one, targets, LATENTS) > 0.75
    assert both.history["training trials"] == {"sub-01": TRAIN, "sub-02": TRAIN}


def test_a_priors_sample_is_decided_by_its_seed_and_differentiable(both, data):
    betas = torch.from_numpy(data[0][0].betas[-3:]).requires_grad_()
    z = torch.randn(2, 3, 4)
    prior = both.heads[1].prior
    torch.testing.assert_close(prior.sample(z, 4, 7), prior.sample(z, 4, 7))
    torch.testing.assert_close(prior.sample(z[1:], 4, 7), prior.sample(z, 4, 7)[1:])
    first = np.random.default_rng(7).standard_normal((3, 4)).astype(np.float32)
    once = prior(torch.from_numpy(first).expand_as(z), torch.tensor([99, 99]), z)
    torch.testing.assert_close(prior.sample(z, 1, 7), once)
    both(betas, "sub-01")[CONTEXT].square().sum().backward()
    assert (betas.grad.abs().sum(1) > 0).all()
    regressed = both.regress(betas, "sub-01")
    assert not torch.equal(regressed[CONTEXT], both(betas, "sub-01")[CONTEXT])
    torch.testing.assert_close(regressed[LATENTS], both(betas, "sub-01")[LATENTS])


def test_without_a_prior_the_answer_is_contrastive_or_regressed(data):
    trials, targets = data
    settings = SMALL | {"batch": 16, "lr": 5e-3}
    mapper = Mixer.fit(trials, {CONTEXT: targets[CONTEXT]}, seed=0, **settings)
    mapper.requires_grad_(False)
    rows = TrialRows(trials, {CONTEXT: targets[CONTEXT]})
    batch = Batch(rows, rows.split(0.1, 0)[1])
    codes = mapper._solve_layers(rows, 5, ALPHAS, 0, "cpu", None)
    tokens = mapper.heads[0](mapper._shared(codes[torch.from_numpy(batch.samples)]))
    found = mapper._raw(mapper._contrastive(tokens, 0), 0) - mapper.centre_0
    away = batch.goals[CONTEXT] - mapper.centre_0
    errors = {scale: (scale * found - away).square().sum() for scale in (0.7, 1.0, 1.3)}
    assert min(errors, key=errors.get) == 1.0  # the gain brings it nearest to the truth
    betas = torch.from_numpy(trials[1].betas[-4:])
    given = mapper(betas, "sub-02")[CONTEXT]
    torch.testing.assert_close(given, mapper.retrieve(betas, "sub-02")[CONTEXT])
    mapper.answer = "regressed"
    assert not torch.allclose(given, mapper(betas, "sub-02")[CONTEXT])


def test_layers_can_learn_with_the_rest(data):
    trials, targets = data
    only = {IMAGE: targets[IMAGE]}
    settings = SMALL | {"layers": "learned", "width": 12, "lr": 0.02, "batch": 20}
    settings["answer"] = "regressed"
    mapper = Mixer.fit(trials, only, seed=0, **settings | {"epochs": 15})
    betas = torch.from_numpy(trials[1].betas[-4:])
    torch.testing.assert_close(
        mapper(betas, "sub-02")[IMAGE], mapper.regress(betas, "sub-02")[IMAGE]
    )
    assert identified(mapper, trials[1], targets) > 0.75
    start = Mixer.fit(trials, only, seed=0, **settings | {"epochs": 1, "lr": 1e-9})
    moved = mapper.layers["of_sub-01"].weight - start.layers["of_sub-01"].weight
    assert moved.norm() > 0.05 * start.layers["of_sub-01"].weight.norm()


def test_principal_axes_whiten():
    rows = torch.randn(200, 3) @ torch.diag(torch.tensor([3.0, 1.0, 1e-5])) + 4
    axes, centre = principal_axes(rows, 8)
    codes = (rows - centre) @ axes.T
    assert axes.shape == (2, 3)  # what is constant is no direction
    torch.testing.assert_close(codes.T @ codes / 200, torch.eye(2), rtol=0, atol=1e-4)
    with pytest.raises(UserError, match="All training stimuli have the same embedding;"):
        principal_axes(torch.ones(5, 3), 2)


# ----------------------------------------------------------------------------- few trials, further


def test_a_further_subject_begins_with_what_others_taught(both, data, tmp_path):
    trials, targets = data
    folder = save(both, tmp_path / "source")
    settings = {"epochs": 1, "share": 0.5, "lr": 1e-9}
    mapper = Mixer.fit([trials[1]], targets, seed=0, from_checkpoint=folder, width=9, **settings)
    assert mapper.subjects == ("sub-02",)
    assert mapper.history["training trials"] == {"sub-02": TRAIN // 2}
    for key, value in both.state_dict().items():
        if not key.startswith(("layers", "mean_", "sd_", "gain_")):
            torch.testing.assert_close(mapper.state_dict()[key], value, rtol=0, atol=1e-6)
    assert identified(mapper, trials[1], targets) > 0.8
    with pytest.raises(UserError, match="gives toy/image, toy/context, toy/latents, asked for "):
        Mixer.fit([trials[1]], {IMAGE: targets[IMAGE]}, seed=0, from_checkpoint=folder)
    plain = Mixer([IMAGE], {"sub-01": VOXELS}, 6, 3, 2, 1, None)
    folder = save(plain, tmp_path / "plain")
    with pytest.raises(UserError, match="has no code .* add layers=learned"):
        Mixer.fit([trials[1]], {IMAGE: targets[IMAGE]}, seed=0, from_checkpoint=folder)


def test_fewer_trials_are_whole_stimuli_and_sessions(data):
    one = data[0][0]
    half = fewer(one, share=0.5, seed=3)
    assert len(half.rows("train")) == TRAIN // 2 and half.stimuli("test") == one.stimuli("test")
    for row in (0, 7, len(half.table) - 1):
        number = int(half.table["stimulus"][row][1:])
        np.testing.assert_array_equal(half.betas[[row]], one.betas[[number]])
    less = set(fewer(one, share=0.2, seed=3).stimuli("train"))
    assert less < set(half.stimuli("train")) != set(fewer(one, share=0.5, seed=4).stimuli("train"))
    assert fewer(data[0][1], share=0.5, seed=3).stimuli("train") == half.stimuli("train")
    first = fewer(one, sessions=1)
    assert set(first.table["session"][first.rows("train")]) == {1}
    assert fewer(one) is one
    only = {IMAGE: data[1][IMAGE]}  # a fair comparison: ridge on the very same trials
    ridges = Ridge.fit([one], only, seed=3, share=0.5), Ridge.fit([half], only, seed=3)
    for a, b in zip(*(ridge.parameters() for ridge in ridges), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(UserError, match=r"has 3 session\(s\) with training trials, .* were 9;"):
        fewer(one, sessions=9)
    with pytest.raises(UserError, match="found sessions=0, share=0"):
        fewer(one, share=0.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": "frozen"}, "layers is ridge or learned, found 'frozen'"),
        ({"answer": "mean"}, "answer is contrastive or regressed, found 'mean'"),
        ({"streams": 2}, "streams is a whole number from 3, found 2"),
        ({"prior_width": 8}, "prior_width is a whole number from 16, found 8"),
        ({"mix": 2.0}, "found regression=1, contrast=1, low_level=0.5, mix=2"),
        ({"temperatures": (0.1, 0.0, 0.1)}, "temperatures are three numbers .* found 0.1, 0, 0.1"),
        ({"alphas": ()}, "alphas must be positive numbers"),
    ],
)
def test_settings_that_cannot_be_are_refused(data, settings, message):
    trials, targets = data
    with pytest.raises(UserError, match=message):
        Mixer.fit(trials, targets, seed=0, **settings)


def test_a_space_of_another_kind_is_refused():
    space = EmbeddingSpace("toy", "video", (2, 3, 4, 5))
    with pytest.raises(UserError, match=r"shape \(D,\), \(T, D\) and \(C, H, W\), found"):
        Mixer([space], {"sub-01": 4}, 6, 3, 2, 1, None)

"""MindEye2's and NeuralDiffuser's weights in the mixer: published weights, published outputs."""

import math

import numpy as np
import pytest
import torch

from backends.mappers.mixer import Mixer
from backends.mappers.parts.mindeye2 import convert
from backends.mappers.parts.prior import LEVELS, Prior, noise_schedule
from explorer.types import EmbeddingSpace, UserError

CONTEXT = EmbeddingSpace("toy", "context", (3, 4))

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


class Smooth(Prior):
    """A prior whose network is a formula, so that only its sampler is measured."""

    def forward(self, noisy, level, brain):
        return 0.5 * noisy.tanh() + brain * (1 + level[:, None, None] / 100)


@pytest.mark.parametrize(
    ("steps", "told"),
    [  # what p_sample_loop of MindEyeV2's models.py gave for this network, brain and noise
        (20, [0.9013329744338989, -1.5058791637420654, 2.5767765045166016, 0.2553737759590149]),
        (100, [0.8488165736198425, -1.452908992767334, 2.4938814640045166, 0.20334528386592865]),
    ],
)
def test_the_published_sampler_gives_what_the_authors_code_gave(steps, told):
    prior = Smooth(2, 2, 2 * 16, 1, 1, 16, 4, False)
    brain = torch.tensor([[[0.5, -1.0], [2.0, 0.1]], [[9.0, 3.0], [0.0, 0.0]]])
    found = prior.sample(brain, steps, 0, "published")
    torch.testing.assert_close(found[0].flatten(), torch.tensor(told), rtol=0, atol=1e-6)
    again = prior.sample(brain[1:], steps, 0, "published")  # a trial's answer is its own
    torch.testing.assert_close(found[1:], again)
    assert (prior.sample(brain, steps, 0) - found).abs().max() > 0.05


def test_a_converted_mapper_samples_as_published_unless_told_otherwise(tmp_path):
    mapper, _ = Mixer.from_published(published(1), V, SPACE)
    assert (mapper.architecture["sampler"], mapper.architecture["steps"]) == ("published", 20)
    plain, _ = Mixer.from_published(published(1), V, SPACE, sampler="ddim")
    betas = torch.randn(3, V["subj01"], generator=torch.Generator().manual_seed(2))
    ours = [m(betas, "subj01")[SPACE] for m in (mapper, plain)]
    tokens = mapper.regress(betas, "subj01")[SPACE]
    torch.testing.assert_close(ours[0], mapper.heads[0].prior.sample(tokens, 20, 0, "published"))
    torch.testing.assert_close(ours[1], mapper.heads[0].prior.sample(tokens, 20, 0))
    assert (ours[0] - ours[1]).abs().max() > 0.1
    for steps, sampler, sentence in (
        (20, "euler", "sampler is ddim or published, found 'euler'"),
        (1, "published", r"takes 2 to 100 steps \(published: 20\), found 1"),
        (101, "published", r"takes 2 to 100 steps \(published: 20\), found 101"),
    ):
        with pytest.raises(UserError, match=sentence):
            Mixer.from_published(published(1), V, SPACE, steps=steps, sampler=sampler)

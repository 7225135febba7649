"""Guidance by scale and by attention: formulas against algebra, on networks that multiply."""

import threading

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention

from backends.generators.guidance import Level, at_step, attention, blur, predicted


class Toy(torch.nn.Module):
    """A network that is a factor for each row, with attention where a UNet has it."""

    def __init__(self):
        super().__init__()
        block = torch.nn.Module()
        block.attn1 = Attention(4, heads=2, dim_head=3)
        inner, self.mid_block = torch.nn.Module(), torch.nn.Module()
        inner.transformer_blocks = torch.nn.ModuleList([block])
        self.mid_block.attentions = torch.nn.ModuleList([inner])
        self.rows, self.room = [], 99
        for name, weight in self.named_parameters():
            rng = torch.Generator().manual_seed(len(name))
            weight.data = torch.randn(weight.shape, generator=rng)
        self.requires_grad_(False)

    @property
    def layer(self):
        return self.mid_block.attentions[0].transformer_blocks[0].attn1

    def forward(self, x, factor):
        """Return factor times x, whatever it attends to."""
        self.layer(coarse(x))
        if len(x) > self.room:
            raise torch.OutOfMemoryError
        self.rows.append(len(x))
        return factor[:, None, None, None] * x


def coarse(x):
    """Return every second row and column as positions (n, s * s, C)."""
    return x[..., ::2, ::2].flatten(2).mT


def attended(layer, tokens):
    """How much each position is attended to, from the definition, head by head."""
    q, k = (to(tokens).unflatten(2, (2, 3)) for to in (layer.to_q, layer.to_k))
    total = 0
    for head in range(2):
        total = total + (q[:, :, head] @ k[:, :, head].mT / 3**0.5).softmax(2).sum(1)
    return total / 2


def test_only_what_is_attended_to_is_blurred():
    latents = torch.zeros(2, 3, 16, 16)
    latents[0, 1, 5, 6] = 1  # in the quarter that is attended to
    latents[1, 1, 3, 3] = 1  # far from it
    seen = torch.ones(2, 16)
    seen[0, [0, 1, 4, 5]] = 1.5  # of 4 x 4 positions
    seen[1, [10, 11, 14, 15]] = 1.5
    found = blur(latents, seen)
    pdf = np.exp(-0.5 * np.arange(-4.0, 5) ** 2)
    line = np.zeros((2, 16))
    line[0, 1:10], line[1, 2:11] = pdf / pdf.sum(), pdf / pdf.sum()
    expected = np.outer(*line)
    expected[8:], expected[:, 8:] = 0, 0  # blurred beyond the quarter, but not looked at there
    np.testing.assert_allclose(found[0, 1], expected, atol=1e-6)
    assert found[0, [0, 2]].abs().max() == 0
    assert torch.equal(found[1], latents[1])
    flat = torch.full((1, 3, 16, 16), 0.7)
    torch.testing.assert_close(blur(flat, seen[:1]), flat)


def test_attention_is_collected_beside_the_prediction():
    net, x = Toy(), torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    factor = torch.ones(3)
    net.layer.set_processor(before := net.layer.processor)
    with attention(net) as maps:
        net(x, factor)
        net(x[:1], factor[:1])
        net.room = 1
        with pytest.raises(torch.OutOfMemoryError):
            net(x[1:], factor[1:])
        other = threading.Thread(target=net, args=(x[:1], factor[:1]))
        other.start()
        other.join()
    assert [len(one) for one in maps] == [3, 1]  # neither what failed nor another thread's
    torch.testing.assert_close(maps[0], attended(net.layer, coarse(x)))
    torch.testing.assert_close(maps[0].mean(1), torch.ones(3))
    net(x[:1], factor[:1])
    assert len(maps) == 2 and net.layer.processor is before
    with pytest.raises(torch.OutOfMemoryError), attention(net):
        net(x, factor)
    with attention(net, on=False) as none:
        net(x[:1], factor[:1])
    assert none == [] and not net._forward_hooks and not net.layer._forward_pre_hooks


TOLD, UNTOLD = 0.9, 0.4
KINDS = {  # level -> the noise that it finds, by the definition of what is predicted
    "epsilon": (0.6, 0.8, lambda x, p: p),
    "v_prediction": (0.6, 0.8, lambda x, p: 0.8 * x + 0.6 * p),
    "flow_prediction": (0.3, 0.7, lambda x, p: x + 0.3 * p),
}


@pytest.mark.parametrize("kind", KINDS)
def test_self_attention_guidance_leads_away_from_the_blurred(kind):
    """The paper's formula for noise, on a network that multiplies."""
    signal, noise, eps = KINDS[kind]
    level = Level(torch.tensor(0), signal, noise, kind)
    net, x = Toy(), torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    scale = torch.tensor([0.0, 1.0, 3.0, 0.5])

    def predict(noisy, with_brain, without):
        return net(noisy, torch.tensor([TOLD] * len(with_brain) + [UNTOLD] * len(without)))

    found = predicted(x, level, scale, predict, net, {"rescale": 0, "self_attention": 0.75})
    assert net.rows == [6, 4]  # one more row a picture
    told, untold = eps(x, TOLD * x), eps(x, UNTOLD * x)
    factor = scale[:, None, None, None]
    which = torch.tensor([UNTOLD, TOLD, UNTOLD, UNTOLD])[:, None, None, None]
    base = eps(x, which * x)
    clean = (x - noise * base) / signal
    blurred = signal * blur(clean, attended(net.layer, coarse(x))) + noise * base
    assert (blurred - x).abs().max() > 0.1
    expected = untold + factor * (told - untold) + 0.75 * (base - eps(blurred, which * blurred))
    torch.testing.assert_close(eps(x, found), expected)
    torch.testing.assert_close(level.clean(x, found), (x - noise * expected) / signal)
    # off, it asks for no row more and changes nothing to the bit
    net.rows.clear()
    plain = predicted(x, level, scale, predict, net, {"rescale": 0})
    assert net.rows == [6]
    off = predicted(x, level, scale, predict, net, {"rescale": 0, "self_attention": 0.0})
    assert torch.equal(off, plain) and torch.equal(plain[0], UNTOLD * x[0])
    # rows that differ in their scale alone are asked once of each kind
    net.rows.clear()
    given = x[:1].expand(4, -1, -1, -1), level, scale, predict, net
    how = {"rescale": 0.3, "self_attention": 0.75}
    once = predicted(*given, how, same=True)
    assert net.rows == [2, 2]
    torch.testing.assert_close(once, predicted(*given, how))


def test_outside_its_interval_a_scale_above_1_is_1():
    scale, how = torch.tensor([0.0, 0.5, 1, 8]), {"guidance_from": 0.2, "guidance_to": 0.8}
    last = [at_step(scale, step, 10, how)[-1].item() for step in range(1, 11)]
    assert last == [1, 1, 8, 8, 8, 8, 8, 8, 1, 1]
    assert at_step(scale, 1, 10, how).tolist() == [0, 0.5, 1, 1]
    always = {"guidance_from": 0.0, "guidance_to": 1.0}
    assert all(torch.equal(at_step(scale, step, 10, always), scale) for step in (1, 10))

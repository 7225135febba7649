"""The GPU's benchmark in miniature: that it runs, and that both ways draw the same pictures."""

import re
from pathlib import Path

import pytest
import torch


@pytest.fixture
def benchmark(monkeypatch):
    """Return the module as the benchmarks import it."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    import on_gpu
    import on_gpu_xl

    monkeypatch.setattr(on_gpu, "seconds", lambda work: (1.0, work()))
    monkeypatch.setattr(on_gpu_xl, "PAIRS", 1)
    return on_gpu


def test_sweep_and_plain_calls_draw_the_same_pictures(benchmark):
    lines = {what: value for what, value, _ in benchmark.measure_gpu(Path(), None, small=True)}
    (title, *_), device = lines, "cuda" if torch.cuda.is_available() else "cpu"
    assert title == "Stable Diffusion 1.5 with random weights, in miniature"
    (ratio,) = (value for what, value in lines.items() if "plain diffusers calls" in what)
    assert ratio == "1.00 s / 1.00 s = 1.00x"
    if device == "cpu":  # in half precision they differ by rounding
        assert float(lines["grey levels between both, mean, at most over scales"]) < 1
    assert re.fullmatch(r"\d+\.\d GB", lines["peak memory"])
    (xl,) = (value for what, value in lines.items() if what.startswith("SDXL unCLIP, 5 scales, 2"))
    (tokens,) = (value for what, value in lines.items() if what.startswith("ViT-bigG/14 tokens"))
    for found in (xl, tokens):
        assert re.match(r"[\d.]+ s \([\d.]+ to [\d.]+\) / .* = [\d.]+x", found)
    (share,) = (value for what, value in lines.items() if "matrix rate" in what)
    assert re.fullmatch(r"[\d.e-]+ of [\d.e-]+ TFLOP/s = \d+ %", share)


def test_plain_calls_and_a_sweep_of_the_unclip_end_alike(benchmark, tmp_path):
    """At a scale, both ways guide alike: a benchmark of another work would say nothing."""
    import on_gpu_xl

    from backends.generators.sdxl_unclip import SDXLUnCLIP

    on_gpu_xl.build(tmp_path, "small")
    generator = SDXLUnCLIP(tmp_path / "none", "cpu", tmp_path)
    calls = []
    unet = generator.unet.forward

    def counted(latents, *told, **named):
        calls.append(len(latents))
        return unet(latents, *told, **named)

    generator.unet.forward = counted
    from backends.generators.sdxl_unclip import TOKENS
    from explorer.protocols import Condition

    condition = Condition({TOKENS: torch.zeros(TOKENS.shape)})
    on_gpu_xl.plain_calls(generator, condition, 2, "cpu")()
    plain, calls[:] = sum(calls), []
    list(generator.sweep(condition, on_gpu_xl.SWEEP, 2, 7))
    assert plain == 2 * 2 * len(on_gpu_xl.SWEEP)
    assert sum(calls) < plain  # what all scales share is computed once


def test_without_a_gpu_one_line_says_so(benchmark, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    lines = benchmark.measure_gpu(Path(), None)
    assert lines == [("Stable Diffusion 1.5 on a GPU", "not measured: no GPU is here", "")]


def test_operations_are_those_of_the_matrices(benchmark):
    """A network of one known product, so that a row's count can be said."""

    class Generator:
        device, dtype, latent_shape = "cpu", torch.float32, (4, 8, 8)

        @staticmethod
        def unet(latents, timestep, context):
            return context.flatten(1) @ torch.ones(77 * 768, 10)

    assert benchmark.operations(Generator, 3) == 2 * 3 * 77 * 768 * 10

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

    monkeypatch.setattr(on_gpu, "seconds", lambda work: (1.0, work()))
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
    (share,) = (value for what, value in lines.items() if "matrix rate" in what)
    assert re.fullmatch(r"[\d.e-]+ of [\d.e-]+ TFLOP/s = \d+ %", share)


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

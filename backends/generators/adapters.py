"""From other things that a mapper may decode to what pocket-diffusion draws from.

An `Adapter` turns pocket-clip's tokens of a picture, or the text context of its caption, into the
image embedding that goes with them. It is learned from pictures and captions alone, with noise and
shrinkage as decoding brings them, so the denoiser stays one and the same for all mappers.
"""

from __future__ import annotations

import torch

EMBEDDING, HEADS, HIDDEN = 128, 4, 256


class Adapter(torch.nn.Module):
    """Tokens (n, T, D), T ``positions`` of ``width`` D, to image embeddings (n, 128) of unit norm.

    ``mean`` (T, D) is that of the examples, ``scale`` one over their SD, 0 for what never varies.
    A few learned weightings of the positions and their plain mean are read by a small network.
    """

    def __init__(self, positions: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(positions, width))
        self.register_buffer("scale", torch.ones(positions, width))
        self.position = torch.nn.Parameter(torch.zeros(positions, HEADS))
        self.weigh = torch.nn.Linear(width, HEADS)
        self.read = torch.nn.Sequential(
            torch.nn.Linear((HEADS + 1) * width, HIDDEN),
            torch.nn.GELU(),
            torch.nn.Linear(HIDDEN, EMBEDDING),
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return unit-norm image embeddings (n, 128)."""
        x = (tokens.float() - self.mean) * self.scale
        weights = (self.weigh(x) + self.position).softmax(dim=1)  # (n, T, heads)
        pooled = torch.einsum("nth,ntd->nhd", weights, x).flatten(1)
        found = self.read(torch.cat([pooled, x.mean(dim=1)], dim=1))
        return torch.nn.functional.normalize(found, dim=1)

    @torch.no_grad()
    def set_statistics(self, tokens: torch.Tensor) -> None:
        """Take mean and SD from examples (n, T, D)."""
        self.mean.copy_(tokens.float().mean(dim=0))
        sd = tokens.float().std(dim=0)
        # what hardly varies (the start of a caption) would be rounding blown up
        self.scale.copy_(torch.where(sd > 0.01 * sd.mean(), 1 / sd, 0))


def as_decoded(tokens: torch.Tensor, adapter: Adapter, generator: torch.Generator) -> torch.Tensor:
    """Return tokens (n, T, D) as a decoder would give them: shrunk towards the mean, and noisy.

    Both by amounts drawn per row: at most two thirds of the way to the mean, and noise of at most
    one standard deviation.
    """
    shape = (len(tokens), 1, 1)
    keep = 1 - torch.rand(shape, generator=generator) * 2 / 3
    amount = torch.rand(shape, generator=generator)
    noise = torch.randn(tokens.shape, generator=generator)
    sd = torch.where(adapter.scale > 0, 1 / adapter.scale, 0)
    clean = adapter.mean + keep * (tokens.float() - adapter.mean)
    return clean + amount * keep * sd * noise

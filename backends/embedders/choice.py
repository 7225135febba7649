"""Which embedder makes a space, where its weights are, and what a card tells of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from backends import EMBEDDERS
from explorer.protocols import Embedder
from explorer.types import EmbeddingSpace, UserError, resolve


def available_spaces() -> dict[str, tuple[str, EmbeddingSpace]]:
    """Return every space an embedder can make: its name -> (embedder's name, space).

    Spaces of pictures first, then those of captions.
    """
    found = {}
    for kind in ("spaces", "text_spaces"):
        for name, entry in EMBEDDERS.items():
            found |= {s.name: (name, s) for s in getattr(resolve(entry), kind, ())}
    return found


def find_space(name: str) -> tuple[str, EmbeddingSpace]:
    """Return the embedder's name and the space called ``name``; unknown ones raise `UserError`."""
    spaces = available_spaces()
    if name not in spaces:
        raise UserError(f"There is no space {name!r}; choose one of {', '.join(spaces)}.")
    return spaces[name]


def read_sources(pairs: Sequence[str]) -> dict[str, str]:
    """Return embedder -> where its weights are, from ``NAME=PATH_OR_ID`` texts."""
    published = [n for n, entry in EMBEDDERS.items() if hasattr(resolve(entry), "hub")]
    found = {}
    for pair in pairs:
        name, equals, source = pair.partition("=")
        if not (equals and source) or name not in published:
            raise UserError(
                f"--embedder takes NAME=PATH_OR_ID with one of {', '.join(published)}, found "
                f"{pair!r}."
            )
        found[name] = source
    return found


def make_embedders(
    spaces: Sequence[str],
    checkpoints: Path,
    device: str = "cpu",
    sources: Mapping[str, str] | None = None,
) -> dict[EmbeddingSpace, Embedder]:
    """Return space -> the embedder that makes it, each loaded once however many spaces it makes.

    ``spaces``: names, e.g. ``pocket-clip/image``. ``sources``: embedder -> folder or hub id of its
    weights, where they are not in ``checkpoints``.
    """
    made: dict[str, Embedder] = {}
    found = {}
    for name, space in map(find_space, spaces):
        if name not in made:
            given = {"source": sources[name]} if sources and name in sources else {}
            made[name] = resolve(EMBEDDERS[name])(checkpoints, device, **given)
        found[space] = made[name]
    return found


def weights_of(makers: Mapping[EmbeddingSpace, Embedder]) -> dict[str, dict[str, str]]:
    """Return what a card tells of the weights that made its targets: where from, and their hash.

    Embedders without weights are left out.
    """
    return {
        space.model: {
            "weights": str(getattr(maker, "source", "") or "checkpoints"),
            "hash": maker.fingerprint,
        }
        for space, maker in makers.items()
        if hasattr(maker, "fingerprint")
    }

"""Several converted checkpoints as one decoder, as NeuralDiffuser's encoders of c, z and g."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from explorer.types import Card, UserError


def another(text: str) -> tuple[Path, str]:
    """Return the file and the space of an ``--also``; other text raises `UserError`."""
    path, _, space = text.rpartition("=")
    if not path or not space:
        raise UserError(
            f"--also is FILE=MODEL/LAYER, such as z.pth=sd-vae/latents, found {text!r}."
        )
    return Path(path), space


def joined(
    parts: Sequence[tuple[Any, Card, Sequence[str]]],
) -> tuple[Any, Card, tuple[str, ...]]:
    """Return one decoder of several converted files, its card, and what found no place in it."""
    from backends.mappers.joined import Joined

    if odd := [card.cls for _, card, _ in parts if card.cls not in ("mixer", "joined")]:
        raise UserError(
            f"Encoders of MindEye2 and NeuralDiffuser are joined, found {odd[0]}; convert that "
            "file by itself."
        )
    spaces = [space.name for _, card, _ in parts for space in card.targets]
    if twice := sorted({name for name in spaces if spaces.count(name) > 1}):
        raise UserError(f"Two of the files give {twice[0]}; join an encoder of each space once.")
    members = []
    for mapper, card, _ in parts:
        if card.cls == "joined":
            members += zip(mapper.architecture["members"], mapper.members, strict=True)
        else:
            about = {"cls": card.cls, "targets": len(mapper.targets)}
            members.append((about | {"architecture": mapper.architecture}, mapper))
    first = parts[0][1]
    voxels = {subject: count for subject, (count, _) in first.voxels.items()}
    made = Joined.of(voxels, members)
    left_out = tuple(
        f"{card.settings['published']['file']}: {line}" for _, card, left in parts for line in left
    )
    about = {
        "files": [
            {"targets": [space.name for space in card.targets]} | card.settings["published"]
            for _, card, _ in parts
        ]
    }
    card = replace(first, cls="joined", targets=made.targets, settings={"published": about})
    return made, card, left_out

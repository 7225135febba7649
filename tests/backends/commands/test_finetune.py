"""The command ``finetune``: what it refuses before anything is computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.commands.finetune import run
from backends.generators.pixels import Pixels
from backends.generators.pocket import PocketDiffusion
from explorer.types import UserError

CHECKPOINTS = Path(__file__).resolve().parents[3] / "checkpoints"


def test_what_cannot_be_fine_tuned_is_said(make_workbench, tmp_path):
    bench = make_workbench(generators={"pixels": Pixels, "pocket-diffusion": PocketDiffusion})
    asked = (bench, CHECKPOINTS, "fake", ["sub-01"], "linear")
    with pytest.raises(UserError, match="pixels cannot be fine-tuned: it has no cross-attention"):
        run(*asked, "pixels", tmp_path)
    with pytest.raises(
        UserError, match="on decoded pocket-clip/image, the mapper gives fake-clip"
    ):
        run(*asked, "pocket-diffusion", tmp_path)

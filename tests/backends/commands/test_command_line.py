"""The command line as a person uses it: train on their folder, doctor it, one-line errors."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from backends import DATASETS, EMBEDDERS, GENERATORS, MAPPERS
from backends.__main__ import main
from backends.embedders.choice import available_spaces, find_space
from explorer.choosing import default_request
from explorer.decoding import decode
from explorer.drawing import reconstruct
from explorer.mapper import read_card
from explorer.types import UserError
from explorer.workbench import Workbench


@pytest.fixture
def study(tmp_path) -> Path:
    """Write a plain folder in which each voxel follows one cell of a 10 x 10 picture."""
    rng = np.random.default_rng(0)
    root = tmp_path / "study"
    (root / "stimuli").mkdir(parents=True)
    (root / "sub-01").mkdir()
    grids = rng.integers(0, 2, (60, 10, 10)).astype(np.uint8) * 255
    names = [f"p{i:02d}" for i in range(60)]
    for name, grid in zip(names, grids, strict=True):
        Image.fromarray(grid).resize((40, 40), 0).convert("RGB").save(
            root / "stimuli" / f"{name}.png"
        )
    (root / "dataset.json").write_text(json.dumps({"title": "Cells", "licence": "CC0"}))
    files = pd.DataFrame({"file": [f"{name}.png" for name in names]})
    files.to_csv(root / "stimuli" / "stimuli.tsv", sep="\t", index=False)
    betas = grids.reshape(60, 100) / 255 + 0.1 * rng.standard_normal((60, 100))
    np.save(root / "sub-01" / "betas.npy", betas.astype(np.float32))
    split = ["train"] * 48 + ["test"] * 12
    trials = pd.DataFrame({"stimulus": names, "split": split})
    trials.to_csv(root / "sub-01" / "trials.tsv", sep="\t", index=False)
    return root


def call(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
    """Run ``python -m backends ...`` in this process: exit code, what it printed, its errors."""
    monkeypatch.setattr(sys, "argv", ["backends", *map(str, arguments)])
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    out, err = capsys.readouterr()
    return code, out, err


def test_train_writes_a_mapper_that_the_workbench_offers(study, tmp_path, monkeypatch, capsys):
    kept = tmp_path / "weights"
    code, out, _ = call(
        *(monkeypatch, capsys, "train", "ridge", "--dataset", f"cells={study}"),
        *("--space", "pixels/10x10", "--checkpoints", kept),
    )
    assert code == 0 and "sub-01  pixels/10x10" in out
    card = read_card(kept / "mappers" / "cells" / "ridge-sub-01")
    assert (card.kind, card.cls, card.dataset, card.licence) == ("mapper", "ridge", "cells", "CC0")
    assert card.voxels["sub-01"][0] == 100 and "train ridge --dataset cells=" in card.command
    figures = card.metrics["test"]["pixels/10x10"]
    assert figures["N"] == 12 and figures["chance"] == 0.5
    low, high = figures["95 % interval over stimuli"]
    assert 0.95 <= low <= figures["two-way identification"] <= high  # 100 voxels say it all
    bench = Workbench(
        DATASETS, EMBEDDERS, MAPPERS, GENERATORS, checkpoints=kept, paths={"cells": study}
    )
    assert bench.catalogue.mapper_names("cells", "sub-01")[0] == "ridge"
    request = default_request(bench.catalogue, "cells", seed=1)
    assert (request.mapper, request.generator) == ("ridge", "pixels")
    assert decode(bench, request).rank <= 2
    (frame,) = [f for f in reconstruct(bench, request) if f.done]
    assert frame.scores["PixCorr"] > 0.5  # 48 trials for 100 cells; chance 0


def test_doctor_finds_nothing_then_says_what_is_missing(study, monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "doctor", study)
    assert code == 0 and "Problems" not in out
    assert out.splitlines()[-1] == f"python app.py --dataset study={study}"
    (study / "stimuli" / "p07.png").unlink()
    code, out, _ = call(monkeypatch, capsys, "doctor", study)
    assert code == 1 and "Problems:\n  - " in out and "p07" in out
    assert out.splitlines()[-1] == f"python app.py --dataset study={study}"
    code, out, _ = call(monkeypatch, capsys, "doctor", study / "nowhere")
    assert code == 1 and "there is nothing at" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("train", "lasso", "--dataset", "simulated"),
            "no mapper 'lasso' to train; choose one of ridge",
        ),
        (("train", "published", "--dataset", "simulated"), "no mapper 'published' to train"),
        (("train", "ridge", "--dataset", "=here"), "--dataset takes NAME=PATH"),
        (("train", "ridge", "--dataset", "mine=/no/such"), "there is nothing at /no/such"),
        (
            ("train", "ridge", "--dataset", "simulated", "--space", "clip/xl"),
            "no space 'clip/xl'; choose one of pocket-clip/image, ",
        ),
        (
            ("reconstruct", "--dataset", "simulated", "--out", "x", "--generator", "pixels=a/b"),
            "--generator takes NAME=PATH_OR_ID with one of pocket-diffusion, retrieval, ",
        ),
        (
            ("import-checkpoint", "last.pth", "--only", "subj01", "--dataset", "simulated"),
            "--only subj01 says whose layer is converted, so it needs --convert and --dataset ",
        ),
        (("build-demo", "--quick"), "--quick makes untrained models; give --out FOLDER"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments, sentence, monkeypatch, capsys):
    code, out, err = call(monkeypatch, capsys, *arguments)
    assert code == 2 and out == ""
    assert re.search(re.escape(sentence), err) and len(err.strip().splitlines()) == 1


def test_spaces_are_found_by_name():
    ours = {"pocket-clip/image", "pocket-clip/tokens", "pixels/10x10", "pocket-clip/text"}
    assert ours < set(available_spaces())
    embedder, space = find_space("pixels/10x10")
    assert (embedder, space.shape) == ("pixels", (100,))
    with pytest.raises(UserError, match="no space 'x'"):
        find_space("x")

"""MindEye2's retrieval branch and its average over repeats, as rows of the table over mappers."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from backends.mappers.mixer import Mixer
from backends.mappers.parts.repeats import over_repeats
from backends.reports.mapper_tables import markdown, write
from backends.reports.mappers import compare
from backends.reports.retrieval_branch import BRANCH, OUTPUTS, has_branch
from explorer import metrics
from explorer.evidence.evaluation import read_evaluation
from explorer.mapper import read_card
from explorer.types import EmbeddingSpace

TOKENS = EmbeddingSpace("toy", "tokens", (3, 4))
LOW = EmbeddingSpace("toy", "latents", (2, 4, 4))
SIZES = {"width": 6, "streams": 1, "hidden": 6, "blocks": 1}
PRIOR = {"width": 4, "depth": 1, "heads": 1, "head_size": 36, "inner": 8, "adds": False}


def made(targets: Any, voxels: dict[str, int], prior: Any = PRIOR, **how: Any) -> Mixer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        mapper = Mixer(targets, voxels, **SIZES, prior=prior, steps=3, start=2, **how)
        for parameter in mapper.parameters():
            parameter.data += 0.3 * torch.randn(parameter.shape)
    return mapper.eval()


@torch.inference_mode()
def test_outputs_are_averaged_over_repeats_and_then_the_prior() -> None:
    mapper = made([TOKENS, LOW], {"one": 5})
    betas = torch.randn(5, 5, generator=torch.Generator().manual_seed(1))
    decoded, retrieved = over_repeats(mapper, betas, [2, 3], "one")
    head = mapper.heads[0]
    tokens = head(mapper.shared(mapper.layer(betas, "one")))
    for i, rows in enumerate((slice(0, 2), slice(2, 5))):
        mean = tokens[rows].mean(0, keepdim=True)
        expected = head.prior.sample(mean, 3, 2, mapper.sampler)
        torch.testing.assert_close(decoded[TOKENS][i : i + 1], expected)
        away = head.project(tokens[rows]).flatten(1).mean(0)
        direction = retrieved[TOKENS][i].flatten()
        cosine = torch.nn.functional.cosine_similarity(direction, away, dim=0)
        assert cosine.item() == pytest.approx(1, abs=1e-5)
        low = mapper(betas[rows], "one")[LOW].mean(0)
        torch.testing.assert_close(decoded[LOW][i], low)
    assert set(retrieved) == {TOKENS}
    # of one repeat nothing is averaged
    alone = over_repeats(mapper, betas, [1] * 5, "one")
    for mine, theirs in zip(
        alone, (mapper(betas, "one"), mapper.retrieve(betas, "one")), strict=True
    ):
        assert set(mine) == set(theirs)
        for space, z in mine.items():
            torch.testing.assert_close(z, theirs[space])


def test_only_a_branch_that_is_not_the_answer_itself_is_a_row() -> None:
    assert has_branch(made([TOKENS], {"one": 5}))
    assert has_branch(made([TOKENS], {"one": 5}, None, answer="regressed"))
    assert not has_branch(made([TOKENS], {"one": 5}, None, answer="contrastive"))
    assert not has_branch(object())


def test_the_rows_stand_beside_the_mapper(
    make_workbench: Any, fake_checkpoints: Any, fakes: Any, tmp_path: Any
) -> None:
    (space,) = fakes.Embedder.spaces
    trials = fakes.Study().load("sub-01")
    mapper = made([space], {"sub-01": trials.subject.voxels.n_voxels}, answer="regressed")
    card = read_card(fake_checkpoints / "mappers" / "fake" / "linear-sub-01")
    settings = {"architecture": mapper.architecture}
    shutil.copytree(fake_checkpoints, tmp_path / "made")
    folder = tmp_path / "made" / "mappers" / "fake" / "branched-sub-01"
    mapper.save_pretrained(folder, replace(card, name="branched", cls="mixer", settings=settings))
    kinds = {"linear": fakes.Linear, "ridge": fakes.Linear, "mixer": Mixer}
    bench = make_workbench(mappers=kinds, checkpoints=tmp_path / "made")
    found = compare(bench, "fake", subjects=["sub-01"])
    names = set(found.table["mapper"])
    assert {"branched", f"branched{BRANCH}", f"branched{OUTPUTS}"} <= names
    assert not any(name.startswith("linear (") for name in names)
    stimuli = list(bench.catalogue.gallery("fake", "sub-01").index)
    true = fakes.Embedder().embed([fakes.picture(name) for name in stimuli])
    repeats = [trials.rows("test", stimulus) for stimulus in stimuli]
    betas = torch.from_numpy(trials.betas[np.concatenate(repeats)])
    both = over_repeats(mapper, betas, list(map(len, repeats)), "sub-01")
    for words, decoded in zip((OUTPUTS, BRANCH), both, strict=True):
        expected = metrics.two_way_identification(decoded[space].numpy(), true)
        rows = found.table[found.table["mapper"] == f"branched{words}"]
        row = rows[(rows["score"] == "two-way") & (rows["betas"] == "averaged repeats")].iloc[0]
        assert row["value"] == pytest.approx(expected) and row["N"] == len(stimuli)
        assert {"brain-to-image", "image-to-brain"} <= set(rows["score"])
        assert set(rows["betas"]) == {"averaged repeats", "averaged repeats, shuffled"}
    assert any(note.startswith("(retrieval branch): the contrastive") for note in found.notes)
    assert f"| branched{BRANCH} |" in markdown(found)
    write(found, tmp_path / "out")
    assert f"branched{BRANCH}" in read_evaluation(tmp_path / "out").mappers(space.name)

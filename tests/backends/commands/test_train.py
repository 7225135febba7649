"""Training by command: settings as text, joint mappers, captions, and what the card tells."""

import inspect
import json
import resource
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from backends import DATASETS, EMBEDDERS, GENERATORS, MAPPERS
from backends.__main__ import main
from backends.commands.train import pictures_of
from backends.embedders.choice import find_space
from backends.embedders.pocket import PocketClip
from backends.embedders.store import embed_stimuli
from backends.mappers.contrastive import Contrastive
from backends.mappers.ridge import Ridge
from backends.training.mapper_training import Together, identify, train_mapper
from backends.training.rows import Batch, TrialRows
from backends.training.settings import read_settings, settings_of
from explorer.choosing import default_request
from explorer.decoding import decode
from explorer.mapper import read_card
from explorer.types import EmbeddingSpace, Subject, Trials, UserError, VoxelSpace
from explorer.workbench import Workbench

CHECKPOINTS = Path(__file__).resolve().parents[3] / "checkpoints"
IMAGE = EmbeddingSpace("toy", "image", (6,))
TEXT = EmbeddingSpace("toy", "text", (2, 4))


@pytest.fixture
def study(tmp_path):
    """Write a plain folder of two subjects whose voxels follow cells of 10 x 10 pictures."""
    rng = np.random.default_rng(0)
    root = tmp_path / "study"
    (root / "stimuli").mkdir(parents=True)
    grids = rng.integers(0, 2, (60, 10, 10)).astype(np.uint8) * 255
    names = [f"p{i:02d}" for i in range(60)]
    for name, grid in zip(names, grids, strict=True):
        Image.fromarray(grid).resize((40, 40), 0).convert("RGB").save(
            root / "stimuli" / f"{name}.png"
        )
    (root / "dataset.json").write_text(json.dumps({"title": "Cells", "licence": "CC0"}))
    files = pd.DataFrame({"file": [f"{name}.png" for name in names]})
    files.to_csv(root / "stimuli" / "stimuli.tsv", sep="\t", index=False)
    trials = pd.DataFrame({"stimulus": names, "split": ["train"] * 48 + ["test"] * 12})
    for person in ("sub-01", "sub-02"):
        (root / person).mkdir()
        betas = grids.reshape(60, 100) / 255 + 0.1 * rng.standard_normal((60, 100))
        np.save(root / person / "betas.npy", betas.astype(np.float32))
        trials.to_csv(root / person / "trials.tsv", sep="\t", index=False)
    return root


def call(monkeypatch, capsys, *arguments):
    """Run ``python -m backends train ...`` in this process: exit code, output, errors."""
    monkeypatch.setattr(sys, "argv", ["backends", "train", *map(str, arguments)])
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    return code, *capsys.readouterr()


def test_one_command_makes_a_joint_mapper_of_several_subjects(
    study, tmp_path, monkeypatch, capsys
):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    kept = tmp_path / "weights"
    command = (
        *("contrastive", "--dataset", f"cells={study}", "--space", "pixels/10x10"),
        *("--checkpoints", kept, "--name", "mine", "--seed", 3, "--device", "cpu"),
        *("--set", "epochs=20", "--set", "width=64", "--set", "lr=0.003", "--set", "batch=32"),
    )
    code, out, err = call(monkeypatch, capsys, *command)
    assert code == 0, err
    folder = kept / "mappers" / "cells" / "mine-sub-01-sub-02"
    card = read_card(folder)
    assert (card.name, card.cls, card.subjects) == ("mine", "contrastive", ("sub-01", "sub-02"))
    assert {key: card.settings[key] for key in ("seed", "epochs", "width", "lr")} == {
        "seed": 3,
        "epochs": 20,
        "width": 64,
        "lr": 0.003,
    }
    assert len(card.split_hash.split(",")) == 2
    assert card.metrics["training"]["epochs"] == 20
    for person in card.subjects:
        figures = card.metrics["test"][person]["pixels/10x10"]
        assert figures["N"] == 12 and figures["two-way identification"] > 0.8  # chance 0.5
        assert f"{person}  pixels/10x10  {figures}" in out
    assert "epoch 20/20" in err and " left" in err
    run = folder.with_name("mine-sub-01-sub-02.run")
    (events,) = (run / "afterimage").glob("events.out.tfevents.*")
    images = EventAccumulator(str(events)).Reload().Tags()["images"]
    assert images == ["validation trials"] and not (run / "state.pt").exists()
    bench = Workbench(
        DATASETS, EMBEDDERS, MAPPERS, GENERATORS, checkpoints=kept, paths={"cells": study}
    )
    assert bench.catalogue.mapper_names("cells", "sub-02") == ["mine"]
    assert decode(bench, default_request(bench.catalogue, "cells", seed=1)).rank <= 6  # of 12


def test_ridge_is_fitted_for_each_subject_as_before(study, tmp_path, monkeypatch, capsys):
    kept = tmp_path / "weights"
    code, out, _ = call(
        *(monkeypatch, capsys, "ridge", "--dataset", f"cells={study}", "--checkpoints", kept),
        *("--space", "pixels/10x10", "--set", "alphas=10,100", "--set", "folds=3"),
    )
    assert code == 0 and "sub-02  pixels/10x10" in out
    for person in ("sub-01", "sub-02"):
        card = read_card(kept / "mappers" / "cells" / f"ridge-{person}")
        assert card.subjects == (person,) and card.settings["alphas"] == [10, 100]
        assert card.metrics["test"]["pixels/10x10"]["N"] == 12
        assert set(card.metrics["cross-validation"]["pixels/10x10"]["alpha"]) <= {10, 100}


def test_embeddings_are_kept_and_the_card_names_the_weights(study, tmp_path, monkeypatch, capsys):
    kept, cache = tmp_path / "weights", tmp_path / "cache"
    kept.mkdir()
    (kept / "pocket-clip").symlink_to(CHECKPOINTS / "pocket-clip")
    command = ("ridge", "--dataset", f"cells={study}", "--checkpoints", kept, "--device", "cpu")
    command = (*command, "--subject", "sub-01", "--cache", cache, "--set", "folds=3")
    cards = []
    for options in ((), (), ("--no-cache",)):
        code, _, err = call(monkeypatch, capsys, *command, *options)
        assert code == 0, err
        cards.append(read_card(kept / "mappers" / "cells" / "ridge-sub-01"))
        (file,) = cache.rglob("*.safetensors")
        assert file.parent.name.startswith("pocket-clip-image-")
    assert cards[0].metrics == cards[1].metrics == cards[2].metrics
    told = cards[0].settings["embedders"]["pocket-clip"]
    assert told == {"weights": "checkpoints", "hash": PocketClip(kept).fingerprint}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("contrastive", "--set", "depth=3"),
            "--set takes KEY=VALUE with a setting of contrastive, found 'depth=3'; its settings "
            "are voxels=10000, width=512,",
        ),
        (("ridge", "--set", "folds"), "found 'folds'; its settings are alphas=10,"),
        (("ridge", "--set", "device=cuda"), "found 'device=cuda'"),
        (
            ("contrastive", "--set", "epochs=many"),
            "epochs of contrastive is of the kind int like its default 40, found 'many'",
        ),
        (("ridge", "--wandb"), "ridge is solved at once and not step by step"),
        (("ridge", "--augment", "more"), "ridge is solved at once from measured trials"),
        (("ridge", "--embedder", "alexnet=x"), "takes NAME=PATH_OR_ID with one of resnet50, "),
        (("ridge", "--space", "resnet50/layer1"), "resnet50 needs the weights of timm/resnet50."),
        (("ridge", "--name", "../up"), "--name is made of letters, digits, - and _"),
        (("contrastive", "--space", "pocket-clip/text"), "choose a space of pictures, or write"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, sentence, study, monkeypatch, capsys):
    code, out, err = call(monkeypatch, capsys, *arguments, "--dataset", f"cells={study}")
    assert code == 2 and out == ""
    assert sentence in err.strip().splitlines()[-1]


def test_settings_are_read_in_the_types_of_their_defaults():
    found = read_settings(
        *("contrastive", Contrastive),
        ["epochs=3", "lr=1e-4", "activation=gelu", "from_checkpoint=a=b"],
    )
    assert found == {"epochs": 3, "lr": 1e-4, "activation": "gelu", "from_checkpoint": "a=b"}
    assert isinstance(found["epochs"], int)
    assert read_settings("ridge", Ridge, ["alphas=1,2.5"]) == {"alphas": (1.0, 2.5)}

    class Switch:
        def fit(self, trials, targets, *, seed, shuffle=True):
            raise NotImplementedError

    assert read_settings("switch", Switch, ["shuffle=False"]) == {"shuffle": False}
    with pytest.raises(UserError, match="shuffle of switch is of the kind bool .* found '0'"):
        read_settings("switch", Switch, ["shuffle=0"])


def test_every_mapper_tells_its_settings():
    for cls in (Ridge, Contrastive):
        settings = settings_of(cls)
        assert settings and not set(settings) & {"trials", "targets", "seed", "device", "run"}
        assert set(settings) <= set(inspect.signature(cls.fit).parameters)


def test_a_full_disk_leaves_the_checkpoint_before_it(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"stimulus": [f"s{i}" for i in range(30)], "repeat": 0})
    table["split"] = ["train"] * 20 + ["test"] * 10
    betas = rng.standard_normal((30, 400)).astype(np.float32)
    subject = Subject("toy", "sub-01", VoxelSpace(400, "h"))
    trials = Trials(subject, betas, "units", table.assign(session=1, run=1))
    goals = {IMAGE: {f"s{i}": betas[i, :6] for i in range(30)}}
    said = {"command": "a test", "licence": "CC0", "alphas": (10.0,), "folds": 2}
    folder = tmp_path / "ridge-sub-01"
    train_mapper("ridge", Ridge, trials, goals, folder, seed=1, **said)
    before, kept = resource.getrlimit(resource.RLIMIT_FSIZE), read_card(folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))  # as if the disk were full
    try:
        with pytest.raises(
            UserError, match=r"ridge-sub-01 cannot be written \(.*\); make room on"
        ):
            train_mapper("ridge", Ridge, trials, goals, folder, seed=2, **said)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["ridge-sub-01"]
    assert read_card(folder) == kept and kept.settings["seed"] == 1


# ------------------------------------------------------------------------------------- pictures


class Painter:
    """Paints the first value of an embedding; 16 x 16 pixels."""

    accepts = (EmbeddingSpace("toy", "unasked", (3,)), IMAGE)  # one of them is enough
    needs, default_steps = ("betas",), 3

    def __init__(self, checkpoints, device, source=None):
        if not Path(source or checkpoints).exists():
            raise UserError(f"{checkpoints} is missing.")

    def generate(self, conditions, scale, seeds, steps):
        assert list(seeds) == list(range(len(conditions))) and steps == 3
        values = [int(c.embeddings[IMAGE][0]) for c in conditions]
        assert values == [int(c.betas[0]) for c in conditions]  # the toy mapper gives them as is
        return np.stack([np.full((16, 16, 3), value, np.uint8) for value in values])


class Reader(Painter):
    accepts, needs = (), ("stimulus",)


def test_pictures_stand_beside_what_was_shown(tmp_path):
    trials, names = [], [f"s{i}" for i in range(4)]
    for who in ("sub-01", "sub-02"):
        table = pd.DataFrame({"stimulus": names, "split": "train", "repeat": 0})
        betas = np.full((4, 6), 10.0 if who == "sub-01" else 20.0, np.float32)
        betas[:, 0] += np.arange(4)
        subject = Subject("toy", who, VoxelSpace(6, who))
        trials.append(Trials(subject, betas, "units", table.assign(session=1, run=1)))
    shown = SimpleNamespace(image=lambda name: np.full((32, 32, 3), 100 + int(name[1]), np.uint8))
    mapper = SimpleNamespace(decode=lambda betas, subject: {IMAGE: betas, TEXT: None})
    generators = {"reader": Reader, "painter": Painter}
    draw = pictures_of(shown, (IMAGE, TEXT), generators, tmp_path)
    images = draw(mapper, Batch(TrialRows(trials), np.array([6, 1, 3])))  # sub-02, sub-01, sub-01
    assert images.shape == (3, 16, 32, 3) and images.dtype == np.uint8
    assert images[:, 0, 0, 0].tolist() == [102, 101, 103]  # shown, on the left
    assert images[:, 0, -1, 0].tolist() == [22, 11, 13]  # decoded by the trial's own subject
    said = []
    assert pictures_of(shown, (TEXT,), generators, tmp_path, "cpu", said.append) is None
    assert said == []
    lacking = tmp_path / "none"
    assert pictures_of(shown, (IMAGE,), generators, lacking, "cpu", said.append) is None
    assert said == [f"The tracker shows no pictures: {lacking} is missing."]
    there = {"painter": str(tmp_path)}
    assert pictures_of(shown, (IMAGE,), generators, lacking, sources=there) is not None


# ----------------------------------------------------------------------------------- embeddings


class Speller:
    """Letters of a caption, counted: an embedder of text that can be checked by eye."""

    text_spaces = (EmbeddingSpace("speller", "text", (2,)),)

    def embed_text(self, captions, space):
        return np.array([[c.count("a"), c.count("b")] for c in captions], np.float32)


def captioned(captions):
    table = pd.DataFrame({"caption": captions}, index=list("xyz"))
    return SimpleNamespace(name="mine", stimuli=table)


def test_captions_are_embedded_by_stimulus():
    found = embed_stimuli(
        captioned(["a b", "bb", "aaa"]), ["z", "x"], Speller(), Speller.text_spaces[0]
    )
    assert {s: z.tolist() for s, z in found.items()} == {"z": [3, 0], "x": [1, 1]}


@pytest.mark.parametrize("missing", ["", " ", None])
def test_a_data_set_without_captions_is_refused_for_text(missing):
    with pytest.raises(
        UserError,
        match=r"speller/text is made of captions, and mine has none for 1 of 3 stimuli \(first "
        r"'y'\); choose a space of pictures, or write captions with python -m backends caption "
        r"--dataset mine=PATH --model PATH_OR_ID and name that file with --captions",
    ):
        embed_stimuli(
            captioned(["a", missing, "b"]), ["x", "y", "z"], Speller(), Speller.text_spaces[0]
        )


def test_spaces_of_captions_are_on_offer_after_those_of_pictures():
    embedder, space = find_space("pocket-clip/text")
    assert embedder == "pocket-clip" and space.unit_norm
    with pytest.raises(UserError, match="choose one of .*pixels/10x10.*, pocket-clip/text"):
        find_space("clip/xl")


def test_targets_are_measured_alone_and_side_by_side():
    rng = np.random.default_rng(0)
    names = [f"s{i}" for i in range(20)]
    image, text = rng.standard_normal((20, 6)), rng.standard_normal((20, 2, 4))
    table = pd.DataFrame({"stimulus": names, "split": "test", "repeat": 0})
    subject = Subject("toy", "sub-01", VoxelSpace(6, "h"))
    trials = Trials(subject, image.astype(np.float32), "units", table.assign(session=1, run=1))
    blind = rng.standard_normal((20, 2, 4))

    class Half:
        """Knows the image exactly (it is the betas) and nothing of the text."""

        def decode(self, betas, subject):
            return {IMAGE: betas, TEXT: blind}

    embeddings = {
        IMAGE: dict(zip(names, image, strict=True)),
        TEXT: dict(zip(names, text, strict=True)),
    }
    found = identify(Half(), trials, embeddings)
    assert list(found) == ["toy/image", "toy/text", "toy/image + toy/text"]
    score = {name: figures["two-way identification"] for name, figures in found.items()}
    assert score["toy/image"] == 1 and abs(score["toy/text"] - 0.5) < 0.2
    assert score["toy/text"] < score["toy/image + toy/text"] < 1
    assert all(figures["N"] == 20 and figures["chance"] == 0.5 for figures in found.values())
    few = identify(Half(), trials, {IMAGE: {"s3": image[3]}})
    assert few == {"toy/image": {"two-way identification": None, "N": 1}}


def test_mappers_trained_apart_are_measured_side_by_side():
    rng = np.random.default_rng(0)
    names, truth = [f"s{i}" for i in range(30)], rng.standard_normal((30, 14))
    table = pd.DataFrame({"stimulus": names, "split": "test", "repeat": 0})
    subject = Subject("toy", "sub-01", VoxelSpace(14, "h"))
    betas = (truth + 1.5 * rng.standard_normal((30, 14))).astype(np.float32)
    trials = Trials(subject, betas, "units", table.assign(session=1, run=1))

    class Image:
        """Reads the first six voxels."""

        targets = (IMAGE,)

        def decode(self, betas, subject):
            return {IMAGE: betas[:, :6]}

    class Text(Image):
        """Reads the others."""

        targets = (TEXT,)

        def decode(self, betas, subject):
            return {TEXT: betas[:, 6:].reshape(-1, 2, 4)}

    embeddings = {
        IMAGE: dict(zip(names, truth[:, :6], strict=True)),
        TEXT: dict(zip(names, truth[:, 6:].reshape(-1, 2, 4), strict=True)),
    }
    both = Together([Image(), Text()])
    assert both.targets == (IMAGE, TEXT)
    found = identify(both, trials, embeddings)
    score = {name: figures["two-way identification"] for name, figures in found.items()}
    alone = identify(Image(), trials, {IMAGE: embeddings[IMAGE]})
    assert score["toy/image"] == alone["toy/image"]["two-way identification"]
    assert score["toy/image + toy/text"] > max(score["toy/image"], score["toy/text"])
    with pytest.raises(UserError, match="toy/image belongs to two of them; leave one"):
        Together([Image(), Text(), Image()])

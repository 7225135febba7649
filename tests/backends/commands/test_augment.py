"""Extra pictures as training rows: test pictures never slip in, and nothing else is measured."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance

from backends.commands.augment import encoding_for, extend, find_extra
from backends.commands.training_data import gather
from backends.embedders.pocket import PocketClip
from backends.encoders.voxelwise import Encoding, train_encoding
from backends.reports.alike import looks, seen
from backends.simulation.scenes import render, sample_scenes
from backends.training.mapper_training import train_mapper
from backends.training.rows import Batch, TrialRows
from explorer.mapper import read_card, training_statistics
from explorer.matching import split_hash
from explorer.types import EmbeddingSpace, Subject, Trials, UserError, VoxelSpace, resolve

CHECKPOINTS = Path(__file__).resolve().parents[3] / "checkpoints"
SEEN = EmbeddingSpace("toy", "seen", (3,))


@pytest.fixture(scope="module")
def scenes():
    return [render(scene) for scene in sample_scenes(40, seed=77)]


def make_study(scenes, sources=None):
    """Two subjects with other test pictures each; sixteen pictures in all, eight for testing."""
    names = [f"scene-{i}" for i in range(16)]
    table = pd.DataFrame({"source": "", "caption": ""}, index=names)
    for name, source in (sources or {}).items():
        table.loc[name, "source"] = source
    tests = {"sub-01": names[:5], "sub-02": names[3:8]}

    def load(subject):
        split = np.where(np.isin(names, tests[subject]), "test", "train")
        rows = pd.DataFrame({"stimulus": names, "split": split, "repeat": 0})
        who = Subject("toy", subject, VoxelSpace(4, "h"))
        betas = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)
        return Trials(who, betas, "units", rows.assign(session=1, run=1))

    return SimpleNamespace(
        name="toy",
        stimuli=table,
        subjects=lambda: list(tests),
        load=load,
        image=dict(zip(names, scenes, strict=False)).__getitem__,
    )


def save(folder, pictures):
    for name, picture in pictures.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        image.save(file, **({"quality": 60} if file.suffix == ".jpg" else {}))


def test_test_pictures_are_left_out_by_name_and_by_looks(scenes, tmp_path):
    test = Image.fromarray(scenes[0])
    wide = Image.new("RGB", (200, 128), "white")
    wide.paste(Image.fromarray(scenes[4]), (36, 0))
    planted = {
        "copy.jpg": test,  # compressed, under another name
        "deep/down/small.png": Image.fromarray(scenes[7]).resize((64, 64)),  # of sub-02 alone
        "bright.png": ImageEnhance.Brightness(Image.fromarray(scenes[1])).enhance(1.1),
        "uncut.png": wide,  # the photograph that a test picture was cut from
    }
    named = {"scene-2.png": scenes[30], "kept/scene-6.jpeg": scenes[31]}
    fine = {f"new-{i}.png": scenes[i] for i in range(20, 28)} | {"trained.png": scenes[12]}
    save(tmp_path, planted | named | fine)
    (tmp_path / "notes.txt").write_text("no picture")
    said = []
    extra = find_extra(tmp_path, make_study(scenes), said.append)
    assert set(extra.files) == {f"extra:{name}" for name in fine}
    assert (extra.named, extra.alike) == (2, 4)
    assert "9 of 15 pictures" in said[-1]
    assert "2 that are named like one of the 8 test pictures of toy, 4 that look like" in said[-1]
    np.testing.assert_array_equal(extra.image("extra:new-20.png"), scenes[20])
    assert extra.told()["left out, looking like a test picture"] == 4


def test_cocos_numbers_are_names_too(scenes, tmp_path):
    sources = {"scene-1": "COCO train2017 391895", "scene-12": "COCO val2017 42"}
    files = ("000000391895.jpg", "COCO_train2014_000000391895.png", "000000000042.png", "391.png")
    save(tmp_path, dict(zip(files, scenes[20:], strict=False)))
    extra = find_extra(tmp_path, make_study(scenes, sources))
    # 42 is a training picture
    assert set(extra.files) == {"extra:000000000042.png", "extra:391.png"} and extra.named == 2


def test_copies_are_near_and_other_pictures_far(scenes):
    def copy(picture):
        half = Image.fromarray(picture).resize((64, 64), Image.Resampling.BILINEAR)
        return np.asarray(half.resize((150, 150)))

    own = [np.array(looks(picture), np.uint64) for picture in scenes]
    assert all(seen(looks(copy(p)), h) for p, h in zip(scenes, own, strict=True))
    others = [seen(map(int, a), b) for i, a in enumerate(own) for j, b in enumerate(own) if i != j]
    assert np.mean(others) < 0.05  # scenes of one kind of place are alike in much


@pytest.mark.parametrize("harm", ["empty", "all", "damaged"])
def test_a_folder_that_gives_nothing_is_refused(scenes, tmp_path, harm):
    sentence = "needs a folder of pictures .* has none"
    if harm == "all":
        save(tmp_path, {"scene-1.png": scenes[30], "copy.png": scenes[0]})
        sentence = r"All 2 pictures in .* are test pictures of toy \(1 by name, 1 by looks\)"
    elif harm == "damaged":
        (tmp_path / "half.png").write_bytes(b"\x89PNG not")
        sentence = "half.png cannot be read as a picture .*take it out of the folder"
    with pytest.raises(UserError, match=sentence):
        find_extra(tmp_path, make_study(scenes))


# ---------------------------------------------------------------------------------- synthetic rows


def planted(noise=0.5):
    """60 stimuli of three causes, 45 for training, and 30 further pictures nobody saw."""
    rng = np.random.default_rng(1)
    causes, tuning = rng.standard_normal((90, 3)), rng.standard_normal((3, 7))
    betas = causes[:60] @ tuning + noise * rng.standard_normal((60, 7)) + 5
    names = [f"s{i:02d}" for i in range(60)] + [f"extra:{i}" for i in range(30)]
    table = pd.DataFrame({"stimulus": names[:60], "split": ["train"] * 45 + ["test"] * 15})
    table = table.assign(repeat=0, session=1, run=1)
    trials = Trials(
        Subject("toy", "sub-01", VoxelSpace(7, "h")), betas.astype(np.float32), "z", table
    )
    return trials, {SEEN: dict(zip(names, causes.astype(np.float32), strict=True))}, tuning


@pytest.fixture(scope="module")
def both():
    trials, embeddings, _ = planted()
    encoding = Encoding.fit(trials, embeddings, seed=0)
    extra = [name for name in embeddings[SEEN] if name.startswith("extra")]
    return trials, extend(trials, encoding, embeddings, extra), embeddings, encoding


def test_predicted_rows_follow_the_measured_ones_in_the_datas_own_unit(both):
    trials, more, embeddings, _ = both
    np.testing.assert_array_equal(more.betas[:60], trials.betas)
    rows = more.synthetic()
    assert list(rows) == list(range(60, 90))
    names = more.table["stimulus"].iloc[rows]
    expected = np.stack([embeddings[SEEN][s] for s in names]) @ planted()[2] + 5
    assert np.abs(more.betas[rows] - expected).mean() < 0.3  # the betas' SD is about 1.8
    mixed = np.array([70, 3, 89, 3, 60])
    np.testing.assert_array_equal(more.betas[mixed], more.betas[:][mixed])


def test_nothing_but_learning_meets_them(both):
    trials, more, embeddings, encoding = both
    assert split_hash(more) == split_hash(trials)
    for split in ("train", "test"):
        np.testing.assert_array_equal(more.rows(split), trials.rows(split))
        assert more.stimuli(split) == trials.stimuli(split)
    for mine, theirs in zip(training_statistics(more), training_statistics(trials), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    again = Encoding.fit(more, embeddings, seed=0)
    for key, value in encoding.state_dict().items():
        assert (again.state_dict()[key] == value).all(), key


def test_samples_to_learn_from_grow_and_those_held_out_stay(both):
    trials, more, embeddings, _ = both
    other = Trials(Subject("toy", "sub-02", VoxelSpace(7, "h")), trials.betas, "z", trials.table)
    plain, grown = TrialRows([trials], embeddings), TrialRows([more, other], embeddings)
    assert len(plain) == 45 and len(grown) == 45 + 30 + 45
    learned, held_out = grown.split(0.2, seed=4)
    assert grown.measured[held_out].all() and not grown.measured[learned].all()
    assert set(learned) | set(held_out) == set(range(len(grown)))
    stimuli = {grown.names[grown.stimulus[i]] for i in held_out}
    assert stimuli == {plain.names[plain.stimulus[i]] for i in plain.split(0.2, seed=4)[1]}
    batch = Batch(grown, learned[~grown.measured[learned]][:3])
    np.testing.assert_array_equal(batch.betas["sub-01"], more.betas[[60, 61, 62]])
    np.testing.assert_array_equal(
        batch.goals[SEEN], [embeddings[SEEN][f"extra:{i}"] for i in (0, 1, 2)]
    )


def test_a_mapper_learns_from_them_without_knowing(both, tmp_path):
    """Few measured trials, and a picture for each direction that these leave out."""
    trials, _, embeddings, encoding = both
    few = trials.table.copy()
    few.loc[4:44, "split"] = "test"
    short = Trials(trials.subject, trials.betas, "z", few)
    extra = [name for name in embeddings[SEEN] if name.startswith("extra")]
    scores = {}
    for name, rows in (("plain", short), ("more", extend(short, encoding, embeddings, extra))):
        card = train_mapper(
            *("contrastive", resolve("backends.mappers.contrastive:Contrastive"), rows),
            *(embeddings, tmp_path / name),
            command="test",
            licence="CC0",
            notes={"augmentation": {"pictures": len(extra)}},
            **{"epochs": 40, "batch": 16, "width": 8, "hidden": 8, "lr": 0.01, "validation": 0.0},
        )
        scores[name] = card.metrics["test"]["toy/seen"]["two-way identification"]
    assert scores["more"] > scores["plain"] + 0.05
    assert read_card(tmp_path / "more").settings["augmentation"] == {"pictures": 30}
    assert read_card(tmp_path / "more").split_hash == split_hash(short)


def test_a_missing_encoding_model_is_named_with_its_command(both, tmp_path):
    trials, _, embeddings, _ = both
    with pytest.raises(UserError, match="train-encoding --dataset toy=PATH --subject sub-01"):
        encoding_for(trials, tmp_path)
    folder = tmp_path / "encoding" / "toy" / "sub-01"
    train_encoding(trials, embeddings, folder, command="test", licence="CC0")
    assert encoding_for(trials, tmp_path).spaces == (SEEN,)


# ------------------------------------------------------------------------------- the whole command


@pytest.fixture(scope="module")
def folder(tmp_path_factory, scenes):
    """Write a plain folder whose voxels follow cells of its pictures, and more pictures."""
    root = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(0)
    (root / "stimuli").mkdir(parents=True)
    grids = rng.integers(0, 2, (46, 10, 10)).astype(np.uint8) * 255
    names = [f"p{i:02d}" for i in range(30)]
    wide = [np.asarray(Image.fromarray(g).resize((80, 80), 0).convert("RGB")) for g in grids]
    save(root / "stimuli", {f"{n}.png": w for n, w in zip(names, wide, strict=False)})
    save(root / "more", {f"m{i}.png": w for i, w in enumerate(wide[30:])} | {"x.jpg": wide[29]})
    (root / "dataset.json").write_text(json.dumps({"title": "Cells", "licence": "CC0"}))
    files = pd.DataFrame({"file": [f"{name}.png" for name in names]})
    files.to_csv(root / "stimuli" / "stimuli.tsv", sep="\t", index=False)
    (root / "sub-01").mkdir()
    trials = pd.DataFrame({"stimulus": names, "split": ["train"] * 24 + ["test"] * 6})
    trials.to_csv(root / "sub-01" / "trials.tsv", sep="\t", index=False)
    betas = grids[:30].reshape(30, 100) / 255 + 0.1 * rng.standard_normal((30, 100))
    np.save(root / "sub-01" / "betas.npy", betas.astype(np.float32))
    return root


def test_gather_brings_pictures_embeddings_and_notes_together(folder, tmp_path):
    from backends.datasets.folder import Folder

    study, said = Folder(folder, "cells"), []
    trials = {"sub-01": study.load("sub-01")}
    spaces = ["pixels/10x10"]
    with pytest.raises(UserError, match="make it with python -m backends train-encoding"):
        gather(study, trials, spaces, tmp_path, augment=folder / "more")
    plain, embeddings, notes = gather(study, trials, spaces, tmp_path)
    assert plain == trials and notes == {}
    weights = tmp_path / "encoding" / "cells" / "sub-01"
    train_encoding(trials["sub-01"], embeddings, weights, command="test", licence="CC0")
    more, embeddings, notes = gather(
        study, trials, spaces, tmp_path, augment=folder / "more", progress=said.append
    )
    assert notes["augmentation"]["pictures"] == 16
    assert notes["augmentation"]["left out, looking like a test picture"] == 1
    assert len(more["sub-01"].synthetic()) == 16
    (space,) = embeddings
    assert len(embeddings[space]) == 30 + 16
    assert TrialRows(list(more.values()), embeddings).goals[space].shape == (24 + 16, 100)
    assert any("16 of 17 pictures" in sentence for sentence in said)


def test_targets_of_text_need_captions_of_the_extra_pictures_too(folder, tmp_path):
    from backends.datasets.folder import Folder
    from backends.embedders.captions import caption_stimuli

    class Teller:
        def describe(self, images):
            return [f"light {image.mean():.0f}" for image in images]

    study, table = Folder(folder, "cells"), tmp_path / "captions.csv"
    trials = {"sub-01": study.load("sub-01")}
    (tmp_path / "pocket-clip").symlink_to(CHECKPOINTS / "pocket-clip")
    _, embeddings, _ = gather(study, trials, ["pixels/10x10"], tmp_path)
    weights = tmp_path / "encoding" / "cells" / "sub-01"
    train_encoding(trials["sub-01"], embeddings, weights, command="test", licence="CC0")
    given = (study, trials, ["pocket-clip/text"], tmp_path)
    caption_stimuli(study, Teller(), table)
    with pytest.raises(
        UserError, match="16 of 16 pictures in .* have none .first 'extra:m0.png'.* --augment"
    ):
        gather(*given, captions=table, augment=folder / "more")
    caption_stimuli(find_extra(folder / "more", study), Teller(), table)
    more, embeddings, _ = gather(*given, captions=table, augment=folder / "more")
    assert len(embeddings[PocketClip.text_spaces[0]]) == 30 + 16
    assert len(TrialRows(list(more.values()), embeddings)) == 24 + 16

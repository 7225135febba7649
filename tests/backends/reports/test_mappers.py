"""The table over mappers, subjects and targets: known answers, the same numbers by hand, files."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import mean_squared_error, r2_score

from backends.__main__ import main
from backends.mappers.published import Published
from backends.reports.closeness import SCORES, Closeness
from backends.reports.mapper_tables import markdown, write
from backends.reports.mappers import AVERAGED, CEILING, COLUMNS, SHUFFLED, SINGLE, compare
from explorer import metrics
from explorer.matching import split_hash
from explorer.types import Card, EmbeddingSpace, Trials, UserError
from explorer.workbench import Workbench

ELSEWHERE = EmbeddingSpace("else", "where", (3,))


def values(predictions, truth):
    """Every score of predictions (N, ...)."""
    near = Closeness.of(predictions, truth)
    return {name: score.of(score.columns(near).mean(axis=0)) for name, score in SCORES.items()}


@pytest.fixture
def truth():
    return np.random.default_rng(0).standard_normal((40, 3, 4)) + 1


def test_perfect_predictions_reach_the_end_of_every_score(truth):
    expected = dict.fromkeys(SCORES, 1.0) | {"rmse": 0.0}
    assert values(truth, truth) == pytest.approx(expected, abs=1e-7)


def test_the_mean_of_all_explains_nothing(truth):
    found = values(np.broadcast_to(truth.mean(axis=0), truth.shape), truth)
    assert found["r2"] == pytest.approx(0)
    assert found["two-way"] == pytest.approx(0.5)
    assert found["image-to-brain"] == 0  # all predictions tie


def test_errors_are_scikit_learns(truth):
    noisy = truth + 0.7 * np.random.default_rng(1).standard_normal(truth.shape)
    found, flat = values(noisy, truth), [x.reshape(40, -1) for x in (truth, noisy)]
    assert found["r2"] == pytest.approx(r2_score(*flat, multioutput="variance_weighted"))
    assert found["rmse"] == pytest.approx(mean_squared_error(*flat) ** 0.5)
    assert found["cosine"] == pytest.approx(np.mean([*map(metrics.cosine, noisy, truth)]))
    assert found["two-way"] == pytest.approx(metrics.two_way_identification(noisy, truth))
    own = np.arange(40)
    assert found["top-5"] == metrics.top_k(metrics.cosine_matrix(noisy, truth), own, 5)
    assert found["brain-to-image"] == found["top-1"]  # fewer than 300: all are candidates


def test_random_predictions_lie_at_the_stated_chance():
    rng = np.random.default_rng(0)
    found = [values(rng.standard_normal((50, 6)), rng.standard_normal((50, 6))) for _ in range(60)]
    for name, score in SCORES.items():
        if np.isfinite(chance := score.chance(50)):
            assert np.mean([one[name] for one in found]) == pytest.approx(chance, abs=0.02), name


def test_a_large_gallery_is_drawn_from_and_both_directions_differ():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((500, 5))
    noisy = truth + 0.4 * rng.standard_normal(truth.shape)
    noisy[:250] += 3  # predictions that crowd together are harder to tell apart
    found = values(noisy, truth)
    assert found["top-1"] < found["brain-to-image"] < 1
    assert abs(found["brain-to-image"] - found["image-to-brain"]) > 0.01
    cosine, hits = metrics.cosine_matrix(noisy, truth), []
    for _ in range(200):
        some = rng.choice(500, 300, replace=False)
        hits.append(metrics.top_k(cosine[np.ix_(some, some)], np.arange(300), 1))
    assert found["brain-to-image"] == pytest.approx(np.mean(hits), abs=0.005)


# ------------------------------------------------------------------------------ a study of fakes


@pytest.fixture(scope="module")
def study(fakes):
    """Return the class of a noisy study that knows its noiseless responses."""

    class Known(fakes.Study):
        def load(self, subject):
            trials = super().load(subject)
            noise = np.random.default_rng(3).standard_normal(trials.betas.shape)
            return replace(trials, betas=(trials.betas + 3 * noise).astype(np.float32))

        def noiseless_trials(self, subject):
            trials = self.load(subject)
            rows = trials.rows("test")[:10]
            table = trials.table.iloc[rows].reset_index(drop=True)
            names = list(dict.fromkeys(table["stimulus"]))
            every = trials.betas[trials.rows("train")]
            signal = np.linalg.lstsq(embedded("train"), every, rcond=None)[0]
            return Trials(
                trials.subject, (embedded(names) @ signal).astype("f4"), "made up", table
            )

    def embedded(names):
        if names == "train":
            names = Known().load("sub-01").stimuli("train")
        return fakes.Embedder().embed([fakes.picture(name) for name in names])

    return Known


@pytest.fixture(scope="module")
def checkpoints(fakes, study, tmp_path_factory):
    """Write two mappers of both subjects that differ by name only."""
    root = tmp_path_factory.mktemp("checkpoints")
    for subject in ("sub-01", "sub-02"):
        trials = study().load(subject)
        names = trials.stimuli("train")
        rows = fakes.Embedder().embed([fakes.picture(name) for name in names])
        goals = {fakes.space: dict(zip(names, rows, strict=True))}
        mapper, voxels = fakes.Linear.fit([trials], goals, seed=0), trials.subject.voxels
        for name in ("linear", "ridge"):
            card = Card(
                "mapper", name, "linear", "fake", "a test", "CC0", subjects=(subject,),
                voxels={subject: (voxels.n_voxels, voxels.hash)}, targets=(fakes.space,),
                split_hash=split_hash(trials),
            )  # fmt: skip
            mapper.save_pretrained(root / "mappers" / "fake" / f"{name}-{subject}", card)
    return root


@pytest.fixture(scope="module")
def bench(fakes, study, checkpoints):
    return Workbench(
        {"fake": study}, {"fake": fakes.Embedder}, {"linear": fakes.Linear}, {},
        checkpoints=checkpoints,
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(bench):
    return compare(bench, "fake")


def pick(table, **wanted):
    """Return the one row that has these values."""
    for column, value in wanted.items():
        table = table[table[column] == value]
    (row,) = table.to_dict("records")
    return row


def test_every_mapper_subject_and_kind_of_betas_has_every_score(found):
    table = found.table
    assert tuple(table.columns) == COLUMNS and found.notes == ()
    assert list(dict.fromkeys(table["mapper"])) == ["ridge", "linear"]  # ridge comes first
    assert set(table["subject"]) == {"sub-01", "sub-02", "mean of 2"}
    assert set(table["betas"]) == {AVERAGED, SINGLE, CEILING, SHUFFLED}
    assert len(table) == 2 * 3 * 4 * len(SCORES)
    assert not table.duplicated(["mapper", "subject", "betas", "score"]).any()
    assert set(table["N"]) == set(table["gallery"]) == {10}
    inside = (table["low"] <= table["value"] + 1e-9) & (table["value"] <= table["high"] + 1e-9)
    assert inside.mean() > 0.99


def test_numbers_are_those_computed_by_hand(found, bench, fakes):
    trials = bench.catalogue.trials("fake", "sub-01")
    names = [f"test-{i:02d}" for i in range(1, 11)]
    true = fakes.Embedder().embed([fakes.picture(name) for name in names])
    mapper = bench.models.mapper("fake", "sub-01", "linear")
    means = np.stack([trials.average(name) for name in names])
    repeats = [np.stack([trials.average(name, (r,)) for name in names]) for r in (0, 1)]
    here = {"mapper": "linear", "subject": "sub-01", "score": "two-way"}
    each = metrics.two_way_identification(
        mapper.decode(means, "sub-01")[fakes.space], true, per_item=True
    )
    row = pick(found.table, betas=AVERAGED, **here)
    assert row["value"] == pytest.approx(each.mean()) and row["chance"] == 0.5
    assert (row["low"], row["high"]) == metrics.bootstrap_interval(each, seed=0)
    single = [
        metrics.two_way_identification(mapper.decode(betas, "sub-01")[fakes.space], true)
        for betas in repeats
    ]
    row = pick(found.table, betas=SINGLE, **here)
    assert row["value"] == pytest.approx(np.mean(single))
    assert len({round(value, 9) for value in (each.mean(), *single)}) == 3


def test_means_over_subjects_ceiling_and_shuffled_brains(found):
    table = found.table
    for score in SCORES:
        for betas in (AVERAGED, SHUFFLED):
            key = {"mapper": "ridge", "betas": betas, "score": score}
            each = [pick(table, subject=s, **key)["value"] for s in ("sub-01", "sub-02")]
            mean = pick(table, subject="mean of 2", **key)
            assert mean["value"] == pytest.approx(np.mean(each)) and mean["low"] <= mean["high"]
    two_way = {
        betas: pick(table, mapper="ridge", subject="mean of 2", score="two-way", betas=betas)
        for betas in (CEILING, AVERAGED, SHUFFLED)
    }
    assert two_way[CEILING]["value"] >= two_way[AVERAGED]["value"] > 0.6
    assert two_way[SHUFFLED]["value"] == pytest.approx(0.5, abs=0.06)


def test_repeats_that_some_stimuli_lack_begin_anew(bench, make_workbench, checkpoints, fakes):
    trials = bench.catalogue.trials("fake", "sub-01")
    kept = ~((trials.table["stimulus"] == "test-03") & (trials.table["repeat"] == 1))
    fewer = Trials(
        trials.subject, trials.betas[kept.to_numpy()], "made up",
        trials.table[kept].reset_index(drop=True),
    )  # fmt: skip

    class Fewer(fakes.Study):
        def load(self, subject):
            return fewer

    other = make_workbench(datasets={"fake": Fewer}, checkpoints=checkpoints)
    again = compare(other, "fake", subjects=["sub-01"], mappers=["linear"]).table
    assert set(again["N"]) == {10} and SINGLE in set(again["betas"])


def test_published_predictions_are_a_row_where_they_have_rows(fakes, make_workbench, tmp_path):
    names = [f"test-{i:02d}" for i in range(1, 11)]
    true = fakes.Embedder().embed([fakes.picture(name) for name in names])
    np.save(tmp_path / "theirs.npy", true)
    bench = make_workbench(
        mappers={"linear": fakes.Linear, "ridge": fakes.Linear, "published": Published},
        published={
            "theirs": (
                tmp_path / "theirs.npy",
                {"dataset": "fake", "subject": "sub-01", "space": "fake-clip/image",
                 "order": "appearance"},
            )
        },
    )  # fmt: skip
    table = compare(bench, "fake", subjects=["sub-01"]).table
    theirs = table[table["mapper"] == "theirs"]
    assert set(theirs["betas"]) == {AVERAGED, SHUFFLED}
    row = pick(theirs, betas=AVERAGED, score="top-1")
    assert (row["value"], row["low"], row["high"], row["N"]) == (1, 1, 1, 10)


def test_targets_are_also_scored_side_by_side_and_what_nobody_makes_is_noted(
    fakes, make_workbench, tmp_path
):
    twin = EmbeddingSpace("fake-clip", "twin", (8,), unit_norm=True)

    class Both(fakes.Linear):
        def forward(self, betas, subject):
            z = super().forward(betas, subject)[fakes.space]
            return {fakes.space: z, twin: z, ELSEWHERE: z[:, :3]}

    class Embedder(fakes.Embedder):
        spaces = (fakes.space, twin)

    study = fakes.Study()
    trials = study.load("sub-01")
    names = trials.stimuli("train")
    rows = fakes.Embedder().embed([fakes.picture(name) for name in names])
    goals = {fakes.space: dict(zip(names, rows, strict=True))}
    voxels = trials.subject.voxels
    card = Card(
        "mapper", "both", "both", "fake", "a test", "CC0", subjects=("sub-01",),
        voxels={"sub-01": (voxels.n_voxels, voxels.hash)}, targets=(fakes.space, twin, ELSEWHERE),
    )  # fmt: skip
    Both.fit([trials], goals, seed=0).save_pretrained(tmp_path / "mappers/fake/both", card)
    bench = make_workbench(
        mappers={"both": Both}, embedders={"fake": Embedder}, checkpoints=tmp_path
    )
    found = compare(bench, "fake", subjects=["sub-01"])
    targets = ["fake-clip/image", "fake-clip/twin", "fake-clip/image + fake-clip/twin"]
    assert list(dict.fromkeys(found.table["target"])) == targets
    first, _, both = (
        pick(found.table, target=target, betas=AVERAGED, score="top-5") for target in targets
    )
    assert first["value"] == both["value"]  # the twin adds nothing
    (note,) = found.notes
    assert note.startswith("else/where is left out: no embedder here makes it")
    only = compare(bench, "fake", subjects=["sub-01"], targets=["fake-clip/twin"])
    assert set(only.table["target"]) == {"fake-clip/twin"}


def test_weights_named_by_hand_and_captions_reach_the_embedder(fakes, study, checkpoints):
    class Told(fakes.Embedder):
        spaces, text_spaces = (), (fakes.space,)

        def __init__(self, checkpoints, device="cpu", source="the usual place"):
            super().__init__()
            self.source = source

        def embed_text(self, captions, space):
            assert self.source == "over there"
            return self.embed([fakes.picture(caption) for caption in captions])

    bench = Workbench(
        {"fake": study}, {"told": Told}, {"linear": fakes.Linear}, {}, checkpoints=checkpoints
    )
    names = [f"test-{i:02d}" for i in range(1, 11)]
    found = compare(
        bench, "fake", mappers=["linear"], subjects=["sub-01"],
        sources={"told": "over there"}, captions={name: name for name in names},
    )  # fmt: skip
    # the captions are the pictures' names, so it is as if the pictures were embedded
    same = pick(found.table, betas=AVERAGED, score="cosine")["value"]
    other = Workbench(
        {"fake": study}, {"fake": fakes.Embedder}, {"linear": fakes.Linear}, {},
        checkpoints=checkpoints,
    )  # fmt: skip
    table = compare(other, "fake", mappers=["linear"], subjects=["sub-01"]).table
    assert same == pick(table, betas=AVERAGED, score="cosine")["value"]


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"mappers": ["lasso"]}, "no mapper 'lasso' among the mappers of fake; choose one of lin"),
        ({"targets": ["a/b"]}, "no target 'a/b' among the mappers of fake; choose one of fake-c"),
        ({"subjects": ["sub-9"]}, "no subject 'sub-9'"),
        ({"limit": 1}, "No mapper of fake could be measured: .* there are 1 test stimuli"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(bench, asked, sentence):
    with pytest.raises(UserError, match=sentence):
        compare(bench, "fake", **asked)


def test_a_mapper_of_other_voxels_is_noted_beside_the_others(
    make_workbench, study, checkpoints, tmp_path
):
    shutil.copytree(checkpoints, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "mappers" / "fake" / "linear-sub-01" / "card.json"
    card = json.loads(path.read_text())
    card["voxels"]["sub-01"][1] = "another"
    path.write_text(json.dumps(card))
    bench = make_workbench(datasets={"fake": study}, checkpoints=tmp_path)
    found = compare(bench, "fake", subjects=["sub-01"])
    assert set(found.table["mapper"]) == {"ridge"}
    assert "linear-sub-01 was made for 200 voxels (hash another)" in found.notes[0]
    assert found.notes[0] in markdown(found)


def test_files_are_written_whole_and_the_same_again(found, tmp_path):
    out = tmp_path / "a" / "b"
    written = write(found, out)
    assert sorted(path.name for path in out.iterdir()) == [
        "mappers.csv",
        "mappers.json",
        "mappers.md",
        "mappers.png",
        "mappers.svg",
        "trials.parquet",
    ]
    table = pd.read_csv(out / "mappers.csv")
    assert tuple(table.columns) == COLUMNS and len(table) == len(found.table)
    np.testing.assert_allclose(table["value"], found.table["value"], rtol=1e-5)
    with Image.open(out / "mappers.png") as drawn:
        assert drawn.size[0] == 1440
    before = {path: path.read_bytes() for path in written}
    write(found, out)
    assert {path: path.read_bytes() for path in written} == before


def test_markdown_has_means_subjects_chance_and_definitions(found):
    text = markdown(found)
    heads = [line for line in text.splitlines() if line.startswith("## ")]
    assert heads == [
        "## fake-clip/image, mean over subjects",
        "## fake-clip/image, each subject",
        "## Definitions",
    ]
    row = pick(found.table, mapper="ridge", betas=AVERAGED, subject="mean of 2", score="two-way")
    interval = f"{row['low']:.3f} to {row['high']:.3f}"
    assert f"| ridge | {AVERAGED} | mean of 2 | {row['value']:.3f} | {interval} |" in text
    assert "| chance |  |  | 0.500 |  | 0.100 | 0.500 | 0.100 | 0.100 |  |  |  |  |" in text
    for score in SCORES.values():
        assert f"| {score.title} | {score.better} | {score.sentence} |" in text


def test_the_command_compares_and_writes(tmp_path, monkeypatch, capsys):
    rng, root = np.random.default_rng(0), tmp_path / "study"
    (root / "stimuli").mkdir(parents=True)
    (root / "sub-01").mkdir()
    grids = rng.integers(0, 2, (40, 10, 10)).astype(np.uint8) * 255
    names = [f"p{i:02d}" for i in range(40)]
    for name, grid in zip(names, grids, strict=True):
        Image.fromarray(grid).save(root / "stimuli" / f"{name}.png")
    (root / "dataset.json").write_text(json.dumps({"title": "Cells"}))
    pd.DataFrame({"file": [f"{name}.png" for name in names]}).to_csv(
        root / "stimuli" / "stimuli.tsv", sep="\t", index=False
    )
    np.save(root / "sub-01" / "betas.npy", grids.reshape(40, 100).astype(np.float32))
    pd.DataFrame({"stimulus": names, "split": ["train"] * 30 + ["test"] * 10}).to_csv(
        root / "sub-01" / "trials.tsv", sep="\t", index=False
    )
    command = ["backends", "evaluate", "--dataset", f"cells={root}", "--out", tmp_path / "table"]
    monkeypatch.setattr(sys, "argv", [*map(str, command), "--checkpoints", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    out = capsys.readouterr().out
    assert "## pixels/10x10, each subject" in out and "| ridge (fitted now) | averaged" in out
    table = pd.read_csv(tmp_path / "table" / "mappers.csv")
    row = pick(table, betas=AVERAGED, score="two-way")
    assert row["value"] > 0.8 and row["N"] == 10  # the betas are the cells themselves

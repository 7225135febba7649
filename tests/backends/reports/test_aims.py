"""The evaluation over a study with known answers: a generator recalls, a judge knows all."""

import re
import types

import numpy as np
import pandas as pd
import pytest

from backends.mappers.ridge import Ridge
from backends.reports import aims as evaluate
from backends.reports import study as evidence
from backends.reports.tables import render
from backends.training.mapper_training import train_mapper
from explorer import metrics
from explorer.protocols import Step
from explorer.types import Label, Parcellation, Trials


@pytest.fixture(scope="module")
def study(fakes, tmp_path_factory):
    """Return a study over fakes whose pictures are recalled from the nearest embedding."""
    from explorer.workbench import Workbench

    class Known(fakes.Study):
        def __init__(self, path=None, name="simulated"):
            super().__init__(path, name)
            n = len(self.stimuli)
            kinds = {"category": 10, "supercategory": 5, "setting": 2}
            numbers = {
                kind: [f"{kind} {i % count}" for i in range(n)] for kind, count in kinds.items()
            }
            self.stimuli = self.stimuli.assign(**numbers)

        def truth(self, subject):
            (atlas,) = self.load(subject).subject.voxels.parcellations.values()
            keys = [label.key for label in atlas.labels if label.name in fakes.parcels]
            informative = [key.split()[0] in fakes.informative for key in keys]
            role = np.where(informative, "informative", "white noise")
            columns = {"role": role, "information_mean": np.array(informative, float)}
            return types.SimpleNamespace(parcels=pd.DataFrame(columns, index=keys))

        def noiseless_trials(self, subject):
            trials = self.load(subject)
            rows = trials.rows("test")
            once = rows[:10]
            table = trials.table.iloc[once].reset_index(drop=True)
            betas = np.stack([trials.average(s) for s in table["stimulus"]])
            return Trials(trials.subject, betas, trials.beta_unit, table)

    class Recall(fakes.Generator):
        def __init__(self, checkpoints, device):
            self.names = list(Known().stimuli.index)
            self.embeddings = fakes.Embedder().embed([fakes.picture(n) for n in self.names])

        def sweep(self, condition, scales, steps, seed):
            z = np.asarray(condition.embeddings[fakes.space])
            image = fakes.picture(self.names[int(np.argmax(self.embeddings @ z))])
            for index, scale in enumerate(scales):
                yield Step(index, scale, steps, steps, image, True)

    class Judge:
        def __init__(self):
            table = Known().stimuli
            self.known = {fakes.picture(n).tobytes(): n for n in table.index}
            self.table = table[list(evidence.LABELS)]

        def classify(self, images):
            names = [self.known[np.ascontiguousarray(image).tobytes()] for image in images]
            return self.table.loc[names].reset_index(drop=True)

    checkpoints, known = tmp_path_factory.mktemp("checkpoints"), Known()
    names = list(known.stimuli.index)
    rows = fakes.Embedder().embed([fakes.picture(n) for n in names])
    embeddings = {fakes.space: dict(zip(names, rows, strict=True))}
    for subject in known.subjects():
        train_mapper(
            "ridge",
            Ridge,
            known.load(subject),
            embeddings,
            checkpoints / "mappers" / "simulated" / f"ridge-{subject}",
            command="a test",
            licence="CC0",
        )
    bench = Workbench(
        {"simulated": Known},
        {"pocket-clip": fakes.Embedder},
        {"ridge": Ridge},
        {"pocket-diffusion": Recall},
        checkpoints=checkpoints,
    )
    stimuli = list(bench.catalogue.gallery("simulated", "sub-01").index)
    return evidence.Study(
        bench=bench,
        dataset=bench.catalogue.dataset("simulated"),
        subjects=bench.catalogue.subjects("simulated"),
        stimuli=stimuli,
        labels=known.stimuli.loc[stimuli, list(evidence.LABELS)].reset_index(drop=True),
        space=fakes.space,
        truth=bench.models.embed("simulated", stimuli, fakes.space),
        generator=bench.models.generator("pocket-diffusion"),
        judge=Judge(),
        say=lambda sentence: None,
    )


@pytest.fixture(scope="module")
def tables(study):
    return evaluate.measure(study, limit=16)


def figure(tables, title, what):
    """Return the one line of a table whose first column holds ``what``."""
    table = tables[title]
    (row,) = table[table["what"].str.contains(what, regex=False)].to_dict("records")
    return row


def test_a_generator_that_recalls_has_a_perfect_ceiling(tables):
    for what in ("judge on what was shown", "ceiling: category", "ceiling: super-category"):
        row = figure(tables, "What is aimed at", what)
        assert (row["value"], row["95 % interval"], row["verdict"]) == (1, (1, 1), "reached")
    pictures = tables["Pictures"].set_index("pictures of")
    ceiling = pictures.loc["the true embedding (ceiling)"]
    assert ceiling["PixCorr"] == pytest.approx(1) and ceiling["pocket-clip"] == pytest.approx(1)


def test_identification_is_the_mean_over_subjects(tables, study):
    expected = np.mean(
        [metrics.two_way_identification(study.decode(s), study.truth) for s in study.subjects]
    )
    row = figure(tables, "What is aimed at", "ridge: two-way identification, as")
    assert row["value"] == pytest.approx(1)  # the fake's noiseless betas are its measured ones
    (row,) = (
        r for r in tables["What is aimed at"].to_dict("records") if r["what"].endswith("ication")
    )
    assert row["value"] == pytest.approx(expected) and row["N"] == 10
    assert row["95 % interval"][0] <= expected <= row["95 % interval"][1]


def test_noisy_brains_are_a_share_below_one_of_noiseless_ones(study):
    noise = np.random.default_rng(0).standard_normal(study.truth.shape)
    decoded = {
        "ridge": {s: study.truth + noise for s in study.subjects},
        "ridge, noiseless betas": {s: study.truth for s in study.subjects},
    }
    pictures = {
        f"{name}, {s}": evidence.drawn(study, z, 1.0, name)
        for name, by_subject in decoded.items()
        for s, z in by_subject.items()
    }
    rows = {row["what"]: row for row in evaluate.ridge_aims(study, decoded, pictures)}
    shares = [row["value"] for what, row in rows.items() if "share" in what]
    assert len(shares) == 2 and max(shares) < 1
    assert rows["ridge: two-way identification"]["value"] == pytest.approx(shares[0])


def test_the_laws_hold_for_the_ridge(tables):
    for what in (
        "finite differences",
        "closed form",
        "distance of the sum",
        "in a sweep and alone",
    ):
        assert figure(tables, "What must be true", what)["verdict"] == "holds"


def test_planted_parcels_are_found_and_permuted_ones_are_not(tables):
    assert figure(tables, "What is aimed at", "parcels: AUC")["value"] == 1
    row = figure(tables, "What must be true", "permuted")
    assert row["value"] == pytest.approx(0.5, abs=0.05) and row["verdict"] == "holds"


def test_the_scale_is_chosen_on_training_scenes_alone(study, monkeypatch):
    seen = []
    monkeypatch.setattr(type(study), "decode", lambda *_, **__: pytest.fail("a test trial"))
    original = Ridge.fit.__func__

    def fit(cls, trials, targets, **settings):
        seen.append(set(trials[0].stimuli("train")))
        return original(cls, trials, targets, **settings)

    monkeypatch.setattr(Ridge, "fit", classmethod(fit))
    stimuli, decoded, true = evidence.held_out(study, 6)
    assert len(stimuli) == 12 == len(set(stimuli)) and all(s.startswith("train") for s in stimuli)
    assert not seen[0] & set(stimuli[:6]) and not seen[1] & set(stimuli[6:])
    assert len(seen[0]) == 54 and decoded.shape == true.shape == (12, 8)
    assert metrics.two_way_identification(decoded, true) > 0.8
    # a mapper that was trained on these scenes comes closer than an honest one may
    trials = study.bench.catalogue.trials("simulated", "sub-01")
    betas = np.stack([trials.average(s, split="train") for s in stimuli[:6]])
    seen_them = study.bench.models.mapper("simulated", "sub-01", "ridge").decode(betas, "sub-01")
    errors = [np.square(z - true[:6]).sum() for z in (seen_them[study.space], decoded[:6])]
    assert errors[0] < 0.8 * errors[1]


def test_of_equal_scales_the_smaller_is_chosen():
    trace = [
        {"scale": 1.0, "true: category": 0.4, "true: super-category": 0.5},
        {"scale": 2.0, "true: category": 0.5, "true: super-category": 0.5},
        {"scale": 4.0, "true: category": 0.5, "true: super-category": 0.5},
    ]
    assert evaluate.best_scale(trace, "true") == 2


def test_shuffled_brains_are_at_chance_whatever_the_labels():
    rng, n = np.random.default_rng(3), 300
    truth = np.repeat(np.arange(6), 50)
    for said in (truth, np.zeros(n, int), rng.integers(0, 6, n)):
        value = evidence.shuffled(lambda d, s=said: evidence.balanced(s[d] == truth, truth), n)
        assert value == pytest.approx(1 / 6, abs=0.01)
    z = rng.standard_normal((n, 16))
    value = evidence.shuffled(lambda d: metrics.two_way_identification(z[d], z), n)
    assert value == pytest.approx(0.5, abs=0.01)


def test_balanced_hits_are_balanced_accuracy():
    rng = np.random.default_rng(0)
    truth, said = rng.choice(4, 100, p=[0.7, 0.1, 0.1, 0.1]), rng.integers(0, 4, 100)
    expected = metrics.balanced_accuracy(truth, said)
    assert evidence.balanced(said == truth, truth) == pytest.approx(expected)


def parcels(*sizes):
    labels = tuple(Label(f"p{i}", "L") for i in range(len(sizes)))
    membership = np.repeat(np.arange(len(sizes)), sizes)
    return Parcellation("test", "partition", labels, membership, "hash")


def test_enrichment_is_share_over_share_of_voxels():
    share = np.array([0.4, 0.2, 0.1, 0.1, 0.1, 0.1])
    values = evidence.enrichment(share, np.array([0, 0, 1, 1, 1, -1]), 3)
    np.testing.assert_allclose(values[:2], [0.6 / (2 / 6), 0.3 / (3 / 6)])
    assert np.isnan(values[2])


def test_parcels_that_share_noise_are_reported_apart():
    atlas = parcels(10, 10, 10, 10, 10)
    share = np.repeat([4.0, 3.0, 1.0, 2.0, 5.0], 10)
    share /= share.sum()
    columns = {
        "role": ["informative", "informative", "white noise", "structured noise", "shared noise"],
        "information_mean": [0.3, 0.2, 0.0, 0.0, 0.0],
    }
    truth = pd.DataFrame(columns, index=[f"p{i} L" for i in range(5)])
    scores = evidence.parcel_scores(share, atlas, truth)
    assert scores["AUC"] == 1 and scores["AUC against shared noise"] == 0
    assert scores["parcels"] == 4 and scores["enrichment, shared noise"] == pytest.approx(5 / 3)
    assert scores["rank correlation"] == pytest.approx(metrics.spearman(
        np.array([4, 3, 1, 2]), np.array([0.3, 0.2, 0, 0])
    ))  # fmt: skip


def test_the_report_is_markdown_with_every_line(tables):
    text = render(tables)
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        f"## {title}" for title in tables
    ]
    for table in tables.values():
        assert text.count("|---") and all(column in text for column in table.columns)
    assert sum(len(t) + 2 for t in tables.values()) == len(re.findall(r"^\|", text, re.M))
    table = pd.DataFrame([{"a|b": float("nan"), "c": (0.5, 0.25), "d": "x|y", "e": 2e-6}])
    cells = "|  | 0.500 to 0.250 | x\\|y | 2e-06 |"
    assert render({"t": table}).splitlines()[-1] == cells


def test_a_line_that_fails_says_so():
    assert evaluate.must("x", 0.54, 0.5, 0.03, 300)["verdict"] == "FAILS"
    assert evaluate.must("x", 0.475, 0.5, 0.03, 300)["verdict"] == "holds"
    assert evaluate.aim_row("x", 0.59, 0.6, 0, 300)["verdict"] == "missed"
    assert evaluate.aim_row("x", 0.6, 0.6, 0, 300)["verdict"] == "reached"

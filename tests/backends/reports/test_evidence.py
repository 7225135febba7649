"""The report on controls and lesions: its verdicts on planted scores, and a run over fakes."""

import types

import numpy as np
import pandas as pd
import pytest

from backends.datasets.simulated import Simulated
from backends.reports import evidence as report
from backends.reports import study as evidence
from explorer.evidence import controls
from explorer.protocols import Step

SETTING = {"isthmuscingulate", "parahippocampal"}
CATEGORY = {"fusiform", "inferiortemporal", "middletemporal"}


def test_who_carries_what_is_read_from_the_shipped_truth():
    parcels = Simulated().truth("subj02").parcels
    for kind, names in {"setting": SETTING, "category": CATEGORY}.items():
        found = report.carriers(parcels, kind)
        assert {key.split()[0] for key in found} == names
        assert len(found) == 2 * len(names)  # in both hemispheres
    noisy = report.carriers(parcels, report.CONTROL)
    assert len(noisy) == 20 and (parcels.loc[noisy, "information_mean"] == 0).all()


def test_shares_of_a_signal_are_read_from_their_text():
    assert report._shares("setting 0.60, light 0.22") == {"setting": 0.6, "light": 0.22}
    assert report._shares("") == report._shares(float("nan")) == {}


def test_controls_in_and_out_of_order_are_told_apart():
    rng = np.random.default_rng(0)
    levels = {
        controls.TRUE: 0.95,
        controls.NOISELESS: 0.9,
        controls.AVERAGE: 0.85,
        controls.SINGLES[0]: 0.75,
        controls.ANOTHER: 0.5,
        controls.MEAN: 0.5,
        controls.NONE: 0.5,
    }
    noise = rng.normal(0, 0.1, 300)
    noise -= noise.mean()  # so that chance is met exactly
    scores = {name: level + noise + rng.normal(0, 0.01, 300) for name, level in levels.items()}
    rows = [*report._in_order(scores), *report._at_chance(scores)]
    assert [row["verdict"] for row in rows] == ["holds"] * 9
    swapped = scores | {controls.AVERAGE: scores[controls.SINGLES[0]] - 0.1}
    verdicts = {
        row["what"].partition(": ")[2]: row["verdict"] for row in report._in_order(swapped)
    }
    assert verdicts["average over repeats less repeat 1 alone"] == "FAILS"
    assert verdicts["noiseless response less average over repeats"] == "holds"
    telling = scores | {controls.MEAN: scores[controls.MEAN] + 0.2}
    assert [row["verdict"] for row in report._at_chance(telling)] == ["holds", "FAILS", "holds"]


def test_a_lesion_must_cost_what_its_parcels_carry():
    rng = np.random.default_rng(0)
    lost = {"setting": rng.random(200) < 0.5, "category": rng.random(200) < 0.1}
    lost = {label: values.astype(float) for label, values in lost.items()}
    (right,) = report._lesion_musts("setting", lost)
    (wrong,) = report._lesion_musts("category", lost)
    assert (right["verdict"], wrong["verdict"]) == ("holds", "FAILS")
    assert right["value"] == pytest.approx(-wrong["value"])
    assert [row["verdict"] for row in report._lesion_musts(report.CONTROL, lost)] == ["FAILS"] * 2
    nothing = dict.fromkeys(lost, rng.choice([-1.0, 0.0, 1.0], 200))
    rows = report._lesion_musts(report.CONTROL, nothing)
    assert [row["verdict"] for row in rows] == ["holds"] * 2


@pytest.fixture
def study(fakes, make_workbench, monkeypatch):
    """Return a study over fakes: pictures are recalled, and the judge knows every picture."""
    monkeypatch.setattr(evidence, "DATASET", "fake")
    monkeypatch.setattr(evidence, "MAPPER", "linear")
    monkeypatch.setattr(report, "DATASET", "fake")
    monkeypatch.setattr(report, "MAPPER", "linear")
    monkeypatch.setattr(evidence, "GENERATOR", "painter")

    class Known(fakes.Study):
        def noiseless_trials(self, subject):
            return self.load(subject)

        def truth(self, subject):
            keys = [f"{name} {side}" for name in fakes.parcels for side in "LR"]
            groups = {"pericalcarine": "setting 0.9, energy 0.1", "fusiform": "category 1.0"}
            role = ["informative" if k.split()[0] in groups else "white noise" for k in keys]
            columns = {"role": role, "groups": [groups.get(k.split()[0], "") for k in keys]}
            table = pd.DataFrame(columns | {"vertices": 25}, index=keys)
            return types.SimpleNamespace(parcels=table)

    names = list(Known().stimuli.index)
    seen = fakes.Embedder().embed([fakes.picture(name) for name in names])
    labels = pd.DataFrame(
        {
            "category": [f"c{i % 5}" for i in range(len(names))],
            "supercategory": "s",
            "setting": [f"t{i % 2}" for i in range(len(names))],
        },
        index=names,
    )

    class Recall(fakes.Generator):
        def sweep(self, condition, scales, steps, seed):
            z = np.asarray(condition.embeddings[fakes.space])
            image = fakes.picture(names[int(np.argmax(seen @ z))])
            for index, scale in enumerate(scales):
                yield Step(index, scale, steps, steps, image, True)

    class Judge:
        def classify(self, images):
            known = {fakes.picture(name).tobytes(): name for name in names}
            said = [known[np.ascontiguousarray(image).tobytes()] for image in images]
            return labels.loc[said].reset_index(drop=True)

    bench = make_workbench(datasets={"fake": Known}, generators={"painter": Recall})
    shown = names[:10]
    return evidence.Study(
        bench=bench,
        dataset=bench.catalogue.dataset("fake"),
        subjects=["sub-01"],
        stimuli=shown,
        labels=labels.loc[shown].reset_index(drop=True),
        space=fakes.space,
        truth=seen[:10],
        generator=bench.models.generator("painter"),
        judge=Judge(),
        say=lambda sentence: None,
    )


def test_controls_and_lesions_of_a_study_of_fakes(study):
    rows, order = report.measure_controls(study)
    table = pd.DataFrame(rows).set_index("control")
    assert list(table.index) == [*report.ORDER, *report.BRAINLESS]
    what = "picture: two-way identification"
    assert (
        table.loc[controls.TRUE, what] == table.loc[controls.TRUE, "picture: category top-1"] == 1
    )
    # the noiseless trials of this study are its measured ones
    assert table.loc[controls.NOISELESS, what] == table.loc[controls.AVERAGE, what] > 0.6
    assert np.isnan(table.loc[controls.NONE, "embedding: two-way identification"])
    assert len(order) == 9

    parcels, accuracies, (drops, musts) = report.measure_lesions(study)
    assert [row["parcels, both hemispheres"] for row in parcels] == [
        "pericalcarine",
        "fusiform",
        "lateraloccipital, precentral",
    ]
    assert [row["voxels of sub-01"] for row in parcels] == [50, 50, 100]
    kept = {row["pictures"]: row for row in accuracies}
    for row in drops:
        kind = row["lesion of parcels that carry"]
        for label in ("setting", "category"):
            lost = kept["intact"][label] - kept[f"lesion of {kind}"][label]
            assert row[f"{label} accuracy lost"] == pytest.approx(lost)
    assert len(musts) == 4


def test_laws_and_faithfulness_of_a_study_of_fakes(study):
    gain, whole = report.measure_laws(study)
    assert gain["verdict"] == whole["verdict"] == "holds" and gain["value"] < 1e-6
    lines, musts = report.measure_faithfulness(study, trials=4)
    assert {line["trials"] for line in lines} == {4}
    for measure, must in zip(("share", "signed"), musts, strict=True):
        of_it = [one["correlation, worst subject"] for one in lines if one["measure"] == measure]
        assert must["value"] == max(of_it) and measure in must["what"]
        assert must["verdict"] == ("holds" if max(of_it) >= 0.8 else "FAILS")

"""What every data set in `DATASETS` keeps to; a new one needs a line in `MAKERS` and passes."""

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import app
from backends import DATASETS
from backends.commands.doctor import examine
from explorer.identity import file_hash, origins_of, trace
from explorer.protocols import Dataset
from explorer.types import SPLITS, UserError, resolve
from tests.miniatures.studies import MAKERS, OPTIONS, PARTS


@pytest.fixture(scope="module", params=[*DATASETS, *PARTS])
def made(request, tmp_path_factory) -> tuple[Dataset, Path]:
    place = tmp_path_factory.mktemp(request.param)
    makers = MAKERS | PARTS
    assert request.param in makers, f"tell MAKERS how to make a small {request.param}"
    return makers[request.param](place), place / "files"


@pytest.fixture
def asked(request) -> str:
    """Return the options that the data set of this test is opened with."""
    return OPTIONS.get(request.node.callspec.params["made"], "")


@pytest.fixture(scope="module")
def dataset(made) -> Dataset:
    return made[0]


def test_it_says_what_it_is(dataset):
    assert isinstance(dataset, Dataset)
    assert dataset.name == "study"
    for text in (dataset.title, dataset.licence, dataset.citation, dataset.note):
        assert isinstance(text, str)
    assert dataset.title
    assert isinstance(dataset.simulated, bool)
    assert isinstance(dataset.redistributable, bool)
    assert dataset.split_unit in ("stimulus", "repeat")
    if dataset.split_unit == "repeat" or dataset.simulated:
        assert dataset.note, "what is unusual about a study is said on screen"


def test_stimuli_are_a_table_of_texts_by_id(dataset):
    stimuli = dataset.stimuli
    assert stimuli.index.is_unique
    assert all(isinstance(name, str) and name for name in stimuli.index)
    for column in ("caption", "category", "source"):
        assert all(isinstance(text, str) for text in stimuli[column])


def test_a_trial_is_traced_to_files_that_are_there(made):
    dataset, place = made
    trials = dataset.load(dataset.subjects()[0])
    for row in (trials.rows("train")[:1].tolist(), trials.rows("test")[-1:].tolist()):
        for origin in origins_of(dataset, trials, row[0]) if row else ():
            assert Path(origin.file).is_file() and Path(origin.file).is_relative_to(place)
            assert origin.row is not None and origin.row >= 0
    stimulus = str(trials.table["stimulus"].iloc[trials.rows("test")[0]])
    found = trace(dataset, trials, stimulus, hashed=file_hash)
    assert all(row.origins for row in found.rows), "a test trial lies in some file"
    assert found.ids and found.split_by != "not stated"
    assert found.picture is None or Path(found.picture.file).is_file()
    assert found.picture_problem or len(found.picture_digest) == 16
    assert all(value.startswith("sha256 ") for value in found.hashes.values())


def test_trials_fit_subject_stimuli_and_split(dataset):
    assert dataset.subjects()
    for name in dataset.subjects():
        trials = dataset.load(name)
        assert (trials.subject.dataset, trials.subject.name) == ("study", name)
        assert trials.subject.simulated == dataset.simulated
        assert isinstance(trials.beta_unit, str)
        assert set(trials.table["stimulus"]) <= set(dataset.stimuli.index)
        splits = {"test"} if getattr(dataset, "test_only", False) else set(SPLITS)
        assert set(trials.table["split"]) == splits
        if dataset.split_unit == "stimulus":
            assert not set(trials.stimuli("train")) & set(trials.stimuli("test"))
        for _, rows in trials.table.groupby(["stimulus", "split"]):
            assert sorted(rows["repeat"]) == list(range(len(rows)))
        for column in ("repeat", "session", "run"):
            assert pd.api.types.is_integer_dtype(trials.table[column])


def test_betas_are_finite_float32_rows_under_every_index(dataset):
    trials = dataset.load(dataset.subjects()[0])
    betas, n = trials.betas, len(trials.table)
    everything = np.asarray(betas[np.arange(n)])
    assert everything.shape == (n, trials.subject.voxels.n_voxels)
    assert everything.dtype == np.float32
    assert np.isfinite(everything).all()
    assert everything.std() > 0
    np.testing.assert_array_equal(betas[1], everything[1])
    np.testing.assert_array_equal(betas[2:5], everything[2:5])
    np.testing.assert_array_equal(betas[[4, 0, 4]], everything[[4, 0, 4]])
    np.testing.assert_array_equal(betas[np.arange(n) % 2 == 1], everything[1::2])
    assert len(betas) == n
    stimulus = trials.stimuli("test")[0]
    rows = trials.rows("test", stimulus)
    np.testing.assert_allclose(
        trials.average(stimulus), everything[rows].mean(axis=0), rtol=1e-5, atol=1e-6
    )


def test_voxels_stay_the_same_ones(dataset):
    for name in dataset.subjects():
        first, second = (dataset.load(name).subject for _ in range(2))
        assert first.voxels.hash == second.voxels.hash
        if first.ncsnr is not None:
            assert (first.ncsnr >= 0).all()
    hashes = [dataset.load(name).subject.voxels.hash for name in dataset.subjects()]
    assert len(set(hashes)) == len(hashes)


def test_pictures_are_rgb_bytes(dataset):
    trials = dataset.load(dataset.subjects()[0])
    for split in set(trials.table["split"]):
        picture = dataset.image(trials.stimuli(split)[0])
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert picture.shape[2] == 3
    first, second = (dataset.image(s) for s in trials.stimuli("test")[:2])
    assert first.shape != second.shape or (first != second).any()


def test_unknown_names_are_refused_by_name(dataset):
    for ask in (dataset.load, dataset.image):
        for name in ("nobody", "../x", "", "<b>"):
            with pytest.raises(UserError, match=re.escape(repr(name))):
                ask(name)


def test_reading_changes_no_file(made):
    dataset, files = made

    def state() -> dict:
        return {p: p.stat().st_mtime_ns for p in files.rglob("*")}

    before = state()
    trials = dataset.load(dataset.subjects()[0])
    np.asarray(trials.betas[trials.rows("test")])
    dataset.image(trials.stimuli("test")[0])
    assert state() == before


def test_a_wrong_path_is_refused_in_one_sentence(tmp_path):
    for entry in DATASETS.values():
        with pytest.raises(UserError) as caught:
            resolve(entry)(tmp_path / "nowhere", "study")
        assert "nowhere" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_one_family_knows_it_and_the_doctors_last_line_opens_it(made, asked):
    dataset, files = made
    knows = [name for name, entry in DATASETS.items() if resolve(entry).recognise(files)]
    assert [resolve(DATASETS[name]) for name in knows] == [type(dataset)]
    assert all(isinstance(remark, str) and remark for remark in dataset.remarks())
    lines, well = examine(f"{files}{asked}", DATASETS)
    assert well, lines
    assert all("\n" not in line for line in lines)
    command = shlex.split(lines[-1])
    assert command[:2] == ["python", "app.py"]
    bench = app.open_workbench(app.arguments().parse_args(command[2:]))
    (name,) = bench.catalogue.paths
    assert bench.catalogue.family(name) == knows[0]
    assert bench.catalogue.subjects(name) == dataset.subjects()
    assert len(bench.catalogue.gallery(name, dataset.subjects()[0]))


@pytest.mark.parametrize("kind", ["nowhere", "empty", "file.h5", "file.npz", "file.mat", "x.json"])
def test_no_family_knows_what_is_no_data_set(kind, tmp_path):
    path = tmp_path / kind
    if kind == "empty":
        path.mkdir()
    elif kind != "nowhere":
        path.write_bytes(b"\x89HDF\r\n\x1a\n cut short")
    assert [name for name, entry in DATASETS.items() if resolve(entry).recognise(path)] == []

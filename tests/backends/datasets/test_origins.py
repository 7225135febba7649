"""Where rows of betas lie: the numbers read at the place that is told are those of the trial."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from backends.datasets.reading import LazyRows, chosen, lies_in, stacked, standardised
from explorer.identity import origins_of
from explorer.types import Origin, UserError
from tests.miniatures import studies as made


def rows(n: int, file: str, offset: int) -> LazyRows:
    values = np.arange(n * 2, dtype=np.float32).reshape(n, 2) + offset
    return LazyRows((n, 2), lambda which: values[which], file, lies_in(file))


def test_rows_that_are_stacked_chosen_and_scaled_keep_their_places() -> None:
    both = stacked([rows(3, "a", 0), rows(4, "b", 100)], "both")
    picked = chosen(both, np.array([6, 0, 3, 2]))
    scaled = standardised(picked, np.zeros(4), np.ones(4, bool))
    told = [scaled.lies(i) for i in range(4)]
    assert told == [[Origin("b", 3)], [Origin("a", 0)], [Origin("b", 0)], [Origin("a", 2)]]
    for i, (origin,) in enumerate(told):
        offset = {"a": 0, "b": 100}[origin.file]
        assert picked[i][0] == 2 * origin.row + offset
    unknown = LazyRows((1, 2), lambda which: np.zeros((len(which), 2)), "c")
    assert stacked([rows(1, "a", 0), unknown], "both").lies is None
    assert chosen(unknown, np.array([0])).lies is None


def test_a_row_before_the_first_is_refused() -> None:
    with pytest.raises(UserError, match="a.npy: rows are counted from 0, found -1"):
        Origin("a.npy", -1)


def test_a_folder_tells_the_row_of_its_array(tmp_path: Path) -> None:
    study = made.make_folder(tmp_path)
    trials = study.load("sub-01")
    (origin,) = origins_of(study, trials, 7)
    np.testing.assert_array_equal(np.load(origin.file)[origin.row], trials.betas[7])
    assert study.picture_origin("3").file.endswith("stimuli/3.png")
    assert study.ids("3") == {"file name": "3.png", "row of stimuli.tsv, from 0": "3"}


def test_mindeye2_tells_the_row_of_its_betas_and_both_numbers(tmp_path: Path) -> None:
    study = made.make_mindeye2(tmp_path)
    subject = study.subjects()[0]
    trials = study.load(subject)
    at = [0, len(trials.table) // 2, len(trials.table) - 1]
    for row in at:
        (origin,) = origins_of(study, trials, row)
        with h5py.File(origin.file, locking=False) as file:
            stored = file[origin.key][origin.row]
        np.testing.assert_allclose(trials.betas[row], stored[: trials.betas.shape[1]], rtol=1e-6)
    stimulus = trials.table["stimulus"].iloc[0]
    ids = study.ids(stimulus)
    assert int(ids["NSD's 73k, from 0"]) == int(stimulus[4:])
    assert int(ids["NSD's 73k, from 1"]) == int(stimulus[4:]) + 1


def test_mindeye1_tells_the_member_and_the_stored_row(tmp_path: Path) -> None:
    study = made.make_mindeye1(tmp_path)
    trials = study.load(study.subjects()[0])
    for row in (0, len(trials.table) - 1):
        (origin,) = origins_of(study, trials, row)
        stored = member(Path(origin.file), origin.key)
        np.testing.assert_allclose(trials.betas[row], stored[origin.row][: trials.betas.shape[1]])


def member(shard: Path, name: str) -> np.ndarray:
    import io
    import tarfile

    with tarfile.open(shard) as tar:
        return np.load(io.BytesIO(tar.extractfile(name).read()))


def test_bold5000_names_a_file_for_each_region(tmp_path: Path) -> None:
    study = made.make_bold5000(tmp_path)
    trials = study.load("CSI4")
    origins = origins_of(study, trials, 5)
    assert [origin.note for origin in origins] == ["EarlyVis L", "PPA R"]
    raw = np.concatenate([np.load(origin.file)[origin.row] for origin in origins])
    plain = type(study)(study.path, "study", norm="none").load("CSI4")
    np.testing.assert_allclose(plain.betas[5], raw, rtol=1e-6)


def test_algonauts_names_both_hemispheres(tmp_path: Path) -> None:
    study = made.make_algonauts(tmp_path)
    trials = study.load(study.subjects()[0])
    origins = origins_of(study, trials, 2)
    assert [origin.note for origin in origins] == ["hemisphere L", "hemisphere R"]
    raw = np.concatenate([np.load(origin.file)[origin.row] for origin in origins])
    np.testing.assert_allclose(trials.betas[2], raw, rtol=1e-6)


def test_the_simulation_makes_training_rows_anew(tmp_path: Path) -> None:
    study = made.make_simulated(tmp_path)
    trials = study.load("subj01")
    assert origins_of(study, trials, int(trials.rows("train")[0])) == []
    row = int(trials.rows("test")[1])
    (origin,) = origins_of(study, trials, row)
    stored = np.load(origin.file)[origin.row].astype(np.float32)
    assert np.corrcoef(stored, trials.betas[row])[0, 1] > 0.2  # times a scale a voxel
    assert study.picture_origin("train-00001") is None
    table = pd.read_csv(study.path / "stimuli" / "stimuli.tsv", sep="\t")
    name = trials.table["stimulus"].iloc[row]
    number = int(study.ids(name)["row of stimuli.tsv, from 0"])
    assert table["file"][number] == Path(study.picture_origin(name).file).name

"""BIDS events: the order of runs and trials, which rows are trials, and what is refused."""

from pathlib import Path

import pandas as pd
import pytest

from backends.datasets.bids_events import entities, find_events, read_runs
from explorer.types import UserError


def events(root: Path, name: str, **columns: list) -> Path:
    file = root / f"{name}_events.tsv"
    pd.DataFrame(columns).to_csv(file, sep="\t", index=False)
    return file


def test_runs_are_ordered_by_number_and_trials_by_onset(tmp_path):
    for session, run in (("10", "1"), ("2", "10"), ("2", "9"), ("2", "1")):
        name = f"sub-01_ses-{session}_task-x_run-{run}"
        events(tmp_path, name, onset=[9, 1.5], stim_file=[f"{session}b{run}", f"{session}a{run}"])
    runs, column = read_runs(find_events(str(tmp_path)))
    assert column == "stim_file"
    assert [(r.session, r.run) for r in runs] == [("2", "1"), ("2", "9"), ("2", "10"), ("10", "1")]
    assert runs[0].trials["stimulus"].tolist() == ["2a1", "2b1"]
    assert runs[0].trials["row"].tolist() == [1, 0]
    assert runs[0].name == "ses-2 run-1"


def test_a_pattern_picks_files_and_their_names_entities_win(tmp_path):
    (tmp_path / "sub-02").mkdir()
    a = events(tmp_path / "sub-02", "sub-02_task-a_run-1", onset=[1], stimulus=["x"])
    events(tmp_path / "sub-02", "sub-02_task-b_run-1", onset=[1], stimulus=["x"])
    assert find_events(str(tmp_path / "*" / "*task-a*_events.tsv")) == [a]
    assert entities(Path("sub-09/ses-3/sub-02_task-b_space-T1w_mask.nii.gz")) == {
        **{"sub": "02", "ses": "3", "task": "b", "space": "T1w"},
    }
    with pytest.raises(UserError, match="name the same session and run, so nothing says which"):
        read_runs(find_events(str(tmp_path)))
    with pytest.raises(UserError, match="no events file is there"):
        find_events(str(tmp_path / "*.csv"))


def test_empty_cells_and_what_is_left_out_are_no_trials(tmp_path):
    file = events(
        tmp_path,
        "sub-01_run-1",
        onset=[0, 1, 2, 3, 4],
        trial_type=["image", "image", "blank_1", "blank_2", "image"],
        stimulus=["a", "n/a", "grey", "grey", "b"],
    )
    (run,), column = read_runs([file], leave_out=["blank*"])
    assert (column, run.trials["stimulus"].tolist(), run.left_out) == ("stimulus", ["a", "b"], 3)
    with pytest.raises(UserError, match="--leave-out 'rest' fits no row; trial_type and stimulus"):
        read_runs([file], leave_out=["rest"])


def test_a_run_without_trials_is_one(tmp_path):
    (run,), _ = read_runs([events(tmp_path, "sub-01_run-1", onset=[], stimulus=[])])
    assert len(run.trials) == 0


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"onset": [1, 1], "stimulus": ["a", "b"]}, "two trials begin at 1 s"),
        ({"onset": [1, "n/a"], "stimulus": ["a", "b"]}, "onset needs seconds in every row"),
        ({"onset": [1, 2], "image": ["a", "b"]}, "say which names the stimulus with --column"),
        ({"start": [1, 2], "stimulus": ["a", "b"]}, "lacks the column 'onset'; it has start"),
    ],
)
def test_what_cannot_be_ordered_or_named_is_refused(tmp_path, columns, sentence):
    with pytest.raises(UserError, match=sentence):
        read_runs([events(tmp_path, "sub-01", **columns)])
    if "image" in columns:
        (run,), column = read_runs([tmp_path / "sub-01_events.tsv"], "image")
        assert (column, run.trials["stimulus"].tolist()) == ("image", ["a", "b"])

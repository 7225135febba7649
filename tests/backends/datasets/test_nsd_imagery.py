"""NSD-imagery: which beta is of which target, for each task; what has no picture; conditions."""

import pickle

import numpy as np
import pandas as pd
import pytest

from backends.datasets.nsd import NSD
from explorer.types import UserError
from tests.miniatures.nsd import B3, INSIDE, make
from tests.miniatures.nsd_parts import (
    LETTERS,
    RUNS,
    WORDS,
    cue_rows,
    numbered,
    save_cues,
    save_pairs,
    save_part,
    save_stim_info,
    trial_of,
    write_imagery,
)

# where each run begins among the 720, counted on fingers
BEGINS = dict(zip((run for run, _, _ in RUNS),
                  (0, 48, 144, 192, 240, 336, 384, 432, 528, 576, 624, 672),
                  strict=True))  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Session 1 of the main experiment and NSD-imagery of subject 1; only to be read."""
    return write_imagery(make(tmp_path_factory.mktemp("imagery")))


def opened(root, **options) -> NSD:
    return NSD(root, "nsd-imagery", part="imagery", **options)


def expected(task: str, sets: str = "AB") -> list[tuple[int, str]]:
    """Return beta (from 0) and stimulus of the trials of a task, run by run."""
    stem = {"imagery": "img", "vision": "vis"}.get(task, "att")
    found = []
    for run, which, epochs in RUNS:
        if run.startswith(stem) and which in sets:
            table = cue_rows()[run]
            letters = table["CONDITION" if stem == "vis" else "CUE"]
            shift = int(task == "attention")  # the second of a trial's two betas
            found += [
                (BEGINS[run] + epochs * t + shift, f"imagery-{which}-{letter}")
                for t, letter in enumerate(letters)
            ]
    return found


@pytest.mark.parametrize("task", ["imagery", "vision", "attention", "attention-cue"])
def test_every_beta_is_of_its_target(root, task):
    study = opened(root, task=task, norm="none")
    trials = study.load("subj01")
    rows, stimuli = zip(*expected(task), strict=True)
    assert trials.table["stimulus"].tolist() == list(stimuli)
    assert trial_of(trials.betas[:]).tolist() == [row + 1 for row in rows]
    assert (trials.table["trial"] - 1).tolist() == list(rows)
    assert set(trials.table["split"]) == {"test"}
    times = {"imagery": 16}.get(task, 8)
    assert set(trials.table.groupby("stimulus").size()) == {times}
    assert (
        trials.table.groupby("stimulus")["repeat"].apply(list).tolist()
        == [list(range(times))] * 12
    )
    assert f"(task {task})" in study.note
    assert [study.origins("subj01", i)[0].row for i in (0, 50)] == [rows[0], rows[50]]


def test_what_was_seen_is_not_the_cue_in_half_of_the_vision_trials(root):
    table = opened(root, task="vision").load("subj01").table
    letters = table["stimulus"].str[-1]
    assert (letters != table["cue"]).sum() == 48
    assert (letters == table["target"]).all()
    told = " ".join(opened(root).remarks())
    assert "In 72 of 144 trials of vision the letter on the screen was not that of the" in told


def test_z_scores_are_within_each_of_12_conditions(tmp_path):
    root = write_imagery(make(tmp_path, ()))
    stored = np.random.default_rng(1).integers(-900, 900, (*INSIDE.shape, 720), dtype=np.int16)
    for k, begin in enumerate(BEGINS.values()):
        stored[..., begin:] += np.int16(500 * (-1) ** k)  # runs differ in their mean
    stored[2, 3, 1] = 7
    save_part(root, "imagery", stored)
    trials = opened(root).load("subj01")
    assert trials.beta_unit == "z-score within condition"
    values = stored[INSIDE].T / 300
    z = np.zeros_like(values)
    for part in np.split(np.arange(720), list(BEGINS.values())[1:]):
        sd = values[part].std(axis=0, ddof=1)
        z[part] = (values[part] - values[part].mean(axis=0)) / np.where(sd > 1e-9, sd, np.inf)
    rows = [row for row, _ in expected("imagery")]
    np.testing.assert_allclose(trials.betas[:], z[rows], atol=1e-4)


def test_voxels_are_those_of_the_main_experiment(root):
    main, part = NSD(root, "nsd").load("subj01"), opened(root).load("subj01")
    assert part.subject.voxels.hash == main.subject.voxels.hash


def test_targets_have_their_pictures_and_ids(root):
    study = opened(root)
    assert list(study.stimuli.index) == [
        f"imagery-{which}-{letter}" for which in "ABC" for letter in LETTERS[which]
    ]
    for which in "AB":
        for letter in LETTERS[which]:
            name = f"imagery-{which}-{letter}"
            assert study.image(name)[0, 0].tolist() == [ord(letter)] * 3
            assert study.without_picture(name) == ""
            assert study.picture_origin(name).row is None
    assert study.ids("imagery-B-D") == {
        "NSD-imagery's letter in set B": "D",
        "file name": "shared0003_nsd00102.png",
        "NSD's shared1000, from 1": "3",
        "NSD's 73k, from 0": "101",
        "NSD's 73k, from 1": "102",
    }
    with pytest.raises(UserError, match="has the stimuli imagery-A-E, .*, not 'imagery-A-B'"):
        study.image("imagery-A-B")


def test_concept_words_have_no_picture_and_say_so(root):
    study = opened(root, targets="C")
    trials = study.load("subj01")
    assert len(trials.table) == 96
    assert set(trials.table["stimulus"]) == {f"imagery-C-{letter}" for letter in WORDS}
    assert study.stimuli.loc["imagery-C-Z", "caption"] == "zebra"
    assert "concept words, which no single picture stands for: nothing is scored" in study.note
    why = study.without_picture("imagery-C-Z")
    assert why.startswith("The target was the concept word 'zebra': no single picture stands for")
    with pytest.raises(UserError, match="concept word 'zebra': no single picture"):
        study.image("imagery-C-Z")
    assert study.picture_origin("imagery-C-Z") is None
    assert any("?targets=C opens it alone" in s for s in opened(root).remarks())


def test_a_table_of_others_gives_the_same_betas_where_it_says_what_was_seen(tmp_path, root):
    """Its vision trials with another target's letter are left out: it does not say what it was."""
    save_pairs(make(tmp_path, ()))
    save_part(tmp_path, "imagery", numbered(720))
    given = save_stim_info(tmp_path / "elsewhere.csv")
    with pytest.raises(UserError, match="has no tables of subj01, which say what each beta is of"):
        opened(tmp_path).load("subj01")
    for task in ("imagery", "attention", "attention-cue"):
        found = opened(tmp_path, task=task, cues=str(given)).load("subj01").table
        own = opened(root, task=task).load("subj01").table
        pd.testing.assert_frame_equal(found, own)
    found = opened(tmp_path, task="vision", cues=str(given)).load("subj01").table
    own = opened(root, task="vision").load("subj01").table
    own = own[own["cue"] == own["target"]]
    assert found["trial"].tolist() == own["trial"].tolist()
    assert found["stimulus"].tolist() == own["stimulus"].tolist()
    told = " ".join(opened(tmp_path, cues=str(given)).remarks())
    assert (
        "What was seen in 72 trials of vision, beside another target's letter, is not in" in told
    )


def test_tables_that_disagree_are_refused(tmp_path):
    root = write_imagery(make(tmp_path, ()))
    place = root / "nsddata/experiments/nsdimagery/nsdimagery_stiminfo.csv"
    save_stim_info(place)
    assert len(opened(root).load("subj01").table) == 192
    table = pd.read_csv(place)
    table.loc[[200, 201], "Cue"] = table.loc[[201, 200], "Cue"].to_numpy()
    k = 200 if table.loc[200, "Cue"] != table.loc[201, "Cue"] else None
    table.to_csv(place, index=False)
    assert k is not None, "choose two trials that differ"
    with pytest.raises(UserError, match=r"says the cue of beta 200 \(from 0\) is .*leave out the"):
        opened(root).load("subj01")


class Marker:
    """Unpickling it would leave a mark."""

    def __reduce__(self):
        return (open, ("marked", "w"))


def test_a_pickle_is_refused_by_name_and_never_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = save_pairs(make(tmp_path / "tree", ())).parents[2]
    save_part(root, "imagery", numbered(720))
    path = root / "nsddata_stimuli/stimuli/nsdimagery_stimuli.pkl3"
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps(Marker()))
    with pytest.raises(
        UserError, match=r"nsdimagery_stimuli.pkl3 is a pickle, .* is not opened; "
    ):
        opened(root).load("subj01")
    save_cues(root)
    assert len(opened(root).load("subj01").table) == 192
    assert any(
        "nsdimagery_stimuli.pkl3 is a pickle and is not" in s for s in opened(root).remarks()
    )
    assert not (tmp_path / "marked").exists()


def spoil(root, run: str, **columns):
    path = root / f"nsddata/bdata/nsdimagery/nsdimagery_subj01_{run}.tsv"
    pd.read_csv(path, sep="\t").assign(**columns).to_csv(path, sep="\t", index=False)


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda r: spoil(r, "visB", TRIAL=np.arange(48)), "visB.tsv is damaged .TRIAL needs 1 to"),
        (lambda r: spoil(r, "imgC_2", CUE="F"), "imgC_2.tsv: 6 targets come 8 times each in a r"),
        (lambda r: (r / "nsddata/bdata/nsdimagery/nsdimagery_subj01_attA.tsv").unlink(),
         "lacks nsdimagery_subj01_attA.tsv; without every run no beta can be told its trial"),
        (lambda r: save_part(r, "imagery", numbered(719)), "expected 720 trials"),
        (lambda r: save_part(r, "imagery", numbered(720) / np.float32(300)),
         "holds float32, expected int16 .300 x percent signal change"),
        (lambda r: save_stim_info(r / "nsddata/experiments/nsdimagery/nsdimagery_stiminfo.csv",
                                  betas=np.arange(720) + 1),
         "betas counts from 0 to 719, found 720 rows from 1"),
        (lambda r: save_stim_info(r / "nsddata/experiments/nsdimagery/nsdimagery_stiminfo.csv",
                                  TaskType=0),
         "betas 48 to 143 are of attA, expected TaskType 1 and StimType 0, found"),
    ],
)  # fmt: skip
def test_tables_and_betas_that_are_wrong_are_refused(tmp_path, break_it, sentence):
    root = write_imagery(make(tmp_path, ()))
    break_it(root)
    with pytest.raises(UserError, match=sentence):
        opened(root).load("subj01")


def test_without_the_lists_of_targets_pictures_are_unknown_and_betas_are_read(tmp_path):
    root = save_cues(make(tmp_path, ())).parents[2]
    save_part(root, "imagery", numbered(720), "hdf5")
    study = opened(root)
    assert len(study.load("subj01").table) == 192
    with pytest.raises(UserError, match=r"A_pair_list.mat says which picture the letter E stands"):
        study.image("imagery-A-E")
    told = " ".join(study.remarks())
    assert "A_pair_list.mat, B_pair_list.mat, C_pair_list.mat of nsddata/exp" in told
    place = save_pairs(root)
    (place / "rawtargetimages/setA/target_E.png").unlink()
    with pytest.raises(UserError, match="target_E.png; it holds the target's picture and is in"):
        opened(root).image("imagery-A-E")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"task": "seen"},
            "task is one of imagery, vision, attention, attention-cue; found 'seen",
        ),
        ({"targets": "D"}, "targets is one of AB, A, B, C; found 'D'"),
        ({"norm": "session"}, "norm is one of condition, none; found 'session'"),
        ({"prep": "b1"}, "no betas of space auto and preparation b1 of the part imagery; choose"),
    ],
)
def test_options_that_are_not_on_offer(root, options, sentence):
    with pytest.raises(UserError, match=sentence):
        opened(root, **options)
    assert B3 in opened(root).origins("subj01", 0)[0].file

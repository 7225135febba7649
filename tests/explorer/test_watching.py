"""Trials that arrive: read when whole, never before; decoded with the mapper that was there."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import explorer.watching as watching
from backends import DATASETS, EMBEDDERS, GENERATORS, MAPPERS
from backends.datasets import arriving
from backends.datasets.folder import Folder
from explorer.decoding import decode
from explorer.page import arrivals as page_arrivals
from explorer.page.handlers import Handlers
from explorer.page.layout import SimpleNamespace
from explorer.types import UserError
from explorer.workbench import Workbench
from tests.explorer.page.visits import PARTS, click, visit

V = 11


@pytest.fixture
def scan(tmp_path):
    """Return the folder of a study whose trials still arrive, with two test trials a picture."""
    root, rng = tmp_path / "scan", np.random.default_rng(0)
    for folder in ("stimuli", "sub-01/new"):
        (root / folder).mkdir(parents=True)
    (root / "dataset.json").write_text('{"title": "A scan"}')
    for i in range(8):
        picture = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
        Image.fromarray(picture).save(root / "stimuli" / f"{i}.png")
    stimuli = pd.DataFrame({"file": [f"{i}.png" for i in range(8)]})
    stimuli.to_csv(root / "stimuli" / "stimuli.tsv", sep="\t", index=False)
    grow(root, rng.standard_normal((24, V)).astype(np.float32), 16)
    return root


@pytest.fixture
def bench(scan, tmp_path):
    given = {"paths": {"scan": scan}, "options": {"scan": {"live": "yes"}}}
    kinds = {"folder": DATASETS["folder"]}
    return Workbench(kinds, EMBEDDERS, MAPPERS, GENERATORS, checkpoints=tmp_path / "none", **given)


@pytest.fixture
def watch(bench):
    heard = []
    found = watching.Watch(bench, "scan", say=heard.append)
    found.heard = heard
    return found


def write(scan, number=0, **said):
    """Write one trial as a notebook would; return its betas."""
    betas = np.random.default_rng(number).standard_normal(V).astype(np.float32)
    file = scan / "sub-01" / "new" / f"{number:05d}.npz"
    np.savez(file, **({"betas": betas, "stimulus": "6"} | said))
    return betas


def test_a_trial_is_on_offer_and_decoded_once_its_file_is_whole(scan, bench, watch):
    assert not watch.look() and watch.arrivals.trials == 4
    betas = write(scan)
    assert watch.look() and not watch.look()
    now = watch.arrivals
    assert (now.revision, now.trials, now.came) == (1, 5, 1)
    assert now.newest == watching.Trial("sub-01", "6", 2)
    trials = bench.catalogue.trials("scan", "sub-01")
    np.testing.assert_array_equal(trials.average("6", (2,)), betas)
    assert trials.betas.lies(16)[0].file.endswith("00000.npz")
    asked = watching.request_of(bench.catalogue, "scan", now.newest)
    assert asked.repeats == (2,)  # alone, not averaged with what came before
    [said] = watch.heard
    assert said.startswith("scan/sub-01: a trial of 6 arrived; ridge (fitted now) puts it at rank")
    assert f"rank {decode(bench, asked).rank} of 2" in said


def test_no_beginning_of_a_file_is_ever_read(scan, bench, watch):
    write(scan)
    file = scan / "sub-01" / "new" / "00000.npz"
    whole = file.read_bytes()
    file.unlink()
    for length in (0, 1, 30, len(whole) // 2, len(whole) - 22, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert not watch.look() and watch.arrivals.trials == 4, length
    file.write_bytes(whole)
    assert watch.look() and watch.arrivals.trials == 5


def test_a_file_that_is_whole_and_not_what_was_written_is_not_read(scan):
    write(scan, betas=np.arange(1, 20_000, dtype=np.float32))
    file = scan / "sub-01" / "new" / "00000.npz"
    bent = bytearray(file.read_bytes())
    bent[len(bent) // 2] ^= 1
    file.write_bytes(bent)
    with pytest.raises(arriving.UnfinishedError, match="betas.npy fails its checksum"):
        arriving.read_new(scan / "sub-01")


def test_a_writer_that_is_killed_midway_is_told_and_stops_nobody(scan, watch, monkeypatch):
    write(scan, 1)
    content = (scan / "sub-01" / "new" / "00001.npz").read_bytes()
    (scan / "sub-01" / "new" / "00001.npz").unlink()
    (scan / "content").write_bytes(content)
    slow = (
        "import sys, time; data = open(sys.argv[1], 'rb').read(); out = open(sys.argv[2], 'wb')\n"
        "out.write(data[:len(data) // 2]); out.flush(); print('half', flush=True); time.sleep(60)"
    )
    place = str(scan / "sub-01" / "new" / "00001.npz")
    with subprocess.Popen(
        [sys.executable, "-c", slow, str(scan / "content"), place], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout.readline() == b"half\n"
        assert not watch.look()
        os.kill(writer.pid, signal.SIGKILL)
    monkeypatch.setattr(watching, "PATIENCE", 0.0)
    assert not watch.look()
    assert "00001.npz is not whole" in watch.arrivals.told == watch.heard[-1]
    told = page_arrivals.server(watch)({})["told"]
    assert told.startswith(os.path.join("sub-01", "new", "00001.npz is not whole"))
    write(scan, 2)
    assert watch.look() and watch.arrivals.newest.repeat == 2  # the half one counts for nothing
    os.replace(scan / "content", place)  # and then it is written again
    assert watch.look() and watch.arrivals.trials == 6
    watch.look()
    assert watch.arrivals.told == ""


def grow(scan, betas, rows):
    """Write the first ``rows`` of a longer study into its two files."""
    table = {"stimulus": list("01234567" * 3)[:rows], "split": (["train"] * 6 + ["test"] * 2) * 3}
    table["split"] = table["split"][:rows]
    np.save(scan / "sub-01" / "betas.npy", betas[:rows])
    pd.DataFrame(table).to_csv(scan / "sub-01" / "trials.tsv", sep="\t", index=False)


def test_betas_and_their_table_grow_together_or_not_at_all(scan, watch):
    betas = np.random.default_rng(5).standard_normal((24, V)).astype(np.float32)
    file, table = scan / "sub-01" / "betas.npy", scan / "sub-01" / "trials.tsv"
    grow(scan, betas, 24)
    whole, text = file.read_bytes(), table.read_bytes()
    grow(scan, betas, 16)
    watch.look()
    for content, words in (
        (whole[:-4], text),  # its header says more than there is
        (whole, text[:-1]),  # a last line without its end may be half of one
        (whole, text[:-3]),  # "te" would be no split, and "1" of "12" another stimulus
        (whole, text[: text.rindex(b"\n", 0, -1) + 1]),  # a row less than betas
        (whole[: -V * 4] + bytes(V * 4), text),  # made at its full length, and not filled
    ):
        file.write_bytes(content)
        table.write_bytes(words)
        assert not watch.look() and watch.arrivals.trials == 4
    file.write_bytes(whole)
    assert watch.look() and watch.arrivals.trials == 6


def test_a_file_cut_off_under_its_reader_ends_nobody(scan, bench):
    before = bench.catalogue.trials("scan", "sub-01")
    (scan / "sub-01" / "betas.npy").write_bytes(b"")  # of a map this ends the process
    assert before.betas[:].shape == (16, V)


def test_what_cannot_be_a_trial_is_refused_by_name(scan):
    study, live = Folder(scan, "scan"), Folder(scan, "scan", "yes")
    cases = {
        "shows the stimulus '9', which stimuli.tsv does not name": {"stimulus": "9"},
        "00000.npz shows the stimulus '0' as test, which is train in the trials before": {
            "stimulus": "0"
        },
        "has 3 betas, betas.npy has 11 a trial": {"betas": np.ones(3, np.float32)},
        "save it in the same unit": {"betas": 1e4 * np.arange(V, dtype=np.float32)},
        "a value that is not finite": {"betas": np.full(V, np.nan)},
        "has the split 'later'; it is train or test": {"split": "later"},
        "stimulus is a text": {"stimulus": np.array(["6", "7"])},
        "needs betas and stimulus": {"picture": 3},
        "of one trial (V,), found float64 (1, 11)": {"betas": np.ones((1, V))},
    }
    for words, said in cases.items():
        write(scan, **said)
        with pytest.raises(UserError) as told:
            study.load("sub-01")
        assert words in str(told.value)
        write(scan, 1)  # a good one is there whatever lies beside it
        assert len(live.load("sub-01").rows("test")) == 5
        assert live.unfinished() == [str(told.value)]
        (scan / "sub-01" / "new" / "00001.npz").unlink()
    with pytest.raises(UserError, match="live is yes or no, found 'maybe'"):
        Folder(scan, "scan", "maybe")
    (scan / "sub-01" / "new" / "00000.npz").write_bytes(b"PK")
    with pytest.raises(arriving.UnfinishedError, match="is not whole"):
        Folder(scan, "scan").load("sub-01")


def test_new_trials_keep_the_mapper_and_forget_what_rested_on_fewer(scan, bench, watch):
    before = bench.models.mapper("scan", "sub-01", "ridge (fitted now)")
    asked = replace(
        watching.request_of(bench.catalogue, "scan", watching.Trial("sub-01", "6", 0)), repeats=()
    )
    of_two = decode(bench, asked)
    write(scan)
    watch.look()
    assert bench.models.mapper("scan", "sub-01", "ridge (fitted now)") is before
    assert (of_two.average_of, decode(bench, asked).average_of) == (2, 3)
    write(scan, 1, stimulus="0", split="train")
    watch.look()
    assert bench.models.mapper("scan", "sub-01", "ridge (fitted now)") is not before


def test_only_a_plain_folder_can_be_watched(bench):
    bench.catalogue.renew("scan", SimpleNamespace(subjects=list), {})
    with pytest.raises(UserError, match="scan cannot be watched: that takes a plain folder"):
        watching.Watch(bench, "scan")


def test_the_page_shows_the_newest_trial_or_what_is_shown_anew(scan, bench, watch):
    ui = SimpleNamespace(**{part: part for part in (*PARTS, "arrivals")})
    handlers = Handlers(bench, ui, "plotly.js", watch=watch)
    session, sent = visit(handlers)
    assert session.request.dataset == "scan"
    write(scan, stimulus="7")
    watch.look()
    answer = page_arrivals.server(watch)({})
    assert (answer["came"], answer["newest"], answer["dataset"]) == (1, "7 of sub-01", "scan")
    sent = handlers.arrive(session, click(show=True))
    assert (session.request.stimulus, session.request.repeats) == ("7", (2,))
    assert sent["repeats"]["value"] == "3"
    handlers.take(session, "average", "repeats")
    shown, ticket = session.request, session.ticket
    write(scan, 1, stimulus="7")
    watch.look()
    session.mapped = ("the map of two",)
    handlers.arrive(session, click(show=False))
    assert session.request == shown and session.wanted  # an average of one more
    assert session.ticket > ticket and session.mapped == ()

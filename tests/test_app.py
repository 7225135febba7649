"""The command line of the app: every mistake is one sentence, and the page answers."""

import argparse
import io
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import app
from explorer.brain.maps import parcellation_of
from explorer.page.turns import Turns
from explorer.types import UserError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def taken():
    """Occupy a port."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def refused(capsys, *argv):
    """Return the one line that ``app.py`` says before it gives up."""
    assert app.main([*argv, "--no-browser"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    return said.err


def test_a_port_in_use_is_one_sentence(capsys, taken):
    said = refused(capsys, "--port", str(taken))
    assert f"Port {taken} of 127.0.0.1 cannot be served on: address already in use" in said
    assert "choose another --port, or leave it out" in said


@pytest.mark.parametrize("port", ["0", "70000"])
def test_a_port_that_cannot_be_is_one_sentence(capsys, port):
    assert f"--port lies between 1 and 65535, found {port}." in refused(capsys, "--port", port)


def test_a_host_of_another_machine_is_one_sentence(capsys):
    said = refused(capsys, "--host", "192.0.2.1")  # a documentation address: nobody has it
    assert "--host 192.0.2.1 cannot be served on" in said


@pytest.mark.parametrize("pair", ["nsd", "=there", "nsd=", "../nsd=there", "n sd=there"])
def test_a_data_set_that_is_no_name_and_path_is_one_sentence(capsys, pair):
    said = refused(capsys, "--dataset", pair)
    assert "--dataset takes NAME=PATH" in said and repr(pair) in said


def test_a_path_that_is_not_there_is_one_sentence(capsys, tmp_path):
    said = refused(capsys, "--dataset", f"mine={tmp_path / 'gone'}")
    assert f"--dataset mine: there is nothing at {tmp_path / 'gone'}; check the path." in said


def test_an_option_that_no_format_takes_is_one_sentence(capsys, tmp_path):
    (tmp_path / "dataset.json").write_text('{"title": "Mine"}')
    said = refused(capsys, "--dataset", f"mine={tmp_path}?prep=b3")
    assert "--dataset mine: folder has no option 'prep'; it takes live." in said


def test_a_folder_without_pictures_to_rate_is_one_sentence(capsys, tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    said = refused(capsys, "--rate", f"mine={tmp_path}")
    assert f"--rate mine: {tmp_path} holds no pictures, and no settings of what rec" in said


def test_an_atlas_that_is_none_is_one_sentence(capsys, tmp_path):
    gone = tmp_path / "lh.gone.annot"
    assert f"{gone} is missing; give the path" in refused(capsys, "--atlas", str(gone))
    assert "an atlas is a .annot, .label.gii" in refused(capsys, "--atlas", "yeo")


def test_an_atlas_is_a_choice_for_every_subject(tmp_path):
    import numpy as np

    np.save(tmp_path / "halves.npy", np.repeat([1, 2], 10_242))
    (tmp_path / "halves.tsv").write_text("index\tname\themisphere\n1\thalf\tL\n2\thalf\tR\n")
    args = app.arguments().parse_args(["--atlas", str(tmp_path / "halves.npy")])
    workbench = app.open_workbench(args)
    for subject in workbench.catalogue.subjects("simulated")[:2]:
        laid = parcellation_of(workbench, "simulated", subject, "halves")
        assert [label.key for label in laid.labels] == ["half L", "half R"]
        assert laid.masks()[-1].sum() == 0  # every vertex has its half


def test_a_path_with_something_else_is_one_sentence(capsys, tmp_path):
    assert "dataset.json" in refused(capsys, "--dataset", f"mine={tmp_path}")


def test_a_name_given_twice_is_one_sentence(capsys, tmp_path):
    pair = f"mine={tmp_path}"
    said = refused(capsys, "--dataset", pair, "--dataset", pair)
    assert "--dataset names mine twice" in said


def test_missing_checkpoints_are_one_sentence(capsys, tmp_path):
    said = refused(capsys, "--checkpoints", str(tmp_path / "gone"))
    assert "gone is no folder; check the path." in said


def test_a_line_for_the_file_of_logins_is_printed(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("long enough\n"))
    assert app.main(["--hash-password", "ann"]) == 0
    line = capsys.readouterr().out.strip()
    assert line.startswith("ann:scrypt$") and "long enough" not in line
    monkeypatch.setattr(sys, "stdin", io.StringIO("short\n"))
    assert "8 characters or more" in refused(capsys, "--hash-password", "ann")


def test_sharing_images_that_may_not_be_redistributed_is_refused(make_workbench, fakes, tmp_path):
    closed = type("Closed", (fakes.Study,), {"redistributable": False, "licence": "ask us"})
    study = {"fake": fakes.Study, "closed": closed}
    workbench = make_workbench(datasets=study)
    parser = app.arguments()
    with pytest.raises(UserError, match=r"images of closed to .*\(licence: ask us\); leave out"):
        app.refuse_unshareable(workbench, parser.parse_args(["--share"]))
    with pytest.raises(UserError, match=r"--host 0.0.0.0 would show the images of closed to who"):
        app.refuse_unshareable(workbench, parser.parse_args(["--host", "0.0.0.0"]))
    for flags in (["--allow-host", "lab.example"], ["--root-path", "/a"]):  # others, by a proxy
        with pytest.raises(
            UserError, match=f"^{' '.join(flags)} would show .* leave out {flags[0]}"
        ):
            app.refuse_unshareable(workbench, parser.parse_args(flags))
    may = "--i-may-share-these-images"
    for allowed in ([], ["--share", may], ["--host", "0.0.0.0", may], ["--host", "localhost"]):
        app.refuse_unshareable(workbench, parser.parse_args(allowed))
    app.refuse_unshareable(make_workbench(), parser.parse_args(["--share"]))


def test_warming_up_tells_what_is_missing_and_goes_on(make_workbench, fakes, capsys):
    class Bare(fakes.Embedder):
        def __init__(self, checkpoints, device):
            raise UserError("card.json is missing.")

    app.warm(make_workbench(embedders={"pocket-clip": Bare}), Turns())
    assert capsys.readouterr().err == "app.py: card.json is missing.\n"


def test_warming_up_asks_models_in_turn_with_visitors(make_workbench, fakes):
    turns, held = Turns(), []

    class Seen(fakes.Embedder):
        def embed(self, *args):
            held.append(turns._holder is not None and turns._holder.kind)
            return super().embed(*args)

    app.warm(make_workbench(embedders={"pocket-clip": Seen}), turns)
    assert set(held) == {"loading"}
    assert turns._holder is None


def test_arguments_have_the_documented_defaults():
    args = app.arguments().parse_args([])
    assert args == argparse.Namespace(
        dataset=[],
        watch=None,
        watched="",
        atlas=[],
        published=[],
        generator=[],
        evaluation=[],
        rate=[],
        ratings=Path("ratings"),
        raters=None,
        rate_seed=0,
        rate_limit=None,
        store=None,
        no_store=False,
        checkpoints=None,
        device="auto",
        host="127.0.0.1",
        port=None,
        budget=600.0,
        allow_host=[],
        root_path="",
        questions=None,
        auth_file=None,
        hash_password=None,
        share=False,
        i_may_share_these_images=False,
        no_browser=False,
    )


@pytest.mark.skipif(
    not (ROOT / "assets" / "simulated" / "dataset.json").exists(),
    reason="the embedded data set has not been built",
)
def test_the_page_answers_says_where_it_is_and_that_data_are_simulated():
    port = free_port()
    command = [sys.executable, str(ROOT / "app.py"), "--no-browser", "--port", str(port)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            lines = [process.stdout.readline() for _ in range(2)]
            if not lines[1]:
                pytest.fail(process.stderr.read())
            where = f"http://127.0.0.1:{port}/"
            assert lines[0] == f"Afterimage is open at {where} (Ctrl+C ends it).\n"
            assert lines[1].startswith("simulated is no measurement: ")
            with urllib.request.urlopen(where, timeout=30) as answer:
                assert answer.status == 200 and b"Afterimage" in answer.read()
        finally:
            process.terminate()


COMPUTING = """
import runpy, signal, sys, time, types
from explorer import drawing

signal.signal(signal.SIGINT, signal.default_int_handler)  # else ignored in the background

class Page:
    answered = types.SimpleNamespace(wait=lambda seconds: False)
    turns, watch = types.SimpleNamespace(loading=None, answered=answered), None

    def launch(self, **settings):
        return None, "http://here", None

    def block_thread(self):
        try:
            while True:
                time.sleep(0.02)
        except KeyboardInterrupt:  # as Gradio's, which then waits for its server
            print("closing", flush=True)
            time.sleep(30)

def work(bench, request, turn):
    import torch
    matrix = torch.randn(800, 800)
    print("drawing", flush=True)
    while True:
        matrix = torch.tanh(matrix @ matrix)

page = types.ModuleType("explorer.page")
page.build, page.launch_options = lambda *asked: Page(), lambda rules: {}
page.__path__ = ["explorer/page"]
page.Budget = lambda seconds, asks, questions: seconds
sys.modules["explorer.page"], drawing.warm = page, work
sys.argv = ["app.py", "--no-browser"]
runpy.run_path("app.py", run_name="__main__")
"""


def test_ctrl_c_while_a_thread_draws_ends_cleanly_and_twice_at_once():
    with subprocess.Popen(
        [sys.executable, "-c", COMPUTING],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        try:
            for word in ("drawing", "closing"):
                while word not in child.stdout.readline():
                    assert child.poll() is None
                child.send_signal(signal.SIGINT)
            said = child.communicate(timeout=20)[1]
        finally:
            child.kill()
    assert (child.returncode, said) == (0, "")


def test_where_pictures_are_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AFTERIMAGE_CACHE", str(tmp_path / "cache"))
    args = app.arguments().parse_args
    assert app.open_store(args([])).folder == tmp_path / "cache" / "pictures"
    assert app.open_store(args(["--store", str(tmp_path)])).folder == tmp_path
    assert app.open_store(args(["--no-store"])) is None
    said = refused(capsys, "--store", str(tmp_path), "--no-store")
    assert "--store and --no-store exclude each other; leave one out." in said
    (tmp_path / "file").write_text("x")
    said = refused(capsys, "--store", str(tmp_path / "file"))
    assert said.endswith("file is no folder; check the path.\n")

"""Fetching: what is said before, when offline, when something is lacking, and by hand."""

import gzip
import io
import sys
from types import SimpleNamespace

import pytest

from backends.__main__ import main
from backends.commands import fetch
from explorer.types import UserError


def call(monkeypatch, capsys, *arguments, answer: str = "") -> tuple[int, str, str]:
    """Run ``python -m backends fetch ...`` in this process: exit code, output, errors."""
    monkeypatch.setattr(sys, "argv", ["backends", "fetch", *map(str, arguments)])
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nsd", ("Data\n   Access Agreement", "s3://natural-scenes-dataset", "nsd_expdesign.mat")),
        ("mindeye2", ("huggingface.co/datasets/pscotti/mindeyev2", "wds/subj01", "NSD's terms")),
        ("god", ("forms.gle/ujvA34948Xg49jdn9", "7387130", "Subject1.h5")),
        ("bold5000-betas", ("BOLD5000_GLMsingle_ROI_betas.zip", "14456124", "Type D")),
        ("things-fmri", ("sub-0X_ResponseData.h5", "20492835", "osf.io/jum2f")),
        ("cneuromod-things", ("datalad clone", "*trialBetas_desc-zscore*.h5", "events.tsv")),
    ],
)
def test_what_is_got_by_hand_is_explained(monkeypatch, capsys, name, words):
    code, out, _ = call(monkeypatch, capsys, name)
    assert code == 1
    assert all(word in out for word in words)
    assert "python -m backends doctor" in out
    assert max(map(len, out.splitlines())) < 100


def test_an_unknown_name_gets_the_known_ones(monkeypatch, capsys):
    code, _, err = call(monkeypatch, capsys, "things")
    assert code == 2
    assert "nothing named 'things' to fetch; choose miyawaki2008, bold5000, or for" in err


def test_size_and_licence_come_before_the_question(monkeypatch, capsys, tmp_path):
    answer = ("miyawaki2008", "--out", tmp_path / "data")
    code, out, _ = call(monkeypatch, capsys, *answer, answer="n\n")
    assert code == 1
    assert out.index("153 MB") < out.index("Download it?")
    assert "unknown" in out
    assert not (tmp_path / "data").exists(), "nothing is made before the answer"


def test_no_connection_is_one_sentence(monkeypatch, capsys, tmp_path):
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")  # nobody listens there
    code, _, err = call(monkeypatch, capsys, "miyawaki2008", "--out", tmp_path, "--yes")
    assert code == 2
    said = err.strip().splitlines()[-1]
    assert said.startswith("Miyawaki et al. 2008 could not be fetched from nitrc.org (")
    assert said.endswith("run the same command again, it goes on where it stopped.")


def test_openneuro_is_named_where_it_is_lacking(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "openneuro", None)
    code, out, err = call(monkeypatch, capsys, "bold5000", "--out", tmp_path, "--yes")
    assert code == 2
    assert "344 MB" in out
    assert "CC0" in out
    assert "needs openneuro-py, which is not installed: pip install openneuro-py" in err


# ------------------------------------------------------------------------- what came, looked at


@pytest.fixture
def miyawaki(tmp_path):
    """Nilearn's folder as it should be: 105 files, packed ones whole."""
    folder = tmp_path / "miyawaki2008"
    for kind, n in (("figure", 12), ("random", 20)):
        for i in range(1, n + 1):
            write(folder / "func" / f"data_{kind}_run{i:02d}.nii.gz")
            write(folder / "label" / f"data_{kind}_run{i:02d}_label.csv")
    for side in ("LH", "RH"):
        for area in ("V1d", "V1v", "V2d", "V2v", "V3A", "V3", "V4v", "VP"):
            write(folder / "mask" / f"{side}{area}.nii.gz")
        for lag in range(11):
            write(folder / "mask" / f"{side}lag{lag}to{lag + 1}.nii.gz")
    write(folder / "mask" / "mask.nii.gz")
    write(folder / "bg.nii.gz")
    return folder


def write(path, content: bytes = b"0123456789" * 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def test_a_whole_download_is_not_fetched_again(monkeypatch, capsys, miyawaki):
    code, out, _ = call(monkeypatch, capsys, "miyawaki2008", "--out", miyawaki.parent)
    assert code == 0
    assert "Everything is there already." in out
    assert f"python -m backends doctor {miyawaki}" in out


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda f: (f / "mask" / "RHVP.nii.gz").unlink(), "mask/RHVP.nii.gz is missing."),
        (
            lambda f: [file.unlink() for file in (f / "label").glob("*figure*")],
            "label/data_figure_run01_label.csv, label/data_figure_run02_label.csv, "
            "label/data_figure_run03_label.csv and 9 more are missing.",
        ),
        (
            lambda f: (f / "bg.nii.gz").write_bytes((f / "bg.nii.gz").read_bytes()[:-6]),
            "bg.nii.gz is empty or cut short.",
        ),
        (lambda f: (f / "bg.nii.gz").write_bytes(b""), "bg.nii.gz is empty or cut short."),
    ],
)
def test_what_is_lacking_is_named(miyawaki, harm, sentence):
    assert fetch.OFFERS["miyawaki2008"].lacking(miyawaki) == []
    harm(miyawaki)
    assert fetch.OFFERS["miyawaki2008"].lacking(miyawaki) == [sentence]


def test_the_files_are_those_that_nilearn_asks_for():
    """Read in nilearn's own source, so that its next version is noticed."""
    import inspect

    from nilearn.datasets import func

    source = inspect.getsource(func.fetch_miyawaki2008)
    assert "data_figure_run{int(i):02}" in source
    assert "range(1, 13)" in source
    assert "range(1, 21)" in source
    files = fetch._miyawaki_files()
    assert len(files) == len(set(files)) == 2 * 32 + 39 + 1
    masks = {f.removeprefix("mask/") for f in files if f.startswith("mask/")}
    assert masks == set(func.miyawaki2008_file_mask())


EVENTS = "onset\tImgName\n" + 37 * "6\tchurch6.jpg\n"


def write_bold5000(folder, images=((b"jpeg", 3),)) -> None:
    """Write ds001499's events, ROI masks and some images: (content, how many)."""
    long = {1: (1, 2, 3, 5, 7, 10, 15), 2: (1, 3, 4, 5, 11, 12, 14)}
    long |= {3: (1, 3, 5, 6, 7, 11, 15), 4: (1, 4, 9)}
    for who in range(1, 5):
        for session in range(1, 10 if who == 4 else 16):
            for run in range(1, 11 if session in long[who] else 10):
                stem = f"sub-CSI{who}_ses-{session:02d}_task-5000scenes_run-{run:02d}"
                place = folder / f"sub-CSI{who}" / f"ses-{session:02d}" / "func"
                write(place / f"{stem}_events.tsv", EVENTS.encode())
        for i in range(10):
            write(folder / "derivatives" / "spm" / f"sub-CSI{who}" / f"mask{i}.nii.gz")
    for content, n in images:
        for i in range(n):
            write(folder / "stimuli" / f"{len(content)}_{i}.jpg", content)


def test_bold5000_is_counted_to_the_byte(monkeypatch, tmp_path):
    assert (fetch.IMAGES, fetch.IMAGE_BYTES) == (4916, 341_211_021)
    write_bold5000(tmp_path)
    lacking = fetch.OFFERS["bold5000"].lacking
    assert lacking(tmp_path) == ["stimuli holds 3 images of 12 bytes, expected 4916 of 341211021."]
    monkeypatch.setattr(fetch, "IMAGES", 3)
    monkeypatch.setattr(fetch, "IMAGE_BYTES", 12)
    assert lacking(tmp_path) == []
    events = tmp_path / "sub-CSI4" / "ses-09" / "func"
    last = events / "sub-CSI4_ses-09_task-5000scenes_run-10_events.tsv"
    last.write_text(EVENTS[:-20])
    assert lacking(tmp_path) == [f"{last.relative_to(tmp_path)} has 36 trials, expected 37."]
    last.unlink()
    next((tmp_path / "derivatives").rglob("mask3.nii.gz")).unlink()
    assert lacking(tmp_path) == [
        f"{last.relative_to(tmp_path)} is missing.",
        "derivatives/spm holds 39 ROI masks, expected 40.",
    ]


def test_bold5000_comes_from_the_snapshot_that_has_the_images(monkeypatch, capsys, tmp_path):
    """A stand-in downloads: first half of it and breaks off, then the rest."""
    asked = []

    def download(**arguments) -> None:
        asked.append(arguments)
        write_bold5000(arguments["target_dir"], images=((b"jpeg", 2 + len(asked)),))
        if len(asked) == 1:
            raise RuntimeError("connection reset\nby peer")

    monkeypatch.setitem(sys.modules, "openneuro", SimpleNamespace(download=download))
    monkeypatch.setattr(fetch, "IMAGES", 4)
    monkeypatch.setattr(fetch, "IMAGE_BYTES", 16)
    command = ("bold5000", "--out", tmp_path, "--yes")
    code, _, err = call(monkeypatch, capsys, *command)
    assert code == 2
    assert "could not be fetched from openneuro.org (RuntimeError: connection reset); check" in err
    code, out, _ = call(monkeypatch, capsys, *command)
    assert code == 0
    assert "Everything came and is whole." in out
    assert "BOLD5000_GLMsingle_ROI_betas.zip" in out, "the betas are not among it"
    assert (asked[0]["dataset"], asked[0]["tag"]) == ("ds001499", "1.2.0")
    assert asked[0]["include"][:2] == ["stimuli", "derivatives/spm"]


def test_a_download_that_says_nothing_but_lacks_files_is_refused(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "openneuro", SimpleNamespace(download=lambda **_: None))
    offer = fetch.find("bold5000")
    with pytest.raises(
        UserError, match="is not complete: sub-CSI1.*run-01_events.tsv, .* are mis"
    ):
        fetch.bring(offer, tmp_path / "new")

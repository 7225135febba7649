"""Anybody's pictures are scored: folders, zips and arrays, with a data set or without one."""

import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from backends.__main__ import main
from backends.reports.foreign_pictures import pairs_of
from backends.reports.picture_tables import markdown, write
from backends.reports.pictures import Report, near_misses
from explorer.types import UserError


def images(n, seed, side=32):
    rng = np.random.default_rng(seed)
    small = [rng.integers(0, 256, (4, 4, 3)).astype(np.uint8) for _ in range(n)]
    return [np.asarray(Image.fromarray(s).resize((side, side), 0)) for s in small]


SHOWN = images(4, 0)
MADE = [255 - SHOWN[0], *SHOWN[1:]]  # the first is the negative of what was shown


def save(folder, pictures, name="{}.png"):
    folder.mkdir(parents=True, exist_ok=True)
    for k, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / name.format(k))
    return folder


def tensor(file, pictures):
    values = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    torch.save(values, file)
    return file


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Return what runs ``evaluate --images`` without weights: exit code, print, errors, table."""

    def called(*arguments):
        given = ["backends", "evaluate", "--networks", tmp_path / "none", "--out", tmp_path / "to"]
        monkeypatch.setattr(sys, "argv", [str(word) for word in (*given, *arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        file = tmp_path / "to" / "pictures-each.csv"
        return code, out, err, pd.read_csv(file) if file.is_file() else None

    return called


def pixcorr(each, score="pixcorr-425"):
    return each[each["score"] == score].set_index("stimulus")["value"]


def test_a_folder_beside_a_tensor_of_what_was_shown(run, tmp_path):
    made = save(tmp_path / "theirs", MADE)
    shown = tensor(tmp_path / "all_images.pt", SHOWN)
    code, out, err, each = run("--images", made, "--shown", shown)
    assert code == 0, err
    np.testing.assert_allclose(pixcorr(each), [-1, 1, 1, 1], atol=1e-3)
    assert "Pictures of all_images.pt: theirs and published" in out
    assert "| CLIP ViT-L/14, OpenAI's weights |" in out and "clip-l-14-two-way: ViT-L-14/" in out
    assert "dreamsim-open-clip" not in out  # missed by nobody who has no such weights
    assert "all 3 other images" in out
    code, out, _, each = run("--images", made, "--shown", shown, "--as", "mindeye2")
    np.testing.assert_allclose(pixcorr(each, "mindeye2/pixcorr-425"), [-1, 1, 1, 1], atol=1e-3)
    assert "without antialiasing, which was torchvision 0.16's default" in out
    code, _, err, _ = run("--images", made, "--shown", shown, "--as", "ours")
    assert code and "There are no scores as 'ours' defines them; choose one of mindeye2," in err


def test_copies_beside_pictures_need_no_word(run, tmp_path):
    folder = save(save(tmp_path / "dyna", MADE), SHOWN, "{}_gt.png")
    np.testing.assert_allclose(pixcorr(run("--images", folder)[3]), [-1, 1, 1, 1], atol=1e-3)
    packed = tmp_path / "dyna.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"dyna/{file.name}")
    np.testing.assert_allclose(pixcorr(run("--images", packed)[3]), [-1, 1, 1, 1], atol=1e-3)
    tensor(tmp_path / "all_images.pt", SHOWN)
    array = tmp_path / "recons.npy"
    np.save(array, np.stack(MADE))
    named = run("--published", f"them={array}", "--images", "them")
    np.testing.assert_allclose(pixcorr(named[3]), [-1, 1, 1, 1], atol=1e-3)


def test_strips_hold_samples(tmp_path):
    strips = [np.concatenate([a, b], axis=1) for a, b in zip(SHOWN, MADE, strict=True)]
    made, shown = save(tmp_path / "strips", strips), save(tmp_path / "shown", SHOWN)
    with pytest.raises(UserError, match="2 times as wide as high; say [?]samples=2"):
        pairs_of(made, shown)
    found = pairs_of(made, shown, "2")
    for sample, expected in zip(found.made, (SHOWN, MADE), strict=True):
        np.testing.assert_array_equal(np.stack(sample), np.stack(expected))


def test_what_does_not_fit_is_refused(run, tmp_path):
    made = save(tmp_path / "theirs", MADE)
    _, _, err, _ = run("--images", made)
    assert "no copies of what was shown; say what was shown with --shown FOLDER_OR_FILE" in err
    few = save(tmp_path / "few", SHOWN[:3])
    _, _, err, _ = run("--images", made, "--shown", few)
    assert (
        "holds 4 pictures and" in err and "of which 3 have the same name (first without: 3)" in err
    )
    # rows of an array are no names: with a number missing nobody knows which is whose
    (made / "2.png").unlink()
    _, _, err, _ = run("--images", made, "--shown", tensor(tmp_path / "t.pt", SHOWN[:3]))
    assert "holds 3 pictures" in err and "of which 2 have the same name (first without: 3)" in err
    _, _, err, _ = run("--images", f"{made}?order=natural", "--shown", few)
    assert "order says which test images of a data set pictures are of" in err
    (tmp_path / "notes.txt").write_text("none")
    _, _, err, _ = run("--images", tmp_path / "notes.txt", "--shown", few)
    assert "is no folder or zip of pictures and no .pt or .npy array" in err
    _, _, err, _ = run("--images", save(tmp_path / "empty", []), "--shown", few)
    assert "holds no pictures by themselves" in err
    _, _, err, _ = run("--images", tmp_path / "nowhere")
    assert "there is nothing at" in err


def test_pictures_of_a_data_sets_test_images(run, tmp_path):
    """Two test images of the embedded study under their ids; the others are told."""
    from backends.datasets.simulated import Simulated

    study = Simulated()
    test = study.load("subj01").stimuli("test")[:3]
    for k, stimulus in enumerate(test):
        picture = study.image(stimulus)
        save(tmp_path / "theirs", [255 - picture if k == 0 else picture], f"{stimulus}.png")
    code, out, err, each = run("--images", tmp_path / "theirs", "--subject", "subj01")
    assert code == 0, err
    found = pixcorr(each)
    assert found[test[0]] == pytest.approx(-1, abs=1e-3)
    np.testing.assert_allclose(found[test[1:]], 1)
    assert f"has pictures of 3 of {len(study.load('subj01').stimuli('test'))} test images" in out
    assert "brain-correlation" in out


# ------------------------------------------------------------------------------------ near misses


def scored(**scores):
    rows = [
        {"subject": "s", "stimulus": f"i{k}", "sample": 0, "score": score, "counted": value}
        for score, values in scores.items()
        for k, value in enumerate(values)
    ]
    return pd.DataFrame(rows).assign(value=lambda t: t["counted"])


def test_near_misses_are_taken_for_the_right_one_and_show_another():
    rates = {"mindeye2/clip-l-14-two-way": [1.0, 0.99, 0.94, 0.96]}

    each = scored(**rates, **{"object-f1": [0.0, 0.5, 0.0, 0.1], "50-way-top-1": [1, 0.1, 0, 0.9]})
    found = near_misses(each)
    assert list(found["stimulus"]) == ["i0", "i1", "i3"]
    assert list(found["told by"]) == ["object-f1", "50-way-top-1", "object-f1"]
    assert near_misses(scored(**rates)) is None
    assert near_misses(scored(**rates, **{"object-f1": [1, 1, 1, 1]})).empty


def test_near_misses_stand_in_the_report_and_in_a_file(tmp_path):
    each = scored(**{"clip-l-14-two-way": [1.0, 0.99], "judge-category": [0, 1]})
    line = {"id": "clip-l-14-two-way", "title": "CLIP", "value": 0.995, "low": 0.9, "high": 1}
    line |= {"best of samples": np.nan, "chance": 0.5, "better": "higher", "N": 2, "samples": 1}
    line |= {"undefined": 0, "remark": "", "source": "", "network": "CLIP ViT-L/14", "pool": "all"}
    table = pd.DataFrame([line | {"subject": "s"}])
    settings = {"dataset": "d", "mapper": "m", "generator": "g"}
    report = Report(each, table, {}, settings, False)
    text = markdown(report)
    assert "they show something else; the first 1 of 1" in text and "| i0 |" in text
    assert "CLIP ViT-L/14" in text
    files = write(report, tmp_path / "out")
    file = next(f for f in files if f.name == "pictures-near-misses.csv")
    assert list(pd.read_csv(file)["stimulus"]) == ["i0"]
    right = scored(**{"clip-l-14-two-way": [1.0, 0.99], "judge-category": [1, 1]})
    assert "show something else): none" in markdown(Report(right, table, {}, settings, False))


def test_rows_without_a_name_need_as_many_of_both(tmp_path):
    """One picture lost, or two of many: nobody knows which row is whose."""
    shown = tmp_path / "shown.npy"
    np.save(shown, np.stack(SHOWN))
    lost = save(tmp_path / "lost", SHOWN[1:], "{}.png")
    for number, file in reversed(list(enumerate(sorted(lost.iterdir()), start=1))):
        file.rename(lost / f"{number}.png")  # 1.png ... 3.png: 0.png is lost
    np.save(tmp_path / "two.npy", np.stack(SHOWN[:2]))
    for made in (lost, tmp_path / "two.npy"):
        with pytest.raises(UserError, match="give as many of both, 2 or more, in one order"):
            pairs_of(made, shown)


def test_pictures_of_a_part_by_name_are_scored_and_said_to_be_a_part(tmp_path):
    names = ["{}-house.png"]
    shown = save(tmp_path / "shown", SHOWN, *names)
    found = pairs_of(save(tmp_path / "made", SHOWN[:3], *names), shown)
    assert len(found.shown) == 3
    assert "has pictures of 3 of the 4 that were shown." in found.notes[0]

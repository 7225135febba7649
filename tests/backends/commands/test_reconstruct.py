"""Folders of drawn pictures and their scores, over the study of fakes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from backends.commands.drawn_folder import Job
from backends.commands.drawn_folder import draw as reconstruct
from backends.reports.feature_networks import Features
from backends.reports.picture_folder import load, pictures_of
from backends.reports.picture_tables import PUBLISHED, markdown, write
from backends.reports.pictures import Report, score_folder
from backends.reports.scores import SCORES
from explorer import drawing, metrics
from explorer.brain.maps import parcellation_of
from explorer.types import UserError

FEW = [score for score in SCORES if score.id in ("pixcorr-425", "swav-distance")]
JOB = Job("fake", ("sub-01",), "linear", "painter", scale=2.0, steps=2, samples=2, limit=5)


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.png")}


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr("backends.commands.drawn_folder.BATCH", 3)


@pytest.fixture
def drawn(workbench, tmp_path):
    reconstruct(workbench, JOB, tmp_path / "out")
    return tmp_path / "out"


def test_a_folder_has_every_picture_with_its_seed_and_its_scores(workbench, drawn):
    settings, table = load(drawn)
    stimuli = list(workbench.catalogue.gallery("fake", "sub-01").index)
    assert list(table["stimulus"]) == stimuli[:5] * 2
    assert list(table["sample"]) == [0] * 5 + [1] * 5
    assert list(table["seed"]) == [*range(5), *(len(stimuli) + i for i in range(5))]
    assert settings["scale"] == 2.0
    assert settings["checkpoints"]["sub-01"]["mapper"]
    row = table.iloc[6]
    with Image.open(drawn / row["file"]) as image:
        picture = np.asarray(image)
    shown = workbench.catalogue.image("fake", row["stimulus"])
    assert row["PixCorr"] == pytest.approx(metrics.pixcorr(shown, picture))


def test_pictures_are_counted_for_a_bar_also_those_of_an_earlier_run(workbench, tmp_path):
    said = []
    reconstruct(workbench, JOB, tmp_path / "out", said.append)
    assert [(one.done, one.total, one.unit) for one in said] == [
        (done, 10, "pictures") for done in (3, 6, 9, 10)
    ]
    (tmp_path / "out" / ".parts" / "00002.json").unlink()
    said.clear()
    reconstruct(workbench, JOB, tmp_path / "out", said.append)
    assert [one.done for one in said] == [9]


def test_the_pictures_are_those_of_the_page(workbench, drawn):
    _, table = load(drawn)
    row = table.iloc[3]
    from explorer.request import Request

    request = Request(
        *("fake", "sub-01", row["stimulus"], "linear", "painter"),
        scales=(2.0,),
        steps=2,
        seed=int(row["seed"]),
    )
    (frame,) = [frame for frame in drawing.reconstruct(workbench, request) if frame.done]
    with Image.open(drawn / row["file"]) as image:
        np.testing.assert_array_equal(np.asarray(image), frame.image)


def test_a_full_disk_is_one_sentence_and_the_same_command_goes_on(workbench, drawn, tmp_path):
    import resource

    before, out = resource.getrlimit(resource.RLIMIT_FSIZE), tmp_path / "other"
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(UserError, match=r"metrics.parquet cannot be written .*; make room on"):
            reconstruct(workbench, JOB, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(out.rglob("*.part")) and not (out / "metrics.parquet").exists()
    reconstruct(workbench, JOB, out)
    assert files(out) == files(drawn)
    assert load(out)[1].equals(load(drawn)[1])


def test_pictures_of_another_data_set_are_not_scored_as_this_one(drawn, monkeypatch, capsys):
    import sys

    from backends.__main__ import main

    monkeypatch.setattr(sys, "argv", ["backends", "evaluate", "--images", str(drawn)])
    with pytest.raises(SystemExit) as stop:
        main()
    said = f"score them with: python -m backends evaluate --dataset fake=PATH --images {drawn}\n"
    assert stop.value.code == 2 and capsys.readouterr().err.endswith(said)


def test_several_processes_draw_the_same_pictures(workbench, drawn, tmp_path):
    other = tmp_path / "other"
    with pytest.raises(FileNotFoundError):  # the first process waits for the second in earnest
        reconstruct(workbench, JOB, other, share=(0, 2))
    reconstruct(workbench, JOB, other, share=(1, 2))
    reconstruct(workbench, JOB, other, share=(0, 2))
    assert files(other) == files(drawn)
    assert len(files(other)) == 10
    pd.testing.assert_frame_equal(load(other)[1], load(drawn)[1])


def test_what_is_there_is_not_drawn_again(workbench, drawn):
    before = files(drawn)
    lost, *_ = sorted(before)
    (drawn / lost).unlink()
    said: list[str] = []
    reconstruct(workbench, JOB, drawn, said.append)
    assert files(drawn) == before
    assert len(said) == 1  # one batch of four
    assert not list(drawn.rglob("*.part"))


def test_other_settings_and_other_files_are_refused(workbench, drawn, tmp_path):
    with pytest.raises(UserError, match=r"holds pictures of scale 2.0, asked for is 4.0; choose"):
        reconstruct(workbench, replace(JOB, scale=4.0), drawn)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files; choose a new or empty folder"):
        reconstruct(workbench, JOB, tmp_path / "full")
    with pytest.raises(UserError, match="--samples is 1 or more, found 0"):
        replace(JOB, samples=0)
    with pytest.raises(UserError, match="--limit is 1 or more test stimuli, found 0"):
        replace(JOB, limit=0)


def test_an_unfinished_folder_is_told_from_another(workbench, drawn, tmp_path):
    (drawn / "metrics.parquet").unlink()
    with pytest.raises(UserError, match="it is not finished"):
        load(drawn)
    with pytest.raises(UserError, match="it holds no such table"):
        load(tmp_path)


def test_pictures_come_back_by_stimulus_and_sample(workbench, drawn):
    stimuli, shown, made = pictures_of(workbench, drawn, "sub-01")
    assert len(stimuli) == len(shown) == 5
    assert [len(one) for one in made] == [5, 5]
    _, table = load(drawn)
    row = table[(table["stimulus"] == stimuli[2]) & (table["sample"] == 1)].iloc[0]
    with Image.open(drawn / row["file"]) as image:
        np.testing.assert_array_equal(made[1][2], np.asarray(image))
    with pytest.raises(UserError, match="no pictures of sub-07; it has those of sub-01"):
        pictures_of(workbench, drawn, "sub-07")


# ---------------------------------------------------------------------------------------- scores


def test_a_report_has_the_scores_and_says_what_is_missing(workbench, drawn, tmp_path):
    report = score_folder(workbench, drawn, Features(tmp_path), scores=FEW)
    line = report.table.iloc[0]
    assert (line["subject"], line["id"], line["N"], line["samples"]) == (
        *("sub-01", "pixcorr-425", 5, 2),
    )
    assert line["value"] == pytest.approx(report.per_picture["value"].mean())
    assert line["low"] <= line["value"] <= line["high"]
    assert "swav_800ep_pretrain.pth.tar (108 MB) is not in" in report.missing["swav-distance"]
    text = markdown(report)
    assert "linear and painter, scale 2, 2 steps" in text
    assert "- swav-distance: swav_800ep" in text
    assert "MindEye2" not in text  # another data set's rows do not belong beside these


def test_the_mean_over_subjects_has_an_interval_where_all_saw_the_same(workbench, drawn, tmp_path):
    table = pd.read_parquet(drawn / "metrics.parquet")
    twin = table.assign(subject="sub-02", file=table["file"])
    pd.concat([table, twin]).to_parquet(drawn / "metrics.parquet", index=False)
    report = score_folder(workbench, drawn, Features(tmp_path), scores=FEW[:1])
    mean, first, second = report.table.to_dict("records")
    assert mean["subject"] == "mean of 2"
    assert mean["value"] == pytest.approx(first["value"]) == pytest.approx(second["value"])
    assert mean["low"] == pytest.approx(first["low"])


def test_published_rows_stand_beside_nsd(workbench, drawn, tmp_path):
    report = score_folder(workbench, drawn, Features(tmp_path), scores=FEW)
    nsd = Report(report.per_picture, report.table, report.missing, report.settings, True)
    text = markdown(nsd)
    assert "N 1000" in text
    assert all(name in text for name in PUBLISHED)
    assert "low level only (a blur)" in text


def test_all_files_are_written(workbench, drawn, tmp_path):
    report = score_folder(workbench, drawn, Features(tmp_path), scores=FEW)
    written = write(report, tmp_path / "report")
    names = ["pictures.csv", "pictures.md", "pictures.png", "pictures.svg"]
    assert [p.name for p in written] == [*names, "pictures-each.csv", "pictures-each.parquet"]
    assert sorted(p.name for p in (tmp_path / "report").iterdir()) == sorted(
        p.name for p in written
    )
    each = pd.read_parquet(tmp_path / "report" / "pictures-each.parquet")
    assert list(each.columns) == [*("subject", "stimulus", "score", "sample", "value", "counted")]
    assert len(each) == 10
    assert json.loads((drawn / "settings.json").read_text())["dataset"] == "fake"
    assert "brain-correlation: There is no encoding model for fake/sub-01; train one" in (
        (tmp_path / "report" / "pictures.md").read_text()
    )
    empty = score_folder(workbench, drawn, Features(tmp_path), scores=FEW[1:])
    with pytest.raises(UserError, match="No score could be computed"):
        write(empty, tmp_path / "none")


# ------------------------------------------------------------------------------ brain correlation


@pytest.fixture(scope="module")
def encoded(fakes, fake_checkpoints, tmp_path_factory):
    """Return checkpoints with an encoding model for sub-01 too."""
    from backends.encoders.voxelwise import train_encoding

    root = tmp_path_factory.mktemp("encoded") / "checkpoints"
    shutil.copytree(fake_checkpoints, root)
    study = fakes.Study()
    rows = fakes.Embedder().embed([fakes.picture(name) for name in study.stimuli.index])
    known = {fakes.space: dict(zip(study.stimuli.index, rows, strict=True))}
    about = {"command": "made by a test", "licence": "CC0"}
    train_encoding(study.load("sub-01"), known, root / "encoding" / "fake" / "sub-01", **about)
    return root


@pytest.fixture
def seeing(make_workbench, encoded):
    """Return a workbench whose subject sub-01 has an encoding model."""
    return make_workbench(
        checkpoints=encoded, encoders={"encoding": "backends.encoders.voxelwise:Encoding"}
    )


def show(folder, pictures):
    """Put pictures (stimulus -> uint8 image) in the place of those that were drawn."""
    _, table = load(folder)
    for stimulus, file in zip(table["stimulus"], table["file"], strict=True):
        Image.fromarray(pictures[stimulus]).save(folder / file)


def test_the_shown_pictures_predict_the_brain_where_it_answers_to_them(
    seeing, fakes, drawn, tmp_path
):
    stimuli = list(dict.fromkeys(load(drawn)[1]["stimulus"]))
    show(drawn, {s: fakes.picture(s) for s in stimuli})
    report = score_folder(seeing, drawn, Features(tmp_path), scores=FEW[:1])
    assert list(report.table["id"]) == ["pixcorr-425", "brain-correlation"]
    assert not report.missing
    found = report.parcels.set_index("parcel")
    np.testing.assert_allclose(found["value"], found["shown image"], atol=1e-9)
    assert list(found.index[:1]) == ["all voxels"] and len(found) == 9
    assert (found["voxels"].iloc[0], set(found["voxels"].iloc[1:])) == (200, {25})
    assert (found["N"] == 5).all() and (found["low"] <= found["value"]).all()
    for parcel, line in found.iloc[1:].iterrows():
        informative = parcel.split()[0] in fakes.informative
        assert (line["value"] > line["chance"] + 0.5) == informative, parcel
        assert abs(line["chance"]) < 0.6
    # one picture in one parcel, by hand
    trials = seeing.catalogue.trials("fake", "sub-01")
    encoder = seeing.models.encoder("fake", "sub-01")
    parcellation = parcellation_of(seeing, "fake", "sub-01")
    mean, sd = encoder.statistics()
    z = fakes.Embedder().embed([fakes.picture(stimuli[3])])
    row = [label.key for label in parcellation.labels].index("fusiform L")
    mask = parcellation.masks()[row]
    pair = [
        (betas - mean) / sd
        for betas in (encoder.predict({fakes.space: z})[0], trials.average(stimuli[3]))
    ]
    expected = np.corrcoef(pair[0][mask], pair[1][mask])[0, 1]
    each = report.per_picture
    chosen = (each["score"] == "brain-correlation fusiform L") & (each["stimulus"] == stimuli[3])
    np.testing.assert_allclose(each[chosen]["value"], [expected] * 2, atol=1e-6)


def test_pictures_of_other_stimuli_reach_the_level_of_chance(seeing, fakes, drawn, tmp_path):
    stimuli = list(dict.fromkeys(load(drawn)[1]["stimulus"]))
    show(
        drawn,
        {s: fakes.picture(t) for s, t in zip(stimuli, stimuli[1:] + stimuli[:1], strict=True)},
    )
    report = score_folder(seeing, drawn, Features(tmp_path), scores=FEW[:1])
    found = report.parcels.set_index("parcel").loc["all voxels"]
    assert found["value"] < 0.3 < found["shown image"]
    assert found["high"] < found["shown image"]
    text = markdown(report)
    assert "## Brain correlation by parcel of Desikan-Killiany" in text
    assert "| sub-01 | fusiform L | 25 |" in text and "ridge encoding model" in text
    names = [p.name for p in write(report, tmp_path / "report")]
    assert "pictures-parcels.csv" in names
    kept = pd.read_csv(tmp_path / "report" / "pictures-parcels.csv")
    np.testing.assert_allclose(kept["value"], report.parcels["value"], rtol=1e-5)
    unknown = score_folder(seeing, drawn, Features(tmp_path), scores=FEW[:1], atlas="HCP")
    assert "fake/sub-01 has no atlas 'HCP'; choose one of" in unknown.missing["brain-correlation"]


def test_parcels_are_averaged_over_subjects_too(seeing, drawn, tmp_path, monkeypatch):
    table = pd.read_parquet(drawn / "metrics.parquet")
    pd.concat([table, table.assign(subject="sub-02")]).to_parquet(drawn / "metrics.parquet")
    plain = seeing.models.encoder
    monkeypatch.setattr(seeing.models, "encoder", lambda d, s: plain(d, "sub-01"))
    report = score_folder(seeing, drawn, Features(tmp_path), scores=FEW[:1])
    rows = report.parcels[report.parcels["parcel"] == "fusiform R"].set_index("subject")
    one, two, mean = (rows.loc[who] for who in ("sub-01", "sub-02", "mean of 2"))
    for column in ("value", "chance", "shown image"):
        assert mean[column] == pytest.approx((one[column] + two[column]) / 2)
    assert mean["low"] <= mean["value"] <= mean["high"]


@pytest.mark.parametrize("point", ["part", "picture", "list", "table"])
def test_a_process_killed_while_it_draws_costs_only_its_batch(workbench, drawn, tmp_path, point):
    import os
    import signal

    import backends.commands.reconstruct as command
    from explorer import writing

    out, name = tmp_path / "killed", {"picture": ".png.part", "part": ".png", "list": ".json"}
    if not (pid := os.fork()):
        replace_, seen = os.replace, []

        def replacing(part, path):
            seen.append(str(path))
            ends = ".parquet" if point == "table" else name[point].removesuffix(".part")
            count = sum(one.endswith(ends) and "settings" not in one for one in seen)
            if str(path).endswith(ends) and count == (1 if point == "table" else 4):
                if point == "part":
                    part.write_bytes(b"half")
                else:
                    replace_(part, path)
                os.kill(os.getpid(), signal.SIGKILL)
            replace_(part, path)

        writing.os.replace = replacing
        try:
            command.draw(workbench, JOB, out)
        finally:
            os._exit(7)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    reconstruct(workbench, JOB, out)
    assert files(out) == files(drawn)
    assert load(out)[1].equals(load(drawn)[1])


def test_a_damaged_list_of_a_batch_is_drawn_again_and_damaged_settings_are_named(workbench, drawn):
    part = drawn / ".parts" / "00001.json"
    whole, pictures = part.read_bytes(), files(drawn)
    for content in (b"", whole[:40], b"[3]", b'[{"name": 1}]'):
        part.write_bytes(content)
        said = []
        reconstruct(workbench, JOB, drawn, said.append)
        assert [one.done for one in said] == [6] and part.read_bytes() == whole
    assert files(drawn) == pictures
    (drawn / "settings.json").write_bytes(b"")
    with pytest.raises(UserError, match=r"settings\.json .*JSON"):
        reconstruct(workbench, JOB, drawn)

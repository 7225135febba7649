"""Pictures that stay: the same after a restart, thrown away when damaged, bounded in size."""

import errno
import os
import resource
import time
from dataclasses import replace

import numpy as np
from PIL import Image

from explorer.choosing import default_request
from explorer.drawing import draw_samples, reconstruct
from explorer.finished import finished_pictures, is_drawn
from explorer.protocols import Neighbour
from explorer.store import Finished, Store


def picture(value=7, side=24):
    pixels = np.random.default_rng(value).integers(0, 256, (side, side + 3, 3), dtype=np.uint8)
    near = (Neighbour("im 1", "a house", 0.25),)
    return Finished(pixels, {"PixCorr": 0.125, "SSIM": float("nan")}, "Said beside it.", near)


CHOSEN = {"request": {"scales": (1.0,), "seed": 3}, "weights": {"mapper": "abc"}, "data": "d"}


def test_a_picture_comes_back_as_it_was_in_another_process_too(tmp_path):
    Store(tmp_path / "new").put(CHOSEN, picture())
    found = Store(tmp_path / "new").get(CHOSEN)
    assert np.array_equal(found.image, picture().image)
    assert found.scores["PixCorr"] == 0.125 and np.isnan(found.scores["SSIM"])
    assert (found.note, found.neighbours) == (picture().note, picture().neighbours)
    for changed in ({"data": "e"}, {"weights": {"mapper": "abd"}}, {"request": {"seed": 4}}):
        assert Store(tmp_path / "new").get(CHOSEN | changed) is None


def entry(folder):
    (path,) = folder.glob("??/*.png")
    return path


def test_a_damaged_entry_is_thrown_away(tmp_path):
    store = Store(tmp_path)
    store.put(CHOSEN, picture())
    whole = entry(tmp_path).read_bytes()
    for damaged in (b"", whole[:40], whole[: len(whole) // 2], b"x" * 100):
        entry(tmp_path).write_bytes(damaged)
        assert store.get(CHOSEN) is None and len(store) == 0
        store.put(CHOSEN, picture())
    assert entry(tmp_path).read_bytes() == whole


def test_an_entry_that_holds_another_picture_is_thrown_away(tmp_path):
    """Put under another's name, or with pixels that somebody changed."""
    store = Store(tmp_path)
    store.put(CHOSEN | {"data": "other"}, picture(8))
    other = entry(tmp_path)
    store.put(CHOSEN, picture())
    (mine,) = (p for p in tmp_path.glob("??/*.png") if p != other)
    mine.write_bytes(other.read_bytes())
    assert store.get(CHOSEN) is None and not mine.exists()

    store.put(CHOSEN, picture())
    from explorer.images import read_lossless, write_lossless

    pixels, text = read_lossless(mine)
    mine.write_bytes(write_lossless(255 - pixels, text))
    assert store.get(CHOSEN) is None and not mine.exists()
    Image.new("L", (3, 3)).save(mine)
    assert store.get(CHOSEN) is None and not mine.exists()


def test_the_longest_unused_go_first_when_it_is_full(tmp_path):
    size = len((Store(tmp_path / "one").put(CHOSEN, picture()), entry(tmp_path / "one"))[1]
               .read_bytes())  # fmt: skip
    store = Store(tmp_path / "many", most=int(5.5 * size))
    for i in range(5):
        store.put(CHOSEN | {"data": str(i)}, picture())
    for path in (tmp_path / "many").glob("??/*.png"):
        os.utime(path, (1, 1))
    assert store.get(CHOSEN | {"data": "2"}) is not None  # used just now
    store.put(CHOSEN | {"data": "5"}, picture())
    there = [i for i in range(6) if store.get(CHOSEN | {"data": str(i)})]
    assert 2 in there and 5 in there and len(there) == 4  # room for the next, too


def test_half_written_files_go_when_they_are_nobodys(tmp_path):
    store = Store(tmp_path)
    store.put(CHOSEN, picture())
    folder = entry(tmp_path).parent
    name = entry(tmp_path).stem
    old, young = (folder / f".{name}.{word}.part" for word in ("old", "young"))
    old.write_bytes(b"x")
    young.write_bytes(b"x")
    os.utime(old, (time.time() - 7200,) * 2)
    assert len(Store(tmp_path)) == 1 and not old.exists() and young.exists()


def test_what_is_not_ours_is_left_alone(tmp_path):
    (tmp_path / "01").mkdir()
    own = [tmp_path / "01" / name for name in ("mine.png", ".mine.part", f"{'a' * 64}.png")]
    for path in own:
        path.write_bytes(b"x" * 5000)
        os.utime(path, (1, 1))
    store = Store(tmp_path, most=6000)
    for i in range(4):
        store.put(CHOSEN | {"data": str(i)}, picture())
    assert all(path.exists() for path in own)
    assert [path.stat().st_mode & 0o777 for path in tmp_path.glob("??/*.png")
            if len(path.stem) == 64 and path not in own] == [0o644] * len(store)  # fmt: skip


def test_an_entry_that_cannot_be_read_or_removed_is_not_there(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.put(CHOSEN, picture())
    monkeypatch.setattr(os, "access", lambda path, how: False)  # as another user's alone
    assert store.get(CHOSEN) is None and entry(tmp_path).exists()
    monkeypatch.undo()
    entry(tmp_path).write_bytes(b"damaged")

    def refuses(path, missing_ok=False):
        raise PermissionError("a folder that may only be read")

    monkeypatch.setattr(type(tmp_path), "unlink", refuses)
    assert store.get(CHOSEN) is None


def test_a_full_disk_is_told_once_and_nothing_is_lost(tmp_path):
    told, before = [], resource.getrlimit(resource.RLIMIT_FSIZE)
    store = Store(tmp_path, report=told.append)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    try:
        for i in range(3):
            store.put(CHOSEN | {"data": str(i)}, picture())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert told == [
        f"Pictures are not kept in {tmp_path} any more ({os.strerror(errno.EFBIG)}); make room "
        "there or name another folder with --store."
    ]
    assert len(store) == 0 and not [p for p in tmp_path.rglob("*") if p.is_file()]


# --------------------------------------------------------------------------- through a workbench


def test_after_a_restart_pictures_come_without_a_model(make_workbench, tmp_path, monkeypatch):
    first = make_workbench(store=Store(tmp_path))
    request = default_request(first.catalogue)
    drawn = [frame for frame in reconstruct(first, request) if frame.done]
    again = make_workbench(store=Store(tmp_path))
    monkeypatch.setattr(again.models, "generator", None)
    monkeypatch.setattr(again.models, "mapper", None)
    assert is_drawn(again, request)
    for mine, theirs in zip(finished_pictures(again, request), drawn, strict=True):
        assert np.array_equal(mine.image, theirs.image) and mine.scores == theirs.scores
    assert [frame.done for frame in reconstruct(again, request)] == [True] * len(drawn)


def test_other_betas_or_pictures_under_the_same_names_are_others(make_workbench, fakes, tmp_path):
    bench = make_workbench(store=Store(tmp_path))
    request = default_request(bench.catalogue)
    list(reconstruct(bench, request))

    class Louder(fakes.Study):
        def load(self, subject):
            trials = super().load(subject)
            return replace(trials, betas=2 * np.asarray(trials.betas))

    class Darker(fakes.Study):
        def image(self, stimulus):
            return super().image(stimulus) // 2

    same = make_workbench(store=Store(tmp_path))
    assert is_drawn(same, request)
    for study in (Louder, Darker):
        other = make_workbench(store=Store(tmp_path), datasets={"fake": study})
        assert not finished_pictures(other, request)


def test_other_weights_are_others(make_workbench, fake_checkpoints, tmp_path):
    import shutil

    bench = make_workbench(store=Store(tmp_path / "store"))
    request = default_request(bench.catalogue)
    list(reconstruct(bench, request))
    shutil.copytree(fake_checkpoints, tmp_path / "checkpoints")
    (tmp_path / "checkpoints" / request.generator).mkdir()
    (tmp_path / "checkpoints" / request.generator / "weights").write_bytes(b"others")
    other = make_workbench(store=Store(tmp_path / "store"), checkpoints=tmp_path / "checkpoints")
    assert not finished_pictures(other, request)


def test_samples_and_lesions_do_not_take_each_others_place(make_workbench, tmp_path):
    """A trial's picture, and one drawn from another condition, decide differently."""
    from explorer.drawing import condition_of, draw_condition

    bench = make_workbench(store=Store(tmp_path))
    request = replace(default_request(bench.catalogue), scales=(2.0,))
    (own,) = (f for f in reconstruct(bench, request) if f.done)
    betas = np.zeros(bench.catalogue.trials("fake", request.subject).betas.shape[1], np.float32)
    lesioned = draw_condition(bench, request, condition_of(bench, request, betas))
    again = make_workbench(store=Store(tmp_path))
    (kept,) = finished_pictures(again, request)
    assert np.array_equal(kept.image, own.image)
    assert not np.array_equal(lesioned.image, own.image) and len(again.store) == 2
    assert draw_samples(again, request) == []

"""Embeddings on disk: kept by content, believed only when whole, and never too many."""

import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from backends.embedders.store import Store, embed_kept, embed_stimuli, key_of
from backends.training.counted import Counted
from explorer.types import EmbeddingSpace

SPACE = EmbeddingSpace("counter", "sums", (2, 3))
TEXT = EmbeddingSpace("counter", "letters", (2,))


class Counter:
    """Says how many pictures it embedded; the weights can be exchanged."""

    spaces, text_spaces = (SPACE,), (TEXT,)

    def __init__(self, fingerprint="first", factor=1.0):
        self.fingerprint, self.factor, self.embedded = fingerprint, factor, 0

    def embed(self, images, space):
        self.embedded += len(images)
        sums = [i.astype(float).sum(axis=(0, 1)) for i in images]
        return (self.factor * np.stack([[s, s / 7] for s in sums])).astype(np.float32)

    def embed_text(self, captions, space):
        self.embedded += len(captions)
        return np.array([[c.count("a"), c.count("b")] for c in captions], np.float32)


def study(n=6, seed=0, brighter=None):
    """Return n pictures of different sizes with captions; one of them may be another picture."""
    rng = np.random.default_rng(seed)
    pictures = {f"s{i}": rng.integers(0, 200, (4 + i % 2, 4, 3), np.uint8) for i in range(n)}
    if brighter:
        pictures[brighter] = pictures[brighter] + 1
    table = pd.DataFrame({"caption": ["ab" * i + "c" for i in range(n)]}, index=list(pictures))
    return SimpleNamespace(name="mine", stimuli=table, image=pictures.__getitem__)


def run(embedder, folder, stimuli=("s0", "s1", "s2"), space=SPACE, progress=None, **changed):
    data = study(**changed)
    found = embed_stimuli(data, list(stimuli), embedder, space, progress, cache=folder)
    direct = embed_stimuli(data, list(stimuli), type(embedder)(factor=embedder.factor), space)
    assert list(found) == list(direct)
    for stimulus, z in direct.items():
        np.testing.assert_array_equal(found[stimulus], z)
    return embedder.embedded


def files(folder):
    return sorted(folder.rglob("*.safetensors"))


def test_a_second_run_embeds_nothing_and_gives_the_same(tmp_path):
    assert run(Counter(), tmp_path) == 3
    assert run(Counter(), tmp_path) == 0
    assert run(Counter(), tmp_path, ["s2", "s4", "s0", "s5"]) == 2  # only what is new
    assert run(Counter(), tmp_path, ["s5", "s4", "s3"]) == 1


def test_embedding_is_counted_for_a_bar(tmp_path):
    said = []
    run(Counter(), tmp_path, [f"s{i}" for i in range(6)], progress=said.append)
    assert [(one.work, one.done, one.total, one.unit) for one in said] == [
        (SPACE.name, 6, 6, "pictures")
    ]
    assert said == [f"{SPACE.name}: 6/6 pictures embedded"]


def test_without_a_folder_or_a_fingerprint_nothing_is_kept(tmp_path):
    assert run(Counter(), None) == 3
    assert run(Counter(fingerprint=""), tmp_path) == 3
    assert not files(tmp_path)


def test_other_weights_and_changed_pictures_are_embedded_anew(tmp_path):
    assert run(Counter(), tmp_path) == 3
    assert run(Counter("second", factor=2.0), tmp_path) == 3
    assert run(Counter(), tmp_path, brighter="s1") == 1
    assert run(Counter(), tmp_path, seed=1) == 3  # other pictures under the same names


def test_captions_are_kept_apart_from_pictures(tmp_path):
    assert run(Counter(), tmp_path, space=TEXT) == 3
    assert run(Counter(), tmp_path, space=TEXT) == 0
    assert run(Counter(), tmp_path) == 3


def test_equal_pictures_are_embedded_once(tmp_path):
    picture, counter = np.zeros((4, 4, 3), np.uint8), Counter()
    store = Store(tmp_path, counter, SPACE)
    rows = embed_kept([picture, picture + 1, picture], lambda p: counter.embed(p, SPACE), store)
    assert counter.embedded == 2 and len(rows) == 3
    np.testing.assert_array_equal(rows[0], rows[2])


def test_the_shape_of_a_picture_is_part_of_what_it_is():
    flat = np.arange(24, dtype=np.uint8)
    assert key_of(flat.reshape(2, 4, 3)) != key_of(flat.reshape(4, 2, 3))
    assert key_of("a") != key_of("b")


@pytest.mark.parametrize("harm", ["cut", "bit", "text", "empty"])
def test_a_damaged_file_is_made_again(tmp_path, harm):
    run(Counter(), tmp_path)
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    broken = {
        "cut": whole[:-5],
        "bit": whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:],
        "text": b"not a tensor",
        "empty": b"",
    }
    file.write_bytes(broken[harm])
    assert run(Counter(), tmp_path) == 3
    assert run(Counter(), tmp_path) == 0
    assert files(tmp_path) == [file] and file.stat().st_size == len(whole)


def test_a_file_of_other_weights_is_not_believed(tmp_path):
    run(Counter("second", factor=2.0), tmp_path)
    run(Counter(), tmp_path)
    mine, theirs = (Store(tmp_path, Counter(f), SPACE).folder for f in ("first", "second"))
    (file,), (foreign,) = files(mine), files(theirs)
    file.write_bytes(foreign.read_bytes())
    assert run(Counter(), tmp_path) == 3


def test_what_was_used_longest_ago_makes_room(tmp_path):
    row, limit = np.ones(SPACE.shape, np.float32), 10**6
    for i in range(4):
        store = Store(tmp_path, Counter(), SPACE, limit=limit)
        store.add({f"key{i}": row * i})
        store.flush()
        limit = 3.5 * files(tmp_path)[0].stat().st_size
        for file in files(tmp_path):
            about = file.stat()
            os.utime(file, (about.st_atime - 100, about.st_mtime - 100))
        assert Store(tmp_path, Counter(), SPACE).get("key0") is not None  # now it is new again
    kept = Store(tmp_path, Counter(), SPACE)
    assert [kept.get(f"key{i}") is not None for i in range(4)] == [True, False, True, True]


def test_half_written_files_go_when_they_are_old(tmp_path):
    run(Counter(), tmp_path)
    old, new = tmp_path / "a.part", tmp_path / "b.part"
    for part in (old, new):
        part.write_bytes(b"half")
    os.utime(old, (1e9, 1e9))
    run(Counter(), tmp_path, ["s5"])
    assert not old.exists() and new.exists()
    assert run(Counter(), tmp_path, ["s5"]) == 0


def test_a_disk_that_takes_nothing_is_said_and_stops_nobody(tmp_path):
    (tmp_path / "file").write_text("in the way")
    said = []
    assert run(Counter(), tmp_path / "file", progress=said.append) == 3
    said = [sentence for sentence in said if not isinstance(sentence, Counted)]
    assert "3 embeddings in counter/sums could not be kept in" in said[0]
    assert "another folder is named with --cache" in said[0]


def test_a_run_that_is_stopped_keeps_what_it_has(tmp_path):
    data = study(140)
    read = data.image

    def image(stimulus):
        if stimulus == "s135":
            raise KeyboardInterrupt
        return read(stimulus)

    data.image = image
    with pytest.raises(KeyboardInterrupt):
        embed_stimuli(data, list(data.stimuli.index), Counter(), SPACE, cache=tmp_path)
    assert run(Counter(), tmp_path, list(data.stimuli.index), n=140) == 12

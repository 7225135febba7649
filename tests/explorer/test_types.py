"""The nouns: what each refuses, by the text of its message, and what it computes."""

import ast
import json
import subprocess
import sys
import threading
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from explorer import types
from explorer.request import Request, View
from explorer.types import (
    FSAVERAGE5_VERTICES,
    Card,
    EmbeddingSpace,
    Label,
    Parcellation,
    Subject,
    Trials,
    UserError,
    VoxelSpace,
    resolve,
    voxel_hash,
)

LABELS = (Label("V1", "L"), Label("V1", "R"), Label("area 7"))


# ------------------------------------------------------------------------------------------- brain


def test_label_keys():
    assert [label.key for label in LABELS] == ["V1 L", "V1 R", "area 7"]


def test_masks_of_a_partition_have_unassigned_last():
    atlas = Parcellation("a", "partition", LABELS, np.array([0, -1, 2, 0]), "h")
    assert atlas.n_voxels == 4
    expected = [[1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]]
    np.testing.assert_array_equal(atlas.masks(), np.array(expected, dtype=bool))
    assert (atlas.masks().sum(axis=0) == 1).all()


def test_masks_that_overlap():
    member = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]], dtype=bool)
    atlas = Parcellation("a", "masks", LABELS, member, "h")
    assert atlas.n_voxels == 3
    np.testing.assert_array_equal(atlas.masks()[:3], member)
    np.testing.assert_array_equal(atlas.masks()[3], [False, False, True])


@pytest.mark.parametrize(
    ("kind", "labels", "member", "message"),
    [
        ("partition", (Label("a"), Label("a")), [0], "Atlas 'x' names the parcel 'a' twice"),
        ("partition", (Label("a"), Label("b")), [0, 2], "index from -1 to 1 .* values up to 2"),
        ("partition", (Label("a"),), [0, -2], "one index from -1 to 0 per voxel"),
        ("partition", (Label("a"),), [[0]], r"found shape \(1, 1\)"),
        ("masks", (Label("a"),), [0, 1], r"bool array \(1, voxels\), found int64 \(2,\)"),
        ("masks", (Label("a"),), [[0, 1]], r"found int64 \(1, 2\)"),
        ("masks", (Label("a"), Label("b")), [[True]], r"\(2, voxels\), found bool \(1, 1\)"),
    ],
)
def test_membership_that_does_not_fit_the_labels(kind, labels, member, message):
    with pytest.raises(UserError, match=message):
        Parcellation("x", kind, labels, np.array(member), "h")


def test_a_surface_that_does_not_fit_the_labels():
    with pytest.raises(UserError, match=r"surface needs .* 20484 vertices, found shape \(3,\)"):
        Parcellation("x", "partition", LABELS, np.zeros(2, int), "h", np.zeros(3, int))
    far = np.full(FSAVERAGE5_VERTICES, 3)
    with pytest.raises(UserError, match="index from -1 to 2 .* values up to 3"):
        Parcellation("x", "partition", LABELS, np.zeros(2, int), "h", far)


def test_voxel_hash_sees_values_order_and_type():
    ids = np.array([3, 5, 8])
    assert voxel_hash(ids) == voxel_hash(ids.copy()) and len(voxel_hash(ids)) == 16
    others = [ids[::-1], ids.astype(np.int32), ids[:2], ids[None]]
    assert len({voxel_hash(ids), *map(voxel_hash, others)}) == 5
    assert voxel_hash("a", 1) != voxel_hash("a", "1")
    assert voxel_hash(np.asfortranarray(np.ones((2, 3)))) == voxel_hash(np.ones((2, 3)))


def test_voxel_space_refuses_what_is_of_other_voxels():
    projection = sp.csr_matrix((FSAVERAGE5_VERTICES, 4))
    with pytest.raises(UserError, match=r"3 voxels has shape \(20484, 3\), found \(20484, 4\)"):
        VoxelSpace(3, "h", projection)
    atlas = Parcellation("a", "partition", LABELS, np.zeros(4, int), "h")
    VoxelSpace(4, "h", projection, parcellations={"a": atlas})
    with pytest.raises(UserError, match=r"made for 4 voxels \(hash h\), .* has 4 \(hash other\)"):
        VoxelSpace(4, "other", parcellations={"a": atlas})
    with pytest.raises(UserError, match="'a' was made for 4 voxels .* this voxel space has 3"):
        VoxelSpace(3, "h", parcellations={"a": atlas})


# ----------------------------------------------------------------------------------------- studies


@pytest.fixture
def trials():
    table = pd.DataFrame(
        {
            "stimulus": ["b", "a", "a", "c", "c", "c"],
            "split": ["train", "train", "train", "test", "test", "test"],
            "repeat": [0, 0, 1, 0, 1, 2],
            "session": 1,
            "run": 1,
        }
    )
    betas = np.arange(12, dtype=np.float64).reshape(6, 2)
    return Trials(Subject("study", "s1", VoxelSpace(2, "h")), betas, "z", table)


def test_rows_stimuli_and_averages(trials):
    assert trials.rows("train").tolist() == [0, 1, 2]
    assert trials.rows("train", "a").tolist() == [1, 2]
    assert trials.rows("test", "c", (0, 2)).tolist() == [3, 5]
    assert trials.stimuli("train") == ["b", "a"] and trials.stimuli("test") == ["c"]
    mean = trials.average("c")
    assert mean.dtype == np.float32 and mean.tolist() == [8, 9]
    assert trials.average("c", (1,)).tolist() == [8, 9]
    assert trials.average("a", split="train").tolist() == [3, 4]


def test_averages_that_do_not_exist(trials):
    with pytest.raises(
        UserError, match="study/s1 has no test trial of stimulus 'a'; choose one of"
    ):
        trials.average("a")
    with pytest.raises(UserError, match="no test trial of repeat 4, 6 of stimulus 'c'"):
        trials.average("c", (3, 5))


def test_trials_that_do_not_fit_together(trials):
    with pytest.raises(UserError, match=r"study/s1: betas need shape \(trials, 2\) .* \(6, 3\)"):
        replace(trials, betas=np.zeros((6, 3)))
    with pytest.raises(UserError, match=r"for 2 voxels, found \(6,\)"):
        replace(trials, betas=np.zeros(6))
    with pytest.raises(UserError, match="5 rows of betas but 6 rows in the trial table"):
        replace(trials, betas=np.zeros((5, 2)))
    with pytest.raises(UserError, match=r"lacks the column\(s\) repeat, run"):
        replace(trials, table=trials.table.drop(columns=["repeat", "run"]))
    with pytest.raises(UserError, match="split must be train or test, found 'val'"):
        replace(trials, table=trials.table.assign(split=["val"] + ["test"] * 5))


def test_ncsnr_of_another_length():
    with pytest.raises(UserError, match=r"study/s1: ncsnr .* 2 voxels, found shape \(3,\)"):
        Subject("study", "s1", VoxelSpace(2, "h"), ncsnr=np.ones(3))


def test_maps_of_another_length_or_without_numbers():
    space = VoxelSpace(2, "h")
    prf = {"prf size": np.array([1.0, np.nan])}
    assert Subject("study", "s1", space, maps=prf).maps == prf
    assert Subject("study", "s1", space).maps == {}
    with pytest.raises(UserError, match=r"study/s1: prf size .* 2 voxels, found shape \(3,\)"):
        Subject("study", "s1", space, maps={"prf size": np.ones(3)})
    with pytest.raises(UserError, match=r"study/s1: roi .* found shape \(2,\) of <U2"):
        Subject("study", "s1", space, maps={"roi": np.array(["V1", "V2"])})


# -------------------------------------------------------------------------------------- embeddings


def test_embedding_spaces_are_equal_after_json():
    space = EmbeddingSpace("clip", "image", (4, 8), True)
    again = EmbeddingSpace.from_dict(json.loads(json.dumps(asdict(space))))
    assert again == space and hash(again) == hash(space) and again.shape == (4, 8)
    assert space.name == "clip/image" and space.size == 32


@pytest.mark.parametrize("shape", [(), (0,), (4, -1)])
def test_embedding_spaces_without_size(shape):
    with pytest.raises(UserError, match="space clip/image needs positive sizes, found"):
        EmbeddingSpace("clip", "image", shape)


# ------------------------------------------------------------------------------------- checkpoints


def card(**changes):
    values = {
        "kind": "mapper", "name": "n", "cls": "ridge", "dataset": "d", "command": "c",
        "licence": "MIT", "subjects": ("s",), "voxels": {"s": (3, "h")},
        "targets": (EmbeddingSpace("clip", "image", (4,)),),
    }  # fmt: skip
    return Card(**{**values, **changes})


def test_cards_are_equal_after_json():
    first = card(settings={"alpha": 1.5}, seconds=2.0)
    assert Card.from_dict(json.loads(json.dumps(first.to_dict()))) == first
    assert first.voxels == {"s": (3, "h")} and first.targets[0].shape == (4,)


def test_cards_with_too_much_or_too_little():
    values = card().to_dict()
    with pytest.raises(UserError, match="unknown field 'colour'; it was made by another version"):
        Card.from_dict({**values, "colour": 1})
    with pytest.raises(UserError, match="card.json is not a valid card: .*'licence'"):
        Card.from_dict({k: v for k, v in values.items() if k != "licence"})
    for broken in ({"voxels": {"s": 3}}, {"voxels": {"s": ("many", "h")}}, {"targets": [{}]}):
        with pytest.raises(UserError, match="card.json is not a valid card"):
            Card.from_dict({**values, **broken})


# ---------------------------------------------------------------------------------------- the rest


def test_resolve():
    assert resolve("explorer.types:Label") is Label
    assert resolve(Label) is Label


def test_two_threads_that_import_from_two_ends_get_whole_modules(tmp_path, monkeypatch):
    """As libraries do that import on first use: one end needs the other, which needs the first."""
    (tmp_path / "slowly.py").write_text(
        "import threading\nboth = threading.Barrier(2)\n"
        "def meet():\n"
        "    try:\n        both.wait(0.3)\n"
        "    except threading.BrokenBarrierError:\n        pass\n"
    )
    (tmp_path / "one_end.py").write_text(
        "import slowly\nslowly.meet()\nfrom other_end import Other\nclass One: pass\n"
    )
    (tmp_path / "other_end.py").write_text(
        "import slowly\nslowly.meet()\nimport one_end\nclass Other: pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = {}

    def get(entry):
        try:
            found[entry] = resolve(entry).__name__
        except Exception as error:  # what a half-made module raises
            found[entry] = error

    threads = [
        threading.Thread(target=get, args=(entry,)) for entry in ("one_end:One", "other_end:Other")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ("slowly", "one_end", "other_end"):
        sys.modules.pop(name, None)
    assert found == {"one_end:One": "One", "other_end:Other": "Other"}


def test_nouns_are_frozen(trials):
    chosen = Request("d", "s", "t", "m", "g"), View()
    for noun in (LABELS[0], trials, trials.subject, *chosen, card()):
        with pytest.raises(AttributeError):
            setattr(noun, fields(noun)[0].name, None)


def test_types_import_nothing_of_ours_and_nothing_heavy():
    source = Path(types.__file__).read_text(encoding="utf-8")
    tree = ast.parse(source)
    modules = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not [m for m in modules if m.startswith(("explorer", "backends"))]
    code = "import sys, explorer.types; print(*sys.modules)"
    root = Path(types.__file__).parents[1]
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "pandas", "scipy", "gradio", "nilearn", "matplotlib"} & set(loaded)

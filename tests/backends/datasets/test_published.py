"""Published results: whose row is whose, and files that are not opened.

Result k of a planted set can be told from all others, so a wrong order or row is seen.
"""

import argparse
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import app
from backends.datasets.published import stimuli_in_order
from explorer.choosing import default_request
from explorer.drawing import reconstruct
from explorer.types import UserError
from tests.miniatures.published import (
    APPEARANCE,
    ASCENDING,
    NUMBERS,
    number,
    order_shown,
    picture,
    planted,
    resized,
    shown,
)


@pytest.mark.parametrize("kind", ["recons", "enhancedrecons", "blurryrecons"])
def test_mindeye2_pictures_go_by_ascending_id(open_results, tmp_path, kind):
    path = tmp_path / f"final_subj01_pretrained_40sess_24bs_all_{kind}.pt"
    torch.save(planted(), path)
    bench = open_results(path)
    assert order_shown(bench, ASCENDING) == list(range(10))


def test_other_orders_are_said(open_results, tmp_path):
    torch.save(planted(), tmp_path / "pictures.pt")
    with pytest.raises(UserError, match=r"say which images .* [?]order=ascending .*appearance"):
        open_results(tmp_path / "pictures.pt")
    bench = open_results(tmp_path / "pictures.pt", order="appearance")
    assert order_shown(bench, APPEARANCE) == list(range(10))
    bench = open_results(tmp_path / "pictures.pt", order="ascending")
    assert order_shown(bench, ASCENDING) == list(range(10))
    with pytest.raises(UserError, match="ascending or appearance or the path .* found 'sorted'"):
        open_results(tmp_path / "pictures.pt", order="sorted")


@pytest.mark.parametrize("form", ["ids.txt", "numbers.txt", "numbers.npy"])
def test_a_file_of_ids_says_the_order(open_results, tmp_path, form):
    torch.save(planted(), tmp_path / "pictures.pt")
    order, given = np.random.default_rng(3).permutation(10), tmp_path / form
    if form == "numbers.npy":
        np.save(given, np.array(NUMBERS)[order])
    else:
        listed = APPEARANCE if form == "ids.txt" else [str(n) for n in NUMBERS]
        given.write_text("\n".join(listed[i] for i in order) + "\n")
    bench = open_results(tmp_path / "pictures.pt", order=str(given))
    assert [order[k] for k in order_shown(bench)] == list(range(10))


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (APPEARANCE[:9], "holds 10 results, .* names 9 images; they must be equal"),
        ([*APPEARANCE[:9], APPEARANCE[0]], "names nsd-71200 twice"),
        (
            [f"img{i}" for i in range(10)],
            "names no test image of .*begins with img0",
        ),
    ],
)
def test_a_file_of_ids_that_does_not_fit(open_results, tmp_path, lines, sentence):
    torch.save(planted(), tmp_path / "pictures.pt")
    (tmp_path / "ids.txt").write_text("\n".join(lines))
    with pytest.raises(UserError, match=sentence):
        open_results(tmp_path / "pictures.pt", order=str(tmp_path / "ids.txt"))


def test_the_shown_images_say_the_order_by_their_pixels(open_results, fakes, tmp_path):
    order = np.random.default_rng(5).permutation(10)
    torch.save(planted(), tmp_path / "pictures.pt")
    torch.save(resized(fakes, [APPEARANCE[i] for i in order]), tmp_path / "all_images.pt")
    given = {"order": str(tmp_path / "all_images.pt")}
    bench = open_results(tmp_path / "pictures.pt", **given)
    assert [order[k] for k in order_shown(bench)] == list(range(10))


def test_other_images_say_no_order(open_results, fakes, tmp_path):
    torch.save(planted(), tmp_path / "pictures.pt")
    given = {"order": str(tmp_path / "all_images.pt")}
    torch.save(resized(fakes, [*APPEARANCE[:9], "train-07"]), tmp_path / "all_images.pt")
    with pytest.raises(UserError, match="image 9 .* is like none of the 10 test images of fake"):
        open_results(tmp_path / "pictures.pt", **given)
    torch.save(resized(fakes, [*APPEARANCE[:9], APPEARANCE[4]]), tmp_path / "all_images.pt")
    with pytest.raises(UserError, match="images 4 and 9 .* are both like nsd-55001"):
        open_results(tmp_path / "pictures.pt", **given)
    torch.save(torch.zeros(10, 5), tmp_path / "all_images.pt")
    with pytest.raises(UserError, match=r"shape \(10, 5\), expected the shown images"):
        open_results(tmp_path / "pictures.pt", **given)


def test_results_of_fewer_sessions_are_of_fewer_images(open_results, tmp_path):
    """As Brain-Diffuser's 982 of NSD's 1,000: in either order another image gets each number."""
    torch.save(planted(6), tmp_path / "pictures.pt")
    with pytest.raises(UserError, match=r"holds 6 results, fake/sub-01 has 10 test images; .*982"):
        open_results(tmp_path / "pictures.pt", order="ascending")
    bench = open_results(tmp_path / "pictures.pt", order="ascending", sessions="1")
    assert order_shown(bench, sorted(APPEARANCE[:6])) == list(range(6))
    bench = open_results(tmp_path / "pictures.pt", order="appearance", sessions="1")
    assert order_shown(bench, APPEARANCE[:6]) == list(range(6))
    with pytest.raises(UserError, match="no picture for nsd-12345; only part of the test images"):
        shown(bench, "nsd-12345")
    with pytest.raises(UserError, match="holds 6 results, .* 10 test images in its first 2 sess"):
        open_results(tmp_path / "pictures.pt", order="appearance", sessions="2")
    with pytest.raises(UserError, match="sessions is a whole number from 1, found '0'"):
        open_results(tmp_path / "pictures.pt", order="appearance", sessions="0")


class Harmful:
    """What must never be run: loading its pickle would."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_pickled_objects_are_never_loaded(open_results, tmp_path):
    for name, write_it in (
        ("a_all_recons.pt", lambda p: torch.save([Harmful()], p)),
        ("old.pt", lambda p: p.write_bytes(pickle.dumps(Harmful()))),
        ("objects.npy", lambda p: np.save(p, np.array([Harmful()], object), allow_pickle=True)),
    ):
        write_it(tmp_path / name)
        with pytest.raises(
            UserError,
            match=f"{name} .*(pickled Python objects, .* so it is not read|cannot be read)",
        ):
            open_results(tmp_path / name, order="ascending")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: torch.save({"recons": planted()}, p), "holds a dict, expected one tensor"),
        (lambda p: torch.save(planted() * 2 - 1, p), r"values from -0.84\S* to .*expected 0 to 1"),
        (lambda p: torch.save(planted() / 0, p), "holds values that are not finite"),
        (lambda p: p.write_bytes(b"PK\x03\x04 cut"), "cannot be read as a file of torch.save"),
    ],
)
def test_damaged_tensors_are_one_sentence(open_results, tmp_path, make, sentence):
    make(tmp_path / "a_all_recons.pt")
    with pytest.raises(UserError, match=sentence):
        shown(open_results(tmp_path / "a_all_recons.pt"), ASCENDING[0])


def test_bytes_and_channels_last_are_pictures_too(open_results, tmp_path):
    np.save(tmp_path / "pictures.npy", np.stack([picture(k) for k in range(10)]))
    bench = open_results(tmp_path / "pictures.npy", order="ascending")
    assert order_shown(bench, ASCENDING) == list(range(10))
    half = planted().half()
    torch.save(half, tmp_path / "half_all_recons.pt")
    assert order_shown(open_results(tmp_path / "half_all_recons.pt"), ASCENDING) == [*range(10)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dataset": ""}, r"say whose data the results are of with [?]dataset=NAME, one of fake"),
        ({"subject": "sub-09"}, "[?]subject=, one of sub-01, sub-02; found 'sub-09'"),
        ({"subject": ""}, "[?]subject=, one of sub-01, sub-02[.]"),
        ({"colour": "red"}, "--published theirs has no option 'colour'; it takes dataset, subj"),
        ({"name": "painter"}, "--published painter: the name is taken"),
        ({"scale": "1"}, "scale is for folders"),
    ],
)
def test_a_wrong_option_is_one_sentence(open_results, pictures, options, sentence):
    with pytest.raises(UserError, match=sentence):
        open_results(pictures, **options)


def test_the_subject_is_read_from_the_path(open_results, tmp_path):
    path = tmp_path / "final_sub-02_all_recons.pt"
    torch.save(planted(), path)
    bench = open_results(path, subject="")
    assert bench.catalogue.generator_class("theirs").subject == "sub-02"


def test_app_opens_them(tmp_path):
    root = tmp_path / "study"
    (root / "stimuli").mkdir(parents=True)
    (root / "sub-01").mkdir()
    (root / "dataset.json").write_text('{"title": "Four"}')
    names = ["d", "b", "a", "c"]
    for k, name in enumerate(names):
        Image.fromarray(picture(k)).save(root / "stimuli" / f"{name}.png")
    table = pd.DataFrame({"file": [f"{name}.png" for name in names]})
    table.to_csv(root / "stimuli" / "stimuli.tsv", sep="\t", index=False)
    betas = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    np.save(root / "sub-01" / "betas.npy", betas)
    trials = pd.DataFrame({"stimulus": names, "split": "test"})
    trials.to_csv(root / "sub-01" / "trials.tsv", sep="\t", index=False)
    torch.save(planted(4), tmp_path / "a_all_recons.pt")
    grids = np.random.default_rng(1).random((4, 100)).astype(np.float32)
    np.save(tmp_path / "grids.npy", grids)
    arguments = [
        *("--dataset", f"four={root}", "--device", "cpu", "--checkpoints", str(tmp_path)),
        *("--published", f"theirs={tmp_path / 'a_all_recons.pt'}"),
        *("--published", f"grids={tmp_path / 'grids.npy'}?order=appearance&space=pixels/10x10"),
    ]
    args = app.arguments().parse_args(arguments)
    assert isinstance(args, argparse.Namespace)
    bench = app.open_workbench(args)
    assert bench.catalogue.mapper_names("four", "sub-01") == ["grids"]
    assert bench.catalogue.generator_names("four", "sub-01", "grids") == ["pixels", "theirs"]
    assert [number(shown_by(bench, name)) for name in "abcd"] == [0, 1, 2, 3]
    request = default_request(bench.catalogue, "four", "sub-01", stimulus="b", generator="pixels")
    drawn = next(reconstruct(bench, request)).image[::16, ::16, 0]
    np.testing.assert_allclose(drawn.reshape(-1) / 255, grids[1], atol=0.003)
    twice = app.arguments().parse_args([*arguments, "--published", f"grids={tmp_path}"])
    with pytest.raises(UserError, match="--published names grids twice"):
        app.open_workbench(twice)
    lost = app.arguments().parse_args(["--published", f"x={tmp_path / 'gone'}"])
    with pytest.raises(UserError, match="--published x: there is nothing at"):
        app.open_workbench(lost)


def shown_by(bench, name):
    request = default_request(bench.catalogue, "four", "sub-01", stimulus=name, generator="theirs")
    return next(reconstruct(bench, request)).image


class Shown:
    """A study of test images by these ids, each shown once in one session."""

    name = "toy"

    def __init__(self, ids):
        self.table = pd.DataFrame({"stimulus": ids, "session": 1})

    def load(self, subject):
        return argparse.Namespace(table=self.table, rows=lambda split: np.arange(len(self.table)))


@pytest.mark.parametrize(
    ("ids", "textual", "natural"),
    [
        (["img10", "img9", "img1"], ["img1", "img10", "img9"], ["img1", "img9", "img10"]),
        (["10", "9"], ["10", "9"], ["9", "10"]),
        (["a2b10", "a2b9", "a10b1"], ["a10b1", "a2b10", "a2b9"], ["a2b9", "a2b10", "a10b1"]),
    ],
)
def test_ascending_is_refused_where_it_means_two_orders(tmp_path, ids, textual, natural):
    path, study = tmp_path / "rows.npy", Shown(ids)
    assert stimuli_in_order(path, len(ids), study, "s", "textual") == textual
    assert stimuli_in_order(path, len(ids), study, "s", "natural") == natural
    assert stimuli_in_order(path, len(ids), study, "s", "appearance") == ids
    with pytest.raises(UserError, match="ascending can mean two orders .*natural or .*=textual"):
        stimuli_in_order(path, len(ids), study, "s", "ascending")
    with pytest.raises(UserError, match="two orders"):  # what MindEye2's name stands for, too
        stimuli_in_order(tmp_path / "a_all_recons.pt", len(ids), study, "s")


@pytest.mark.parametrize("ids", [["img10", "img09", "img11"], ["b", "a"], ["n1_2", "n1_1"]])
def test_ascending_needs_no_more_where_it_is_one_order(tmp_path, ids):
    for order in ("ascending", "natural", "textual"):
        found = stimuli_in_order(tmp_path / "rows.npy", len(ids), Shown(ids), "s", order)
        assert found == sorted(ids)

"""Published results: each is shown for the image it was made for, whatever order it was saved in.

Result k of a planted set can be told from all others, so a wrong order or row is seen.
"""

import argparse
import json
import pickle
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import app
from backends import GENERATORS, MAPPERS
from backends.mappers.published import Published as Predictions
from explorer.brain.maps import parcel_importance
from explorer.choosing import default_request
from explorer.decoding import decode
from explorer.drawing import reconstruct, warm
from explorer.protocols import Condition, Generator
from explorer.records import make_record
from explorer.request import View
from explorer.types import EmbeddingSpace, Subject, UserError, resolve

# Test images in the order in which their first trials came: six in session 1, four in session 2.
APPEARANCE = [f"nsd-{number:05d}" for number in (
    71_200, 2_950, 46_002, 310, 55_001, 8_009, 61_873, 4_130, 12_345, 33_333,
)]  # fmt: skip
ASCENDING = sorted(APPEARANCE)
NUMBERS = [int(stimulus[4:]) for stimulus in APPEARANCE]


def picture(k: int, size: int = 12) -> np.ndarray:
    """Return result number k of a planted set, uint8: grey whose value is the number."""
    return np.full((size, size, 3), 20 + 10 * k, np.uint8)


def number(image: np.ndarray) -> int:
    """Return which result of a planted set a picture is."""
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    values = {int(value) for value in np.unique(image)}
    assert len(values) == 1, "one picture, not parts of two"
    return (values.pop() - 20) // 10


def planted(n: int = 10) -> torch.Tensor:
    """Return n results as MindEye2 saves them: float32 (N, 3, H, W) in [0, 1]."""
    rows = [torch.from_numpy(picture(k)).permute(2, 0, 1) / 255 for k in range(n)]
    return torch.stack(rows)


@pytest.fixture
def study(fakes):
    """Return the fake study with 73k ids and three sessions."""

    class Study(fakes.Study):
        def __init__(self, path=None, name="fake"):
            super().__init__(path, name)
            train = [s for s in self.stimuli.index if s.startswith("train")]
            self.stimuli.index = pd.Index([*APPEARANCE, *train], name="stimulus")

        def load(self, subject):
            trials = super().load(subject)
            trials.table["session"] = [1] * 6 + [2] * 4 + [3] * 70
            return trials

    return Study


@pytest.fixture
def open_results(make_workbench, study, tmp_path):
    """Return a function that opens a workbench over published results, named ``theirs``."""

    def make(path, *, dataset="fake", trained=False, name="theirs", **options):
        kinds = {"mappers": MAPPERS["published"], "generators": GENERATORS["published"]}
        changed = {} if trained else {"mappers": {"published": kinds["mappers"]}}
        bench = make_workbench()
        painters = {n: bench.catalogue.generator_class(n) for n in ("painter", "unguided")}
        if trained:
            changed["mappers"] = {**bench.catalogue.mappers, "published": kinds["mappers"]}
        return make_workbench(
            datasets={"fake": study},
            generators={**painters, "published": kinds["generators"]},
            checkpoints=tmp_path / "none",
            published={name: (path, {"dataset": dataset, "subject": "sub-01", **options})},
            **changed,
        )

    return make


class Components:
    """The page's components, each its own name."""

    def __getattr__(self, name: str) -> str:
        return name


def shown(bench, stimulus, generator="theirs", **choices):
    """Return the finished pictures of a trial, in the order of its scales."""
    request = default_request(
        bench.catalogue, "fake", "sub-01", stimulus=stimulus, generator=generator, **choices
    )
    return [frame.image for frame in reconstruct(bench, request) if frame.done]


def order_shown(bench, stimuli=APPEARANCE):
    """Return which result is shown for each stimulus."""
    return [number(shown(bench, stimulus)[0]) for stimulus in stimuli]


# ------------------------------------------------------------------------------ whose row is whose


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


def resized(fakes, stimuli, side=57):
    """Return all_images.pt: the shown images at another size, by another way of resizing."""
    images = [Image.fromarray(fakes.picture(stimulus)) for stimulus in stimuli]
    large = [np.asarray(i.resize((side, side), Image.Resampling.BICUBIC)) for i in images]
    return torch.from_numpy(np.stack(large)).permute(0, 3, 1, 2) / 255


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


# ----------------------------------------------------------------------------------------- folders


def write(folder, names, **kind):
    """Write result k under the k-th name."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        Image.fromarray(picture(k, **kind)).save(folder / name)
    return folder


@pytest.mark.parametrize("name", ["{}.png", "73k"])
def test_pictures_named_by_id_need_no_order(open_results, tmp_path, name):
    names = [name.format(s) if "{" in name else f"{int(s[4:])}.png" for s in ASCENDING]
    bench = open_results(write(tmp_path / "theirs", names))
    assert order_shown(bench, ASCENDING) == list(range(10))
    assert not any("leaves out" in problem for problem in bench.catalogue.problems())


def test_numbered_pictures_need_an_order(open_results, tmp_path):
    folder = write(tmp_path / "subj01", [f"{k}.png" for k in range(10)])
    with pytest.raises(UserError, match=r"numbers from 0 need [?]order=ascending"):
        open_results(folder)
    bench = open_results(folder, order="appearance")
    assert order_shown(bench, APPEARANCE) == list(range(10))


def test_some_numbered_examples_keep_their_numbers(open_results, tmp_path):
    folder = write(tmp_path / "theirs", ["00000.png", "00003.png", "00009.png"])
    bench = open_results(folder, order="ascending")
    assert order_shown(bench, [ASCENDING[i] for i in (0, 3, 9)]) == [0, 1, 2]
    with pytest.raises(UserError, match=f"no picture for {ASCENDING[1]}"):
        shown(bench, ASCENDING[1])
    write(folder, [f"{k:05d}.png" for k in range(6)])  # 0 to 5 and 9
    Image.fromarray(picture(0)).save(folder / "00010.png")
    with pytest.raises(UserError, match="has a picture 10, and the 10 images .* 0 to 9"):
        open_results(folder, order="ascending")


def test_all_numbers_of_a_smaller_set_are_not_taken_for_the_first_of_a_larger(
    open_results, tmp_path
):
    folder = write(tmp_path / "theirs", [f"{k}.png" for k in range(6)])
    with pytest.raises(UserError, match="holds 6 results, fake/sub-01 has 10 test images"):
        open_results(folder, order="ascending")
    bench = open_results(folder, order="ascending", sessions="1")
    assert order_shown(bench, sorted(APPEARANCE[:6])) == list(range(6))


def test_pictures_of_something_else_are_counted_or_refused(open_results, tmp_path):
    folder = write(tmp_path / "theirs", [*(f"{s}.png" for s in ASCENDING), "grid.png"])
    bench = open_results(folder)
    assert (
        "leaves out 1 of 11 pictures that are named like no test image"
        in bench.catalogue.problems()[0]
    )
    assert "(first grid.png)" in bench.catalogue.problems()[0]
    with pytest.raises(UserError, match="named like a test image .*cat is none, nsd-71200 is one"):
        open_results(write(tmp_path / "others", ["cat.png", "dog.png"]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds neither pictures nor an array"):
        open_results(tmp_path / "empty")


@pytest.fixture
def sweep_folder(tmp_path):
    """Write {scale}/{strength}/{index}.png: 1 and 7.5 at two strengths, 3 at one of them."""
    root = tmp_path / "theirs"
    for at, (scale, strength) in enumerate(
        [("1", "0.2"), ("3", "0.2"), ("7.5", "0.2"), ("1", "0.5"), ("7.5", "0.5")]
    ):
        folder = root / scale / strength
        folder.mkdir(parents=True)
        for k in range(10):
            pixels = np.full((8, 8, 3), 20 * at + 2 * k, np.uint8)  # scale and number in one
            Image.fromarray(pixels).save(folder / f"{k:05d}.png")
    return root


def test_pictures_are_shown_at_the_scales_they_were_made_with(open_results, sweep_folder):
    bench = open_results(sweep_folder, order="ascending", strength="0.2")
    assert bench.catalogue.generator_class("theirs").guided
    request = default_request(bench.catalogue, "fake", "sub-01", stimulus=ASCENDING[4])
    assert request.scales == (1.0, 3.0, 7.5)
    frames = list(reconstruct(bench, request))
    assert [(f.scale, int(f.image[0, 0, 0])) for f in frames] == [(1, 8), (3, 28), (7.5, 48)]
    (image,) = shown(bench, ASCENDING[4], scales=(7.5,))
    assert (image == 48).all()
    with pytest.raises(UserError, match=r"made at the guidance scales 1, 3, 7.5, not at 2;"):
        shown(bench, ASCENDING[4], scales=(1.0, 2.0))


def test_a_strength_is_chosen_and_what_it_lacks_is_said(open_results, sweep_folder):
    with pytest.raises(UserError, match=r"has the strengths 0.2, 0.5; choose one with [?]streng"):
        open_results(sweep_folder, order="ascending")
    bench = open_results(sweep_folder, order="ascending", strength="0.5")
    assert [int(i[0, 0, 0]) for i in shown(bench, ASCENDING[1])] == [62, 82]
    assert "leaves out the scale(s) 3, which were not made with strength 0.5" in (
        "".join(bench.catalogue.problems())
    )
    with pytest.raises(UserError, match="has no strength 0.3; choose one of 0.2, 0.5"):
        open_results(sweep_folder, order="ascending", strength="0.3")
    with pytest.raises(UserError, match="has no scale 2; choose one of 1, 3, 7.5"):
        open_results(sweep_folder, order="ascending", scale="2")
    with pytest.raises(UserError, match="strength is a number from 0, found 'high'"):
        open_results(sweep_folder, order="ascending", strength="high")
    bench = open_results(sweep_folder, order="ascending", scale="3")
    assert not bench.catalogue.generator_class("theirs").guided
    assert [int(i[0, 0, 0]) for i in shown(bench, ASCENDING[1])] == [22]


def test_neuraldiffuser_has_five_samples_in_a_file_and_a_scale_of_another_kind(
    open_results, tmp_path
):
    """As src/recon.py writes them: 0/0 and 300000/0.2, five samples side by side."""
    for folder, first in (("0/0", 0), ("300000/0.2", 5)):
        place = tmp_path / "cp_4096_v1" / folder
        place.mkdir(parents=True)
        for k in range(10):
            samples = [np.full((8, 8, 3), 20 * k + first + s, np.uint8) for s in range(5)]
            Image.fromarray(np.concatenate(samples, axis=1)).save(place / f"{k:05d}.png")
    given = {"path": tmp_path / "cp_4096_v1", "order": "appearance"}
    with pytest.raises(UserError, match=r"scales 0, 300000, .*choose one with [?]scale="):
        open_results(**given)
    given |= {"scale": "300000", "strength": "0.2"}
    with pytest.raises(UserError, match="5 times as wide as high; say [?]samples=5"):
        open_results(**given)
    with pytest.raises(UserError, match="samples is how many .* found '3' for a width of 40"):
        open_results(**given, samples="3")
    bench = open_results(**given, samples="5")
    assert [option.name for option in bench.catalogue.generator_class("theirs").options] == [
        "sample"
    ]
    for sample in (1, 5):
        (image,) = shown(bench, APPEARANCE[2], options=(("sample", sample),))
        assert image.shape == (8, 8, 3) and (image == 40 + 5 + sample - 1).all()
    assert (shown(bench, APPEARANCE[2])[0] == 45).all()
    with pytest.raises(UserError, match="sample is a whole number, found 1.5"):
        shown(bench, APPEARANCE[2], options=(("sample", 1.5),))
    with pytest.raises(UserError, match="sample lies between 1 and 5, found 6"):
        shown(bench, APPEARANCE[2], options=(("sample", 6.0),))


# -------------------------------------------------------------------------------------- bad files


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
        with pytest.raises(UserError, match=f"{name} .*(refused; save it again|damaged, cut)"):
            open_results(tmp_path / name, order="ascending")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: torch.save({"recons": planted()}, p), "holds a dict, expected one tensor"),
        (lambda p: torch.save(planted() * 2 - 1, p), r"values from -0.84\S* to .*expected 0 to 1"),
        (lambda p: torch.save(planted() / 0, p), "holds values that are not finite"),
        (lambda p: p.write_bytes(b"PK\x03\x04 cut"), "is damaged, cut short or of an old format"),
    ],
)
def test_damaged_tensors_are_one_sentence(open_results, tmp_path, make, sentence):
    make(tmp_path / "a_all_recons.pt")
    with pytest.raises(UserError, match=sentence):
        shown(open_results(tmp_path / "a_all_recons.pt"), ASCENDING[0])


def test_a_picture_that_cannot_be_read_is_one_sentence(open_results, tmp_path):
    folder = write(tmp_path / "theirs", [f"{s}.png" for s in ASCENDING])
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / f"{ASCENDING[3]}.png")
    whole = (folder / f"{ASCENDING[3]}.png").read_bytes()
    (folder / f"{ASCENDING[3]}.png").write_bytes(whole[: len(whole) // 2])
    bench = open_results(folder)
    with pytest.raises(UserError, match=f"{ASCENDING[3]}.png (is damaged|cannot be read)"):
        shown(bench, ASCENDING[3])


def test_bytes_and_channels_last_are_pictures_too(open_results, tmp_path):
    np.save(tmp_path / "pictures.npy", np.stack([picture(k) for k in range(10)]))
    bench = open_results(tmp_path / "pictures.npy", order="ascending")
    assert order_shown(bench, ASCENDING) == list(range(10))
    half = planted().half()
    torch.save(half, tmp_path / "half_all_recons.pt")
    assert order_shown(open_results(tmp_path / "half_all_recons.pt"), ASCENDING) == [*range(10)]


def test_reading_changes_nothing_and_the_fingerprint_names_the_files(open_results, tmp_path):
    folder = write(tmp_path / "theirs", [f"{s}.png" for s in ASCENDING])

    def state():
        return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}

    before, bench = state(), open_results(folder)
    order_shown(bench)
    assert state() == before
    request = default_request(bench.catalogue, "fake", "sub-01")
    first = bench.checkpoint_hashes(request)
    assert first["mapper"] == "none" and re.fullmatch("[0-9a-f]{16}", first["generator"])
    assert open_results(folder).checkpoint_hashes(request) == first
    Image.fromarray(picture(7)).save(folder / f"{ASCENDING[0]}.png")
    assert open_results(folder).checkpoint_hashes(request) != first


# ----------------------------------------------------------------------------- beside the explorer


@pytest.fixture
def pictures(tmp_path):
    path = tmp_path / "a_all_recons.pt"
    torch.save(planted(), path)
    return path


def test_they_keep_the_contract_of_generators(open_results, pictures):
    bench = open_results(pictures)
    generator = bench.models.generator("theirs")
    assert isinstance(generator, Generator)
    cls = resolve(GENERATORS["published"])
    assert cls.provenance == "published" and cls.needs == ("stimulus",) and cls.accepts == ()
    who = bench.catalogue.trials("fake", "sub-01").subject
    given = [Condition({}, stimulus=stimulus, subject=who) for stimulus in ASCENDING[:3]]
    many = generator.generate(given, 1.0, [0, 1, 2], 1)
    assert [number(image) for image in many] == [0, 1, 2]
    steps = list(generator.sweep(given[1], (0.0, 1.0), 3, seed=5))
    assert [(s.index, s.scale, s.step, s.steps, s.done) for s in steps] == [
        (0, 0.0, 3, 3, True),
        (1, 1.0, 3, 3, True),
    ]
    stranger = Subject("fake", "sub-02", who.voxels)
    with pytest.raises(UserError, match="published for fake/sub-01, not for fake/sub-02"):
        generator.generate([Condition({}, stimulus=ASCENDING[0], subject=stranger)], 1.0, [0], 1)


def test_pictures_need_no_mapper(open_results, pictures):
    bench = open_results(pictures)
    assert bench.catalogue.mapper_names("fake", "sub-01") == []
    request = default_request(bench.catalogue, "fake", "sub-01", stimulus=ASCENDING[2])
    assert (request.mapper, request.generator) == ("", "theirs")
    (frame,) = reconstruct(bench, request)
    assert number(frame.image) == 2 and set(frame.scores) == {"PixCorr", "SSIM", "pocket-clip"}
    for ask in (lambda r: decode(bench, r), lambda r: parcel_importance(bench, r, View())):
        with pytest.raises(UserError, match="no mapper for fake/sub-01: nothing is decoded here"):
            ask(request)
    record = json.loads(json.dumps(make_record(bench, request, View())))
    assert record["decoding"] is None and record["scores"][0]["scale"] == 0.0
    warm(bench, request)
    other = default_request(bench.catalogue, "fake", "sub-02")
    assert (other.mapper, other.generator) == ("", "")  # the pictures are another subject's
    with pytest.raises(UserError, match="There is no mapper for fake/sub-02; train one"):
        reconstruct(bench, other)


def test_pictures_stand_beside_a_trained_mapper(open_results, pictures):
    bench = open_results(pictures, trained=True)
    (mapper,) = bench.catalogue.mapper_names("fake", "sub-01")
    names = bench.catalogue.generator_names("fake", "sub-01", mapper)
    assert names == ["painter", "unguided", "theirs"]
    assert bench.catalogue.generator_names("fake", "sub-02", mapper) == ["painter", "unguided"]
    request = default_request(
        bench.catalogue, "fake", "sub-01", stimulus=ASCENDING[6], generator="theirs"
    )
    assert decode(bench, request).n == 10
    assert number(next(reconstruct(bench, request)).image) == 6
    with pytest.raises(UserError, match="theirs was made by others from the average of all rep"):
        reconstruct(
            bench,
            default_request(bench.catalogue, "fake", "sub-01", generator="theirs", repeats=(0,)),
        )


def test_the_page_shows_them_and_says_what_is_lacking(open_results, pictures):
    from explorer.page import export
    from explorer.page.handlers import Handlers
    from explorer.page.session import Session

    bench = open_results(pictures)
    handlers = Handlers(bench, Components(), "plotly.js")
    session = Session()
    wanted = SimpleNamespace(query_params={"trial": ASCENDING[3], "data": "fake"})
    sent = handlers.open_link(session, wanted)
    (cell,) = sent["trial"]["cells"]
    assert (cell["label"], cell["made"]) == ("theirs", "published")
    assert cell["beside"] == "Published by the authors, not made here"
    updates = list(handlers.work(session))
    assert updates[-1]["notices"] or updates[0]["notices"]
    told = [s for update in updates for s in update.get("notices", {}).get("notices", [])]
    assert any("nothing is decoded here" in sentence for sentence in told)
    (brain,) = [update["brain"] for update in updates if "brain" in update]
    assert "nothing is decoded here" in brain["note"] and brain["maps"] == {}
    assert session.shown["progress"]["state"] == "done"
    assert [cell["state"] for cell in session.shown["cells"]] == ["done"]
    assert session.shown["decoding"] is None
    assert export.make(bench, session.request, View(), "png").content.startswith(b"\x89PNG")


def test_another_generator_takes_its_own_scales_back(open_results, sweep_folder):
    from explorer.page.choices import Choices, settle

    bench = open_results(sweep_folder, order="ascending", strength="0.2", trained=True)
    place = {"data": "fake", "subject": "sub-01", "trial": ASCENDING[0]}
    ours = settle({**place, "generator": "painter", "scales": "0,2"}, bench)
    assert ours.request.scales == (0.0, 2.0)
    theirs = settle({"generator": "theirs"}, bench, Choices(ours.request))
    assert theirs.request.scales == (1.0, 3.0, 7.5) and theirs.notices == ()
    some = settle({"scales": "3"}, bench, theirs)
    assert settle({"trial": ASCENDING[1]}, bench, some).request.scales == (3.0,)


# ------------------------------------------------------------------------------------- predictions


@pytest.fixture
def predictions(fakes, tmp_path):
    """Save the true embedding of each test image, with a little noise, by ascending id."""
    rng = np.random.default_rng(0)
    true = fakes.Embedder().embed([fakes.picture(stimulus) for stimulus in ASCENDING])
    path = tmp_path / "a_all_clipvoxels.pt"
    torch.save(torch.from_numpy(true + 0.01 * rng.standard_normal(true.shape)), path)
    return path


def test_predictions_are_looked_up_by_trial(open_results, predictions, fakes):
    bench = open_results(predictions, space="fake-clip/image")
    assert bench.catalogue.mapper_names("fake", "sub-01") == ["theirs"]
    for stimulus in ASCENDING:
        request = default_request(bench.catalogue, "fake", "sub-01", stimulus=stimulus)
        assert (request.mapper, request.generator) == ("theirs", "painter")
        decoding = decode(bench, request)
        assert decoding.rank == 1 and decoding.similarity > 0.99
        assert decoding.space == fakes.space
    assert all(frame.done for frame in reconstruct(bench, request) if frame.step == frame.steps)
    assert bench.models.card(request).cls == "published"
    hashes = bench.checkpoint_hashes(request)
    assert re.fullmatch("[0-9a-f]{16}", hashes["mapper"])


def test_the_wrong_order_decodes_others_images(open_results, predictions):
    bench = open_results(predictions, space="fake-clip/image", order="appearance")
    ranks = [
        decode(bench, default_request(bench.catalogue, "fake", "sub-01", stimulus=stimulus)).rank
        for stimulus in ASCENDING
    ]
    agree = sum(a == b for a, b in zip(APPEARANCE, ASCENDING, strict=True))
    assert ranks.count(1) == agree < 5


def test_predictions_have_no_importance_and_no_single_repeats(open_results, predictions):
    bench = open_results(predictions, space="fake-clip/image")
    request = default_request(bench.catalogue, "fake", "sub-01")
    with pytest.raises(UserError, match="theirs was published: its embeddings are looked up"):
        parcel_importance(bench, request, View())
    warm(bench, request)
    single = default_request(bench.catalogue, "fake", "sub-01", repeats=(1,))
    with pytest.raises(UserError, match="theirs was made by others from the average"):
        decode(bench, single)
    mapper = bench.models.mapper("fake", "sub-01", "theirs")
    with pytest.raises(UserError, match="looked up by trial; it cannot decode betas"):
        mapper(torch.zeros(1, 3), "sub-01")
    with pytest.raises(UserError, match="read, not trained; open them with"):
        Predictions.fit([], {}, seed=0)
    with pytest.raises(UserError, match="no prediction for train-01"):
        mapper.lookup("train-01")


def test_predictions_have_the_controls_that_need_no_betas(open_results, predictions):
    from explorer.evidence import controls, lesions, standing

    bench = open_results(predictions, space="fake-clip/image")
    request = default_request(bench.catalogue, "fake", "sub-01", seed=0)
    found = {one.name: one for one in controls.controls(bench, request)}
    there = [name for name, one in found.items() if not one.reason]
    assert there == [controls.TRUE, controls.AVERAGE, controls.ANOTHER, controls.NONE]
    assert found[controls.ANOTHER].decoded.rank > 1 == found[controls.AVERAGE].decoded.rank
    assert "no other betas can be put in" in found[controls.MEAN].reason
    assert "from the average of all repeats" in found[controls.SINGLES[0]].reason
    with pytest.raises(UserError, match="theirs was published: .* no other betas can be put in"):
        lesions.lesion(bench, request, lesions.Lesion(("fusiform L",)))
    assert standing.standing(bench, request).n == 10
    assert standing.collapse(bench, request).predicted > 2

    fewer, none = (open_results(predictions, space="fake-clip/image") for _ in range(2))
    fewer.models.mapper("fake", "sub-01", "theirs")._rows.popitem()  # part was published
    assert len(standing.decoded_test(fewer, request)[0]) == 9
    none.models.mapper("fake", "sub-01", "theirs")._rows.clear()
    with pytest.raises(UserError, match="theirs has no usable prediction for any test image"):
        standing.decoded_test(none, request)


def test_a_page_with_predictions_shows_pictures_without_a_map(open_results, predictions):
    from explorer.page.handlers import Handlers
    from explorer.page.session import Session

    bench = open_results(predictions, space="fake-clip/image")
    handlers = Handlers(bench, Components(), "plotly.js")
    session = Session()
    handlers.open_link(session, SimpleNamespace(query_params={"scales": "1,4"}))
    updates = list(handlers.work(session))
    assert session.shown["decoding"]["rank"] == 1
    (brain,) = [update["brain"] for update in updates if "brain" in update]
    assert "there is no gradient and no importance of parcels" in brain["note"]
    assert session.shown["progress"]["state"] == "done"


def test_what_nothing_here_can_compare_is_said(open_results, tmp_path):
    np.save(tmp_path / "nsdgeneral.npy", np.ones((10, 12), np.float32))
    given = {"path": tmp_path / "nsdgeneral.npy", "order": "appearance"}
    with pytest.raises(UserError, match=r"shape \(12,\); say what they are of with [?]space="):
        open_results(**given)
    bench = open_results(**given, space="ViT-L-14/context", shape="3x4")
    (space,) = bench.catalogue.offer("fake", "sub-01", "theirs").targets
    assert space == EmbeddingSpace("ViT-L-14", "context", (3, 4))
    assert bench.models.mapper("fake", "sub-01", "theirs").lookup(APPEARANCE[0])[space].shape == (
        (3, 4)
    )
    request = default_request(bench.catalogue, "fake", "sub-01", mapper="theirs", generator="")
    with pytest.raises(UserError, match="No embedder here puts images into ViT-L-14/context"):
        decode(bench, request)
    for options, sentence in (
        ({"space": "ViT-L-14/context", "shape": "3x5"}, "12 values a row, .* has 15"),
        ({"space": "fake-clip/image"}, r"12 values a row, .*shape \(8,\) has 8"),
        ({"space": "ViT-L-14/context", "shape": "3by4"}, "whole numbers joined by x"),
        ({"space": "ViT-L-14"}, "MODEL/LAYER, found 'ViT-L-14'"),
    ):
        with pytest.raises(UserError, match=sentence):
            open_results(**given, **options)


def test_predictions_that_are_not_finite_are_refused_where_they_are_used(open_results, tmp_path):
    rows = np.ones((10, 8), np.float32)
    rows[4, 2] = np.nan
    np.save(tmp_path / "rows.npy", rows)
    bench = open_results(tmp_path / "rows.npy", order="ascending", space="fake-clip/image")
    mapper = bench.models.mapper("fake", "sub-01", "theirs")
    mapper.lookup(ASCENDING[3])
    with pytest.raises(UserError, match=r"row 4 \(from 0\) holds values that are not finite"):
        mapper.lookup(ASCENDING[4])


# ------------------------------------------------------------------------------- the command line


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

"""Published pictures: each is shown for the image it was made for, beside the explorer's own."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from backends import GENERATORS
from explorer.brain.maps import parcel_importance
from explorer.choosing import default_request
from explorer.decoding import decode
from explorer.drawing import reconstruct, warm
from explorer.protocols import Condition, Generator
from explorer.records import make_record
from explorer.request import View
from explorer.types import Subject, UserError, resolve
from tests.miniatures.published import (
    APPEARANCE,
    ASCENDING,
    Components,
    number,
    order_shown,
    picture,
    shown,
    write,
)


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


def test_a_picture_that_cannot_be_read_is_one_sentence(open_results, tmp_path):
    folder = write(tmp_path / "theirs", [f"{s}.png" for s in ASCENDING])
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / f"{ASCENDING[3]}.png")
    whole = (folder / f"{ASCENDING[3]}.png").read_bytes()
    (folder / f"{ASCENDING[3]}.png").write_bytes(whole[: len(whole) // 2])
    bench = open_results(folder)
    with pytest.raises(UserError, match=f"{ASCENDING[3]}.png (is damaged|cannot be read)"):
        shown(bench, ASCENDING[3])


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

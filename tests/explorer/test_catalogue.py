"""What is on offer, what fits what, and one clear sentence for what does not."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from explorer.brain.maps import parcellation_of
from explorer.brain.parcels import Atlas
from explorer.choosing import check_request, default_request
from explorer.decoding import decode
from explorer.drawing import reconstruct
from explorer.naming import named_path, named_sources, recognise
from explorer.request import Request
from explorer.types import FSAVERAGE5_VERTICES, Label, Parcellation, UserError


def copied(checkpoints, folder, **changed):
    """Copy the fake mapper's checkpoint and change fields of its card; return the root."""
    source = checkpoints / "mappers" / "fake" / "linear-sub-01"
    target = folder / "mappers" / "fake" / "linear-sub-01"
    shutil.copytree(source, target)
    card = json.loads((target / "card.json").read_text())
    (target / "card.json").write_text(json.dumps(card | changed))
    return folder


def test_a_data_set_with_a_default_path_is_on_offer_without_being_named(workbench):
    assert workbench.catalogue.dataset_names() == ["fake"]
    assert workbench.catalogue.subjects("fake") == ["sub-01", "sub-02"]
    assert workbench.catalogue.dataset("fake") is workbench.catalogue.dataset("fake")


def test_other_data_sets_are_on_offer_when_a_path_is_given(make_workbench, fakes, tmp_path):
    class Needy(fakes.Study):
        def __init__(self, path, name):
            super().__init__(path, name)

    families = {"fake": fakes.Study, "folder": Needy, "needy": Needy}
    assert make_workbench(datasets=families).catalogue.dataset_names() == ["fake"]
    workbench = make_workbench(datasets=families, paths={"needy": tmp_path, "mine": tmp_path})
    assert workbench.catalogue.dataset_names() == ["fake", "needy", "mine"]
    assert workbench.catalogue.dataset("mine").name == "mine"  # an unknown name is a plain folder
    assert workbench.catalogue.dataset("mine").path == tmp_path


def test_a_path_is_given_with_its_name_and_options(tmp_path):
    plain, odd = tmp_path / "nsd", tmp_path / "what?is=this"
    plain.mkdir()
    odd.mkdir()
    assert named_path(f"nsd={plain}") == ("nsd", plain, {})
    given = named_path(f"nsd={plain}?space=func1mm&prep=b3&note=")
    assert given == ("nsd", plain, {"space": "func1mm", "prep": "b3", "note": ""})
    assert named_path(f"a.b-c={odd}") == ("a.b-c", odd, {})  # a path that exists wins
    assert named_path(f"odd={odd}?prep=b3") == ("odd", odd, {"prep": "b3"})


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("nsd", "takes NAME=PATH, .* found 'nsd'"),
        ("n/s=PLACE", "takes NAME=PATH"),
        ("nsd=PLACE/gone", "--dataset nsd: there is nothing at .*gone; check the path"),
        ("nsd=PLACE/gone?prep=b3", "there is nothing at .*gone; check"),
        ("nsd=?prep=b3", "there is nothing at [?]prep=b3"),
        ("nsd=PLACE?prep", "written [?]name=value&name=value, each once; found 'prep'"),
        ("nsd=PLACE?prep=b3&", "each once; found ''"),
        ("nsd=PLACE?prep=b3&prep=b2", "each once; found 'prep=b2'"),
    ],
)
def test_a_path_or_option_that_is_none(pair, message, tmp_path):
    with pytest.raises(UserError, match=message):
        named_path(pair.replace("PLACE", str(tmp_path)))


@pytest.fixture
def families(fakes):
    """Return a data set that comes along, a plain folder, and a format that knows its files."""

    class Plain(fakes.Study):
        def __init__(self, path, name):
            super().__init__(path, name)

    class Known(fakes.Study):
        def __init__(self, path, name, space="surface", prep="b3"):
            super().__init__(path, name)
            self.chosen = space, prep

        @classmethod
        def recognise(cls, path):
            return (path / "design.mat").exists()

    return {"fake": fakes.Study, "folder": Plain, "known": Known}


def test_a_name_of_ones_own_is_opened_by_the_class_that_knows_the_content(
    make_workbench, families, tmp_path
):
    ours, other = tmp_path / "ours", tmp_path / "other"
    ours.mkdir()
    other.mkdir()
    (ours / "design.mat").touch()
    assert (recognise(ours, families), recognise(other, families)) == ("known", "")
    workbench = make_workbench(
        datasets=families,
        paths={"mine": ours, "theirs": other, "known": other},
        options={"mine": {"prep": "b2"}},
    )
    assert workbench.catalogue.dataset("mine").chosen == ("surface", "b2")
    assert (workbench.catalogue.family("mine"), workbench.catalogue.family("theirs")) == (
        "known",
        "folder",
    )
    assert type(workbench.catalogue.dataset("theirs")) is families["folder"]
    assert (
        type(workbench.catalogue.dataset("known")) is families["known"]
    )  # its own name needs no look
    assert workbench.catalogue.family("fake") == "fake"


def test_an_option_that_a_format_does_not_take(make_workbench, families, tmp_path):
    (tmp_path / "design.mat").touch()
    paths, wrong = {"mine": tmp_path, "plain": tmp_path.parent}, {"preparation": "b2"}
    workbench = make_workbench(
        datasets=families, paths=paths, options={"mine": wrong, "plain": wrong}
    )
    with pytest.raises(UserError, match="mine: known has no option 'preparation'; it takes space"):
        workbench.catalogue.dataset("mine")
    with pytest.raises(UserError, match="folder has no option 'preparation'; it takes none"):
        workbench.catalogue.dataset("plain")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dataset": "nsd"}, "no data set 'nsd' here; choose one of fake.*--dataset nsd=PATH"),
        ({"subject": "sub-09"}, "fake has no subject 'sub-09'; choose one of sub-01, sub-02"),
        ({"stimulus": "test-99"}, "no test stimulus 'test-99'; choose one of its 10, test-01 to"),
        ({"stimulus": "train-01"}, "fake/sub-01 has no test stimulus 'train-01'"),
        ({"repeats": (2,)}, "no repeat 3 of test-03 in its test trials; choose 1, 2 or the aver"),
        ({"mapper": "mlp"}, "no mapper 'mlp' for fake/sub-01; choose one of linear"),
        ({"generator": "sdxl"}, "no generator 'sdxl'; choose one of painter, unguided"),
        ({"options": (("hue", 1.0),)}, "painter has no option 'hue', it has contrast; leave"),
        ({"options": (("contrast", 3.0),)}, "contrast lies between 0 and 2, found 3"),
        (
            {"axis": "hue", "values": (1,)},
            "painter cannot vary 'hue' from row to row, only seed, contrast; choose another",
        ),
        ({"axis": "contrast", "values": (1, 3)}, "contrast lies between 0 and 2, found 3"),
        ({"rois": ("V1",)}, "fake/sub-01 has no parcel 'V1' with voxels in the atlas that comes"),
        ({"rois": ("cuneus L",)}, "no parcel 'cuneus L' with voxels.*choose among .*fusiform L"),
        ({"rois": ("fusiform L",), "roi_atlas": "Glasser"}, "in the atlas Glasser; choose among"),
    ],
)
def test_each_choice_that_is_not_on_offer_is_named_in_one_sentence(workbench, changed, message):
    request = Request("fake", "sub-01", "test-03", "linear", "painter")
    check_request(workbench.catalogue, request)
    wrong = dataclasses.replace(request, **changed)
    with pytest.raises(UserError, match=message):
        check_request(workbench.catalogue, wrong)
    for ask in (reconstruct, decode):  # reconstruct refuses before it yields
        if ask is reconstruct or "generator" not in changed and "options" not in changed:
            with pytest.raises(UserError, match=message):
                ask(workbench, wrong)


def test_a_request_without_a_generator_is_enough_to_decode(workbench):
    request = Request("fake", "sub-01", "test-03", "linear", "")
    check_request(workbench.catalogue, request, pictures=False)
    assert decode(workbench, request).n == 10
    with pytest.raises(UserError, match="no generator ''"):
        reconstruct(workbench, request)


@pytest.fixture
def areas():
    """Return an atlas of two areas, on the left and on the right."""
    vertices = np.repeat(np.arange(2), FSAVERAGE5_VERTICES // 2)
    return Atlas("areas", (Label("V1", "L"), Label("V1", "R")), vertices, "Drawn by a test.")


def test_a_given_atlas_is_a_choice_for_voxels_with_places(make_workbench, areas):
    workbench = make_workbench(atlases=[areas])
    voxels = workbench.catalogue.trials("fake", "sub-01").subject.voxels
    assert list(voxels.parcellations) == ["Desikan-Killiany", "areas"]
    laid = parcellation_of(workbench, "fake", "sub-01", "areas")
    left = [k.endswith("L") for k in voxels_keys(voxels)]
    assert (laid.membership == 0).tolist() == left
    assert laid.note == "Drawn by a test."
    assert workbench.catalogue.problems() == []


def voxels_keys(voxels):
    atlas = voxels.parcellations["Desikan-Killiany"]
    return [atlas.labels[i].key for i in atlas.membership]


def test_a_given_atlas_of_a_name_that_is_taken_is_told(make_workbench, areas):
    again = dataclasses.replace(areas, name="Desikan-Killiany")
    workbench = make_workbench(atlases=[again])
    labels = parcellation_of(workbench, "fake", "sub-01", "Desikan-Killiany").labels
    assert len(labels) == 68
    assert re.search("sub-01 has an atlas Desikan-Killiany of its own, .* --atlas NAME=FILE",
                     workbench.catalogue.problems()[0])  # fmt: skip


def test_rois_without_places_are_painted_on_a_given_atlas(make_workbench, fakes, areas):
    class Placeless(fakes.Study):
        names = ("V1", "FFA")

        def load(self, subject):
            trials = super().load(subject)
            voxels = trials.subject.voxels
            half = np.arange(voxels.n_voxels) < voxels.n_voxels // 2
            member, labels = np.stack([half, ~half]), tuple(map(Label, self.names))
            named = {}
            if labels:
                named["ROIs"] = Parcellation("ROIs", "masks", labels, member, voxels.hash)
            voxels = dataclasses.replace(voxels, projection=None, parcellations=named)
            who = dataclasses.replace(trials.subject, voxels=voxels)
            return dataclasses.replace(trials, subject=who)

    workbench = make_workbench(datasets={"fake": Placeless}, atlases=[areas])
    painted = parcellation_of(workbench, "fake", "sub-01")
    assert painted.name == "ROIs on areas" and "none for FFA" in painted.note
    assert set(painted.surface) == {0}
    assert (
        list(workbench.catalogue.trials("fake", "sub-01").subject.voxels.parcellations)[1]
        == "ROIs"
    )
    assert workbench.catalogue.problems() == []
    elsewhere = type("Elsewhere", (Placeless,), {"names": ("PPA", "FFA")})
    workbench = make_workbench(datasets={"fake": elsewhere}, atlases=[areas])
    assert parcellation_of(workbench, "fake", "sub-01").name == "ROIs"
    assert re.match(
        "fake/sub-01: None of the ROIs PPA, FFA is called", workbench.catalogue.problems()[0]
    )
    nothing = type("Nothing", (Placeless,), {"names": ()})
    workbench = make_workbench(datasets={"fake": nothing}, atlases=[areas])
    workbench.catalogue.trials("fake", "sub-01")
    assert "gives neither places nor ROIs for its voxels" in workbench.catalogue.problems()[0]


def test_the_gallery_numbers_test_stimuli_in_the_order_of_the_study(workbench):
    gallery = workbench.catalogue.gallery("fake", "sub-01")
    assert list(gallery.index) == [f"test-{i:02d}" for i in range(1, 11)]
    assert list(gallery["number"]) == list(range(1, 11)) and set(gallery["repeats"]) == {2}
    assert gallery.loc["test-03", "caption"] == "<b>bold</b> ${alert(1)} {{value}}"


def test_a_trial_of_an_unknown_stimulus_is_refused(make_workbench, fakes):
    class Lossy(fakes.Study):
        def __init__(self, path=None, name="fake"):
            super().__init__(path, name)
            self.whole, self.stimuli = self.stimuli, self.stimuli.drop(index="test-04")

        def load(self, subject):
            self.stimuli, short = self.whole, self.stimuli
            trials = super().load(subject)
            self.stimuli = short
            return trials

    workbench = make_workbench(datasets={"fake": Lossy})
    with pytest.raises(UserError, match="has trials of 'test-04', which the table of stimuli lac"):
        workbench.catalogue.gallery("fake", "sub-01")


def test_a_study_without_test_trials_says_so(make_workbench, fakes):
    class Untested(fakes.Study):
        def load(self, subject):
            trials = super().load(subject)
            return dataclasses.replace(trials, table=trials.table.assign(split="train"))

    with pytest.raises(UserError, match="has no test trial, so there is nothing to show; mark tr"):
        make_workbench(datasets={"fake": Untested}).catalogue.gallery("fake", "sub-01")


def test_only_generators_that_accept_the_mappers_targets_are_offered(make_workbench, fakes):
    other = dataclasses.replace(fakes.space, layer="tokens")
    picky = type("Picky", (fakes.Generator,), {"accepts": (other,)})
    either = type("Either", (fakes.Generator,), {"accepts": (other, fakes.space)})
    workbench = make_workbench(generators={"picky": picky, "either": either})
    assert workbench.catalogue.generator_names("fake", "sub-01", "linear") == ["either"]
    with pytest.raises(UserError, match="picky does not accept what .* linear gives; choose eith"):
        check_request(workbench.catalogue, Request("fake", "sub-01", "test-01", "linear", "picky"))


def test_a_mapper_that_no_generator_draws_from_still_decodes(make_workbench, fakes):
    other = dataclasses.replace(fakes.space, layer="tokens")
    picky = type("Picky", (fakes.Generator,), {"accepts": (other,)})
    workbench = make_workbench(generators={"picky": picky})
    request = default_request(workbench.catalogue, "fake", "sub-01", seed=0, mapper="linear")
    assert request.generator == "" and decode(workbench, request).n == 10
    with pytest.raises(UserError, match="No generator here draws from fake-clip/image, which the"):
        check_request(workbench.catalogue, request)


def test_a_mapper_for_other_voxels_is_refused_with_both_numbers(
    make_workbench, fake_checkpoints, tmp_path
):
    root = copied(fake_checkpoints, tmp_path, voxels={"sub-01": [4000, "feedbeef"]})
    workbench = make_workbench(checkpoints=root)
    assert workbench.catalogue.mapper_names("fake", "sub-01") == ["ridge (fitted now)"]
    (problem,) = workbench.catalogue.problems()
    assert re.search(r"4000 voxels \(hash feedbeef\), fake/sub-01 has 200 \(hash \w+\)", problem)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cls": "mixer"}, "of the kind 'mixer', which this version does not have; it has linear"),
        ({"colour": "red"}, "linear-sub-01: card.json has the unknown field 'colour'"),
    ],
)
def test_a_card_that_cannot_be_used_is_a_problem_not_a_crash(
    make_workbench, fake_checkpoints, tmp_path, changed, message
):
    workbench = make_workbench(checkpoints=copied(fake_checkpoints, tmp_path, **changed))
    assert "linear" not in workbench.catalogue.mapper_names("fake", "sub-01")
    assert re.search(message, "\n".join(workbench.catalogue.problems()))


@pytest.mark.parametrize("text", ["{", "[1, 2]"])
def test_a_damaged_card_is_a_problem_not_a_crash(make_workbench, fake_checkpoints, tmp_path, text):
    root = copied(fake_checkpoints, tmp_path)
    (root / "mappers" / "fake" / "linear-sub-01" / "card.json").write_text(text)
    workbench = make_workbench(checkpoints=root)
    assert workbench.catalogue.mapper_names("fake", "sub-01") == ["ridge (fitted now)"]
    assert re.search("card.json (cannot be read|holds a list)", workbench.catalogue.problems()[0])


def test_a_mapper_of_another_data_set_is_neither_offered_nor_a_problem(
    make_workbench, fake_checkpoints, tmp_path
):
    workbench = make_workbench(checkpoints=copied(fake_checkpoints, tmp_path, dataset="nsd"))
    assert workbench.catalogue.mapper_names("fake", "sub-01") == ["ridge (fitted now)"]
    assert workbench.catalogue.problems() == []


def test_two_mappers_of_one_name_are_told_apart_by_their_folders(
    make_workbench, fake_checkpoints, tmp_path
):
    root = copied(fake_checkpoints, tmp_path)
    first = root / "mappers" / "fake" / "linear-sub-01"
    shutil.copytree(first, first.with_name("linear-again-sub-01"))
    names = make_workbench(checkpoints=root).catalogue.mapper_names("fake", "sub-01")
    assert names == ["linear-again-sub-01", "linear-sub-01"]


def test_without_a_mapper_one_is_offered_to_the_smallest_space(make_workbench, fakes):
    large = dataclasses.replace(fakes.space, layer="large", shape=(48,))
    embedder = type("Both", (fakes.Embedder,), {"spaces": (large, fakes.space)})
    generators = {
        "wide": type("Wide", (fakes.Generator,), {"accepts": (large,)}),
        "painter": fakes.Generator,
    }
    workbench = make_workbench(embedders={"both": embedder}, generators=generators)
    assert workbench.catalogue.mapper_names("fake", "sub-02") == ["ridge (fitted now)"]
    fitted = "ridge (fitted now)"
    assert workbench.catalogue.generator_names("fake", "sub-02", fitted) == ["painter"]


def test_nothing_is_fitted_that_takes_long_or_has_no_data(make_workbench, fakes, monkeypatch):
    monkeypatch.setattr("explorer.offers.FIT_LIMIT", 60 * 200 - 1)
    workbench = make_workbench()
    assert workbench.catalogue.mapper_names("fake", "sub-02") == []
    assert re.search(
        "60 training trials of 200 voxels are too many", workbench.catalogue.problems()[0]
    )
    blind = make_workbench(embedders={})
    assert blind.catalogue.mapper_names("fake", "sub-02") == []
    assert re.search("no mapper for fake/sub-02, nor can its 60", blind.catalogue.problems()[0])
    with pytest.raises(UserError, match="no mapper for fake/sub-02; train one with: python -m"):
        check_request(blind.catalogue, Request("fake", "sub-02", "test-01", "linear", "painter"))


def test_the_default_request_is_a_random_trial_that_a_seed_decides(workbench):
    first = default_request(workbench.catalogue, seed=3)
    assert first == default_request(workbench.catalogue, seed=3)
    assert (first.mapper, first.generator, first.steps) == ("linear", "painter", 4)
    check_request(workbench.catalogue, first)
    drawn = {default_request(workbench.catalogue, seed=seed).stimulus for seed in range(60)}
    assert len(drawn) == 10


def test_choices_are_kept_and_steps_follow_the_generator(workbench):
    request = default_request(
        workbench.catalogue, "fake", "sub-01", generator="unguided", scales=(3, 1)
    )
    assert (request.generator, request.steps, request.scales) == ("unguided", 1, (3.0, 1.0))
    assert default_request(workbench.catalogue, steps=7).steps == 7


def test_a_trial_can_be_looked_at_where_no_mapper_fits(make_workbench):
    request = default_request(make_workbench(embedders={}).catalogue, "fake", "sub-02", seed=0)
    assert (request.mapper, request.generator) == ("", "")


def test_mappers_are_offered_in_the_order_of_their_kinds(
    make_workbench, fakes, fake_checkpoints, tmp_path
):
    for name, kind in (("a", "linear"), ("b", "ridge")):
        copied(fake_checkpoints, tmp_path / name, name=name, cls=kind)
        (tmp_path / "mappers" / "fake").mkdir(parents=True, exist_ok=True)
        folder = tmp_path / name / "mappers" / "fake" / "linear-sub-01"
        folder.rename(tmp_path / "mappers" / "fake" / name)
    kinds = {"ridge": fakes.Linear, "linear": fakes.Linear}
    bench = make_workbench(checkpoints=tmp_path, mappers=kinds)
    assert bench.catalogue.mapper_names("fake", "sub-01") == ["b", "a"]


# ---------------------------------------------------------------------- weights from elsewhere


@pytest.fixture
def brought(fakes):
    """Return a generator whose weights do not ship: a file "weights" in a folder."""

    class Brought(fakes.Generator):
        hub = "somebody/painter"

        def __init__(self, checkpoints=None, device="cpu", source=None):
            folder = Path(source or checkpoints / "generators" / "brought").expanduser()
            if not (folder / "weights").is_file():
                raise UserError(f"brought needs a file weights in {folder}; get it.")
            self.folder, self.remarks = folder, ["brought is slow on this device."]

        @property
        def fingerprint(self):
            return (self.folder / "weights").read_text()

    return Brought


def test_a_generator_whose_weights_do_not_ship_is_offered_once_they_are_here(
    make_workbench, fakes, brought, fake_checkpoints, tmp_path
):
    generators = {"brought": brought, "painter": fakes.Generator}
    request = Request("fake", "sub-01", "test-04", "linear", "brought", scales=(1.0,), steps=2)
    bench = make_workbench(generators=generators)
    assert bench.catalogue.generator_names("fake", "sub-01", "linear") == ["painter"]
    with pytest.raises(UserError, match="^brought needs a file weights in .*; get it.$"):
        check_request(bench.catalogue, request)
    assert bench.catalogue.lacking("painter") == ""
    (tmp_path / "weights").write_text("digest")
    bench = make_workbench(generators=generators, sources={"brought": str(tmp_path)})
    assert bench.catalogue.generator_names("fake", "sub-01", "linear") == ["brought", "painter"]
    assert bench.checkpoint_hashes(request)["generator"] == "digest"
    assert [frame.done for frame in reconstruct(bench, request)] == [False, True]
    assert bench.catalogue.problems() == ["brought is slow on this device."]
    kept = tmp_path / "checkpoints"
    shutil.copytree(fake_checkpoints, kept)
    shutil.copytree(tmp_path, kept / "generators" / "brought", ignore=lambda *_: ["checkpoints"])
    bench = make_workbench(generators=generators, checkpoints=kept)
    assert bench.catalogue.generator_names("fake", "sub-01", "linear") == ["brought", "painter"]


def test_where_a_generators_weights_are_is_told_by_name(fakes, brought, tmp_path):
    generators = {"brought": brought, "painter": fakes.Generator}
    pairs = [f"brought={tmp_path}"]
    assert named_sources(pairs, generators) == {"brought": str(tmp_path)}
    assert named_sources(["brought=a/b"], generators) == {"brought": "a/b"}
    for own in (f"{tmp_path}?gallery=cats", "a/b?gallery=cats", "?gallery=cats"):
        assert named_sources([f"brought={own}"], generators) == {"brought": own}
    for wrong, sentence in (
        (["painter=a/b"], "one of brought, found 'painter=a/b'"),
        (["brought"], "--generator takes NAME=PATH_OR_ID"),
        (["brought=/no/such"], "brought: there is nothing at /no/such, and it is no hub id"),
        (["brought=a/b", "brought=a/b"], "names brought twice"),
    ):
        with pytest.raises(UserError, match=sentence):
            named_sources(wrong, generators)

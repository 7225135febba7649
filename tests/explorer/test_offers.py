"""Which mappers and generators fit whom, and why the others do not."""

import dataclasses
import json
import re
import shutil

import pytest

from explorer.choosing import check_request, default_request
from explorer.decoding import decode
from explorer.drawing import reconstruct
from explorer.offers import Offer, offered_as
from explorer.request import Request
from explorer.types import UserError


def copied(checkpoints, folder, **changed):
    """Copy the fake mapper's checkpoint and change fields of its card; return the root."""
    source = checkpoints / "mappers" / "fake" / "linear-sub-01"
    target = folder / "mappers" / "fake" / "linear-sub-01"
    shutil.copytree(source, target)
    card = json.loads((target / "card.json").read_text())
    (target / "card.json").write_text(json.dumps(card | changed))
    return folder


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


def test_a_mapper_of_another_split_is_named_and_not_offered(
    make_workbench, fake_checkpoints, tmp_path
):
    """It may have learned from the images that it would be tested on."""
    root = copied(fake_checkpoints, tmp_path, split_hash="12345678-87654321")
    workbench = make_workbench(checkpoints=root)
    assert workbench.catalogue.mapper_names("fake", "sub-01") == ["ridge (fitted now)"]
    (problem,) = workbench.catalogue.problems()
    assert re.fullmatch(
        r"The mapper in linear-sub-01 was trained with another choice of train stimuli \(hash "
        r"12345678\) than fake/sub-01 has now \(hash \w{8}\); train it again\.",
        problem,
    )
    unsaid = make_workbench(checkpoints=copied(fake_checkpoints, tmp_path / "old", split_hash=""))
    assert unsaid.catalogue.mapper_names("fake", "sub-01") == ["linear"]


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
    root = copied(fake_checkpoints, tmp_path, dataset="other", voxels={"sub-01": [200, "feed"]})
    catalogue = make_workbench(checkpoints=root).catalogue
    assert catalogue.mapper_names("fake", "sub-01") == ["ridge (fitted now)"]
    assert not catalogue.problems()


def test_a_mapper_of_these_voxels_under_another_data_sets_name_is_named(
    make_workbench, fake_checkpoints, tmp_path
):
    root = copied(fake_checkpoints, tmp_path, dataset="other")
    catalogue = make_workbench(checkpoints=root).catalogue
    assert catalogue.mapper_names("fake", "sub-01") == ["ridge (fitted now)"]
    (problem,) = catalogue.problems()
    assert "linear-sub-01 was trained on these voxels of sub-01, but under the data" in problem
    assert problem.endswith("open the data as other=PATH instead of fake=PATH.")


def test_what_an_interrupted_save_leaves_is_never_offered(
    make_workbench, fake_checkpoints, tmp_path
):
    root = copied(fake_checkpoints, tmp_path)
    there = root / "mappers" / "fake" / "linear-sub-01"
    shutil.copytree(
        there, there.with_name(".linear-sub-01.abcd1234")
    )  # the new one, not yet named
    there.rename(there.with_name(".linear-sub-01.abcd1234.old"))
    catalogue = make_workbench(checkpoints=root).catalogue
    assert catalogue.mapper_names("fake", "sub-01") == ["ridge (fitted now)"]
    (problem,) = catalogue.problems()
    assert problem.startswith("The mapper linear-sub-01 is not where it was: a save was cut off")
    assert "rename that folder to linear-sub-01, or give the command" in problem
    shutil.copytree(there.with_name(".linear-sub-01.abcd1234.old"), there)
    catalogue = make_workbench(checkpoints=root).catalogue
    assert catalogue.mapper_names("fake", "sub-01") == ["linear"]
    assert catalogue.problems()[0].endswith("left by a save that was cut off; delete it.")


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


def test_a_bare_name_means_the_only_mapper_of_that_name():
    one, other = Offer(()), Offer(())
    offers = {"ridge (trained on nsd)": one, "mixer (trained on a)": other,
              "mixer (trained on b)": other, "ridge-2 (trained on nsd)": other}  # fmt: skip
    assert offered_as(offers, "ridge") is one
    assert offered_as(offers, "mixer (trained on a)") is other
    for mapper in ("mixer", "rid", "", "ridge (trained on"):
        assert offered_as(offers, mapper) is None

"""Data sets, atlases and stimuli on offer, and one clear sentence for what is not."""

import dataclasses
import re

import numpy as np
import pytest

from explorer.brain.maps import parcellation_of
from explorer.brain.parcels import Atlas
from explorer.naming import recognise
from explorer.types import FSAVERAGE5_VERTICES, Label, Parcellation, UserError


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

"""Test sets beside a data set's own: which lie here, and that their options open them."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.datasets.deeprecon import Deeprecon
from backends.datasets.god import GOD
from backends.datasets.nsd import NSD
from backends.datasets.simulated import Simulated
from explorer.protocols import Dataset
from explorer.types import Trials
from tests.miniatures.deeprecon import FILES, SHOWN, write_deeprecon, write_kind
from tests.miniatures.god import TEST, write_god
from tests.miniatures.nsd import make
from tests.miniatures.nsd_parts import write_imagery, write_synthetic


def loaded(study: Dataset, subject: str) -> dict[str, Trials]:
    """Return the trials of every relative, opened as the explorer opens it; voxels are the own."""
    own, found = study.load(subject).subject.voxels, {}
    for what, options in study.relatives().items():
        found[what] = type(study)(study.path, study.name, **options).load(subject)
        voxels = found[what].subject.voxels
        assert (voxels.n_voxels, voxels.hash) == (own.n_voxels, own.hash), what
    return found


def test_nsd_has_its_two_further_experiments_where_their_betas_lie(tmp_path: Path) -> None:
    root = make(tmp_path)
    assert NSD(root, "nsd").relatives() == {}
    write_synthetic(root)
    assert list(NSD(root, "nsd").relatives()) == ["NSD-synthetic"]
    write_imagery(root)
    found = loaded(NSD(root, "nsd"), "subj01")
    assert list(found) == ["NSD-synthetic", "seen", "imagined"]
    seen, imagined = (set(found[what].stimuli("test")) for what in ("seen", "imagined"))
    assert len(seen & imagined) == 12 and all(s.startswith("imagery-") for s in seen | imagined)
    # the same from the part itself
    assert list(NSD(root, "i", part="imagery").relatives()) == list(found)


def test_god_was_seen_and_imagined(tmp_path: Path) -> None:
    write_god(tmp_path / "Subject1.h5")
    found = loaded(GOD(tmp_path, "god", norm="train"), "Subject1")
    assert list(found) == ["seen", "imagined"]
    assert all(set(trials.stimuli("test")) == set(TEST) for trials in found.values())
    assert set(found["imagined"].table["data_type"]) == {1, 3}


def test_deeprecon_has_what_every_person_has_files_of(tmp_path: Path) -> None:
    write_deeprecon(tmp_path)
    assert list(Deeprecon(tmp_path, "d").relatives()) == ["shapes"]
    write_kind(
        tmp_path / FILES["natural"].format(who="sub-01").replace("ImageNetTest", "Imagery"),
        SHOWN["natural"],
        2,
    )
    found = loaded(Deeprecon(tmp_path, "d"), "sub-01")
    assert set(found) == {"shapes", "seen", "imagined"}
    assert found["imagined"].stimuli("test") == found["seen"].stimuli("test") == SHOWN["natural"]
    assert found["shapes"].stimuli("test") == SHOWN["shapes"]


@pytest.mark.parametrize("part", ["main", "imagery"])
def test_the_embedded_study_has_held_out_and_imagined_pictures(part: str) -> None:
    study = Simulated(part=part)
    found = loaded(study, "subj01")
    assert list(found) == ["held out", "imagined", "seen"]
    assert set(found["seen"].stimuli("test")) == set(found["imagined"].stimuli("test"))
    assert any(s.startswith("held-out-") for s in found["held out"].stimuli("test"))

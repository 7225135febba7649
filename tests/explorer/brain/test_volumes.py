"""Slices and glass brains: where they are cut, in which space, and what is where in them."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from explorer.brain import volumes
from explorer.brain.palettes import PALETTES
from explorer.brain.parcels import voxel_map
from explorer.brain.printed import printable
from explorer.brain.values import told_of
from explorer.types import Label, Parcellation, UserError, VoxelSpace

# x falls with the first index, as radiologists store it: the left is at its end.
AFFINE = np.array([[-4.0, 0, 0, 38], [0, 4, 0, -98], [0, 0, 4, -8], [0, 0, 0, 1]])
MASK = np.ones((20, 8, 8), dtype=bool)
PALETTE = {"sequential": ("#ff0000", "#ff0000"), "diverging": PALETTES["diverging"]["RdBu"]}


@pytest.fixture
def planted():
    """Return a volume whose only values lie left (x of -30 mm), parcels and a map."""
    space = VoxelSpace(int(MASK.sum()), "h", mask=MASK, affine=AFFINE)
    parcels = Parcellation(
        "a", "partition", (Label("V1"),), np.zeros(space.n_voxels, dtype=np.int32), "h"
    )
    x = (np.argwhere(MASK) @ AFFINE[:3, :3].T + AFFINE[:3, 3])[:, 0]
    values = np.where(np.abs(x + 30) < 6, 5.0, np.nan)
    return space, parcels, voxel_map("planted", "planted", values, parcels)


def red(planted, kind, threshold=0.0):
    """Return the columns of a picture that are red, in parts of its width."""
    space, parcels, shown = planted
    png = volumes.picture(kind, shown, told_of(shown, ""), parcels, space, threshold, PALETTE)
    with Image.open(io.BytesIO(png)) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    found = (pixels[..., 0] > 200) & (pixels[..., 1:] < 60).all(axis=-1)
    return np.flatnonzero(found.any(axis=0)) / pixels.shape[1]


def test_left_is_drawn_left_and_a_threshold_hides_it(planted):
    columns = red(planted, "axial")
    in_slice = columns * (volumes.CUTS / 2) % 1  # four slices side by side
    assert len(columns) and (in_slice < 0.5).all()
    assert not len(red(planted, "axial", threshold=5.1))


def test_slices_lie_where_the_voxels_are_and_are_told(planted):
    space = planted[0]
    assert volumes.cut_coordinates(space, "y") == [-98, -94, -90, -86, -82, -78, -74, -70]
    assert volumes.told(space, "coronal") == (
        "Slices at y = \N{MINUS SIGN}98, \N{MINUS SIGN}94, \N{MINUS SIGN}90, \N{MINUS SIGN}86, "
        "\N{MINUS SIGN}82, \N{MINUS SIGN}78, \N{MINUS SIGN}74, \N{MINUS SIGN}70 mm in the "
        "subject's own space (millimetres of the file's affine); outline: the voxels that were "
        "read."
    )
    mni = replace(space, space="MNI152NLin2009cAsym")
    assert "mm in MNI152NLin2009cAsym; grey: nilearn's MNI152" in volumes.told(mni, "sagittal")
    assert volumes.told(mni, "glass").startswith("Glass brain in MNI152NLin2009cAsym: ")


def test_a_glass_brain_is_of_mni_space_alone_and_of_values(planted):
    space = planted[0]
    mni = replace(space, space="MNI152NLin6Asym")
    assert volumes.offered(space) == ("axial", "coronal", "sagittal")
    assert volumes.offered(mni) == ("axial", "coronal", "sagittal", "glass")
    assert volumes.offered(VoxelSpace(3, "h")) == ()
    with pytest.raises(UserError, match="drawn in MNI space, and these voxels lie in the subj"):
        red(planted, "glass")
    with pytest.raises(UserError, match="shows values, and parcels have none; choose slices"):
        volumes.check_kind("glass", mni, labels=True)
    with pytest.raises(UserError, match="These voxels are of no volume, so there are no slices"):
        volumes.check_kind("axial", VoxelSpace(3, "h"), labels=False)


def test_print_takes_slices_only_where_there_is_a_volume(planted):
    space, parcels, shown = planted
    assert printable(shown, parcels, space, "axial") == "slices"
    assert printable(shown, parcels, space, "inflated") == "bars"
    assert printable(shown, parcels, VoxelSpace(space.n_voxels, "h"), "axial") == "bars"


@pytest.mark.parametrize(("x", "seen"), [(-2, "l"), (2, "r")])
def test_a_glass_brain_has_each_voxel_on_its_own_side(x, seen):
    """Also beside the midline, between two voxels of which it lies."""
    affine = np.array([[4.0, 0, 0, -38], [0, 4, 0, -78], [0, 0, 4, -2], [0, 0, 0, 1]])
    mask = np.ones((20, 3, 3), dtype=bool)
    where = (np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3])[:, 0]
    space = VoxelSpace(int(mask.sum()), "h", mask=mask, affine=affine, space="MNI152Lin")
    parcels = Parcellation("a", "partition", (Label("V1"),), np.zeros(180, np.int32), "h")
    shown = voxel_map("one", "one", np.where(where == x, 5.0, np.nan), parcels)
    columns = red((space, parcels, shown), "glass")
    sides = columns[columns < 0.58]  # left, then right; what comes after shows both
    assert len(sides) and ((sides < 0.29) == (seen == "l")).all()

"""What several tests of the explorer are given."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp

from explorer.brain.atlases import desikan_killiany
from explorer.brain.importance import per_parcel
from explorer.brain.parcels import lay
from explorer.brain.surfaces import HALF
from explorer.types import FSAVERAGE5_VERTICES, Label, Parcellation, UserError, VoxelSpace


@pytest.fixture(scope="module")
def sampled():
    """Return a voxel space that samples every fourth vertex, its atlas, and one trial's map."""
    atlas = desikan_killiany()
    vertices = np.arange(0, FSAVERAGE5_VERTICES, 4)
    columns = np.arange(len(vertices))
    shape = (FSAVERAGE5_VERTICES, len(vertices))
    projection = sp.csr_matrix((np.ones(len(vertices)), (vertices, columns)), shape)
    parcellation = lay(atlas, projection, "h")
    space = VoxelSpace(len(vertices), "h", projection, parcellations={"dk": parcellation})
    values = np.random.default_rng(0).normal(size=len(vertices))

    def map_of(values):
        table = per_parcel(values, parcellation)
        return SimpleNamespace(table=table, limits=limits, flat=not values.any())

    limits = {"enrichment": (0, 2), "share": (0, 0.1), "mean": (0, 2), "signed": (-30, 30)}
    return SimpleNamespace(
        parcellation=parcellation, space=space, map=map_of(values), map_of=map_of
    )


@pytest.fixture
def painted():
    """Return two ROIs without places that an atlas paints, and the voxel space they are of."""
    surface = np.full(FSAVERAGE5_VERTICES, -1)
    surface[:100], surface[HALF : HALF + 50] = 0, 1
    member = np.arange(6) < np.array([[4], [6]])
    labels = (Label("V1"), Label("LOC"))
    rois = Parcellation("ROIs on a", "masks", labels, member, "h", surface, "Group location, not.")
    return rois, VoxelSpace(6, "h", parcellations={"ROIs on a": rois})


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


@pytest.fixture
def predicting(make_workbench, encoding_checkpoints):
    """Return a workbench that has the encoding model."""
    encoders = {"encoding": "backends.encoders.voxelwise:Encoding"}
    return make_workbench(checkpoints=encoding_checkpoints, encoders=encoders)

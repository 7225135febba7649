"""Published results, opened over the fake study: for tests of readers, generators and mappers."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from backends import GENERATORS, MAPPERS
from tests.miniatures.published import APPEARANCE, ASCENDING, planted


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


@pytest.fixture
def pictures(tmp_path):
    path = tmp_path / "a_all_recons.pt"
    torch.save(planted(), path)
    return path


@pytest.fixture
def predictions(fakes, tmp_path):
    """Save the true embedding of each test image, with a little noise, by ascending id."""
    rng = np.random.default_rng(0)
    true = fakes.Embedder().embed([fakes.picture(stimulus) for stimulus in ASCENDING])
    path = tmp_path / "a_all_clipvoxels.pt"
    torch.save(torch.from_numpy(true + 0.01 * rng.standard_normal(true.shape)), path)
    return path

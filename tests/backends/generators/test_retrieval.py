"""retrieval: the nearest training picture, said to be one; never a test picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from backends.embedders.pocket import PocketClip
from backends.generators.retrieval import Retrieval
from explorer.protocols import Condition
from explorer.types import UserError

CHECKPOINTS = Path(__file__).resolve().parents[3] / "checkpoints"
IMAGE, TOKENS = PocketClip.spaces


@pytest.fixture(scope="module")
def clip():
    return PocketClip(CHECKPOINTS)


@pytest.fixture(scope="module")
def retrieval(tmp_path_factory):
    return Retrieval(CHECKPOINTS, cache=tmp_path_factory.mktemp("cache"))


def condition(clip, image, study, space=IMAGE):
    decoded = torch.from_numpy(clip.embed([image], space)[0])
    return Condition({space: decoded}, dataset=study, subject=study.load("sub-01").subject)


@pytest.mark.parametrize("space", [IMAGE, TOKENS])
def test_a_training_picture_finds_itself(clip, retrieval, fakes, space):
    study = fakes.Study()
    given = condition(clip, study.image("train-31"), study, space)
    steps = list(retrieval.sweep(given, (0.0, 4.0), 1, seed=0))
    assert [(step.index, step.scale, step.done) for step in steps] == [(0, 0, True), (1, 4, True)]
    first = steps[0]
    assert np.array_equal(first.image, fakes.picture("train-31"))
    assert first.note == (
        "retrieved photograph, not a reconstruction: the nearest of 60 training stimuli"
    )
    assert len(first.neighbours) == 5 and first.neighbours == retrieval.neighbours(given)
    nearest = first.neighbours[0]
    assert (nearest.picture, nearest.label) == ("train-31", "cold")
    assert nearest.similarity == pytest.approx(1, abs=1e-4)
    assert nearest.similarity > first.neighbours[1].similarity


def test_a_test_picture_is_never_found(clip, retrieval, fakes):
    study = fakes.Study()
    given = condition(clip, study.image("test-03"), study)
    assert all(n.picture.startswith("train") for n in retrieval.neighbours(given))


def test_a_folder_is_a_gallery_too_and_gives_pictures_of_one_size(clip, fakes, tmp_path):
    sizes = {"a.png": (32, 32), "b.png": (64, 48), "c.png": (20, 40)}
    for i, (name, size) in enumerate(sizes.items()):
        (tmp_path / "pictures" / "red_fox").mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(fakes.picture(f"train-{i:02d}")).resize(size, Image.NEAREST)
        picture.save(tmp_path / "pictures" / "red_fox" / name)
    retrieval = Retrieval(CHECKPOINTS, source=tmp_path / "pictures", cache=tmp_path / "cache")
    wanted = [np.asarray(Image.open(tmp_path / "pictures" / "red_fox" / n)) for n in sizes]
    given = [Condition({IMAGE: torch.from_numpy(z)}) for z in clip.embed(wanted, IMAGE)]
    found = [retrieval.neighbours(one)[0] for one in given]
    assert [n.picture for n in found] == [f"red_fox/{name}" for name in sizes]
    assert {n.label for n in found} == {"red fox"}
    pictures = retrieval.generate(given, 1.0, [0, 0, 0], 1)
    assert pictures.shape == (3, 32, 32, 3) and np.array_equal(pictures[0], wanted[0])


def test_a_condition_without_a_data_set_is_refused(clip, retrieval):
    with pytest.raises(UserError, match="training stimuli, and this condition names no data set;"):
        retrieval.neighbours(Condition({IMAGE: torch.zeros(128)}))

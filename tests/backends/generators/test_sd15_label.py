"""sd15-label: a class name of the nearest pictures, and nothing else, is what is drawn."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from backends.embedders.pocket import PocketClip
from backends.generators.sd15_label import StableLabel
from explorer.protocols import Condition
from explorer.types import UserError

CHECKPOINTS = Path(__file__).resolve().parents[3] / "checkpoints"
POCKET = PocketClip.spaces[0]


def test_a_picture_is_drawn_from_the_class_name_of_the_nearest_picture(saved, made):
    generator, clip = made["sd15-label"], PocketClip(CHECKPOINTS)
    picture = np.asarray(Image.open(saved / "sd15-label" / "gallery" / "a_a_a" / "one.png"))
    one = Condition({POCKET: torch.from_numpy(clip.embed([picture], POCKET)[0])})
    for step in generator.sweep(one, (0.0, 3.0), 2, seed=4):
        assert step.note == (
            'drawn from the words "a a a" alone, the class of the nearest of 6 pictures in '
            "gallery; nothing else of the image was decoded"
        )
        assert len(step.neighbours) == 5
        assert step.neighbours[0][:2] == ("a_a_a/one.png", "a a a")
        assert step.neighbours[0].similarity == pytest.approx(1, abs=1e-4)
    assert step.done
    # what was decoded matters by that name alone
    near = Condition({POCKET: one.embeddings[POCKET] * 3})
    assert torch.equal(*(generator.latents([c], 3.0, [4], 2) for c in (one, near)))


def test_a_label_of_its_own_is_drawn_and_nothing_is_looked_up(made):
    generator = made["sd15-label"]
    z = {POCKET: torch.zeros(POCKET.shape)}
    assert generator.prompt(Condition(z, label="a a")) == ("a a", ())
    one, other = (Condition(z, label=words) for words in ("a a", "a a a a"))
    rows = [generator.latents([c], 3.0, [4], 2) for c in (one, other, one)]
    assert torch.equal(rows[0], rows[2]) and not torch.equal(rows[0], rows[1])


def test_neighbours_vote(saved, made, tmp_path, labelled):
    shutil.copytree(saved / "sd15-label" / "gallery" / "a_a_a", tmp_path / "a" / "1")
    shutil.copytree(saved / "sd15-label" / "gallery" / "a_a", tmp_path / "a_a" / "1")
    shutil.copytree(saved / "sd15-label" / "gallery" / "a", tmp_path / "a_a" / "2")
    generator, clip = labelled(tmp_path, tmp_path), PocketClip(CHECKPOINTS)
    picture = np.asarray(Image.open(tmp_path / "a" / "1" / "one.png"))
    one = Condition({POCKET: torch.from_numpy(clip.embed([picture], POCKET)[0])})
    assert generator.prompt(one)[0] == "a"
    words, found = generator.prompt(one, votes=3)
    assert words == "a a" and [n.label for n in found] == ["a", "a a", "a a"]
    assert "the class of most of the 3 nearest of 3 pictures" in (
        next(generator.sweep(one, (1.0,), 1, 0, votes=3)).note
    )
    with pytest.raises(UserError, match="votes lies between 1 and 25, found 26"):
        generator.prompt(one, votes=26)
    Image.fromarray(picture).save(tmp_path / "loose.png")
    with pytest.raises(UserError, match=r"1 of 4 pictures in .* have no class name \(first loose"):
        labelled(tmp_path, tmp_path).prompt(one)


def test_among_equal_pictures_the_class_drawn_is_that_of_the_first_one_shown(
    saved, labelled, tmp_path
):
    for name in ("a", "a_a", "a_a_a", "a_a_a_a"):
        shutil.copytree(saved / "sd15-label" / "gallery" / "a_a", tmp_path / name)
    picture = np.asarray(Image.open(tmp_path / "a" / "one.png"))
    generator, clip = labelled(tmp_path, tmp_path), PocketClip(CHECKPOINTS)
    one = Condition({POCKET: torch.from_numpy(clip.embed([picture], POCKET)[0])})
    for votes in (1, 2, 4):
        words, found = generator.prompt(one, votes=votes)
        assert words == found[0].label == "a"
        assert [n.label for n in found] == ["a", "a a", "a a a", "a a a a"]


def test_training_stimuli_name_what_is_seen(saved, fakes, tmp_path):
    study, clip = fakes.Study(), PocketClip(CHECKPOINTS)
    source = saved / "sd15-label"
    generator = StableLabel(CHECKPOINTS, source=source, cache=tmp_path)
    z = {POCKET: torch.from_numpy(clip.embed([study.image("train-31")], POCKET)[0])}
    trial = Condition(z, dataset=study, subject=study.load("sub-01").subject)
    words, found = generator.prompt(trial)
    assert (words, found[0].picture) == ("cold", "train-31")
    with pytest.raises(
        UserError, match="sd15-label looks among a data set's training stimuli, an"
    ):
        generator.prompt(Condition(z))
    with pytest.raises(UserError, match="nowhere holds no pictures .*one sub-folder a class"):
        StableLabel(CHECKPOINTS, source=f"{source}?gallery={tmp_path / 'nowhere'}")
    absent = Condition({StableLabel.accepts[0]: torch.zeros(768)}, *([None] * 4), study)
    with pytest.raises(UserError, match="ViT-L-14 needs the weights of timm/vit_large_patch14"):
        generator.prompt(absent)

"""What ships and what was fine-tuned from it, damaged: one sentence each, and others go on."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from backends import DATASETS, EMBEDDERS, GENERATORS, MAPPERS
from backends.embedders.pocket import PocketClip
from backends.generators.pocket import IMAGE, PocketDiffusion
from backends.generators.tuning import Learned
from explorer.choosing import default_request
from explorer.drawing import reconstruct
from explorer.mapper import write_checkpoint
from explorer.types import Card, UserError
from explorer.workbench import Workbench

CHECKPOINTS = Path(__file__).resolve().parents[3] / "checkpoints"
LARGE = 10**7


@pytest.fixture
def checkpoints(tmp_path):
    """Return copies of what ships that a test may damage; weights are linked until it does."""
    for name in ("pocket-diffusion", "pocket-clip", "pocket-adapters"):
        (tmp_path / name).mkdir()
        shutil.copy(CHECKPOINTS / name / "card.json", tmp_path / name)
        (tmp_path / name / "model.safetensors").symlink_to(
            CHECKPOINTS / name / "model.safetensors"
        )
    return tmp_path


def put(*path, value):
    """Return what puts a value into a card, at a path of keys."""

    def damage(folder):
        file = folder / "card.json"
        card = json.loads(file.read_text())
        place = card
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        file.write_text(json.dumps(card))

    return damage


def write(text):
    return lambda folder: (folder / "card.json").write_text(text)


def quantise(folder):
    file = folder / "model.safetensors"
    state = load_file(file)
    name = next(name for name in state if name.endswith("weight"))
    file.unlink()
    save_file(state | {name: state[name].to(torch.int8)}, file)


def cut(folder):
    file = folder / "model.safetensors"
    data = file.read_bytes()
    file.unlink()
    file.write_bytes(data[:-100])


DAMAGED = {
    "a list": (write("[]"), "card.json holds a list, expected an object with fields"),
    "deep": (
        write('{"a":' * 10**5),
        "card.json cannot be read as JSON .it is nested too deep.; c",
    ),
    "not UTF-8": (
        lambda folder: (folder / "card.json").write_bytes(b"\xff\xfe{"),
        "card.json cannot be read as JSON",
    ),
    "settings": (put("settings", value=[1]), "not a valid card: its settings is no object with f"),
    "a name": (put("cls", value=3), "card.json is not a valid card: its cls is no text"),
    "targets": (put("targets", value=["x"]), "card.json is not a valid card"),
    "voxels": (put("voxels", value={"a": ["x", 2]}), "card.json is not a valid card"),
    "no architecture": (
        put("settings", value={}),
        r"describes no network that goes with its weights \(KeyError 'architecture'\); copy the",
    ),
    "odd architecture": (put("settings", "architecture", value={"a": 1}), "describes no network"),
    "quantised": (quantise, "holds numbers of the type torch.int8, expected torch.float32; quan"),
    "cut": (cut, "model.safetensors is damaged or cut short .*; copy it again"),
}


@pytest.mark.parametrize("harm", DAMAGED)
@pytest.mark.parametrize("name", ["pocket-diffusion", "pocket-clip"])
def test_what_ships_is_one_sentence_when_it_is_damaged(name, harm, checkpoints):
    damage, said = DAMAGED[harm]
    damage(checkpoints / name)
    with pytest.raises(UserError, match=said) as caught:
        {"pocket-diffusion": PocketDiffusion, "pocket-clip": PocketClip}[name](checkpoints)
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            put("settings", "architecture", "denoiser", "in_channels", value=-4),
            "describes no netw",
        ),
        (
            put("settings", "architecture", "denoiser", "block_out_channels", value=[LARGE] * 3),
            r"a network of [\d,]{15,} numbers, and the file of weights holds [\d,]{9,10}\); copy",
        ),
        (put("settings", "scheduler", value={"solver_order": 2, "magic": 1}), "argument 'magic'"),
        (put("settings", "scheduler", "use_flow_sigmas", value=None), None),
        (put("settings", "scheduler", value=3), "as the card of pocket-diffusion"),
    ],
)
def test_a_card_of_another_network_is_one_sentence(damage, said, checkpoints):
    damage(checkpoints / "pocket-diffusion")
    if said is None:
        PocketDiffusion(checkpoints)  # a value that is none of its own, and fits
        return
    with pytest.raises(UserError, match=said):
        PocketDiffusion(checkpoints)


@pytest.fixture
def tuned(tmp_path):
    """Write weights as fine-tuning does; return their folder."""
    from backends.generators.pocket import _load

    networks, _, base = _load(CHECKPOINTS)
    learned = Learned(IMAGE, networks.denoiser, networks.condition.null[0])
    settings = {"base": "", "base hash": base, "mapper": "ridge", "guidance": True}
    about = "generator", "tuned", "pocket-diffusion", "fake", "made by a test", "CC0"
    write_checkpoint(tmp_path / "tuned", learned.stored(), Card(*about, settings=settings))
    assert PocketDiffusion(CHECKPOINTS, source=tmp_path / "tuned").remarks
    return tmp_path / "tuned"


def test_fine_tuned_weights_are_one_sentence_when_they_are_damaged(tuned):
    whole = (tuned / "card.json").read_text()
    for damage, said in (
        (put("settings", value={"base hash": "x"}), "lacks 'base' among its settings; .*finetune"),
        (put("settings", value="x"), "its settings is no object with fields"),
        (put("settings", "base hash", value="x"), "was fine-tuned from other weights"),
        (put("kind", value="mapper"), "is a checkpoint of the mapper pocket-diffusion, expected"),
        (quantise, "holds numbers of the type torch.int8"),
    ):
        damage(tuned)
        with pytest.raises(UserError, match=said):
            PocketDiffusion(CHECKPOINTS, source=tuned)
        (tuned / "card.json").write_text(whole)


def test_a_damaged_generator_does_not_stop_the_others(checkpoints, fakes):
    (checkpoints / "mappers").symlink_to(CHECKPOINTS / "mappers")
    write("{")(checkpoints / "pocket-diffusion")
    cut(checkpoints / "pocket-adapters")
    bench = Workbench(DATASETS, EMBEDDERS, MAPPERS, GENERATORS, checkpoints=checkpoints)
    request = default_request(
        bench.catalogue, "simulated", mapper="ridge", generator="retrieval", scales=(1.0,), steps=1
    )
    assert [frame.done for frame in reconstruct(bench, request)] == [True]
    with pytest.raises(UserError, match="pocket-diffusion/card.json cannot be read as JSON"):
        bench.models.generator("pocket-diffusion")

"""MinD-Vis' fine-tuned encoder as a mapper, held to its layers one after the other."""

import numpy as np
import pandas as pd
import pytest
import torch

from backends.commands.fine_tuned import fine_tuned, space_of
from backends.commands.foreign_checkpoints import MAE, open_checkpoint
from backends.generators.mindvis import MindVis, NeuroLens
from backends.mappers.masked import Masked
from backends.mappers.parts.patches import published_encoder
from explorer.types import Subject, Trials, UserError, VoxelSpace
from tests.miniatures import mindvis

VOXELS, HEADS = mindvis.PATCHES * mindvis.PATCH - 7, 4
# What the authors' encoder and mappers (zjc062/mind-vis, code/sc_mbm and dc_ldm) make of the
# small file and the first test trial: values of tokens 0 and 76
THEIRS = (
    (-1.0381604433059692, -1.4792556762695312, 1.1006008386611938),
    (-1.2286149263381958, 0.2655276358127594, 1.3850021362304688),
)


def trials(voxels=VOXELS, scale=3.0):
    betas = 2 + scale * np.random.default_rng(0).standard_normal((20, voxels), dtype=np.float32)
    table = pd.DataFrame({"stimulus": [f"s{i}" for i in range(20)], "session": 1, "run": 1})
    table["split"], table["repeat"] = ["train"] * 12 + ["test"] * 8, 0
    return Trials(Subject("god", "sbj_3", VoxelSpace(voxels, "hash")), betas, "units", table)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return open_checkpoint(mindvis.save(tmp_path_factory.mktemp("file"), mindvis.state()))


ABOUT = {
    **{"heads": HEADS, "title": "", "command": "a test"},
    "origin": lambda found, left_out: {"left out": list(left_out)},
}


@torch.no_grad()
def test_a_trial_becomes_the_context_that_the_published_layers_make(found, tmp_path):
    one, state = trials(), mindvis.state()
    mapper, card, left_out = fine_tuned(found, [one], **ABOUT)
    mapper.save_pretrained(tmp_path / "mapper", card)
    loaded = Masked.from_pretrained(tmp_path / "mapper")
    decoded = loaded.decode(one.betas, "sbj_3")[MindVis.accepts[0]]
    assert decoded.shape == (20, 77, 512) and card.targets == MindVis.accepts
    padded = np.pad(one.betas, ((0, 0), (0, 7)), "wrap")  # pad_to_patch_size
    train = padded[:12].astype(np.float64)
    rows = torch.from_numpy(((padded - train.mean()) / train.std()).astype(np.float32))
    encoder = published_encoder(state, HEADS, MAE)
    tokens = encoder(rows.unflatten(1, (-1, mindvis.PATCH)), class_token=False)
    for layer in ("channel_mapper.0", "channel_mapper.1"):
        weight, bias = (state[f"cond_stage_model.{layer}.{kind}"] for kind in ("weight", "bias"))
        tokens = torch.nn.functional.conv1d(tokens, weight, bias)
    weight, bias = (state[f"cond_stage_model.dim_mapper.{kind}"] for kind in ("weight", "bias"))
    expected = torch.nn.functional.linear(tokens, weight, bias).numpy()
    np.testing.assert_allclose(decoded, expected, atol=2e-5)
    np.testing.assert_allclose(decoded[12, [0, 76], :3], THEIRS, atol=1e-4)
    # no brain is the encoder of no activity: of betas at the mean
    (null,) = loaded.unconditional().values()
    still = np.full_like(one.betas[:1], train.mean())
    (silent,) = loaded.decode(still, "sbj_3").values()
    np.testing.assert_allclose(null, silent[0], atol=1e-4)
    assert np.abs(null.numpy() - decoded[12]).mean() > 0.1
    assert {line.split(" (")[0] for line in left_out} == {
        "model.diffusion_model", "first_stage_model", "betas", "alphas_cumprod",
    }  # fmt: skip


def test_the_width_of_its_context_tells_whose_it_is():
    for cls in (MindVis, NeuroLens):
        (space,) = cls.accepts
        bias = torch.zeros(space.shape[1])
        assert space_of({"cond_stage_model.dim_mapper.bias": bias}) == space


def test_other_voxels_people_and_widths_are_refused(found, tmp_path):
    for voxels in (mindvis.PATCHES * mindvis.PATCH + 1, VOXELS - 16):
        with pytest.raises(UserError, match=f"had 80 to 95, and god/sbj_3 has {voxels}; name"):
            fine_tuned(found, [trials(voxels)], **ABOUT)
    with pytest.raises(UserError, match="was trained on one participant; .* found 2"):
        fine_tuned(found, [trials()] * 2, **ABOUT)
    with pytest.raises(UserError, match="the mean 2 and the SD 0, by which nothing can be"):
        fine_tuned(found, [trials(scale=0.0)], **ABOUT)
    for name, values, said in (
        ("dim_mapper.bias", torch.zeros(600), "a context of 600 values a token, expected 512 or"),
        ("channel_mapper.0.weight", None, "lacks cond_stage_model.channel_mapper.0.weight, so"),
        ("channel_mapper.1.weight", torch.zeros(77, 4, 1), "do not belong together"),
    ):
        changed = {f"cond_stage_model.{name}": values}
        other = open_checkpoint(mindvis.save(tmp_path, mindvis.state(), changed))
        with pytest.raises(UserError, match=said):
            fine_tuned(other, [trials()], **ABOUT)

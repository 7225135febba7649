"""Fine-tuning: what is changed and what is not, the null, both families, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from backends.embedders.pocket import PocketClip
from backends.generators import finetuning as tuning
from backends.generators.pocket import IMAGE, PocketDiffusion
from backends.generators.sd15_context import CONTEXT, StableContext
from backends.generators.tuning import Projection, trained_names, tuned_card
from backends.training.plan import Course
from explorer.mapper import read_card, write_card, write_checkpoint
from explorer.protocols import Condition
from explorer.types import Card, EmbeddingSpace, Trials, UserError

CHECKPOINTS = Path(__file__).resolve().parents[3] / "checkpoints"
SIDE = 8  # latents of the tiny Stable Diffusion
COURSE = Course(epochs=2, batch=4, lr=2e-3, patience=0, validation=0.2, precision="fp32")


# --------------------------------------------------------------------------- what is learned from


@pytest.fixture(scope="module")
def few(fakes):
    """Return the first ten training trials of a fake subject, and its test trials."""
    every = fakes.Study().load("sub-01")
    rows = np.concatenate([every.rows("train")[:10], every.rows("test")])
    table = every.table.iloc[rows].reset_index(drop=True)
    return Trials(every.subject, every.betas[rows], every.beta_unit, table)


def mapper_to(fakes, few, space):
    """Return a mapper that gives random embeddings of a space for the trials."""
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((len(few.stimuli("train")), *space.shape)).astype(np.float32)
    goals = dict(zip(few.stimuli("train"), drawn, strict=True))
    return fakes.Linear.fit([few], {space: goals}, seed=0)


@pytest.fixture(scope="module")
def mapper(fakes, few):
    return mapper_to(fakes, few, IMAGE)


@pytest.fixture(scope="module")
def clip():
    return PocketClip(CHECKPOINTS)


@pytest.fixture(scope="module")
def tuned(fakes, few, mapper, clip, tmp_path_factory):
    """Return a function that fine-tunes pocket-diffusion into a folder, once for each choice."""
    root, made = tmp_path_factory.mktemp("tuned"), {}

    def make(alignment="none", guidance=True):
        if (alignment, guidance) not in made:
            folder = root / f"{alignment}-{guidance}"
            trainee = PocketDiffusion.for_training(CHECKPOINTS)
            before = {name: z.clone() for name, z in trainee.networks.state_dict().items()}
            how = {"alignment": alignment, "guidance": guidance, "embedder": clip}
            goals = tuning.goals_of(trainee, [few], fakes.picture, clip)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(tuning, "DROPOUT", 0.5)  # of so few conditions a tenth may be none
                tuning.finetune(trainee, mapper, [few], goals, folder, course=COURSE, **how)
            made[alignment, guidance] = folder, trainee, before
        return made[alignment, guidance]

    return make


def condition(space, seed=0, **more):
    values = torch.randn(space.shape, generator=torch.Generator().manual_seed(seed))
    return Condition({space: values}, **more)


def picture(generator, scale, space=IMAGE, steps=3, **more):
    return generator.generate([condition(space, **more)], scale, [3], steps)[0].astype(int)


# ------------------------------------------------------------------------------------- the parts


def test_cross_attention_and_time_are_trained_and_residual_blocks_are_not():
    names = trained_names(PocketDiffusion.for_training(CHECKPOINTS).unet)
    block = "mid_block.attentions.0.transformer_blocks.0"
    assert {f"{block}.attn2.to_k.weight", f"{block}.norm2.bias"} <= set(names)
    assert {"time_embedding.linear_1.weight", "class_embedding.linear_2.bias"} <= set(names)
    assert not [name for name in names if "resnets" in name or "attn1" in name or ".ff." in name]


@pytest.mark.parametrize("unit", [True, False])
def test_a_projection_starts_as_nothing_added(unit):
    space = EmbeddingSpace("toy", "image", (5, 16), unit_norm=unit)
    projection = Projection(space)
    decoded = torch.randn(30, 5, 16) * 4 + 1
    projection.set_statistics(decoded)
    expected = torch.nn.functional.normalize(decoded, dim=-1) if unit else decoded
    torch.testing.assert_close(projection(decoded), expected)
    torch.testing.assert_close(projection.mean, expected.flatten(0, 1).mean(dim=0))
    torch.nn.init.ones_(projection.up.bias)
    torch.testing.assert_close(projection(decoded), expected + projection.sd)


def test_goals_are_the_training_pictures_alone(few, fakes, clip):
    trainee = PocketDiffusion.for_training(CHECKPOINTS)
    goals = tuning.goals_of(trainee, [few], fakes.picture, clip)
    latents, shown = goals
    assert shown == IMAGE and latents.shape == trainee.shape
    assert list(goals[latents]) == list(goals[IMAGE]) == few.stimuli("train")
    name = few.stimuli("train")[3]
    np.testing.assert_allclose(
        goals[IMAGE][name], clip.embed([fakes.picture(name)], IMAGE)[0], atol=1e-5
    )
    pixels = trainee.decode(torch.from_numpy(goals[latents][name])[None])[0]
    seen = np.kron(fakes.picture(name), np.ones((4, 4, 1))).transpose(2, 0, 1) / 127.5 - 1
    assert np.corrcoef(pixels.detach().numpy().ravel(), seen.ravel())[0, 1] > 0.95


def test_noise_is_normal_whatever_is_drawn():
    drawn = torch.tensor([0.0, 0.158655, 0.5, 0.975, 1 - 2**-24])
    found = tuning._normal(drawn)
    torch.testing.assert_close(found[1:4], torch.tensor([-1.0, 0.0, 1.959964]), atol=1e-3, rtol=0)
    assert found.isfinite().all() and found[0] < -4 and found[4] > 4


@pytest.mark.parametrize("family", ["pocket", "epsilon", "v_prediction"])
def test_the_goal_leads_back_to_the_picture(family, tmp_path):
    if family == "pocket":
        trainee = PocketDiffusion.for_training(CHECKPOINTS)
    else:
        save_stable(tmp_path, prediction_type=family)
        trainee = StableContext.for_training(tmp_path, tmp_path)
    clean, noise = torch.randn(2, 6, *trainee.shape)
    drawn = torch.tensor([0.0, 0.1, 0.3, 0.5, 0.7, 0.8])
    noisy, time, goal = trainee.noised(clean, noise, drawn)
    torch.testing.assert_close(trainee.clean(noisy, goal, time), clean, atol=1e-3, rtol=1e-3)
    assert (time.diff() > 0).all() and time[0] < 50
    share = [
        torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
        for a, b in zip(noisy, noise, strict=True)
    ]
    assert share == sorted(share)  # noisier with time


# ------------------------------------------------------------------------------ pocket-diffusion


def test_untrained_weights_draw_what_shipped(tmp_path):
    trainee = PocketDiffusion.for_training(CHECKPOINTS)
    write_checkpoint(tmp_path / "same", trainee.learned.stored(), card_of(trainee))
    shipped = PocketDiffusion(CHECKPOINTS)
    same = PocketDiffusion(CHECKPOINTS, source=tmp_path / "same")
    for scale in (0.0, 1.0, 3.0):
        assert np.abs(picture(same, scale) - picture(shipped, scale)).mean() < 0.5
    assert same.remarks == [
        "pocket-diffusion draws with weights that were fine-tuned on what linear of fake (sub-01) "
        "decodes; with other mappers it may be worse than before."
    ]


def card_of(trainee, **changed):
    settings = {"base": "", "base hash": trainee.base, "mapper": "linear", "guidance": True}
    about = {"subjects": ("sub-01",), "voxels": {"sub-01": (1, "h")}}
    made = Card("generator", "same", trainee.generator, "fake", "test", "CC0", **about)
    return replace(made, settings=settings, **changed)


def test_only_what_is_meant_to_learn_changes_and_it_is_what_draws(tuned):
    folder, trainee, before = tuned()
    after = trainee.networks.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"denoiser.{name}" for name in trained_names(trainee.unet)}
    card = read_card(folder)
    assert not folder.with_name(f"{folder.name}.run").exists()  # nothing left to go on from
    assert card.kind == "generator" and card.targets == (IMAGE,)
    assert card.settings["guidance"] and card.settings["base hash"] == trainee.base
    drawn = PocketDiffusion(CHECKPOINTS, source=folder)
    null = drawn.networks.condition.null[0]
    torch.testing.assert_close(null, trainee.learned.null, atol=1e-3, rtol=1e-3)
    shipped = PocketDiffusion(CHECKPOINTS)
    for scale in (0.0, 1.0):
        assert np.abs(picture(drawn, scale) - picture(shipped, scale)).mean() > 1


def test_training_brings_held_out_errors_down(tuned):
    (folder, _, _) = tuned()
    course = read_card(folder).settings["course"]
    assert course["epochs"] == 2 and course["validation"] == 0.2
    training = read_card(folder).metrics["training"]
    assert training["epoch kept"] == 2  # the second epoch is better on what was held out


def test_the_seed_alone_decides_what_is_learned(fakes, few, mapper, tmp_path):
    found = []
    for number in range(2):
        torch.manual_seed(number)  # whatever was drawn before
        trainee = PocketDiffusion.for_training(CHECKPOINTS)
        goals = tuning.goals_of(trainee, [few], fakes.picture)
        course = replace(COURSE, epochs=1, batch=8)
        tuning.finetune(trainee, mapper, [few], goals, tmp_path / str(number), course=course)
        found.append(trainee.learned.stored())
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, atol=1e-5, rtol=1e-4)


def test_the_null_is_learned_only_where_conditions_are_dropped(tuned):
    null = PocketDiffusion(CHECKPOINTS).networks.condition.null[0]
    with_null, without = tuned(guidance=True)[1], tuned(guidance=False)[1]
    assert not torch.allclose(with_null.learned.null, null, atol=1e-3)
    assert torch.equal(without.learned.null, null)
    drawn = PocketDiffusion(CHECKPOINTS, source=tuned(guidance=False)[0])
    assert drawn.remarks[1].startswith("pocket-diffusion was fine-tuned without a null, so other")


def test_each_alignment_teaches_something_else(tuned):
    found = [tuned(alignment)[1].learned.projection.up.weight for alignment in tuning.WEIGHTS]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not torch.allclose(found[a], found[b], atol=1e-5)
    settings = read_card(tuned("generator")[0]).settings
    assert (settings["alignment"], settings["alignment weight"]) == ("generator", 0.04)


# ------------------------------------------------------------------------------ Stable Diffusion


def save_stable(folder, **scheduler):
    """Write a tiny random model of Stable Diffusion's architecture, in diffusers' layout."""
    UNet2DConditionModel(
        sample_size=SIDE,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=768,
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    ).save_pretrained(folder / "vae")
    DDIMScheduler(beta_start=0.00085, beta_end=0.012, **scheduler).save_pretrained(
        folder / "scheduler"
    )
    ends = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 3, "vocab_size": 4}
    sizes = {"hidden_size": 768, "intermediate_size": 16, "num_hidden_layers": 1}
    config = CLIPTextConfig(**ends, **sizes, num_attention_heads=2)
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    words = folder / "tokenizer"
    words.mkdir()
    ids = {"a": 0, "a</w>": 1, "<|startoftext|>": 2, "<|endoftext|>": 3}
    (words / "vocab.json").write_text(json.dumps(ids))
    (words / "merges.txt").write_text("#version: 0.2\n")
    about = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}
    (words / "tokenizer_config.json").write_text(json.dumps(about))
    (words / "special_tokens_map.json").write_text(json.dumps({"pad_token": "<|endoftext|>"}))


@pytest.fixture(scope="module")
def stable(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stable")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_stable(folder)
    return folder


def test_stable_diffusion_learns_by_the_same_code(stable, fakes, few, clip, tmp_path):
    trainee = StableContext.for_training(tmp_path, stable)
    assert trainee.side == 2 * SIDE  # the tiny autoencoder halves pictures
    how = {"alignment": "generator", "embedder": clip, "course": replace(COURSE, lr=0.02)}
    decoder = mapper_to(fakes, few, CONTEXT)
    goals = tuning.goals_of(trainee, [few], fakes.picture, clip)
    card = tuning.finetune(trainee, decoder, [few], goals, tmp_path / "tuned", **how)
    assert card.cls == "sd15-context" and card.settings["base"] == str(stable)
    drawn = StableContext(tmp_path, source=tmp_path / "tuned")
    plain = StableContext(tmp_path, source=stable)
    assert drawn.remarks[0].startswith("sd15-context draws with weights that were fine-tuned on")
    assert (
        drawn.fingerprint.startswith(plain.fingerprint) and drawn.fingerprint != plain.fingerprint
    )
    at = {"scale": 1.0, "seeds": [3], "steps": 3}
    given = [condition(CONTEXT)]
    assert not torch.allclose(drawn.latents(given, **at), plain.latents(given, **at), atol=1e-3)
    # its own null, whatever the mapper has learned for no brain
    other = [condition(CONTEXT, nulls={CONTEXT: torch.zeros(CONTEXT.shape)})]
    at["scale"] = 0.0
    assert torch.equal(drawn.latents(given, **at), drawn.latents(other, **at))
    assert not torch.allclose(plain.latents(given, **at), plain.latents(other, **at), atol=1e-4)
    with pytest.raises(UserError, match="is fine-tuned already; name the weights that it began"):
        StableContext.for_training(tmp_path, tmp_path / "tuned")


def test_untrained_weights_of_stable_diffusion_draw_as_before(stable, tmp_path):
    trainee = StableContext.for_training(tmp_path, stable)
    card = card_of(trainee)
    card.settings["base"] = str(stable)
    write_checkpoint(tmp_path / "same", trainee.learned.stored(), card)
    same, plain = (StableContext(tmp_path, source=s) for s in (tmp_path / "same", stable))
    given = [condition(CONTEXT)]
    for scale in (0.0, 3.0):
        pair = [one.latents(given, scale, [3], 3) for one in (same, plain)]
        torch.testing.assert_close(*pair, atol=1e-4, rtol=1e-4)


# ------------------------------------------------------------------------------------ bad input


def test_what_cannot_be_fine_tuned_is_said(mapper):
    other = EmbeddingSpace("elsewhere", "image", (4,))
    with pytest.raises(UserError, match="alignment is none, encoder, generator, found 'clipA'"):
        tuning.check("clipA", "pocket-diffusion", IMAGE, mapper)
    with pytest.raises(UserError, match="on decoded elsewhere/image, the mapper gives pocket-cli"):
        tuning.check("none", "toy", other, mapper)
    with pytest.raises(UserError, match="fine-tuned from the weights in checkpoints, found elsew"):
        PocketDiffusion.for_training(CHECKPOINTS, "elsewhere")


def test_weights_that_do_not_belong_are_refused(tuned, stable, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(tuned()[0], folder)
    card = read_card(folder)
    with pytest.raises(UserError, match="of the generator pocket-diffusion, expected what python"):
        tuned_card(folder, "sd15-context")
    write_card(folder, replace(card, settings={**card.settings, "base hash": "elsewhere"}))
    with pytest.raises(UserError, match=r"from other weights .*\(hash elsewhere\) than those her"):
        PocketDiffusion(CHECKPOINTS, source=folder)
    with pytest.raises(UserError, match="has no card.json, expected a folder that python -m back"):
        PocketDiffusion(CHECKPOINTS, source=tmp_path)

"""What MindEye2 does after drawing, on small random networks: blur, caption, refinement."""

import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, GitConfig, GitForCausalLM

from backends.generators import mindeye2
from backends.generators.mindeye2 import Blur, Captioner, Refiner, blended, resized
from backends.generators.sampling import Wanted
from backends.generators.sdxl_unclip import LOW, TOKENS, SDXLUnCLIP
from explorer.protocols import Condition
from explorer.types import UserError

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "##d", "e")
WIDTH, PLACES = 8, 5  # of what GIT sees of a picture


def source(seed):
    return torch.Generator().manual_seed(seed)


def values(*shape, seed=0):
    return torch.randn(shape, generator=source(seed))


def save_git(folder):
    folder.mkdir()
    vision = {"hidden_size": WIDTH, "intermediate_size": 8, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    text = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    sizes = {"vocab_size": len(WORDS), "intermediate_size": 16}
    config = GitConfig(vision_config=vision, **sizes, **text, **ends)
    model = GitForCausalLM(config)
    for name, parameter in model.named_parameters():  # so that pictures decide
        if "orm" not in name:
            parameter.data.normal_(0, 0 if "bias" in name else 1)
    model.git.embeddings.LayerNorm.weight.data.fill_(0.1)
    model.output.bias.data[:5] = torch.tensor([-50.0, -50, -50, -2, -50])  # words, and an end
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    about = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return model.eval()


def save_converter(path, tokens=TOKENS.shape):
    state = {
        "linear1.weight": values(PLACES, tokens[0]) / tokens[0] ** 0.5,
        "linear1.bias": values(PLACES, seed=1),
        "linear2.weight": values(WIDTH, tokens[1], seed=2) / tokens[1] ** 0.5,
        "linear2.bias": values(WIDTH, seed=3),
    }
    torch.save({"model_state_dict": state, "epoch": 8}, path)
    return state


def small_autoencoder(folder):
    config = {
        "block_out_channels": (32, 32),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "layers_per_block": 1,
    }
    network = AutoencoderKL(**config)
    network.save_pretrained(folder / "vae")
    return network.eval()


@pytest.fixture(scope="module")
def further(tmp_path_factory, saved):
    """Return folders of GIT, of an autoencoder and of SDXL, and what is in the first two."""
    root = tmp_path_factory.mktemp("further")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        git = save_git(root / "git")
        save_converter(root / "git" / mindeye2.CONVERTER_FILE)
        autoencoder = small_autoencoder(root / "sd")
    return root / "git", root / "sd", saved / "ip-adapter-xl", git, autoencoder


@torch.no_grad()
def test_a_caption_is_what_git_says_of_a_picture_that_it_sees_so(further, tmp_path):
    folder, *_, git, _ = further
    planted = {f"linear{i}.weight": torch.eye(n) for i, n in ((1, PLACES), (2, WIDTH))}
    planted |= {f"linear{i}.bias": torch.zeros(n) for i, n in ((1, PLACES), (2, WIDTH))}
    torch.save({"model_state_dict": planted}, tmp_path / "planted.pth")
    captioner = Captioner(folder, tmp_path / "planted.pth", "cpu")
    captioner.converter = tmp_path / "planted.pth"
    captions = []
    for seed in range(4, 12):  # random weights say nothing of some pictures
        picture = values(1, 3, 16, 16, seed=seed)
        ids = git.generate(pixel_values=picture, max_length=20)[0]
        pieces = [WORDS[i] for i in ids if WORDS[i][0] != "["]
        captions.append(" ".join(pieces).replace(" ##", ""))
        seen = git.git.image_encoder(picture).last_hidden_state
        assert captioner.words(seen[0]) == captions[-1]
    assert any(captions)
    others = {captioner.words(values(PLACES, WIDTH, seed=seed)) for seed in range(6)}
    assert len(others) > 1


@torch.no_grad()
def test_tokens_are_mapped_to_what_git_sees(tmp_path):
    state = save_converter(tmp_path / "c.pth")
    tokens = values(2, *TOKENS.shape, seed=9)
    found = mindeye2.converter(tmp_path / "c.pth", (PLACES, WIDTH))(tokens)
    mixed = torch.einsum("pt,ntd->npd", state["linear1.weight"], tokens)
    mixed = mixed + state["linear1.bias"][:, None]
    expected = torch.einsum("wd,npd->npw", state["linear2.weight"], mixed) + state["linear2.bias"]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(UserError, match=r"c.pth cannot be read as bigG_to_L.*expected \(257, 256"):
        mindeye2.converter(tmp_path / "c.pth", (257, 1024))


@torch.no_grad()
def test_the_blurry_picture_is_that_of_the_autoencoder(further, tmp_path):
    _, folder, *_, network = further
    latents = values(4, 28, 28, seed=2)
    expected = network.decode(latents[None] / 0.18215).sample.clamp(-1, 1)
    assert torch.equal(Blur(folder, "cpu").picture(latents), expected)
    assert torch.equal(Blur(folder / "vae", "cpu").picture(latents), expected)
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for name, value in network.state_dict().items():
        for new, was in names.items():
            name = name.replace(f".{new}.", f".{was}.")
        old[name] = value
    assert any(".query." in name for name in old)
    file = tmp_path / mindeye2.BLUR_FILE
    torch.save(old, file)
    torch.testing.assert_close(Blur(file, "cpu").picture(latents), expected)
    del old["decoder.conv_in.bias"]
    torch.save(old, file)
    with pytest.raises(UserError, match="sd_image_var_autoenc.pth of MindEye2 .it lacks what dec"):
        Blur(file, "cpu").picture(latents)


@torch.no_grad()
def test_refinement_is_a_plain_loop_in_sigma(further):
    """Euler steps of two rows from the 14th of 25 noise levels, with the folder's own networks."""
    folder, picture = further[2], values(1, 3, 32, 32, seed=6).clamp(-1, 1)
    refiner = Refiner(folder, "cpu")
    found = refiner.refined(picture, "a a", source(5), 1e6)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    texts = (CLIPTextModel, "text_encoder"), (CLIPTextModelWithProjection, "text_encoder_2")
    texts = [cls.from_pretrained(folder / name) for cls, name in texts]
    noise = source(5)
    code = vae.encode(resized(picture, 16)).latent_dist
    z = (code.mean + code.std * torch.randn(code.mean.shape, generator=noise)) * 0.13025
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = (1 - betas).cumprod(0)
    times = np.linspace(999, 0, 25, endpoint=False).astype(int)[-12:]
    sigmas = [*((1 - kept[t]) / kept[t] for t in times), torch.zeros(())]
    sigmas = [float(sigma) ** 0.5 for sigma in sigmas]
    x = z + sigmas[0] * torch.randn(z.shape, generator=noise)
    told = []
    for ids in ([2, 1, 1, *[3] * 74], None):
        if ids is None:
            words, _ = refiner._texts[0]
            unwanted = mindeye2.UNWANTED
            ids = words(unwanted, padding="max_length", max_length=77, truncation=True).input_ids
        one, two = (text(torch.tensor([ids]), output_hidden_states=True) for text in texts)
        context = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], -1)
        sizes = torch.tensor([[768.0, 768, 0, 0, 1024, 1024]])
        told.append((context, {"text_embeds": two.text_embeds, "time_ids": sizes}))
    for i, time in enumerate(times):
        scaled = x / (1 + sigmas[i] ** 2) ** 0.5
        c, u = (unet(scaled, int(time), ctx, added_cond_kwargs=a).sample for ctx, a in told)
        x = x + (sigmas[i + 1] - sigmas[i]) * (u + 5 * (c - u))
    expected = vae.decode(x / 0.13025).sample.clamp(-1, 1)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    assert (found - resized(picture, 16)).abs().mean() > 0.05


@pytest.fixture(scope="module")
def whole(further, saved, tmp_path_factory):
    git, sd, xl = further[:3]
    path = f"{saved / 'sdxl-unclip'}?refiner={xl}&captioner={git}&vae={sd}"
    return SDXLUnCLIP(tmp_path_factory.mktemp("none"), source=path)


def condition(seed, low=True):
    tokens = {TOKENS: values(*TOKENS.shape, seed=seed)}
    return Condition(tokens | ({LOW: values(*LOW.shape, seed=seed)} if low else {}))


def drawn(generator, given, scale, **options):
    (picture,) = generator.generate([given], scale, [7], 2, **options)
    return picture.astype(float)


@torch.no_grad()
def test_rows_of_the_papers_table(whole, further):
    """Unrefined is the default, refined ones are blended too, the low-level branch alone."""
    one, other = condition(1), condition(3)
    plain = drawn(whole, one, 5.0)
    assert np.array_equal(plain, drawn(whole, condition(1, low=False), 5.0))
    alone = drawn(whole, one, 5.0, low_level=1)
    network = further[4]
    blur = network.decode(one.embeddings[LOW][None] / 0.18215).sample.clamp(-1, 1)
    assert np.abs((blur[0].permute(1, 2, 0).numpy() + 1) * 127.5 - alone).max() <= 0.5 + 1e-3
    blend = drawn(whole, one, 5.0, low_level=0.25)
    small = (resized(blur, 16)[0].permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(0.75 * plain + 0.25 * small - blend).max() <= 1
    refined = drawn(whole, one, 5.0, refine=1)
    assert np.abs(refined - plain).mean() > 5
    assert np.abs(refined - drawn(whole, one, 5.0, refine=1)).max() == 0
    words, others = (whole._captioner.words(given.embeddings[TOKENS]) for given in (one, other))
    assert words != others
    (step,) = [s for s in whole.sweep(one, [5.0], 2, 7, refine=1) if s.done]
    assert step.note == f'refined with the words "{words}"' and words
    assert np.abs(step.image - refined).max() <= 1
    row, how = whole.latents([one], 5.0, [7], 2), whole._chosen({"refine": 1})
    again, anew = (whole._picture(row, Wanted(one, 5.0, seed), how)[0] for seed in (7, 8))
    assert (again - anew).abs().mean() > 0.01  # its noise is of the picture's own seed
    (alone_step,) = whole.sweep(one, [5.0], 8, 7, low_level=1)
    assert alone_step.done and alone_step.note.startswith("the low-level branch alone")
    (*_, last) = whole.moments([one], 5.0, 7, 2, refine=1)  # on the way nothing is refined
    assert np.abs(last.images[0] - plain).max() <= 1
    # without the brain nothing of it is left, whatever is on
    for how in (
        {"refine": 1},
        {"low_level": 0.5},
        {"low_level": 1},
        {"refine": 1, "low_level": 0.25},
    ):
        assert np.array_equal(drawn(whole, one, 0.0, **how), drawn(whole, other, 0.0, **how)), how


def test_what_is_lacking_is_one_sentence(whole, saved, further, tmp_path):
    bare = SDXLUnCLIP(tmp_path, source=saved / "sdxl-unclip")
    with pytest.raises(UserError, match="has no refiner and no captioner for its option refine; "):
        drawn(bare, condition(1), 1.0, refine=1)
    with pytest.raises(UserError, match=r"has no vae for its option low_level.*PATH\?vae=FOLD"):
        drawn(bare, condition(1), 1.0, low_level=0.25)
    with pytest.raises(UserError, match="what a mapper decodes in sd-vae-224/latents, and this o"):
        drawn(whole, condition(1, low=False), 1.0, low_level=0.25)
    with pytest.raises(UserError, match="after . are refiner, captioner, vae, each once.*'odd=1'"):
        SDXLUnCLIP(tmp_path, source=f"{saved / 'sdxl-unclip'}?odd=1")
    for name in ("refiner", "captioner", "vae"):
        with pytest.raises(UserError, match=rf"sdxl-unclip=PATH\?{name} needs "):
            SDXLUnCLIP(tmp_path, source=f"{saved / 'sdxl-unclip'}?{name}={tmp_path}")


def test_all_weights_are_in_the_fingerprint(whole, saved, tmp_path):
    bare = SDXLUnCLIP(tmp_path, source=saved / "sdxl-unclip")
    assert whole.fingerprint.startswith(bare.fingerprint) and whole.fingerprint != bare.fingerprint


def test_a_blend_weighs_what_is_shown():
    white, black = torch.full((1, 3, 8, 8), 3.0), torch.full((1, 3, 4, 4), -1.0)
    assert torch.allclose(blended(white, black, 0.25), torch.tensor(0.5))

"""SDXL unCLIP on a small checkpoint as MindEye2's was written: its names, sampler and inputs."""

import numpy as np
import pytest
import torch

from backends.generators import sdxl_unclip_weights
from backends.generators.ddim import DDIM, spaced_as_sgm
from backends.generators.sdxl_unclip import TOKENS, SDXLUnCLIP
from backends.generators.sdxl_unclip_weights import FILE, SCHEDULE
from explorer.protocols import Condition
from explorer.types import UserError
from tests.miniatures import unclip6

# Drawn by the authors' own networks and sampler (MedARC-AI/MindEyeV2, src/generative_models) from
# the small checkpoint, the same noise and 4 steps: latents [:, 3, 5] by scale
THEIRS = {
    0.0: (-1.61491858959198, -23.835227966308594, 9.90087604522705, 5.7461934089660645),
    1.0: (-2.1986567974090576, -23.570981979370117, 10.408689498901367, 7.460790157318115),
    5.0: (-4.364707946777344, -23.481924057006836, 12.483333587646484, 14.422566413879395),
}


def tokens(seed=1):
    return torch.randn(TOKENS.shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return unclip6.save(tmp_path_factory.mktemp("unclip6"))


@pytest.fixture(scope="module")
def drawn(file):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sdxl_unclip_weights, "SIDE", 8)
        yield SDXLUnCLIP(file.parent / "none", source=file)


def test_latents_and_pictures_are_those_of_the_authors_code(drawn):
    given = Condition({TOKENS: tokens()})
    for scale, theirs in THEIRS.items():
        latents = drawn.latents([given], scale, [7], 4)
        torch.testing.assert_close(latents[0, :, 3, 5], torch.tensor(theirs), atol=2e-3, rtol=0)
    (picture,) = drawn.generate([given], 5.0, [7], 4)
    theirs = [[36, 66, 48], [43, 62, 42], [75, 84, 52]]
    assert np.abs(picture[0, :3].astype(int) - theirs).max() <= 1
    plain = drawn.generate([given], 5.0, [7], 4, published_tone=0)[0].astype(float)
    seen = (0 < picture) & (picture < 255) & (0 < plain) & (plain < 255)
    x = plain[seen] / 127.5 - 1
    assert seen.sum() > 100 and np.abs((0.8 * x + 0.2) * 255 - picture[seen]).max() < 2


def test_it_is_found_in_its_folder_and_named_by_its_content(file, tmp_path, monkeypatch):
    monkeypatch.setattr(sdxl_unclip_weights, "SIDE", 8)
    folder = tmp_path / "generators" / "sdxl-unclip"
    folder.mkdir(parents=True)
    unclip6.save(folder)
    (folder / "other.ckpt").touch()
    found = SDXLUnCLIP(tmp_path)
    assert found.latent_shape == (4, 8, 8) and len(found.fingerprint) == 16
    (folder / FILE).rename(folder / "third.ckpt")
    with pytest.raises(UserError, match="holds other.ckpt, third.ckpt; name the checkpoint its"):
        SDXLUnCLIP(tmp_path)


def test_missing_weights_are_one_sentence_with_command(tmp_path):
    with pytest.raises(UserError) as caught:
        SDXLUnCLIP(tmp_path)
    said = str(caught.value)
    assert f"sdxl-unclip needs {FILE} of pscotti/mindeyev2 (about 18 GB), and {tmp_path}" in said
    assert f"hf download pscotti/mindeyev2 {FILE} --repo-type dataset --local-dir" in said


UNET, VAE = "model.diffusion_model.", "first_stage_model."


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({f"{UNET}out.0.bias": None}, r"it lacks what conv_norm_out.bias would be\); get it with"),
        ({f"{UNET}label_emb.0.0.weight": None}, "label_emb.0.0.weight is missing"),
        ({f"{VAE}decoder.mid.attn_1.q.bias": None}, "mid_block.attentions.0.to_q.bias would be"),
        (
            {f"{UNET}middle_block.3.weight": torch.zeros(2, 2)},
            "of model.diffusion_model.* middle_block.3.weight has no place in such a network",
        ),
        ({f"{UNET}input_blocks.1.0.odd.weight": torch.zeros(2, 2)}, "resnets.0.odd.weight has no"),
        (
            {f"{UNET}out.2.bias": torch.zeros(5)},
            r"conv_out.bias has the shape \(5,\), expected \(4,\)",
        ),
        (
            {f"{UNET}label_emb.0.0.weight": torch.zeros(256, 2816)},
            "its projection_class_embeddings_input_dim is 2816, expected 1024",
        ),
        ({"optimizer.step": torch.zeros(1)}, "nothing is known of optimizer.step"),
        ({"denoiser.sigmas": torch.ones(1000)}, r"its noise levels \(denoiser.sigmas\) are not"),
        ({f"{UNET}out.2.weight": "text"}, "out.2.weight is a str, expected a tensor"),
        ({f"{UNET}input_blocks.5.0.in_layers.2.weight": torch.zeros(3)}, "expected more axes"),
        ({f"{UNET}input_blocks.4.0.op.weight": None}, "blocks.4.0.in_layers.2.weight is missing"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(changes, said, tmp_path, monkeypatch):
    monkeypatch.setattr(sdxl_unclip_weights, "SIDE", 8)
    file = unclip6.save(tmp_path, changes)
    with pytest.raises(UserError, match=said) as caught:
        SDXLUnCLIP(tmp_path, source=file)
    assert str(file) in str(caught.value)


def test_what_the_published_drawing_does_not_use_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(sdxl_unclip_weights, "SIDE", 8)
    unused = {"model_ema.decay": torch.zeros(1), "first_stage_model.loss.logvar": torch.zeros(1)}
    assert SDXLUnCLIP(tmp_path, source=unclip6.save(tmp_path, unused)).accepts == (TOKENS,)


def test_files_that_are_no_checkpoint(tmp_path):
    file = tmp_path / "some.ckpt"
    for content, said in (
        (b"no", "some.ckpt cannot be read as a file of torch.save"),
        (None, "some.ckpt cannot be read as unclip6.*it holds no tensors by name"),
    ):
        file.write_bytes(content) if content else torch.save([1], file)
        with pytest.raises(UserError, match=f"{said}.*hf download pscotti/mindeyev2"):
            SDXLUnCLIP(tmp_path, source=file)


def test_steps_are_spaced_as_in_generative_models():
    spaced = spaced_as_sgm(38)
    assert spaced[:4] == [999, 972, 946, 920] and spaced[-3:] == [78, 52, 26]
    assert len(spaced) == 38 and spaced[18] == 525
    assert spaced_as_sgm(1000) == [*range(999, -1, -1)] and spaced_as_sgm(1) == [999]
    with pytest.raises(UserError, match="Steps lie between 1 and 1000 here, found 1001"):
        spaced_as_sgm(1001)


def test_a_gaussian_is_drawn_by_euler_steps_in_sigma():
    """Of pictures N(m, s^2) the best denoiser is known, and so is each Euler step."""
    mean, sd = 0.7, 0.4
    ddim = DDIM(SCHEDULE, 38, spaced_as_sgm(38))
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    kept = np.cumprod(1 - betas)[spaced_as_sgm(38)]
    sigmas = [*np.sqrt((1 - kept) / kept), 0.0]
    z = float(sigmas[0])
    latents = torch.full((1, 1, 1, 1), z / (1 + sigmas[0] ** 2) ** 0.5)
    for i, (sigma, following) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
        z += (following - sigma) * (z - mean) * sigma / (sigma**2 + sd**2)
        level = ddim.level(i)
        noisy = latents / level.signal
        eps = (noisy - mean) * sigma / (sigma**2 + sd**2)
        latents, _ = ddim.step(latents, eps, i)
    assert latents.item() == pytest.approx(z, abs=1e-4)
    # the exact answer, which Euler steps come near to
    exact = mean + sd * (sigmas[0] - mean) / (sigmas[0] ** 2 + sd**2) ** 0.5
    assert z == pytest.approx(exact, abs=0.1)


def test_what_the_network_is_told(drawn):
    one, other = (Condition({TOKENS: tokens(seed)}) for seed in (1, 2))
    null = Condition({TOKENS: tokens(1)}, nulls={TOKENS: tokens(3)})
    sources = [torch.Generator().manual_seed(7) for _ in range(3)]
    embeddings = torch.stack([tokens(1), tokens(2), tokens(1)])
    cond, without = drawn._inputs(embeddings, [one, other, null], sources, drawn._chosen({}))
    assert torch.equal(cond["context"], embeddings)
    for inputs in (cond, without):
        assert inputs["time_ids"].tolist() == [[768.0, 768.0, 0.0, 0.0]] * 3
        assert inputs["text_embeds"].shape == (3, 0)
    expected = torch.randn(TOKENS.shape, generator=torch.Generator().manual_seed(7))
    assert torch.equal(without["context"][0], expected)  # the seed's, whatever was decoded
    assert torch.equal(without["context"][1], expected)
    assert torch.equal(without["context"][2], tokens(3))


def test_the_first_noise_has_an_offset_of_its_own(drawn):
    sources = [torch.Generator().manual_seed(seed) for seed in range(400)]
    noise = drawn._noise(sources, drawn._sampler(38))
    again = [torch.Generator().manual_seed(seed) for seed in range(400)]
    plain = torch.stack([torch.randn(drawn.latent_shape, generator=g) for g in again])
    offset = noise - plain
    assert torch.allclose(offset, offset[:, :1, :1, :1].expand_as(offset), atol=1e-6)
    assert offset[:, 0, 0, 0].std().item() == pytest.approx(0.04, rel=0.15)

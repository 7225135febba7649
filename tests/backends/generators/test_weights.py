"""Published weights: what is missing, damaged, pickled or of another model is named."""

import http.server
import json
import shutil
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from backends import GENERATORS
from backends.generators.ip_adapter import IPAdapter
from backends.generators.kandinsky import Kandinsky
from backends.generators.latent_diffusion import LatentDiffusion
from backends.generators.sampling import pixels
from backends.generators.sd15_context import StableContext
from backends.generators.unclip import StableUnCLIP
from backends.generators.weights import Part, taesd
from explorer.types import UserError, resolve

FAMILIES = {
    name: cls
    for name, entry in GENERATORS.items()
    if issubclass(cls := resolve(entry), LatentDiffusion)
    and name not in ("mind-vis", "neurolens")  # of one file each: test_mindvis.py
}
IN_FOLDERS = [name for name in FAMILIES if name != "sdxl-unclip"]  # published in one checkpoint
TAESD = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "taesd"
SIDE = 8  # latents of the tiny models


@pytest.fixture
def copied(saved, tmp_path):
    """Return a copy of the context family's weights that a test may damage, and how to open it."""
    shutil.copytree(saved / "sd15-context", tmp_path / "sd")
    return tmp_path / "sd", lambda: StableContext(tmp_path, source=tmp_path / "sd")


@pytest.mark.parametrize("name", IN_FOLDERS)
def test_missing_weights_are_one_sentence_with_command_and_size(name, tmp_path):
    cls = FAMILIES[name]
    with pytest.raises(UserError) as caught:
        cls(tmp_path)
    said, usual = str(caught.value), tmp_path / "generators" / name
    unet = cls._denoises
    assert (
        f"{name} needs {unet}/config.json of {cls.hub} ({cls.size} in all), and {usual} h" in said
    )
    assert f"hf download {cls.hub} {unet}/config.json {unet}/diffusion_pytorch_model." in said
    assert f"--local-dir {usual}" in said and f"--generator {name}=PATH_OR_ID" in said
    if "ip-adapter" in name:
        assert f"&& hf download h94/IP-Adapter {'/'.join(cls.adapter)} --local-dir" in said
    if name == "kandinsky":
        assert "&& hf download kandinsky-community/kandinsky-2-2-prior image_encoder/conf" in said


def test_weights_in_the_usual_folder_and_in_half_precision_need_no_naming(saved, tmp_path):
    shutil.copytree(saved / "sd15-context", tmp_path / "generators" / "sd15-context")
    for path in (tmp_path / "generators" / "sd15-context").glob("*/*.safetensors"):
        half = {key: value.half() for key, value in load_file(path).items()}
        save_file(half, path.with_suffix(".fp16.safetensors"), {"format": "pt"})
        path.unlink()
    generator = StableContext(tmp_path)
    assert generator.unet.dtype == torch.float32  # on a CPU
    before = generator.fingerprint
    (tmp_path / "generators" / "sd15-context" / "tokenizer" / "merges.txt").write_text("#version")
    assert len(before) == 16
    assert StableContext(tmp_path).fingerprint != before


def test_a_safety_checker_is_not_used_and_that_is_said(copied):
    folder, opened = copied
    (folder / "safety_checker").mkdir()
    assert "does not use the safety checker" in opened().remarks[0]


def test_a_hub_id_brings_only_what_is_needed(saved, tmp_path, monkeypatch):
    asked = {}

    def download(repository, allow_patterns):
        asked[repository] = allow_patterns
        return str(saved / "kandinsky")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    generator = Kandinsky(tmp_path, source="some/decoder")
    files = [*generator.weights.path(Part("", "")).glob("*/*.safetensors")]
    assert list(asked) == ["some/decoder", "kandinsky-community/kandinsky-2-2-prior"]
    wanted = [name for names in asked.values() for name in names]
    assert {"/".join(f.parts[-2:]) for f in files} <= set(wanted) and len(wanted) == 7


def test_neither_folder_nor_hub_id(tmp_path):
    with pytest.raises(UserError, match="--generator unclip=/no/where is neither a folder nor a"):
        StableUnCLIP(tmp_path, source="/no/where")


def cut_short(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def pickled(folder):
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(".bin"))


def other_type(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({"conv_in.weight": torch.zeros(3, dtype=torch.int8)}, path)


def other_width(folder):
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cross_attention_dim": 1024}))


def lost_tensor(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    del state["conv_in.weight"]
    save_file(state, path, {"format": "pt"})


def misshapen(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(load_file(path) | {"conv_in.weight": torch.zeros(3, 4, 3, 3)}, path)


def misshapen_text(folder):
    path = folder / "text_encoder" / "model.safetensors"
    (name,) = [key for key in load_file(path) if key.endswith("layers.0.mlp.fc1.weight")]
    save_file(load_file(path) | {name: torch.zeros(3, 2)}, path, {"format": "pt"})


def no_json(folder):
    (folder / "scheduler" / "scheduler_config.json").write_text("{")


def changed(name, **entries):
    """Return what changes entries of a part's configuration."""

    def damage(folder):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | entries))

    return damage


def written(name, text):
    """Return what writes a file anew."""
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut_short, "model.safetensors is damaged or was downloaded in part .*hf download stable"),
        (pickled, "has only diffusion_pytorch_model.bin, a pickle, .*safetensors with: hf downl"),
        (
            other_type,
            r"holds numbers of the type I8 \(first in conv_in.weight\), expected float32",
        ),
        (other_width, "another architecture than sd15-context needs: its cross_attention_dim is"),
        (lost_tensor, "cannot be loaded for sd15-context .*conv_in.weight is missing.*hf downlo"),
        (misshapen, "cannot be loaded for sd15-context .*conv_in.weight"),
        (misshapen_text, r"sd15-context .*fc1.weight has the shape \(3, 2\), expected \(16, 768"),
        (no_json, "scheduler_config.json cannot be read as JSON .*get it again with: hf downloa"),
        (written("scheduler/scheduler_config.json", "[1]"), "holds a list, expected an object wi"),
        (
            written("unet/config.json", '{"a":' * 10**5 + "1" + "}" * 10**5),
            "unet/config.json cannot be read as JSON .*nested too deep.*get it again with: hf dow",
        ),
        (written("tokenizer/vocab.json", "{"), "tokenizer cannot be read as the tokenizer of sd1"),
        (
            changed("unet/config.json", layers_per_block=10**9),
            "its layers_per_block is 1000000000, expected at most 1000.*get its files again with",
        ),
        (
            changed("vae/config.json", block_out_channels=[10**8, 10**8]),
            "its block_out_channels is 100000000, expected at most 10000000",
        ),
        (
            changed("unet/config.json", block_out_channels=[80_000, 160_000]),
            r"a network of [\d,]{12,} numbers, and the file of weights holds [\d,]{7,9}\)",
        ),
        (
            changed("text_encoder/config.json", intermediate_size=9_000_000, hidden_size=50_000),
            r"a network of [\d,]{12,} numbers, and the file of weights holds [\d,]{7,9}\)",
        ),
        (changed("text_encoder/config.json", hidden_size="wide"), "text_encoder cannot be loaded"),
        (changed("unet/config.json", down_block_types=["Odd"] * 2), "unet cannot be loaded for s"),
    ],
)
def test_damaged_weights_are_named(damage, said, copied):
    folder, opened = copied
    damage(folder)
    with pytest.raises(UserError, match=said):
        opened()


def test_a_misshapen_tensor_is_named_without_accelerate_too(copied, monkeypatch):
    """Which of its two loaders diffusers takes, and so what it says, depends on that library."""
    folder, opened = copied
    misshapen(folder)
    monkeypatch.setattr("diffusers.models.modeling_utils.is_accelerate_available", lambda: False)
    with pytest.raises(UserError, match="cannot be loaded for sd15-context .*conv_in.weight"):
        opened()


def test_an_adapter_for_another_model_is_named(saved, tmp_path):
    shutil.copytree(saved / "ip-adapter", tmp_path / "ip")
    shutil.copy(
        saved / "ip-adapter-xl" / "sdxl_models" / "ip-adapter_sdxl_vit-h.safetensors",
        tmp_path / "ip" / "models" / "ip-adapter_sd15.safetensors",
    )
    with pytest.raises(UserError, match="cannot be loaded as an IP-Adapter of ip-adapter"):
        IPAdapter(tmp_path, source=tmp_path / "ip")


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "GatedRepo", "some/model .*is gated; accept its licence .*log in with: hf auth lo"),
        (401, "GatedRepo", "some/model .*is gated; accept its licence .*hf download stable-diff"),
        (404, "RepoNotFound", "some/model .*was not found; check the spelling"),
        (401, "", "some/model .*was not found; check the spelling .*if it is private"),
        (500, "", "some/model .*could not be downloaded .*PATH"),
    ],
)
def test_a_hub_that_refuses_is_explained(status, code, said, tmp_path, monkeypatch):
    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Refuses)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    try:
        with pytest.raises(UserError, match=said):
            StableContext(tmp_path, source="some/model")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


needs_taesd = pytest.mark.skipif(not TAESD.is_dir(), reason="taesd is not in ../shared/data")


@needs_taesd
@torch.inference_mode()
@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea", "rocket"])
def test_the_tiny_autoencoder_keeps_photographs(name):
    import skimage

    photograph = getattr(skimage.data, name)()[:128, :192]
    values = torch.from_numpy(photograph.copy()).permute(2, 0, 1)[None] / 127.5 - 1
    network = taesd(TAESD)
    latents = network.encode(values).latents
    assert latents.shape == (1, 4, 16, 24)
    shown = pixels(network.decode(latents).sample)[0]
    assert skimage.metrics.peak_signal_noise_ratio(photograph, shown) >= 20


@needs_taesd
def test_previews_are_decoded_by_a_tiny_autoencoder_where_there_is_one(saved, tmp_path, given):
    shutil.copytree(TAESD, tmp_path / "taesd")
    generator = StableContext(tmp_path, source=saved / "sd15-context")
    steps = list(generator.sweep(given("sd15-context"), (1.0, 2.0), 4, 0))
    previews = [step for step in steps if not step.done]
    assert len(previews) == 6 and previews[0].image.shape == (8 * SIDE, 8 * SIDE, 3)


def test_a_damaged_tiny_autoencoder_is_named(tmp_path):
    (tmp_path / "taesd_encoder.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="hf download madebyollin/taesd config.json diffusion"):
        taesd(tmp_path)

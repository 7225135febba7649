"""GNet: a miniature file in the published layout, held to plain convolutions and loops."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from backends.embedders.pixels import GNetPixels
from backends.encoders.gnet import PIXELS, GNet, _Network, import_gnet, pixels_for_gnet, sizes_of
from backends.encoders.voxelwise import Encoding
from backends.generators.pulls import load_encoder, towards_betas
from backends.reports.brain_correlation import brain_correlation
from explorer.brain.maps import map_names
from explorer.protocols import Condition
from explorer.types import UserError

V = 200  # of the study of fakes
BLOCKS = (("conv4a", 5, 4), ("conv4b", 4, 4), ("conv5a", 4, 4), ("conv5b", 4, 4))
BLOCKS += (("conv6a", 4, 4), ("conv6b", 4, 2))  # name, maps in, maps out; two of each are read


def layer(state, name, outputs, inputs, side):
    state[f"{name}.weight"] = torch.randn(outputs, inputs, side, side) / (inputs * side**2) ** 0.5
    state[f"{name}.bias"] = 0.1 * torch.randn(outputs)


def normalisation(state, name, size):
    state |= {f"{name}.weight": 1 + 0.1 * torch.randn(size), f"{name}.bias": torch.randn(size)}
    state |= {f"{name}.running_mean": torch.rand(size), f"{name}.running_var": torch.rand(size)}
    state[f"{name}.num_batches_tracked"] = torch.tensor(7)


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """Return a small file of two subjects in the published layout, and what it holds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        enc = {"mu": 0.5 + 0.1 * torch.rand(1, 3, 227, 227)}
        layer(enc, "pre.conv1.0", 4, 3, 11)
        layer(enc, "pre.conv2.0", 6, 4, 5)
        layer(enc, "enc.conv3", 5, 6, 3)
        normalisation(enc, "enc.bn1", 6)
        for name, inputs, outputs in BLOCKS:
            layer(enc, f"enc.{name}.conv1", outputs, inputs, 3)
            normalisation(enc, f"enc.{name}.bn1", inputs)
        fields = {
            number: {
                "rf0": 3 * torch.randn(size, 25, 25),
                "rf1": 3 * torch.randn(size, 13, 13),
                "w": torch.randn(size, 5 + 4 + 8),
                "b": torch.randn(size),
            }
            for number, size in ((1, V), (2, 7))
        }
    content = {
        "best_params": {"enc": enc, "fwrfs": fields},
        "input_mean": enc["mu"].numpy(),  # what lies beside, as numpy has it
        "val_cc": {1: np.zeros(V, np.float32), 2: np.zeros(7)},
        "voxel_mask": {1: np.ones(9, bool)},
        "brain_nii_shape": {1: np.array([81, 104, 83])},
    }
    file = tmp_path_factory.mktemp("release") / "gnet_multisubject.pt"
    torch.save(content, file)
    return file, enc, fields


@pytest.fixture(scope="module")
def imported(release, fakes, tmp_path_factory):
    """Return checkpoints with sub-01's part of the file as its encoding model."""
    root = tmp_path_factory.mktemp("checkpoints")
    trials = fakes.Study().load("sub-01")
    card = import_gnet(release[0], trials, root / "encoding" / "fake" / "sub-01", command="x")
    assert (card.cls, card.voxels["sub-01"][0], card.targets) == ("gnet", V, (PIXELS,))
    return root


def by_hand(enc, field, pixels):
    """Return what the published forward pass makes of pixels (n, 3, 227, 227), voxel by voxel."""

    def convolve(x, name, **how):
        return functional.conv2d(x, enc[f"{name}.weight"], enc[f"{name}.bias"], **how)

    def normal(x, name):
        stats = (enc[f"{name}.{what}"] for what in ("running_mean", "running_var"))
        return functional.batch_norm(x, *stats, enc[f"{name}.weight"], enc[f"{name}.bias"])

    def block(x, name):
        name = f"enc.{name}"
        return convolve(normal(x, f"{name}.bn1"), f"{name}.conv1", padding=1).relu()

    def squash(x):
        return torch.log(1 + x.abs()) * torch.tanh(x)

    x = convolve(pixels - enc["mu"], "pre.conv1.0", stride=4, padding=2).relu()
    x = convolve(functional.max_pool2d(x, 3, 2), "pre.conv2.0", padding=2).relu()
    c3 = convolve(normal(x, "enc.bn1"), "enc.conv3").relu()
    a4 = block(c3, "conv4a")
    b4 = block(a4, "conv4b")
    a5 = block(functional.max_pool2d(b4, 3, 2, 1), "conv5a")
    b5 = block(a5, "conv5b")
    a6 = block(b5, "conv6a")
    b6 = block(a6, "conv6b")
    maps = (
        torch.cat([c3, a4[:, :2], b4[:, :2]], 1),
        torch.cat([a5[:, :2], b5[:, :2], a6[:, :2], b6], 1),
    )
    columns = []
    for j in range(len(field["b"])):
        features = []
        for one, name in zip(maps, ("rf0", "rf1"), strict=True):
            place = field[name][j].flatten().softmax(0).view(field[name][j].shape)
            features.append((squash(one) * place).sum((2, 3)))
        columns.append(squash(torch.cat(features, 1)) @ field["w"][j] + field["b"][j])
    return torch.stack(columns, 1)


def test_betas_are_those_of_the_published_forward_pass(release, imported, fakes):
    _, enc, fields = release
    trials = fakes.Study().load("sub-01")
    model = GNet.load(imported / "encoding" / "fake" / "sub-01", trials)
    images = [fakes.picture(f"train-{i:02d}") for i in range(11)]
    pixels = GNetPixels().embed(images, PIXELS)
    found = model.predict({PIXELS: pixels})
    assert found.shape == (11, V) and found.dtype == np.float32
    betas = trials.betas[trials.rows("train")]
    z = (found - betas.mean(0)) / betas.std(0)
    np.testing.assert_allclose(z, by_hand(enc, fields[1], torch.from_numpy(pixels)), atol=1e-4)
    assert z.std(axis=0).min() > 1e-3  # every voxel sees the pictures
    for mine, theirs in zip(model.statistics(), (betas.mean(0), betas.std(0)), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4)


def test_the_published_sizes_give_the_published_maps():
    network = _Network(64, 192, 128, 64, 256, (3, 1, 1)).eval()
    with torch.inference_mode():
        maps = network(torch.rand(1, 3, 227, 227))
    assert [tuple(one.shape) for one in maps] == [(1, 256, 25, 25), (1, 256, 13, 13)]
    expected = {"first": 64, "second": 192, "third": 128, "width": 64, "trunk": 256}
    assert sizes_of(network.state_dict()) == {**expected, "mean": [3, 1, 1]}


@pytest.mark.parametrize("size", [(128, 128), (512, 512), (300, 425), (227, 227)])
def test_preprocessing_in_torch_is_that_of_pillow(size):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    image = np.asarray(coarse.resize(size, Image.BICUBIC))
    expected = GNetPixels().embed([image], PIXELS)
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 127.5 - 1
    found = pixels_for_gnet(pixels.requires_grad_())
    np.testing.assert_allclose(found.detach(), expected, atol=1.5 / 255)  # Pillow rounds twice
    assert np.abs(found.detach().numpy() - expected).mean() < 0.5 / 255
    found.mean().backward()
    assert pixels.grad.abs().sum() > 0


def test_pictures_are_pulled_towards_measured_betas(imported, fakes):
    study = fakes.Study()
    trials = study.load("sub-01")
    chosen = np.arange(V) < 60
    goal = trials.average("test-01")
    trial = Condition({}, betas=goal, subject=trials.subject, voxels=chosen)
    encoder = load_encoder(trial, imported, {}, "cpu")
    assert isinstance(encoder, GNet)
    loss = towards_betas({}, [trial, trial], [encoder, encoder])
    pixels = 0.3 * torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = loss(pixels.requires_grad_())
    (gradient,) = torch.autograd.grad(before.sum(), pixels)
    after = loss(
        pixels.detach() - 0.5 * gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]
    )
    assert (after < before).all()
    z = encoder.predict({PIXELS: pixels_for_gnet(pixels).detach().numpy()})[0]
    mean, sd = encoder.statistics()
    r = np.corrcoef(((z - mean) / sd)[chosen], ((goal - mean) / sd)[chosen])[0, 1]
    assert before[0].item() == pytest.approx(1 - r, abs=1e-4)


def test_the_workbench_predicts_brains_and_scores_pictures_by_it(imported, make_workbench, fakes):
    bench = make_workbench(
        checkpoints=imported,
        embedders={"pocket-clip": fakes.Embedder, "gnet": GNetPixels},
        encoders={"encoding": Encoding, "gnet": GNet},
    )
    assert "predicted betas" in map_names(bench, "fake", "sub-01")
    stimuli = ["test-01", "test-02", "test-03"]
    shown = [fakes.picture(s) for s in stimuli]
    _, table = brain_correlation(bench, "fake", "sub-01", "", stimuli, shown, [shown])
    assert table["value"].to_list() == table["shown image"].to_list()
    assert table["source"].str.contains("GNet").all() and (table["N"] == 3).all()


# ---------------------------------------------------------------------------------------- refusals


class Runs:
    """What a harmful file would hold."""

    def __reduce__(self):
        return print, ("this must never be printed",)


def test_files_that_cannot_be_used_are_refused(release, fakes, tmp_path, capsys):
    trials, folder = fakes.Study().load("sub-01"), tmp_path / "out"
    file = tmp_path / "gnet.pt"

    def refused(said):
        with pytest.raises(UserError, match=said):
            import_gnet(file, trials, folder, command="x")
        assert not folder.exists()

    refused("There is no file .*gnet.pt; it is gnet_multisubject.pt of MindEye2")
    torch.save({"best_params": Runs()}, file)
    refused("is not opened: it asks to build more than tensors and arrays")
    assert "never" not in capsys.readouterr().out
    file.write_bytes(release[0].read_bytes()[:-5000])
    refused("is damaged or cut short; get it again")
    torch.save({"model": {}}, file)
    refused("has no best_params with enc and fwrfs, so it is not gnet_multisubject.pt")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda p: p["enc"].pop("enc.conv3.bias"), "is not laid out as gnet_multi.*get it again"),
        (lambda p: p["fwrfs"][1].pop("b"), r"not laid out as .* \(KeyError 'b'\); get it again"),
        (lambda p: p["fwrfs"][1].update(b=torch.tensor(1.0)), r"\(b has the shape \(\)\); get it"),
        (lambda p: p["fwrfs"][1].update(w=[1, 2]), "subject 1, 'w' is a list, expected a tensor"),
        (lambda p: p.update(fwrfs=[1]), "not laid out as .*get it again"),
        (lambda p: p.update(enc=torch.zeros(2)), "not laid out as .*get it again"),
        (lambda p: p["enc"].update(mu=p["enc"]["mu"].to_sparse()), "'mu' is sparse, expected a p"),
        (lambda p: p["enc"].update({"pre.conv1.0.weight": torch.zeros(4, 3)}), "not laid out as"),
    ],
)
@pytest.mark.filterwarnings("ignore:Validating sparse tensor:UserWarning")
def test_another_layout_is_one_sentence(release, fakes, tmp_path, spoil, said):
    params = torch.load(release[0], weights_only=False)["best_params"]
    spoil(params)
    file, trials = tmp_path / "gnet.pt", fakes.Study().load("sub-01")
    torch.save({"best_params": params}, file)
    with pytest.raises(UserError, match=said):
        import_gnet(file, trials, tmp_path / "out", command="x")
    assert not (tmp_path / "out").exists()


def test_weights_with_a_gradient_are_read(release, fakes, tmp_path):
    params = torch.load(release[0], weights_only=False)["best_params"]
    params["fwrfs"][1]["w"] = torch.nn.Parameter(params["fwrfs"][1]["w"])
    torch.save({"best_params": params}, tmp_path / "gnet.pt")
    trials = fakes.Study().load("sub-01")
    import_gnet(tmp_path / "gnet.pt", trials, tmp_path / "out", command="x")
    found = GNet.load(tmp_path / "out", trials)
    assert torch.equal(found.w, release[2][1]["w"])


def test_another_subject_or_other_voxels_are_refused(release, fakes, tmp_path):
    trials = fakes.Study().load("sub-02")
    with pytest.raises(UserError, match="predicts 7 voxels of subject 2, fake/sub-02 has 200; it"):
        import_gnet(release[0], trials, tmp_path / "out", command="x")
    third = replace(trials, subject=replace(trials.subject, name="sub-03"))
    with pytest.raises(UserError, match="knows the subjects 1, 2, and 'sub-03' ends in none"):
        import_gnet(release[0], third, tmp_path / "out", command="x")


def test_gnet_and_ridge_are_told_apart(imported, fakes):
    folder = imported / "encoding" / "fake" / "sub-01"
    with pytest.raises(UserError, match="encoding model of the kind 'gnet', and a ridge encoding"):
        Encoding.load(folder)
    with pytest.raises(
        UserError, match=re.escape("GNet reads gnet/pixels, found fake-clip/image")
    ):
        GNet.load(folder)({fakes.space: torch.zeros(1, 8)})


def test_the_command_line_brings_a_subject(release, fakes, make_workbench, tmp_path, monkeypatch):
    import sys

    from backends import __main__ as main
    from backends.commands import options

    bench = make_workbench(checkpoints=tmp_path)
    monkeypatch.setattr(options, "open_bench", lambda dataset, checkpoints: ("fake", bench))
    asked = [
        "backends",
        "import-gnet",
        str(release[0]),
        "--dataset",
        "fake",
        "--subject",
        "sub-01",
    ]
    monkeypatch.setattr(sys, "argv", [*asked, "--checkpoints", str(tmp_path)])
    main.app(standalone_mode=False)
    model = GNet.load(
        tmp_path / "encoding" / "fake" / "sub-01", bench.catalogue.trials("fake", "sub-01")
    )
    assert model.card.command.startswith("python -m backends import-gnet")

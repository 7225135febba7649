"""GNet: pictures to betas of NSD by MindEye2's published encoding model, differentiably.

A convolutional network that all subjects share, and for each voxel a receptive field and a weight
of every feature map (St-Yves et al. 2023, Nature Communications 14). The layout of its file
is that of MedARC-AI/MindEyeV2, src/models.py: ``best_params`` holds ``enc``, the network, and
``fwrfs``, subject number -> ``rf0``, ``rf1`` (V, S, S), ``w`` (V, maps) and ``b`` (V,).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import nn

from backends.embedders.pixels import GNetPixels
from backends.training.machine import versions
from explorer import stopping
from explorer.files import plain_tensor, reason
from explorer.mapper import read_card, read_weights, training_statistics, write_checkpoint
from explorer.matching import check_fits, split_hash
from explorer.types import Card, EmbeddingSpace, Trials, UserError

if TYPE_CHECKING:
    from torch import Tensor

(PIXELS,) = GNetPixels.spaces
SIDE = PIXELS.shape[-1]
PICTURES_AT_ONCE = 8  # its features take 32 MB a picture for 15,000 voxels
LOBES = 3  # of the Lanczos window
FIELDS = ("rf0", "rf1")
TRUNK = ("conv4a", "conv4b", "conv5a", "conv5b", "conv6a", "conv6b")
RELEASE = "gnet_multisubject.pt of MindEye2 (huggingface.co/datasets/pscotti/mindeyev2)"


def pixels_for_gnet(pixels: Tensor) -> Tensor:
    """Return what `GNetPixels` gives, with a gradient, for pixels (n, 3, H, W) in -1 ... 1."""
    rows, columns = (_lanczos(side).to(pixels) for side in pixels.shape[-2:])
    return (rows @ ((pixels + 1) / 2) @ columns.T).clamp(0, 1)


def _lanczos(side: int) -> Tensor:
    """Return the weights (227, side) of Pillow's resampling with Lanczos' window."""
    scale = side / SIDE
    wide = max(scale, 1.0)
    centres = (torch.arange(SIDE, dtype=torch.float64)[:, None] + 0.5) * scale
    x = (torch.arange(side, dtype=torch.float64) + 0.5 - centres) / wide
    window = torch.where(x.abs() < LOBES, torch.sinc(x) * torch.sinc(x / LOBES), 0)
    return (window / window.sum(1, keepdim=True)).float()


class _Block(nn.Module):
    """Normalisation, 3 x 3 convolution, ReLU; the dropout of its training has no weights."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1(self.bn1(x)).relu()


class _Network(nn.Module):
    """What all subjects share; its names are those of the published file.

    Parameters
    ----------
    first, second, third
        Channels of the first three convolutions; published 64, 192, 128.
    width, trunk
        How many maps of a block are read, and how many it has; published 64 and 256.
    mean
        The shape of the mean picture.
    """

    def __init__(
        self, first: int, second: int, third: int, width: int, trunk: int, mean: Sequence[int]
    ) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("mu", torch.zeros(*mean))
        self.pre, self.enc = nn.Module(), nn.Module()
        self.pre.conv1 = nn.Sequential(
            nn.Conv2d(3, first, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)
        )
        self.pre.conv2 = nn.Sequential(nn.Conv2d(first, second, 5, padding=2), nn.ReLU())
        self.enc.bn1 = nn.BatchNorm2d(second)
        self.enc.conv3 = nn.Conv2d(second, third, 3)
        channels = [third, *[trunk] * (len(TRUNK) - 1), width]
        for name, *pair in zip(TRUNK, channels, channels[1:], strict=False):
            setattr(self.enc, name, _Block(*pair))

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Return feature maps (n, C, 25, 25) and (n, C', 13, 13) of pixels (n, 3, 227, 227)."""
        x = self.pre.conv2(self.pre.conv1(pixels - self.mu))
        found = [[self.enc.conv3(self.enc.bn1(x)).relu()], []]
        x = found[0][0]
        for name in TRUNK:
            if name == "conv5a":
                x = nn.functional.max_pool2d(x, 3, 2, 1)
            x = getattr(self.enc, name)(x)
            found[name not in TRUNK[:2]].append(x[:, : self.width])
        return [torch.cat(maps, dim=1) for maps in found]


class GNet(nn.Module):
    """Pictures to one subject's betas, through MindEye2's published network.

    Parameters
    ----------
    subject
        Whose betas it predicts.
    n_voxels
        V, the voxels of that subject's nsdgeneral mask.
    sizes
        What `_Network` takes, as `sizes_of` finds it in a state.

    Attributes
    ----------
    intercept, voxel_sd
        (V,) mean and standard deviation of the training betas: the network predicts betas that
        are standardised voxel by voxel.
    """

    spaces = (PIXELS,)
    description = "GNet encoding model (MindEye2's)"

    def __init__(self, subject: str, n_voxels: int, sizes: Mapping[str, Any]) -> None:
        super().__init__()
        self.subject, self.card = subject, None
        self.network = _Network(**sizes)
        with torch.no_grad():
            maps = self.network.eval()(torch.zeros(1, 3, SIDE, SIDE))
        for name, one in zip(FIELDS, maps, strict=True):
            self.register_buffer(name, torch.zeros(n_voxels, *one.shape[2:]))
        self.register_buffer("w", torch.zeros(n_voxels, sum(one.shape[1] for one in maps)))
        for name in ("b", "intercept", "voxel_sd"):
            self.register_buffer(name, torch.zeros(n_voxels))

    def forward(self, embeddings: Mapping[EmbeddingSpace, Tensor]) -> Tensor:
        """Return betas (n, V) in the data's own unit for pixels (n, 3, 227, 227) in 0 ... 1.

        Differentiable; row i depends on picture i alone.
        """
        if PIXELS not in embeddings:
            raise UserError(
                f"GNet reads {PIXELS.name}, found "
                f"{', '.join(s.name for s in embeddings) or 'nothing'}; embed the images in that "
                "space."
            )
        pooled = []
        for maps, name in zip(self.network(embeddings[PIXELS]), FIELDS, strict=True):
            field = getattr(self, name).flatten(1).softmax(dim=1)  # (V, S * S)
            pooled.append(torch.einsum("vs,ncs->vnc", field, _squash(maps).flatten(2)))
        features = _squash(torch.cat(pooled, dim=2))
        z = torch.einsum("vnc,vc->nv", features, self.w) + self.b
        return z * self.voxel_sd + self.intercept

    @torch.inference_mode()
    def predict(self, embeddings: Mapping[EmbeddingSpace, np.ndarray]) -> np.ndarray:
        """Return betas float32 (n, V) in the data's own unit, no gradient; see ``forward``."""
        given = {space: torch.as_tensor(np.asarray(z)) for space, z in embeddings.items()}
        rows = []
        for begin in stopping.steps(range(0, len(next(iter(given.values()))), PICTURES_AT_ONCE)):
            part = slice(begin, begin + PICTURES_AT_ONCE)
            some = {s: z[part].float().to(self.intercept.device) for s, z in given.items()}
            rows.append(self(some).cpu().numpy())
        return np.concatenate(rows)

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation (V,) of the training betas; 1 where they are flat."""
        return self.intercept.cpu().numpy(), self.voxel_sd.cpu().numpy()

    @classmethod
    def load(
        cls, folder: str | Path, trials: Trials | None = None, device: str | torch.device = "cpu"
    ) -> Self:
        """Return a checkpoint folder's model in eval mode, without gradients of its weights.

        ``trials``: refuse a model that was made for other voxels or another split than these.
        """
        card = read_card(folder)
        if card.kind != "encoding" or card.cls != "gnet" or len(card.subjects) != 1:
            raise UserError(
                f"{folder} holds {card.kind} {card.cls!r} for {len(card.subjects)} subjects, "
                "expected the encoding model 'gnet' for one."
            )
        if trials is not None:
            check_fits(card, trials)
        (subject,) = card.subjects
        model = cls(subject, card.voxels[subject][0], card.settings["sizes"])
        model.load_state_dict(read_weights(folder, model.state_dict()))
        model.card = card
        return model.to(device).eval().requires_grad_(False)


def _squash(x: Tensor) -> Tensor:
    """Return log(1 + |x|) * tanh(x)."""
    return x.abs().log1p() * x.tanh()


# ------------------------------------------------------------------------------ the published file


def import_gnet(file: Path, trials: Trials, folder: Path, *, command: str) -> Card:
    """Write one subject's part of the published file as a checkpoint, and return its card.

    ``trials``: of NSD's nsdgeneral voxels in the order of the release, whose number must be that
    of the file; the subject's name ends in its number. What cannot be used raises `UserError`.
    """
    who = trials.subject
    network, voxels = _plain(file, read_release(file), who.name)
    n, expected = len(voxels["b"]), who.voxels.n_voxels
    if n != expected:
        raise UserError(
            f"{file} predicts {n} voxels of subject {_number(who.name)}, {who.dataset}/{who.name} "
            f"has {expected}; it was made for NSD's nsdgeneral voxels in func1pt8mm, as in "
            "MindEye2's release."
        )
    mean, sd = map(torch.from_numpy, training_statistics(trials))
    with _laid_out(file):
        sizes = sizes_of(network)
        with torch.device("meta"):  # before its sizes take memory
            GNet(who.name, n, sizes).network.load_state_dict(network, assign=True)
        model = GNet(who.name, n, sizes)
        model.network.load_state_dict(network)
        state = model.state_dict() | voxels
        model.load_state_dict(state | {"intercept": mean, "voxel_sd": sd})
    card = Card(
        kind="encoding",
        name="gnet",
        cls="gnet",
        dataset=who.dataset,
        command=command,
        licence="of the published weights",
        subjects=(who.name,),
        voxels={who.name: (expected, who.voxels.hash)},
        targets=(PIXELS,),
        split_hash=split_hash(trials),
        normalisation="mean picture of the published file; betas standardised per voxel",
        settings={"sizes": sizes, "file": file.name},
        versions=versions("torch", "numpy"),
    )
    write_checkpoint(folder, model.state_dict(), card)
    return read_card(folder)


def read_release(file: Path) -> dict[str, Any]:
    """Return ``best_params`` of the published file; nothing in it is run.

    Beside tensors it may hold numpy arrays, whose reconstruction is allowed and nothing else.
    """
    import _codecs
    import pickle

    from numpy._core import multiarray

    kinds = {type(np.dtype(one)) for one in ("f4", "f8", "i4", "i8", "u1", "?", "O", "U1")}
    allowed: list[Any] = [np.ndarray, np.dtype, *kinds, _codecs.encode]
    for place in ("numpy.core.multiarray", "numpy._core.multiarray"):
        allowed.append((multiarray._reconstruct, f"{place}._reconstruct"))
        allowed.append((multiarray.scalar, f"{place}.scalar"))
    try:
        with torch.serialization.safe_globals(allowed):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"There is no file {file}; it is {RELEASE}.") from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{file} is not opened: it asks to build more than tensors and arrays, and loading "
            f"that would run code that the file chooses; expected {RELEASE}."
        ) from error
    except Exception as error:  # those of torch's unpickler have no class in common
        raise UserError(f"{file} is damaged or cut short; get it again: {RELEASE}.") from error
    params = content.get("best_params") if isinstance(content, Mapping) else None
    if not isinstance(params, Mapping) or not {"enc", "fwrfs"} <= set(params):
        raise UserError(
            f"{file} has no best_params with enc and fwrfs, so it is not {RELEASE}; name that "
            "file."
        )
    return dict(params)


def sizes_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return what `_Network` takes, from the shapes of its published state."""
    heads = ("pre.conv1.0", "pre.conv2.0", "enc.conv3", "enc.conv6b.conv1", "enc.conv4a.conv1")
    names = ("first", "second", "third", "width", "trunk")
    sizes = {n: len(state[f"{head}.weight"]) for n, head in zip(names, heads, strict=True)}
    return {**sizes, "mean": list(state["mu"].shape)}


@contextmanager
def _laid_out(file: Path) -> Iterator[None]:
    """Turn whatever a state of other names, shapes or types leads to into one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{file} is not laid out as {RELEASE} ({reason(error)}); get it again."
        ) from error


def _plain(
    file: Path, content: Mapping[str, Any], name: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the tensors of the network, and those of a subject's voxels."""
    with _laid_out(file):
        parts = {str(key): part for key, part in content["fwrfs"].items()}
        network = {k: plain_tensor(z, f"{file}: {k!r}") for k, z in content["enc"].items()}
    if str(_number(name)) not in parts:
        raise UserError(
            f"{file} knows the subjects {', '.join(parts)}, and {name!r} ends in none of these "
            "numbers; name a subject of NSD, e.g. subj01."
        )
    with _laid_out(file):
        part = parts[str(_number(name))]
        where = f"{file}: of subject {_number(name)},"
        voxels = {k: plain_tensor(part[k], f"{where} {k!r}") for k in (*FIELDS, "w", "b")}
        if voxels["b"].ndim != 1:
            raise ValueError(f"b has the shape {tuple(voxels['b'].shape)}")
        return network, voxels


def _number(name: str) -> int | None:
    found = re.search(r"(\d+)$", name)
    return int(found[1]) if found else None

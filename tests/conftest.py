"""Fixtures for every test: warnings are errors, seeds are fixed, and a small study that can run.

The fake study has real betas, a real atlas on fsaverage5 and a mapper that is really fitted; only
its generator paints instead of thinking. Tests that need it ask for `fakes` (the classes), for
`make_workbench` (with paths and checkpoints of one's own) or for `workbench`.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from explorer.protocols import Option, Step
from explorer.types import Card, EmbeddingSpace, Subject, Trials, UserError, VoxelSpace, voxel_hash

if "PYTEST_XDIST_WORKER" in os.environ:  # processes share the cores instead of taking them all
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Two processes that look for a free port at once find the same one, and Gradio tells too late that
# the second did not get it: each looks among a hundred of its own.
os.environ.setdefault("GRADIO_SERVER_PORT", str(20_000 + 100 * (os.getpid() % 300)))
SPACE = EmbeddingSpace("fake-clip", "image", (8,), unit_norm=True)
PARCELS = ("pericalcarine", "lateraloccipital", "fusiform", "precentral")
INFORMATIVE = ("pericalcarine", "fusiform")
PER_PARCEL = 25  # voxels of each parcel in each hemisphere

# Third-party code that warns about itself; everything else that warns fails a test.
EXPECTED_WARNINGS: tuple[str, ...] = (
    # diffusers' DPM-Solver hands torch tensors to numpy in the old way
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
    # gradio starts event loops in threads of its own and never closes them
    "ignore:unclosed <socket.socket.*family=1:ResourceWarning",
    "ignore:unclosed event loop:ResourceWarning",
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "error")
    for line in EXPECTED_WARNINGS:
        config.addinivalue_line("filterwarnings", line)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Give every test the same global torch randomness, and leave no trace of what it drew."""
    if "torch" not in sys.modules:  # a test that needs no torch should not wait for it
        yield
        return
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def fake_picture(stimulus: str) -> np.ndarray:
    """Return a picture uint8 (32, 32, 3): four by four patches that only the name decides."""
    seed = int.from_bytes(stimulus.encode(), "big") % 2**32
    patches = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return patches.repeat(8, axis=0).repeat(8, axis=1)


class FakeEmbedder:
    """A fixed random projection of a picture's patches."""

    spaces = (SPACE,)

    def __init__(self, checkpoints: Path | None = None, device: str = "cpu") -> None:
        self.projection = np.random.default_rng(1).standard_normal((48, 8))

    def embed(self, images, space: EmbeddingSpace = SPACE) -> np.ndarray:  # noqa: ANN001
        centres = [np.arange(len(image) // 8, len(image), len(image) // 4) for image in images]
        small = [i[at][:, at].reshape(-1) for i, at in zip(images, centres, strict=True)]
        rows = (np.stack(small) / 127.5 - 1) @ self.projection
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class FakeStudy:
    """Two subjects, ten test pictures shown twice, sixty training pictures shown once.

    Voxels of two parcels answer to the picture's embedding, all voxels are noisy. ``path`` is not
    read. One caption holds HTML and a template, which must reach the page as plain text.
    """

    title = "A fake study"
    licence = "CC0"
    citation = "Nobody (2020)"
    simulated = True
    redistributable = True
    split_unit = "stimulus"
    note = "Everything here is made up."

    def __init__(self, path: Path | None = None, name: str = "fake") -> None:
        import pandas as pd

        self.path, self.name = path, name
        names = [f"test-{i:02d}" for i in range(1, 11)] + [f"train-{i:02d}" for i in range(60)]
        captions = [f"patches {name}" for name in names]
        captions[2] = "<b>bold</b> ${alert(1)} {{value}}"
        kinds = ["warm", "cold"] * (len(names) // 2)
        self.stimuli = pd.DataFrame(
            {"caption": captions, "category": kinds, "source": "made"},
            index=pd.Index(names, name="stimulus"),
        )

    def subjects(self) -> list[str]:
        return ["sub-01", "sub-02"]

    def load(self, subject: str) -> Trials:
        import pandas as pd

        if subject not in self.subjects():
            raise UserError(f"no subject {subject}")
        seed = self.subjects().index(subject)
        voxels, parcels = fake_voxels(seed)
        rng = np.random.default_rng(10 + seed)
        tuning = rng.standard_normal((8, voxels.n_voxels))
        tuning[:, ~np.isin([p.split()[0] for p in parcels], INFORMATIVE)] = 0
        names = list(self.stimuli.index)
        shown = names[:10] + names
        signal = FakeEmbedder().embed([fake_picture(s) for s in shown]) @ tuning
        betas = signal + 0.3 * rng.standard_normal(signal.shape)
        table = pd.DataFrame(
            {
                "stimulus": shown,
                "split": ["test"] * 20 + ["train"] * 60,
                "repeat": [0] * 10 + [1] * 10 + [0] * 60,
                "session": 1,
                "run": 1,
            }
        )
        ncsnr = np.abs(tuning).mean(axis=0)
        who = Subject(self.name, subject, voxels, ncsnr, simulated=True)
        return Trials(who, betas.astype(np.float32), "made up", table)

    def image(self, stimulus: str) -> np.ndarray:
        if stimulus not in self.stimuli.index:
            raise UserError(f"{self.name} has no stimulus {stimulus!r}.")
        return fake_picture(stimulus)


def fake_voxels(seed: int) -> tuple[VoxelSpace, list[str]]:
    """Return voxels on fsaverage5 under the Desikan-Killiany atlas, and each voxel's parcel."""
    import scipy.sparse as sp

    from explorer.brain.atlases import desikan_killiany
    from explorer.brain.parcels import lay

    atlas, rng = desikan_killiany(), np.random.default_rng(seed)
    chosen = [
        rng.choice(np.flatnonzero(atlas.vertices == i), PER_PARCEL, replace=False)
        for i, label in enumerate(atlas.labels)
        if label.name in PARCELS
    ]
    vertices = np.sort(np.concatenate(chosen))
    digest = voxel_hash("fake", vertices)
    places = (np.ones(len(vertices), np.float32), (vertices, np.arange(len(vertices))))
    projection = sp.csr_matrix(places, shape=(20_484, len(vertices)))
    parcellation = lay(atlas, projection, digest)
    space = VoxelSpace(len(vertices), digest, projection, parcellations={atlas.name: parcellation})
    return space, [atlas.labels[i].key for i in parcellation.membership]


class FakeOneImage(FakeStudy):
    """The same study with a single test image."""

    def load(self, subject: str) -> Trials:
        trials = super().load(subject)
        alone = (trials.table["stimulus"] == "test-01") | (trials.table["split"] == "train")
        kept = np.flatnonzero(alone)
        table = trials.table.iloc[kept].reset_index(drop=True)
        return replace(trials, betas=trials.betas[kept], table=table)


class FakeGenerator:
    """Paints at once; the picture depends on embedding, scale, seed and contrast alone.

    Scale after scale is finished, so that a sweep that is stopped has finished pictures. Set
    ``delay`` (seconds a step) to have time for stopping.
    """

    accepts = (SPACE,)
    provenance = "generated"
    guided = True
    needs = ()
    options = (Option("contrast", 0.0, 2.0, 1.0, "How far colours lie from grey."),)
    default_steps = 4
    delay = 0.0
    painted = 0  # pictures finished since the class was made: what a cache must save

    def __init__(self, checkpoints: Path | None = None, device: str = "cpu") -> None:
        self.checkpoints = checkpoints

    def sweep(self, condition, scales, steps, seed, contrast=1.0) -> Iterator[Step]:  # noqa: ANN001
        for index, scale in enumerate(scales):
            for step in range(1, steps + 1):
                time.sleep(type(self).delay)
                image = self._paint(condition, scale * step / steps, seed, contrast)
                type(self).painted += step == steps
                yield Step(index, scale, step, steps, image, step == steps)

    def generate(self, conditions, scale, seeds, steps, **options) -> np.ndarray:  # noqa: ANN001
        pairs = zip(conditions, seeds, strict=True)
        return np.stack(
            [[*self.sweep(c, [scale], steps, s, **options)][-1].image for c, s in pairs]
        )

    def _paint(self, condition, scale: float, seed: int, contrast: float) -> np.ndarray:  # noqa: ANN001
        z = np.asarray(condition.embeddings[SPACE], dtype=np.float64).reshape(-1)
        noise = np.random.default_rng(seed).standard_normal((4, 4, 3))
        colours = noise + scale * np.resize(z, (4, 4, 3))
        patches = np.clip(127.5 + 40 * contrast * colours, 0, 255).astype(np.uint8)
        return patches.repeat(8, axis=0).repeat(8, axis=1)


class FakeUnguided(FakeGenerator):
    """A generator without guidance."""

    guided = False
    default_steps = 1


def make_fake_linear() -> type:
    """Return a linear mapper class (made here, because its base class imports torch)."""
    import torch

    from explorer.mapper import Mapper

    class FakeLinear(Mapper):
        def __init__(self, targets, voxels) -> None:  # noqa: ANN001
            super().__init__(targets, voxels)
            for subject, count in voxels.items():
                weight = torch.nn.Parameter(torch.zeros(count, targets[0].size))
                self.register_parameter(f"weight_{subject}", weight)

        def forward(self, betas, subject):  # noqa: ANN001
            weight = getattr(self, f"weight_{subject}")
            z = self.standardise(betas, subject) @ weight
            return {self.targets[0]: z.reshape(-1, *self.targets[0].shape)}

        @classmethod
        def fit(cls, trials, targets, *, seed, progress=None, alpha=30.0):  # noqa: ANN001
            mapper = cls(
                tuple(targets), {t.subject.name: t.subject.voxels.n_voxels for t in trials}
            )
            embeddings = next(iter(targets.values()))
            for one in trials:
                mapper.set_statistics(one)
                rows = one.rows("train")
                betas = torch.from_numpy(np.asarray(one.betas[rows]))
                voxels = mapper.standardise(betas, one.subject.name)
                goal = np.stack([embeddings[s].ravel() for s in one.table["stimulus"].iloc[rows]])
                kernel = voxels @ voxels.T + alpha * torch.eye(len(rows))
                weight = voxels.T @ torch.linalg.solve(kernel, torch.from_numpy(goal))
                mapper.get_parameter(f"weight_{one.subject.name}").data.copy_(weight)
            return mapper.eval()

    return FakeLinear


@pytest.fixture(scope="session")
def fakes() -> SimpleNamespace:
    """Return the fake classes, and what a test needs to know about them."""
    return SimpleNamespace(
        Study=FakeStudy,
        OneImage=FakeOneImage,
        Embedder=FakeEmbedder,
        Generator=FakeGenerator,
        Unguided=FakeUnguided,
        Linear=make_fake_linear(),
        space=SPACE,
        picture=fake_picture,
        parcels=PARCELS,
        informative=INFORMATIVE,
    )


@pytest.fixture(scope="session")
def fake_checkpoints(fakes: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write checkpoints: a mapper for sub-01 of the fake study, none for sub-02."""
    from explorer.matching import split_hash

    folder, trials = tmp_path_factory.mktemp("checkpoints"), fakes.Study().load("sub-01")
    names = trials.stimuli("train")
    embeddings = dict(
        zip(names, fakes.Embedder().embed(list(map(fake_picture, names))), strict=True)
    )
    mapper = fakes.Linear.fit([trials], {SPACE: embeddings}, seed=0)
    voxels = trials.subject.voxels
    card = Card(
        kind="mapper",
        name="linear",
        cls="linear",
        dataset="fake",
        command="made by a test",
        licence="CC0",
        subjects=("sub-01",),
        voxels={"sub-01": (voxels.n_voxels, voxels.hash)},
        targets=(SPACE,),
        split_hash=split_hash(trials),
    )
    mapper.save_pretrained(folder / "mappers" / "fake" / "linear-sub-01", card)
    return folder


@pytest.fixture(scope="session")
def encoding_checkpoints(
    fakes: SimpleNamespace, fake_checkpoints: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return checkpoints with an encoding model of sub-01, really trained."""
    from backends.encoders.voxelwise import train_encoding

    folder = tmp_path_factory.mktemp("encoding") / "checkpoints"
    shutil.copytree(fake_checkpoints, folder)
    trials = fakes.Study().load("sub-01")
    names = trials.stimuli("train") + trials.stimuli("test")
    rows = fakes.Embedder().embed([fakes.picture(name) for name in names])
    embeddings = {fakes.space: dict(zip(names, rows, strict=True))}
    place = folder / "encoding" / "fake" / "sub-01"
    train_encoding(trials, embeddings, place, command="made by a test", licence="CC0")
    return folder


@pytest.fixture
def make_workbench(fakes: SimpleNamespace, fake_checkpoints: Path) -> Callable:
    """Return a function that makes a workbench of the fakes; keywords replace any argument."""
    from explorer.workbench import Workbench

    def make(**changed):  # noqa: ANN003, ANN202
        arguments = {
            "datasets": {"fake": fakes.Study},
            "embedders": {"pocket-clip": fakes.Embedder},
            "mappers": {"linear": fakes.Linear, "ridge": fakes.Linear},
            "generators": {"painter": fakes.Generator, "unguided": fakes.Unguided},
            "checkpoints": fake_checkpoints,
        }
        return Workbench(**(arguments | changed))

    return make


@pytest.fixture
def workbench(make_workbench: Callable):  # noqa: ANN201
    """Return a workbench of the fakes."""
    return make_workbench()

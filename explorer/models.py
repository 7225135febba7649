"""The models of a catalogue, each loaded (or fitted) once and named by a hash of its weights."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer import stopping
from explorer.cache import Cache
from explorer.catalogue import Catalogue
from explorer.files import sha256_of
from explorer.offers import FIT_NOW, FITTED
from explorer.protocols import Encoder, Generator
from explorer.request import Request
from explorer.types import Card, EmbeddingSpace, UserError, resolve

if TYPE_CHECKING:
    from explorer.mapper import Mapper

MODELS = 16  # kept at a time: four subjects' mappers and encoders, generators, embedders, room


class Models:
    """Mappers, generators and embedders, ready to run on one device.

    Parameters
    ----------
    catalogue
        What is on offer.
    device
        A torch device, or "auto" for a GPU when there is one.
    """

    def __init__(self, catalogue: Catalogue, device: str = "cpu") -> None:
        self._catalogue, self._device = catalogue, device
        self._models = Cache(MODELS)
        self._checked, self._hashes = Cache(), Cache()
        self._embeddings = Cache(32)
        # rows by stimulus, of data sets whose trials still arrive
        self._grown: dict[tuple[str, EmbeddingSpace], dict[str, np.ndarray]] = {}

    @property
    def loaded(self) -> int:
        """How many models are in memory."""
        return len(self._models)

    @functools.cached_property
    def device(self) -> str:
        """The torch device that models run on; one that cannot be used raises `UserError`."""
        if self._device == "cpu":
            return "cpu"
        import torch

        if self._device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        try:
            torch.empty(1, device=self._device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise UserError(
                f"The device {self._device!r} cannot be used here "
                f"({str(error).splitlines()[0].rstrip('.')}); choose cpu or auto."
            ) from error
        return self._device

    def mapper(self, dataset: str, subject: str, name: str) -> Mapper:
        """Return a mapper in eval mode; one that was made for other data raises `UserError`."""
        offer = self._catalogue.offer(dataset, subject, name)
        trials = self._catalogue.trials(dataset, subject)
        if offer.published is not None:
            return offer.published
        if offer.folder is None:
            key = ("fitted", dataset, subject)
            return self._models.get(key, lambda: self._fit(dataset, subject, offer.targets))

        if not offer.folder.exists():
            raise UserError(
                f"The weights of the mapper {name} are not here, only what a store keeps of it: "
                f"choose a trial and a view that it holds, or copy {offer.folder} from where it "
                "was filled."
            )

        def check() -> None:
            from explorer.matching import check_fits

            check_fits(offer.card, trials.subject if offer.elsewhere else trials)

        def load() -> Mapper:
            cls = resolve(self._catalogue.mappers[offer.card.cls])
            return cls.from_pretrained(offer.folder, self.device)

        self._checked.get((offer.folder, dataset, subject), check)  # it may serve several subjects
        return self._models.get(offer.folder, load)

    def generator(self, name: str) -> Generator:
        """Return a generator with its weights, or the published pictures of that name."""
        if name in self._catalogue.pictures:
            return self._catalogue.pictures[name]
        return self._models.get(("generator", name), lambda: self._load_generator(name))

    def _load_generator(self, name: str) -> Generator:
        cls, sources = self._catalogue.generator_class(name), self._catalogue.sources
        own = {"source": sources[name]} if name in sources else {}
        generator = cls(self._catalogue.checkpoints, self.device, **own)
        for remark in getattr(generator, "remarks", ()):
            self._catalogue.report(remark)
        return generator

    def embedder(self, name: str) -> Any:
        """Return an embedder with its weights; an unknown name raises `UserError`."""
        embedders, folder = self._catalogue.embedders, self._catalogue.checkpoints
        if name not in embedders:
            raise UserError(
                f"There is no embedder {name!r}; choose one of {', '.join(embedders)}."
            )
        cls = resolve(embedders[name])
        return self._models.get(("embedder", name), lambda: cls(folder, self.device))

    def embedder_hash(self, name: str) -> str:
        """Return a short hash of an embedder's weights without loading it, "none" without any."""
        cls = self._catalogue.embedders.get(name)
        if cls is None or not hasattr(resolve(cls), "fingerprint_of"):
            return "none"
        folder = self._catalogue.checkpoints
        key = "embedder", name
        kept = self._catalogue.behind.embedders.get(name, "none")
        return self._hashes.get(key, lambda: resolve(cls).fingerprint_of(folder) or kept)

    def encoder(self, dataset: str, subject: str) -> Encoder:
        """Return the encoding model of a subject; `UserError` where there is none that fits."""
        offer = self._catalogue.encoder_offer(dataset, subject)
        if offer is None:
            raise UserError(
                f"There is no encoding model for {dataset}/{subject}; train one with: python -m "
                f"backends train-encoding --dataset {dataset}=PATH"
            )
        cls = self._catalogue.encoders[offer.card.cls]
        trials = self._catalogue.trials(dataset, subject)
        return self._models.get(
            ("encoder", offer.folder), lambda: resolve(cls).load(offer.folder, trials, self.device)
        )

    def encoder_hash(self, dataset: str, subject: str) -> str:
        """Return a short hash of the encoding model's files, "none" without any."""
        offer = self._catalogue.encoder_offer(dataset, subject)
        if offer is None:
            return "none"
        return self._hashes.get(offer.folder, lambda: content_hash(offer.folder))

    def embed(self, dataset: str, stimuli: Sequence[str], space: EmbeddingSpace) -> np.ndarray:
        """Return float32 (n, ...): the stimuli's own images in an embedding space, kept.

        In a space of captions, their captions.
        """

        def make() -> np.ndarray:
            stopping.look()
            name = self._catalogue.embedder_name(space)
            if not name:
                name = self._catalogue.captions_embedder_name(space)
                if not name:
                    raise UserError(no_embedder(space))
                table = self._catalogue.dataset(dataset).stimuli
                captions = list(table.loc[list(stimuli), "caption"])
                return self.embedder(name).embed_text(captions, space)
            if (known := self._known(dataset, stimuli, space, name)) is not None:
                return known
            there = self._grown.get((dataset, space), {})
            lacking = [s for s in stimuli if s not in there]
            images = [self._catalogue.image(dataset, s) for s in stopping.steps(lacking)]
            new = self.embed_images(images, space) if lacking or not there else []
            if not there:  # no copy of what may be gigabytes
                return new
            rows = there | dict(zip(lacking, new, strict=True))
            return np.stack([rows[stimulus] for stimulus in stimuli])

        return self._embeddings.get((dataset, tuple(stimuli), space), make)

    def renew(self, dataset: str, keep_fitted: bool, but: Set[str] = frozenset()) -> None:
        """Forget what rests on the trials that a data set had before others arrived.

        Its stimuli stay embedded, ``but`` these, and so does a mapper that was fitted in memory
        where its training trials are the same.
        """
        kept = self._embeddings.items(lambda key: key[0] == dataset)
        for (_, stimuli, space), rows in kept:
            there = self._grown.setdefault((dataset, space), {})
            there.update(zip(stimuli, rows, strict=True))
        self._embeddings.drop(lambda key: key[0] == dataset and not but.isdisjoint(key[1]))
        for there in (rows for (name, _), rows in self._grown.items() if name == dataset):
            for stimulus in but:
                there.pop(stimulus, None)
        self._checked.drop(lambda key: key[1] == dataset)
        if not keep_fitted:
            of = ("fitted", dataset)
            self._models.drop(lambda key: isinstance(key, tuple) and key[:2] == of)

    def embed_images(self, images: Sequence[np.ndarray], space: EmbeddingSpace) -> np.ndarray:
        """Return float32 (n, ...): images uint8 (H, W, 3) in an embedding space, not kept."""
        name = self._catalogue.embedder_name(space)
        if not name:
            raise UserError(no_embedder(space))
        return self.embedder(name).embed(images, space)

    def is_embedded(self, dataset: str, stimuli: Sequence[str], space: EmbeddingSpace) -> bool:
        """Return whether `embed` answers without an embedder: from what is kept, or stored."""
        if self._embeddings.peek((dataset, tuple(stimuli), space)) is not None:
            return True
        name = self._catalogue.embedder_name(space)
        return bool(name) and self._known(dataset, stimuli, space, name) is not None

    def _known(
        self, dataset: str, stimuli: Sequence[str], space: EmbeddingSpace, embedder: str
    ) -> np.ndarray | None:
        """Return embeddings that lie ready in the data set, without loading the embedder."""
        study, cls = self._catalogue.dataset(dataset), resolve(self._catalogue.embedders[embedder])
        if not (hasattr(study, "known_embeddings") and hasattr(cls, "fingerprint_of")):
            return None
        fingerprint = cls.fingerprint_of(self._catalogue.checkpoints)
        return study.known_embeddings(stimuli, space, fingerprint) if fingerprint else None

    def card(self, request: Request) -> Card:
        """Return the card of a request's mapper."""
        offer = self._catalogue.offer(request.dataset, request.subject, request.mapper)
        return offer.card or self.mapper(request.dataset, request.subject, request.mapper).card

    def hashes(self, request: Request) -> dict[str, str]:
        """Return a short hash of the mapper's and the generator's files, "none" without any."""
        mapper = self.mapper_hash(request.dataset, request.subject, request.mapper)
        return {"mapper": mapper, "generator": self._generator_hash(request)}

    def _generator_hash(self, request: Request) -> str:
        if not request.generator:
            return "none"
        if request.generator in self._catalogue.pictures:
            return self._catalogue.pictures[request.generator].fingerprint
        name, kept = request.generator, self._catalogue.behind.generators.get(request.generator)
        if hasattr(self._catalogue.generator_class(name), "fingerprint"):
            usual = self._catalogue.checkpoints / "generators" / name
            if kept and name not in self._catalogue.sources and not usual.is_dir():
                return kept
            return self.generator(name).fingerprint
        own = self._catalogue.checkpoints / name
        folder = Path(self._catalogue.sources.get(name, own)).expanduser()
        found = self._hashes.get(folder, lambda: content_hash(folder))
        return kept if kept and found == "none" else found

    def mapper_hash(self, dataset: str, subject: str, mapper: str) -> str:
        """Return a short hash of a mapper's files, "none" for no mapper ("")."""
        if not mapper:
            return "none"
        offer = self._catalogue.offer(dataset, subject, mapper)
        if offer.published is not None:
            return offer.published.fingerprint
        if offer.folder is None:
            fitted = self.mapper(dataset, subject, mapper)
            return self._hashes.get(fitted, lambda: _state_hash(fitted))
        if not offer.folder.exists():
            return self._catalogue.behind.mapper_hash(offer.folder)
        return self._hashes.get(offer.folder, lambda: content_hash(offer.folder))

    def _fit(self, dataset: str, subject: str, targets: Sequence[EmbeddingSpace]) -> Mapper:
        from explorer.matching import split_hash

        trials, began = self._catalogue.trials(dataset, subject), time.monotonic()
        stimuli = trials.stimuli("train")
        embeddings = {
            space: dict(zip(stimuli, self.embed(dataset, stimuli, space), strict=True))
            for space in targets
        }
        mapper = resolve(self._catalogue.mappers[FIT_NOW]).fit([trials], embeddings, seed=0)
        voxels = trials.subject.voxels
        mapper.card = Card(
            kind="mapper",
            name=FITTED,
            cls=FIT_NOW,
            dataset=dataset,
            command="fitted in memory from the training trials when first asked for",
            licence="",
            subjects=(subject,),
            voxels={subject: (voxels.n_voxels, voxels.hash)},
            targets=tuple(targets),
            split_hash=split_hash(trials),
            normalisation="training mean and standard deviation of each voxel",
            metrics=getattr(mapper, "metrics", {}),
            seconds=round(time.monotonic() - began, 2),
            device=self.device,
        )
        return mapper.to(self.device).eval().requires_grad_(False)


def no_embedder(space: EmbeddingSpace) -> str:
    """Return the sentence about a space that no embedder here puts images into."""
    return (
        f"No embedder here puts images into {space.name}, so what is decoded cannot be compared "
        "with what was shown; choose another mapper."
    )


def content_hash(folder: Path) -> str:
    """Return a short hash of all files in a checkpoint folder, "none" where there are none."""
    digest = hashlib.sha256()
    files = sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []
    for path in files:
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(bytes.fromhex(sha256_of(path)))
    return digest.hexdigest()[:16] if files else "none"


def _state_hash(mapper: Mapper) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(mapper.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
    return digest.hexdigest()[:16]

"""Pictures that a decoded embedding is compared with: its nearest neighbours and their class name.

A gallery is a folder of pictures (one sub-folder a class, where they have classes) or a data set's
own training stimuli; test stimuli never belong to it. Each picture is compared, and equals stand
in the gallery's order.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from backends.embedders.store import Store, embed_kept
from explorer import splits
from explorer.images import ENDINGS, read_picture
from explorer.protocols import Condition, Dataset, Embedder, Neighbour
from explorer.types import EmbeddingSpace, UserError

MEND = "copy it again, or take it out of the gallery"
BLOCK = 128  # pictures read and embedded at a time
# In front of a class name: a WordNet id (ImageNet's folders), or a number and a separator
NUMBERED = re.compile(r"^(n\d{8}(?!\d)|\d+(?=[\s._-]))[\s._-]*")


class Gallery:
    """Pictures with ids, and with class names where they have any.

    Parameters
    ----------
    title
        What it is, in a few words that fit into "the nearest of 4800 ...".
    labels
        Id -> class name, cleaned, "" where a picture has none; in a fixed order.
    read
        Id -> picture uint8 (H, W, 3).
    cache
        A folder in which embeddings are kept (`backends.embedders.store`); None keeps nothing on
        disk.
    known
        Takes ids, a space and the embedder's fingerprint and returns their embeddings (n, ...)
        where they are known already, else None.
    """

    def __init__(
        self,
        title: str,
        labels: Mapping[str, str],
        read: Callable[[str], np.ndarray],
        cache: Path | None = None,
        known: Callable[..., np.ndarray | None] | None = None,
    ) -> None:
        self.title, self.labels, self.image, self.cache = title, dict(labels), read, cache
        self._known = known
        self._rows: dict[EmbeddingSpace, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The ids of its pictures, in order."""
        return tuple(self.labels)

    @classmethod
    def of_folder(cls, path: Path, cache: Path | None = None) -> Gallery:
        """Return the pictures under a folder; the first sub-folder names the class."""
        path = Path(path).expanduser()
        found = path.rglob("*") if path.is_dir() else []
        files = sorted(f.relative_to(path) for f in found if f.suffix.lower() in ENDINGS)
        if not files:
            raise UserError(
                f"{path} holds no pictures ({', '.join(ENDINGS)}); give a folder of pictures, "
                "with one sub-folder a class if they are to name what is seen."
            )

        def read(name: str) -> np.ndarray:
            return read_picture(path / name, do=MEND)

        labels = {f.as_posix(): clean_label(f.parts[0]) if f.parts[1:] else "" for f in files}
        return cls(f"pictures in {path.name}", labels, read, cache)

    @classmethod
    def of_training(cls, dataset: Dataset, subject: str, cache: Path | None = None) -> Gallery:
        """Return a subject's training stimuli that are no test stimuli, by their category."""
        stimuli = splits.shown([dataset.load(subject)])[0]
        if not stimuli:
            raise UserError(
                f"{dataset.name}/{subject} has no training stimulus that is not a test stimulus "
                "too, so nothing can be retrieved from it; give a folder of other pictures."
            )
        names = dataset.stimuli["category"].reindex(stimuli).fillna("")
        labels = {s: clean_label(str(name)) for s, name in names.items()}
        known = getattr(dataset, "known_embeddings", None)
        return cls("training stimuli", labels, dataset.image, cache, known)

    def nearest(
        self, embedding: np.ndarray, space: EmbeddingSpace, embedder: Embedder, k: int = 5
    ) -> tuple[Neighbour, ...]:
        """Return the k pictures most similar to an embedding of the space's shape, best first.

        Of equally similar ones those that come first in the gallery, however many are asked for.
        Cosine similarity where the space has unit norm, else Pearson correlation over its values;
        from -1 to 1. ``embedder`` makes the space; the whole gallery is embedded once.
        """
        if space not in self._rows:
            self._rows[space] = self._embedded(space, embedder)
        rows = self._rows[space]
        sought = _unit(np.asarray(embedding, np.float32).reshape(1, -1), space)[0]
        similarity = np.empty(len(rows), np.float32)
        for begin in range(0, len(rows), BLOCK):
            # a sum by itself for each picture: a matrix product rounds equal ones differently
            similarity[begin : begin + BLOCK] = (rows[begin : begin + BLOCK] * sought).sum(axis=1)
        best = np.argsort(-similarity, kind="stable")[:k]
        return tuple(
            Neighbour(self.ids[i], self.labels[self.ids[i]], float(similarity[i])) for i in best
        )

    def prompt(
        self,
        embedding: np.ndarray,
        space: EmbeddingSpace,
        embedder: Embedder,
        k: int = 5,
        majority: bool = True,
    ) -> tuple[str, tuple[Neighbour, ...]]:
        """Return a class name for a text-to-image model, and the k neighbours that gave it.

        The name that most of them have (of equally frequent ones, that of the nearest), or without
        ``majority`` simply the nearest one's. A gallery with pictures of no class is refused.
        """
        if without := [picture for picture, label in self.labels.items() if not label]:
            raise UserError(
                f"{len(without)} of {len(self)} {self.title} have no class name (first "
                f"{without[0]}), so they cannot tell what is seen; give a folder with one "
                "sub-folder a class, named like n02123045_tabby_cat or tabby_cat."
            )
        found = self.nearest(embedding, space, embedder, k)
        names = [neighbour.label for neighbour in found]
        # a Counter keeps the order of first appearance among equals
        return Counter(names if majority else names[:1]).most_common(1)[0][0], found

    def _embedded(self, space: EmbeddingSpace, embedder: Embedder) -> np.ndarray:
        """Return the pictures' embeddings as rows (n, D) of unit norm; see `_unit`."""
        fingerprint = getattr(embedder, "fingerprint", "")
        known = self._known(self.ids, space, fingerprint) if self._known and fingerprint else None
        if known is not None:
            return _unit(known.reshape(len(known), -1).astype(np.float32), space)
        store = None
        if self.cache is not None and Store.keeps(embedder):
            store = Store(self.cache, embedder, space)
        found = np.empty((len(self), space.size), np.float32)
        try:
            for begin in range(0, len(self), BLOCK):
                images = [self.image(picture) for picture in self.ids[begin : begin + BLOCK]]
                rows = embed_kept(images, lambda new: embedder.embed(new, space), store)
                found[begin : begin + BLOCK] = _unit(np.stack(rows).reshape(len(rows), -1), space)
        finally:
            if store:
                store.flush()
        return found


class Galleries:
    """The gallery of a condition: a folder's pictures, or its data set's own training stimuli.

    Parameters
    ----------
    who
        The generator, as its messages begin.
    folder
        A folder of pictures; None takes the training stimuli of each condition's data set.
    cache
        Where embeddings are kept; None is $AFTERIMAGE_CACHE or ~/.cache/afterimage.
    """

    def __init__(
        self, who: str, folder: str | Path | None = None, cache: Path | None = None
    ) -> None:
        kept = os.environ.get("AFTERIMAGE_CACHE") or Path.home() / ".cache" / "afterimage"
        self._who, self._cache = who, Path(cache or kept) / "embeddings"
        self._folder = Gallery.of_folder(Path(folder), self._cache) if folder else None
        self._training: dict[tuple[str, str], Gallery] = {}

    def of(self, condition: Condition) -> Gallery:
        """Return where a condition's neighbours are sought; `UserError` where it names none."""
        if self._folder is not None:
            return self._folder
        dataset, subject = condition.dataset, condition.subject
        if dataset is None or subject is None:
            raise UserError(
                f"{self._who} looks among a data set's training stimuli, and this condition names "
                "no data set; choose a trial of one, or give a folder of pictures."
            )
        key = dataset.name, subject.name
        if key not in self._training:
            self._training[key] = Gallery.of_training(dataset, subject.name, self._cache)
        return self._training[key]


def clean_label(name: str) -> str:
    """Return a class name as a person would write it, "" where a name holds none.

    Without WordNet ids and numbers in front, without underscores, the first of several synonyms:
    ``n02123045_tabby_cat`` is ``tabby cat``.
    """
    text = NUMBERED.sub("", name.strip())
    return " ".join(text.replace("_", " ").split(",")[0].split())


def _unit(rows: np.ndarray, space: EmbeddingSpace) -> np.ndarray:
    """Return rows (n, D) of unit norm, centred first where the space itself has no unit norm."""
    if not space.unit_norm:
        rows = rows - rows.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows / np.maximum(norm, 1e-12), np.float32)

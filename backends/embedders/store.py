"""A study's stimuli to embeddings, kept on disk between runs so that none is embedded twice."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends.training.counted import count
from explorer.protocols import Dataset, Embedder
from explorer.types import EmbeddingSpace, UserError

LIMIT = 20 * 10**9  # bytes in the whole folder: 27,000 pictures of 257 x 768, our choice
SHARD = 64 * 10**6  # bytes of rows in one file, so that little is lost when a run is stopped
ABANDONED = 3600.0  # seconds after which a half-written file belongs to nobody


class Store:
    """The embeddings in one space that one embedder made, by what was embedded.

    A row is found by a hash of the picture or caption itself, never by its name, so a picture that
    was changed is embedded again and data sets share what they have in common. The folder's name
    holds the space, the embedder's weights and its code. A file is believed only after its
    checksum, and removed if it is damaged. When the whole ``folder`` outgrows ``limit`` bytes,
    the files that were not used for the longest time go.

    Parameters
    ----------
    folder
        Of all stores; made when something is kept.
    embedder
        Needs a ``fingerprint`` that names its weights; see `keeps`.
    space
        In which it embeds.
    say
        Called with a sentence where the disk does not take more.
    """

    def __init__(
        self,
        folder: Path,
        embedder: Any,
        space: EmbeddingSpace,
        *,
        limit: int = LIMIT,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.root, self.space, self.limit, self.say = Path(folder), space, limit, say
        code = hashlib.sha256(Path(inspect.getfile(type(embedder))).read_bytes()).hexdigest()
        what = [space.name, space.shape, space.unit_norm, embedder.fingerprint, code]
        self.identity = hashlib.sha256(repr(what).encode()).hexdigest()[:16]
        self.folder = self.root / f"{space.name.replace('/', '-')}-{self.identity}"
        self._rows: dict[str, np.ndarray] = {}
        self._places: dict[str, Path] = {}
        self._fresh: dict[str, np.ndarray] = {}
        for file in sorted(self.folder.glob("*.safetensors")):
            self._places |= dict.fromkeys(self._keys(file), file)

    @staticmethod
    def keeps(embedder: Any) -> bool:
        """Return whether an embedder's work can be told apart, and so kept."""
        return bool(getattr(embedder, "fingerprint", ""))

    def get(self, key: str) -> np.ndarray | None:
        """Return the embedding (*shape) kept under a key of `key_of`, None without one."""
        if key not in self._rows and key in self._places:
            self._read(self._places[key])
        return self._rows.get(key)

    def add(self, rows: Mapping[str, np.ndarray]) -> None:
        """Take new embeddings; they are on disk after enough of them, or `flush`."""
        self._rows |= rows
        self._fresh |= rows
        if len(self._fresh) * 4 * self.space.size >= SHARD:
            self.flush()

    def flush(self) -> None:
        """Write what is new, whole or not at all, and make room; a full disk is only said."""
        if not self._fresh:
            return
        fresh, self._fresh = self._fresh, {}
        try:
            self._write(fresh)
            self._make_room()
        except OSError as error:
            if self.say:
                self.say(
                    f"{len(fresh)} embeddings in {self.space.name} could not be kept in "
                    f"{self.root} ({error}); they are made again in the next run, unless there is "
                    "room or another folder is named with --cache."
                )

    def _write(self, rows: Mapping[str, np.ndarray]) -> None:
        from safetensors.numpy import save

        keys, values = list(rows), np.stack(list(rows.values())).astype(np.float32)
        about = {"identity": self.identity, "keys": json.dumps(keys), "checksum": _sum(values)}
        name = hashlib.sha256("".join(keys).encode()).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"{name}.{uuid.uuid4().hex}.part"
        try:
            part.write_bytes(save({"rows": values}, metadata=about))
            part.replace(self.folder / f"{name}.safetensors")
        except OSError:
            part.unlink(missing_ok=True)
            raise

    def _keys(self, file: Path) -> list[str]:
        """Return which rows a file says it holds; none if it is not one of ours."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, "np") as opened:
                about = opened.metadata() or {}
            return json.loads(about["keys"]) if about.get("identity") == self.identity else []
        except (SafetensorError, OSError, KeyError, ValueError):
            file.unlink(missing_ok=True)
            return []

    def _read(self, file: Path) -> None:
        """Take a file's rows after comparing them with its checksum; a damaged file is removed."""
        from safetensors import SafetensorError, safe_open

        keys = [key for key, place in self._places.items() if place == file]
        for key in keys:
            del self._places[key]
        try:
            with safe_open(file, "np") as opened:
                about, values = opened.metadata(), opened.get_tensor("rows")
            names = json.loads(about["keys"])
            shape = (len(names), *self.space.shape)
            if values.shape != shape or _sum(values) != about["checksum"]:
                raise ValueError(f"{file} is damaged")
            os.utime(file)
        except (SafetensorError, OSError, KeyError, ValueError):
            file.unlink(missing_ok=True)
            return
        self._rows |= dict(zip(names, values, strict=True))

    def _make_room(self) -> None:
        """Remove what was left half-written, then the files used longest ago, down to limit."""
        for part in self.root.rglob("*.part"):
            if time.time() - part.stat().st_mtime > ABANDONED:
                part.unlink(missing_ok=True)
        files = [(f.stat(), f) for f in self.root.rglob("*.safetensors")]
        total = sum(about.st_size for about, _ in files)
        for about, file in sorted(files, key=lambda entry: entry[0].st_mtime_ns):
            if total <= self.limit:
                return
            file.unlink(missing_ok=True)
            total -= about.st_size


def key_of(item: np.ndarray | str) -> str:
    """Return the hash of a picture uint8 (H, W, 3), or of a caption."""
    if isinstance(item, str):
        return hashlib.sha256(f"caption {item}".encode()).hexdigest()[:32]
    digest = hashlib.sha256(f"picture {item.shape} {item.dtype}".encode())
    digest.update(np.ascontiguousarray(item))
    return digest.hexdigest()[:32]


def embed_kept(
    items: Sequence[np.ndarray | str],
    embed: Callable[[Sequence[Any]], np.ndarray],
    store: Store | None,
) -> list[np.ndarray]:
    """Return one embedding an item: those that are kept, and new ones of all others at once."""
    if store is None:
        return list(embed(items))
    keys = [key_of(item) for item in items]
    lacking = {key: item for key, item in zip(keys, items, strict=True) if store.get(key) is None}
    if lacking:
        store.add(dict(zip(lacking, embed(list(lacking.values())), strict=True)))
    return [store.get(key) for key in keys]


def embed_stimuli(
    dataset: Dataset,
    stimuli: Sequence[str],
    embedder: Embedder,
    space: EmbeddingSpace,
    progress: Callable[[str], None] | None = None,
    *,
    captions: Mapping[str, str] | None = None,
    cache: Path | None = None,
) -> dict[str, np.ndarray]:
    """Return stimulus -> embedding of the space's shape, reading the pictures in blocks.

    In a space of captions, each stimulus's caption is embedded: that in ``captions``, else the
    data set's own; where there is none, `UserError`. ``cache`` is a folder in which embeddings are
    kept (`Store`), None keeps nothing.
    """
    text = space in getattr(embedder, "text_spaces", ())
    said = _captions(dataset, stimuli, space, captions or {}) if text else {}
    embed = embedder.embed_text if text else embedder.embed
    known = getattr(dataset, "known_embeddings", None)
    if known is not None and getattr(embedder, "ready_only", False) and len(stimuli):
        ready = known(stimuli, space, embedder.fingerprint)
        if ready is not None:
            return dict(zip(stimuli, ready, strict=True))
    store = None
    if cache is not None and Store.keeps(embedder):
        store = Store(cache, embedder, space, say=progress)
    embeddings: dict[str, np.ndarray] = {}
    try:
        for begin in range(0, len(stimuli), 128):
            block = stimuli[begin : begin + 128]
            items = [said[s] if text else dataset.image(s) for s in block]
            rows = embed_kept(items, lambda new: embed(new, space), store)
            embeddings.update(zip(block, rows, strict=True))
            if progress:
                what = "captions" if text else "pictures"
                progress(count(space.name, len(embeddings), len(stimuli), what, "embedded"))
    finally:
        if store:
            store.flush()
    return embeddings


def _captions(
    dataset: Dataset, stimuli: Sequence[str], space: EmbeddingSpace, given: Mapping[str, str]
) -> dict[str, str]:
    own = dataset.stimuli["caption"].reindex(stimuli).fillna("").to_dict()
    found = own | {s: given[s] for s in stimuli if given.get(s, "").strip()}
    without = [stimulus for stimulus in stimuli if not found[stimulus].strip()]
    if without:
        raise UserError(
            f"{space.name} is made of captions, and {dataset.name} has none for {len(without)} of "
            f"{len(stimuli)} stimuli (first {without[0]!r}); choose a space of pictures, or write "
            f"captions with python -m backends caption --dataset {dataset.name}=PATH --model "
            "PATH_OR_ID and name that file with --captions."
        )
    return found


def _sum(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values)).hexdigest()

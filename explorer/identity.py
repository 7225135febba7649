"""Which image is this beta: every number and picture of a trial traced to its file and row.

What a reader does not say stays "not stated": nothing is guessed from numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from explorer.files import guard
from explorer.protocols import Dataset
from explorer.types import Origin, Trials, UserError

WHOLE = 64 * 2**20  # bytes up to which a file is hashed whole: a tenth of a second
END = 2**20  # bytes hashed at either end of a larger one
UNSTATED = "not stated"
FINGERPRINT = 3  # betas of a row that are shown, from its first voxel


@dataclass(frozen=True)
class Row:
    """One row of betas: where it lies, when it was measured, and a fingerprint of its numbers.

    ``row``: of the trial table, from 0. ``repeat`` from 1. ``first``: the betas of its first
    voxels, after every normalisation. ``made``: made anew (simulated), so that it lies nowhere.
    """

    row: int
    session: str
    run: str
    repeat: int
    origins: tuple[Origin, ...]
    first: tuple[float, ...]
    digest: str
    made: bool = False


@dataclass(frozen=True)
class Identity:
    """What is known of a trial: its rows, its picture, every id that names it, and who says so.

    ``picture_digest``: of its pixels as they are read, uint8 RGB; "" where the picture is not at
    hand, and ``picture_problem`` says why. ``hashes``: file -> what `file_hash` says of it.
    """

    dataset: str
    title: str
    subject: str
    stimulus: str
    split: str
    split_by: str
    unit: str
    rows: tuple[Row, ...]
    ids: dict[str, str]
    picture: Origin | None
    picture_shape: tuple[int, ...]
    picture_digest: str
    picture_problem: str
    hashes: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, ready for JSON."""
        return asdict(self)


def trace(
    dataset: Dataset,
    trials: Trials,
    stimulus: str,
    split: str = "test",
    repeats: tuple[int, ...] = (),
    hashed: Callable[[Path], str] | None = None,
) -> Identity:
    """Return where the betas and the picture of a stimulus come from.

    Parameters
    ----------
    dataset, trials
        The study, and its ``load(subject)``.
    stimulus, split, repeats
        Which rows: of a stimulus in a split, of certain repeats from 0 (() is all).
    hashed
        Gives the hash of a file; None hashes none.

    Raises
    ------
    UserError
        For a stimulus without a trial in that split.
    """
    subject = trials.subject.name
    rows = trials.rows(split, stimulus, repeats)
    if not len(rows):
        raise UserError(
            f"{trials.subject.dataset}/{subject} has no {split} trial of {stimulus!r}; choose one "
            f"of its {len(trials.stimuli(split))} {split} stimuli."
        )
    table = trials.table.iloc[rows]
    found = tuple(
        Row(
            row=int(row),
            session=str(session),
            run=str(run),
            repeat=int(repeat) + 1,
            origins=tuple(origins or ()),
            first=tuple(float(f"{v:.6g}") for v in betas[:FINGERPRINT]),
            digest=hashlib.sha256(np.ascontiguousarray(betas).tobytes()).hexdigest()[:16],
            made=origins == [],
        )
        for row, session, run, repeat, betas, origins in zip(
            rows,
            table["session"],
            table["run"],
            table["repeat"],
            np.asarray(trials.betas[rows], dtype=np.float32),
            (origins_of(dataset, trials, int(row)) for row in rows),
            strict=True,
        )
    )
    picture = getattr(dataset, "picture_origin", lambda _: None)(stimulus)
    shape, digest, problem = _look(dataset, stimulus)
    files = {o.file: None for row in found for o in row.origins} | (
        {picture.file: None} if picture else {}
    )
    return Identity(
        dataset=trials.subject.dataset,
        title=dataset.title,
        subject=subject,
        stimulus=stimulus,
        split=split,
        split_by=_who_split(dataset, trials),
        unit=trials.beta_unit,
        rows=found,
        ids=dict(getattr(dataset, "ids", lambda _: {})(stimulus)),
        picture=picture,
        picture_shape=shape,
        picture_digest=digest,
        picture_problem=problem,
        hashes={} if hashed is None else {file: hashed(Path(file)) for file in files},
    )


def origins_of(dataset: Dataset, trials: Trials, row: int) -> list[Origin] | None:
    """Return where a row of betas lies; [] where it is made anew, None where nobody says."""
    said = getattr(dataset, "origins", None)
    if said is not None:
        return said(trials.subject.name, row)
    lies = getattr(trials.betas, "lies", None)
    return None if lies is None else lies(row)


def file_hash(path: Path) -> str:
    """Return the sha256 of a file; of one larger than `WHOLE` bytes, of its ends and size.

    Such a hash names that it is one: it finds another file, not every changed byte. Kept while
    the file's size and time of change stay.
    """
    with guard(path, missing="it was here when the data set was opened"):
        found = path.stat()
        return _hash(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=1024)
def _hash(path: Path, size: int, _: int) -> str:
    with path.open("rb") as file:
        if size <= WHOLE:
            return f"sha256 {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
        digest = hashlib.sha256(str(size).encode() + file.read(END))
        file.seek(-END, 2)
        digest.update(file.read(END))
    return f"sha256 of both ends and the size {digest.hexdigest()[:16]}"


def within(identity: Identity, root: Path | str) -> Identity:
    """Return an identity whose files are told from the study's folder on, for a page or record.

    Where a study lies on a server is nobody's business but its owner's.
    """
    root = Path(root).resolve()

    def told(file: str) -> str:
        path = Path(file).resolve()
        return str(path.relative_to(root.parent) if path.is_relative_to(root) else path.name)

    def of(origin: Origin) -> Origin:
        return replace(origin, file=told(origin.file))

    return replace(
        identity,
        rows=tuple(replace(r, origins=tuple(map(of, r.origins))) for r in identity.rows),
        picture=identity.picture and of(identity.picture),
        picture_problem=identity.picture_problem.replace(f"{root.parent}/", ""),
        hashes={told(file): value for file, value in identity.hashes.items()},
    )


def sentences(identity: Identity) -> list[tuple[str, str]]:
    """Return what an identity says as pairs of a name and a text, for a table of two columns."""
    said = [
        ("Trial", f"{identity.dataset}/{identity.subject}, {identity.stimulus}"),
        ("Split", f"{identity.split}; set by {identity.split_by}"),
        ("A beta is", identity.unit),
    ]
    for row in identity.rows:
        when = f"session {row.session}, run {row.run}, repeat {row.repeat}"
        said.append((f"Row {row.row} (from 0)", when))
        if row.made:
            where = "made anew from its seed; no file holds it"
        else:
            where = "; ".join(map(place, row.origins)) or UNSTATED
        said.append(("its betas lie in", where))
        numbers = ", ".join(f"{v:g}".replace("-", "\N{MINUS SIGN}") for v in row.first)
        said.append(("its first betas", f"{numbers} … (row {row.digest})"))
    where = "no file holds it" if identity.picture is None else place(identity.picture)
    said.append(("Picture", identity.picture_problem or where))
    if identity.picture_digest:
        height, width = identity.picture_shape[:2]
        said.append(("its pixels", f"{width} × {height} (picture {identity.picture_digest})"))
    said += [(f"Id: {kind}", value) for kind, value in identity.ids.items()]
    said += [(f"Hash: {Path(file).name}", value) for file, value in identity.hashes.items()]
    return said


def place(origin: Origin) -> str:
    """Return an origin in words: file, array, row and note."""
    parts = [origin.file, *([origin.key] if origin.key else [])]
    parts += [f"row {origin.row} (from 0)"] if origin.row is not None else []
    return ", ".join(parts) + (f" ({origin.note})" if origin.note else "")


def _who_split(dataset: Dataset, trials: Trials) -> str:
    if trials.split:
        return f"{trials.split} ({trials.split_by})"
    return getattr(dataset, "split_by", "") or UNSTATED


def _look(dataset: Dataset, stimulus: str) -> tuple[tuple[int, ...], str, str]:
    """Return shape and hash of a picture's pixels, or why it cannot be read."""
    try:
        image = dataset.image(stimulus)
    except UserError as error:
        return (), "", str(error)
    return (
        image.shape,
        hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()[:16],
        "",
    )

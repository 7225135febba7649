"""Extra training rows: betas that an encoding model predicts for pictures nobody was shown.

A picture that also occurs in a test set would teach the answer, so it is left out: by its name,
and by a perceptual hash, which a copy in another format, size or compression shares.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.datasets.reading import LazyRows
from backends.encoders.voxelwise import Encoding
from backends.reports.alike import looks, seen
from backends.training.counted import count
from backends.training.plan import Progress
from explorer.images import ENDINGS, read_picture
from explorer.protocols import Dataset
from explorer.types import EmbeddingSpace, Trials, UserError

if TYPE_CHECKING:
    import pandas as pd

MEND = "mend it or take it out of the folder"


@dataclass(frozen=True)
class Extra:
    """Pictures of a folder that no test set of a data set holds.

    ``files``: id -> file; ids begin with ``extra:``. ``named`` and ``alike`` count the pictures
    that were left out for their name and for their looks.
    """

    folder: Path
    files: Mapping[str, Path]
    named: int
    alike: int

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.folder)

    @property
    def stimuli(self) -> pd.DataFrame:
        """One row a picture: it has no caption yet."""
        import pandas as pd

        return pd.DataFrame({"caption": ""}, index=list(self.files))

    def image(self, stimulus: str) -> np.ndarray:
        """Return a picture, uint8 RGB (H, W, 3)."""
        return read_picture(self.files[stimulus], do=MEND)

    def told(self) -> dict[str, Any]:
        """Return what a card says of it."""
        return {
            "folder": str(self.folder),
            "pictures": len(self.files),
            "left out, named like a test picture": self.named,
            "left out, looking like a test picture": self.alike,
        }


def find_extra(folder: Path, study: Dataset, progress: Progress | None = None) -> Extra:
    """Return the pictures below a folder that no subject of the study has as a test stimulus."""
    folder = Path(folder).expanduser()
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in ENDINGS)
    if not files:
        raise UserError(
            f"--augment needs a folder of pictures ({', '.join(ENDINGS)}), and {folder} has none."
        )
    subjects = study.subjects()
    tested = dict.fromkeys(s for who in subjects for s in study.load(who).stimuli("test"))
    sources = study.stimuli["source"].reindex(list(tested)).fillna("").astype(str)
    names = {key for name in (*tested, *sources) for key in _names(name)}
    strangers = [file for file in files if not _names(file.name) & names]
    hashes = np.array([h for s in tested for h in looks(study.image(s))], np.uint64)
    kept: dict[str, Path] = {}
    for number, file in enumerate(strangers, start=1):
        if not seen(looks(read_picture(file, do=MEND)), hashes):
            kept[f"extra:{file.relative_to(folder).as_posix()}"] = file
        if progress:
            progress(count(str(folder), number, len(strangers), "pictures", "looked at"))
    extra = Extra(folder, kept, len(files) - len(strangers), len(strangers) - len(kept))
    if progress:
        progress(
            f"{len(kept)} of {len(files)} pictures in {folder} become training rows; left out: "
            f"{extra.named} that are named like one of the {len(tested)} test pictures of "
            f"{study.name}, {extra.alike} that look like one"
        )
    if not kept:
        raise UserError(
            f"All {len(files)} pictures in {folder} are test pictures of {study.name} "
            f"({extra.named} by name, {extra.alike} by looks); give other pictures to --augment."
        )
    return extra


def extend(
    trials: Trials,
    encoding: Encoding,
    features: Mapping[EmbeddingSpace, Mapping[str, np.ndarray]],
    stimuli: Sequence[str],
) -> Trials:
    """Return a subject's trials and, after them, one synthetic training row a picture.

    ``features``: space -> stimulus -> embedding, for all ``stimuli`` and the spaces that
    ``encoding`` reads. Betas are predicted when their rows are read.
    """
    import pandas as pd

    n, v = trials.betas.shape
    inputs = {
        space: np.stack([features[space][stimulus] for stimulus in stimuli])
        for space in encoding.spaces
    }

    def read(rows: np.ndarray) -> np.ndarray:
        measured, predicted = rows[rows < n], rows[rows >= n] - n
        parts = [np.empty((0, v), np.float32)]
        if len(measured):
            parts.append(np.asarray(trials.betas[measured], np.float32))
        if len(predicted):
            parts.append(encoding.predict({s: z[predicted] for s, z in inputs.items()}))
        return np.concatenate(parts)

    who = f"{trials.subject.dataset}/{trials.subject.name} with predicted rows"
    more = pd.DataFrame({"stimulus": list(stimuli), "split": "train", "synthetic": True})
    more = more.assign(repeat=0, session=-1, run=-1)
    table = pd.concat([trials.table.assign(synthetic=False), more], ignore_index=True)
    betas = LazyRows((n + len(stimuli), v), read, who)
    return replace(trials, betas=betas, table=table)


def encoding_for(trials: Trials, checkpoints: Path) -> Encoding:
    """Return the encoding model of a subject; a missing one is named with its command."""
    subject = trials.subject
    folder = Path(checkpoints) / "encoding" / subject.dataset / subject.name
    if not folder.is_dir():
        raise UserError(
            f"--augment predicts betas with the encoding model of {subject.name}, and {folder} "
            "has none; make it with python -m backends train-encoding --dataset "
            f"{subject.dataset}=PATH --subject {subject.name}"
        )
    return Encoding.load(folder, trials)


def _names(name: str) -> set[str]:
    """Return under what a picture may be known: a file's name, its stem, and a COCO number.

    NSD's pictures come from ``COCO train2017 391895``, a file ``000000391895.jpg`` or
    ``COCO_train2014_000000391895.jpg``.
    """
    coco = re.fullmatch(r"COCO \S+ (\d+)", name) or re.search(r"(?:^|_)(\d{12})\.\w+$", name)
    found = {name, Path(name).stem} - {""}
    return found | {f"COCO {int(coco[1])}"} if coco else found

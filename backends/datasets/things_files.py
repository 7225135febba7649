"""What the studies that showed THINGS' pictures share: the pictures, and ceilings in percent."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from explorer.files import short
from explorer.images import read_picture
from explorer.types import Label, Parcellation, UserError

# Where the pictures lie in what the authors give: osf.io/jum2f, and CNeuroMod's images_fmri.zip.
FOLDERS = ("THINGS-images", "object_images", "images_THINGS/object_images", "images_fmri")
ASK_FOR_PICTURES = (
    "THINGS' pictures come from osf.io/jum2f in a zip whose password is given with their terms of "
    "use, and belong in THINGS-images/<concept>/"
)

LARGEST_SD = 5  # of THINGS-fMRI's betas, of z-scored time series; they are some 0.1 as published


class Pictures:
    """THINGS' pictures below the first folder that is there; they may all be missing."""

    def __init__(self, name: str, given: str, places: Iterable[Path]) -> None:
        """Look in the folder that was ``given``, else beside the data in ``places``."""
        self.name, self.root = name, Path(given).expanduser() if given else None
        if self.root is not None and not self.root.is_dir():
            raise UserError(f"{name}: images={given} is no folder; check the path.")
        folders = [place / folder for place in places for folder in FOLDERS]
        if self.root is None:
            self.root = next((folder for folder in folders if folder.is_dir()), None)
        else:
            inner = [self.root / folder for folder in FOLDERS]
            self.root = next((folder for folder in inner if folder.is_dir()), self.root)

    def find(self, source: str) -> Path | None:
        """Return where ``concept/file.jpg`` lies; None where it does not."""
        if self.root is None:
            return None
        for place in (self.root / source, self.root / Path(source).name):
            if place.is_file():
                return place
        return None

    def read(self, stimulus: str, source: str) -> np.ndarray:
        """Return a picture, uint8 RGB (H, W, 3)."""
        file = self.find(source)
        if file is None:
            where = "THINGS-images beside the data" if self.root is None else str(self.root)
            raise UserError(
                f"{self.name}: the picture of {stimulus} ({source}) is not in {where}; "
                f"{ASK_FOR_PICTURES}, or name their folder with ?images=FOLDER."
            )
        return read_picture(file, f"The picture of {stimulus}")

    def absent(self, sources: Iterable[str]) -> list[str]:
        """Return the sentence about pictures that are not here, [] where all are."""
        sources = list(sources)
        lacking = sum(self.find(source) is None for source in sources)
        if not lacking:
            return []
        return [
            f"{lacking:,} of {len(sources):,} pictures are not here: {ASK_FOR_PICTURES}. Maps and "
            "betas work without."
        ]


def source_of(file: str, concept: str, where: str) -> str:
    """Return ``concept/file``, the path of a picture below THINGS-images; others are refused."""
    name = file.replace("\\", "/").rpartition("/")[2]
    stem, _, ending = name.rpartition(".")
    if ending.lower() not in ("jpg", "jpeg", "png") or stem.rpartition("_")[0] != concept:
        raise UserError(
            f"{where}: {short(repr(file))} is no picture of the concept {short(repr(concept))}; "
            "THINGS names them concept_01b.jpg. The table's columns do not belong together, take "
            "it as it was published."
        )
    return f"{concept}/{name}"


def ncsnr_of_percent(values: np.ndarray, repeats: int, source: str) -> np.ndarray:
    """Return ncsnr (V,) for noise ceilings in percent of variance, of a mean over ``repeats``.

    nc = 100 s^2 / (s^2 + 1 / n) with s the ncsnr (Allen et al. 2022, equation for n trials).
    Ceilings as a fraction are refused: 0.9 would pass as 0.9 percent.
    """
    values = np.asarray(values, dtype=np.float64)
    known = values[np.isfinite(values)]
    if known.size and (known.min() < 0 or known.max() >= 100):
        raise UserError(
            f"{source}: a noise ceiling in percent lies from 0 to below 100, found "
            f"{known.min():g} to {known.max():g}; take the file as it was published."
        )
    if known.size and 0 < known.max() <= 1:
        raise UserError(
            f"{source}: noise ceilings are in percent here, found at most {known.max():g}, which "
            "are fractions; multiply them by 100, or take the file as it was published."
        )
    part = np.nan_to_num(values) / 100
    return np.sqrt(part / (1 - part) / repeats).astype(np.float32)


def masks_atlas(name: str, masks: dict[Label, np.ndarray], digest: str) -> Parcellation:
    """Return masks bool (V,) as an atlas, without those that have no voxel here."""
    kept = {label: mask for label, mask in masks.items() if mask.any()}
    n = len(next(iter(masks.values()), ()))
    rows = np.stack(list(kept.values())) if kept else np.zeros((0, n), bool)
    return Parcellation(name, "masks", tuple(kept), rows, digest)

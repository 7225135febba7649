"""What others published for the test images of one subject: arrays by rows, rows by stimulus.

Published results are numbered, and three numberings are in use:

- ``ascending``: by stimulus id. MindEye2 walks over ``np.unique`` of the 73k ids
  (MedARC-AI/MindEyeV2 c184718, src/recon_inference.ipynb), so all its ``_all_*.pt`` are so.
- ``appearance``: by the first trial that showed the image. NeuralDiffuser takes ``pd.unique`` of
  the test trials (HaoyyLi/NeuralDiffuser 9286cad, src/score_c.py); Brain-Diffuser fills a dict
  while it goes through the trials (ozcelikfu/brain-diffuser 31d52c0, data/prepare_nsddata.py),
  those of 37 sessions only.
- a file: ids one a line, a ``.npy`` of numbers, or the shown images themselves as a ``.pt``
  (MindEye2's ``all_images.pt``), which are then found among the data set's images by their pixels.

A wrong order gives plausible pictures of other images, so it is never guessed from numbers.
"""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.protocols import Dataset
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

ORDERS = ("ascending", "appearance")
ARRAYS = (".pt", ".npy")
MINDEYE2 = re.compile(r"_all_(recons|enhancedrecons|blurryrecons|clipvoxels)\.pt")
THUMBNAIL = 16  # pixels a side: small enough that ways of resizing agree, 768 values to tell apart
# RMS over a thumbnail, of 1, up to which two images are the same one: our choice. On the embedded
# scenes four ways of resizing to 64-425 pixels differ by up to 0.018, two scenes by 0.09 and more.
SAME = 0.06
ENDS = 2**20  # bytes at both ends of a file that tell it from another


def is_array(path: Path) -> bool:
    """Return whether a path is a file of the kinds that `open_array` reads."""
    return path.is_file() and path.suffix.lower() in ARRAYS


def open_array(path: Path) -> Any:
    """Return a ``.npy`` or ``.pt`` array of numbers, mapped so that rows are read on demand.

    A numpy array or a torch tensor: both have ``shape`` and give rows by index, see `row`.
    Pickled objects are never loaded.
    """
    if path.suffix.lower() == ".npy":
        try:
            stored = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            if "pickle" in str(error).lower() or "object" in str(error).lower():
                raise _refused(path, "np.save of a plain float array") from error
            raise _damaged(path, error) from error
        except (OSError, EOFError) as error:
            raise _damaged(path, error) from error
        if stored.dtype.kind not in "fiub":
            raise UserError(f"{path} holds values of {stored.dtype}, expected numbers.")
        return stored
    import torch

    try:
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise _refused(path, "torch.save of a plain tensor") from error
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise _damaged(path, error) from error
    if not isinstance(stored, torch.Tensor):
        raise UserError(
            f"{path} holds a {type(stored).__name__}, expected one tensor with a row for each "
            "test image."
        )
    return stored


def row(stored: Any, index: int) -> np.ndarray:
    """Return one row of what `open_array` gave, in its own type (bfloat16 as float32)."""
    values = stored[index]
    if isinstance(values, np.ndarray):
        return np.array(values)
    return values.float().numpy() if values.is_floating_point() else values.numpy()


def _refused(path: Path, instead: str) -> UserError:
    return UserError(
        f"{path} holds pickled objects, which can run code when they are loaded and are refused; "
        f"save it again with {instead}."
    )


def _damaged(path: Path, error: Exception) -> UserError:
    reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    return UserError(
        f"{path} is damaged, cut short or of an old format ({reason}); copy it again."
    )


def fingerprint(path: Path) -> str:
    """Return a short hash that names published files: names, sizes, and both ends of each."""
    digest = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        size = file.stat().st_size
        inside = file.relative_to(path).as_posix() if path.is_dir() else ""
        digest.update(f"{inside}:{size};".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(ENDS))
            opened.seek(max(ENDS, size - ENDS))
            digest.update(opened.read(ENDS))
    return digest.hexdigest()[:16]


# ------------------------------------------------------------------------------ whose row is whose


def stimuli_in_order(
    path: Path,
    count: int | None,
    study: Dataset,
    subject: str,
    order: str = "",
    sessions: str = "",
) -> list[str]:
    """Return the stimulus of each numbered result, in their order.

    Parameters
    ----------
    path
        Where the results lie; their name stands for ``order`` where that is empty and they are
        MindEye2's.
    count
        How many results there are; None where only some of the numbers are there.
    study, subject
        Whose test trials they are of.
    order
        "ascending", "appearance" or the path of a file, see the module's docstring.
    sessions
        A number N: only images shown in the first N sessions have results (Brain-Diffuser: 37).
    """
    order = order or ("ascending" if MINDEYE2.search(path.name) else "")
    who = f"{study.name}/{subject}"
    table = _test_trials(study, subject, sessions)
    shown = list(dict.fromkeys(table["stimulus"]))
    if order in ORDERS:
        if count not in (None, len(shown)):
            raise UserError(
                f"{path} holds {count} results, {who} has {len(shown)} test images"
                f"{f' in its first {sessions} sessions' if sessions else ''}; choose the subject "
                "they are of, ?sessions=37 for results of NSD's first release (982 images), or "
                "?order=FILE that lists their ids."
            )
        return sorted(shown) if order == "ascending" else shown
    if not order:
        raise UserError(
            f"{path} holds numbered results; say which images they are of with ?order=ascending "
            "(by id: MindEye2), ?order=appearance (by first trial: NeuralDiffuser, "
            "Brain-Diffuser) or ?order=FILE (ids one a line, or all_images.pt)."
        )
    file = Path(order).expanduser()
    if not file.is_file():
        raise UserError(
            f"order is {' or '.join(ORDERS)} or the path of a file, found {order!r}, and there is "
            "no such file."
        )
    if file.suffix.lower() == ".pt":
        stimuli = _found_by_pixels(file, study, shown)
    else:
        stimuli = _listed(file, shown, who)
    if count not in (None, len(stimuli)):
        raise UserError(
            f"{path} holds {count} results, {file} names {len(stimuli)} images; they must be "
            "equal."
        )
    return stimuli


def _test_trials(study: Dataset, subject: str, sessions: str) -> pd.DataFrame:
    """Return the table of test trials, in the order of sessions, of the first few of them."""
    trials = study.load(subject)
    table = trials.table.iloc[trials.rows("test")].sort_values("session", kind="stable")
    if not sessions:
        return table
    if not sessions.isdecimal() or not int(sessions):
        raise UserError(f"sessions is a whole number from 1, found {sessions!r}.")
    return table[table["session"].isin(sorted(set(trials.table["session"]))[: int(sessions)])]


def _listed(file: Path, shown: Sequence[str], who: str) -> list[str]:
    """Return the stimuli that a file names by id or, of NSD, by 0-based 73k number."""
    if file.suffix.lower() == ".npy":
        numbers = open_array(file)
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
            raise UserError(
                f"{file} holds {numbers.dtype} {numbers.shape}, expected one whole number for "
                "each result."
            )
        names = [str(int(number)) for number in numbers]
    else:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{file} cannot be read as text ({error}).") from error
        names = [line.strip() for line in lines if line.strip()]
    known = set(shown)
    stimuli = [name if name in known else nsd_id(name) or name for name in names]
    twice = [s for s in stimuli if stimuli.count(s) > 1] if len(set(stimuli)) < len(names) else []
    if twice:
        raise UserError(f"{file} names {twice[0]} twice; each result is of another image.")
    if not known & set(stimuli):
        raise UserError(
            f"{file} names no test image of {who}: it begins with {names[0] if names else 'no id'}"
            f", the images of {who} with {shown[0]}."
        )
    return stimuli


def nsd_id(number: str) -> str:
    """Return the canonical id of a 0-based 73k number written as text, "" if it is none."""
    return f"nsd-{int(number):05d}" if number.isdecimal() and int(number) < 73_000 else ""


def _found_by_pixels(file: Path, study: Dataset, shown: Sequence[str]) -> list[str]:
    """Return which test image each picture of a tensor (N, 3, H, W) is, compared when small."""
    stored = open_array(file)
    if len(stored.shape) != 4 or stored.shape[1] != 3:
        raise UserError(
            f"{file} has shape {tuple(stored.shape)}, expected the shown images (N, 3, H, W)."
        )
    ours = np.stack([_thumbnail(study.image(stimulus)) for stimulus in shown])
    found: list[str] = []
    for index in range(len(stored)):
        theirs = _thumbnail(to_bytes(row(stored, index), f"{file}, image {index} (from 0)"))
        distance = np.sqrt(np.mean((ours - theirs) ** 2, axis=1))
        best = int(distance.argmin())
        if distance[best] > SAME:
            raise UserError(
                f"{file}: image {index} (from 0) is like none of the {len(shown)} test images of "
                f"{study.name} (the closest, {shown[best]}, differs by {distance[best]:.2f} of 1);"
                " choose the data set and subject that it is of."
            )
        if shown[best] in found:
            raise UserError(
                f"{file}: images {found.index(shown[best])} and {index} (from 0) are both like "
                f"{shown[best]}, so their order cannot be told; give the ids as a file."
            )
        found.append(shown[best])
    return found


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """Return float64 (768,) in [0, 1]: an image uint8 (H, W, 3) reduced by averaging."""
    from PIL import Image

    small = Image.fromarray(image).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return np.asarray(small, np.float64).reshape(-1) / 255


def to_bytes(values: np.ndarray, where: str) -> np.ndarray:
    """Return uint8 RGB (H, W, 3) for floats in [0, 1] or uint8, channels first or last."""
    if values.shape[0] == 3 and values.shape[-1] != 3:
        values = np.moveaxis(values, 0, -1)
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if values.dtype.kind != "f" or not np.isfinite(values).all():
        raise UserError(f"{where} holds values that are not finite numbers.")
    low, high = float(values.min()), float(values.max())
    if low < -1e-3 or high > 1 + 1e-3:  # rounding of an interpolation; MindEye2's are clamped
        raise UserError(
            f"{where} has values from {low:g} to {high:g}, expected 0 to 1; save it again so."
        )
    return np.ascontiguousarray((np.clip(values, 0, 1).astype(np.float32) * 255).round()).astype(
        np.uint8
    )

"""What others published for the test images of one subject: arrays by rows, rows by stimulus.

Published results are numbered, and these numberings are in use:

- ``natural`` or ``textual``: by stimulus id, ``img2`` before ``img10`` or after it; ``ascending``
  where both are one order, and refused where they are not. MindEye2 walks over ``np.unique`` of
  the 73k ids (MedARC-AI/MindEyeV2 c184718, src/recon_inference.ipynb), so all its ``_all_*.pt``
  are so.
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
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.files import LONGEST, plain_tensor, read_array, read_text, read_torch
from explorer.protocols import Dataset
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

ORDERS = ("ascending", "natural", "textual", "appearance")
ARRAYS = (".pt", ".npy")
MINDEYE2 = re.compile(r"_all_(recons|enhancedrecons|blurryrecons|clipvoxels)\.pt")
THUMBNAIL = 16  # pixels a side: small enough that ways of resizing agree, 768 values to tell apart
# RMS over a thumbnail, of 1, up to which two images are the same one: our choice. On the embedded
# scenes four ways of resizing to 64-425 pixels differ by up to 0.018, two scenes by 0.09 and more.
SAME = 0.06
ALIKE = 0.9  # correlation of two thumbnails of one image: our choice
AGAIN = "save it again with"
NSD_ID = re.compile(r"nsd-(\d{5})")
BESIDE = "all_images.pt"  # the shown images, as MindEye2 publishes them
COMPARED = 12  # of them that are compared with the data set's: our choice
ROUNDING = 1e-3  # of an interpolation, beyond 0 to 1; MindEye2's are clamped
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
        stored = read_array(path, instead=f"{AGAIN} np.save of a plain float array")
        if stored.dtype.kind == "V" and stored.dtype.itemsize == 2:
            raise UserError(
                f"{path} holds {stored.dtype}, as numpy writes bfloat16; save it as float32."
            )
        if stored.dtype.kind not in "fiub":
            raise UserError(f"{path} holds values of {stored.dtype}, expected numbers.")
        return stored
    import torch

    found = read_torch(path)
    if not isinstance(found, torch.Tensor):
        inside = ", ".join(map(str, found)) if isinstance(found, dict) else ""
        raise UserError(
            f"{path} holds a {type(found).__name__}, expected one tensor with a row for each "
            f"test image{f'; save one of {inside[:LONGEST]} by itself' if inside else ''}."
        )
    return plain_tensor(found, str(path))


def row(stored: Any, index: int) -> np.ndarray:
    """Return one row of what `open_array` gave, in its own type (bfloat16 as float32)."""
    values = stored[index]
    if isinstance(values, np.ndarray):
        return np.array(values)
    return values.float().numpy() if values.is_floating_point() else values.numpy()


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

    Results may be of further images than the subject's test images, see `strangers`. Where the
    shown images lie beside the results (``all_images.pt``), they are compared.

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
        One of `ORDERS` or the path of a file, see the module's docstring.
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
        stimuli = shown if order == "appearance" else _by_id(shown, order, who)
        _check_beside(path, stimuli, study, order)
        return stimuli
    if not order:
        raise UserError(
            f"{path} holds numbered results; say which images they are of with ?order=ascending "
            "(by id: MindEye2), ?order=appearance (by first trial: NeuralDiffuser, "
            "Brain-Diffuser) or ?order=FILE (ids one a line, or all_images.pt)."
        )
    file = Path(order).expanduser()
    if not file.is_file():
        raise UserError(
            f"order is {', '.join(ORDERS[1:-1])}, ascending or appearance or the path of a file, "
            f"found {order!r}, and there is no such file."
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
    if file.name != BESIDE:
        _check_beside(path, stimuli, study, str(file))
    return stimuli


def _by_id(shown: Sequence[str], order: str, who: str) -> list[str]:
    """Return test images by their ids; "ascending" is refused where it can mean two orders."""
    textual, natural = sorted(shown), sorted(shown, key=_naturally)
    if order == "ascending" and textual != natural:
        i = next(
            i for i, pair in enumerate(zip(textual, natural, strict=True)) if len({*pair}) > 1
        )
        raise UserError(
            f"order=ascending can mean two orders of the test images of {who}: result {i} (from 0)"
            f" is {natural[i]} if the numbers in their ids are counted, {textual[i]} if ids are "
            "sorted as texts (Python's sorted, numpy's unique); say which with ?order=natural or "
            "?order=textual."
        )
    return textual if order == "textual" else natural


def _naturally(name: str) -> tuple[list[tuple[str, int]], str]:
    """Return what sorts img2 before img10; of equal ones (img2, img02) the text decides."""
    return [(a, int(b or -1)) for a, b in re.findall(r"([^0-9]*)([0-9]*)", name)], name


def strangers(stimuli: Sequence[str], shown: Collection[str], who: str) -> list[str]:
    """Return what there is to say of results that are of no test image, one sentence at most."""
    lost = [stimulus for stimulus in stimuli if stimulus not in set(shown)]
    if not lost:
        return []
    return [
        f"{who} leaves out {len(lost)} of {len(stimuli)} results, which are of no test image "
        f"(first {lost[0]})."
    ]


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
        numbers = np.asarray(open_array(file))
        if numbers.ndim != 1 or numbers.dtype.kind not in "iuf" or (numbers % 1 != 0).any():
            raise UserError(
                f"{file} holds {numbers.dtype} {numbers.shape}, expected one whole number for "
                "each result."
            )
        names = [str(int(number)) for number in numbers]
    else:
        names = [line.strip() for line in read_text(file).splitlines() if line.strip()]
    stimuli = named_stimuli(names, shown, str(file), who)
    twice = [s for s in stimuli if stimuli.count(s) > 1] if len(set(stimuli)) < len(names) else []
    if twice:
        raise UserError(f"{file} names {twice[0]} twice; each result is of another image.")
    return stimuli


def named_stimuli(
    names: Sequence[str], shown: Collection[str], source: str, who: str
) -> list[str]:
    """Return the stimulus behind each name: an id, or NSD's number from 0 (`nsd_id`).

    Some names always fit by chance: with NSD's 1,000 test images among 73,000, about fourteen of
    a thousand. So names of which few fit are refused, and so are numbers that fit as well when
    they are taken to count from 1, as NSD's own 73KID and the names of its files do.

    Parameters
    ----------
    names
        Of results; a name that is no image's stays as it is.
    shown
        The test images.
    source, who
        What a message calls the names, and whose test images they are.
    """
    known = set(shown)
    stimuli = [name if name in known else nsd_id(name) or name for name in names]
    fit = len(known & set(stimuli))
    found, first = (f"it begins with {names[0]}" if names else "it is empty"), min(known)
    earlier = [_one_less(stimulus) for stimulus in stimuli]
    from_1 = len(known & set(earlier))
    if not fit and not from_1:
        raise UserError(
            f"{source} names no test image of {who}: {found}, the images of {who} with {first}."
        )
    told = f"{fit} of {len(names)} names in {source} are test images of {who}"
    if fit < len(set(stimuli)) and from_1 >= fit:
        raise UserError(
            f"{told}, and {from_1} are if one is subtracted: they count from 1, as NSD's 73KID "
            "does. Subtract 1, numbers count from 0 here."
        )
    if 2 * fit < min(len(set(names)), len(known)):
        raise UserError(
            f"{told}, which may be chance ({found}, the images of {who} with {first}): they are "
            "numbered otherwise, such as by COCO's ids, or are another subject's; give ids or "
            "NSD's numbers from 0."
        )
    return stimuli


def _one_less(stimulus: str) -> str:
    """Return the id of the image before one of NSD's, "" for none."""
    found = NSD_ID.fullmatch(stimulus)
    return nsd_id(str(int(found[1]) - 1)) if found else ""


def nsd_id(name: str) -> str:
    """Return the canonical id of NSD's image, "" if it is none.

    ``name``: a 73k number from 0, or what NSD calls its own files: ``shared0001_nsd02951``, the
    73KID, which counts from 1.
    """
    own = re.fullmatch(r"shared\d{4}_nsd(\d{5})", name)
    name = str(int(own[1]) - 1) if own else name
    plain = re.fullmatch(r"\d+", name, re.ASCII) and int(name) < 73_000
    return f"nsd-{int(name):05d}" if plain else ""


def _check_beside(path: Path, stimuli: Sequence[str], study: Dataset, order: str) -> None:
    """Refuse an order that the shown images, published beside the results, contradict."""
    file = path.parent / BESIDE
    if path.is_dir() or not file.is_file() or file == path:
        return
    truths = open_array(file)
    if len(truths.shape) != 4 or truths.shape[1] != 3 or len(truths) != len(stimuli):
        return
    some = np.unique(np.linspace(0, len(stimuli) - 1, COMPARED).astype(int)).tolist()
    pairs = {f"image {i} (from 0) of {file}": (stimuli[i], row(truths, i)) for i in some}
    check_truth(pairs, study, order)


def check_truth(
    pairs: Mapping[str, tuple[str, np.ndarray]],
    study: Dataset,
    order: str,
    stimuli: Sequence[str] = (),
) -> None:
    """Refuse an order by which a published copy of a shown image is not that image.

    Parameters
    ----------
    pairs
        Where a copy lies -> the stimulus it should be, and its pixels as `to_bytes` takes them.
    study
        Where it has no pictures, nothing is compared.
    order
        What a message calls the order.
    stimuli
        All stimuli in that order, so that a message can say how the copies lie against it.
    """
    for where, (stimulus, values) in pairs.items():
        try:
            ours = _thumbnail(study.image(stimulus))
        except UserError:
            return
        distance = float(np.sqrt(np.mean((ours - _thumbnail(to_bytes(values, where))) ** 2)))
        if distance > SAME:
            raise UserError(
                f"{where} shows another image than {stimulus}, which it is by the order {order} "
                f"(they differ by {distance:.2f} of 1){_misplaced(pairs, study, stimuli)}; choose "
                "the order, data set and subject that the results are of."
            )


def _misplaced(
    pairs: Mapping[str, tuple[str, np.ndarray]], study: Dataset, stimuli: Sequence[str]
) -> str:
    """Return how copies of shown images lie against an order, by the correlation of thumbnails."""
    if len(pairs) < 2 or len(stimuli) < 2:
        return ""
    places = {stimulus: i for i, stimulus in enumerate(stimuli)}
    ours = np.stack([_centred(study.image(stimulus)) for stimulus in stimuli])
    wanted, found = [], []
    for where, (stimulus, values) in pairs.items():
        alike = ours @ _centred(to_bytes(values, where))
        if alike.max() >= ALIKE:
            wanted.append(places[stimulus])
            found.append(int(alike.argmax()))
    if len(found) < 2:
        return f"; of {len(pairs)} copies {len(found)} show an image of this order at all"
    shift = {b - a for a, b in zip(wanted, found, strict=True)}
    if len(shift) == 1:
        by = shift.pop()
        return f"; all are shifted by {abs(by)}: each is the image {abs(by)} " + (
            "later" if by > 0 else "earlier"
        )
    if {a + b for a, b in zip(wanted, found, strict=True)} == {len(stimuli) - 1}:
        return "; the copies come in the reverse order"
    right = sum(a == b for a, b in zip(wanted, found, strict=True))
    return f"; the copies are shuffled: {right} of {len(found)} lie where this order has them"


def _centred(image: np.ndarray) -> np.ndarray:
    """Return a thumbnail of mean 0 and unit norm, so that products are correlations."""
    small = _thumbnail(image)
    small = small - small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-12)


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


def check_range(stored: Any, where: str) -> None:
    """Refuse pictures whose values say another range than `to_bytes` reads.

    Of pictures spread over all of them: one picture of many from -1 to 1 may well have no
    negative value, and would be shown too light.
    """
    some = np.unique(np.linspace(0, len(stored) - 1, COMPARED).astype(int))
    rows = [row(stored, int(i)) for i in some]
    low, high = (float(f([f(values) for values in rows])) for f in (np.min, np.max))
    kind = rows[0].dtype
    if kind == np.uint8 or np.isnan(low) or np.isinf([low, high]).any():
        return  # bytes are bytes; and what is not finite is told by the picture that holds it
    if kind.kind == "f" and (low < -ROUNDING or high > 1 + ROUNDING):
        raise UserError(
            f"{where} has values from {low:g} to {high:g}, expected 0 to 1; save it again so."
        )
    if kind.kind in "iub" and not (0 <= low and 1 < high <= 255):
        raise UserError(
            f"{where} has whole numbers ({kind}) from {low:g} to {high:g}, expected 0 to 255; "
            "save it again as uint8."
        )


def to_bytes(values: np.ndarray, where: str) -> np.ndarray:
    """Return uint8 RGB (H, W, 3) for floats in [0, 1] or whole numbers from 0 to 255.

    Channels come first or last.
    """
    if values.shape[0] == 3 and values.shape[-1] != 3:
        values = np.moveaxis(values, 0, -1)
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise UserError(f"{where} holds values that are not finite numbers.")
    low, high = float(values.min()), float(values.max())
    white, over = (1, ROUNDING) if values.dtype.kind == "f" else (255, 0)
    if low < -over or high > white + over:
        raise UserError(
            f"{where} has values from {low:g} to {high:g}, expected 0 to {white}; save it again "
            "so."
        )
    scaled = np.clip(values, 0, white).astype(np.float32) * (255 // white)
    return np.ascontiguousarray(scaled.round()).astype(np.uint8)

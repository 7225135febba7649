"""What GLMsingle wrote: single-trial betas, their axes, and where their voxels lie.

Its Python version (1.2) writes ``TYPEB_FITHRF``, ``TYPEC_FITHRF_GLMDENOISE`` and
``TYPED_FITHRF_GLMDENOISE_RR``, as ``.hdf5`` where ``wanthdf5`` is 1 (arrays by name), else as
``.npy``, which holds a pickled dict and is never read here. ``betasmd`` is (X, Y, Z, trials), or
(voxels, 1, 1, trials) where the data were (voxels, time); its unit is percent signal change unless
``wantpercentbold`` was 0, which the file does not tell. A plain ``.npy`` array of betas does too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends.datasets.reading import hdf5_array, hdf5_values, open_hdf5
from explorer import files
from explorer.brain import fslr
from explorer.files import guard
from explorer.types import FSAVERAGE5_VERTICES, UserError

TYPES = ("TYPED", "TYPEC", "TYPEB")  # the one with the most of its methods first
UNIT = "percent signal change"
HALF = FSAVERAGE5_VERTICES // 2
# Vertices of one hemisphere; the first 10,242 of fsaverage6 and fsaverage are fsaverage5's.
SURFACES = {"fsaverage5": HALF, "fsaverage6": 40_962, "fsaverage": 163_842, "fsLR": 32_492}
BLOCK = 2**24  # numbers that are read at once
PROBED = 2**16  # betas per block of which the spread is taken
# Betas of single trials in percent have an SD of a few; NSD's are stored times 300.
LEAST_SD, MOST_SD = 0.05, 50.0


def unpickle_by_hand(file: Path) -> str:
    """Return how a pickled result is saved otherwise, the end of a sentence."""
    out = f"{file.stem}_betasmd.npy"
    return (
        "let GLMsingle write HDF5 (its options wantfileoutputs=[0, 0, 0, 1] and wanthdf5=1), or, "
        "of a file that you made yourself, save the array alone in two lines: results = "
        f"np.load({file.name!r}, allow_pickle=True).item() and np.save({out!r}, "
        "results['betasmd'])"
    )


def find_results(given: Path, kind: str = "") -> list[Path]:
    """Return the files of betas at a path, one a folder: those with most of GLMsingle's methods.

    Parameters
    ----------
    given
        A file of betas, or a folder with results, also in folders of subjects and sessions.
    kind
        TYPEB, TYPEC or TYPED; "" is the best that every folder has.
    """
    if given.is_file():
        return [given]
    if not given.is_dir():
        raise UserError(f"{given} is missing; give GLMsingle's output folder, or a file of betas.")
    there: dict[Path, dict[str, list[Path]]] = {}
    for file in sorted(given.rglob("*")):
        name = file.name[:5].upper()
        if file.suffix in (".npy", ".hdf5", ".h5") and name in TYPES and file.is_file():
            there.setdefault(file.parent, {}).setdefault(name, []).append(file)
    if not there:
        raise UserError(
            f"{given} has no results of GLMsingle ({', '.join(f'{t}_*.hdf5' for t in TYPES)}); "
            "give its output folder, or a file of betas."
        )
    wanted = [kind] if kind else list(TYPES)
    shared = [t for t in wanted if all(t in found for found in there.values())]
    if not shared:
        raise UserError(
            f"{given}: {kind or 'none of ' + ', '.join(TYPES)} is in every one of the "
            f"{len(there)} folders with results; copy the files that lack."
        )
    return [_readable(found[shared[0]]) for found in there.values()]


def _readable(found: list[Path]) -> Path:
    """Return the file of one kind to read: not the pickle, where there is another."""
    plain = [file for file in found if not _is_pickle(file)]
    if len(plain) > 1:
        raise UserError(
            f"{plain[0].parent} has {' and '.join(f.name for f in plain)}, and nothing says which "
            "to read; give one of them."
        )
    return (plain or found)[0]


def _is_pickle(file: Path) -> bool:
    if file.suffix != ".npy":
        return False
    with guard(file), file.open("rb") as stream:
        first = stream.read(1)
        stream.seek(0)
        return first == b"\x80" or files.npy_header(stream)[2].hasobject


def open_betas(file: Path, key: str = "betasmd") -> Any:
    """Return a file's array of betas, of numbers, whose last axis is trials; read by parts."""
    if file.suffix == ".npy":
        array = files.read_array(file, instead=unpickle_by_hand(file))
        if array.dtype.kind not in "fiu":
            raise UserError(f"{file} holds {array.dtype}, expected numbers.")
    elif file.suffix in (".hdf5", ".h5"):
        array = hdf5_array(open_hdf5(file), key, kinds="fiu")
    else:
        raise UserError(
            f"{file} is no .hdf5 and no .npy file; of MATLAB's results save modelmd as one."
        )
    if array.ndim < 2 or not math.prod(array.shape):
        raise UserError(
            f"{file} holds an array of shape {array.shape}, expected (voxels, trials) or "
            "(X, Y, Z, trials)."
        )
    return array


@dataclass(frozen=True, eq=False)
class Grid:
    """Where voxels lie: a mask bool (X, Y, Z) with its affine, or a surface by its name.

    ``count``: V, how many voxels there are. ``space``: as fMRIPrep calls it, "" where unknown.
    """

    space: str
    count: int
    mask: np.ndarray | None = None
    affine: np.ndarray | None = None


def lengths(space: str, hemisphere: str = "") -> tuple[int, ...]:
    """Return how many vertices data on a surface may have, of a hemisphere or of both."""
    one = SURFACES[space]
    if hemisphere:
        return (one,)
    return (2 * one, fslr.CORTEX, fslr.GRAYORDINATES) if space == "fsLR" else (2 * one,)


def surface(space: str, count: int, hemisphere: str = "") -> np.ndarray:
    """Return int (count,): the vertex of fsaverage5 at each vertex of a surface, -1 nowhere.

    Parameters
    ----------
    space
        One of `SURFACES`.
    count
        How many vertices the data have: a hemisphere's or both's; of fsLR also 59,412 or 91,282.
    hemisphere
        "L" or "R" where the data are of one.
    """
    one, expected = SURFACES[space], lengths(space, hemisphere)
    if count not in expected:
        which = f"the {hemisphere} hemisphere" if hemisphere else "both hemispheres"
        raise UserError(
            f"{which} of {space} {'has' if hemisphere else 'have'} "
            f"{' or '.join(f'{n:,}' for n in expected)} vertices, and the betas have {count:,} "
            "voxels; name the surface that they lie on."
        )
    if space == "fsLR":
        both = fslr.fsaverage5_vertices(count if not hemisphere else 2 * one)
        return both[:one] if hemisphere == "L" else both[-count:]
    number = np.arange(one)
    sides = [np.where(number < HALF, number + HALF * side, -1) for side in (0, 1)]
    return sides["LR".index(hemisphere)] if hemisphere else np.concatenate(sides)


def own_fslr(count: int, hemisphere: str = "") -> np.ndarray:
    """Return int (count,): the vertex of fsLR-32k, left then right, -1 below the cortex.

    Parameters as `surface` takes them, which refuses other counts.
    """
    if not hemisphere:
        return fslr.vertices(count)
    return np.arange(count) + (count if hemisphere == "R" else 0)


def check_axes(shape: tuple[int, ...], grid: Grid, trials: int, source: str) -> None:
    """Refuse betas whose axes are not space, then trials, and name how they lie instead.

    The number of trials itself is left to whoever knows the runs.
    """
    places = [(grid.count,)]
    if grid.mask is not None:
        places += [grid.mask.shape, (grid.mask.size,)]
    if _fits(shape[:-1], places):
        return
    wanted = " or ".join(str((*place, trials)) for place in places)
    if _fits(shape[1:], places):
        raise UserError(
            f"{source} has the shape {shape}: trials come first, expected {wanted}; save it "
            "with trials last (np.moveaxis(betas, 0, -1))."
        )
    if _fits(shape[:0:-1], places):
        raise UserError(
            f"{source} has the shape {shape}: its axes are reversed, as MATLAB's files are "
            f"when they are read elsewhere, expected {wanted}; save it transposed (betas.T)."
        )
    raise UserError(
        f"{source} has the shape {shape}, which fits neither the {grid.count:,} voxels of the "
        f"mask or surface nor its grid; expected {wanted}. Give the mask that GLMsingle was run "
        "with."
    )


def _fits(lead: Any, places: list[tuple[int, ...]]) -> bool:
    """Return whether axes are one of some shapes, apart from axes of length one."""
    long = tuple(n for n in lead if n != 1)
    return any(long == tuple(n for n in place if n != 1) for place in places)


def blocks(array: Any, grid: Grid) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield (columns, betas (k, trials)) over all voxels of a grid, in C order, float32.

    Every number is read once, in the order in which it lies; shapes are as `check_axes` wants.
    """
    *lead, trials = array.shape
    inside = None
    if math.prod(lead) != grid.count:  # the whole grid, flat or not: C order either way
        inside = grid.mask.reshape(lead)
    axis = next((i for i, n in enumerate(lead) if n > 1), 0)
    each = max(1, BLOCK // (math.prod(lead) // lead[axis] * trials))
    begin = 0
    for start in range(0, lead[axis], each):
        index = (*[slice(None)] * axis, slice(start, start + each))
        if inside is None:
            values = _values(array, index).reshape(-1, trials)
        elif inside[index].any():
            values = _values(array, index)[inside[index]]
        else:
            continue
        yield slice(begin, begin + len(values)), np.asarray(values, dtype=np.float32)
        begin += len(values)


def _values(array: Any, index: tuple) -> np.ndarray:
    return np.asarray(array[index]) if isinstance(array, np.ndarray) else hdf5_values(array, index)


@dataclass(frozen=True, eq=False)
class Look:
    """What a whole reading found: which voxels can be used, and how large betas are.

    ``absent`` bool (V,): not finite in every trial. ``broken``: not finite in some trial.
    ``flat``: the same in every trial. ``sd``: the median SD of a voxel over its trials.
    ``scored``: nearly every voxel has mean 0 and SD 1.
    """

    absent: np.ndarray
    broken: np.ndarray
    flat: np.ndarray
    sd: float
    scored: bool

    @property
    def usable(self) -> np.ndarray:
        """Bool (V,): finite in every trial, and not always the same."""
        return ~(self.absent | self.broken | self.flat)


def look(array: Any, grid: Grid, progress: Any = None) -> Look:
    """Read all betas once and say what they are like; ``progress(done, total)`` in voxels."""
    absent, broken, flat = (np.zeros(grid.count, bool) for _ in range(3))
    sds, means = [], []
    for columns, values in blocks(array, grid):
        finite = np.isfinite(values)
        absent[columns] = ~finite.any(axis=1)
        broken[columns] = ~finite.all(axis=1) & ~absent[columns]
        sound = finite.all(axis=1)
        flat[columns] = sound & (values == values[:, :1]).all(axis=1)
        some = values[sound & ~flat[columns]]
        some = some[:: max(1, some.size // PROBED)].astype(np.float64)
        sds.append(some.std(axis=1))
        means.append(some.mean(axis=1))
        if progress:
            progress(columns.stop, grid.count)
    sd, mean = np.concatenate(sds), np.concatenate(means)
    scored = bool(len(sd)) and float(np.mean((abs(sd - 1) < 0.05) & (abs(mean) < 0.05))) > 0.95
    return Look(absent, broken, flat, float(np.median(sd)) if len(sd) else 0.0, scored)

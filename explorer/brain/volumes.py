"""A map of voxels in their own volume: slices, and a glass brain, by nilearn.

Slices are of any volume, a glass brain only of one in MNI space, whose outline it has.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.brain.display import COLOURS, hidden, label_colours
from explorer.brain.values import on_voxels
from explorer.request import GLASS, SLICES
from explorer.types import Parcellation, UserError, VoxelSpace

if TYPE_CHECKING:
    import nibabel as nib
    from matplotlib.figure import Figure

CUTS = 8  # slices of a volume, in two rows
AXES = dict(zip(SLICES, "zyx", strict=True))  # axial, coronal, sagittal
OWN = "the subject's own space (millimetres of the file's affine)"
TEMPLATE = "grey: nilearn's MNI152 template"
OUTLINE, SIZE = "#8a8a8a", 7
_DRAWING = threading.Lock()
Box = tuple[float, float, float, float]  # left, bottom, width and height, in parts of a figure


def in_mni(space: VoxelSpace) -> bool:
    """Return whether a volume's affine leads to MNI space, as far as the study says."""
    return space.space.startswith("MNI152")


def offered(space: VoxelSpace) -> tuple[str, ...]:
    """Return which pictures of a volume there are: none without one, glass in MNI space alone."""
    if space.mask is None:
        return ()
    return (*SLICES, GLASS) if in_mni(space) else SLICES


def cut_coordinates(space: VoxelSpace, axis: str) -> list[float]:
    """Return where slices across x, y or z lie, in mm, `CUTS` at most.

    They part the voxels of the mask into layers of as many each, so all maps of a subject have
    the same.
    """
    where = np.argwhere(space.mask)
    world = where @ space.affine[:3, :3].T + space.affine[:3, 3]
    along = world[:, "xyz".index(axis)]
    parts = (np.arange(CUTS) + 0.5) / CUTS
    return list(dict.fromkeys(float(mm) for mm in np.round(np.quantile(along, parts))))


def told(space: VoxelSpace, kind: str) -> str:
    """Return what a picture shows: which slices, in which space, over what."""
    where = space.space if space.space else OWN
    if kind == GLASS:
        return (
            f"Glass brain in {where}: for each line of sight the value that lies furthest from "
            "zero."
        )
    axis = AXES[kind]
    at = ", ".join(f"{mm:.0f}" for mm in cut_coordinates(space, axis)).replace("-", "\u2212")
    under = TEMPLATE if in_mni(space) else "outline: the voxels that were read"
    sides = " Negative x is left." if axis == "x" and in_mni(space) else ""
    return f"Slices at {axis} = {at} mm in {where}; {under}.{sides}"


def draw_volume(
    figure: Figure,
    box: Box,
    kind: str,
    parcel_map: Any,
    numbers: Mapping[str, Any],
    parcellation: Parcellation,
    space: VoxelSpace,
    threshold: float = 0.0,
    palettes: Mapping[str, Sequence[str]] = COLOURS,
) -> None:
    """Draw a map into a box of a figure as slices or as a glass brain.

    ``numbers``: what `explorer.brain.values.told_of` says of the map. Raises `UserError` where
    ``kind`` does not fit the volume.
    """
    from matplotlib.colors import LinearSegmentedColormap, ListedColormap
    from nilearn.plotting import plot_stat_map

    check_kind(kind, space, numbers["kind"] == "labels")
    values = on_voxels(parcel_map, numbers, parcellation)
    low, high = numbers["limits"]
    high = high if high > low else low + 1
    if numbers["kind"] == "labels":
        values, (low, high) = values + 1, (0.5, len(parcellation.labels) + 0.5)
        colours = ListedColormap(label_colours(parcellation))
    else:
        colours = LinearSegmentedColormap.from_list("chosen", palettes[numbers["kind"]])
        values = np.where(hidden(values, threshold), np.nan, values)
    nothing = 1e-4 * max(abs(low), abs(high))  # nilearn takes 0 for nothing, and so NaN
    values = np.where(np.abs(values) < 2 * nothing, 2 * nothing, values)
    chosen = {"cmap": colours, "vmin": low, "vmax": high, "threshold": nothing}
    chosen |= {"colorbar": False, "symmetric_cbar": False, "figure": figure}
    chosen |= {"resampling_interpolation": "nearest", "black_bg": False, "annotate": False}
    values = np.nan_to_num(values)
    if kind == GLASS:
        _glass(box, values, space, {"plot_abs": False, "alpha": 0.9, **chosen})
        return
    image = _image(values, space)
    cuts = cut_coordinates(space, AXES[kind])
    mask = _image(np.ones(space.n_voxels), space)
    under = {} if in_mni(space) else {"bg_img": mask}  # which also says how far a slice reaches
    left, bottom, width, height = box
    half = -(-len(cuts) // 2)
    for row, some in enumerate((cuts[:half], cuts[half:]) if len(cuts) > 1 else (cuts,)):
        axes = (left, bottom + (1 - row) * height / 2, width, height / 2)
        display = plot_stat_map(
            image,
            axes=axes,
            display_mode=AXES[kind],
            cut_coords=some,
            draw_cross=False,
            **under,
            **chosen,
        )
        if not in_mni(space):
            display.add_contours(mask, levels=[0.5], colors=[OUTLINE], linewidths=0.6)
        display.annotate(size=SIZE)


def _glass(box: Box, values: np.ndarray, space: VoxelSpace, chosen: Mapping[str, Any]) -> None:
    """Draw the left and the right hemisphere from their sides, then both from behind and above.

    Each side gets its own voxels alone, on a grid twice as fine across the midline: nilearn parts
    hemispheres at a whole voxel and would show the last column of the left as right.
    """
    from nilearn.plotting import plot_glass_brain

    left, bottom, width, height = box
    x = (np.argwhere(space.mask) @ space.affine[:3, :3].T + space.affine[:3, 3])[:, 0]
    for mode, inside, begin, end in (
        ("l", x <= 0, 0, 0.29),
        ("r", x >= 0, 0.29, 0.58),
        ("yz", np.isfinite(x), 0.58, 1),
    ):
        image = _image(np.where(inside, values, 0), space)
        place = (left + begin * width, bottom, (end - begin) * width, height)
        drawn = plot_glass_brain(
            _finer(image) if mode != "yz" else image, axes=place, display_mode=mode, **chosen
        )
        drawn.annotate(size=SIZE)


def _finer(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """Return an image with each voxel twice along the axis that runs from left to right."""
    import nibabel as nib

    axis = int(np.abs(image.affine[0, :3]).argmax())
    affine = image.affine.copy()
    affine[:3, axis] /= 2
    affine[:3, 3] -= affine[:3, axis] / 2
    return nib.Nifti1Image(np.repeat(np.asarray(image.dataobj), 2, axis=axis), affine)


def picture(
    kind: str,
    parcel_map: Any,
    numbers: Mapping[str, Any],
    parcellation: Parcellation,
    space: VoxelSpace,
    threshold: float,
    palettes: Mapping[str, Sequence[str]],
) -> bytes:
    """Return `draw_volume` as a PNG with a white ground."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 2.0 if kind == GLASS else 2.95), dpi=200, facecolor="white")
    # nilearn asks matplotlib for figures that all threads share, and warns of an empty map
    with _DRAWING, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "empty mask", UserWarning)
        box = (0.01, 0.01, 0.98, 0.98)
        draw_volume(
            *(figure, box, kind, parcel_map, numbers, parcellation, space, threshold, palettes)
        )
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", metadata={"Software": None})
    return drawn.getvalue()


def check_kind(kind: str, space: VoxelSpace, labels: bool) -> None:
    """Refuse a picture that a volume, or a map of labels, does not have."""
    if space.mask is None:
        raise UserError("These voxels are of no volume, so there are no slices; choose a surface.")
    if kind not in offered(space):
        where = space.space or OWN
        raise UserError(
            f"A glass brain is drawn in MNI space, and these voxels lie in {where}; choose "
            f"{', '.join(offered(space))} slices."
        )
    if kind == GLASS and labels:
        raise UserError("A glass brain shows values, and parcels have none; choose slices.")


def _image(values: np.ndarray, space: VoxelSpace) -> nib.Nifti1Image:
    import nibabel as nib

    volume = np.zeros(space.mask.shape, dtype=np.float32)
    volume[space.mask] = values
    return nib.Nifti1Image(volume, space.affine)

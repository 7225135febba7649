"""A map as a file that other programs read: GIFTI by hemisphere, CIFTI-2, or a NIfTI volume.

GIFTI 1.0 (www.nitrc.org/projects/gifti), where Connectome Workbench takes the hemisphere from the
key ``AnatomicalStructurePrimary``; CIFTI-2 (www.nitrc.org/projects/cifti), whose dense scalars
have the NIfTI intent 3006, which nibabel leaves for its user to set; NIfTI-1.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from explorer.brain import fslr
from explorer.brain.surfaces import HALF
from explorer.types import FSAVERAGE5_VERTICES, UserError, VoxelSpace

STRUCTURES = {"L": "CortexLeft", "R": "CortexRight"}
GIFTI = {"L": "left.func.gii", "R": "right.func.gii"}
CIFTI, NIFTI = "dscalar.nii", "nii.gz"
FORMS = (*GIFTI.values(), CIFTI, NIFTI)
FSAVERAGE5, FSLR = "fsaverage5", "fsLR"
SCANNER, MNI152 = 2, 4  # NIfTI codes of what the affine leads to


@dataclass(frozen=True, eq=False)
class MapValues:
    """A map's values, by voxel float (V,) and by vertex of fsaverage5 (20,484,) or None.

    NaN is no value. ``told``: what a reader of the file must know, by key: ``Units`` among them.
    """

    name: str
    voxels: np.ndarray
    vertices: np.ndarray | None
    told: Mapping[str, str]


def forms(space: VoxelSpace, on_surface: bool) -> tuple[str, ...]:
    """Return the forms that fit a subject's voxels; ``on_surface``: the map can be drawn there."""
    surface = FORMS[:3] if on_surface else ()
    return (*surface, *((NIFTI,) if space.mask is not None else ()))


def mesh_of(space: VoxelSpace, form: str) -> str:
    """Return the space and density of a file, as its name tells: "" where it has none."""
    if form == NIFTI:
        return space.space
    return FSLR if form == CIFTI and space.fslr is not None else FSAVERAGE5


def check_form(form: str, space: VoxelSpace, on_surface: bool) -> None:
    """Refuse a form that is none, or in which the voxels have no place."""
    if form not in FORMS:
        raise UserError(f"A map is saved as {', '.join(FORMS)}, found {form!r}.")
    fitting = forms(space, on_surface)
    if form not in fitting:
        instead = f"save {' or '.join(fitting)}" if fitting else "save the table as CSV"
        lacks = "no volume" if form == NIFTI else "no places on a surface"
        raise UserError(
            f"A .{form.removeprefix('left.').removeprefix('right.')} file does not fit these "
            f"data: the study gives {lacks} for its {space.n_voxels:,} voxels; {instead}."
        )


def map_file(values: MapValues, space: VoxelSpace, form: str) -> bytes:
    """Return a map as one of `FORMS`, float32, unthresholded; the same map gives the same bytes.

    A form that `check_form` refuses raises `UserError`, and so does a map without any value.
    """
    check_form(form, space, values.vertices is not None)
    if not np.isfinite(values.voxels).any():
        raise UserError(f"The map {values.name} has no value at any voxel: nothing to save.")
    if form == NIFTI:
        return _nifti(values, space)
    return _cifti(values, space) if form == CIFTI else _gifti(values, form[0].upper())


def _gifti(values: MapValues, side: str) -> bytes:
    from nibabel import gifti

    half = values.vertices[:HALF] if side == "L" else values.vertices[HALF:]
    told = {"AnatomicalStructurePrimary": STRUCTURES[side], **values.told}
    array = gifti.GiftiDataArray(
        half.astype(np.float32), meta=gifti.GiftiMetaData({"Name": values.name})
    )
    return gifti.GiftiImage(darrays=[array], meta=gifti.GiftiMetaData(told)).to_bytes()


def _cifti(values: MapValues, space: VoxelSpace) -> bytes:
    """Return all vertices of both hemispheres, of fsLR without the medial wall, as HCP's files."""
    import nibabel as nib

    if space.fslr is None:
        inside, shown = np.ones(FSAVERAGE5_VERTICES, dtype=bool), values.vertices
    else:
        inside = fslr.cortex()
        shown = np.full(fslr.VERTICES, np.nan)
        known = space.fslr >= 0
        shown[space.fslr[known]] = values.voxels[known]
    models = [
        nib.cifti2.BrainModelAxis.from_mask(half, name=f"CIFTI_STRUCTURE_CORTEX_{side}")
        for half, side in zip(np.split(inside, 2), ("LEFT", "RIGHT"), strict=True)
    ]
    rows = nib.cifti2.ScalarAxis([values.name], meta=[dict(values.told)])
    data = shown[inside].astype(np.float32)[None]
    image = nib.Cifti2Image(data, (rows, models[0] + models[1]))
    image.nifti_header.set_intent("ConnDenseScalar")
    return image.to_bytes()


def _nifti(values: MapValues, space: VoxelSpace) -> bytes:
    """Return a volume, 0 outside the mask and NaN inside it where nothing is known."""
    import nibabel as nib

    volume = np.zeros(space.mask.shape, dtype=np.float32)
    volume[space.mask] = values.voxels
    image = nib.Nifti1Image(volume, space.affine)
    code = MNI152 if space.space.startswith("MNI152") else SCANNER
    image.set_sform(space.affine, code)
    image.set_qform(space.affine, code)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = f"{values.name}; {values.told.get('Units', '')}".encode()[:79]
    told = json.dumps({"Name": values.name, **values.told}, ensure_ascii=False)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", told.encode("utf-8")))
    return gzip.compress(image.to_bytes(), mtime=0)

"""The map of a view as a file: what its values are, and what the file is called."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from explorer.brain import map_files
from explorer.brain.display import TITLES
from explorer.brain.map_files import MapValues
from explorer.brain.maps import CEILING, NCSNR, parcellation_of, shown_map
from explorer.brain.parcels import VoxelMap, voxel_map
from explorer.brain.predicted import ACCURACY, MEASURED, PREDICTED
from explorer.brain.values import on_vertices, on_voxels, told_of
from explorer.page import links
from explorer.request import IMPORTANCE, PARCELS, Request, View
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.types import Parcellation, VoxelSpace
    from explorer.workbench import Workbench

EACH = "voxels."  # before a form: the importance of each voxel instead of that of its parcel
FORMS = (*map_files.FORMS, *(EACH + form for form in map_files.FORMS))
MIMES = {"gii": "application/xml", "nii": "application/octet-stream", "gz": "application/gzip"}
LABELS = {
    "left.func.gii": "GIFTI, left",
    "right.func.gii": "GIFTI, right",
    "dscalar.nii": "CIFTI",
    "nii.gz": "NIfTI",
}
UNITS = {
    **{"enrichment": "ratio", "share": "fraction"},
    **{CEILING: "% of variance", NCSNR: "ratio of signal SD to noise SD", ACCURACY: "correlation"},
    **dict.fromkeys((MEASURED, PREDICTED), "SD of the training trials"),
}
OWN_UNIT = "as in the data set"
PER_VOXEL = "units of the target per unit of response"
FOR_DECODER = "Importance is for this decoder, not for the brain."
SMALL = "Parcels with fewer than 10 voxels are left out."


def offered(voxels: VoxelSpace, parcellation: Parcellation) -> list[list[str]]:
    """Return the forms that fit a subject's voxels, each with what people call it."""
    return [
        [form, LABELS[form]] for form in map_files.forms(voxels, _placed(voxels, parcellation))
    ]


def _placed(voxels: VoxelSpace, parcellation: Parcellation) -> bool:
    return voxels.projection is not None or parcellation.surface is not None


def make(workbench: Workbench, request: Request, view: View, form: str) -> tuple[str, str, bytes]:
    """Return name, kind and content of the map that is shown, as one of `FORMS`.

    All values are in it, whatever the threshold; no vertex is filled in between voxels.
    """
    voxels = workbench.catalogue.trials(request.dataset, request.subject).subject.voxels
    parcellation = parcellation_of(workbench, request.dataset, request.subject, view.atlas)
    each, plain = form.startswith(EACH), form.removeprefix(EACH)
    map_files.check_form(plain, voxels, _placed(voxels, parcellation))
    if view.shows == PARCELS:
        raise UserError(
            "The parcels are labels and no map of values; show importance or another map to save."
        )
    values = _values(workbench, request, view, each, parcellation, voxels)
    content = map_files.map_file(values, voxels, plain)
    parts = ["afterimage", request.dataset, request.subject, request.stimulus]
    parts += [request.mapper] if view.shows == IMPORTANCE else []
    name = "_".join(re.sub("[^A-Za-z0-9.-]+", "-", part) for part in (*parts, values.name))
    if where := re.sub("[^A-Za-z0-9]", "", map_files.mesh_of(voxels, plain)):
        name += f"_space-{where}"
    for side, one in map_files.GIFTI.items():
        if plain == one:
            name, plain = f"{name}_hemi-{side}", "func.gii"
    return f"{name}.{plain}", MIMES[plain.rpartition(".")[2]], content


def _values(
    workbench: Workbench,
    request: Request,
    view: View,
    each: bool,
    parcellation: Parcellation,
    voxels: VoxelSpace,
) -> MapValues:
    """Return the values of a map, or of each voxel's own importance, and what they are."""
    shown = shown_map(workbench, request, view)
    told = {"Subject": request.subject, "Dataset": request.dataset}
    if isinstance(shown, VoxelMap):
        name, title, unit, said = (
            shown.name,
            shown.title,
            UNITS.get(shown.name, OWN_UNIT),
            shown.sentence,
        )
        told |= {"Trial": request.stimulus}
    else:
        name, title, said = view.measure, TITLES[view.measure], f"{FOR_DECODER} {SMALL}"
        unit = UNITS.get(view.measure, PER_VOXEL)
        told |= {"Trial": request.stimulus, "Mapper": request.mapper, "Atlas": shown.atlas}
        told |= {"Method": shown.method, "Target": shown.target}
        if each:
            name, title, unit = "voxel-importance", "importance of each voxel", PER_VOXEL
            said = FOR_DECODER
            del told["Atlas"]
            shown = voxel_map(name, title, shown.voxels, parcellation)
    numbers = told_of(shown, view.measure)
    if not isinstance(shown, VoxelMap):  # as they are computed, not as a page writes them
        numbers["values"] = shown.table[view.measure].to_numpy(float)[:-1]
    vertices = None
    if _placed(voxels, parcellation):
        vertices = on_vertices(shown, numbers, parcellation, voxels, spread=0)
    study = workbench.catalogue.dataset(request.dataset)
    told |= {"Title": title, "Units": unit, "Description": said, "Licence": study.licence}
    told |= {"Data": "simulated"} if study.simulated else {}
    told |= {"Link": links.query(request, view)}
    return MapValues(name, on_voxels(shown, numbers, parcellation), vertices, told)

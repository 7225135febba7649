"""The named endpoint that gives a map as a file: GIFTI, CIFTI or NIfTI."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from explorer.page import links, map_export
from explorer.page.api import Pictures, Shown
from explorer.page.endpoint import Link, Said, add, endpoint
from explorer.page.turns import Turns
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.workbench import Workbench


def register(workbench: Workbench, model: dict[str, Any], turns: Turns) -> None:
    """Add the endpoint below to the page being built, as `api.register` does."""
    add("map_file", MapFiles(workbench, turns).map_file, model)


class MapFile(TypedDict):
    """A map as a file."""

    link: Link
    name: Annotated[
        str,
        Said(
            "A name for the file.",
            "afterimage_simulated_subj01_test-0001_ridge_enrichment_space-fsaverage5_hemi-L"
            ".func.gii",
        ),
    ]
    file: Annotated[
        str,
        Said("The file as a data address.", "data:application/xml;base64,PD94bWwgdmVyc2lvbj0="),
    ]


class MapFiles(Pictures):
    """The endpoint of maps as files."""

    @endpoint
    def map_file(
        self,
        link: Shown,
        form: Annotated[
            str,
            Said(
                "Its format: `left.func.gii`, `right.func.gii` or `dscalar.nii` for places on a "
                "surface, `nii.gz` for voxels of a volume. With `voxels.` before it, the "
                "importance of each voxel instead of that of its parcel.",
                "left.func.gii",
            ),
        ] = "dscalar.nii",
    ) -> MapFile:
        """Return the map that a link shows as a file, all its values, whatever the threshold."""
        if form not in map_export.FORMS:
            raise UserError(
                f"A map is saved as {', '.join(map_export.FORMS)}, found {links.short(form)}."
            )
        address, file = self._file(link, form, drawn=False)
        data = base64.b64encode(file.content).decode("ascii")
        return {"link": address, "name": file.name, "file": f"data:{file.mime};base64,{data}"}

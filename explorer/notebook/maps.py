"""A map of one subject: a table of parcels, an array of voxels, a nilearn surface and a volume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.brain.display import COLOURS, label_colours, vertex_values
from explorer.brain.parcels import UNASSIGNED, VoxelMap, voxel_map
from explorer.brain.snapshot import snapshot, vertex_colours
from explorer.brain.surfaces import HALF, SIDES, drawn_parcels, surface_mesh
from explorer.notebook import markup
from explorer.types import Parcellation, UserError, VoxelSpace

if TYPE_CHECKING:
    import nibabel as nib
    import pandas as pd
    from nilearn.surface import SurfaceImage

VOXELS = "voxels"


@dataclass(frozen=True, eq=False)
class BrainMap:
    """One number a parcel (or several), and a voxel, of one subject.

    Attributes
    ----------
    title : str
        What the map is of, with its unit.
    table : pandas.DataFrame
        One row a parcel in the atlas's order, then ``(unassigned)``; ``parcel`` (for example
        ``fusiform L``), ``name``, ``hemisphere`` ("L", "R" or ""), ``voxels`` (how many) and the
        columns that can be drawn. NaN where nothing is known.
    column : str
        Which column is drawn when none is named.
    columns : dict
        Column -> colour limits (low, high) of what can be drawn; the same for all trials.
    voxels : numpy.ndarray or None
        float (V,), in the order of the columns of `Study.betas`; None for a map of parcels alone.
    atlas : str
        Whose parcels these are.
    notes : tuple of str
        What must be known to read it, a sentence each.
    facts : dict
        Further figures that belong to the map, by name.
    """

    title: str
    table: pd.DataFrame
    column: str
    columns: Mapping[str, tuple[float, float]]
    voxels: np.ndarray | None
    parcellation: Parcellation = field(repr=False)
    space: VoxelSpace = field(repr=False)
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    of_voxels: bool = False  # whether the voxels' own values are drawn, not the parcels'

    @property
    def atlas(self) -> str:
        """The name of the atlas."""
        return self.parcellation.name

    @property
    def top(self) -> pd.DataFrame:
        """The parcels by the size of `column`, largest first, without those of too few voxels."""
        rows = self.table[self.table["parcel"] != UNASSIGNED]
        if "small" in rows:
            rows = rows[~rows["small"].astype(bool)]
        if self.column not in rows:
            return rows.reset_index(drop=True)
        rows = rows[rows[self.column].notna()]
        return rows.sort_values(self.column, key=abs, ascending=False).reset_index(drop=True)

    def vertices(self, column: str = "") -> np.ndarray:
        """Return float32 (20,484,) on fsaverage5, left then right; NaN where nothing is known.

        Parameters
        ----------
        column
            One of `columns`, "voxels" for the voxels' own values, "" for what is drawn first.
            Parcels with fewer than 10 voxels are kept: see the table's ``small``.
        """
        self._require_surface()
        if column == VOXELS or (not column and self.of_voxels and self.voxels is not None):
            if self.voxels is None:
                raise UserError(f"The map {self.title!r} is of parcels, not of voxels.")
            own = self.voxels.astype(np.float64)
            shown = voxel_map(self.title, self.title, own, self.parcellation)
            return vertex_values(shown, self.parcellation, self.space)
        name = column or self.column
        drawn = drawn_parcels(self.parcellation, self.space.projection)
        if not name:  # the parcels themselves
            return np.where(drawn < 0, np.nan, drawn).astype(np.float32)
        if name not in self.columns:
            voxels = [VOXELS] if self.voxels is not None else []
            raise UserError(
                f"The map has no column {name!r} to draw; choose one of "
                f"{', '.join([*self.columns, *voxels])}."
            )
        values = self.table[name].to_numpy(dtype=float)[:-1]
        return np.append(values, np.nan)[drawn].astype(np.float32)

    def surface(self, column: str = "", mesh: str = "pial") -> SurfaceImage:
        """Return a `nilearn.surface.SurfaceImage` on fsaverage5 (10,242 vertices a hemisphere).

        Parameters
        ----------
        column
            As for `vertices`; vertices without a value are NaN, which nilearn draws as background.
        mesh
            "pial", "inflated" or "flat".
        """
        from nilearn.surface import InMemoryMesh, PolyMesh, SurfaceImage

        values = self.vertices(column)
        halves = surface_mesh(mesh)
        parts = {
            side: InMemoryMesh(halves[side]["vertices"], halves[side]["faces"]) for side in SIDES
        }
        data = {"left": values[:HALF], "right": values[HALF:]}
        return SurfaceImage(PolyMesh(**parts), data)

    def volume(self, column: str = "") -> nib.Nifti1Image:
        """Return the map as a volume, float32 (X, Y, Z) in the study's own grid; NaN outside.

        Only where the voxels come from a volume; ``column``: as for `vertices`, where a column of
        the table gives every voxel its parcel's value (the last where parcels overlap).
        """
        import nibabel as nib

        mask, affine = self.space.mask, self.space.affine
        if mask is None or affine is None:
            raise UserError(
                "This study gives its voxels no place in a volume; use surface(), or the table."
            )
        name = column or ("" if self.of_voxels else self.column)
        if self.voxels is not None and name in ("", VOXELS):
            values = np.asarray(self.voxels, dtype=np.float32)
        elif name in self.columns:
            values = np.full(self.space.n_voxels, np.nan, dtype=np.float32)
            numbers = self.table[name].to_numpy(dtype=float)
            for inside, value in zip(self.parcellation.masks(), numbers, strict=True):
                values[inside] = value
        else:
            raise UserError(
                f"The map has no column {name!r}; choose one of {', '.join(self.columns)}."
            )
        grid = np.full(mask.shape, np.nan, dtype=np.float32)
        grid[np.asarray(mask, dtype=bool)] = values
        return nib.Nifti1Image(grid, affine)

    def picture(self, column: str = "") -> np.ndarray:
        """Return the surface from three sides, uint8 (H, W, 3)."""
        values = self.vertices(column)
        if not self.column:
            colours = vertex_colours(values, "labels", (), label_colours(self.parcellation))
        else:
            limits = self._limits(column)
            colours = vertex_colours(values, _kind(limits), limits)
        return snapshot(colours)

    def _limits(self, column: str = "") -> tuple[float, float]:
        return self.columns.get(column or self.column, next(iter(self.columns.values()), (0, 1)))

    def _require_surface(self) -> None:
        if self.space.projection is None and self.parcellation.surface is None:
            raise UserError(
                "This study gives no voxel locations, so there is no surface; use the table, or "
                "open the study with an atlas that has parcels of the same names."
            )

    def __repr__(self) -> str:
        """Name what is mapped and over which parcels."""
        columns = ", ".join(self.columns)
        return f"BrainMap({self.title!r}, {self.atlas}; columns {columns}; see .table, .voxels)"

    def _repr_html_(self) -> str:
        """Show the brain, its colours and the first parcels."""
        parts = [markup.heading(self.title, f"{self.atlas}, {self.space.n_voxels:,} voxels")]
        located = self.space.projection is not None or self.parcellation.surface is not None
        if located and (self.parcellation.labels or self.of_voxels):
            src = markup.picture(self.picture())
            parts.append(
                f'<img src="{src}" alt="{markup.text(self.title)} on the cortical surface" '
                'style="max-width:100%;background:#fff;border-radius:4px;padding:6px 0">'
            )
            if self.column:
                limits = self._limits()
                parts.append(markup.colour_bar(COLOURS[_kind(limits)], *limits, self.title))
        parts += [markup.note(sentence) for sentence in self.notes]
        names = [n for n in ("parcel", "voxels", *self.columns) if n in self.table]
        parts.append(markup.table(self.top[names], 6))
        return markup.box(parts)


def _kind(limits: tuple[float, float]) -> str:
    return "diverging" if limits[0] < 0 < limits[1] else "sequential"


def of_shown(shown: Any, measure: str, parcellation: Parcellation, space: VoxelSpace) -> BrainMap:
    """Return a map from what `explorer.brain.maps.shown_map` gave.

    ``measure``: which column of importance is drawn first.
    """
    from explorer.brain.display import TITLES

    if isinstance(shown, VoxelMap):
        known = shown.values is not None
        notes = (shown.sentence,) if shown.sentence else ()
        return BrainMap(
            *(shown.title, shown.table, "mean" if known else ""),
            {"mean": shown.limits} if known else {},
            *(shown.values, parcellation, space, notes),
            of_voxels=known,
        )
    notes = ("The gradient is zero for every voxel: nothing to map.",) if shown.flat else ()
    facts = {"method": shown.method, "target": shown.target}
    if shown.completeness is not None:
        facts["completeness"] = shown.completeness
    title = f"{TITLES[measure]}, by {shown.method} of the {shown.target}"
    columns = {measure: shown.limits[measure]} | dict(shown.limits)
    return BrainMap(
        title, shown.table, measure, columns, shown.voxels, parcellation, space, notes, facts
    )

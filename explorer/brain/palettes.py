"""Colour maps that colour-blind readers can read, as stops between which a browser interpolates.

YlOrRd, RdBu (its red is high) and PuOr (its orange is high): ColorBrewer, colorbrewer2.org,
Apache 2.0. viridis: matplotlib, CC0. cividis: Nunez, Anderton and Renslow 2018, PLOS ONE
13:e0199239, as matplotlib has it. vik: Crameri 2018, doi:10.5281/zenodo.1243862, version 8, MIT.
Of those with 256 colours every sixteenth is here; what lies between is off by 11 of 255 at most.
"""

from __future__ import annotations

from collections.abc import Sequence

from explorer.request import View

SEQUENTIAL = {
    "YlOrRd": (
        *("#ffffcc", "#ffeda0", "#fed976", "#feb24c", "#fd8d3c"),
        *("#fc4e2a", "#e31a1c", "#bd0026", "#800026"),
    ),
    "viridis": (
        *("#440154", "#48186a", "#472d7b", "#424086", "#3b528b", "#33638d"),
        *("#2c728e", "#26828e", "#21918c", "#1f9f88", "#27ad81", "#3dbc74"),
        *("#5cc863", "#81d34d", "#aadc32", "#d5e21a", "#fde725"),
    ),
    "cividis": (
        *("#00224e", "#002e6a", "#1a386f", "#32436d", "#434e6c", "#535a6d"),
        *("#61656f", "#6f7073", "#7d7c78", "#8b8778", "#9a9376", "#aaa073"),
        *("#bbad6d", "#ccba64", "#ddc858", "#efd748", "#fee838"),
    ),
}
DIVERGING = {
    "RdBu": (
        *("#053061", "#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#f7f7f7"),
        *("#fddbc7", "#f4a582", "#d6604d", "#b2182b", "#67001f"),
    ),
    "PuOr": (
        *("#2d004b", "#542788", "#8073ac", "#b2abd2", "#d8daeb", "#f7f7f7"),
        *("#fee0b6", "#fdb863", "#e08214", "#b35806", "#7f3b08"),
    ),
    "vik": (
        *("#001261", "#022b71", "#034481", "#0c5e92", "#307da6", "#619ebd"),
        *("#94bed2", "#c6dbe6", "#ece5e0", "#e9ccba", "#dcac90", "#cf8e68"),
        *("#c37243", "#b3531f", "#942f06", "#741506", "#590008"),
    ),
}
PALETTES = {"sequential": SEQUENTIAL, "diverging": DIVERGING}


def stops(kind: str, view: View) -> Sequence[str]:
    """Return the hex colours, low to high, that a view chose for a kind of map."""
    return PALETTES[kind][getattr(view, kind)]

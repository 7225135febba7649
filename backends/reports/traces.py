"""Three trials of a study in the terminal, each with its file, row and a small picture.

Whoever knows the stimuli sees at once whether pictures and rows are shifted by one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from explorer.identity import Identity, place, trace
from explorer.protocols import Dataset
from explorer.types import Trials, UserError

SHADES = " .:-=+*#%@"  # from black to white on a dark terminal
WIDE, HIGH = 24, 10  # characters are about twice as high as wide


def three_traces(study: Dataset, trials: Trials) -> Iterator[str]:
    """Yield lines about the first, the middle and the last trial of a subject."""
    n = len(trials.table)
    measured = np.setdiff1d(np.arange(n), trials.synthetic())
    for row in dict.fromkeys(measured[[0, len(measured) // 2, -1]].tolist()) if n else ():
        about = trials.table.iloc[row]
        found = trace(
            study, trials, str(about["stimulus"]), str(about["split"]), (int(about["repeat"]),)
        )
        yield from _lines(found, row)
        yield from (f"      |{line}|" for line in sketch(study, found.stimulus))


def _lines(found: Identity, row: int) -> Iterator[str]:
    of = next((r for r in found.rows if r.row == row), found.rows[0])
    where = "made anew" if of.made else "; ".join(map(place, of.origins)) or "not stated"
    yield (
        f"    trial {row} (from 0): {found.split}, session {of.session}, run {of.run}, repeat "
        f"{of.repeat}; betas: {where}"
    )
    ids = ", ".join(f"{kind}: {value}" for kind, value in found.ids.items())
    yield f"      shows {found.stimulus}" + (f" ({ids})" if ids else "")
    if found.picture is not None:
        yield f"      picture: {place(found.picture)}"


def sketch(study: Dataset, stimulus: str) -> list[str]:
    """Return a stimulus as lines of characters, light for light; [] where it cannot be read."""
    from PIL import Image

    try:
        picture = Image.fromarray(study.image(stimulus)).convert("L")
    except UserError:
        return []
    grey = np.asarray(picture.resize((WIDE, HIGH), Image.Resampling.BOX), dtype=float)
    low, high = grey.min(), grey.max()
    level = (grey - low) / (high - low) if high > low else np.zeros_like(grey)
    places = np.rint(level * (len(SHADES) - 1)).astype(int)
    return ["".join(SHADES[i] for i in line) for line in places]

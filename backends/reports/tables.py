"""Tables as a person reads them, and files of them that come whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.metrics import counted, mean_of
from explorer.writing import write_whole

if TYPE_CHECKING:
    import pandas as pd

Tables = Mapping[str, "pd.DataFrame"]


def render(tables: Tables) -> str:
    """Return the tables as Markdown."""
    parts = []
    for title, table in tables.items():
        lines = [f"## {title}", "", "| " + " | ".join(table.columns) + " |"]
        lines.append("|" + "---|" * len(table.columns))
        for row in table.itertuples(index=False):
            lines.append("| " + " | ".join(_cell(value) for value in row) + " |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _cell(value: Any) -> str:
    if isinstance(value, tuple):
        return " to ".join(_cell(v) for v in value)
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.3f}" if abs(value) >= 0.01 else f"{value:.2g}"
    return str(value).replace("|", "\\|")


def as_failed(scores: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str]:
    """Return scores (N,) by name with 0 for what is not defined, and what is to be said of that.

    For scores of which higher is better and 0 is a failure.
    """
    means = {what: mean_of(values, undefined_as=0.0) for what, values in scores.items()}
    said = [f"{what}: {mean.remark}" for what, mean in means.items() if mean.remark]
    return {what: counted(values, 0.0) for what, values in scores.items()}, " ".join(said)


def write_files(folder: Path, makers: Mapping[str, Callable[[Path], Any]]) -> list[Path]:
    """Write files by name into a folder, each whole or not at all; returns their paths.

    ``makers``: name -> what writes its content to the path that it is given.
    """
    return [write_whole(folder / name, make) for name, make in makers.items()]

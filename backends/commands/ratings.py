"""The command ``ratings``: what people's ratings of reconstructions say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from explorer.types import UserError
from explorer.writing import csv_text, write_whole


def ratings(
    folder: Annotated[Path, typer.Argument(help="What python app.py --rate wrote (--ratings).")],
    out: Annotated[
        Path | None, typer.Option(help="Also write the tables as CSV into this folder.")
    ] = None,
) -> None:
    """Print how often pictures were told apart, how alike they were rated, and who agrees.

    Means are over stimuli (raters averaged first), with 95 % intervals over stimuli.
    """
    from backends.reports.tables import render
    from explorer.evidence import rated
    from explorer.evidence.rating import read_ratings

    if out is not None and out.resolve() == folder.resolve():
        raise UserError(f"{out} holds the answers themselves; name another folder with --out.")
    settings, answers = read_ratings(folder)
    tables = {
        "Methods": rated.of_methods(answers),
        "Differences": rated.of_pairs(answers),
        "Raters": rated.of_raters(answers),
    }
    asked = settings.get("questions")
    print(f"{folder}: {asked} pictures, seed {settings.get('seed')}, {len(answers)} choices.\n")
    print(render({name: table for name, table in tables.items() if len(table)}))
    for name, table in tables.items() if out else ():
        path = write_whole(out / f"{name.lower()}.csv", csv_text(table).encode("utf-8"))
        print(path)

"""The folder of a site: whole or not at all, and never in the place of anybody's own files."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from explorer.files import read_object
from explorer.folders import LEFT, held, replacing
from explorer.types import UserError

MARK = "afterimage-site.json"  # written first: what makes a folder a site of ours
FORMAT = 1


@contextlib.contextmanager
def new_site(
    out: Path, provenance: dict[str, Any], say: Callable[[str], object] | None = None
) -> Iterator[Path]:
    """Yield a folder that becomes the site ``out`` when all went well; nothing is left else.

    A site that is there is replaced then. Anything else there raises `UserError`, and so does a
    site that another process is writing.
    """
    check(out)
    with held(out, "publish"):
        for sentence in clear(out):
            if say:
                say(sentence)
        check(out)
        with replacing(out) as fresh:
            mark = {"afterimage site": FORMAT, **provenance}
            text = json.dumps(mark, indent=2, ensure_ascii=False)
            (fresh / MARK).write_text(text, encoding="utf-8")
            yield fresh


def check(out: Path) -> None:
    """Refuse a place that holds something other than a site of ours."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UserError(f"{out} is a file or a link; choose a new folder for the site.")
    if out.is_dir() and any(out.iterdir()) and not is_site(out):
        raise UserError(
            f"{out} holds other files than a site made here, and they would be lost; choose a "
            "new or empty folder."
        )


def is_site(folder: Path) -> bool:
    """Return whether a folder is a site of ours, whole or not."""
    try:
        return read_object(folder / MARK).get("afterimage site") == FORMAT
    except UserError:
        return False


def clear(out: Path) -> list[str]:
    """Remove what a killed process left of a site, or give the former one its place again."""
    said = []
    if not out.parent.is_dir():
        return said
    for path in sorted(out.parent.iterdir()):
        found = LEFT.fullmatch(path.name)
        if not found or found["name"] != out.name or path.is_symlink() or not is_site(path):
            continue
        if found["old"] and not out.exists():
            path.rename(out)
            said.append(f"A site was cut off while it took its place: the former {out} is back.")
        else:
            shutil.rmtree(path)
            said.append(f"A site was cut off before it was whole: {path.name} is removed.")
    return said

"""Folders of reconstructions, ours and anybody's, as what a rating page shows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from backends.reports.picture_folder import METRICS, SETTINGS, load
from explorer.evidence.rating import Method
from explorer.images import ENDINGS, read_picture
from explorer.naming import NAME, path_and_options
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.workbench import Workbench

Folders = Mapping[str, tuple[Path, Mapping[str, str]]]


def named_folders(texts: list[str]) -> dict[str, tuple[Path, dict[str, str]]]:
    """Return name -> path and options of ``[NAME=]PATH[?OPTION=VALUE]`` texts.

    Without a name a folder has its own. Two of one name are refused.
    """
    found: dict[str, tuple[Path, dict[str, str]]] = {}
    for text in texts:
        name, _, given = text.partition("=")
        if not given or not NAME.fullmatch(name):
            name, given = "", text
        path, options = path_and_options(given, f"--rate {name or text}")
        name = name or re.sub(r"[^\w.-]+", "-", path.resolve().stem, flags=re.ASCII).strip("._-")
        if not name or name in found:
            raise UserError(
                f"--rate {text}: {f'the name {name} is taken' if name else 'it has no name'}; "
                "give each folder one: NAME=PATH."
            )
        found[name] = path, options
    return found


def is_ours(path: Path) -> bool:
    """Return whether a folder is one that ``reconstruct`` writes."""
    return (path / METRICS).is_file() or (path / SETTINGS).is_file()


def holds_pictures(folder: Path) -> bool:
    """Return whether a folder holds a picture, or an array that may be of pictures, anywhere."""
    known = {*ENDINGS, ".npy", ".npz", ".pt", ".pth", ".zip"}
    return any(path.suffix.lower() in known for path in folder.rglob("*"))


def methods_of(bench: Workbench, folders: Folders, dataset: str) -> list[Method]:
    """Return a method for each folder, for ours one a subject; of a data set's test images.

    Of several samples of a picture the first is rated. Folders that are not `is_ours` are read as
    ``--published`` under their names, which the bench must have opened.
    """
    found: list[Method] = []
    for name, (path, options) in folders.items():
        if is_ours(path):
            found += _ours(bench, name, path, options, dataset)
        else:
            found.append(_of(bench, name, dataset))
    return found


def _ours(
    bench: Workbench, name: str, path: Path, options: Mapping[str, str], dataset: str
) -> list[Method]:
    settings, table = load(path)
    if settings["dataset"] != dataset:
        raise UserError(
            f"--rate {name}: {path} holds pictures of {settings['dataset']}, and {dataset} is "
            f"open; open it with --dataset {settings['dataset']}=PATH."
        )
    if odd := sorted(set(options) - {"subject"}):
        raise UserError(f"--rate {name}: a folder of reconstruct takes ?subject=, not {odd[0]}.")
    people = list(dict.fromkeys(table["subject"]))
    chosen = [options["subject"]] if "subject" in options else people
    if lacking := [one for one in chosen if one not in people]:
        raise UserError(
            f"--rate {name}: {path} has no pictures of {lacking[0]}; it has those of "
            f"{', '.join(people)}."
        )
    methods = []
    for subject in chosen:
        mine = table[table["subject"] == subject].sort_values("sample", kind="stable")
        files = mine.drop_duplicates("stimulus").set_index("stimulus")["file"]
        pictures = {s: partial(read_picture, path / file) for s, file in files.items()}
        title = name if len(chosen) == 1 else f"{name} {subject}"
        methods.append(Method(title, pictures, _shown(bench, dataset, subject)))
    return methods


def _of(bench: Workbench, name: str, dataset: str) -> Method:
    result = bench.catalogue.pictures.get(name)
    if result is None:
        raise UserError(f"--rate {name} holds no pictures; give a folder, zip or array of them.")
    if result.dataset != dataset:
        raise UserError(f"--rate {name} is of {result.dataset}, the others of {dataset}.")
    if len(result.readers) > 1:
        known = ", ".join(f"{scale:g}" for scale in result.readers)
        raise UserError(f"--rate {name} has pictures of the scales {known}; choose one: ?scale=.")
    ((_, readers),) = result.readers.items()
    pictures = {stimulus: partial(read, 1) for stimulus, read in readers.items()}
    return Method(name, pictures, _shown(bench, result.dataset, result.subject))


def _shown(bench: Workbench, dataset: str, subject: str) -> list[str]:
    """Return the test images of a subject that have a picture."""
    stimuli = bench.catalogue.gallery(dataset, subject).index
    return [str(s) for s in stimuli if not bench.catalogue.without_picture(dataset, s)]

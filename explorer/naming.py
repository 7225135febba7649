"""Words of the command line that name data, results and weights, read into what they stand for."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from explorer.protocols import Dataset
from explorer.types import EmbeddingSpace, UserError, resolve

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
SUBJECT = re.compile(r"(?<![A-Za-z])(?:subject|subj|sub)[_-]?0*(\d+)(?!\d)", re.IGNORECASE)
PLAIN_FOLDER = "folder"  # the family of a data set whose name is none of a known format
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # it goes into links and folder names


def named_path(
    pair: str, flag: str = "--dataset", datasets: Mapping[str, Any] | None = None
) -> tuple[str, Path, dict[str, str]]:
    """Return name, path and options of ``NAME=PATH`` or ``NAME=PATH?option=value&option=value``.

    The path must exist; one with a question mark in its name is taken as it is. Which options
    there are is the data set's to say (`Catalogue.dataset`). ``flag``: what it was given to.
    ``datasets``: the dict literal, where a path may come without a name: then it has `own_name`.
    """
    name, _, given = pair.partition("=")
    bare = [p for p in (pair, pair.rpartition("?")[0]) if p and Path(p).expanduser().exists()]
    if datasets is not None and bare and not (given and NAME.fullmatch(name)):
        path, options = path_and_options(pair, f"{flag} {pair}")
        return own_name(path, datasets, options.get("part", "")), path, options
    if not given or not NAME.fullmatch(name):
        raise UserError(
            f"{flag} takes NAME=PATH, the name of letters, digits, dots, dashes and "
            f"underscores; found {pair!r}."
        )
    return name, *path_and_options(given, f"{flag} {name}")


def named_sources(pairs: Sequence[str], generators: Mapping[str, Any]) -> dict[str, str]:
    """Return generator -> where its weights or pictures are, from ``NAME=PATH_OR_ID`` texts.

    ``generators``: the dict literal; those that can be told take a ``source``. What is neither
    there nor written like a hub id raises `UserError`; what it holds is the generator's to check.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, source = pair.partition("=")
        told = [n for n, entry in generators.items() if _takes_source(resolve(entry))]
        if not (equals and source) or name not in told:
            raise UserError(
                f"--generator takes NAME=PATH_OR_ID with one of {', '.join(told) or 'none'}, "
                f"found {pair!r}."
            )
        if name in found:
            raise UserError(f"--generator names {name} twice; give each its weights once.")
        bare = source.partition("?")[0]  # what follows names a gallery, for generators with one
        if not any(Path(s).expanduser().exists() or HUB_ID.fullmatch(s) for s in (source, bare)):
            raise UserError(
                f"--generator {name}: there is nothing at {source}, and it is no hub id such as "
                "owner/name; check the path."
            )
        found[name] = source
    return found


def path_and_options(given: str, who: str) -> tuple[Path, dict[str, str]]:
    """Return path and options of ``PATH`` or ``PATH?option=value&option=value``; it must exist.

    ``who``: how a refusal begins.
    """
    path, _, tail = given.rpartition("?")
    if not path or Path(given).expanduser().exists():
        path, tail = given, ""
    place = Path(path).expanduser()
    if not place.exists():
        raise UserError(f"{who}: there is nothing at {path}; check the path.")
    options: dict[str, str] = {}
    for word in tail.split("&") if tail else ():
        key, equals, value = word.partition("=")
        if not key or not equals or key in options:
            raise UserError(
                f"{who}: options are written ?name=value&name=value, each once; found {word!r}."
            )
        options[key] = value
    return place, options


def recognise(path: Path, datasets: Mapping[str, Any]) -> str:
    """Return the key of the class that knows a path by its content, "" if none does."""
    for name, entry in datasets.items():
        knows = getattr(resolve(entry), "recognise", None)
        if knows is not None and knows(path):
            return name
    return ""


def own_name(path: Path, datasets: Mapping[str, Any], part: str = "") -> str:
    """Return the name of a path that is given without one: its family's, or a folder's own.

    ``part``: the option of that name, for families that hold several data sets.
    """
    family = recognise(path, datasets)
    if family and family != PLAIN_FOLDER:
        return f"{family}-{part}" if NAME.fullmatch(part) and part != "main" else family
    own = re.sub(r"[^A-Za-z0-9._-]+", "-", path.resolve().name).strip("._-")
    return own if NAME.fullmatch(own) and own not in datasets else "study"


def open_dataset(cls: Any, path: Path, name: str, options: Mapping[str, str], who: str) -> Dataset:
    """Return a data set of a class that takes these options; ``who`` begins a refusal."""
    taken = [p for p in inspect.signature(cls).parameters if p not in ("path", "name")]
    refuse_options(options, taken, who)
    return cls(path, name, **options)


def refuse_options(options: Mapping[str, str], taken: Sequence[str], who: str) -> None:
    """Refuse the first option that is not among those taken; ``who`` begins the sentence."""
    for option in options:
        if option not in taken:
            raise UserError(
                f"{who} has no option {option!r}; it takes {', '.join(taken) or 'none'}."
            )


def takes_split(cls: Any) -> bool:
    """Return whether a data set has splits of its own to choose from."""
    return "split" in inspect.signature(cls).parameters


def _takes_source(cls: Any) -> bool:
    return "source" in inspect.signature(cls).parameters


def whose_results(named: str, subjects: Sequence[str], path: Path, who: str) -> str:
    """Return the subject whose results a path holds: the one named, else the one in its name."""
    whole = r"(?<![A-Za-z0-9]){}(?![A-Za-z0-9])"  # "subj01" of "final_subj01_all_recons.pt"
    inside = [
        s
        for s in subjects
        if len(subjects) == 1 or re.search(whole.format(re.escape(s)), str(path))
    ]
    subject = named or (inside[0] if len(inside) == 1 else "") or _by_number(subjects, path)
    if subject not in subjects:
        raise UserError(
            f"{who}: say whose results they are with ?subject=, one of {', '.join(subjects)}"
            f"{f'; found {subject!r}' if subject else ''}."
        )
    return subject


def _by_number(subjects: Sequence[str], path: Path) -> str:
    """Return the subject whose number a path has, as in subject_1 or subj1 for subj01."""
    said = {int(number) for number in SUBJECT.findall(str(path))}
    numbered = {s: int(match[1]) for s in subjects if (match := re.fullmatch(r"\D*(\d+)", s))}
    found = [s for s, number in numbered.items() if said == {number}]
    return found[0] if len(found) == 1 else ""


def open_published(
    path: Path,
    name: str,
    whose: tuple[Dataset, str],
    options: Mapping[str, str],
    readers: Sequence[Any],
    spaces: Sequence[EmbeddingSpace],
) -> Any:
    """Return results of others, opened by the first of the readers that recognises the path.

    ``whose``: data set and subject. ``spaces``: what there is to predict, for a reader of
    predictions.
    """
    who = f"--published {name}"
    cls = next((c for c in map(resolve, readers) if c.recognise(path)), None)
    if cls is None:
        raise UserError(
            f"{who}: {path} holds neither pictures nor an array of predictions; give a .pt or "
            ".npy file, or a folder of pictures."
        )
    parameters = inspect.signature(cls).parameters
    taken = [p for p, kind in parameters.items() if kind.kind is kind.KEYWORD_ONLY]
    refuse_options(options, ["dataset", "subject", *taken], who)
    given: list[Any] = [path, name, *whose]
    if "spaces" in parameters:
        given.append({space.name: space for space in spaces})
    return cls(*given, **options)

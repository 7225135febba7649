"""`Request` and `View` as a readable query string, and back. What a link asks for is only data.

The same function settles a link, a picker that changed and an opened record: it takes what was
wanted, keeps what is on offer, and says in one sentence what it had to replace.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from explorer.types import (
    CAMERAS,
    HEMISPHERES,
    MEASURES,
    METHODS,
    SURFACES,
    TARGETS,
    Request,
    UserError,
    View,
)

if TYPE_CHECKING:
    from explorer.workbench import Workbench

AVERAGE = "average"
# Keys of a link that decide how evidence is shown, and the fields of View they stand for.
VIEW_KEYS = {
    "map": "method",
    "measure": "measure",
    "target": "target",
    "atlas": "atlas",
    "surface": "surface",
    "hemisphere": "hemisphere",
    "camera": "camera",
    "parcel": "parcel",
}
REQUEST_KEYS = (
    "data", "subject", "trial", "mapper", "generator", "scales", "steps", "seed", "repeats",
)  # fmt: skip
OPTION_PREFIX = "option."
NOT_OURS = re.compile(r"^(_|utm_|view$|deep_link$|session_hash$|fbclid$|gclid$)")
LONGEST_RECORD = 200_000  # characters; a record is about 2,000


@dataclass(frozen=True)
class Choices:
    """What the page shows, and the sentences about what was asked for but is not on offer."""

    request: Request
    view: View
    notices: tuple[str, ...] = ()


def short(text: object, length: int = 40) -> str:
    """Return ``text`` in quotes on one line, cut to ``length`` characters, for a sentence."""
    line = " ".join(str(text).split())
    return f"“{line if len(line) <= length else line[: length - 1] + '…'}”"


def format_scale(scale: float) -> str:
    """Return a guidance scale as people write it: ``4``, ``7.5``."""
    return f"{scale:g}"


def parse_scales(text: str) -> tuple[float, ...]:
    """Read guidance scales such as ``0, 1, 2, 4, 8``: numbers parted by commas or spaces.

    Range, count and doubles are checked by `Request`; what is no number raises `UserError`.
    """
    words = [word for word in re.split(r"[,;\s]+", str(text).strip()) if word]
    if not words:
        raise UserError("Guidance scales are numbers such as 0, 1, 2, 4, 8; the field is empty.")
    scales = []
    for word in words:
        try:
            scales.append(float(word))
        except ValueError:
            raise UserError(
                f"Guidance scales are numbers such as 0, 1, 2, 4, 8; found {short(word)}."
            ) from None
    return tuple(scales)


def parse_whole(text: object, name: str) -> int:
    """Read a whole number; anything else raises `UserError` that calls it ``name``."""
    try:
        number = float(str(text))
        if number != int(number):
            raise ValueError
    except (ValueError, OverflowError):
        raise UserError(f"{name} is a whole number, found {short(text)}.") from None
    return int(number)


def format_repeats(repeats: Sequence[int]) -> str:
    """Return ``average`` for () and the 1-based number of a single repeat."""
    return ",".join(str(r + 1) for r in repeats) or AVERAGE


def repeat_choices(n: int) -> list[str]:
    """Return what can be picked for a stimulus with ``n`` repeats."""
    return [AVERAGE, *(str(r + 1) for r in range(n))] if n > 1 else [AVERAGE]


def query(request: Request, view: View) -> str:
    """Return the query string (no ``?``) of what is shown, without view fields at their default.

    The inverse of `settle` on the same workbench: ``settle(dict(parse_qsl(query(r, v))), ...)``
    gives back ``r`` and ``v``.
    """
    values = {
        "data": request.dataset,
        "subject": request.subject,
        "trial": request.stimulus,
        "mapper": request.mapper,
        "generator": request.generator,
        "scales": ",".join(map(format_scale, request.scales)),
        "steps": request.steps,
        "seed": request.seed,
        "repeats": format_repeats(request.repeats),
    }
    values |= {OPTION_PREFIX + name: f"{value:g}" for name, value in request.options}
    default = {f.name: f.default for f in fields(View)}
    always = ("map", "measure")
    for key, field in VIEW_KEYS.items():
        if key in always or getattr(view, field) != default[field]:
            values[key] = getattr(view, field)
    return urlencode(values, safe=",:()")


def settle(
    wanted: Mapping[str, str], workbench: Workbench, fallback: Request | None = None
) -> Choices:
    """Return what to show for the ``wanted`` query: what is on offer is kept, the rest replaced.

    Parameters
    ----------
    wanted
        Query keys and their text, as `query` writes them; missing ones take the default, which
        for the trial is ``fallback``'s if it is on offer and a random test trial otherwise.
    fallback
        What was shown before, for the values that ``wanted`` leaves out.

    Raises
    ------
    UserError
        Only where nothing at all can be shown (no data set is readable).
    """
    notices = [
        f"The link's {short(key)} means nothing here and was left out."
        for key in wanted
        if not (key in REQUEST_KEYS or key in VIEW_KEYS or NOT_OURS.match(key))
        and not key.startswith(OPTION_PREFIX)
    ]

    def pick(key: str, offered: Sequence[str], default: str, where: str) -> str:
        value = wanted.get(key)
        if value is None or value in offered:
            return default if value is None else value
        instead = f"showing {default}" if default else "there is none to show"
        notices.append(f"{where} has no {LABELS[key]} {short(value)}; {instead}.")
        return default

    def first(value: str, offered: Sequence[str]) -> str:
        return value if value in offered else next(iter(offered), "")

    old = fallback or Request("", "", "", "", "")
    names = workbench.dataset_names()
    dataset = pick("data", names, first(old.dataset, names), "This app")
    subjects = workbench.subjects(dataset)
    subject = pick("subject", subjects, first(old.subject, subjects), dataset)
    where = f"{dataset}/{subject}"
    gallery = workbench.gallery(dataset, subject)
    stimulus = wanted.get("trial", old.stimulus)
    if stimulus not in gallery.index:
        usual = workbench.default_request(dataset, subject).stimulus
        stimulus = pick("trial", list(gallery.index), usual, where)
    mappers = workbench.mapper_names(dataset, subject)
    mapper = pick("mapper", mappers, first(old.mapper, mappers), where)
    fitting = workbench.generator_names(dataset, subject, mapper) if mapper else []
    generator = pick(
        "generator", fitting, first(old.generator, fitting), f"The mapper {mapper or 'none'}"
    )
    request = Request(dataset, subject, stimulus, mapper, generator)
    if generator and generator != old.generator and "steps" not in wanted:
        old = replace(old, steps=workbench.generator_class(generator).default_steps)
    repeats = repeat_choices(int(gallery.loc[stimulus, "repeats"]))
    for field, read in (
        ("scales", parse_scales),
        ("steps", lambda text: parse_whole(text, "The number of steps")),
        ("seed", lambda text: parse_whole(text, "The seed")),
        ("repeats", lambda text: _parse_repeats(text, repeats, where)),
    ):
        value = getattr(old, field) if fallback or field == "steps" else getattr(request, field)
        if field == "repeats" and format_repeats(value) not in repeats:
            value = ()
        try:
            if field in wanted:
                value = read(wanted[field])
            request = replace(request, **{field: value})
        except UserError as error:
            kept = replace(request, **{field: getattr(old, field)}) if fallback else request
            request = kept
            notices.append(f"{error} Keeping {_format(field, getattr(request, field))}.")
    request = replace(request, options=_options(wanted, workbench, generator, notices))
    view, more = _settle_view(wanted, workbench, request)
    return Choices(request, view, (*notices, *more))


LABELS = {
    "data": "data set",
    "subject": "subject",
    "trial": "test trial",
    "mapper": "mapper",
    "generator": "generator",
    "map": "importance method",
    "measure": "measure",
    "target": "target",
    "atlas": "atlas",
    "surface": "surface",
    "hemisphere": "hemisphere",
    "camera": "camera",
    "parcel": "parcel",
}


def _format(field: str, value: object) -> str:
    if field == "scales":
        return ", ".join(map(format_scale, value))
    return format_repeats(value) if field == "repeats" else str(value)


def _parse_repeats(text: str, offered: Sequence[str], where: str) -> tuple[int, ...]:
    if text not in offered:
        raise UserError(f"Repeats of {where} are {', '.join(offered)}, found {short(text)}.")
    return () if text == AVERAGE else (int(text) - 1,)


def _options(
    wanted: Mapping[str, str], workbench: Workbench, generator: str, notices: list[str]
) -> tuple[tuple[str, float], ...]:
    """Return the generator's options that the link sets to something within their range."""
    known = {o.name: o for o in workbench.generator_class(generator).options} if generator else {}
    options = []
    for key, text in wanted.items():
        if not key.startswith(OPTION_PREFIX):
            continue
        option = known.get(key.removeprefix(OPTION_PREFIX))
        if option is None:
            notices.append(f"The generator {generator} has no option {short(key)}; left out.")
            continue
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if option.low <= value <= option.high:
            options.append((option.name, value))
        else:
            notices.append(
                f"The option {option.name} lies between {option.low:g} and {option.high:g}, found "
                f"{short(text)}; using {option.default:g}."
            )
    return tuple(options)


def _settle_view(
    wanted: Mapping[str, str], workbench: Workbench, request: Request
) -> tuple[View, list[str]]:
    """Return the view that a link asks for, with a sentence for each value that is not offered."""
    atlases = workbench.trials(request.dataset, request.subject).subject.voxels.parcellations
    offers = {"map": METHODS, "measure": MEASURES, "surface": SURFACES, "atlas": list(atlases)}
    offers |= {"hemisphere": HEMISPHERES, "camera": CAMERAS, "target": TARGETS}
    view, notices = View(), []
    for key, offered in offers.items():
        if key not in wanted or wanted[key] in ("", *offered):
            if wanted.get(key):
                view = replace(view, **{VIEW_KEYS[key]: wanted[key]})
            continue
        kept = getattr(view, VIEW_KEYS[key]) or "the first"
        notices.append(f"There is no {LABELS[key]} {short(wanted[key])}; using {kept}.")
    if wanted.get("parcel"):
        atlas = atlases.get(view.atlas) or next(iter(atlases.values()), None)
        keys = [label.key for label in atlas.labels] if atlas else []
        if wanted["parcel"] in keys:
            view = replace(view, parcel=wanted["parcel"])
        else:
            notices.append(f"There is no parcel {short(wanted['parcel'])} in this atlas.")
    return view, notices


def from_record(text: str) -> dict[str, Any]:
    """Return the JSON object of an exported record; anything else raises `UserError`."""
    advice = "choose a .json file that this page exported"
    if len(text) > LONGEST_RECORD:
        raise UserError(
            f"A record has at most {LONGEST_RECORD} characters, found {len(text)}; {advice}."
        )
    try:
        record = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        raise UserError(f"The file is not JSON; {advice}.") from None
    if not isinstance(record, dict):
        raise UserError(f"The file holds no record; {advice}.")
    return record

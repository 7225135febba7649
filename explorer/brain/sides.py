"""Which hemisphere a file is of, by its name."""

from __future__ import annotations

import re

# The surest way first: as BIDS has it, as a word, as one letter. A word stands alone or where
# capitals part it from the next: lh.V1, V1_Left, rhV1, V1RH.
_BEGIN, _END, _AFTER = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])", r"(?<=[a-z0-9])"
FORMS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"{_BEGIN}(?i:hemi[-_](?P<side>lh|rh|l|r|left|right)){_END}",
        rf"{_BEGIN}(?i:(?P<alone>lh|rh|left|right)){_END}"
        rf"|{_BEGIN}(?P<first>lh|rh|LH|RH|Lh|Rh|[Ll]eft|[Rr]ight)(?=[A-Z])"
        rf"|{_AFTER}(?P<last>LH|RH|Left|Right){_END}",
        rf"{_BEGIN}(?P<letter>[LRlr]){_END}",
    )
)
OPPOSITE = {"lh": "rh", "rh": "lh", "left": "right", "right": "left", "l": "r", "r": "l"}


def side_of(name: str) -> str:
    """Return "L", "R" or "" where a file's name does not say, or says both."""
    for form in FORMS:
        found = {_word(match)[0].upper() for match in form.finditer(name)}
        if found:
            return found.pop() if len(found) == 1 else ""
    return ""


def other_side(name: str) -> str:
    """Return the name of the file of the other hemisphere; the same where the name says none."""
    form = next((form for form in FORMS if form.search(name)), None)
    return form.sub(_exchanged, name) if form else name


def without_side(name: str) -> str:
    """Return a name without its hemisphere: ``lh.aparc`` is aparc, ``V.L.164k`` is V.164k."""
    form = next((form for form in FORMS if form.search(name)), None)
    if form is None:
        return name
    match = form.search(name)
    word = _word(match)
    at = match.start() + match[0].index(word)
    before, after = name[:at], name[at + len(word) :]
    joints = "._- "
    if before and after and before[-1] in joints and after[0] in joints:
        after = after[1:]
    return (before + after).strip(joints) or name


def _word(match: re.Match) -> str:
    return next(word for word in match.groups() if word)


def _exchanged(match: re.Match) -> str:
    """Return what was found with its hemisphere exchanged, in the same capitals."""
    word = _word(match)
    other = OPPOSITE[word.lower()]
    other = other.upper() if word.isupper() else other.title() if word[0].isupper() else other
    return match[0].replace(word, other)

"""What the makers of published results declare about them; unknown says unknown.

A good picture means little if its maker used the caption of the shown image, took the best of
many, or chose settings on the test images. So each result says it under its picture: from
``provenance.json`` beside the results, or from options of ``--published``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from explorer.files import read_object
from explorer.types import UserError

FILE = "provenance.json"
FLAGS = {
    "target_caption": "caption of the shown image used",
    "target_features": "features of the shown image used",
    "retrieval": "pictures retrieved",
    "best_of": "best of n samples chosen by the shown image",
    "tuned_on_test": "settings chosen on test images",
}
WORDS = {
    "yes": "yes",
    "true": "yes",
    "no": "no",
    "false": "no",
    "unknown": "unknown",
    "": "unknown",
}


def declared(path: Path, given: Mapping[str, str]) -> dict[str, str]:
    """Return flag -> "yes", "no", "unknown", or for ``best_of`` a number, in the order of `FLAGS`.

    Parameters
    ----------
    path
        The results; `FILE` lies in their folder, or beside their file.
    given
        Options that were given, which count more than the file.

    Raises
    ------
    UserError
        For a flag that is none, or a value that is neither.
    """
    file = (path if path.is_dir() else path.parent) / FILE
    values = dict(read_object(file)) if file.is_file() else {}
    other = sorted(set(values) - set(FLAGS))
    if other:
        raise UserError(
            f"{file} has the field {other[0]!r}; what is declared is {', '.join(FLAGS)}."
        )
    found = {flag: _value(flag, values.get(flag, ""), str(file)) for flag in FLAGS}
    return found | {f: _value(f, v, f"?{f}=") for f, v in given.items() if v != ""}


def _value(flag: str, value: object, where: str) -> str:
    text = str(value).strip().lower()
    if text in WORDS:
        return WORDS[text]
    if flag == "best_of" and text.isdecimal() and int(text):
        return "no" if int(text) == 1 else str(int(text))
    number = ", or a number" if flag == "best_of" else ""
    raise UserError(f"{where}: {flag} is yes, no or unknown{number}; found {value!r}.")


def sentence(flags: Mapping[str, str]) -> str:
    """Return what is declared in one sentence, for under a picture."""
    if set(flags.values()) == {"unknown"}:
        return (
            "Not declared by its makers, so unknown: whether the shown image's caption or "
            "features were used, pictures retrieved, the best of n chosen, or settings tuned on "
            "test images."
        )
    said = [
        f"best of {value} samples"
        if flag == "best_of" and value.isdecimal()
        else f"{text}: {value}"
        for (flag, text), value in zip(FLAGS.items(), (flags[f] for f in FLAGS), strict=True)
    ]
    return f"Declared by its makers: {'; '.join(said)}."

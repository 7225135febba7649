"""What the server writes to its log, without the places of files and the names of accounts.

A log is kept, sent on and pasted into reports. So in every line, also of a traceback, a home
folder is ``~``, this project ``.``, and a folder that was given stands there by its name.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

PROJECT = Path(__file__).parents[2]
HOMES = re.compile(r"(?:/(?:home|Users)/|[A-Za-z]:\\Users\\)[^/\\\s'\":,;)]+")
ENDS = r"(?![\w.-])"  # a folder's name is not the beginning of another's


class Private:
    """A stream that writes texts without private places.

    Parameters
    ----------
    stream
        Where the texts go.
    named
        What stands for a folder or file -> where it lies.
    """

    def __init__(self, stream: TextIO, named: Mapping[str, Path]) -> None:
        self._stream = stream
        places = {".": PROJECT, "~": Path.home(), **named}
        pairs = {
            str(form): name
            for name, path in places.items()
            for form in (path.expanduser(), path.expanduser().resolve())
            if len(form.parts) > 1  # the root is in every path
        }
        # the longest first: a data set may lie in the home folder
        self._pairs = [
            (re.compile(re.escape(place) + ENDS), name)
            for place, name in sorted(pairs.items(), key=lambda pair: -len(pair[0]))
        ]

    def write(self, text: str) -> int:
        """Write a text without private places."""
        self._stream.write(self.cleaned(text))
        return len(text)

    def cleaned(self, text: str) -> str:
        """Return a text without private places."""
        for place, name in self._pairs:
            text = place.sub(name.replace("\\", r"\\"), text)
        return HOMES.sub("~", text)

    def __getattr__(self, name: str) -> Any:
        """Return whatever else the stream can do."""
        return getattr(self._stream, name)


def keep_private(named: Mapping[str, Path]) -> None:
    """From now on write the log, standard output and error, without private places."""
    for stream in ("stdout", "stderr"):
        own = getattr(sys, stream)
        own = own._stream if isinstance(own, Private) else own
        setattr(sys, stream, Private(own, named))

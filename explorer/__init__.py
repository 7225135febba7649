"""What stays when a new paper comes: the nouns, the workbench and the page.

For programs and notebooks there is one door, ``from explorer import open_study``. It lies with
whoever introduces the backends, is named here alone, and is not opened before somebody asks.
"""

from typing import Any

OPENS = {"open_study": "backends.opening:open_study"}


def __getattr__(name: str) -> Any:
    """Return what `OPENS` names, imported when it is first asked for."""
    if name not in OPENS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from explorer.types import resolve

    return resolve(OPENS[name])


def __dir__() -> list[str]:
    """Return the names of the module with the door."""
    return sorted([*globals(), *OPENS])

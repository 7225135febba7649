"""What one browser looks at and what runs for it; lives in a ``gr.State``, never models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from explorer.types import Request, View


@dataclass
class Session:
    """One browser's choices. Handlers change it in place, so a running sweep sees a stop at once.

    ``ticket`` goes up with every choice and stop; work that began under an older ticket ends at
    its next picture. ``wanted`` is set by a choice and taken by the work that starts for it, so
    ten quick clicks on "next" leave one sweep, not ten. ``shown`` is the trial view that the
    browser has, ``drawn`` the request whose sweep it shows to the end, ``mapped`` what its brain
    map is of.
    """

    request: Request | None = None
    view: View = field(default_factory=View)
    category: str = ""
    page: int = 0
    ticket: int = 0
    wanted: bool = False
    shown: dict[str, Any] = field(default_factory=dict)
    drawn: Request | None = None
    mapped: tuple = ()

    def ask(self) -> None:
        """Want the pictures of the present request, and end what runs for an earlier one."""
        self.ticket += 1
        self.wanted = True

    def stop(self) -> None:
        """End what runs and want nothing more."""
        self.ticket += 1
        self.wanted = False

"""What one browser looks at and what runs for it; lives in a ``gr.State``, never models."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from explorer.request import Request, View

if TYPE_CHECKING:
    from explorer.page.sheet import Drawing


class Session:
    """One browser's choices. Handlers change it in place, so a running sweep sees a stop at once.

    ``ticket`` goes up with every choice and stop: work that began under an older one may not
    change what is shown, and ends at its next picture. ``wanted`` is set by a choice and taken by
    the work that starts for it, so ten quick clicks on "next" leave one sweep, not ten; work that
    ends looks whether something is wanted by then. ``steering`` is held while a choice is read and
    changed, so that each of ten clicks counts. ``shown``
    is the trial view that the browser has, ``drawn`` the request whose sweep it shows to the end,
    ``mapped`` what its brain map is of, ``gallery`` which page of stimuli it has, ``told`` the
    problems it was told about, ``own`` the picture of its visitor's own (PNG or JPEG) and
    ``own_at`` when it came, ``allowed`` the long request that its owner agreed to, ``given_up``
    whether what the browser had was given up while it was idle, ``sheet`` the pictures of
    all trials that were asked for.
    """

    def __init__(self) -> None:
        self.request: Request | None = None
        self.view = View()
        self.page = 0
        self.ticket = 0
        self.wanted = False
        self.shown: dict[str, Any] = {}
        self.drawn: Request | None = None
        self.mapped: tuple = ()
        self.gallery: tuple = ()
        self.told: set[str] = set()
        self.allowed: Request | None = None
        self.given_up = False
        self.own, self.own_at = b"", 0.0
        self.sheet: Drawing | None = None
        self.lab, self.lecture = Evidence(), Evidence()
        self.steering = threading.RLock()
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict) -> Session:
        """Gradio copies a state's first value for every browser: each gets one of its own."""
        return Session()

    def begin(self, shown: dict[str, Any]) -> None:
        """Show a new choice, want its pictures, and end what runs for an earlier one."""
        with self._lock:
            self.ticket += 1
            self.wanted = True
            self.shown = {**shown, "ticket": self.ticket}

    def take(self) -> tuple[int, Request, View] | None:
        """Return what is wanted, with its ticket, once; None where nothing is."""
        with self._lock:
            if not self.wanted or self.request is None:
                return None
            self.wanted = False
            return self.ticket, self.request, self.view

    def stop(self) -> None:
        """End what runs and want nothing more."""
        with self._lock:
            self.ticket += 1
            self.wanted = False

    def show(self, ticket: int, **changed: Any) -> bool:
        """Change parts of the trial view; False, and nothing, where ``ticket`` is outdated."""
        with self._lock:
            if self.ticket != ticket:
                return False
            self.shown = {**self.shown, **changed, "ticket": ticket}
            return True


class Evidence:
    """What is open below the trial in one browser, with a ticket of its own as in `Session`.

    ``shown`` is what the browser has, and ``key`` what that is of. Its ``state`` is off, waiting
    (for the browser to ask for the work), running, done, stopped, or none with a sentence why.
    """

    def __init__(self) -> None:
        self.ticket = 0
        self.key: tuple = ()
        self.shown: dict[str, Any] = {}
        self._lock = threading.Lock()

    def begin(self, key: tuple, shown: dict[str, Any]) -> None:
        """Show another view and end what runs for an earlier one."""
        with self._lock:
            self.ticket += 1
            self.key, self.shown = key, {**shown, "ticket": self.ticket}

    def take(self) -> int | None:
        """Return the ticket of work that waits, once; None where there is none."""
        with self._lock:
            if self.shown.get("state") != "waiting":
                return None
            self.shown = {**self.shown, "state": "running"}
            return self.ticket

    def stop(self) -> None:
        """End what runs and keep what is shown."""
        with self._lock:
            self.ticket += 1
            self.shown = {**self.shown, "state": "stopped", "ticket": self.ticket}

    def show(self, ticket: int, **changed: Any) -> bool:
        """Change what is shown; False, and nothing, where ``ticket`` is outdated."""
        with self._lock:
            if self.ticket != ticket:
                return False
            self.shown = {**self.shown, **changed}
            return True

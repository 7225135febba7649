"""Sentences about work that is counted, of which a terminal can make a bar."""

from __future__ import annotations

from backends.training.plan import Progress


class Counted(str):
    """A sentence about work of which ``done`` of ``total`` parts are done.

    It goes wherever sentences go and reads as one. ``work``: what the whole of it is called, the
    same in all its sentences; ``unit``: what the parts are, in the plural; ``note``: what changes
    beside the count, such as a loss; ``last``: no more sentences follow, also where parts remain
    undone.
    """

    work: str
    done: int
    total: int
    unit: str
    note: str
    last: bool

    def __new__(
        cls,
        sentence: str,
        *,
        work: str,
        done: int,
        total: int,
        unit: str = "",
        note: str = "",
        last: bool | None = None,
    ) -> Counted:
        """Return the sentence with its count; ``last`` is by default when all is done."""
        made = super().__new__(cls, sentence)
        made.work, made.done, made.total, made.unit, made.note = work, done, total, unit, note
        made.last = done >= total if last is None else last
        return made


def count(work: str, done: int, total: int, unit: str, did: str = "", note: str = "") -> Counted:
    """Return the usual sentence: ``WORK: 3/12 UNIT DID, NOTE``, e.g. "3/12 pictures drawn"."""
    sentence = f"{work}: {done}/{total} {unit}" + (f" {did}" if did else "")
    sentence += f", {note}" if note else ""
    return Counted(sentence, work=work, done=done, total=total, unit=unit, note=note)


def prefixed(progress: Progress | None, before: str) -> Progress | None:
    """Return a progress callback that puts ``before`` and a colon in front of every sentence."""
    if progress is None:
        return None

    def tell(sentence: str) -> None:
        if isinstance(sentence, Counted):
            about = vars(sentence) | {"work": f"{before}: {sentence.work}"}
            sentence = Counted(f"{before}: {sentence}", **about)
            progress(sentence)
        else:
            progress(f"{before}: {sentence}")

    return tell

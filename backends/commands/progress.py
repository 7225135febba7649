"""How a command tells that it works: a bar on a terminal, plain lines everywhere else.

Everything goes to the standard error stream, so that results alone are on the standard output.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backends.training.counted import Counted
from backends.training.plan import clock

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

EVERY = 10.0  # seconds between plain lines about the same work


@dataclass
class Work:
    """Counted work that goes on: where it stood when it was first told of, and since when.

    ``told``: when a plain line was last written about it.
    """

    first: int
    done: int
    began: float
    told: float | None = None

    def pace(self, sentence: Counted, now: float) -> str:
        """Return rate and time left, ``3.2 pictures/s, 1 min 05 s left``; "" where unknown."""
        parts, spent = sentence.done - self.first, now - self.began
        if parts <= 0 or spent <= 0:
            return ""
        left = spent / parts * (sentence.total - sentence.done)
        return f"{rate(parts / spent, sentence.unit)}, {clock(left)} left"


def rate(per_second: float, unit: str) -> str:
    """Return a rate as people write it: ``3.2 pictures/s``, or by the minute or hour if slow."""
    amount, each = per_second, "s"
    if amount < 1:
        amount, each = per_second * 60, "min"
    if amount < 1:
        amount, each = per_second * 3600, "h"
    return f"{amount:,.0f} {unit}/{each}" if amount >= 100 else f"{amount:.2g} {unit}/{each}"


class Teller:
    """Takes the sentences of a command while it works, and its results.

    Parameters
    ----------
    console
        Where to write; None is the standard error stream as it is when something is told.
    now
        Seconds, for tests.
    """

    def __init__(
        self, console: Console | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._console, self._now = console, now
        self._works: dict[str, Work] = {}
        self._tasks: dict[str, TaskID] = {}
        self._bars: Progress | None = None

    def __call__(self, sentence: str) -> None:
        """Tell a sentence; of one that counts a bar is drawn where there is a terminal."""
        if not isinstance(sentence, Counted):
            self._line(sentence)
            return
        now = self._now()
        work = self._works.get(sentence.work)
        if work is None or sentence.done < work.done:  # such work again, from its beginning
            work = self._works[sentence.work] = Work(sentence.done, sentence.done, now)
        work.done = sentence.done
        if self._on_terminal:
            self._draw(sentence, work.pace(sentence, now))
        elif sentence.last or work.told is None or now - work.told >= EVERY:
            work.told = now
            told = sentence.last or sentence.endswith(" left")
            pace = "" if told else work.pace(sentence, now)
            self._line(", ".join(filter(None, [sentence, pace])))
        if sentence.last:
            del self._works[sentence.work]

    def result(self, text: str) -> None:
        """Print a result on the standard output, above no bar."""
        self.close()
        print(text, flush=True)

    def close(self) -> None:
        """Take the bars away; those of work that goes on come back when it is told of."""
        if self._bars is not None:
            self._bars.stop()
        self._bars, self._tasks = None, {}

    @property
    def _on_terminal(self) -> bool:
        return self._console.is_terminal if self._console else sys.stderr.isatty()

    def _line(self, sentence: str) -> None:
        line = f"{time.strftime('%H:%M:%S')}  {sentence}"
        if self._bars is not None:
            self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)
        elif self._console:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def _draw(self, sentence: Counted, pace: str) -> None:
        """Move the work's bar; where the work is done, a line takes its place."""
        if sentence.last:
            if (task := self._tasks.pop(sentence.work, None)) is not None:
                self._bars.remove_task(task)
            self._line(sentence)
            return
        if self._bars is None:
            self._bars = _bars(self._console)
            self._bars.start()
        fields = {"unit": sentence.unit, "told": ", ".join(filter(None, [pace, sentence.note]))}
        if sentence.work not in self._tasks:
            self._tasks[sentence.work] = self._bars.add_task(sentence.work, total=None, **fields)
        count = {"completed": sentence.done, "total": sentence.total}
        self._bars.update(self._tasks[sentence.work], **count, **fields)


def _bars(console: Console | None) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    # the results go to the standard output by themselves, whatever the bars do
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total} {task.fields[unit]}", markup=False),
        TextColumn("{task.fields[told]}", markup=False),
        console=console or Console(file=sys.stderr),
        transient=True,
        redirect_stdout=False,
    )


@contextmanager
def telling() -> Iterator[Teller]:
    """Give a command what it tells its progress to, and take the bars away at the end."""
    teller = Teller()
    try:
        yield teller
    finally:
        teller.close()

"""During a scan: a data set is read again when its files change, and new trials are decoded.

Files are looked at ten times a second. What is not whole is the data set's to leave out (see
``stamp`` and ``remarks`` of `explorer.protocols.Dataset`); files that change while they are read
are read again, and as long as they make no sense together what was read before stays.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from explorer.choosing import default_request
from explorer.decoding import decode, undecoded
from explorer.types import Trials, UserError

if TYPE_CHECKING:
    from explorer.catalogue import Catalogue
    from explorer.request import Request
    from explorer.workbench import Workbench

LOOK = 0.1  # seconds between two looks at the files
PATIENCE = 5.0  # seconds without a change after which what is not whole is told


class Trial(NamedTuple):
    """A test trial that arrived: whose, of which stimulus, and its repeat (0-based)."""

    subject: str
    stimulus: str
    repeat: int


@dataclass(frozen=True)
class Arrivals:
    """What came so far: a number that goes up with each arrival, the newest trial, and when.

    ``trials``: how many test trials there are of all subjects; ``came``: how many since the start;
    ``at``: seconds since the epoch; ``told``: what is not whole or makes no sense, "" for nothing.
    """

    revision: int = 0
    trials: int = 0
    came: int = 0
    newest: Trial | None = None
    at: float = 0.0
    told: str = ""


class Watch:
    """One data set that grows while somebody looks.

    Parameters
    ----------
    bench
        Offers the data set, which must have a ``stamp``.
    dataset
        Its name.
    turn
        Gives the models to whoever holds it, see `explorer.page.turns.Turns`.
    say
        Is told of every trial, and of what is not whole, in one sentence.
    """

    def __init__(
        self,
        bench: Workbench,
        dataset: str,
        turn: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
        say: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.dataset, self.folder = dataset, bench.catalogue.paths.get(dataset, "")
        self._bench, self._turn, self._say = bench, turn, say
        study = bench.catalogue.dataset(dataset)
        if not hasattr(study, "stamp"):
            raise UserError(
                f"{dataset} cannot be watched: that takes a plain folder (dataset.json, stimuli/, "
                "sub-XX/) to which trials are added."
            )
        self._stamp: Hashable = study.stamp()
        self._trials = {s: bench.catalogue.trials(dataset, s) for s in study.subjects()}
        self._problem, self._since = " ".join(study.unfinished()), time.monotonic()
        self.arrivals = Arrivals(trials=len(_tests(self._trials)))

    def start(self) -> None:
        """Look from now on, in the background."""
        threading.Thread(target=self._run, daemon=True, name="watch").start()

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except UserError as error:  # such as too many who wait: the next look tries again
                self._problem = str(error)
            time.sleep(LOOK)

    def look(self) -> bool:
        """Look once; True where trials arrived, which are on offer and decoded by then."""
        catalogue = self._bench.catalogue
        stamp = catalogue.dataset(self.dataset).stamp()
        if stamp == self._stamp:
            if self._problem != self.arrivals.told and time.monotonic() - self._since > PATIENCE:
                self._tell()
            return False
        began = self._since = time.monotonic()
        try:
            study, trials = catalogue.reopened(self.dataset)
        except UserError as error:
            self._stamp, self._problem = stamp, str(error)
            return False
        if study.stamp() != stamp:
            return False  # somebody is writing: the next look reads again
        new = _new(self._trials, trials)
        with self._turn():
            self._bench.renew(self.dataset, study, trials)
            self._stamp, self._problem = stamp, " ".join(study.unfinished())
            self._trials = trials
            for one in new:
                self._decode(one, began)
        told = self.arrivals.told if self._problem else ""
        self.arrivals = Arrivals(
            revision=self.arrivals.revision + 1,
            trials=len(_tests(trials)),
            came=self.arrivals.came + len(new),
            newest=new[-1] if new else self.arrivals.newest,
            at=time.time() if new else self.arrivals.at,
            told=told,
        )
        return bool(new)

    def _tell(self) -> None:
        """Say what has not been whole, or made no sense, for a while; that it is mended, too."""
        self.arrivals = replace(self.arrivals, told=self._problem)
        if self._problem:
            self._say(self._problem)

    def _decode(self, one: Trial, began: float) -> None:
        """Decode a trial with the first mapper that fits, and say where it lies."""
        asked = request_of(self._bench.catalogue, self.dataset, one)
        who = f"{self.dataset}/{one.subject}: a trial of {one.stimulus} arrived"
        try:
            if reason := undecoded(self._bench, asked):
                raise UserError(reason)
            found = decode(self._bench, asked)
        except UserError as error:  # such as a mapper that does not fit: the trial is there
            self._say(f"{who}. {error}")
            return
        self._say(
            f"{who}; {asked.mapper} puts it at rank {found.rank} of {found.n} "
            f"({time.monotonic() - began:.2f} s after its file was whole)."
        )


def ready(bench: Workbench, dataset: str) -> None:
    """Load (or fit) what the first trial of each subject will need, and embed what was shown."""
    catalogue = bench.catalogue
    for subject in catalogue.subjects(dataset):
        mapper = next(iter(catalogue.mapper_names(dataset, subject)), "")
        if not mapper:
            continue
        bench.models.mapper(dataset, subject, mapper)
        if not len(catalogue.trials(dataset, subject).rows("test")):
            spaces = catalogue.offer(dataset, subject, mapper).targets
            seen = catalogue.trials(dataset, subject).stimuli("train")[:1]
            for space in (space for space in spaces if seen and catalogue.embedder_name(space)):
                bench.models.embed(dataset, seen, space)
            continue
        asked = default_request(catalogue, dataset, subject, mapper=mapper)
        if not undecoded(bench, asked):
            decode(bench, asked)


def request_of(catalogue: Catalogue, dataset: str, one: Trial) -> Request:
    """Return the request that shows one trial alone, not averaged with earlier repeats."""
    trials = catalogue.trials(dataset, one.subject)
    alone = len(trials.rows("test", one.stimulus)) == 1
    repeats = () if alone else (one.repeat,)
    return default_request(catalogue, dataset, one.subject, stimulus=one.stimulus, repeats=repeats)


def _new(before: Mapping[str, Trials], now: Mapping[str, Trials]) -> list[Trial]:
    """Return the test trials that were not there before, in order.

    As many as there are more of a stimulus, and of its trials those that lie where none did: a new
    file may come before others in the order of names, which numbers later repeats anew.
    """
    earlier = Counter((one.subject, one.stimulus) for one in _tests(before))
    found = []
    for subject, trials in now.items():
        known = set(_places(before[subject])) if subject in before else set()
        elsewhere = [place not in known for place in _places(trials)]
        tests, new = _tests({subject: trials}), set()
        for stimulus, count in Counter(one.stimulus for one in tests).items():
            if (more := count - earlier[subject, stimulus]) > 0:
                of_it = [i for i, one in enumerate(tests) if one.stimulus == stimulus]
                new |= set(sorted(of_it, key=lambda i: (elsewhere[i], i))[-more:])
        found += [tests[i] for i in sorted(new)]
    return found


def _places(trials: Trials) -> list[Any]:
    """Return where each test trial lies, as its betas say; None where they do not."""
    lies = getattr(trials.betas, "lies", None)
    rows = trials.rows("test")
    return [None if lies is None else tuple(lies(int(row))) for row in rows]


def _tests(trials: Mapping[str, Trials]) -> list[Trial]:
    """Return the test trials of all subjects, each subject's in order."""
    found = []
    for subject, of_one in trials.items():
        rows = of_one.table.iloc[of_one.rows("test")]
        pairs = zip(rows["stimulus"], rows["repeat"], strict=True)
        found += [Trial(subject, str(stimulus), int(repeat)) for stimulus, repeat in pairs]
    return found

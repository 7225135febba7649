"""What a site shows: whose trials, decoded and drawn how, and how much of the evidence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from explorer.choosing import check_request, default_request, fixed_scales
from explorer.metrics import evenly
from explorer.request import METHODS, Request
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.workbench import Workbench

FIRST = "group0"
QUALITY = 88  # of WebP: our choice, by eye; a fifth smaller than on the page
EVIDENCE = 24  # trials with controls and a sweep curve: they take as long as all pictures of 10


@dataclass(frozen=True)
class Plan:
    """A site of the test trials of ``subjects`` as each of ``mappers`` decodes them.

    ``scales`` () are the page's own, ``steps`` None the generator's. ``limit``: only so many
    trials; ``controls`` and ``curves``: of how many of them, evenly spaced, those are computed.
    ``quality``: of pictures as WebP. ``withheld``: the sentence in the place of pictures that may
    not be passed on, "" shows all.
    """

    dataset: str
    subjects: tuple[str, ...]
    mappers: tuple[str, ...]
    generator: str
    scales: tuple[float, ...] = ()
    steps: int | None = None
    seed: int = 0
    limit: int | None = None
    controls: int = EVIDENCE
    curves: int = EVIDENCE
    methods: tuple[str, ...] = METHODS[:1]
    quality: int = QUALITY
    withheld: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be published."""
        if self.limit is not None and self.limit < 1:
            raise UserError(f"--limit is 1 or more test trials, found {self.limit}.")
        for name in ("controls", "curves"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name} is 0 or more trials, found {getattr(self, name)}.")
        if not 1 <= self.quality <= 100:
            raise UserError(f"--quality lies between 1 and 100, found {self.quality}.")
        if unknown := [name for name in self.methods if name not in METHODS]:
            raise UserError(f"--method is one of {', '.join(METHODS)}, found {unknown[0]!r}.")


@dataclass(frozen=True)
class Group:
    """All trials of one subject and one mapper: what a site's pickers choose.

    ``name``: its folder among the site's data; ``people``: that of what its subject was shown.
    ``requests``: one a trial, in the data's order.
    """

    name: str
    people: str
    requests: tuple[Request, ...]

    @property
    def first(self) -> Request:
        """The request of the first trial, for what is the same for all."""
        return self.requests[0]

    def some(self, count: int) -> list[int]:
        """Return the places of ``count`` trials, evenly spaced."""
        return [int(i) for i in evenly(len(self.requests), count)] if count else []


def groups(bench: Workbench, plan: Plan) -> list[Group]:
    """Return what a plan is of; what cannot be decoded or drawn raises `UserError`."""
    found: list[Group] = []
    for person, subject in enumerate(plan.subjects):
        stimuli = list(bench.catalogue.gallery(plan.dataset, subject).index)[: plan.limit]
        for mapper in plan.mappers:
            requests = [_request(bench, plan, subject, mapper, str(one)) for one in stimuli]
            check_request(bench.catalogue, requests[0])
            found.append(Group(f"group{len(found)}", f"shown{person}", tuple(requests)))
    return found


def _request(bench: Workbench, plan: Plan, subject: str, mapper: str, stimulus: str) -> Request:
    """Return what the page begins with for a trial, so that its pictures are those of the page."""
    wanted: dict[str, Any] = {"mapper": mapper, "generator": plan.generator, "seed": plan.seed}
    if plan.steps:
        wanted["steps"] = plan.steps
    if plan.scales and not fixed_scales(bench.catalogue, plan.generator):
        wanted["scales"] = plan.scales
    found = default_request(bench.catalogue, plan.dataset, subject, stimulus=stimulus, **wanted)
    return replace(found, seed=plan.seed)

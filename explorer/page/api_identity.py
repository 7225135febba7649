"""The named endpoint of identity: which file and row the shown trial is from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypedDict

from explorer.page import links
from explorer.page.endpoint import (
    Dataset,
    Endpoints,
    Link,
    Repeat,
    Said,
    Subject,
    Trial,
    add,
    endpoint,
)
from explorer.page.turns import Turns
from explorer.records import identify
from explorer.request import View

if TYPE_CHECKING:
    from explorer.workbench import Workbench


def register(workbench: Workbench, turns: Turns) -> None:
    """Add the endpoint below to the page being built; it needs no model."""
    add("identity", Identities(workbench, turns).identity, {})


class Place(TypedDict):
    """Where a row of betas, or a picture, lies."""

    file: Annotated[str, Said("The file, from the study's folder on.", "study/sub-01/betas.npy")]
    row: Annotated[int | None, Said("Its row there, from 0; null where it is alone.", 12)]
    key: Annotated[str, Said("The array in a file of many, empty for none.", "betas")]
    note: Annotated[str, Said("What else decides it, empty for nothing.", "left hemisphere")]


class BetaRow(TypedDict):
    """One measured trial."""

    row: Annotated[int, Said("Its row of the trial table, from 0.", 12)]
    session: Annotated[str, Said("Its session.", "3")]
    run: Annotated[str, Said("Its run.", "1")]
    repeat: Annotated[int, Said("Which repeat of the stimulus it is, from 1.", 2)]
    origins: Annotated[
        list[Place], Said("Every file and row it is made of.", [{"file": "betas.npy", "row": 12}])
    ]
    first: Annotated[list[float], Said("Its first betas, normalised as stated.", [0.1, -1.2])]
    digest: Annotated[str, Said("A hash of all its betas.", "fda548ecc7badbcc")]
    made: Annotated[bool, Said("Whether it is made anew and lies in no file.", False)]


class TrialIdentity(TypedDict):
    """Where the betas and the picture of a trial come from."""

    link: Link
    dataset: Annotated[str, Said("The data set.", "simulated")]
    title: Annotated[str, Said("Its title.", "Simulated scenes and brains")]
    subject: Annotated[str, Said("The subject.", "subj01")]
    stimulus: Annotated[str, Said("The stimulus.", "test-0001")]
    split: Annotated[str, Said("Which split, `train` or `test`.", "test")]
    split_by: Annotated[str, Said("Who says so.", "trials.tsv of the folder")]
    unit: Annotated[str, Said("What a beta of 1 means.", "z-score within session")]
    rows: Annotated[list[BetaRow], Said("One entry a repeat.", [{"row": 12, "session": "3"}])]
    ids: Annotated[
        dict[str, str], Said("Every id of the picture, with its base.", {"file name": "1.png"})
    ]
    picture: Annotated[Place | None, Said("Where the picture lies, null for nowhere.", None)]
    picture_shape: Annotated[list[int], Said("Its height, width and channels.", [128, 128, 3])]
    picture_digest: Annotated[str, Said("A hash of its pixels.", "105feb6a9686b64f")]
    picture_problem: Annotated[str, Said("Why it cannot be read, empty if it can.", "")]
    hashes: Annotated[
        dict[str, str], Said("A hash of each file.", {"betas.npy": "sha256 4dd5b3a13a4a802d"})
    ]


class Identities(Endpoints):
    """The endpoint's method; its annotations are what the page's API says of it."""

    @endpoint
    def identity(
        self, trial: Trial, dataset: Dataset = "", subject: Subject = "", repeat: Repeat = 0
    ) -> TrialIdentity:
        """Say which file, row and session a trial is from, and every id of its picture."""
        request = self.request(trial, dataset, subject, "", "", repeat)
        found = identify(self.workbench, request).to_dict()
        return {"link": links.query(request, View(panel="identity")), **found}

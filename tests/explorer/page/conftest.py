"""Handlers whose components are their own names, and a study with a single test image."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from explorer.request import Request
from tests.explorer.page.serving import served
from tests.explorer.page.visits import PARTS


@pytest.fixture
def handlers(workbench: Any) -> Any:
    """Return handlers whose components are their own names."""
    from explorer.page.handlers import Handlers

    return Handlers(workbench, SimpleNamespace(**{part: part for part in PARTS}), "plotly.js")


@pytest.fixture
def alone(make_workbench: Any, fakes: SimpleNamespace, tmp_path: Path) -> tuple[Any, Request]:
    """Return a workbench with one test image that was shown once, and its request."""

    class One(fakes.Study):
        def load(self, subject: str) -> Any:
            trials = super().load(subject)
            table = trials.table
            keep = (table["split"] == "train") | (table["stimulus"] == "test-04")
            rows = (keep & (table["repeat"] == 0)).to_numpy().nonzero()[0]
            table = table.iloc[rows].reset_index(drop=True)
            return replace(trials, betas=trials.betas[rows], table=table)

    bench = make_workbench(datasets={"fake": One}, checkpoints=tmp_path)
    trial = Request("fake", "sub-01", "test-04", "linear", "painter", steps=4)
    return bench, replace(trial, mapper=bench.catalogue.mapper_names("fake", "sub-01")[0])


@pytest.fixture
def client(workbench: Any) -> Iterator[Any]:
    """Serve the page and return a client of it."""
    with served(workbench) as asked:
        yield asked

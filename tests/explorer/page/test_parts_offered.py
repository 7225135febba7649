"""The embedded study's further test sets are chosen on the page like any data set."""

from types import SimpleNamespace

import pytest

import app
from explorer.page.handlers import Handlers
from tests.explorer.page.visits import PARTS, visit

NAMES = ["simulated", "simulated-generalisation", "simulated-imagery"]


@pytest.fixture(scope="module")
def handlers():
    bench = app.open_workbench(app.arguments().parse_args([]))
    return Handlers(bench, SimpleNamespace(**{part: part for part in PARTS}), "plotly.js")


def test_a_visitor_chooses_a_part_without_typing(handlers):
    _, sent = visit(handlers)
    assert [name for _, name in sent["dataset"]["choices"]] == NAMES
    assert sent["dataset"]["value"] == "simulated"
    titles = [title for title, _ in sent["dataset"]["choices"]]
    assert "held-out kinds" in titles[1] and "imagined" in titles[2]


@pytest.mark.parametrize(("name", "trials"), [(NAMES[1], 430), (NAMES[2], 24)])
def test_a_part_opens_with_the_mappers_of_the_study(handlers, name, trials):
    _, sent = visit(handlers, data=name, subject="subj06")
    assert sent["dataset"]["value"] == name and sent["subject"]["value"] == "subj06"
    assert len(sent["subject"]["choices"]) == 6
    assert sent["number"]["label"] == f"of {trials}"
    assert sent["mapper"]["value"] == "ridge (trained on simulated)"
    assert "mixer (trained on simulated)" in sent["mapper"]["choices"]
    assert sent["generator"]["value"] == "pocket-diffusion"
    assert sent["masthead"]["simulated"] and "much noisier" in sent["masthead"]["note"]

"""Whose pictures: a study drawn by a generator that knows other pictures says so, everywhere."""

import json
from dataclasses import replace

import pytest

from backends import GENERATORS
from explorer.drawing import reconstruct, trained_on, whose_pictures
from explorer.evidence.badges import badges
from explorer.figures import provenance_line
from explorer.protocols import TrainedOn
from explorer.records import make_record
from explorer.request import Request, View
from explorer.types import Card, resolve

REQUEST = Request("fake", "sub-01", "test-01", "linear", "painter", scales=(1.0,), steps=2)
SCENES = TrainedOn("the simulated scenes of the embedded study alone", ("simulated",))


@pytest.fixture
def bench_of(make_workbench, fakes):
    """Return what makes a workbench whose generator was trained on something."""

    def made(known, **given):
        painter = type("Painter", (fakes.Generator,), {"trained_on": known})
        return make_workbench(generators={"painter": painter}, **given)

    return made


@pytest.mark.parametrize(
    ("known", "sentence", "doubt"),
    [
        (
            SCENES,
            "painter was trained on the simulated scenes of the embedded study alone: whatever "
            "was decoded from fake is drawn as such pictures.",
            True,
        ),
        (
            TrainedOn("web pictures (LAION-5B)"),
            "painter was trained on web pictures (LAION-5B): what was not decoded is filled in "
            "from those.",
            False,
        ),
        (TrainedOn("its own stimuli", ("other", "fake")), "", False),
        (None, "", False),
    ],
)
def test_the_sentence_stands_in_badge_record_and_figure(known, sentence, doubt, bench_of):
    bench = bench_of(known)
    assert whose_pictures(bench, "painter", "fake") == sentence
    list(reconstruct(bench, REQUEST))
    found = [badge for badge in badges(bench, REQUEST) if badge["label"] == "Generator"]
    assert len(found) == bool(sentence)
    for badge in found:
        ((_, text, share, told),) = badge["choices"]
        assert (text, share, told) == (f"trained on {known.pictures}", None, sentence)
        assert badge["warn"] == doubt
    assert make_record(bench, REQUEST, View())["trained_on"] == sentence
    about = {"dataset": "D", "simulated": False, "averaged": 1, "checkpoints": {}}
    line = provenance_line(REQUEST, **about, trained_on=sentence)
    assert line == provenance_line(REQUEST, **about).replace(
        " Made with", f" {sentence} Made with" if sentence else " Made with"
    )


def test_without_a_generator_nothing_is_said(workbench):
    assert whose_pictures(workbench, "", "fake") == ""
    assert (
        make_record(workbench, replace(REQUEST, generator="unguided"), View())["trained_on"] == ""
    )


def test_weights_fine_tuned_on_a_study_know_it_too(bench_of, tmp_path):
    bench = bench_of(SCENES, sources={"painter": str(tmp_path)})
    assert trained_on(bench, "painter") == SCENES  # other weights, that say nothing
    card = Card("generator", "tuned", "painter", "fake", "made by a test", "CC0")
    (tmp_path / "card.json").write_text(json.dumps(card.to_dict()))
    assert trained_on(bench, "painter").datasets == ("simulated", "fake")
    assert whose_pictures(bench, "painter", "fake") == ""
    assert "decoded from elsewhere is drawn" in whose_pictures(bench, "painter", "elsewhere")


def test_every_generator_that_was_trained_says_on_what():
    classes = {name: resolve(entry) for name, entry in GENERATORS.items()}
    silent = {name for name, cls in classes.items() if not getattr(cls, "trained_on", None)}
    assert silent == {"pixels", "retrieval", "published"}  # they show what is there
    assert classes["pocket-diffusion"].trained_on.foreign("god")
    assert not classes["pocket-diffusion"].trained_on.foreign("simulated")

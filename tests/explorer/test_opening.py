"""What ships for the first look: whole, as the models compute it, and shown without them."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import app
from backends.commands.reconstruct import keep_whole
from explorer.brain.maps import is_mapped, parcel_importance
from explorer.choosing import default_request
from explorer.decoding import decode, is_decoded
from explorer.drawing import reconstruct
from explorer.evidence.badges import badges, kept_badges
from explorer.finished import finished_pictures
from explorer.opening import LIST, SEED, TRIALS, drawn_trials, is_kept, opening_trial
from explorer.request import View
from explorer.store import Store

ROOT = Path(__file__).resolve().parents[2]
# What the page does before anybody waits for a model, and for each trial that ships.
LOOK = """
import json, sys, app
bench = app.open_workbench(app.arguments().parse_args(["--no-store"]))
from explorer.choosing import default_request
from explorer.decoding import decode
from explorer.evidence.badges import kept_badges
from explorer.finished import finished_pictures
from explorer.opening import is_kept, shipped_trials
from explorer.page import brain, trial
from explorer.page.choices import opened
chosen = opened({"utm_source": "x"}, bench)
request, view = chosen.request, chosen.view
trial.opening(request, bench), brain.frame(request, view, bench, "")
trial.decoded(decode(bench, request), request, bench)
told = trial.kept(bench, request, len(finished_pictures(bench, request)))["text"]
names = shipped_trials(bench, request.dataset, request.subject)
asked = [default_request(bench.catalogue, stimulus=name) for name in names]
whole = [name for name, one in zip(names, asked)
         if is_kept(bench, one) and kept_badges(bench, one)]
print(json.dumps({"torch": "torch" in sys.modules, "models": len(bench.models._models),
                  "opened": request.stimulus, "told": told, "names": names, "whole": whole}))
"""


@pytest.fixture(scope="module")
def looked():
    answer = subprocess.run(
        [sys.executable, "-c", LOOK], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return json.loads(answer.stdout.splitlines()[-1])


def test_the_first_trial_is_shown_without_torch(looked):
    assert not looked["torch"] and looked["models"] == 0
    assert looked["opened"] in looked["names"]
    assert looked["told"] == (
        f"5 kept, none drawn now: one of {len(looked['names'])} random trials that ship"
    )


def test_every_trial_that_ships_fits_the_weights_and_data_that_ship(looked):
    """Where this fails, give: python -m backends build-demo --only opening."""
    assert looked["whole"] == looked["names"] and len(looked["names"]) == TRIALS
    size = sum(path.stat().st_size for path in app.OPENING.rglob("*"))
    assert size <= 6_000_000


@pytest.fixture(scope="module")
def benches():
    """Return the app's workbench with what ships, and one that has nothing kept."""
    args = app.arguments().parse_args(["--no-store"])
    shipping = app.open_workbench(args)
    computing = app.open_workbench(args)
    computing.stores, computing.shipped = (), None
    return shipping, computing


def test_the_trials_that_ship_were_drawn_by_their_seed(benches):
    told = json.loads((app.OPENING / LIST).read_text())
    gallery = list(benches[0].catalogue.gallery("simulated", "subj01").index)
    assert told["stimuli"] == drawn_trials(gallery) and told["seed"] == SEED
    assert (told["dataset"], told["subject"]) == ("simulated", "subj01")


def test_what_ships_is_what_the_models_compute(benches):
    """One trial: a change of code that changes pictures, maps or ranks must fail here.

    Then give: python -m backends build-demo --only opening.
    """
    shipping, computing = benches
    name = json.loads((app.OPENING / LIST).read_text())["stimuli"][7]
    request = default_request(shipping.catalogue, stimulus=name)
    kept, made = decode(shipping, request), decode(computing, request)
    assert (kept.rank, kept.n, kept.space, kept.average_of) == (
        *(made.rank, made.n, made.space, made.average_of),
    )
    assert np.allclose(kept.embedding, made.embedding, atol=1e-4)
    assert [n for n, _ in kept.neighbours] == [n for n, _ in made.neighbours]
    assert kept.margin == pytest.approx(made.margin, abs=1e-3)

    kept, made = (parcel_importance(bench, request, View()) for bench in benches)
    scale = np.abs(made.voxels).max()
    assert np.allclose(kept.voxels, made.voxels, atol=1e-3 * scale)
    both = [one.table["enrichment"] for one in (kept, made)]
    assert np.allclose(*both, atol=1e-2, equal_nan=True)
    for measure, ends in made.limits.items():
        assert kept.limits[measure] == pytest.approx(ends, rel=1e-2)
    kept, made = (
        [(one["label"], one["warn"], [choice[1] for choice in one["choices"]]) for one in found]
        for found in (badges(shipping, request), badges(computing, request))
    )
    assert kept == made and len(kept) == 3

    one = replace(request, scales=request.scales[2:3])
    (kept,), (made,) = (
        [frame for frame in reconstruct(bench, one) if frame.done] for bench in benches
    )
    off = np.abs(kept.image.astype(float) - made.image)
    assert off.mean() < 1 and kept.scores == pytest.approx(made.scores, abs=0.01)


# ----------------------------------------------------------------------------- a store of fakes


def test_after_a_restart_a_whole_trial_comes_without_a_model(make_workbench, tmp_path):
    first = make_workbench(store=Store(tmp_path))
    request = default_request(first.catalogue)
    keep_whole(first, request)
    again = make_workbench(store=Store(tmp_path))
    assert is_kept(again, request) and len(finished_pictures(again, request)) == 5
    assert repr(decode(again, request)) == repr(decode(first, request))
    assert badges(again, request) == badges(first, request) != []
    mine, theirs = (parcel_importance(bench, request, View()) for bench in (again, first))
    assert mine.table.equals(theirs.table) and mine.limits == theirs.limits
    assert np.array_equal(mine.voxels, theirs.voxels)
    assert list(again.models._models._values) == []  # nothing was loaded
    integrated = View(method="integrated gradients")
    assert not is_mapped(again, request, integrated)  # another method is another map
    elsewhere = replace(request, stimulus=again.catalogue.gallery("fake", "sub-01").index[-1])
    assert elsewhere == request or not is_decoded(again, elsewhere)


def test_answers_of_other_data_or_weights_are_others(make_workbench, fakes, tmp_path):
    bench = make_workbench(store=Store(tmp_path))
    request = default_request(bench.catalogue)
    keep_whole(bench, request)

    class Louder(fakes.Study):
        def load(self, subject):
            trials = super().load(subject)
            return replace(trials, betas=2 * np.asarray(trials.betas))

    other = make_workbench(store=Store(tmp_path), datasets={"fake": Louder})
    assert not is_decoded(other, request) and kept_badges(other, request) is None
    assert not is_mapped(other, request, View())
    retrained = make_workbench(store=Store(tmp_path))
    retrained.models.mapper_hash = lambda *_: "another"
    assert not is_decoded(retrained, request) and not is_mapped(retrained, request, View())


def test_a_damaged_answer_is_made_again(make_workbench, tmp_path):
    bench = make_workbench(store=Store(tmp_path))
    request = default_request(bench.catalogue)
    keep_whole(bench, request)
    for path in tmp_path.glob("??/*.json.gz"):
        path.write_bytes(path.read_bytes()[:-9])
    again = make_workbench(store=Store(tmp_path))
    assert not is_decoded(again, request) and kept_badges(again, request) is None
    keep_whole(again, request)
    assert is_kept(make_workbench(store=Store(tmp_path)), request)


def test_what_ships_is_never_written(make_workbench, tmp_path):
    bench = make_workbench(store=Store(tmp_path))
    request = default_request(bench.catalogue)
    keep_whole(bench, request)
    (tmp_path / LIST).write_text(
        json.dumps({"dataset": "fake", "subject": "sub-01", "stimuli": [request.stimulus]})
    )
    before = {path: path.stat() for path in tmp_path.rglob("*")}
    picture = next(tmp_path.glob("??/*.png"))
    shipped = make_workbench(shipped=Store(tmp_path, read_only=True))
    assert opening_trial(shipped) == request.stimulus
    keep_whole(shipped, request)
    assert {path: path.stat() for path in tmp_path.rglob("*")} == before
    picture.write_bytes(b"damaged")
    damaged = make_workbench(shipped=Store(tmp_path, read_only=True))
    assert opening_trial(damaged) == "" and picture.exists()
    keep_whole(damaged, request)  # drawn, and kept nowhere
    assert picture.read_bytes() == b"damaged"

"""The handlers without a browser: what is sent when, what a stop keeps, what failures say."""

from __future__ import annotations

import base64
import copy
import io
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from explorer.brain.maps import shown_map
from explorer.brain.parcels import Atlas
from explorer.choosing import default_request
from explorer.decoding import decode
from explorer.page import brain, trial
from explorer.page.pictures import data_uri
from explorer.page.session import Session
from explorer.protocols import Neighbour
from explorer.request import Request, View
from explorer.types import FSAVERAGE5_VERTICES, Label, Parcellation, UserError
from tests.explorer.page.visits import PARTS, click, visit, work


def test_the_ground_truth_is_there_before_any_model_is_asked(handlers: Any) -> None:
    session, sent = visit(handlers, trial="test-05")
    shown = sent["trial"]
    assert shown["trial"]["src"].startswith("data:image/webp;base64,")
    assert [cell["label"] for cell in shown["cells"]][:2] == ["scale 0", "scale 1"]
    assert shown["progress"]["state"] == "waiting"
    assert sent["brain"]["maps"] == {}
    assert sent["masthead"]["link"].startswith("data=fake&subject=sub-01&trial=test-05")
    assert session.wanted


def test_work_sends_rank_then_map_then_pictures(handlers: Any) -> None:
    session, _ = visit(handlers, trial="test-05", scales="1,4")
    sent = work(handlers, session)
    assert sent[0]["trial"]["decoding"]["n"] == 10
    assert set(sent[1]) == {"brain"}
    last = sent[-1]["trial"]
    assert last["progress"]["state"] == "done"
    assert [cell["state"] for cell in last["cells"]] == ["done", "done"]
    assert [name for name, _ in last["cells"][0]["scores"]] == ["PixCorr", "SSIM", "pocket-clip"]
    assert work(handlers, session) == []  # nothing more is wanted


def test_only_another_map_is_sent_when_only_the_method_changes(handlers: Any) -> None:
    session, _ = visit(handlers, trial="test-05")
    work(handlers, session)
    handlers.look(session, click(method="gradient x input"))
    sent = work(handlers, session)
    assert [set(part) for part in sent] == [{"brain"}]
    assert sent[0]["brain"]["view"]["method"] == "gradient x input"
    told = handlers.look(session, click(camera="ventral", nonsense="x"))
    assert set(told) == {"masthead"}
    assert "camera=ventral" in told["masthead"]["link"]
    assert work(handlers, session) == []


def test_a_map_of_voxels_is_sent_before_any_model_is_asked(handlers: Any) -> None:
    session, sent = visit(handlers, trial="test-05", show="ncsnr")
    assert ["ncsnr", "Noise-ceiling SNR"] in sent["brain"]["offered"]
    assert sent["brain"]["heading"] == "How reliable the responses are"
    first, *rest = work(handlers, session)
    shown = first["brain"]
    assert shown["state"] == "done" and set(shown["maps"]) == {"mean"}
    assert shown["vertices"]["left"]["shape"] == [10_242]
    assert {"parcel", "voxels", "known", "mean"} <= set(shown["rows"][0])
    assert all("brain" not in part for part in rest)
    handlers.go_on(session)
    assert all("brain" not in part for part in work(handlers, session))  # it is of no trial
    handlers.look(session, click(shows="importance"))
    (sent,) = work(handlers, session)
    assert set(sent["brain"]["maps"]) == {"enrichment", "share", "mean", "signed"}
    assert sent["brain"]["vertices"] is None


def test_a_map_stays_where_there_is_no_mapper(make_workbench: Any, fakes: SimpleNamespace) -> None:
    from explorer.page.handlers import Handlers

    workbench = make_workbench(mappers={"linear": fakes.Linear})
    ui = SimpleNamespace(**{part: part for part in PARTS})
    handlers = Handlers(workbench, ui, "plotly.js")
    session, _ = visit(handlers, subject="sub-02", show="noise ceiling")
    sent = work(handlers, session)
    assert sent[0]["brain"]["state"] == "done"
    assert "mean of 2 trials" in sent[0]["brain"]["maps"]["mean"]["title"]
    assert [set(part) for part in sent[1:]] == [{"trial"}, {"notices"}]
    assert sent[1]["trial"]["progress"]["state"] == "failed"


@pytest.fixture
def placeless(fakes: SimpleNamespace) -> type:
    """Return the fake study without places, with the ROIs V1 and FFA."""

    class Placeless(fakes.Study):
        def load(self, subject: str) -> Any:
            trials = super().load(subject)
            voxels = trials.subject.voxels
            member = np.arange(voxels.n_voxels) < np.array([[80], [120]])
            rois = Parcellation("ROIs", "masks", (Label("V1"), Label("FFA")), member, voxels.hash)
            voxels = replace(voxels, projection=None, parcellations={"ROIs": rois})
            return replace(trials, subject=replace(trials.subject, voxels=voxels))

    return Placeless


def test_rois_without_places_are_painted_and_the_page_says_where(
    make_workbench: Any, placeless: type
) -> None:
    vertices = np.where(np.arange(FSAVERAGE5_VERTICES) < 500, 0, -1)
    areas = Atlas("areas", (Label("L_V1_ROI", "L"),), vertices)
    request = Request("fake", "sub-01", "test-04", "linear", "painter")
    painted = make_workbench(datasets={"fake": placeless}, atlases=[areas])
    shown = brain.frame(request, View(), painted, "plotly.js")
    assert shown["no_surface"] == "" and shown["atlases"] == ["ROIs on areas", "ROIs"]
    assert shown["note"].startswith("Group location, not this subject's:")
    wanted = {"dataset": "fake", "subject": "sub-01", "atlas": "", "surface": "inflated"}
    payload = brain.surface_server(painted)(wanted)
    left = np.frombuffer(base64.b64decode(payload["left"]["parcel"]["data"]), "<i2")
    assert set(left[:500]) == {0} and set(left[500:]) == {-1}
    plain = brain.frame(request, View(atlas="ROIs"), painted, "plotly.js")
    assert "gives no locations for its 200 voxels" in plain["no_surface"]
    assert (
        "start with --atlas FILE" in plain["no_surface"] and plain["note"] == plain["no_surface"]
    )


def test_voxels_with_places_but_no_atlas_show_their_maps(
    make_workbench: Any, fakes: SimpleNamespace
) -> None:
    class Bare(fakes.Study):
        def load(self, subject: str) -> Any:
            trials = super().load(subject)
            voxels = replace(trials.subject.voxels, parcellations={})
            return replace(trials, subject=replace(trials.subject, voxels=voxels))

    workbench = make_workbench(datasets={"fake": Bare})
    request = Request("fake", "sub-01", "test-04", "linear", "painter")
    assert "places but no atlas" in brain.frame(request, View(), workbench, "")["no_surface"]
    view = View(shows="ncsnr")
    shown = brain.frame(request, view, workbench, "")
    assert shown["no_surface"] == ""
    full = brain.filled(shown, shown_map(workbench, request, view), request, view, workbench)
    assert [row["parcel"] for row in full["rows"]] == ["(unassigned)"]
    values = np.frombuffer(base64.b64decode(full["vertices"]["left"]["data"]), "<f4")
    assert np.isfinite(values).sum() > 100
    wanted = {"dataset": "fake", "subject": "sub-01", "atlas": "", "surface": "inflated"}
    assert brain.surface_server(workbench)(wanted)["parcels"] == []


def test_a_view_that_is_not_on_offer_is_refused(handlers: Any) -> None:
    session, _ = visit(handlers, trial="test-05")
    told = handlers.look(session, click(camera="<b>"))
    assert told["notices"]["notices"][0].startswith("camera is one of lateral")
    assert session.view == View()


def test_a_stop_keeps_finished_pictures_and_ends_the_sweep(
    handlers: Any, fakes: SimpleNamespace
) -> None:
    session, _ = visit(handlers, trial="test-06", seed="11")
    sent = []
    for part in handlers.work(session):
        sent.append(part)
        cells = part.get("trial", {}).get("cells", [])
        if sum(cell["state"] == "done" for cell in cells) == 2:
            painted = fakes.Generator.painted
            stopped = handlers.stop(session)["trial"]
            break
    else:
        pytest.fail("the sweep never had two finished pictures")
    states = [cell["state"] for cell in stopped["cells"]]
    assert states[:2] == ["done", "done"]
    assert set(states[2:]) == {"stopped"}
    assert stopped["progress"]["text"] == "Stopped: 2 of 5 finished"
    assert fakes.Generator.painted == painted
    assert not session.wanted
    handlers.go_again(session)
    assert work(handlers, session)[-1]["trial"]["progress"]["state"] == "done"
    assert fakes.Generator.painted == painted + 3  # finished pictures were not drawn again


def test_work_for_an_earlier_choice_sends_nothing_more(handlers: Any) -> None:
    session, _ = visit(handlers, trial="test-06", seed="12")
    running = handlers.work(session)
    next(running)
    handlers.go_to(session, click(stimulus="test-07"))
    late = list(running)
    assert all("test-06" not in str(part.get("trial", {}).get("trial")) for part in late)
    assert session.shown["trial"]["stimulus"] == "test-07"
    # The browser drops the event of a click while work runs: the same work goes round again.
    assert late[-1]["trial"]["trial"]["stimulus"] == "test-07"
    assert [cell["state"] for cell in session.shown["cells"]] == ["done"] * 5
    assert session.shown["progress"]["state"] == "done"
    assert work(handlers, session) == []


def test_every_browser_gets_a_session_of_its_own() -> None:
    first = Session()
    first.request, first.view = Request("a", "b", "c", "d", "e"), View(category="warm")
    second = copy.deepcopy(first)
    assert second.request is None
    assert second.view.category == ""


def test_a_missing_mapper_is_a_sentence_beside_the_ground_truth(
    make_workbench: Any, tmp_path: Any
) -> None:
    from explorer.page.handlers import Handlers

    bench = make_workbench(checkpoints=tmp_path, mappers={})
    handlers = Handlers(bench, SimpleNamespace(**{part: part for part in PARTS}), "plotly.js")
    session, sent = visit(handlers, trial="test-02")
    assert sent["trial"]["trial"]["src"]
    sent = work(handlers, session)
    failed = sent[0]["trial"]["progress"]
    assert failed["state"] == "failed"
    assert "There is no mapper for fake/sub-01" in failed["text"]
    assert "no mapper" in sent[0]["brain"]["note"]
    handlers.go_on(session)  # the next trial can still be looked at
    assert session.request.stimulus == "test-03"


def test_a_bug_is_raised_for_the_log_and_told_on_the_page(
    handlers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, _ = visit(handlers, trial="test-02")

    def broken(bench: Any, request: Request) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("explorer.page.working.decode", broken)
    running = handlers.work(session)
    told = next(running)
    assert (
        told["trial"]["progress"]["text"] == "This failed for a reason that the app's log gives."
    )
    with pytest.raises(ZeroDivisionError):
        next(running)


def test_pictures_are_the_bytes_that_were_drawn() -> None:
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    kind, _, data = data_uri(image, form="png").partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as read:
        assert np.array_equal(np.asarray(read), image)
    small = data_uri(np.zeros((300, 200, 3), np.uint8), side=60).partition(",")[2]
    with Image.open(io.BytesIO(base64.b64decode(small))) as read:
        assert read.size == (40, 60)


@pytest.mark.parametrize(
    ("rank", "sentence"),
    [(1, "None of 10 test images is closer"), (2, "One of 10 test images is closer"),
     (7, "Of 10 test images, 6 are closer")],
)  # fmt: skip
def test_the_rank_is_told_with_how_many_are_closer(
    workbench: Any, rank: int, sentence: str
) -> None:
    from dataclasses import replace

    request = default_request(workbench.catalogue, "fake", "sub-01", seed=3)
    decoding = replace(decode(workbench, request), rank=rank)
    told = trial.decoded(decoding, request, workbench)
    assert told["sentence"].startswith(sentence)
    assert (told["chance"], told["n"]) == ("5.5", 10)


def test_the_brain_is_small_when_only_the_trial_changes(handlers: Any, workbench: Any) -> None:
    import json

    session, _ = visit(handlers, trial="test-05")
    (value,) = [part["brain"] for part in work(handlers, session) if "brain" in part]
    assert len(json.dumps(value)) < 40_000  # bytes; the mesh alone would be 700,000
    assert set(value["maps"]) == {"enrichment", "share", "mean", "signed"}
    assert {row["parcel"] for row in value["rows"]} == {
        f"{name} {side}"
        for name in ("pericalcarine", "lateraloccipital", "fusiform", "precentral")
        for side in "LR"
    }
    assert sum(row["share"] for row in value["rows"]) == pytest.approx(1, abs=0.01)


def test_a_surface_is_sent_whole_once_and_then_without_its_mesh(workbench: Any) -> None:
    serve = brain.surface_server(workbench)
    wanted = {"dataset": "fake", "subject": "sub-01", "atlas": "Desikan-Killiany"}
    whole = serve({**wanted, "surface": "pial"})
    assert set(whole["left"]) == {"vertices", "faces", "parcel", "background"}
    again = serve({**wanted, "surface": "pial", "parcels_only": True})
    assert again["left"] == {"parcel": whole["left"]["parcel"]}


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (["x"], "A surface is asked for with"),
        (
            {"dataset": "fake", "subject": "sub-01", "atlas": "<b>"},
            "fake/sub-01 has no atlas '<b>'",
        ),
        ({"dataset": "nsd"}, "There is no data set 'nsd'"),
        (
            {"dataset": "fake", "subject": "sub-01", "atlas": "Desikan-Killiany", "surface": "x"},
            "surface is one of",
        ),
    ],
)
def test_a_wrong_wish_for_a_surface_is_a_sentence(
    workbench: Any, wanted: object, sentence: str
) -> None:
    assert brain.surface_server(workbench)(wanted)["problem"].startswith(sentence)


def test_exports_are_named_after_the_trial_and_refuse_other_formats(workbench: Any) -> None:
    from explorer.page import export

    request = default_request(workbench.catalogue, "fake", "sub-01", seed=3, stimulus="test-03")
    table = export.make(workbench, request, View(), "csv")
    assert table.name == "afterimage_fake_sub-01_test-03.csv"
    assert table.content.decode().splitlines()[0].startswith("parcel,name,hemisphere,voxels")
    view = View(shows="ncsnr", surface="flat")
    head, first, *_ = export.make(workbench, request, view, "csv").content.decode().splitlines()
    assert head == "parcel,name,hemisphere,voxels,known,mean,map" and first.endswith(",ncsnr")
    figure = export.make(workbench, request, view, "svg").content.decode()
    assert "signal-to-noise ratio (ncsnr)" in figure and "share of importance" not in figure
    with pytest.raises(UserError, match="An export is one of png, svg, pdf, csv, json"):
        export.make(workbench, request, View(), "exe")


def test_a_note_stands_beside_its_picture_with_its_neighbours(
    make_workbench: Any, fakes: SimpleNamespace
) -> None:
    near = (Neighbour("train-01", "tabby cat", -0.5), Neighbour("cats/1.png", "", 0.25))

    class Found(fakes.Unguided):
        provenance = "retrieved"

        def sweep(self, condition: Any, *args: Any, **options: Any) -> Any:
            for step in super().sweep(condition, *args, **options):
                yield replace(step, note="the nearest of 2", neighbours=near)

    from explorer.page.handlers import Handlers

    workbench = make_workbench(generators={"painter": Found})
    handlers = Handlers(workbench, SimpleNamespace(**{p: p for p in PARTS}), "plotly.js")
    session, sent = visit(handlers, trial="test-05")
    (cell,) = sent["trial"]["cells"]
    assert cell["made"] == "retrieved" and cell["near"] == []
    assert cell["beside"] == "Retrieved photograph, not a reconstruction"
    (cell,) = work(handlers, session)[-1]["trial"]["cells"]
    assert cell["beside"] == "the nearest of 2"
    one, other = cell["near"]
    assert (one["label"], one["similarity"]) == ("tabby cat", "−0.50")
    assert one["src"].startswith("data:image") and other["src"] == ""  # of no stimulus here


# ------------------------------------------------------------------------ options, a second axis


def test_a_long_sweep_is_announced_and_the_time_that_is_left_told(
    handlers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("explorer.page.working.seconds_needed", lambda bench, request: 150.0)
    session, _ = visit(handlers, trial="test-05", scales="1,4")
    texts = [part["trial"]["progress"] for part in work(handlers, session) if "trial" in part]
    told = [progress["text"] for progress in texts]
    assert "This takes about 2 min. Stop keeps what is finished." in told
    before = texts[told.index("This takes about 2 min. Stop keeps what is finished.")]
    assert (before["state"], before["fraction"]) == ("running", 0)
    cells = [{"state": "done", "fraction": 1.0}, {"state": "running", "fraction": 0.0}]
    text = trial.running(cells, 20.0, 0.0, 90.0)["text"]
    assert text == "Reconstructing: 1 of 2 finished, about 20 s left"
    assert trial.running(cells, 1.0, 0.5, 90.0)["text"].endswith(", about 1 min left")
    assert trial.running(cells, 1.0, 0.0, 2.0)["text"] == "Reconstructing: 1 of 2 finished"
    assert [trial.duration(s) for s in (0.2, 7, 33, 70, 3400, 9000)] == [
        *("about 1 s", "about 7 s", "about 35 s", "about 1 min", "about 0.9 h", "about 2.5 h")
    ]

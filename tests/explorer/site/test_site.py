"""A study as a folder of plain files: what lies in it, what does not, and how it comes to be."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from explorer.protocols import Neighbour
from explorer.site import folder, publishing
from explorer.site.group import STEPS, quantised
from explorer.site.pages import AT_ONCE
from explorer.site.plan import Plan
from explorer.site.scripts import SAME, differs, pooled, script
from explorer.types import UserError

PLAN = Plan(
    "fake", ("sub-01",), ("linear",), "painter", (0.0, 2.0), 2, limit=4, controls=2, curves=1
)
ADDRESS = re.compile(r"(?:https?:)?//[\w.-]+\.\w+")


@pytest.fixture(scope="module")
def bench(fakes, fake_checkpoints):
    from explorer.workbench import Workbench

    class Retriever(fakes.Unguided):  # of a control: the nearest training image
        needs = ("dataset",)

        def neighbours(self, condition):
            return (Neighbour("train-03", "", 0.25),)

    return Workbench(
        {"fake": fakes.Study},
        {"pocket-clip": fakes.Embedder},
        {"linear": fakes.Linear},
        {"painter": fakes.Generator, "retriever": Retriever},
        checkpoints=fake_checkpoints,
    )


@pytest.fixture(scope="module")
def site(bench, tmp_path_factory):
    out = tmp_path_factory.mktemp("public") / "site"
    return publishing.publish(bench, PLAN, out, command="python -m backends publish").parent


@pytest.fixture(scope="module")
def hidden(bench, tmp_path_factory):
    out = tmp_path_factory.mktemp("hidden") / "site"
    plan = replace(PLAN, withheld="Picture left out: its licence does not let it be passed on")
    return publishing.publish(bench, plan, out).parent


def taken(site, name):
    """Return the value of a script of data, as a browser takes it."""
    text = (site / "data" / f"{name}.js").read_text("utf-8")
    found = re.fullmatch(r"afterimage\.take\((\"[^\"]*\"),(.*)\);\n", text, re.S)
    assert json.loads(found[1]) == name
    return json.loads(found[2])


def pixels(address):
    """Return the picture of a ``data:`` address."""
    packed = base64.b64decode(address.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(packed)).convert("RGB"), float)


def shown_in(site, fake_picture):
    """Return the study's pictures that a site holds, as files or in scripts, and how many."""
    found, own = set(), {f"test-{i:02d}": fake_picture(f"test-{i:02d}") for i in range(1, 11)}
    own |= {f"train-{i:02d}": fake_picture(f"train-{i:02d}") for i in range(60)}
    pictures = [np.asarray(Image.open(f).convert("RGB"), float) for f in site.rglob("*.webp")]
    for file in (site / "data").rglob("*.js"):
        text = file.read_text("utf-8")
        pictures += map(pixels, re.findall(r"data:image/(?:webp|png);base64,[\w+/=]+", text))
    for picture in pictures:
        for name, truth in own.items():
            if picture.shape == truth.shape and abs(picture - truth).mean() < 12:
                found.add(name)
    return found, len(pictures)


def test_a_site_holds_every_trial_and_says_whose_data_they_are(site):
    index = taken(site, "group0/index")
    assert [row[:2] for row in index["rows"]] == [[f"test-{i:02d}", i] for i in range(1, 5)]
    assert sorted(index["rows"][0][7]) == ["0", "2"]
    assert all((site / index["shown"] / f"{i:04d}.webp").is_file() for i in range(1, 5))
    assert (site / index["thumbs"] / "0003-2.webp").is_file()
    every = taken(site, "site")
    lines = dict(every["lines"])
    assert lines["Licence"] == "CC0" and every["simulated"]
    assert lines["Left out"].startswith(
        "All but 4 of 10 test trials. The controls of all but 2 of 4 trials, evenly spaced. The "
        "sweep curves of all but 1 of 4 trials, evenly spaced."
    )
    assert "mapper" in lines["Weights"] and "quality 88" in lines["Pictures"]
    html = (site / "index.html").read_text("utf-8")
    assert "<b>Licence</b> CC0" in html and "<b>Cite</b> Nobody (2020)" in html
    assert every["groups"][0]["controls"] == [1, 4] and every["groups"][0]["curves"] == [1]
    for kind, number in (("controls", 4), ("curve", 1)):
        assert taken(site, f"group0/{kind}-{number}")["value"]["state"] == "done"
    for score in index["scores"]:
        assert score["sentence"] and score["better"]
    tables = {one["path"]: (site / one["path"]).read_text("utf-8") for one in every["tables"]}
    scores = next(text for path, text in tables.items() if path.endswith("-scores.csv"))
    assert scores.splitlines()[0] == "score,scale,mean,chance,N,better,definition,chance is"
    assert len(scores.splitlines()) > 6


def test_a_trial_is_what_the_page_shows_of_it(site, bench):
    from explorer.brain.maps import parcel_importance
    from explorer.page import brain
    from explorer.site.plan import groups
    from explorer.site.trials import PLOTLY, views

    request = groups(bench, PLAN)[0].requests[2]
    found = taken(site, "group0/trial-3")
    shown = found["value"]["trial"]
    assert [shown["trial"]["src"], *(cell["src"] for cell in shown["cells"])] == [
        {"@": i} for i in range(3)
    ]
    near = {one["stimulus"]: one["src"] for one in shown["decoding"]["neighbours"]}
    assert near["test-03"] == "thumbs/shown0/0003.webp"
    (view,) = views(bench, request, PLAN.methods)
    base = taken(site, "group0/maps")["bases"][f"{view.atlas}|gradient"]
    frame = brain.alone(brain.frame(request, view, bench, PLOTLY))
    assert frame["files"] == []  # no server makes any there
    wanted = brain.with_map(frame, parcel_importance(bench, request, view))
    assert turned(base, found["value"]["maps"][f"{view.atlas}|gradient"]) == json.loads(
        json.dumps(wanted)
    )
    names = taken(site, "group0/maps")["named"][view.atlas].splitlines()
    numbers = found["value"]["csv"][view.atlas].splitlines()
    table = parcel_importance(bench, request, view).table
    assert names[0] == "parcel,name,hemisphere,voxels,small" and len(names) == len(table) + 1
    at = int(table["voxels"].argmax())
    row = dict(zip(numbers[0].split(","), map(float, numbers[at + 1].split(",")), strict=True))
    assert row == pytest.approx({k: table[k].iloc[at] for k in row}, rel=1e-5) and len(row) == 4


def turned(base, change):
    """Do what ``changed`` of ``assets/page/site.js`` does."""
    if isinstance(change, list):
        return change[0]
    if "|" in change:
        columns = change["|"]
        return [row | {k: c[i] for k, c in columns.items()} for i, row in enumerate(base)]
    return dict(base) | {key: turned(base[key], part) for key, part in change.items()}


def test_nothing_of_a_site_lies_elsewhere_and_every_script_is_there(site):
    for file in site.rglob("*"):
        if file.suffix in (".html", ".css", ".js") and file.name != "plotly.min.js":
            text = file.read_text("utf-8")
            found = set(ADDRESS.findall(text)) - {"http://www.w3.org", "https://www.w3.org"}
            assert not found, f"{file.name}: {found}"
            assert "fetch(" not in text and 'type="module"' not in text and "import(" not in text
    html = (site / "index.html").read_text("utf-8")
    named = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert named and all((site / name).is_file() for name in named)


def test_little_is_read_before_the_first_picture(site):
    page = [f"page/{name}.js" for name in ("site", *AT_ONCE)] + ["page/page.css", "index.html"]
    frame = sum((site / name).stat().st_size for name in [*page, "data/site.js"])
    index = taken(site, "group0/index")
    rows = len(json.dumps(index.pop("rows"))) / 4
    assert frame + len(json.dumps(index)) + 300 * rows < 300_000


def test_a_caption_is_text_wherever_it_stands(site):
    caption = "<b>bold</b> ${alert(1)} {{value}}"
    assert taken(site, "group0/index")["rows"][2][2] == caption
    for file in [*(site / "data").rglob("*.js"), site / "index.html"]:
        assert "<b>bold" not in file.read_text("utf-8"), file
    assert script("x", {"a": "</script>\u2028"}) == (
        b'afterimage.take("x",{"a":"\\u003c/script>\\u2028"});\n'
    )


def test_pictures_that_may_not_be_passed_on_are_nowhere(site, hidden, fakes):
    found, _ = shown_in(site, fakes.picture)
    there = {f"test-{i:02d}" for i in range(1, 5)} | {"train-03"}
    assert found >= there  # the search finds what is there
    found, count = shown_in(hidden, fakes.picture)
    assert found == set() and count > 8
    lines = dict(taken(hidden, "site")["lines"])
    assert lines["Left out"].startswith("Picture left out: its licence does not let it be passed")
    assert not any(row[5] for row in taken(hidden, "group0/index")["rows"])
    assert not list(hidden.glob("thumbs/shown*"))


def test_values_point_at_pictures_and_say_what_differs():
    picture, other = "data:image/webp;base64,AAAA", "data:image/webp;base64,BBBB"
    first, second = {"@": 0}, {"@": 1}
    assert pooled({"a": [picture, other], "b": (picture, "@0")}) == {
        "pictures": [picture, other],
        "value": {"a": [first, second], "b": [first, "@0"]},
    }
    base = {"maps": {"mean": [1, 2]}, "rows": [{"x": 1, "y": 2}, {"x": 3, "y": 4}], "n": 1}
    for value in (
        {"maps": {"mean": [1, 3]}, "rows": [{"x": 1, "y": 2}, {"x": 0, "y": 4}], "n": 1},
        {"maps": {"mean": [1, 2]}, "rows": [{"x": 1, "y": 2}], "n": True},
        {"maps": None, "rows": [], "n": 1},
    ):
        assert turned(base, differs(base, value)) == value
    assert differs(base, {"maps": {"mean": [1, 2]}, "rows": base["rows"], "n": 2}) == {"n": [2]}
    assert differs(base, dict(base)) is SAME


def test_coordinates_keep_their_place():
    values = np.random.default_rng(0).normal(0, 60, (50, 3)).astype("<f4")
    data = base64.b64encode(values.tobytes()).decode()
    found = quantised({"dtype": "float32", "shape": [50, 3], "data": data})
    steps = np.frombuffer(base64.b64decode(found["data"]), "<i2")
    error = abs(steps * found["unit"] - values.ravel()).max()
    assert error <= 0.5 * abs(values).max() / STEPS * 1.001


def test_a_site_takes_no_place_of_others_files(bench, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files than a site made here"):
        publishing.publish(bench, PLAN, tmp_path)
    with pytest.raises(UserError, match="is a file or a link"):
        publishing.publish(bench, PLAN, tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_site_is_there_whole_or_not_at_all(bench, tmp_path, monkeypatch):
    out = tmp_path / "site"
    with folder.new_site(out, {"data": "first"}) as fresh:
        (fresh / "index.html").write_text("first")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publishing, "write_page", full)
    with pytest.raises(OSError, match="No space left"):
        publishing.publish(bench, replace(PLAN, limit=1, controls=0, curves=0), out)
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
    assert (out / "index.html").read_text() == "first"


def test_what_a_killed_process_left_is_put_right(tmp_path):
    out, said = tmp_path / "site", []
    for name, text in (("half", "new"), ("former", "old")):
        with folder.new_site(tmp_path / name, {}) as fresh:
            (fresh / "index.html").write_text(text)
    (tmp_path / "half").rename(tmp_path / ".site.abcd1234")
    (tmp_path / "former").rename(tmp_path / ".site.abcd1234.old")
    other = tmp_path / ".site.ffff0000"
    other.mkdir()
    assert folder.clear(out) == [
        "A site was cut off before it was whole: .site.abcd1234 is removed.",
        f"A site was cut off while it took its place: the former {out} is back.",
    ]
    assert (out / "index.html").read_text() == "old" and other.is_dir()
    with folder.new_site(out, {}, said.append) as fresh:
        (fresh / "index.html").write_text("second")
    assert (out / "index.html").read_text() == "second" and said == []


def test_a_plan_is_refused_in_a_sentence(bench, tmp_path):
    for wrong, match in (
        ({"limit": 0}, "--limit is 1 or more test trials, found 0"),
        ({"controls": -1}, "--controls is 0 or more trials, found -1"),
        ({"methods": ("guess",)}, "--method is one of gradient, .*, found 'guess'"),
    ):
        with pytest.raises(UserError, match=match):
            replace(PLAN, **wrong)
    with pytest.raises(UserError, match="no mapper|flow"):
        publishing.publish(bench, replace(PLAN, mappers=("flow",)), tmp_path / "site")
    assert list(tmp_path.iterdir()) == []


def test_a_study_without_places_and_with_other_scores_has_a_site_too(fakes, tmp_path):
    from explorer.workbench import Workbench

    class Nowhere(fakes.Study):
        def load(self, subject):
            trials = super().load(subject)
            voxels = replace(trials.subject.voxels, projection=None, parcellations={})
            return replace(trials, subject=replace(trials.subject, voxels=voxels))

    made = {"ridge": fakes.Linear}, {"unguided": fakes.Unguided}
    bench = Workbench({"fake": Nowhere}, {"other": fakes.Embedder}, *made, checkpoints=tmp_path)
    plan = Plan("fake", ("sub-01",), ("ridge (fitted now)",), "unguided", limit=2, curves=1)
    site = publishing.publish(bench, plan, tmp_path / "site").parent
    index = taken(site, "group0/index")
    assert index["keys"]["picture"] == ["PixCorr", "SSIM"] and len(index["rows"]) == 2
    base = taken(site, "group0/maps")["bases"]["|gradient"]
    assert base["no_surface"].startswith("No surface") and len(base["rows"]) == 1
    assert not (site / "data" / "surfaces").exists()
    assert "has no guidance" in taken(site, "group0/curve-1")["value"]["sentence"]

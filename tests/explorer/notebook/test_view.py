"""A trial's view in a notebook: one text, nothing from elsewhere, words that stay words."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re

import pytest

from explorer.brain.display import surface_payload
from explorer.page.parts import plotly_script
from explorer.request import SURFACES
from explorer.types import UserError


@pytest.fixture(scope="module")
def view(study):
    return study.trial("test-03").show()  # whose caption is <b>bold</b> ${alert(1)} {{value}}


def test_the_view_is_one_text_without_foreign_addresses(view):
    own = re.sub(r"<script>afterimage.take.*?</script>", "", view.document, flags=re.DOTALL)
    assert not re.search(r"""(src|href|url\()\s*=?\s*["']?(https?:)?//""", own)
    assert "<b>bold" not in own and "&lt;b&gt;bold" in own
    assert view.document.count("<script>") == view.document.count("</script>") == 7


def test_the_view_holds_what_the_page_shows_of_the_trial(study, view):
    taken = re.search(r'afterimage.take\("trial",(.*?)\);\n</script>', view.document, re.DOTALL)
    value = json.loads(taken[1])["value"]
    shown, trial = value["trial"], study.trial("test-03")
    assert shown["trial"]["stimulus"] == "test-03" and len(shown["cells"]) == 5
    assert all(cell["state"] == "done" for cell in shown["cells"])
    assert shown["decoding"]["rank"] == trial.decoding.rank
    assert value["brain"]["methods"] == ["gradient"] and value["brain"]["files"] == []
    weighed = {row["parcel"]: row["enrichment"] for row in value["brain"]["rows"]}
    table = trial.importance().table.set_index("parcel")["enrichment"]
    assert all(weighed[key] == pytest.approx(table[key], rel=1e-3) for key in weighed)
    assert ["Licence", "CC0"] in value["lines"]


def test_the_surface_comes_packed_with_what_draws_it(study, view):
    taken = re.search(r'afterimage.take\("packed",(.*?)\);\n</script>', view.document, re.DOTALL)
    packed = {k: gzip.decompress(base64.b64decode(v)) for k, v in json.loads(taken[1]).items()}
    assert packed["plotly"] == plotly_script().read_bytes()
    parcellation = study.voxels.parcellations[study.atlases[0]]
    found = json.loads(packed["surfaces"])
    assert list(found) == list(SURFACES)
    assert found["flat"] == surface_payload(parcellation, study.voxels, "flat")


def test_a_notebook_gets_a_frame_with_the_document_inside(view, study):
    frame = view._repr_html_()
    assert html.unescape(re.search(r'srcdoc="([^"]*)"', frame)[1]) == view.document
    assert 'data-fit="yes"' in frame and "<script" not in frame
    fixed = study.trial("test-03").show(brain=False, height=500)
    assert "height:500px" in fixed._repr_html_() and "data-fit=" not in fixed._repr_html_()
    assert 'take("packed"' not in fixed.document and len(fixed.document) < 400_000


def test_a_view_is_saved_whole_and_only_as_html(view, tmp_path):
    path = view.save(tmp_path / "trial.html")
    assert path.read_text("utf-8") == view.document
    with pytest.raises(UserError, match="saved as .html, found 'trial.png'"):
        view.save(tmp_path / "trial.png")
    with pytest.raises(UserError, match="cannot be written"):
        view.save(path / "trial.html")

"""Figure, table and record as endpoints: of what a link shows, and what is no such link."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from explorer import records
from explorer.brain.maps import parcel_importance
from explorer.drawing import reconstruct
from explorer.finished import finished_pictures
from explorer.page import export
from explorer.records import make_record
from explorer.request import Request, View
from tests.explorer.page.serving import OLD_NAME

pytestmark = OLD_NAME
LINK = "data=fake&subject=sub-01&trial=test-04&scales=0,3&seed=9&map=gradient&measure=share"
REQUEST = Request(
    "fake", "sub-01", "test-04", "linear", "painter", scales=(0.0, 3.0), steps=4, seed=9
)


def content(address: str) -> tuple[str, bytes]:
    """Return kind and bytes of a data address."""
    head, _, data = address.partition(",")
    return head, base64.b64decode(data)


def test_figure_table_and_record_are_of_what_the_link_shows(
    client: Any, workbench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = client.predict(f"?{LINK}", api_name="/figure")
    assert drawn["name"] == "afterimage_fake_sub-01_test-04.png"
    assert "scales=0,3" in drawn["link"] and "measure=share" in drawn["link"]
    assert len(finished_pictures(workbench, REQUEST)) == 2  # drawn for the figure
    head, data = content(drawn["figure"])
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "PNG" and len(np.unique(np.asarray(picture))) > 100
    seen = []
    monkeypatch.setattr(export, "_figure", lambda *asked: seen.append(asked[1:]) or b"drawn")
    for form, kind in export.FIGURES.items():
        told = client.predict(LINK, form=form, api_name="/figure")
        assert content(told["figure"]) == (f"data:{kind};base64", b"drawn")
        assert told["name"].endswith(f"test-04.{form}")
        assert seen.pop() == (REQUEST, View(measure="share"), form)

    table = client.predict(LINK, api_name="/table")
    read = pd.read_csv(io.StringIO(table["csv"]), keep_default_na=True)
    own = parcel_importance(workbench, REQUEST, View()).table
    assert list(read["parcel"]) == list(own["parcel"])
    np.testing.assert_allclose(read["share"], own["share"])
    assert table["name"].endswith("test-04.csv")

    told = client.predict(f"http://127.0.0.1:7860/?{LINK}", api_name="/record")
    assert told["record"]["scores"] == make_record(workbench, REQUEST, View())["scores"]
    assert [one["scale"] for one in told["record"]["scores"]] == [0, 3]
    assert records.from_record(told["record"]) == (REQUEST, View(measure="share"))

    for endpoint in ("/figure", "/table", "/record"):
        for link, sentence in (
            ("data=fake", "A link names what it shows, such as trial=NAME; found “data=fake”"),
            ("", "A link names what it shows"),
            ("trial=test-99", "no test trial “test-99”"),
            ("trial=test-04&scales=x", "found “x”"),
            ("trial=test-04&colour=red", "“colour” means nothing here"),
        ):
            with pytest.raises(Exception, match=sentence):
                client.predict(link, api_name=endpoint)
    with pytest.raises(Exception, match="A figure is one of png, svg, pdf, found “csv”"):
        client.predict(LINK, form="csv", api_name="/figure")


def test_a_record_has_the_same_scores_whatever_was_drawn_before(workbench: Any) -> None:
    from explorer.page.api import Pictures

    fresh = Pictures(workbench).record(LINK)["record"]
    list(reconstruct(workbench, REQUEST))
    assert Pictures(workbench).record(LINK)["record"]["scores"] == fresh["scores"]
    assert len(fresh["scores"]) == 2

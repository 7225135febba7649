"""The named endpoints, asked as another program would, over HTTP."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from explorer.choosing import default_request
from explorer.decoding import decode
from explorer.drawing import reconstruct
from tests.explorer.page.serving import OLD_NAME

pytestmark = OLD_NAME


def test_the_endpoints_answer_what_the_workbench_says(client: Any, workbench: Any) -> None:
    listed = client.predict(api_name="/trials")
    assert (listed["dataset"], listed["subject"]) == ("fake", "sub-01")
    assert listed["mappers"] == {"linear": ["painter", "unguided"]}
    assert [row["stimulus"] for row in listed["trials"]] == [f"test-{i:02d}" for i in range(1, 11)]
    assert listed["trials"][2]["caption"] == "<b>bold</b> ${alert(1)} {{value}}"

    drawn = client.predict("test-04", scales="0, 3", seed=9, repeat=2, api_name="/reconstruct")
    request = default_request(
        workbench.catalogue, "fake", "sub-01", stimulus="test-04", scales=(0, 3), repeats=(1,)
    )
    request = replace(request, seed=9)
    decoding = decode(workbench, request)
    assert drawn["retrieval"]["rank"] == decoding.rank
    assert drawn["retrieval"]["chance"] == 5.5
    assert [image["scale"] for image in drawn["images"]] == [0, 3]
    finished = [frame for frame in reconstruct(workbench, request) if frame.done]
    for sent, frame in zip(drawn["images"], finished, strict=True):
        data = base64.b64decode(sent["image"].partition(",")[2])
        with Image.open(io.BytesIO(data)) as picture:
            assert np.array_equal(np.asarray(picture), frame.image)
        assert sent["scores"] == pytest.approx(dict(frame.scores))
    assert "trial=test-04" in drawn["link"]
    assert "scales=0,3" in drawn["link"]

    assert all(image["provenance"] == "generated" for image in drawn["images"])
    grid = client.predict(
        *("test-04", "", "", "", "", "0, 3"),
        **{"options": "contrast=0.5", "axis": "seed", "values": "9, 1"},
        api_name="/reconstruct",
    )
    assert [(image["seed"], image["scale"]) for image in grid["images"]] == [
        *((9, 0), (9, 3), (1, 0), (1, 3))
    ]
    assert len({image["image"] for image in grid["images"] + drawn["images"]}) == 6
    assert "&axis=seed&values=9,1&option.contrast=0.5&" in grid["link"]

    weighed = client.predict("test-04", method="gradient x input", api_name="/importance")
    assert weighed["atlas"] == "Desikan-Killiany"
    assert weighed["n_voxels"] == 200
    shares = [parcel["share"] for parcel in weighed["parcels"] if parcel["voxels"]]
    assert sum(shares) == pytest.approx(1)

    rests = client.predict("test-04", repeat=2, api_name="/attention")
    assert np.shape(rests["cells"]) == (8, 8) and rests["method"] == "occlusion"
    assert rests["similarity"] == pytest.approx(decoding.similarity)

    told = client.predict("ncsnr", api_name="/map")
    assert told["maps"] == ["noise ceiling", "ncsnr", "parcels"]
    subject = workbench.catalogue.trials("fake", "sub-01").subject
    masks = subject.voxels.parcellations["Desikan-Killiany"].masks()
    for parcel, mask in zip(told["parcels"], masks, strict=True):
        assert parcel["known"] == parcel["voxels"] == mask.sum()
        if mask.any():
            assert parcel["mean"] == pytest.approx(subject.ncsnr[mask].mean())
    assert client.predict(api_name="/map")["title"].endswith("(mean of 2 trials)")
    assert client.predict("parcels", api_name="/map")["parcels"][0]["mean"] is None

    for arguments, endpoint, sentence in (
        ({"show": "importance"}, "/map", "ask /importance for it"),
        ({"show": "fame"}, "/map", "no map 'fame' of its voxels; choose one of importance, noise"),
        ({"trial": "test-99"}, "/reconstruct", "no test stimulus 'test-99'"),
        ({"trial": "test-04", "scales": "x"}, "/reconstruct", "found “x”"),
        ({"trial": "test-04", "repeat": 5}, "/reconstruct", "no repeat 5"),
        ({"trial": "test-04", "generator": "dream"}, "/reconstruct", "no generator 'dream'"),
        ({"trial": "test-04", "method": "magic"}, "/importance", "method is one of"),
        ({"trial": "test-04", "options": "contrast"}, "/reconstruct", "found “contrast”"),
        ({"trial": "test-04", "options": "contrast=x"}, "/reconstruct", "found “x”"),
        (
            {"trial": "test-04", "options": "contrast=9"},
            "/reconstruct",
            "between 0 and 2, found 9",
        ),
        ({"trial": "test-04", "values": "1"}, "/reconstruct", "nothing that they are of"),
        ({"trial": "test-04", "axis": "hue", "values": "1"}, "/reconstruct", "cannot vary 'hue'"),
        ({"trial": "test-04", "rois": "V1"}, "/reconstruct", "no parcel 'V1' with voxels"),
        ({"trial": "test-04", "samples": 4}, "/reconstruct", "no samples of the mapper linear"),
        (
            {"trial": "test-04", "steps": 1.5},
            "/reconstruct",
            "steps is a whole number, found “1",
        ),
        ({"trial": "test-04", "samples": 1.5}, "/reconstruct", "samples is a whole number, found"),
        ({"trial": "test-04", "repeat": 1.5}, "/importance", "repeat is a whole number, found"),
        ({"trial": "test-04", "seed": "x"}, "/controls", "seed is a whole number, found “x”"),
        ({"trial": "test-04", "scale": "x"}, "/controls", "scale is a number, found “x”"),
        ({"trial": ["test-04"]}, "/reconstruct", "trial is text, found"),
        ({"trial": "test-99"}, "/attention", "no test stimulus 'test-99'"),
        ({"dataset": "nsd"}, "/trials", "no data set 'nsd'"),
    ):
        with pytest.raises(Exception, match=sentence):
            client.predict(**arguments, api_name=endpoint)


def test_only_the_endpoints_are_public_and_documented(client: Any) -> None:
    shown = client.view_api(return_format="dict", print_info=False)
    named = {"/trials", "/reconstruct", "/importance", "/attention", "/map"}
    named |= {"/controls", "/lesion", "/compare", "/curve", "/statistics", "/evaluation"}
    named |= {"/figure", "/table", "/record", "/identity", "/drivers", "/steps"}
    named |= {"/map_file", "/sheet"}
    assert set(shown["named_endpoints"]) == named
    assert shown["unnamed_endpoints"] == {}
    reconstruct = shown["named_endpoints"]["/reconstruct"]
    kinds = {p["parameter_name"]: p["python_type"]["type"] for p in reconstruct["parameters"]}
    assert kinds == {
        "trial": "str",
        **dict.fromkeys(("dataset", "subject", "mapper", "generator", "scales", "space"), "str"),
        **dict.fromkeys(("options", "axis", "values", "rois", "roi_atlas"), "str"),
        **dict.fromkeys(("steps", "seed", "repeat", "samples"), "int"),
    }
    assert "guidance scales" in reconstruct["description"]

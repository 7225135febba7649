"""Links, pickers and records settle on what is on offer, and say what they replaced."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

import pytest

from explorer.choosing import default_request
from explorer.page import links
from explorer.page.choices import Choices, repeats_of, settle
from explorer.request import Request, View
from explorer.types import UserError


def wanted(query: str) -> dict[str, str]:
    return dict(parse_qsl(query))


SHOWN = Request("fake", "sub-01", "test-04", "linear", "painter", steps=4)


def test_a_query_is_readable() -> None:
    view = View(method="gradient x input", parcel="fusiform L")
    assert links.query(SHOWN, view) == (
        "data=fake&subject=sub-01&trial=test-04&mapper=linear&generator=painter"
        "&scales=0,1,2,4,8&steps=4&seed=0&repeats=average"
        "&map=gradient+x+input&measure=enrichment&parcel=fusiform+L"
    )


@pytest.mark.parametrize(
    ("request_", "view"),
    [
        (SHOWN, View()),
        (
            Request(
                "fake",
                "sub-01",
                "test-10",
                "linear",
                "painter",
                scales=(0.1234567891, 30.0, 7.5),
                steps=100,
                seed=2**31 - 1,
                repeats=(1,),
                options=(("contrast", 1.25),),
                axis="seed",
                values=(3, 1),
                rois=("fusiform L", "precentral R"),
                roi_atlas="Desikan-Killiany",
            ),
            View(
                method="gradient x input",
                target="fixed direction",
                atlas="Desikan-Killiany",
                measure="signed",
                surface="flat",
                hemisphere="right",
                camera="ventral",
                parcel="pericalcarine R",
                shows="noise ceiling",
                threshold=12.5,
                sequential="viridis",
                diverging="vik",
                outlines="Desikan-Killiany",
            ),
        ),
        (Request("fake", "sub-02", "test-01", "ridge (fitted now)", "unguided", steps=1), View()),
    ],
)
def test_a_link_brings_back_what_made_it(workbench: Any, request_: Request, view: View) -> None:
    settled = settle(wanted(links.query(request_, view)), workbench)
    assert settled == Choices(request_, view, ())


def test_nothing_wanted_is_a_random_trial_with_the_first_of_everything(workbench: Any) -> None:
    settled = [settle({}, workbench) for _ in range(12)]
    first = settled[0].request
    assert (first.dataset, first.subject, first.mapper) == ("fake", "sub-01", "linear")
    assert (first.generator, first.steps, first.scales) == ("painter", 4, (0, 1, 2, 4, 8))
    assert len({choices.request.stimulus for choices in settled}) > 1
    assert all(choices.notices == () for choices in settled)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("data=nsd", "This app has no data set “nsd”; showing fake."),
        ("subject=sub-99", "fake has no subject “sub-99”; showing sub-01."),
        ("mapper=mlp", "fake/sub-01 has no mapper “mlp”; showing linear."),
        ("generator=dream", "The mapper linear has no generator “dream”; showing painter."),
        ("scales=abc", "Guidance scales are numbers such as 0, 1, 2, 4, 8; found “abc”. "
                       "Showing scales 0, 1, 2, 4, 8."),
        ("scales=1e9", "A guidance scale lies between 0 and 30, found 1e+09. "
                       "Showing scales 0, 1, 2, 4, 8."),
        ("scales=nan", "A guidance scale lies between 0 and 30, found nan. "
                       "Showing scales 0, 1, 2, 4, 8."),
        ("scales=" + ",".join(map(str, range(200))),
         "Give 1 to 16 guidance scales, found 200. Showing scales 0, 1, 2, 4, 8."),
        ("steps=many", "The number of steps is a whole number, found “many”. Showing steps 4."),
        ("steps=1e9", "The number of steps lies between 1 and 100, found 1000000000. "
                      "Showing steps 4."),
        ("seed=1.5", "The seed is a whole number, found “1.5”. Showing seed 0."),
        ("seed=inf", "The seed is a whole number, found “inf”. Showing seed 0."),
        ("repeats=3", "This trial has the repeats 1, 2, or their average; found 3. "
                      "Showing repeats average."),
        ("repeats=all", "A repeat is a whole number, found “all”. Showing repeats average."),
        ("map=magic", "There is no importance method “magic”; using gradient."),
        ("show=fame", "There is no map of this subject “fame”; using importance."),
        ("measure=size", "There is no measure “size”; using enrichment."),
        ("target=fame", "There is no target “fame”; using retrieval margin."),
        ("target=log-likelihood",
         "There is no target “log-likelihood”; using retrieval margin."),
        ("surface=sphere", "There is no surface “sphere”; using inflated."),
        ("hemisphere=none", "There is no hemisphere “none”; using both."),
        ("camera=below", "There is no camera “below”; using posterior."),
        ("atlas=Glasser", "There is no atlas “Glasser”; using Desikan-Killiany."),
        ("parcel=V1", "There is no parcel “V1” in this atlas."),
        ("option.contrast=3", "contrast lies between 0 and 2, found 3; using 1."),
        ("option.contrast=x", "contrast is a number, found “x”; using 1."),
        ("option.speed=1", "The generator painter has no option “speed”; left out."),
        ("axis=hue", "Rows cannot vary “hue” with the generator painter, but seed, contrast; "
                     "showing one row."),
        ("rois=V1", "There is no parcel “V1” with voxels in this atlas; left out."),
        ("colour=red", "The link's “colour” means nothing here and was left out."),
        ("subject=<b>${x}</b>", "fake has no subject “<b>${x}</b>”; showing sub-01."),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_and_the_rest_kept(
    workbench: Any, query: str, sentence: str
) -> None:
    settled = settle({"trial": "test-04"} | wanted(query), workbench)
    assert settled.notices == (sentence,)
    assert settled.request == SHOWN
    assert settled.view == View()


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("axis=seed&values=x", "Values of seed are numbers such as 0, 1, 2; found “x”."),
        ("axis=contrast&values=1,9", "contrast lies between 0 and 2, found 9."),
        (f"axis=seed&values={','.join('012345678')}", "Give 1 to 8 values of seed, a row each; "),
    ],
)
def test_rows_with_a_wrong_value_are_the_usual_ones(
    workbench: Any, query: str, sentence: str
) -> None:
    settled = settle({"trial": "test-04"} | wanted(query), workbench)
    axis = query[5 : query.index("&")]
    (notice,) = settled.notices
    assert notice.startswith(sentence) and notice.endswith(f" Showing {axis} 0, 1, 2.")
    assert settled.request == replace(SHOWN, axis=axis, values=(0, 1, 2))


@pytest.mark.parametrize(
    ("query", "notice"),
    [
        ("threshold=-1", "The threshold is a number from 0, found '-1'. Using 0."),
        ("threshold=nan", "The threshold is a number from 0, found 'nan'. Using 0."),
        ("threshold=much", "The threshold is a number from 0, found 'much'. Using 0."),
        ("colours=jet", "There is no colour map “jet”; using YlOrRd."),
        ("signed_colours=viridis", "There is no colour map of both signs “viridis”; using RdBu."),
        ("outlines=nothing", "There is no atlas to outline, “nothing”; using none."),
    ],
)
def test_a_look_that_is_not_on_offer_is_told(workbench: Any, query: str, notice: str) -> None:
    settled = settle({"trial": "test-04"} | wanted(query), workbench)
    assert settled.notices == (notice,) and settled.view == View()


def test_an_unknown_trial_is_replaced_by_one_that_exists(workbench: Any) -> None:
    settled = settle({"trial": "train-01"}, workbench)
    drawn = settled.request.stimulus
    assert drawn in workbench.catalogue.gallery("fake", "sub-01").index
    sentence = f"fake/sub-01 has no test trial “train-01”; showing {drawn}."
    assert settled.notices == (sentence,)


def test_a_long_or_broken_value_stays_on_one_line_of_a_sentence(workbench: Any) -> None:
    settled = settle({"data": "x" * 5000 + "\n<script>"}, workbench)
    assert settled.notices == (f"This app has no data set “{'x' * 39}…”; showing fake.",)


def test_keys_of_gradio_and_of_counters_are_not_told(workbench: Any) -> None:
    query = {"__theme": "dark", "view": "api", "utm_source": "mail", "session_hash": "a", "": "b"}
    assert settle(query | {"trial": "test-04", "subject": ""}, workbench).notices == (
        "The link's “” means nothing here and was left out.",
    )


def test_a_changed_subject_keeps_what_the_other_offers_too(workbench: Any) -> None:
    before = Choices(
        Request("fake", "sub-01", "test-07", "linear", "painter", (1.0, 3.0), 9, 5, (1,)),
        View(measure="share", parcel="fusiform L", camera="ventral"),
    )
    settled = settle({"subject": "sub-02"}, workbench, before)
    assert settled.request == Request(
        "fake", "sub-02", "test-07", "ridge (fitted now)", "painter", (1.0, 3.0), 9, 5, (1,)
    )
    assert settled.view == before.view
    assert settled.notices == ()


def test_another_mapper_brings_its_own_targets(make_workbench: Any, fakes: Any) -> None:
    dense = type("Dense", (fakes.Linear,), {"log_prob": None})
    bench = make_workbench(mappers={"linear": dense, "ridge": fakes.Linear})
    before = settle({"trial": "test-04", "target": "log-likelihood"}, bench)
    assert before.view == View(target="log-likelihood") and before.notices == ()
    after = settle({"subject": "sub-02"}, bench, before)  # whose ridge gives no density
    assert after.view == View() and after.notices == ()


def test_another_generator_brings_its_own_steps(workbench: Any) -> None:
    before = Choices(Request("fake", "sub-01", "test-07", "linear", "painter", steps=33))
    settled = settle({"generator": "unguided"}, workbench, before)
    assert (settled.request.generator, settled.request.steps) == ("unguided", 1)


def test_a_subject_without_a_mapper_can_still_be_looked_at(
    make_workbench: Any, tmp_path: Any
) -> None:
    bare = make_workbench(checkpoints=tmp_path, mappers={})
    settled = settle({"trial": "test-02", "mapper": "linear"}, bare)
    assert (settled.request.mapper, settled.request.generator) == ("", "")
    assert settled.notices == ("fake/sub-01 has no mapper “linear”; none fits.",)
    assert settle(wanted(links.query(settled.request, settled.view)), bare).notices == ()


def test_repeats_are_those_of_the_test_trials(workbench: Any, fakes: SimpleNamespace) -> None:
    class LateRepeats(fakes.Study):
        def load(self, subject: str) -> Any:
            trials = super().load(subject)
            trials.table.loc[trials.table["split"] == "test", "repeat"] += 6
            return trials

    late = type(workbench)(
        {"fake": LateRepeats}, {}, {}, {}, checkpoints=workbench.catalogue.checkpoints
    )
    request = default_request(late.catalogue, "fake", "sub-01", seed=1)
    assert repeats_of(late, request) == [6, 7]
    assert settle({"repeats": "8"}, late).request.repeats == (7,)
    assert settle({"repeats": "1"}, late).notices[0].startswith("This trial has the repeats 7, 8")


@pytest.mark.parametrize(
    ("text", "scales"),
    [("0, 1, 2, 4, 8", (0, 1, 2, 4, 8)), (" 7.5;1e0  2\n", (7.5, 1, 2)), ("3,", (3,))],
)
def test_scales_are_read_as_people_write_them(text: str, scales: tuple[float, ...]) -> None:
    assert links.parse_scales(text) == scales


def test_no_scales_at_all_are_refused() -> None:
    with pytest.raises(UserError, match="the field is empty"):
        links.parse_scales(" , ")


@pytest.mark.parametrize("scale", [0.0, 1.0, 7.5, 0.1, 1 / 3, 29.999999999, 1e-7])
def test_a_scale_is_written_with_all_its_digits(scale: float) -> None:
    assert links.parse_scales(links.format_number(scale)) == (scale,)


def test_a_record_is_read_or_refused_in_a_sentence() -> None:
    assert links.parse_record(json.dumps({"afterimage": 1})) == {"afterimage": 1}
    for text, sentence in (
        ("<b>", "The file is not JSON"),
        ("[1]", "The file holds no record"),
        ("[" * 100_000, "The file is not JSON"),
        ("x" * 200_001, "at most 200000 characters, found 200001"),
    ):
        with pytest.raises(UserError, match=sentence):
            links.parse_record(text)


def test_lists_are_parted_by_semicolons_and_numbers_and_options_by_commas_too() -> None:
    for text in ("contrast=0.5; candidates=4", "contrast=0.5,candidates=4"):
        found = links.parse_options(text)
        assert found == {"option.contrast": "0.5", "option.candidates": "4"}
    assert links.parse_scales("0; 1.5;4") == links.parse_scales("0, 1.5,4") == (0, 1.5, 4)
    assert links.parse_repeats("1;2", (0, 1)) == links.parse_repeats("1,2", (0, 1)) == (0, 1)
    assert links.parse_names("G_and_S, part L; V1 R") == ("G_and_S, part L", "V1 R")

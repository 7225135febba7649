"""What a person does on the page, done in Chromium over the fake study."""

from __future__ import annotations

import csv
import io
import json
import re
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.browser.driving import link, pictures, wait_for_surface, wait_for_trial

pytestmark = pytest.mark.browser

PATIENCE = 20_000  # ms
HTML_CAPTION = "<b>bold</b> ${alert(1)} {{value}}"


def test_a_trial_opens_with_its_pictures_scores_rank_and_map(open_page: Any) -> None:
    page = open_page()
    chosen = link(page)
    assert chosen["data"] == "fake"
    assert chosen["scales"] == "0,1,2,4,8"
    assert len(pictures(page)) == 5
    assert len(set(pictures(page))) == 5
    assert all(src.startswith("data:image/webp;base64,") for src in pictures(page))
    labels = page.locator(".ai-reconstruction figcaption b").all_text_contents()
    assert labels == ["scale 0", "scale 1", "scale 2", "scale 4", "scale 8"]
    assert page.locator(".ai-scores dt").all_text_contents()[:3] == [
        "PixCorr",
        "SSIM",
        "pocket-clip",
    ]
    assert all(
        re.fullmatch(r"−?\d\.\d\d", t) for t in page.locator(".ai-scores dd").all_text_contents()
    )
    assert re.fullmatch(r"of 10", page.locator(".ai-rank-of").text_content())
    assert "chance 5.5" in page.locator(".ai-rank").text_content()
    assert page.locator(".ai-neighbours li").count() == 5
    assert page.locator(".ai-badge").is_visible()
    assert "Everything here is made up." in page.locator(".ai-masthead").text_content()
    assert "Nobody (2020)" in page.locator(".ai-footer").text_content()
    assert page.locator(".ai-table tbody tr").count() == 8


def test_a_click_on_the_surface_picks_a_parcel_and_the_camera_stays(open_page: Any) -> None:
    page = open_page("trial=test-01&camera=posterior", surface=True)
    wait_for_surface(page)
    found = None
    page.locator(".ai-canvas").scroll_into_view_if_needed()
    # Down the left hemisphere until a parcel is under it; longer where the machine is busy.
    for wait, share in ((w, s) for w in (350, 1000, 4000) for s in (0.7, 0.6, 0.5, 0.8, 0.4)):
        box = page.locator(".ai-canvas").bounding_box()
        page.mouse.move(box["x"] + 0.30 * box["width"], box["y"] + share * box["height"])
        page.wait_for_timeout(150)
        page.mouse.move(box["x"] + 0.31 * box["width"], box["y"] + share * box["height"])
        page.wait_for_timeout(wait)
        if page.locator(".ai-tip").is_visible():
            found = page.locator(".ai-tip b").text_content()
            break
    assert found is not None
    page.mouse.down()
    page.wait_for_timeout(250)
    page.mouse.up()
    page.wait_for_selector(".ai-table tr.ai-chosen")
    key = page.get_attribute(".ai-table tr.ai-chosen", "data-parcel")
    assert found.startswith(page.locator(".ai-table tr.ai-chosen td").first.text_content())
    page.wait_for_function("key => new URL(location).searchParams.get('parcel') === key", arg=key)

    turned = {"x": 1.2, "y": -1.5, "z": 0.4}
    page.evaluate(
        "eye => Plotly.relayout(document.querySelector('.ai-canvas'), {'scene.camera.eye': eye})",
        turned,
    )
    colours = "document.querySelector('.ai-canvas').data[0].vertexcolor.join()"
    before = page.evaluate(colours)
    page.click("#next")
    wait_for_trial(page, "test-02")
    page.wait_for_function(f"before => {colours} !== before", arg=before)
    eye = page.evaluate("document.querySelector('.ai-canvas')._fullLayout.scene.camera.eye")
    assert eye == pytest.approx(turned)
    assert page.get_attribute(".ai-table tr.ai-chosen", "data-parcel") == key


def test_a_new_trial_does_not_send_the_mesh_again(open_page: Any) -> None:
    page = open_page("trial=test-01", surface=True)
    wait_for_surface(page)
    asked = []
    page.on("request", lambda r: asked.append(r.url) if "component_server" in r.url else None)
    page.click("#next")
    wait_for_trial(page, "test-02")
    assert asked == []
    with page.expect_response(lambda answer: "component_server" in answer.url):
        page.click('.ai-pick-surface input[value="pial"]')
    page.wait_for_timeout(500)  # and no second one
    assert len(asked) == 1


def test_a_map_of_voxels_takes_the_place_of_importance(open_page: Any) -> None:
    page = open_page("trial=test-01", surface=True)
    wait_for_surface(page)
    colours = "document.querySelector('.ai-canvas').data[0].vertexcolor.join()"
    before = page.evaluate(colours)
    page.select_option('select[aria-label="Show"]', label="Noise ceiling")
    page.wait_for_function(f"before => {colours} !== before", arg=before)
    ceiling = page.evaluate(colours)
    assert link(page)["show"] == "noise ceiling"
    assert "could predict" in page.locator(".ai-brain-head h2").text_content()
    assert "mean of 2 trials" in page.locator(".ai-unit").text_content()
    assert page.locator(".ai-pick-method").is_hidden()
    assert page.locator(".ai-pick-measure").is_hidden()
    heads = page.locator(".ai-table th button").all_text_contents()
    assert heads == ["Parcel", "", "Voxels", "Mean▾"]
    means = [float(t) for t in page.locator(".ai-table td:last-child").all_text_contents()]
    assert means == sorted(means, reverse=True) and 0 <= means[-1] < means[0] <= 100
    page.select_option('select[aria-label="Show"]', label="Parcels")
    page.wait_for_function(f"before => {colours} !== before", arg=ceiling)
    assert page.locator(".ai-colourbar").is_hidden()
    assert page.locator(".ai-table th button").all_text_contents() == ["Parcel▴", "", "Voxels"]
    page.select_option('select[aria-label="Show"]', label="Importance")
    page.wait_for_function(f"before => {colours} === before", arg=before)
    assert page.locator(".ai-pick-measure").is_visible()
    assert "show" not in link(page)


def test_attention_is_laid_over_the_truth_and_taken_off(open_page: Any) -> None:
    page = open_page("trial=test-04")
    assert (
        "two-way identification has not been measured"
        in page.locator("#decoder-figure").text_content()
    )
    assert not page.locator(".ai-heat").is_visible()
    page.click("#attention")
    page.wait_for_function("!document.querySelector('.ai-heat').hidden")
    assert link(page)["attention"] == "occlusion"
    assert page.locator("#attention").text_content() == "Hide attention"
    heat = page.locator(".ai-heat")
    assert heat.get_attribute("src").startswith("data:image/png;base64,")
    assert "For this decoder" in heat.get_attribute("title")
    assert heat.bounding_box() == page.locator(".ai-truth img").first.bounding_box()
    page.click("#next")
    wait_for_trial(page, "test-05")
    assert page.locator(".ai-heat").is_visible()
    page.click("#attention")
    page.wait_for_function("document.querySelector('.ai-heat').hidden")
    assert "attention" not in link(page)


def test_a_link_brings_everything_back(open_page: Any) -> None:
    query = (
        "data=fake&subject=sub-01&trial=test-07&mapper=linear&generator=painter&scales=1,3.5"
        "&steps=3&seed=5&repeats=2&map=gradient+x+input&measure=signed&surface=flat&hemisphere=left"
        "&parcel=fusiform+R"
    )
    page = open_page(query)
    assert len(pictures(page)) == 2
    assert page.input_value("#scales textarea, #scales input") == "1, 3.5"
    assert page.input_value("#seed input") == "5"
    assert "repeat 2" in page.locator(".ai-kicker").text_content()
    assert page.is_checked('.ai-pick-method input[value="gradient x input"]')
    assert page.is_checked('.ai-pick-measure input[value="signed"]')
    assert page.is_checked('.ai-pick-surface input[value="flat"]')
    assert page.get_attribute(".ai-table tr.ai-chosen", "data-parcel") == "fusiform R"
    assert page.locator(".ai-notice").count() == 0
    assert link(page) == {k: v[0] for k, v in parse_qs(query).items()}
    first = pictures(page)
    page.reload()
    page.wait_for_selector('.ai-trial[data-state="done"]')
    assert pictures(page) == first


def test_wrong_link_values_are_told_as_text_and_replaced(open_page: Any) -> None:
    page = open_page(
        "subject=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E&trial=test-99&scales=abc&steps=1e9"
        "&measure=%24%7Balert(1)%7D&colour=red"
    )
    told = page.locator(".ai-notice span").all_text_contents()
    assert len(told) == 6
    assert any(
        "<img src=x onerror=alert(1)>" in line and "showing sub-01" in line for line in told
    )
    assert any("no test trial “test-99”" in line for line in told)
    assert any("found “abc”" in line for line in told)
    assert any("between 1 and 100" in line for line in told)
    assert any("${alert(1)}" in line for line in told)
    assert any("“colour” means nothing here" in line for line in told)
    assert page.locator(".ai-notice img").count() == 0
    assert link(page)["subject"] == "sub-01"
    assert len(pictures(page)) == 5
    page.click(".ai-notice button >> nth=0")
    assert page.locator(".ai-notice").count() == 5


def test_markup_in_a_caption_is_shown_as_text(open_page: Any) -> None:
    page = open_page("trial=test-03")
    assert page.locator(".ai-caption").text_content() == HTML_CAPTION
    assert page.locator(".ai-caption b").count() == 0
    assert page.get_attribute('[data-stimulus="test-03"]', "title") == f"3. {HTML_CAPTION}"
    assert page.locator(".error-container").count() == 0


def test_bad_scales_leave_the_pictures_and_say_why(open_page: Any) -> None:
    page = open_page("trial=test-01")
    before = pictures(page)
    field = "#scales textarea, #scales input"
    for text, sentence in (
        ("abc", "found “abc”"),
        ("1e9", "lies between 0 and 30"),
        (",".join(map(str, range(200))), "1 to 16 guidance scales, found 200"),
        ("2, 2", "may be given once"),
    ):
        page.fill(field, text)
        page.press(field, "Enter")
        page.wait_for_function(
            "s => document.querySelector('.ai-notices').textContent.includes(s)", arg=sentence
        )
        assert pictures(page) == before
    page.fill(field, "0 2.5")
    page.press(field, "Enter")
    page.wait_for_function("new URL(location).searchParams.get('scales') === '0,2.5'")
    page.wait_for_selector('.ai-trial[data-state="done"]')
    assert len(pictures(page)) == 2
    assert page.locator(".ai-notice").count() == 0


def test_a_stopped_sweep_keeps_its_finished_pictures(
    open_page: Any, study: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study.Generator, "delay", 0.1)
    page = open_page("trial=test-08&seed=77", wait=False)
    page.wait_for_function(
        "document.querySelectorAll('.ai-reconstruction[data-state=done]').length >= 2"
    )
    monkeypatch.setattr(study.Generator, "delay", 2.0)  # time to click on a busy machine
    page.click("#stop")
    page.wait_for_selector('.ai-trial[data-state="stopped"]')
    page.wait_for_timeout(2500)  # nothing comes after it
    done = page.locator(".ai-reconstruction[data-state=done]").count()
    assert 2 <= done < 5
    assert f"{done} of 5 finished" in page.locator(".ai-trial .ai-status").text_content()
    kept = pictures(page)[:done]
    assert all(kept)
    monkeypatch.setattr(study.Generator, "delay", 0.0)
    page.click("#again")
    page.wait_for_selector('.ai-trial[data-state="done"]')
    assert pictures(page)[:done] == kept


def test_two_browsers_never_see_each_others_trial(
    open_page: Any, study: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study.Generator, "delay", 0.03)
    one = open_page("trial=test-01&seed=1", wait=False)
    two = open_page("trial=test-02&seed=2&scales=1,5", wait=False)
    wait_for_trial(one, "test-01")
    wait_for_trial(two, "test-02")
    assert (len(pictures(one)), len(pictures(two))) == (5, 2)
    assert not set(pictures(one)) & set(pictures(two))
    two.click("#next")
    wait_for_trial(two, "test-03")
    assert one.locator(".ai-kicker").text_content().endswith("test-01")
    one.click("#next")
    wait_for_trial(one, "test-02")
    assert link(two)["trial"] == "test-03"
    assert link(two)["seed"] == "2"


def test_figure_table_and_record_are_saved_and_a_record_opens_again(open_page: Any) -> None:
    page = open_page("trial=test-05&seed=3&measure=share")

    def save(form: str) -> tuple[str, bytes]:
        page.click("#export summary")
        with page.expect_download() as download:
            page.click(f'[data-format="{form}"]')
        return download.value.suggested_filename, download.value.path().read_bytes()

    name, content = save("png")
    assert name == "afterimage_fake_sub-01_test-05.png"
    assert content.startswith(b"\x89PNG")
    assert b"<svg" in save("svg")[1]
    assert save("pdf")[1].startswith(b"%PDF")
    table = list(csv.DictReader(io.StringIO(save("csv")[1].decode())))
    assert {"parcel", "share", "enrichment", "signed"} <= set(table[0])
    record = save("json")[1]
    assert json.loads(record)["request"]["stimulus"] == "test-05"
    page.click("#next")
    wait_for_trial(page, "test-06")
    page.set_input_files(
        "#record-file", {"name": "r.json", "mimeType": "application/json", "buffer": record}
    )
    wait_for_trial(page, "test-05")
    assert link(page)["seed"] == "3"
    assert link(page)["measure"] == "share"
    page.set_input_files(
        "#record-file", {"name": "r.json", "mimeType": "application/json", "buffer": b"<b>no</b>"}
    )
    page.wait_for_selector(".ai-notice")
    assert "not JSON" in page.locator(".ai-notice").text_content()


def test_a_study_without_places_keeps_rank_table_and_margins(open_page: Any) -> None:
    page = open_page("data=nowhere")
    page.wait_for_selector(".ai-table tbody tr")
    assert "gives no locations" in page.locator(".ai-brain .ai-note").text_content()
    assert page.locator(".ai-canvas").is_hidden()
    assert page.locator(".ai-rank").is_visible()
    assert not page.locator(".ai-badge").is_visible()
    assert "held-out repeats" in page.locator(".ai-footer").text_content()


def test_a_generator_without_guidance_shows_one_picture(open_page: Any) -> None:
    page = open_page("generator=unguided")
    assert len(pictures(page)) == 1
    assert page.locator(".ai-reconstruction figcaption b").text_content() == "unguided"
    assert page.is_disabled("#scales textarea, #scales input")


def test_an_option_is_set_with_its_sentence_beside_it(open_page: Any) -> None:
    page = open_page("trial=test-03&scales=0,2")
    before = pictures(page)
    assert page.locator(".ai-reconstruction .ai-made").all_text_contents() == ["generated"] * 2
    field = page.locator("#option-contrast")
    assert not field.is_visible()
    page.click(".ai-options summary")
    assert "How far colours lie from grey." in page.locator(".ai-option").text_content()
    field.fill("0.25")
    field.press("Enter")
    page.wait_for_selector(".ai-option.ai-set")
    assert page.locator(".ai-options summary").text_content() == "Options1 changed"
    wait_for_trial(page, "test-03")
    assert link(page)["option.contrast"] == "0.25"
    after = pictures(page)
    assert set(after).isdisjoint(before)
    field.fill("7")
    field.press("Tab")
    page.wait_for_selector(".ai-notice")
    assert "contrast lies between 0 and 2, found 7" in page.locator(".ai-notice").text_content()
    page.wait_for_function("document.querySelector('#option-contrast').value === '0.25'")
    page.click("#generator input")
    page.get_by_role("option", name="unguided").click()
    page.wait_for_function("!new URL(location).searchParams.has('option.contrast')")
    page.wait_for_function("document.querySelector('#option-contrast').value === '1'")


def test_rows_of_a_second_axis_stand_below_each_other(open_page: Any) -> None:
    page = open_page("trial=test-03&scales=0,2")
    plain = pictures(page)
    assert page.locator("#values").is_hidden()
    page.click("#axis input")
    page.get_by_role("option", name="seed").click()
    page.wait_for_selector(".ai-row")
    wait_for_trial(page, "test-03")
    assert page.locator(".ai-row-name").all_text_contents() == ["seed 0", "seed 1", "seed 2"]
    grid = pictures(page)
    assert grid[:2] == plain and len(set(grid)) == 6
    boxes = [page.locator(".ai-reconstruction").nth(i).bounding_box() for i in range(len(grid))]
    assert boxes[0]["x"] == boxes[2]["x"] == boxes[4]["x"] < boxes[1]["x"]
    assert boxes[0]["y"] == boxes[1]["y"] < boxes[2]["y"] == boxes[3]["y"] < boxes[4]["y"]
    truth = page.locator(".ai-truth").bounding_box()
    assert truth["x"] + truth["width"] < boxes[0]["x"]
    page.locator(".ai-reconstruction button").nth(3).click()
    label = page.locator(".ai-compare .ai-ends").text_content()
    assert label == "shownscale 2, seed 1, generated"
    assert page.locator(".ai-compare .ai-scores dt").count() == 3
    values = page.locator("#values").locator("input, textarea")
    values.fill("5")
    values.press("Enter")
    page.wait_for_function("document.querySelectorAll('.ai-row').length === 1")
    wait_for_trial(page, "test-03")
    assert link(page)["values"] == "5"
    page.reload()
    page.wait_for_selector(".ai-row")
    assert page.locator(".ai-row-name").all_text_contents() == ["seed 5"]


def test_without_webgl_a_sentence_stands_for_the_surface(open_page: Any) -> None:
    page = open_page("trial=test-01")
    assert "no WebGL" in page.locator(".ai-surface-text").text_content()
    assert page.locator(".ai-surface-text").is_visible()
    assert page.locator(".ai-table tbody tr").count() == 8


@pytest.mark.parametrize("size", [(1440, 900), (1024, 768), (390, 844)])
def test_nothing_is_wider_than_the_screen(open_page: Any, size: tuple[int, int]) -> None:
    page = open_page("trial=test-03", viewport={"width": size[0], "height": size[1]})
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    for selector in (".ai-truth", "#next", ".ai-table", "#export"):
        assert page.locator(selector).is_visible()
    assert not page.locator("footer").first.is_visible()


def test_dark_mode_is_a_choice_that_stays(open_page: Any) -> None:
    page = open_page("trial=test-01")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.click("#theme")
    assert page.evaluate(ground) != light
    page.reload()
    page.wait_for_selector(".ai-mark")
    page.wait_for_function(f"light => {ground} !== light", arg=light)


def test_the_table_sorts_and_a_row_picks_its_parcel(open_page: Any) -> None:
    page = open_page("trial=test-01")
    page.wait_for_selector(".ai-table tbody tr")

    def column(number: int) -> list[str]:
        return page.locator(f".ai-table tbody td:nth-child({number})").all_text_contents()

    enrichment = [float(text) for text in column(6)]
    assert enrichment == sorted(enrichment, reverse=True)
    page.click('[data-column="name"]')
    assert column(1) == sorted(column(1))
    page.click('[data-column="name"]')
    assert column(1) == sorted(column(1), reverse=True)
    page.click('.ai-pick-measure input[value="share"]')
    share = [float(text) for text in column(4)]
    assert share == sorted(share, reverse=True)
    page.click('tr[data-parcel="precentral L"]')
    assert page.get_attribute("tr.ai-chosen", "data-parcel") == "precentral L"
    page.wait_for_function("new URL(location).searchParams.get('measure') === 'share'")


def test_the_shipped_models_draw_and_map_a_trial(open_page: Any, shipped: str) -> None:
    page = open_page("trial=test-0012&steps=4", at=shipped, wait=False)
    page.wait_for_selector('.ai-trial[data-state="done"]', timeout=4 * PATIENCE)  # cold libraries
    assert page.locator(".ai-badge").is_visible()
    assert len(set(pictures(page))) == 5
    assert page.locator(".ai-rank-of").text_content() == "of 300"
    assert "chance 150.5" in page.locator(".ai-rank").text_content()
    assert page.locator(".ai-table tbody tr").count() > 30
    assert page.locator(".ai-notice").count() == 0
    page.click("#next")
    wait_for_trial(page, "test-0013")

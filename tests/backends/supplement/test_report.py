"""A report of a decoder: the numbers of evaluate and of the page, in HTML and in PDF."""

from __future__ import annotations

import re
import zlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from backends.commands import options
from backends.commands.report import report
from backends.reports.mappers import compare
from backends.supplement import as_html, as_pdf
from backends.supplement.content import (
    Part,
    Picture,
    Pictures,
    Report,
    Table,
    Words,
    cell,
    table_of,
)
from backends.supplement.gathering import Asked, described, gather
from explorer.evidence.critique import Finding
from explorer.notebook.study import Study, choose
from explorer.types import UserError

ASKED = described(Asked("fake", ("sub-01",), "linear", "painter", permutations=20, critique=False))
LEFT_OUT = "Picture left out: its licence does not let it be passed on"


@pytest.fixture(scope="module")
def bench(fakes, fake_checkpoints):
    from explorer.workbench import Workbench

    return Workbench(
        {"fake": fakes.Study},
        {"fake-clip": fakes.Embedder},
        {"linear": fakes.Linear, "ridge": fakes.Linear},
        {"painter": fakes.Generator},
        checkpoints=fake_checkpoints,
    )


@pytest.fixture(scope="module")
def made(bench):
    return gather(bench, ASKED, lambda sentence: None)


def part(made, title):
    return next(p for p in made.parts if p.title == title)


def of_kind(blocks, kind):
    return [block for block in blocks if isinstance(block, kind)]


def test_the_scores_are_those_of_evaluate_with_chance_n_and_intervals(bench, made):
    table = of_kind(part(made, "How good it is").blocks, Table)[0]
    rows = compare(bench, "fake", subjects=["sub-01"], mappers=["linear"], classes=True).table
    own = rows[(rows["mapper"] == "linear") & (rows["betas"] == "averaged repeats")]
    own = own.set_index("score")
    line = next(r for r in table.rows if r[:3] == ("sub-01", "linear", "averaged repeats"))
    shown = dict(zip(table.columns, line, strict=True))
    low, high = own.loc["two-way", ["low", "high"]]
    value = cell(float(own.loc["two-way", "value"]))
    assert shown["two-way identification"] == f"{value} ({low:.3f} to {high:.3f})"
    assert shown["top-1"].startswith(cell(float(own.loc["top-1", "value"])))
    assert shown["N"] == "10"
    chance = dict(zip(table.columns, table.rows[-1], strict=True))
    assert chance["subject"] == "chance" and chance["two-way identification"] == "0.500"
    told = " ".join(b.text for b in of_kind(part(made, "Summary").blocks, Words))
    assert f"{100 * own.loc['two-way', 'value']:.2f}\N{NO-BREAK SPACE}%" in told
    assert "N = 10 test images" in told and "These data are simulated" in told


def test_the_map_is_that_of_the_statistics(bench, made):
    blocks = part(made, "What it rests on, sub-01").blocks
    table = of_kind(blocks, Table)[0]
    found = choose(bench, None, "sub-01", "linear", "painter").statistics(permutations=20)
    assert table.rows[0][0] == found.top["parcel"][0]
    assert table.rows[0][2] == cell(float(found.top["value"][0]))
    (brain,) = of_kind(blocks, Pictures)
    assert brain.wide and brain.pictures[0].image.shape[1] > 1000


def test_examples_go_from_the_best_to_the_worst(bench, made):
    shown, drawn = of_kind(part(made, "Examples, sub-01").blocks, Pictures)
    margins = choose(bench, None, "sub-01", "linear").decodings()["margin"]
    chosen = margins[[one.title for one in shown.pictures]]
    assert chosen.is_monotonic_decreasing and len(chosen) == 5
    assert (chosen.iloc[0], chosen.iloc[-1]) == (margins.max(), margins.min())
    assert all(one.image is not None for one in drawn.pictures)


def test_pictures_that_may_not_be_passed_on_are_left_out(bench, made):
    without = gather(bench, replace(ASKED, withheld=LEFT_OUT), lambda sentence: None)
    shown, drawn = of_kind(part(without, "Examples, sub-01").blocks, Pictures)
    assert all(one.image is None for one in shown.pictures) and "left out" in shown.caption
    assert all(one.image is not None for one in drawn.pictures)  # they were made here
    controls = of_kind(part(without, "Controls, sub-01").blocks, Pictures)[0]
    hidden = [one.title for one in controls.pictures if one.image is None]
    assert hidden[0] == "shown" and set(hidden) <= {"shown", "nearest training image"}
    html = as_html.document(without)
    assert html.count('class="absent"') == 5 + len(hidden)
    assert html.count("data:image") == as_html.document(made).count("data:image") - 5 - len(hidden)


def test_the_critics_findings_stand_with_their_definitions(bench, monkeypatch):
    finding = Finding("a test", "what it asks", pd.DataFrame(), "what it found")
    monkeypatch.setattr(Study, "critique", lambda self: {"a test": finding})
    asked = replace(ASKED, critique=True)
    tables = of_kind(part(gather(bench, asked, print), "Controls, sub-01").blocks, Table)
    assert tables[0].rows == (("a test", "what it found", "what it asks"),)


def test_html_is_one_text_in_which_names_stay_words(made):
    evil = replace(
        made,
        title="<script>alert(1)</script>",
        parts=(*made.parts, type(made.parts[0])("<i>", (Words("<img src=x>", "note"),))),
    )
    html = as_html.document(evil)
    assert "<script" not in html and "<img src=x" not in html and "<i>" not in html
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", html) and "url(" not in html
    assert html.count("<h2>") == len(evil.parts) == html.count('<a href="#part-')


def pdf_text(content: bytes) -> str:
    """Return what the pages of a PDF write; some versions take two bytes a letter."""
    streams = re.findall(rb"stream\r?\n(.*?)endstream", content, re.DOTALL)
    found = []
    for stream in streams:
        try:
            text = zlib.decompress(stream)
        except zlib.error:
            continue
        if b" Tf" in text:
            found += re.findall(rb"\((.*?)\)", text)
    return b"".join(found).replace(b"\0", b"").decode("latin-1")


def test_the_pdf_has_pages_whose_text_can_be_selected(made, tmp_path):
    path = tmp_path / "report.pdf"
    as_pdf.write(made, path)
    content = path.read_bytes()
    assert content.startswith(b"%PDF") and len(re.findall(rb"/Type /Page\b", content)) >= 3
    assert b"/Subtype /TrueType" in content or b"/CIDFontType2" in content  # letters, not outlines
    text = pdf_text(content)
    for words in ("Summary", "How good it is", "Limits", "sub-01", "fusiform"):
        assert words in text
    assert b"595.44" in content  # A4 is 595 by 842 points


def test_a_pdf_says_where_a_picture_is_left_out_and_is_the_same_again(tmp_path):
    image = np.zeros((4, 4, 3), np.uint8)
    block = Pictures("c", (Picture("shown", None), Picture("drawn", image, ("SSIM 0.5",))))
    small = Report("$a_b$ \N{HANGUL SYLLABLE HAN}", "", (Part("p", (block,)),), "foot " * 60)
    for name in ("a.pdf", "b.pdf"):
        as_pdf.write(small, tmp_path / name)
    content = (tmp_path / "a.pdf").read_bytes()
    assert content == (tmp_path / "b.pdf").read_bytes()
    assert all(words in pdf_text(content) for words in ("$a_b$", "left out", "SSIM 0.5"))


def test_lines_fit_the_page_and_lose_no_word():
    text = "a word and a-very-long-" + "x" * 300 + " one more " * 30
    lines = as_pdf.wrapped(text, 8, 2.0)
    assert all(as_pdf.measured(line, 8) <= 2.0 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    table = Table("", ("a", "b", "c"), (("short", text, text), ("x", "y", text)), (0, 1, 2))
    widths = as_pdf.column_widths(table, 7)
    assert widths.sum() <= as_pdf.WIDTH + 1e-9 and widths[0] < widths[1]
    many = Table(
        "", ("identification", *"bcdefghi"), (tuple("0.880 (0.861 to 0.899)" for _ in range(9)),)
    )
    widths = as_pdf.column_widths(many, 7)
    assert as_pdf.wrapped("identification", 7, widths[0] - as_pdf.GAP, "bold") == [
        "identification"
    ]
    assert widths.sum() <= as_pdf.WIDTH + 1e-9


def test_cells_are_numbers_as_people_read_them():
    frame = pd.DataFrame({"n": [1200], "x": [-0.5], "p": [0.00012], "nothing": [np.nan]})
    table = table_of(frame, "C", {"n": "N"})
    assert table.columns[0] == "N" and table.texts == ()
    assert table.rows == (("1,200", "\N{MINUS SIGN}0.500", "1.2e\N{MINUS SIGN}04", "–"),)
    assert table_of(pd.concat([frame] * 3), "C", most=2).caption == "C (2 of 3 rows)"


def test_the_command_writes_both_files_whole_or_none(bench, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(options, "open_bench", lambda *_, **__: ("fake", bench))
    given = {"subject": ["sub-01"], "mapper": "linear", "permutations": 20, "device": "cpu"}
    given |= {"without_critique": True, "store": tmp_path / "store"}
    out = tmp_path / "new" / "report.html"
    report("fake", out, **given)
    assert str(out) in capsys.readouterr().out
    html = out.read_text("utf-8")
    assert "python -m backends report --dataset fake --subject sub-01 --mapper linear" in html
    assert str(tmp_path) not in html and out.with_suffix(".pdf").read_bytes()[:4] == b"%PDF"

    def fail(made, path):
        path.write_bytes(b"half")
        raise RuntimeError("cut off")

    monkeypatch.setattr(as_pdf, "write", fail)
    with pytest.raises(RuntimeError, match="cut off"):
        report("fake", tmp_path / "other.html", **given)
    assert not list(tmp_path.glob("*other*"))
    with pytest.raises(UserError, match=r"ends in .html, found 'report.doc'"):
        report("fake", tmp_path / "report.doc", **given)
    with pytest.raises(UserError, match="no subject 'sub-09'; choose one of sub-01, sub-02"):
        report("fake", out, **(given | {"subject": ["sub-09"]}))
    with pytest.raises(UserError, match="--permutations is 1 or more, found 0"):
        report("fake", out, **(given | {"permutations": 0}))


def test_a_mapper_that_some_lack_is_refused(bench):
    with pytest.raises(UserError, match="no mapper 'linear'"):
        gather(bench, replace(ASKED, subjects=("sub-01", "sub-02")), print)
    with pytest.raises(UserError, match="is not on offer for sub-02; name a mapper that all"):
        gather(bench, replace(ASKED, subjects=("sub-01", "sub-02"), mapper=""), print)


def test_a_picture_is_told_by_its_title():
    image = np.zeros((4, 4, 3), np.uint8)
    block = Pictures("c", (Picture("<t>", image, ("1",)), Picture("gone", None)))
    html = as_html._block(block)
    assert 'alt="&lt;t&gt;"' in html and html.count("left out") == 1

"""What is said of two builds follows from what each of them printed."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import pairs  # noqa: E402  (a script's folder is its path)
from pairs import Build, Part, agreement, answer, compared, quartiles, told  # noqa: E402

SCRIPT = """
import json, pathlib
count = pathlib.Path("count"); n = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(n))
order = pathlib.Path("../order")
order.write_text((order.read_text() if order.exists() else "") + NAME)
print("a word before")
print(json.dumps({"processor_s": SECONDS * n, "values": {"r": VALUE}}))
"""


@pytest.fixture
def builds(tmp_path, monkeypatch):
    (tmp_path / "run.py").write_text("exec(open('probe.py').read())")
    monkeypatch.setattr(pairs, "HERE", tmp_path)
    found = []
    for name, seconds, value in (("old", 8, 0.5), ("new", 2, 0.5004)):
        (tmp_path / name).mkdir()
        words = SCRIPT.replace("NAME", repr(name[0])).replace("SECONDS", str(seconds))
        (tmp_path / name / "probe.py").write_text(words.replace("VALUE", str(value)))
        found.append(Build(name, tmp_path / name, sys.executable))
    return found


def test_builds_take_turns_and_the_ratio_is_that_of_pairs(builds, tmp_path):
    part = Part("work", "run.py", aim=0.3, same="values")
    lines = dict(compared(part, builds, 3))
    assert (tmp_path / "order").read_text() == "ononon"
    said = lines["work: processor time"]  # 8, 16, 24 and 2, 4, 6
    assert said == "old 16 s, new 4 s, 0.25 x (0.25 to 0.25, 3 pairs), aim 0.3"
    assert lines["work: values"].startswith("equal within 0.001")
    assert set(lines) == {"work: processor time", "work: values"}  # the rest was not printed


def test_one_figure_is_held_against_another(builds):
    for build in builds:
        probe = build.root / "probe.py"
        probe.write_text(probe.read_text().replace('"values"', '"plain_s": 32, "values"'))
    part = Part("work", "run.py", figures={"plain_s>processor_s": ("over plain", "s")})
    [(what, said)] = compared(part, builds, 1)
    assert (what, said) == ("work: over plain", "old 32 s, new 2 s, 0.06 x (1 pair)")


def test_a_build_that_fails_gives_no_figure(builds):
    (builds[1].root / "probe.py").write_text("raise SystemExit('no such module')")
    [(what, said)] = compared(Part("work", "run.py"), builds, 2)
    assert (what, said) == ("work", "failed in new: no such module")


def test_values_that_differ_are_told():
    part = Part("work", "run.py", within=1e-3)
    assert agreement({"r": [1, 2.0]}, {"r": [1, 2.001]}, part).startswith("equal within 0.001")
    assert agreement({"r": 1.0, "q": 3}, {"r": 1.1, "q": 3}, part) == (
        "NOT EQUAL: r differs by 0.091 of itself"
    )


def test_the_median_of_ratios_is_not_the_ratio_of_medians():
    sides = (Build("a", None, None), Build("b", None, None))
    assert told([1, 10, 100], [2, 10, 10], "s", sides).startswith("a 10 s, b 10 s, 1.00 x")
    assert quartiles([3.0]) == (3.0, 3.0, 3.0)
    assert quartiles([1, 2, 3, 4, 5]) == (2, 3, 4)


def test_an_answer_is_the_last_line(builds):
    assert answer(Part("work", "run.py"), builds[0])["processor_s"] == 8

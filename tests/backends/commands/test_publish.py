"""publish: whose pictures are left out, what a site says made it, and what is refused at once."""

from types import SimpleNamespace

import pytest

from backends.commands.publish import MAY_NOT, NOT_SHOWN, _several, command_of, publish, withheld
from explorer.site.plan import Plan
from explorer.types import UserError


@pytest.mark.parametrize(
    ("redistributable", "wanted", "sentence"),
    [(True, False, ""), (True, True, NOT_SHOWN), (False, False, MAY_NOT), (False, True, MAY_NOT)],
)
def test_a_licence_decides_whether_pictures_are_left_out(redistributable, wanted, sentence):
    study = SimpleNamespace(redistributable=redistributable)
    bench = SimpleNamespace(catalogue=SimpleNamespace(dataset=lambda name: study))
    assert withheld(bench, "fake", wanted) == sentence


def test_a_site_says_what_makes_it_again_without_anybodys_paths(monkeypatch):
    monkeypatch.setattr("sys.argv", ["backends", "publish", "--out", "/home/me/site"])
    plan = Plan("D", ("s1", "s2"), ("ridge",), "painter", (0.0, 7.5), 20, limit=3, withheld="No")
    assert command_of(plan) == (
        "python -m backends publish --dataset D --subjects s1,s2 --mappers ridge "
        "--generator painter --scales 0,7.5 --steps 20 --seed 0 --limit 3 --controls 24 "
        "--curves 24 --quality 88 --method gradient --without-pictures --out site"
    )


def test_names_are_given_one_by_one_or_parted_by_commas():
    assert _several(["a,b", " c ", "a"]) == ["a", "b", "c"] and _several(None) == []
    with pytest.raises(UserError, match="A list of names is empty"):
        _several([","])


def test_a_folder_of_other_files_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="holds other files than a site made here"):
        publish("no-such-study", tmp_path)

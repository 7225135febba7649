"""Words of the command line that name data and weights."""

import pytest

from explorer.naming import named_path, named_sources
from explorer.types import UserError


def test_a_path_is_given_with_its_name_and_options(tmp_path):
    plain, odd = tmp_path / "nsd", tmp_path / "what?is=this"
    plain.mkdir()
    odd.mkdir()
    assert named_path(f"nsd={plain}") == ("nsd", plain, {})
    given = named_path(f"nsd={plain}?space=func1mm&prep=b3&note=")
    assert given == ("nsd", plain, {"space": "func1mm", "prep": "b3", "note": ""})
    assert named_path(f"a.b-c={odd}") == ("a.b-c", odd, {})  # a path that exists wins
    assert named_path(f"odd={odd}?prep=b3") == ("odd", odd, {"prep": "b3"})


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("nsd", "takes NAME=PATH, .* found 'nsd'"),
        ("n/s=PLACE", "takes NAME=PATH"),
        ("nsd=PLACE/gone", "--dataset nsd: there is nothing at .*gone; check the path"),
        ("nsd=PLACE/gone?prep=b3", "there is nothing at .*gone; check"),
        ("nsd=?prep=b3", "there is nothing at [?]prep=b3"),
        ("nsd=PLACE?prep", "written [?]name=value&name=value, each once; found 'prep'"),
        ("nsd=PLACE?prep=b3&", "each once; found ''"),
        ("nsd=PLACE?prep=b3&prep=b2", "each once; found 'prep=b2'"),
    ],
)
def test_a_path_or_option_that_is_none(pair, message, tmp_path):
    with pytest.raises(UserError, match=message):
        named_path(pair.replace("PLACE", str(tmp_path)))


def test_where_a_generators_weights_are_is_told_by_name(fakes, brought, tmp_path):
    generators = {"brought": brought, "painter": fakes.Generator}
    pairs = [f"brought={tmp_path}"]
    assert named_sources(pairs, generators) == {"brought": str(tmp_path)}
    assert named_sources(["brought=a/b"], generators) == {"brought": "a/b"}
    for own in (f"{tmp_path}?gallery=cats", "a/b?gallery=cats", "?gallery=cats"):
        assert named_sources([f"brought={own}"], generators) == {"brought": own}
    for wrong, sentence in (
        (["painter=a/b"], "one of brought, found 'painter=a/b'"),
        (["brought"], "--generator takes NAME=PATH_OR_ID"),
        (["brought=/no/such"], "brought: there is nothing at /no/such, and it is no hub id"),
        (["brought=a/b", "brought=a/b"], "names brought twice"),
    ):
        with pytest.raises(UserError, match=sentence):
            named_sources(wrong, generators)

"""What is told of the endpoints: each argument and each part of an answer, with an example."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.explorer.page.serving import OLD_NAME

pytestmark = OLD_NAME
KINDS = {"string": str, "integer": int, "number": (int, float), "boolean": bool}
OWN = {("/map", "trial"), ("/evaluation", "subject")}  # empty means more there
KINDS |= {"array": list, "object": dict, "null": type(None)}


def parts(schema: dict[str, Any], where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give every part of an answer, however deep, with where it is."""
    for inner in (*schema.get("oneOf", ()), *([schema["items"]] if "items" in schema else ())):
        yield from parts(inner, where)
    for name, inner in schema.get("properties", {}).items():
        yield f"{where}.{name}", inner
        yield from parts(inner, f"{where}.{name}")


def fits(value: Any, schema: dict[str, Any], where: str, also: tuple[str, ...] = ()) -> None:
    """Hold a value against a schema: its kind, and no key that is not described."""
    if "oneOf" in schema:
        kinds = {kind["type"]: kind for kind in schema["oneOf"]}
        if value is None and "null" in kinds:
            return
        (schema,) = (kind for name, kind in kinds.items() if name != "null")
    if not schema.get("type"):
        return  # anything
    assert isinstance(value, KINDS[schema["type"]]), (where, value)
    assert schema["type"] == "boolean" or not isinstance(value, bool), where
    if schema["type"] == "array":
        for one in value:
            fits(one, schema["items"], where, also)
    for name, one in value.items() if "properties" in schema else ():
        if name not in also:
            assert name in schema["properties"], f"{where}.{name} is not described"
            fits(one, schema["properties"][name], f"{where}.{name}", also)


def test_every_argument_and_answer_is_described_with_an_example(client: Any) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert len(endpoints) == 19
    count = 0
    for name, told in endpoints.items():
        assert told["description"].endswith("."), name
        for argument in told["parameters"]:
            where = f"{name} {argument['parameter_name']}"
            assert argument["label"] == argument["parameter_name"]
            text = argument["python_type"]["description"]
            assert text.endswith(".") and text[0].isupper(), where
            assert argument["example_input"] != "", where
            fits(argument["example_input"], argument["type"], where)
            count += 1
        (answer,) = told["returns"]
        assert answer["python_type"]["description"], name
        (example,) = answer["type"]["examples"]
        assert set(example) == set(answer["type"]["properties"])
        fits(example, answer["type"], name)
        for where, part in parts(answer["type"], name):
            text = part["description"]
            assert text.endswith(".") and text[0].isupper(), where
            fits(part["examples"][0], part, where)
            count += 1
    assert count > 250
    for shared in ("trial", "dataset", "subject", "generator", "repeat", "scales", "atlas"):
        told = {
            (argument["python_type"]["description"], argument["example_input"])
            for name, one in endpoints.items()
            for argument in one["parameters"]
            if argument["parameter_name"] == shared and (name, shared) not in OWN
        }
        assert len(told) == 1, shared  # one argument means the same everywhere


ASKED = {
    "/trials": {},
    "/reconstruct": {"trial": "test-04", "scales": "1", "axis": "seed", "values": "1; 2"},
    "/importance": {"trial": "test-04"},
    "/attention": {"trial": "test-04"},
    "/map": {},
    "/statistics": {"permutations": 20},
    "/controls": {"trial": "test-04"},
    "/lesion": {"trial": "test-04", "parcels": "fusiform L; fusiform R"},
    "/drivers": {"parcel": "fusiform L"},
    "/steps": {"trial": "test-04", "parcels": "fusiform L"},
    "/compare": {"trial": "test-04", "other_generator": "unguided"},
    "/curve": {"trial": "test-04", "scales": "0; 1", "seeds": 1, "sample": 2},
    "/figure": {"link": "trial=test-04&scales=1"},
    "/table": {"link": "trial=test-04"},
    "/record": {"link": "trial=test-04&scales=1"},
    "/map_file": {"link": "trial=test-04"},
    "/identity": {"trial": "test-04"},
    "/sheet": {"sort": "similarity"},
}


def test_answers_hold_what_is_described_and_nothing_else(client: Any) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(ASKED) == set(endpoints) - {"/evaluation"}  # which needs a table that was made
    for name, arguments in ASKED.items():
        answer = client.predict(**arguments, api_name=name)
        schema = endpoints[name]["returns"][0]["type"]
        assert set(answer) == set(schema["properties"]), name
        fits(answer, schema, name, also=("seed",))  # the axis of the sweep

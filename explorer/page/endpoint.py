"""What every named endpoint shares: how arguments are described and read, and answers sent.

An argument's text and example stand in its type, as ``Annotated[str, Said(text, example)]``, and
an answer's parts are a `TypedDict` of such types; Gradio's clients are told both. All lists are
text parted by semicolons, since names of parcels have commas in them.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import gradio as gr
import numpy as np
from gradio.context import LocalContext, get_blocks_context
from gradio_client.utils import python_type_to_json_schema

from explorer import stopping
from explorer.choosing import check_request, default_request
from explorer.drawing import seconds_needed
from explorer.page import links
from explorer.page.turns import HUNG_UP, PICTURES_LESS, Turns
from explorer.request import Request
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.workbench import Workbench

PROGRAM = "a program"  # a caller without a session of its own


@dataclass(frozen=True)
class Said:
    """What an argument or a part of an answer is, and an example of it, ready for JSON."""

    text: str
    example: Any


Trial = Annotated[str, Said("A test stimulus, one of those that /trials lists.", "test-0001")]
Dataset = Annotated[
    str, Said("A data set, one of the `datasets` of /trials; empty takes the first.", "simulated")
]
Subject = Annotated[
    str, Said("A subject, one of the `subjects` of /trials; empty takes the first.", "subj01")
]
Mapper = Annotated[
    str, Said("A mapper, one of the `mappers` of /trials; empty takes the first.", "ridge")
]
Generator = Annotated[
    str,
    Said(
        "A generator that /trials lists for the mapper; empty takes the first that fits.",
        "pocket-diffusion",
    ),
]
Repeat = Annotated[int, Said("Which repeat of the trial, from 1; 0 takes the average of all.", 1)]
Seed = Annotated[int, Said("Decides the noise that every image starts from.", 7)]
Scale = Annotated[float, Said("The guidance scale of all pictures, 0 to 30.", 2.0)]
Scales = Annotated[
    str,
    Said(
        "Guidance scales, numbers from 0 to 30 parted by semicolons; 0 is the generator without "
        "the brain.",
        "0; 1; 2; 4; 8",
    ),
]
Steps = Annotated[int, Said("Sampling steps; 0 takes the generator's own default.", 20)]
Method = Annotated[
    str,
    Said(
        "How importance is computed: `gradient`, `gradient x input` or `integrated gradients`.",
        "gradient x input",
    ),
]
Target = Annotated[
    str,
    Said(
        "What is explained: `retrieval margin`, `fixed direction`, or for mappers that give a "
        "density `log-likelihood` of the shown image's embedding.",
        "retrieval margin",
    ),
]
Measure = Annotated[
    str, Said("Of parcels: `enrichment`, `share`, `mean` or `signed`.", "enrichment")
]
AtlasName = Annotated[str, Said("An atlas; empty takes the subject's first.", "Desikan-Killiany")]
Link = Annotated[
    str,
    Said(
        "The query string of the page that shows the same.",
        "data=simulated&subject=subj01&trial=test-0001",
    ),
]
Png = Annotated[str, Said("A PNG as a data address.", "data:image/png;base64,iVBORw0KGgo=")]
Numbers = dict[str, float | None]


def endpoint(method: Callable[..., Any]) -> Callable[..., Any]:
    """Make a method an endpoint: arguments are read by their types, and answers are finite.

    A whole number with a fraction, a number that is none and text that is none raise the sentence
    that a caller gets; so does every `UserError` of the method.
    """
    kinds, signature = typing.get_type_hints(method), inspect.signature(method)

    @functools.wraps(method)
    def answered(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*args, **kwargs)
            for name, value in given.arguments.items():
                if name in kinds:
                    usual = signature.parameters[name].default
                    given.arguments[name] = _read(name, value, kinds[name], usual)
            return finite(method(*given.args, **given.kwargs))
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error
        except stopping.StoppedError as error:
            raise gr.Error(HUNG_UP, print_exception=False) from error

    return answered


def _read(name: str, value: Any, kind: type, usual: Any) -> Any:
    """Return an argument as its type; ``usual``: what stands for null."""
    if value is None and usual is not inspect.Parameter.empty:
        return usual
    if kind is int:
        return links.parse_whole(value, name)
    if kind is float:
        with contextlib.suppress(ValueError):
            if math.isfinite(number := float(str(value))):
                return number
        raise UserError(f"{name} is a number, found {links.short(value)}.")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UserError(f"{name} is text, found {links.short(value)}.")
    return str(value)


def finite(value: Any) -> Any:
    """Return an answer ready for JSON, which has no NaN: None where a number is not finite."""
    if value is None or type(value) in (str, int, bool):  # most of an answer
        return value
    if isinstance(value, Mapping):
        return {str(key): finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [finite(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def add(name: str, method: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    """Add an endpoint to the page being built, with its arguments and its answer described."""
    gr.api(method, api_name=name, **settings)
    hints = typing.get_type_hints(method, include_extras=True)
    asked = list(get_blocks_context().fns.values())[-1]
    names = inspect.signature(method).parameters
    summary = (inspect.getdoc(method) or "").partition("\n")[0]
    for component, argument in zip(asked.inputs, names, strict=True):
        _describe(component, argument, schema(hints[argument]))
    answer = schema(hints["return"])
    example = {name: one["examples"][0] for name, one in answer["properties"].items()}
    answer |= {"description": summary, "examples": [example]}
    _describe(asked.outputs[0], "answer", answer)


def _describe(component: Any, name: str, told: dict[str, Any]) -> None:
    """Put a name, a text and an example where Gradio's clients look for them."""
    component.label = name
    # Gradio reads the text of an argument under one key, that of an answer under the other
    component._api_info = {**told, "additional_description": told["description"]}
    component.example_payload = component.example_value = lambda: told["examples"][0]


def schema(hint: Any) -> dict[str, Any]:
    """Return the JSON schema of a type, with the text and the example that it carries."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        said = parts[1]
        return schema(parts[0]) | {"description": said.text, "examples": [said.example]}
    if origin is typing.NotRequired:
        return schema(parts[0])
    if typing.is_typeddict(hint):
        of = typing.get_type_hints(hint, include_extras=True)
        return {"type": "object", "properties": {name: schema(one) for name, one in of.items()}}
    if origin is list:
        return {"type": "array", "items": schema(parts[0])}
    if origin in (typing.Union, types.UnionType):
        return {"oneOf": [schema(part) for part in parts]}
    return python_type_to_json_schema(hint)


class Endpoints:
    """Endpoints over one workbench; ``turns``: the page's queue at its models."""

    def __init__(self, workbench: Workbench, turns: Turns | None = None) -> None:
        self.workbench, self.turns = workbench, turns or Turns()

    @contextlib.contextmanager
    def in_turn(self, kind: str, there: bool = False) -> Iterator[None]:
        """Hold the models while the block runs; what is ``there`` already waits for nobody.

        A caller who hangs up ends what the block computes at its next step.
        """
        held = contextlib.nullcontext() if there else self.turns.held(caller(), kind, hung_up)
        with held, stopping.until(hung_up):
            yield

    def afford(self, requests: Iterable[Request]) -> None:
        """Refuse pictures that take longer than the budget; a program cannot be asked."""
        self.spend(sum(seconds_needed(self.workbench, request) for request in requests))

    def spend(self, expected: float, less: str = PICTURES_LESS) -> None:
        """Refuse what takes longer than the budget; ``less``: what to ask instead."""
        if refusal := self.turns.budget.refusal(expected, less):
            raise UserError(refusal)

    def request(
        self,
        trial: str,
        dataset: str,
        subject: str,
        mapper: str,
        generator: str,
        repeat: int,
        **wanted: Any,
    ) -> Request:
        """Return a checked request; names that are empty take the first that fits."""
        request = self.anyone(dataset, subject, mapper, generator)
        request = replace(request, stimulus=trial, repeats=repeats(repeat), **wanted)
        check_request(self.workbench.catalogue, request)
        return request

    def anyone(self, dataset: str, subject: str, mapper: str = "", generator: str = "") -> Request:
        """Return a request for some trial of a subject, the same each time."""
        named = {"mapper": mapper, "generator": generator}
        return default_request(
            self.workbench.catalogue,
            dataset or None,
            subject or None,
            seed=0,
            **{key: value for key, value in named.items() if value},
        )


def caller() -> Hashable:
    """Return who asks: a login, else the client's own session, else where a program runs."""
    request = LocalContext.request.get(None)
    if user := getattr(request, "username", None):
        return "login", user
    session = getattr(request, "session_hash", None)
    # Gradio names the session of a program that gives none after the question
    if session and session != LocalContext.event_id.get(None):
        return session
    client = getattr(request, "client", None)
    return PROGRAM, getattr(client, "host", "")


def who(session: Hashable) -> Hashable:
    """Return who looks at the page: a login, else this browser's page alone."""
    request = LocalContext.request.get(None)
    user = getattr(request, "username", None)
    return ("login", user) if user else id(session)


def hung_up() -> bool:
    """Return whether the caller of the endpoint that runs has cancelled or is gone."""
    blocks, event = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    if blocks is None or event is None:
        return False
    # A question that is cancelled leaves those at work; one who leaves marks their own.
    running = (job for jobs in blocks._queue.active_jobs for job in jobs or ())
    return not any(job._id == event and job.alive for job in running)


def repeats(repeat: int) -> tuple[int, ...]:
    """Return the repeats of a request for one that is counted from 1, or 0 for all."""
    return (repeat - 1,) if repeat else ()

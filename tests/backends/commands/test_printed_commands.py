"""Commands that the product prints work when they are copied: the real command line takes them."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import typer

from app import arguments
from backends.__main__ import app

ROOT = Path(__file__).resolve().parents[3]
START = re.compile(r"python -m backends (?=[a-z])|python app\.py(?= --)")
PLACE = "X"  # for what a sentence fills in


def texts() -> list[tuple[str, str]]:
    """Return every text that a person may meet: README, and the strings of the source."""
    found = [("README.md", (ROOT / "README.md").read_text(encoding="utf-8"))]
    for file in (ROOT / "app.py", *ROOT.glob("explorer/**/*.py"), *ROOT.glob("backends/**/*.py")):
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        inner = {id(part) for n in nodes if isinstance(n, ast.JoinedStr) for part in n.values}
        inner |= {id(n.value) for n in nodes if isinstance(n, ast.Expr)}  # docstrings
        for node in nodes:
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else PLACE for p in node.values]
                found.append((file.name, "".join(map(str, parts))))
            elif isinstance(getattr(node, "value", None), str) and id(node) not in inner:
                found.append((file.name, node.value))
    return found


def commands() -> list[tuple[str, str]]:
    """Return where each command stands, and its words up to the end of its sentence."""
    found = {}
    for where, text in texts():
        for start in START.finditer(text):
            rest = re.split(r"[`\n;]|\.\.\.|\s#", text[start.start() :].replace("\\\n", " "))[0]
            found[where, rest.strip()] = None
    return list(found)


def taken(words: list[str]) -> list[str]:
    """Return the words that belong to the command: options with values, and places."""
    command = typer.main.get_command(app).commands[words[0]]
    options = {name: one for one in command.params for name in (*one.opts, *one.secondary_opts)}
    places = sum(one.param_type_name == "argument" for one in command.params)
    mine, rest = [words[0]], words[1:]
    while rest:
        word = rest.pop(0)
        if word.startswith("--"):
            mine.append(word)
            if word in options and not getattr(options[word], "is_flag", False) and rest:
                mine.append(rest.pop(0))
        elif places:
            places -= 1
            mine.append(word)
        else:
            break
    return mine


def complete(text: str) -> bool:
    """Say whether a text is a command to copy, not the name of one in a sentence."""
    named = re.match(r"python -m backends ((doctor|fetch) \w|build-demo)", text)
    return " --" in text or named is not None


COPIED = [pair for pair in commands() if complete(pair[1])]


@pytest.mark.parametrize(("where", "text"), COPIED)
def test_a_printed_command_is_taken_by_the_real_command_line(where, text):
    words = shlex.split(text.replace("(", " ").replace(")", " "))
    if words[1] == "app.py":
        mine = words[2:4]
        if "--help" not in mine:
            arguments().parse_args(mine)
    else:
        mine = taken(words[3:])
    assert not re.search(r"\w[.,]$", mine[-1]), "a full stop is copied with the last word"
    if words[1] == "app.py":
        return
    command = typer.main.get_command(app).commands[mine[0]]
    command.make_context(mine[0], mine[1:])  # a usage error raises
    if "--dataset" in mine:
        given = mine[mine.index("--dataset") + 1]
        assert "=" in given or given in ("simulated", "D"), f"{given} is found nowhere"


def test_there_are_commands_of_every_kind():
    said = " ".join(text for _, text in COPIED)
    for name in (
        "train ",
        "search ",
        "evaluate ",
        "doctor ",
        "fetch ",
        "reconstruct ",
        "train-enc",
    ):
        assert f"backends {name}" in said
    assert "app.py --dataset" in said and len(COPIED) > 20

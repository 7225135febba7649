"""The container's image and the Space's settings agree with the tree, the app and the README."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

import app
from explorer.page import health

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def steps() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions with what follows them, lines joined."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(" ", 1)) for line in joined.splitlines() if line.strip()]


def ones(steps: list[tuple[str, str]], name: str) -> list[str]:
    return [rest for step, rest in steps if step == name]


def sent(path: str) -> bool:
    """Return whether the builder is sent a file or folder of the root: the last line decides."""
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    is_sent = True
    for line in (line for line in lines if line and not line.startswith("#")):
        if fnmatch.fnmatch(path, line.removeprefix("!")):
            is_sent = line.startswith("!")
    return is_sent


def test_what_is_copied_is_there_and_all_that_the_app_imports_and_reads_is(
    steps: list[tuple[str, str]],
) -> None:
    copied = [name for rest in ones(steps, "COPY") for name in rest.split()[:-1]]
    for name in copied:
        assert (ROOT / name).exists() and sent(name), name
    needed = {"app.py", "explorer", "backends", "assets", "checkpoints", "requirements.txt"}
    assert needed | {health.PROJECT.name} <= set(copied)
    assert not sent(".git") and not sent("tests") and not sent("logins")
    folders = {
        rest.split()[-1]: rest.split()[0] for rest in ones(steps, "COPY") if "/" not in rest
    }
    assert all(source == target for target, source in folders.items())


def test_it_runs_the_app_for_others_and_not_as_root(steps: list[tuple[str, str]]) -> None:
    (entry,) = map(json.loads, ones(steps, "ENTRYPOINT"))
    assert entry[:2] == ["python", "app.py"]
    args = app.arguments().parse_args(entry[2:])
    assert (args.host, args.no_browser) == ("0.0.0.0", True)
    (port,) = ones(steps, "EXPOSE")
    assert int(port) == args.port
    user = [step for step, _ in steps].index("USER")
    assert ones(steps, "USER") == ["1000"] and "--uid 1000" in ones(steps, "RUN")[0]
    assert {step for step, _ in steps[user:]} == {
        *("USER", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL", "ENTRYPOINT")
    }
    (kept,) = ones(steps, "VOLUME")
    assert f"AFTERIMAGE_CACHE={kept}/" in " ".join(ones(steps, "ENV"))


def test_its_health_is_asked_where_the_app_tells_it(steps: list[tuple[str, str]]) -> None:
    (check,) = ones(steps, "HEALTHCHECK")
    command = json.loads(check.partition("CMD ")[2])
    assert f"http://127.0.0.1:7860{health.PATH}" in command[-1]
    compile(command[-1], "HEALTHCHECK", "exec")


def test_pytorch_is_taken_from_requirements(steps: list[tuple[str, str]]) -> None:
    (step,) = [rest for rest in ones(steps, "RUN") if "download.pytorch.org" in rest]
    pattern = re.search(r"grep -E '(.+?)'", step)[1]
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    found = [re.split("[<>=]", line)[0] for line in lines if re.search(pattern, line)]
    assert found == ["torch", "torchvision"]


def test_the_readme_begins_with_a_spaces_settings_and_tells_the_same_commands(
    steps: list[tuple[str, str]],
) -> None:
    head, rest = re.fullmatch(r"---\n(.*?)\n---\n\n(.*)", README, re.DOTALL).groups()
    told = yaml.safe_load(head)
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {told["colorFrom"], told["colorTo"]} <= colours
    assert told["sdk"] == "docker" and str(told["app_port"]) == ones(steps, "EXPOSE")[0]
    assert told["title"] == "Afterimage" and len(told["emoji"]) == 1
    assert len(told["short_description"]) <= 60 and told["license"] == "mit"
    assert rest.startswith("# Afterimage\n")  # what GitHub shows below the table of these lines
    runs = re.findall(r"docker run (.*)", README)
    assert len(runs) == 2
    for run in runs:
        words = shlex.split(run)
        ports, kept = words[words.index("-p") + 1], words[words.index("-v") + 1]
        assert ports.endswith(f":{told['app_port']}") and kept.endswith(ones(steps, "VOLUME")[0])
        further = words[words.index("afterimage") + 1 :]
        app.arguments().parse_args(further)


def test_the_proxy_of_the_readme_leads_to_the_page() -> None:
    (file,) = re.findall(r"`(assets/\S+\.conf)`", README)
    block = (ROOT / file).read_text("utf-8")
    place = re.search(r"^location (\S+)/ ", block, re.MULTILINE)[1]
    command = re.search(rf"python app\.py (--allow-host \S+ --root-path {place})", README)[1]
    args = app.arguments().parse_args(shlex.split(command))
    assert args.root_path == place and command in block
    assert "proxy_pass http://127.0.0.1:7860/;" in block  # with a slash: the path is taken off
    for header in ("Host", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-For"):
        assert f"proxy_set_header {header} $" in block

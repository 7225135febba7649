"""The notebooks of assets/notebooks run, one after another in one kernel, and say what is true."""

from __future__ import annotations

import base64
import json
import re
import sys
import warnings
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "assets" / "notebooks").glob("*.ipynb"))
PROGRESS = re.compile(r"\d\d:\d\d:\d\d  |$")
SECONDS = 300  # for one cell on a busy machine


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Return notebook's name -> its cells after running; one kernel, its names cleared between."""
    import nbformat
    from nbclient import NotebookClient

    home = tmp_path_factory.mktemp("jupyter")
    with pytest.MonkeyPatch.context() as patch:
        for name in (
            "IPYTHONDIR",
            "JUPYTER_CONFIG_DIR",
            "JUPYTER_DATA_DIR",
            "JUPYTER_RUNTIME_DIR",
        ):
            patch.setenv(name, str(home))
        patch.setenv("OMP_NUM_THREADS", "1")  # the cores are shared with other tests
        patch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
        patch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
        cells = []
        for path in NOTEBOOKS:
            clear = nbformat.v4.new_code_cell("%reset -f")
            for cell in [*nbformat.read(path, as_version=4).cells, clear]:
                cell.metadata["notebook"] = path.stem
                cells.append(cell)
        whole = nbformat.v4.new_notebook(cells=cells)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of event loops in libraries that run the kernel
            client = NotebookClient(
                whole, timeout=SECONDS, resources={"metadata": {"path": str(NOTEBOOKS[0].parent)}}
            )
            client.create_kernel_manager()
            client.km.transport = "ipc"  # nobody else on this machine can listen
            client.km.ip = str(home / "kernel")
            client.km.kernel_spec.argv[0] = sys.executable  # whatever kernels are installed
            client.execute()
    found: dict[str, list] = {path.stem: [] for path in NOTEBOOKS}
    for cell in whole.cells:
        found[cell.metadata["notebook"]].append(cell)
    return found


def printed(cells) -> str:
    """Return all that a notebook printed."""
    return "".join(
        output.text
        for cell in cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stdout"
    )


def shown(cells, kind="text/html") -> list[str]:
    """Return what cells showed of a kind."""
    return [
        output.data[kind]
        for cell in cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if kind in output.get("data", {})
    ]


def number(pattern: str, text: str) -> float:
    return float(re.search(pattern, text)[1].replace("\N{MINUS SIGN}", "-"))


def test_the_notebooks_lie_there_without_outputs_and_small():
    assert len(NOTEBOOKS) == 5
    for path in NOTEBOOKS:
        text = path.read_text("utf-8")
        assert len(text) < 200_000
        cells = json.loads(text)["cells"]
        assert cells[0]["cell_type"] == "markdown" and cells[0]["source"][0].startswith("# ")
        assert not any(cell.get("outputs") for cell in cells)
        assert len({cell["id"] for cell in cells}) == len(cells)


@pytest.mark.parametrize("name", [path.stem for path in NOTEBOOKS])
def test_nothing_fails_and_nothing_comes_from_elsewhere(ran, name):
    for cell in ran[name]:
        for output in cell.get("outputs", ()):
            assert output.output_type != "error"
            if output.get("name") == "stderr":  # training tells how far it is, with the time
                assert all(PROGRESS.match(line) for line in output.text.splitlines()), output.text
    for html in shown(ran[name]):
        assert not re.search(r"""(src|href)=["']?(https?:)?//""", html)


def test_a_first_look(ran):
    cells = ran["1_first_look"]
    assert number(r"nearest of 300 in (\d+)%", printed(cells)) > 85
    html = shown(cells)
    assert any("simulated: no measurement" in one for one in html)
    assert any("scale 4" in one and one.count("data:image/webp") == 4 for one in html)
    assert "<iframe" in html[-1] and "srcdoc" in html[-1]


def test_whose_parcels(ran):
    cells = ran["2_whose_parcels"]
    assert number(r"42 parcels: (\S+)", printed(cells)) > 0.6
    assert any("SurfaceImage" in one for one in shown(cells, "text/plain"))
    assert any(base64.b64decode(one)[1:4] == b"PNG" for one in shown(cells, "image/png"))
    assert any("fusiform" in one for one in shown(cells))


def test_is_it_decoding(ran):
    text = printed(ran["3_is_it_decoding"])
    rank = number(r"rank (\d+)", text)
    assert rank > 30 and "chance 150.5" in text
    assert text.count(": ") >= 3 and "output-dimension collapse" in text


def test_over_trials(ran):
    text = printed(ran["4_over_trials"])
    assert number(r"(\d+) of 42 parcels carry evidence", text) >= 15
    assert number(r"contrastive over parcels: (\S+)", text) > 0.5


def test_your_own_betas(ran):
    cells = ran["5_your_own_betas"]
    assert number(r"ridge: two-way (\S+)%", printed(cells)) > 90
    assert any("shuffled" in one for one in shown(cells))

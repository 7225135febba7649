"""Grids: cells that cover everything once, engines that may be killed, one process's result."""

import json
import os
import signal
import sys
import textwrap
import time
from pathlib import Path

import pytest

from backends.commands import drawn_folder
from backends.commands.drawn_folder import Job, batches, claim, draw
from backends.commands.grid import Cell, cells, finish, forecast, jobs, read_grid
from backends.commands.grid_engine import (
    cell_command,
    draw_cell,
    drive,
    measured,
    states,
    table,
)
from backends.reports.picture_folder import load
from explorer.types import UserError

ROOT = Path(__file__).resolve().parents[3]
GOOD = """
dataset = "fake"
out = "results"
mappers = ["linear"]
generators = ["painter"]
scales = [1, 2.5]
seeds = [0, 3]
subjects = ["sub-01"]
steps = 2
limit = 8
block = 5
device = "cpu"
"""


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(drawn_folder, "BATCH", 3)


def written(tmp_path, text=GOOD):
    path = tmp_path / "grid.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('mappers = ["linear"]', "", "lacks 'mappers'; a grid has at least dataset, out, mappers"),
        ("steps = 2", "stepps = 2", "says 'stepps', which no grid has; it has block, dataset"),
        ("steps = 2", "steps = 0", "steps is a whole number from 1, found 0."),
        ("steps = 2", "steps = true", "steps is a whole number from 1, found True."),
        ("scales = [1, 2.5]", "scales = 1", "scales is a list of numbers with one or more"),
        ("scales = [1, 2.5]", "scales = []", "scales is a list of numbers with one or more"),
        ("scales = [1, 2.5]", "scales = [1, 1.0]", "scales is a list without repeats"),
        ("seeds = [0, 3]", "seeds = [0.5]", "seeds is a list of whole numbers with one or more"),
        ('out = "results"', 'out = ""', "out is a text, found ''."),
        ('device = "cpu"', "slurm = 3", r"slurm is a table, \[slurm\], found 3."),
        ("steps = 2", "steps = ", r"grid.toml cannot be read as a grid \(TOML\)"),
    ],
)
def test_a_grid_that_means_nothing_is_one_sentence(tmp_path, old, new, said):
    with pytest.raises(UserError, match=said):
        read_grid(written(tmp_path, GOOD.replace(old, new)))


def test_cells_cover_every_batch_once_and_are_of_one_subject(make_workbench, fakes, tmp_path):
    bench, grid = make_workbench(), read_grid(written(tmp_path))
    found = cells(grid, bench, "fake")
    assert len({cell.name for cell in found}) == len(found) == 4 * 2  # 8 pictures: 6 and 2
    for folder, job in jobs(grid, bench, "fake"):
        mine = [cell for cell in found if cell.folder == folder]
        covered = [n for cell in mine for n in range(cell.first, cell.last)]
        assert covered == list(range(len(batches(bench, job))))
        assert [cell.pictures for cell in mine] == [6, 2]
    assert {(cell.job.scale, cell.job.seed) for cell in found} == {
        *((1.0, 0), (1.0, 3), (2.5, 0), (2.5, 3))
    }


def test_the_result_is_that_of_one_process_in_whatever_order(make_workbench, tmp_path):
    grid = read_grid(written(tmp_path))
    bench = make_workbench()
    plan = cells(grid, bench, "fake")
    for folder, job in jobs(grid, bench, "fake"):
        claim(bench, job, folder)
    for cell in reversed(plan):
        assert not finish(grid, bench, "fake") or cell != plan[-1]
        draw_cell(make_workbench(), cell, grid.place)
    tables = finish(grid, bench, "fake")
    assert len(tables) == 4 and set(states(plan, grid.place, {}).values()) == {"done"}
    assert sorted(n for n, _ in measured(grid.place)) == [2] * 4 + [6] * 4
    for number, (folder, job) in enumerate(jobs(grid, bench, "fake")):
        alone = tmp_path / f"alone-{number}"
        draw(bench, job, alone)
        names = {p.relative_to(alone) for p in alone.rglob("*") if p.is_file()}
        assert names == {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()}
        assert load(folder)[1].equals(load(alone)[1])
        for name in names:
            if name.suffix == ".png":
                assert (folder / name).read_bytes() == (alone / name).read_bytes()


def test_a_cell_that_fails_says_why_until_it_is_drawn(make_workbench, tmp_path, monkeypatch):
    grid, bench = read_grid(written(tmp_path)), make_workbench()
    plan = cells(grid, bench, "fake")
    for folder, job in jobs(grid, bench, "fake"):
        claim(bench, job, folder)

    def breaks(*_):
        raise UserError("The weights are gone.")

    with monkeypatch.context() as broken:
        broken.setattr(drawn_folder, "_batch", breaks)
        with pytest.raises(UserError, match="gone"):
            draw_cell(bench, plan[2], grid.place)
    found = states(plan, grid.place, {})
    assert [found[cell.name] for cell in plan[:4]] == ["waiting", "waiting", "failed", "waiting"]
    said = table(plan, found, grid.place)
    assert f"{plan[2].name}: The weights are gone." in said and "failed        1 cells" in said
    draw_cell(bench, plan[2], grid.place)
    assert states(plan, grid.place, {})[plan[2].name] == "done"
    assert "gone" not in table(plan, states(plan, grid.place, {}), grid.place)


def test_a_grid_that_was_changed_meanwhile_is_refused(make_workbench, tmp_path, monkeypatch):
    """By the cell that comes to draw, and by who asks how it stands."""
    import backends.commands.options as options
    from backends.commands.run import run

    path, bench = written(tmp_path), make_workbench()
    monkeypatch.setattr(options, "open_bench", lambda *_, **__: ("fake", bench))
    grid = read_grid(path)
    plan = cells(grid, bench, "fake")
    with pytest.raises(UserError, match="is not begun; give the command without --cell"):
        run(path, cell=plan[0].name)
    for folder, job in jobs(grid, bench, "fake"):
        claim(bench, job, folder)
    run(path, cell=plan[0].name)
    assert states(plan, grid.place, {})[plan[0].name] == "done"
    written(tmp_path, GOOD.replace("steps = 2", "steps = 3"))
    for asked in ({"cell": plan[1].name}, {"status": True}):
        with pytest.raises(UserError, match="holds pictures of steps 2, asked for is 3"):
            run(path, **asked)


def test_how_long_it_takes():
    assert forecast([(10, 20.0), (30, 20.0)], 80, 2) == pytest.approx(40.0)
    assert forecast([], 80, 2) is None
    assert forecast([(10, 20.0), (30, 20.0)], 80, 2, 30.0) == pytest.approx(55.0)


def test_the_time_left_counts_the_start_of_each_cell_that_has_to_begin(tmp_path):
    notes = tmp_path / ".cells"
    notes.mkdir()
    job = Job("fake", ("sub-01",), "linear", "painter", scale=1.0, steps=1)
    plan = [Cell(f"c{n}", tmp_path / "out", job, n, n + 1, 10) for n in range(4)]
    (notes / "c0.json").write_text('{"pictures": 10, "seconds": 100, "start": 600}')
    (notes / "c1.json").write_text('{"pictures": 10, "seconds": 100}')  # of an earlier version
    found = {"c0": "done", "c1": "running", "c2": "waiting", "c3": "queued"}
    assert "time left: 25 min 00 s" in table(plan, found, tmp_path)  # 30 pictures and two starts


# ------------------------------------------------------------------------------------- the engines

DRAWS = """
import sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from explorer.folders import held
cell, part, log, seconds = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
with held(cell, "drawing"):
    with log.open("a") as file:
        file.write(cell.name + "\\n")
    time.sleep(float(seconds))
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_text("[]")
"""


@pytest.fixture
def stub(tmp_path):
    """Return a grid whose cells are scripts: they hold the lock, write the part, log the name."""
    script = tmp_path / "draws.py"
    script.write_text(DRAWS.format(root=str(ROOT)))
    text = GOOD + textwrap.dedent(
        """
        [local]
        jobs = 2
        timeout_min = 5
        [slurm]
        timeout_min = 5
        """
    )
    grid = read_grid(written(tmp_path, text))
    job = Job("fake", ("sub-01",), "linear", "painter", scale=1.0, steps=1)
    found = [Cell(f"c{n}", grid.place / "out", job, n, n + 1, 1) for n in range(3)]
    log = tmp_path / "log"

    def command(cell, seconds=0.0):
        part = cell.folder / ".parts" / f"{cell.first:05}.json"
        lock = grid.place / ".cells" / cell.name
        return [sys.executable, str(script), *map(str, (lock, part, log, seconds))]

    return grid, found, command, log


def test_the_engine_on_this_machine_draws_every_cell_once(stub):
    grid, plan, command, log = stub
    said = []
    found = drive(grid, plan, "local", command, said.append, every=0.05)
    assert set(found.values()) == {"done"} and sorted(log.read_text().split()) == [
        *("c0", "c1", "c2")
    ]
    assert said[0].startswith("done          0 cells") and "done          3 cells" in said[-1]


def test_a_cell_that_ends_without_a_word_is_tried_twice_and_then_left(stub):
    grid, plan, command, log = stub

    def dies(cell):
        begun = f"open({str(log)!r}, 'a').write('x'); import os; os._exit(3)"
        return [sys.executable, "-c", begun] if cell.name == "c1" else command(cell)

    found = drive(grid, plan, "local", dies, lambda _: None, every=0.05)
    assert found == {"c0": "done", "c1": "waiting", "c2": "done"}
    assert log.read_text().count("x") == 2
    found = drive(grid, plan, "local", command, lambda _: None, every=0.05)
    assert set(found.values()) == {"done"} and log.read_text().count("c0") == 1


def test_a_killed_driver_loses_nothing_and_the_next_draws_nothing_twice(stub):
    grid, plan, command, log = stub
    if not (driver := os.fork()):
        try:
            drive(grid, plan, "local", lambda c: command(c, 3.0), lambda _: None, every=0.05)
        finally:
            os._exit(0)
    end = time.monotonic() + 60
    while not log.exists() or len(log.read_text().split()) < 2:
        assert time.monotonic() < end, "no cell began"
        time.sleep(0.02)
    os.kill(driver, signal.SIGKILL)
    os.waitpid(driver, 0)
    running = states(plan, grid.place, {})
    assert sorted(running.values()) == ["running", "running", "waiting"]
    found = drive(grid, plan, "local", command, lambda _: None, every=0.05)
    assert set(found.values()) == {"done"}
    assert sorted(log.read_text().split()) == ["c0", "c1", "c2"]


SBATCH = """#!{python}
import os, re, subprocess, sys
file = sys.argv[-1]
text = open(file).read()
array = re.search(r"--array=(\\d+)-(\\d+)", text)
for task in range(int(array[1]), int(array[2]) + 1) if array else [None]:
    job = "77" if task is None else f"77_{{task}}"
    env = dict(os.environ, SLURM_JOB_ID="77", SLURM_NTASKS="1", SLURM_JOB_NUM_NODES="1",
               SLURM_NODEID="0", SLURM_PROCID="0", SLURM_LOCALID="0")
    if task is not None:
        env |= {{"SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": str(task)}}
    subprocess.Popen(["bash", file], env=env, stdout=subprocess.DEVNULL,
                     stderr=subprocess.DEVNULL)
print("Submitted batch job 77")
"""
SRUN = """#!{python}
import os, sys
words = sys.argv[1:]
while words and words[0].startswith("-"):
    words = words[2:] if words[0] in ("--output", "--error") else words[1:]
os.execvp(words[0], words)
"""
SACCT = """#!{python}
print("JobID|State|NodeList")
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Programs of Slurm's names that run an array's tasks here, at once."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT)):
        (folder / name).write_text(text.format(python=sys.executable))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_a_grid_goes_to_slurm_as_one_array(stub, slurm):
    grid, plan, command, log = stub
    found = drive(grid, plan, "slurm", command, lambda _: None, every=0.2)
    assert set(found.values()) == {"done"}
    assert sorted(log.read_text().split()) == ["c0", "c1", "c2"]
    known = json.loads((grid.place / ".cells" / "jobs.json").read_text())
    assert {name: job for name, (job, _) in known.items()} == {
        **{"c0": "77_0", "c1": "77_1", "c2": "77_2"}
    }
    file = grid.place / ".cells" / "logs" / "77_submission.sh"
    assert "--array=0-2" in file.read_text()


def test_without_slurm_or_with_settings_that_it_lacks_it_is_one_sentence(stub, monkeypatch):
    grid, plan, command, _ = stub
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="--on slurm needs Slurm's sbatch, which is not on this"):
        drive(grid, plan, "slurm", command, print)
    with pytest.raises(UserError, match="--on is one of local, slurm, found 'cloud'"):
        drive(grid, plan, "cloud", command, print)
    grid.local["jobs"] = 0
    with pytest.raises(UserError, match=r"\[local\] jobs is a whole number from 1, found 0"):
        drive(grid, plan, "local", command, print)
    grid.local.update(jobs=1, timeout_min="long")
    with pytest.raises(
        UserError, match=r"\[local\] timeout_min is a whole number from 1, found 'l"
    ):
        drive(grid, plan, "local", command, print)
    grid.local.update(timeout_min=5, mem_gb="much")
    with pytest.raises(UserError, match="refused by submitit: .*mem_gb"):
        drive(grid, plan, "local", command, print)
    del grid.local["mem_gb"]
    grid.local["foo"] = 3
    known = "no key 'foo'; it takes jobs, timeout_min, nodes, .* stderr_to_stdout, and local_setup"
    with pytest.raises(UserError, match=known):
        drive(grid, plan, "local", command, print)
    del grid.local["foo"]
    grid.local.update(jobs=1, gpus="many")
    with pytest.raises(UserError, match=r"The table \[local\] of the grid is refused by submitit"):
        drive(grid, plan, "local", command, print)


def test_a_cell_of_several_processes_is_launched(tmp_path):
    grid = read_grid(written(tmp_path, GOOD + "processes = 4\n"))
    job = Job("fake", ("sub-01",), "linear", "painter", scale=1.0, steps=1)
    cell = Cell("c0", tmp_path, job, 0, 1, 1)
    command = cell_command(Path("g.toml"), grid, cell, Path("weights"))
    words = "-m accelerate.commands.launch --cpu --num_processes 4 -m backends run g.toml"
    assert " ".join(command[1:]) == f"{words} --cell c0 --checkpoints weights"

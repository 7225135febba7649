"""A training or search killed with SIGKILL ends, when given again, as the uninterrupted one.

The killed runs are children of one program (see the end), since a process that has trained cannot
be forked: PyTorch's autograd keeps threads.
"""

import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import torch

from backends import MAPPERS
from backends.mappers.contrastive import Contrastive
from backends.training import engine, random_search
from backends.training import state as states
from backends.training.state import STATE
from explorer.types import resolve
from tests.backends.mappers.test_contract import VECTOR, VOXELS, toy

ROOT = Path(__file__).resolve().parents[3]
SHORT = {"batch": 16, "epochs": 3, "trackers": ()}
SETTINGS = {
    "contrastive": {"width": 8, "hidden": 8},
    "flow": {"hidden": 8, "steps": 2},
    "masked": {
        **{"patch": 4, "width": 8, "depth": 1, "heads": 2, "latents": 4},
        **{"pretrain_epochs": 2, "validation": 0.0},
    },
    "mixer": {"hidden": 8, "blocks": 1, "prior": True, "prior_width": 16, "prior_depth": 1},
    "mlp": {"width": 8},
}
SEARCH = {"width": 4, "hidden": 4, "batch": 8, "epochs": 2}
LAST = 5  # which state is the last that a killed run writes


def fitted(name, run=None, progress=None):
    given = SETTINGS[name] | SHORT | {"run": run, "progress": progress}
    both = [toy(subject)[0] for subject in VOXELS]
    return resolve(MAPPERS[name]).fit(both, toy("sub-01")[1], seed=0, **given)


def searched(folder):
    both = [toy(subject)[0] for subject in VOXELS]
    goals = {VECTOR: toy("sub-01")[1][VECTOR]}
    tries = random_search.read_tries("contrastive", Contrastive, ["lr=1e-3..1e-2:log"])
    given = {"tries": tries, "count": 3, "fixed": SEARCH, "seed": 1}
    return random_search.search("contrastive", Contrastive, both, goals, folder, **given)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Where the killed runs of all mappers, and of a search, lie."""
    folder = tmp_path_factory.mktemp("killed")
    paths = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.backends.mappers.test_killed", str(folder)]
    done = subprocess.run(command, env=os.environ | paths, cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return folder


@pytest.mark.parametrize("name", SETTINGS)
def test_a_killed_training_goes_on_to_the_same_mapper(name, killed):
    assert list((killed / name).rglob(STATE))
    said = []
    resumed = fitted(name, killed / name, said.append)
    assert any("goes on from step" in sentence for sentence in said)
    for key, value in fitted(name).state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[key], value, atol=0, rtol=0, msg=key)


def test_a_killed_search_goes_on_to_the_same_table(killed, tmp_path):
    assert list((killed / "search").rglob(STATE))
    resumed, whole = searched(killed / "search"), searched(tmp_path / "whole")
    assert resumed.equals(whole) and len(whole) == 3 and whole["score"].notna().all()
    assert not list((killed / "search").rglob(STATE))


def main(folder):
    """Train every mapper in a child that is killed after some states; fail where one is not."""
    torch.set_num_threads(1)
    write, count = engine.write_state, []
    states.EVERY = -1.0  # after every step

    def writing(state, file):
        write(state, file)
        count.append(file)
        if len(count) == LAST:
            os.kill(os.getpid(), signal.SIGKILL)

    engine.write_state = writing
    works = {name: lambda name=name: fitted(name, folder / name) for name in SETTINGS}
    works["search"] = lambda: searched(folder / "search")
    for name, work in works.items():
        pid = os.fork()
        if not pid:
            try:
                work()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(7)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, name


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""The fake study as a program opens it."""

import pytest

from explorer.notebook.study import choose


@pytest.fixture(scope="session")
def study(fakes, fake_checkpoints):
    from explorer.workbench import Workbench

    bench = Workbench(
        {"fake": fakes.Study},
        {"fake-clip": fakes.Embedder},
        {"linear": fakes.Linear},
        {"painter": fakes.Generator, "plain": fakes.Unguided},
        checkpoints=fake_checkpoints,
    )
    return choose(bench, None)

"""A path has one name: in the README, in what doctor prints, and where it is given without one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import app
from backends import DATASETS
from backends.commands import options
from backends.commands.doctor import examine
from explorer.naming import named_path

README = (Path(app.__file__).parent / "README.md").read_text(encoding="utf-8")
OWN = {  # NAME=PATH that a reader copies, but for formats and words to fill in
    (name, path)
    for name, path in re.findall(r"--dataset \"?([\w.-]+)=([\w./~-]+)", README)
    if name not in DATASETS and not path.isupper()
}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Return a plain folder under the name that the README gives one."""
    ((_, name),) = OWN
    root, rng = tmp_path / name, np.random.default_rng(0)
    (root / "stimuli").mkdir(parents=True)
    (root / "sub-01").mkdir()
    names = [f"{i}.png" for i in range(8)]
    for file in names:
        picture = rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)
        Image.fromarray(picture).save(root / "stimuli" / file)
    (root / "dataset.json").write_text('{"title": "My study"}')
    tables = {
        "stimuli/stimuli.tsv": {"file": names},
        "sub-01/trials.tsv": {
            "stimulus": [str(i) for i in range(8)],
            "split": ["train"] * 6 + ["test"] * 2,
        },
    }
    for file, columns in tables.items():
        pd.DataFrame(columns).to_csv(root / file, sep="\t", index=False)
    np.save(root / "sub-01" / "betas.npy", rng.standard_normal((8, 30)).astype(np.float32))
    return root


def test_readme_doctor_and_a_path_without_a_name_agree(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((name, path),) = OWN
    monkeypatch.chdir(study.parent)
    told = shlex.split(examine(path, DATASETS)[0][-1])[-1]
    assert told == f"{name}={path}"
    bare = app.arguments().parse_args(["--dataset", path])
    assert name in app.open_workbench(bare).catalogue.dataset_names()
    assert options.open_bench(path, Path("checkpoints"))[0] == name
    assert named_path(f"{path}?split=random", datasets=DATASETS)[0] == name


def test_a_path_without_a_name_must_be_there(tmp_path: Path) -> None:
    for pair in ("nsd", str(tmp_path / "gone"), "=here", f"n/s={tmp_path}"):
        with pytest.raises(Exception, match="--dataset takes NAME=PATH"):
            named_path(pair, datasets=DATASETS)

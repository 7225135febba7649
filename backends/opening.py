"""The door for programs: a study opened with everything that is on offer here.

As `app` does for the page, this introduces the backends to the explorer.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.notebook.study import Study


def open_study(
    dataset: str | os.PathLike[str] = "simulated",
    *,
    subject: str = "",
    mapper: str = "",
    generator: str = "",
    atlas: Sequence[str] | str = (),
    published: Mapping[str, str | os.PathLike[str]] | None = None,
    weights: Mapping[str, str | os.PathLike[str]] | None = None,
    checkpoints: str | os.PathLike[str] | None = None,
    store: str | os.PathLike[str] | None = None,
    device: str = "auto",
) -> Study:
    """Return a study: its trials, decodings, maps, lesions and statistics.

    Parameters
    ----------
    dataset
        ``"NAME=PATH"``, ``"NAME=PATH?option=value"`` or a path alone: the format is recognised by
        content. A name alone is a data set that comes along, by default the embedded study.
    subject, mapper, generator
        Names; "" takes the first that fits. ``Study.choose`` changes them later.
    atlas
        Further atlases on fsaverage, as for ``--atlas`` of the app.
    published
        Results of others, name -> path, as for ``--published`` of the app.
    weights
        Where the weights of a generator are, name -> folder or hub id.
    checkpoints
        The folder of trained weights; None is the one that comes along.
    store
        A folder in which finished pictures are kept and looked for; None for nowhere.
    device
        auto, cpu, cuda, cuda:1, mps ...

    Returns
    -------
    explorer.notebook.study.Study
        It shows itself in a notebook.

    Raises
    ------
    UserError
        Where a name is unknown (the sentence says which there are) or a path holds no study.
    """
    from backends import DATASETS
    from backends.commands import options
    from explorer.notebook.study import choose

    # Libraries load tqdm, which in a notebook without ipywidgets warns of bars that nobody draws.
    warnings.filterwarnings("ignore", message="IProgress not found")
    named = os.fspath(dataset)
    known = "=" in named or named in DATASETS or Path(named).expanduser().exists()
    if not known and os.sep in named:
        raise UserError(f"There is no file or folder {named}; check the path.")
    if not known and named not in (here := _that_come_along()):
        raise UserError(
            f"There is no data set {named!r} here: choose one of {', '.join(here)}, or give your "
            f'own as open_study("{named}=PATH").'
        )
    folder = Path(checkpoints).expanduser() if checkpoints else options.CHECKPOINTS
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder} with checkpoints; check the path.")
    name, bench = options.open_bench(
        named,
        folder,
        device,
        [f"{result}={os.fspath(path)}" for result, path in (published or {}).items()],
        [f"{drawn}={os.fspath(path)}" for drawn, path in (weights or {}).items()],
        Path(store) if store else None,
        [atlas] if isinstance(atlas, str) else atlas,
    )
    return choose(bench, None, subject, mapper, generator, name)


def _that_come_along() -> list[str]:
    """Return the names of the data sets that need no path."""
    from backends import DATASETS
    from explorer.catalogue import Catalogue

    return Catalogue(DATASETS, {}, {}, {}, checkpoints=Path("none")).dataset_names()

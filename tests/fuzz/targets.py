"""Every reader with a small valid input: what is written, and what opens and reads all of it."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from backends.commands import foreign_checkpoints
from backends.datasets.algonauts import Algonauts2023
from backends.datasets.bold5000 import BOLD5000
from backends.datasets.cneuromod import CNeuroModThings
from backends.datasets.folder import Folder
from backends.datasets.god import GOD
from backends.datasets.god_mindvis import GODMindVis
from backends.datasets.miyawaki import Miyawaki2008
from backends.datasets.miyawaki_runs import Miyawaki2008Runs
from backends.datasets.miyawaki_series import Miyawaki2008S2
from backends.datasets.mosaic import Mosaic
from backends.embedders.captions import read_captions
from backends.encoders.gnet import read_release
from backends.generators.published import Published as PublishedPictures
from backends.mappers.masked import Masked
from backends.mappers.published import Published as PublishedEmbeddings
from backends.reports import picture_folder
from backends.simulation.judge import PocketJudge
from explorer.brain.atlases import open_atlas
from explorer.evidence.evaluation import read_evaluation
from explorer.images import ENDINGS, read_picture
from explorer.page.links import parse_record
from explorer.page.logins import read_logins
from explorer.protocols import Condition
from explorer.records import FORMAT, from_record
from explorer.request import Request, View
from explorer.types import EmbeddingSpace, UserError
from tests.backends.commands.test_import_checkpoint import mind_vis, mindeye2
from tests.fuzz.adopting import read_glm, write_glm
from tests.fuzz.studies import (
    SHIPPED,
    SHOWN,
    examined,
    known,
    read_all,
    read_bold_volumes,
    read_laion,
    read_mindeye1,
    read_mindeye2,
    read_nsd,
    read_nsd_parts,
    read_simulated,
    read_things,
    write_bold_arrays,
    write_bold_volumes,
    write_folder,
    write_god,
    write_god_mindvis,
    write_nsd,
    write_nsd_parts,
    write_simulated,
)
from tests.miniatures import atlases, miyawaki, things
from tests.miniatures.algonauts import write_algonauts
from tests.miniatures.cneuromod import write_cneuromod
from tests.miniatures.laion import write_laion
from tests.miniatures.mindeye1 import write_mindeye1
from tests.miniatures.mindeye2 import write_mindeye2
from tests.miniatures.mosaic import write_person

SPACE = EmbeddingSpace("toy", "fuzz", (4,), unit_norm=False)


class Target(NamedTuple):
    """A reader: ``write`` a valid input into an empty folder, ``read`` all of it there.

    ``read`` raises `UserError` or returns what was read. ``spoilt``: which of the files are
    spoilt, as a pattern.
    """

    name: str
    write: Callable[[Path], Any]
    read: Callable[[Path], Any]
    spoilt: str = "**/*"


# ----------------------------------------------------------------------------------------- studies


def write_results(root: Path) -> None:
    """Write a study, and what others might have published of its two test pictures."""
    write_folder(root / "study")
    rows = torch.arange(8.0).reshape(2, 4)
    torch.save(rows, root / "rows.pt")
    np.save(root / "rows.npy", rows.numpy())
    torch.save(torch.rand(2, 3, 8, 8), root / "pictures.pt")
    np.save(root / "pictures.npy", np.zeros((2, 8, 8, 3), np.uint8))
    (root / "order.txt").write_text("005\n004\n")
    np.save(root / "order.npy", np.array([4, 5]))
    (root / "folder").mkdir()
    for name in ("004.png", "005.png"):
        Image.new("RGB", (8, 8), "teal").save(root / "folder" / name)


def read_results(root: Path) -> list[Any]:
    """Return each result's rows or pictures, or why it is refused; one does not hide another."""
    study, found = Folder(root / "study", "s"), []
    who = study.load("a").subject
    spaces = {SPACE.name: SPACE}
    for file in ("rows.pt", "rows.npy"):
        for order in ("ascending", str(root / "order.txt")):
            mapper = _tried(
                lambda f=file, o=order: PublishedEmbeddings(
                    root / f, "theirs", study, "a", spaces, space=SPACE.name, order=o
                )
            )
            found.append(mapper if isinstance(mapper, str) else type(mapper).__name__)
    for file in ("pictures.pt", "pictures.npy", "folder"):
        order = "" if file == "folder" else "ascending"
        found.append(_tried(lambda f=file, o=order: _picture(root / f, study, who, o)))
    refused = [text for text in found if isinstance(text, str) and text.endswith(".")]
    if refused:
        raise UserError(refused[0])
    return found


def _picture(path: Path, study: Any, who: Any, order: str) -> np.ndarray:
    theirs = PublishedPictures(path, "theirs", study, "a", order=order)
    conditions = [Condition({}, stimulus=s, dataset=study, subject=who) for s in ("004", "005")]
    return theirs.generate(conditions, 0.0, [0, 0], 1)


def _tried(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except UserError as error:
        return str(error)


def write_checkpoints(root: Path) -> None:
    shutil.copytree(SHIPPED / "pocket-judge", root / "pocket-judge")
    for name in ("masked-subj01-subj02-subj03-subj04",):
        shutil.copytree(SHIPPED / "mappers" / "simulated" / name, root / "masked")


def read_checkpoints(root: Path) -> list[Any]:
    judge, mapper = PocketJudge(root), Masked.from_pretrained(root / "masked")
    mapper = mapper[0] if isinstance(mapper, tuple) else mapper
    return [*judge.network.state_dict().values(), *mapper.state_dict().values()]


def write_foreign(root: Path) -> None:
    torch.save({"model_state_dict": mindeye2(), "epoch": 3}, root / "last.pth")
    torch.save({"model": mind_vis(), "config": {"a": 1}}, root / "mae.pt")
    save_file(mindeye2(), root / "mixer.safetensors")


def read_foreign(root: Path) -> list[Any]:
    files = sorted(root.iterdir())
    return [dataclasses.astuple(foreign_checkpoints.open_checkpoint(f))[1] for f in files]


def write_release(root: Path) -> None:
    params = {"enc": {"mu": torch.zeros(3)}, "fwrfs": {1: {"w": torch.zeros(2, 2)}}}
    torch.save({"best_params": params, "mean": np.zeros(3)}, root / "gnet.pt")


def write_evaluation(root: Path) -> None:
    shutil.copytree(SHIPPED / "evaluation" / "simulated", root / "e")


def read_evaluated(root: Path) -> list[Any]:
    found = read_evaluation(root / "e")
    return [found.table.to_csv(), found.trials.to_csv()]


# ------------------------------------------------------------------------------------- small files


def write_record(root: Path) -> None:
    request = Request("d", "sub-01", "000", "m", "g", options=(("contrast", 0.5),))
    values = {"request": dataclasses.asdict(request), "view": dataclasses.asdict(View())}
    (root / "record.json").write_text(json.dumps({"afterimage": FORMAT, **values}))


def read_record(root: Path) -> list[Any]:
    try:
        text = (root / "record.json").read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError("The record is gone.") from error
    return [repr(from_record(parse_record(text)))]


def write_captions(root: Path) -> None:
    (root / "captions.csv").write_text('stimulus,caption\n000,"a, b"\n001,c\n')


def write_logins(root: Path) -> None:
    (root / "logins.txt").write_text("# who\nann:secret\nbob:pass word\n")


def write_reconstructions(root: Path) -> None:
    settings = {"dataset": "d", "mapper": "m", "generator": "g", "scale": 2.0, "steps": 5}
    (root / picture_folder.SETTINGS).write_text(json.dumps(settings))
    rows = [
        {"subject": "s", "stimulus": str(i), "sample": 0, "seed": i, "file": f"s/{i}-0.png"}
        for i in range(2)
    ]
    picture_folder.write_table(rows, root / picture_folder.METRICS)
    (root / "s").mkdir()
    for row in rows:
        Image.new("RGB", (8, 8)).save(root / row["file"])


def read_reconstructions(root: Path) -> list[Any]:
    settings, table = picture_folder.load(root)
    return [repr(settings), table.to_csv(), *(read_picture(root / f) for f in table["file"])]


def write_pictures(root: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (24, 30, 3), dtype=np.uint8)
    colour, exif = Image.fromarray(values), Image.Exif()
    exif[0x0112] = 6
    for ending in (*ENDINGS, ".ppm"):
        options = {"exif": exif} if ending in (".jpg", ".png", ".webp") else {}
        colour.save(root / f"a{ending}", **options)
    Image.fromarray(values[..., 0].astype(np.uint16) * 257).save(root / "wide.tif")
    Image.fromarray(values[..., 0] / np.float32(255)).save(root / "float.tif")
    colour.convert("CMYK").save(root / "cmyk.jpg")
    colour.quantize(16).save(root / "palette.png", transparency=0)


def read_pictures(root: Path) -> list[Any]:
    return [read_picture(file) for file in sorted(root.iterdir())]


def read_atlases(root: Path) -> list[Any]:
    found: list[Any] = []
    for text in ("lh.a.annot", "lh.g.label.gii", "rh.z.label.gii.gz", "lh.m.mgz", "rh.h.mgh",
                 "c.dlabel.nii", "n.npy"):  # fmt: skip
        atlas = open_atlas(str(root / text))
        found += [atlas.vertices, *(label.key for label in atlas.labels)]
    return found


TARGETS = (
    Target("plain folder", write_folder, lambda r: [known(r), read_all(Folder(r, "s"))]),
    Target("doctor", write_folder, examined),
    Target("simulated", write_simulated, read_simulated),
    Target(
        "miyawaki2008",
        lambda r: miyawaki.write_means(r / "V1_mean_figure.mat"),
        lambda r: [known(r), read_all(Miyawaki2008(r, "s"))],
    ),
    Target(
        "miyawaki2008-nilearn",
        lambda r: miyawaki.write_folder(r / "miyawaki2008"),
        lambda r: [known(r), read_all(Miyawaki2008Runs(r, "s"))],
    ),
    Target(
        "miyawaki2008-s2",
        lambda r: miyawaki.write_series(r / "S2_figureImage.mat"),
        lambda r: [known(r), read_all(Miyawaki2008S2(r, "s"))],
    ),
    Target("god", write_god, lambda r: [known(r), read_all(GOD(r, "s"))]),
    Target("god-mindvis", write_god_mindvis, lambda r: [known(r), read_all(GODMindVis(r, "s"))]),
    Target(
        "bold5000 arrays",
        write_bold_arrays,
        lambda r: read_all(BOLD5000(r, "s"), SHOWN),
    ),
    Target("bold5000 volumes", write_bold_volumes, read_bold_volumes, "**/*.nii*"),
    Target("nsd", write_nsd, read_nsd),
    Target("nsd parts", write_nsd_parts, read_nsd_parts, "**/*nsd[si][ym][na]*/**/*.*"),
    Target("mindeye1", write_mindeye1, read_mindeye1),
    Target("mindeye2", write_mindeye2, read_mindeye2),
    Target("algonauts", write_algonauts, lambda r: read_all(Algonauts2023(r, "s"))),
    Target("mosaic", write_person, lambda r: [known(r), read_all(Mosaic(r, "s"))], "*.hdf5"),
    Target("adopt", write_glm, read_glm),
    Target("laion-fmri", write_laion, read_laion),
    Target("things", things.write_shown, read_things),
    Target("cneuromod", write_cneuromod, lambda r: read_all(CNeuroModThings(r, "s"))),
    Target("atlases", atlases.write_all, read_atlases),
    Target("published", write_results, read_results, "[!s]*"),
    Target("checkpoints", write_checkpoints, read_checkpoints),
    Target("foreign checkpoints", write_foreign, read_foreign),
    Target("gnet", write_release, lambda r: [repr(read_release(r / "gnet.pt"))]),
    Target("evaluation", write_evaluation, read_evaluated),
    Target("record", write_record, read_record),
    Target("captions", write_captions, lambda r: [repr(read_captions(r / "captions.csv"))]),
    Target("logins", write_logins, lambda r: [repr(read_logins(r / "logins.txt")[0].users)]),
    Target("reconstructions", write_reconstructions, read_reconstructions),
    Target("pictures", write_pictures, read_pictures),
)

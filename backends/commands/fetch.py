"""Data sets from the net, ``python -m backends fetch NAME``, and how to get those that are not.

Two can be fetched as they are: Miyawaki et al. 2008 by nilearn, and BOLD5000's images, events and
ROI masks by openneuro-py. Both go on where they were stopped; afterwards every file is looked at.
`BY_HAND` says in plain words how to get what needs a form, or a page that no program may visit.

openneuro-py is not among the requirements: its HTTP library puts another urllib3 in the place of
the one that everything else uses.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from backends.datasets.bold5000_files import PEOPLE, RUN
from explorer.types import UserError

# Snapshot 1.2.0 is the only one that holds the images; they were taken out of 1.3.0. Counts and
# bytes are those of its file list (github.com/OpenNeuroDatasets/ds001499).
SNAPSHOT = "1.2.0"
IMAGES, IMAGE_BYTES = 4916, 341_211_021
ROI_MASKS = 40
NAMED = 3  # files that a sentence names before it counts

BY_HAND = {
    "nsd": """\
The Natural Scenes Dataset may be used by whoever has agreed to its terms; nobody may pass it on.

1. Read the terms (cvnlab.slite.page/p/IB6BSeW_7o/Terms-and-Conditions) and fill in the Data
   Access Agreement at naturalscenesdataset.org.
2. Install the AWS command line and copy what is read here, e.g. for subject 1 at 1.8 mm:
     aws s3 sync --no-sign-request s3://natural-scenes-dataset NSD --exclude "*" \\
       --include "nsddata/experiments/nsd/nsd_expdesign.mat" \\
       --include "nsddata/ppdata/subj01/behav/responses.tsv" \\
       --include "nsddata/ppdata/subj01/func1pt8mm/roi/*" \\
       --include "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR/*.hdf5" \\
       --include "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR/ncsnr*" \\
       --include "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
   The images alone are about 40 GB.
3. python -m backends doctor NSD""",
    "mindeye2": """\
MindEye2's release is NSD data, prepared: agree to NSD's terms first (see fetch nsd).

1. Everything lies at huggingface.co/datasets/pscotti/mindeyev2 (over 100 GB). For subject 1:
     hf download pscotti/mindeyev2 --repo-type dataset --local-dir mindeyev2 \\
       --include "betas_all_subj01_fp32_renorm.hdf5" --include "wds/subj01/*" \\
       --include "coco_images_224_float16.hdf5" --include "shared1000.npy" \\
       --include "brain_region_masks.hdf5" --include "COCO_73k_subj_indices.hdf5"
   The images (coco_images_224_float16.hdf5) are about 22 GB.
2. python -m backends doctor mindeyev2""",
    "god": """\
Generic Object Decoding (Horikawa and Kamitani 2017): fMRI is public, images are on request.

1. fMRI: download Subject1.h5 to Subject5.h5 into a folder GOD from
   figshare.com/articles/Generic_Object_Decoding/7387130.
2. Images: ask the Kamitani lab with the form forms.gle/ujvA34948Xg49jdn9 (they may not be passed
   on), and unpack the zip into the same folder: images/training, images/test and their csv lists.
3. python -m backends doctor GOD""",
    "bold5000-betas": """\
BOLD5000's betas (release 2) lie on figshare; the fMRI is CC0, no form is needed.

1. Open figshare.com/articles/dataset/BOLD5000_Release_2_0/14456124 and download either
   BOLD5000_GLMsingle_ROI_betas.zip (five regions of each hemisphere, the small one) or, for the
   whole brain, CSI1_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_ses-01.nii.gz to ses-15 with
   CSI1_brainmask.nii.gz and CSI1_imgnames.txt. Type D is what the authors recommend.
2. Images and presentation lists: python -m backends fetch bold5000; or BOLD5000_Stimuli.zip from
   bold5000-dataset.github.io/website/download.html. Put all of it into one folder.
3. python -m backends doctor FOLDER""",
    "things-fmri": """\
THINGS-fMRI (Hebart 2023): betas are CC0, no form is needed; images have their own terms.

1. Download the tables of single-trial responses from doi.org/10.25452/figshare.plus.20492835
   into a folder THINGS-fMRI: betas_csv with sub-0X_ResponseData.h5 (211,339 x 9,840 numbers for
   sub-01), sub-0X_StimulusMetadata.csv and sub-0X_VoxelMetadata.csv; beside it brainmasks and, if
   you want volumes, betas_vol.
2. Images: osf.io/jum2f; its zip opens with the password that stands with the terms of use. Unpack
   it to THINGS-fMRI/THINGS-images/<concept>/. Without them maps and betas work.
3. python -m backends doctor THINGS-fMRI""",
    "laion-fmri": """\
LAION-fMRI (Zerbe 2026): betas are CC0 in a public bucket; pictures need a data use agreement.

1. pip install laion-fmri, then laion-fmri download for the subjects you want (or aws s3 sync
   --no-sign-request s3://laion-fmri FOLDER): derivatives/glmsingle-tedana/sub-XX, about 2 GB a
   session, derivatives/rois, derivatives/anatomical, and stimuli/*_embeddings.h5.
2. Pictures: laion-fmri request-access, then laion-fmri download-stimuli. Without them what is
   decoded is compared in the published embeddings.
3. python -m backends doctor FOLDER""",
    "cneuromod-things": """\
CNeuroMod-THINGS (St-Laurent 2025): CC0, by DataLad; images have THINGS' own terms.

1. datalad clone https://github.com/courtois-neuromod/cneuromod-things
2. datalad get -n THINGS/glmsingle THINGS/fmriprep THINGS/fmriprep/sourcedata/things, then
   datalad get, in THINGS/glmsingle, sub-01/glmsingle/output/*trialBetas_desc-zscore*.h5 and
   *noiseCeilings*.nii.gz, and in THINGS/fmriprep/sourcedata/things sub-01/ses-*/func/*_events.tsv.
   If you want regions, fLoc/rois and retinotopy/prf.
3. Images: stimuli/images_fmri.zip there; its password is in password_images.txt.
4. python -m backends doctor cneuromod-things""",
}


def fetch(
    name: Annotated[
        str,
        typer.Argument(
            help="miyawaki2008, bold5000; or nsd, mindeye2, god, bold5000-betas, things-fmri, "
            "laion-fmri, cneuromod-things: how to get them."
        ),
    ],
    out: Annotated[Path, typer.Option(help="A folder NAME is made in it, or completed.")] = Path(
        "data"
    ),
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before downloading.")] = False,
) -> None:
    """Download a data set, after its size and licence, or say how it is asked for by hand."""
    if name in BY_HAND:
        print(BY_HAND[name])
        raise typer.Exit(1)
    offer, folder = find(name), out.expanduser() / name
    print(
        f"{offer.title}\n  size     {offer.size}\n  licence  {offer.licence}\n  to       {folder}"
    )
    if folder.is_dir() and not offer.lacking(folder):
        print("Everything is there already.")
    else:
        if not yes:
            typer.confirm("Download it?", abort=True)
        bring(offer, folder)
        print("Everything came and is whole.")
    if offer.then:
        print(f"\n{offer.then}")
    print(f"\nNext: python -m backends doctor {folder}")


@dataclass(frozen=True)
class Offer:
    """What can be fetched: words for the person, how it comes, and what is not there yet.

    ``lacking(folder)`` gives one sentence a problem, none when all is there. ``then`` is what to
    do with the folder, "" when nothing.
    """

    title: str
    size: str
    licence: str
    host: str
    bring: Callable[[Path], None]
    lacking: Callable[[Path], list[str]]
    then: str = ""


def find(name: str) -> Offer:
    """Return what ``fetch NAME`` can bring; an unknown name raises `UserError`."""
    if name not in OFFERS:
        raise UserError(
            f"There is nothing named {name!r} to fetch; choose {', '.join(OFFERS)}, or for "
            f"instructions {', '.join(BY_HAND)}."
        )
    return OFFERS[name]


def bring(offer: Offer, folder: Path) -> None:
    """Download into a folder, going on where an earlier attempt stopped, and look at what came.

    Raises `UserError` in one sentence when it could not come, or came incomplete.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        offer.bring(folder)
    except UserError:
        raise
    except Exception as error:  # downloaders raise what their HTTP libraries do
        reason = (str(error).strip().splitlines() or [""])[0]
        # requests' own sentence is a long one about its pools
        reason = f": {reason}" if 0 < len(reason) <= 120 else ""
        raise UserError(
            f"{offer.title} could not be fetched from {offer.host} "
            f"({type(error).__name__}{reason}); check the connection and run the same command "
            "again, it goes on where it stopped."
        ) from error
    problems = offer.lacking(folder)
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise UserError(
            f"{folder} is not complete: {problems[0].rstrip('.')}{more}; run the same command "
            "again."
        )


# --------------------------------------------------------------------------------- Miyawaki 2008


def _bring_miyawaki(folder: Path) -> None:
    from nilearn.datasets import fetch_miyawaki2008

    # nilearn makes a folder of its own name in the one it is given
    fetch_miyawaki2008(data_dir=folder.parent, verbose=1)


def _miyawaki_files() -> list[str]:
    """Return the files of nilearn's archive: 12 figure and 20 random runs, labels and masks."""
    runs = [("figure", i) for i in range(1, 13)] + [("random", i) for i in range(1, 21)]
    areas = ["V1d", "V1v", "V2d", "V2v", "V3A", "V3", "V4v", "VP"]
    areas += [f"lag{i}to{i + 1}" for i in range(11)]
    return [
        *(f"func/data_{kind}_run{i:02d}.nii.gz" for kind, i in runs),
        *(f"label/data_{kind}_run{i:02d}_label.csv" for kind, i in runs),
        *(f"mask/{side}{area}.nii.gz" for side in ("LH", "RH") for area in areas),
        "mask/mask.nii.gz",
        "bg.nii.gz",
    ]


def _lacking_miyawaki(folder: Path) -> list[str]:
    return _look(folder, _miyawaki_files())


# -------------------------------------------------------------------------------------- BOLD5000


def _bring_bold5000(folder: Path) -> None:
    try:
        import openneuro
    except ImportError as error:
        raise UserError(
            "fetch bold5000 needs openneuro-py, which is not installed: pip install openneuro-py "
            "(in an environment of its own if you can, since it replaces urllib3 by another one)."
        ) from error

    events = [f"sub-{who}/ses-*/func/*_task-5000scenes_run-*_events.tsv" for who in PEOPLE]
    openneuro.download(
        dataset="ds001499",
        tag=SNAPSHOT,
        target_dir=folder,
        include=["stimuli", "derivatives/spm", *events],
    )


def _lacking_bold5000(folder: Path) -> list[str]:
    tables = [
        f"sub-{who}/ses-{s:02d}/func/sub-{who}_ses-{s:02d}_task-5000scenes_run-{r:02d}_events.tsv"
        for who, person in PEOPLE.items()
        for s, runs in enumerate(person.runs, start=1)
        for r in range(1, runs + 1)
    ]
    problems = _look(folder, tables)
    for table in () if problems else tables:
        lines = (folder / table).read_text(encoding="utf-8", errors="replace").splitlines()
        if len(lines) != RUN + 1:
            problems.append(f"{table} has {len(lines) - 1} trials, expected {RUN}.")
    found = [p.stat().st_size for p in (folder / "stimuli").glob("*") if p.is_file()]
    if (len(found), sum(found)) != (IMAGES, IMAGE_BYTES):
        problems.append(
            f"stimuli holds {len(found)} images of {sum(found)} bytes, expected {IMAGES} of "
            f"{IMAGE_BYTES}."
        )
    masks = sorted((folder / "derivatives" / "spm").glob("sub-CSI*/*.nii.gz"))
    if len(masks) != ROI_MASKS:
        problems.append(f"derivatives/spm holds {len(masks)} ROI masks, expected {ROI_MASKS}.")
    return problems + _look(folder, [str(mask.relative_to(folder)) for mask in masks])


# ------------------------------------------------------------------------------------- verifying


def _look(folder: Path, files: list[str]) -> list[str]:
    """Return what is wrong with files that must be there: missing, empty, or cut short."""
    missing = [file for file in files if not (folder / file).is_file()]
    broken = [file for file in files if file not in set(missing) and not _whole(folder / file)]
    problems = []
    for bad, what in ((missing, "missing"), (broken, "empty or cut short")):
        if bad:
            more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
            verb = "is" if len(bad) == 1 else "are"
            problems.append(f"{', '.join(bad[:NAMED])}{more} {verb} {what}.")
    return problems


def _whole(path: Path) -> bool:
    """Return whether a file is not empty and, if it is packed, has its checksum at the end."""
    if path.stat().st_size == 0:
        return False
    if path.suffix != ".gz":
        return True
    try:
        with gzip.open(path) as packed:
            while packed.read(2**20):
                pass
    except (OSError, EOFError, zlib.error):
        return False
    return True


OFFERS = {
    "miyawaki2008": Offer(
        title="Miyawaki et al. 2008",
        size="153 MB",
        licence="not stated (nilearn says: unknown), so do not pass it on",
        host="nitrc.org",
        bring=_bring_miyawaki,
        lacking=_lacking_miyawaki,
    ),
    "bold5000": Offer(
        title="BOLD5000: images, events and ROI masks (ds001499)",
        size="344 MB",
        licence="fMRI and events CC0; the images keep the terms of COCO, ImageNet and SUN",
        host="openneuro.org",
        bring=_bring_bold5000,
        lacking=_lacking_bold5000,
        then="The betas are not among it; put them into the same folder:\n\n"
        + BY_HAND["bold5000-betas"],
    ),
}

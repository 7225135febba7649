"""The command line of ``python app.py``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path


def parser_of(formats: Iterable[str]) -> argparse.ArgumentParser:
    """Return the parser of ``python app.py``; ``formats``: names of those that a path may have."""
    parser = argparse.ArgumentParser(
        prog="app.py",
        description="See what fMRI-to-image models see. Opens a page on this machine.",
    )
    add = parser.add_argument
    add(
        "--dataset",
        metavar="NAME=PATH[?OPTION=VALUE]",
        action="append",
        default=[],
        help="open your data too (repeats). The name is yours (without NAME= the folder's own, or "
        f"the format's); the format is recognised by content, or named: {', '.join(formats)}",
    )
    add(
        "--watch",
        metavar="[NAME=]FOLDER",
        help="open a plain folder to which a scan adds trials, and show each as soon as its file "
        "is whole (backends/datasets/layout.py says how one is written)",
    )
    add(
        "--atlas",
        metavar="[NAME=]FILE",
        action="append",
        default=[],
        help="an atlas on fsaverage for every subject (repeats): .annot, .label.gii or .mgz "
        "(one hemisphere names the other, or LEFT,RIGHT), .dlabel.nii, .npy with a table; or "
        "destrieux or schaefer-400 to download it. ROIs without places are painted on it by "
        "their names",
    )
    add(
        "--published",
        metavar="NAME=PATH[?OPTION=VALUE]",
        action="append",
        default=[],
        help="show results of others (repeats): pictures (.pt or .npy, or a folder) or predicted "
        "embeddings; options: dataset, subject, order, sessions, scale, strength, samples, space, "
        "shape",
    )
    add(
        "--generator",
        metavar="NAME=PATH_OR_ID",
        action="append",
        default=[],
        help="draw with these weights too (repeats): a folder in diffusers' layout or a hub id, "
        "for sd15-context, sd15-label, unclip, kandinsky, ip-adapter or ip-adapter-xl; for "
        "retrieval a folder of pictures",
    )
    add(
        "--evaluation",
        metavar="FOLDER",
        type=Path,
        action="append",
        default=[],
        help="show the tables that python -m backends evaluate --out FOLDER wrote (repeats)",
    )
    add(
        "--store",
        metavar="FOLDER",
        type=Path,
        help="where finished pictures outlive the server [pictures in the cache folder]",
    )
    add("--no-store", action="store_true", help="keep finished pictures in memory only")
    add(
        "--rate",
        metavar="[NAME=]FOLDER",
        action="append",
        default=[],
        help="instead of the explorer, a page on which people rate reconstructions, blind "
        "(repeats: a method each): what reconstruct wrote, or pictures as for --published with "
        "its options",
    )
    add(
        "--ratings",
        type=Path,
        default=Path("ratings"),
        metavar="FOLDER",
        help="with --rate: where answers are kept, a CSV a rater; python -m backends ratings "
        "FOLDER tells the results [ratings]",
    )
    add("--raters", help="with --rate: who may rate, names parted by commas [anybody]")
    add("--rate-seed", type=int, default=0, help="with --rate: of orders and other images [0]")
    add("--rate-limit", type=int, metavar="N", help="with --rate: of N test images only [all]")
    add("--checkpoints", type=Path, help="folder of trained weights [checkpoints]")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps ... [auto]")
    add("--host", default="127.0.0.1", help="address to serve on [127.0.0.1: this machine only]")
    add("--port", type=int, help="port to serve on [the first free one from 7860]")
    add(
        "--budget",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="how long one request may compute; a longer one is refused, and on this machine "
        "alone begins once you say so [600]",
    )
    add(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="a further name by which visitors reach the page, as behind a proxy (repeats)",
    )
    add(
        "--root-path",
        metavar="PATH",
        default="",
        help="the path under which a proxy shows the page, such as /afterimage",
    )
    add(
        "--questions",
        type=int,
        metavar="N",
        help="how many questions of one person may wait or be at work together, 0 for any number "
        "[6; any on this machine alone]",
    )
    add(
        "--auth-file",
        type=Path,
        help="ask visitors for a login: a line a user, as --hash-password prints it",
    )
    add(
        "--hash-password",
        metavar="USER",
        help="print a user's line for --auth-file and end; asks for the password, or reads it "
        "from a pipe",
    )
    add("--share", action="store_true", help="also make a public link, through Gradio's servers")
    add(
        "--i-may-share-these-images",
        action="store_true",
        help="with --share or --host: you hold the right to show data that may not be "
        "redistributed",
    )
    add("--no-browser", action="store_true", help="do not open a browser")
    parser.set_defaults(watched="")
    return parser

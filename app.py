"""Afterimage in the browser: ``python app.py``. It introduces the backends to the explorer.

Heavy libraries are imported late: the page answers first, then a background thread loads the
models that the first visitor will need.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from backends import DATASETS, EMBEDDERS, ENCODERS, GENERATORS, MAPPERS
from explorer.brain.atlases import open_atlas
from explorer.evidence.evaluation import read_evaluation
from explorer.folders import cache_folder
from explorer.naming import named_path, named_sources
from explorer.offers import mended
from explorer.opening import load_behind
from explorer.page.arguments import parser_of
from explorer.store import PICTURES, Store
from explorer.types import UserError
from explorer.watching import ready
from explorer.workbench import Workbench

if TYPE_CHECKING:
    import gradio as gr

    from explorer.page.turns import Turns

ROOT = Path(__file__).resolve().parent
OPENING = ROOT / "assets" / "opening"  # what ``build-demo --only opening`` kept
LOOPBACK = ("127.0.0.1", "localhost", "::1")
QUESTIONS = 6  # of one person together, where others ask too; our choice


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    return parser_of(DATASETS)


def open_workbench(args: argparse.Namespace) -> Workbench:
    """Return the workbench over what was asked for; a wrong name or path raises `UserError`."""
    paths: dict[str, Path] = {}
    options: dict[str, dict[str, str]] = {}
    for pair in [*args.dataset, *([args.watch] if args.watch else [])]:
        name, path, chosen = named_path(
            pair, "--watch" if pair is args.watch else "--dataset", DATASETS
        )
        if name in paths:
            raise UserError(f"--dataset names {name} twice; give each data set its own name.")
        paths[name], options[name] = path, chosen
        if pair is args.watch:
            args.watched, options[name] = name, {**chosen, "live": "yes"}
    atlases = [open_atlas(text) for text in args.atlas]
    published: dict[str, tuple[Path, dict[str, str]]] = {}
    for pair in args.published:
        name, path, chosen = named_path(pair, "--published")
        if name in published:
            raise UserError(f"--published names {name} twice; give each result its own name.")
        published[name] = path, chosen
    published |= rated_as_published(args, published, next(iter(paths), ""))
    for folder in args.evaluation:
        read_evaluation(folder)  # what cannot be read is said now, not on the page
    if args.checkpoints is not None and not args.checkpoints.is_dir():
        raise UserError(f"--checkpoints: {args.checkpoints} is no folder; check the path.")
    checkpoints = args.checkpoints or ROOT / "checkpoints"
    for sentence in mended(checkpoints):
        print(sentence, flush=True)
    workbench = Workbench(
        DATASETS,
        EMBEDDERS,
        MAPPERS,
        GENERATORS,
        checkpoints=checkpoints,
        paths=paths,
        options=options,
        atlases=atlases,
        published=published,
        encoders=ENCODERS,
        sources=named_sources(args.generator, GENERATORS),
        evaluations=args.evaluation,
        device=args.device,
        store=open_store(args),
        shipped=Store(OPENING, read_only=True),
    )
    for name in workbench.catalogue.dataset_names():
        workbench.catalogue.dataset(
            name
        )  # says now, not on the page, that a path holds something else
    if args.device not in ("auto", "cpu"):
        _ = workbench.models.device
    return workbench


def open_store(args: argparse.Namespace) -> Store | None:
    """Return where finished pictures are kept, None where they are not to be."""
    if args.no_store:
        if args.store is not None:
            raise UserError("--store and --no-store exclude each other; leave one out.")
        return None
    if args.store is not None and args.store.exists() and not args.store.is_dir():
        raise UserError(f"--store: {args.store} is no folder; check the path.")
    return Store(args.store or cache_folder() / PICTURES, report=_say)


def _say(sentence: str) -> None:
    print(f"app.py: {sentence}", file=sys.stderr, flush=True)


def rated_as_published(
    args: argparse.Namespace, known: Mapping[str, object], dataset: str
) -> dict[str, tuple[Path, dict[str, str]]]:
    """Return the folders of ``--rate`` that others made, to be opened as published results."""
    if not args.rate:
        return {}
    from backends.reports.rated import holds_pictures, is_ours, named_folders

    found = {n: given for n, given in named_folders(args.rate).items() if not is_ours(given[0])}
    for name, (path, _) in found.items():
        if name in known:
            raise UserError(f"--rate and --published both name {name}; give each its own name.")
        if path.is_dir() and not holds_pictures(path):
            raise UserError(
                f"--rate {name}: {path} holds no pictures, and no settings of what reconstruct "
                "--out writes; give a folder of one or the other."
            )
    of = {"dataset": dataset} if dataset else {}
    return {name: (path, of | said) for name, (path, said) in found.items()}


def rating_page(workbench: Workbench, args: argparse.Namespace) -> gr.Blocks:
    """Build the page of ``--rate``, with its folder of answers."""
    from backends.reports.rated import methods_of, named_folders
    from explorer.evidence.rating import Ratings, plan
    from explorer.page.rating import build_rating

    if args.rate_seed < 0:
        raise UserError(f"--rate-seed is a whole number of 0 or more, found {args.rate_seed}.")
    if args.rate_limit is not None and args.rate_limit < 1:
        raise UserError(f"--rate-limit is 1 or more test images, found {args.rate_limit}.")
    catalogue = workbench.catalogue
    dataset = next(iter(catalogue.paths), catalogue.dataset_names()[0])
    methods = methods_of(workbench, named_folders(args.rate), dataset)
    questions = plan(methods, args.rate_seed, args.rate_limit)
    names = [method.name for method in methods]
    about = {"dataset": dataset, "methods": names, "folders": list(args.rate)}
    ratings = Ratings(args.ratings, questions, args.rate_seed, about)
    raters = [name.strip() for name in (args.raters or "").split(",") if name.strip()]
    stimuli = len({question.stimulus for question in questions})
    print(
        f"Rating {stimuli} test images of {dataset} by {', '.join(names)}; answers are kept in "
        f"{args.ratings}.",
        flush=True,
    )
    return build_rating(ratings, methods, partial(catalogue.image, dataset), raters)


def refuse_unshareable(workbench: Workbench, args: argparse.Namespace) -> None:
    """Refuse to show others images that their licence keeps private, unless the user may."""
    if _alone(args) or args.i_may_share_these_images:
        return
    open_to_all = [
        *([] if args.host in LOOPBACK else [f"--host {args.host}"]),
        *(f"--allow-host {name}" for name in args.allow_host),
        *([f"--root-path {args.root_path}"] if args.root_path else []),
    ]
    flag = "--share" if args.share else " and ".join(open_to_all)
    whom = "anyone with the link" if args.share else "whoever reaches this machine"
    closed = [
        name
        for name in workbench.catalogue.dataset_names()
        if not workbench.catalogue.dataset(name).redistributable
    ]
    if closed:
        licence = workbench.catalogue.dataset(closed[0]).licence
        raise UserError(
            f"{flag} would show the images of {', '.join(closed)} to {whom}, and they may not be "
            f"redistributed (licence: {licence}); leave out {flag} or that data set, or add "
            "--i-may-share-these-images if you hold the right."
        )


def _alone(args: argparse.Namespace) -> bool:
    """Return whether nobody but this machine's user can reach the page, as through a proxy."""
    return args.host in LOOPBACK and not (args.share or args.allow_host or args.root_path)


def check_address(host: str, port: int | None) -> None:
    """Refuse a port or address that cannot be served on, before anything heavy is loaded."""
    if port is not None and not 1 <= port <= 65_535:
        raise UserError(f"--port lies between 1 and 65535, found {port}.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port or 0))
        except (OSError, OverflowError) as error:
            reason = (error.strerror or str(error)).lower()
            if port is None:
                raise UserError(f"--host {host} cannot be served on: {reason}.") from error
            raise UserError(
                f"Port {port} of {host} cannot be served on: {reason}; choose another --port, or "
                "leave it out to get a free one."
            ) from error


def serve(workbench: Workbench, args: argparse.Namespace) -> gr.Blocks:
    """Build the page, start its server and say where it is; the models load in the background."""
    from explorer.page import Budget, build, launch_options
    from explorer.page.edge import rules_for
    from explorer.page.logins import read_logins
    from explorer.page.logs import keep_private

    logins, told = read_logins(args.auth_file) if args.auth_file else (None, [])
    for sentence in told:
        print(sentence, file=sys.stderr, flush=True)
    rules = rules_for(args.host, args.share, args.allow_host, logins, args.root_path)
    if args.rate:
        page = rating_page(workbench, args)
    else:
        own = _alone(args)
        questions = args.questions if args.questions is not None else QUESTIONS * (not own)
        page = build(
            workbench, Budget(args.budget, asks=own, questions=questions), args.watched, _say
        )
    keep_private(
        {f"<{name}>": path for name, path in workbench.catalogue.paths.items()}
        | {"<checkpoints>": workbench.catalogue.checkpoints}
        | ({"<store>": workbench.store.folder} if workbench.store else {})
    )
    try:
        _, local, shared = page.launch(
            server_name=args.host,
            server_port=args.port,
            share=args.share,
            auth=logins,
            inbrowser=not args.no_browser,
            prevent_thread_lock=True,
            quiet=True,
            **launch_options(rules),
        )
    except OSError as error:  # somebody took the port in between, or 7860 to 7959 are all taken
        raise UserError(f"The page cannot be served: {error}") from error
    print(f"Afterimage is open at {shared or local} (Ctrl+C ends it).", flush=True)
    for atlas in workbench.catalogue.atlases:
        print(
            f"Atlas {atlas.name}: {len(atlas.labels)} parcels. {atlas.note}".rstrip(), flush=True
        )
    for name in workbench.catalogue.dataset_names():
        study = workbench.catalogue.dataset(name)
        further = workbench.catalogue.test_only(name) and name not in workbench.catalogue.paths
        if study.simulated and not further:  # a further part of what comes along says no more
            print(f"{name} is no measurement: {study.note}", flush=True)
    if not args.rate:  # which asks no model
        threading.Thread(
            target=warm, args=(workbench, page.turns, args.watched), daemon=True
        ).start()
        if page.watch is not None:
            page.watch.start()
    return page


def print_login(user: str) -> None:
    """Print a user's line for ``--auth-file``; the password is asked for without being shown."""
    from getpass import getpass

    from explorer.page.logins import login_line

    if sys.stdin.isatty():
        password = getpass("Password: ")
        if getpass("Again: ") != password:
            raise UserError("The two passwords differ; give the command again.")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    print(login_line(user, password))


def warm(workbench: Workbench, turns: Turns, watched: str = "") -> None:
    """Load what the first trial needs; what cannot be loaded is told, and again on the page.

    Models are asked in turn with the visitors: two threads must not load at once. Where the page
    opens on a trial that ships, they load behind it: loading would slow its showing down. Of the
    data set that is ``watched``, what its next trial needs, and nothing else.
    """
    try:
        if watched:
            with turns.loading():
                ready(workbench, watched)
            return  # a trial may come any moment, and waits for nothing else
        load_behind(workbench, turns.answered, turns.loading)
    except UserError as error:
        _say(str(error))


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl+C; a mistake in the arguments is one sentence and exit code 2."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nobody is told who looks
    args = arguments().parse_args(argv)
    try:
        if args.hash_password is not None:
            print_login(args.hash_password)
            return 0
        check_address(args.host, args.port)
        if not args.budget > 0:
            raise UserError(f"--budget is a number of seconds above 0, found {args.budget:g}.")
        workbench = open_workbench(args)
        refuse_unshareable(workbench, args)
        page = serve(workbench, args)
    except UserError as error:
        _say(str(error))
        return 2
    try:
        page.block_thread()
    except KeyboardInterrupt:  # a second one, while the server closes
        pass
    return 0


def leave(code: int) -> NoReturn:
    """End the process at once, whatever its threads are computing.

    On its usual way out Python ends a thread where it next asks for the interpreter, which is
    inside a library's C++ when it draws, and that aborts the process. What is kept on disk is
    written whole and then renamed, so nothing is lost.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    try:
        done = main()
    except KeyboardInterrupt:  # before the page was open
        done = 130
    leave(done)

"""The command line: ``python -m backends train | evaluate | doctor ...``, one file a command."""

from __future__ import annotations

import sys

import typer

from backends.commands.adopt import adopt
from backends.commands.build_demo import build_demo
from backends.commands.caption import caption
from backends.commands.doctor import doctor
from backends.commands.evaluate import evaluate
from backends.commands.fetch import fetch
from backends.commands.finetune import finetune
from backends.commands.guidance import guidance
from backends.commands.import_checkpoint import import_checkpoint
from backends.commands.import_gnet import import_gnet
from backends.commands.publish import publish
from backends.commands.ratings import ratings
from backends.commands.reconstruct import reconstruct
from backends.commands.report import report
from backends.commands.run import run
from backends.commands.search import search
from backends.commands.split import split
from backends.commands.trace import trace
from backends.commands.train import train
from backends.commands.train_encoding import train_encoding
from explorer.types import UserError

COMMANDS = (
    *(build_demo, train, search, train_encoding, caption, evaluate, guidance, finetune),
    *(reconstruct, ratings, run, import_checkpoint, import_gnet, doctor, trace, split, fetch),
    *(adopt, publish, report),
)
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Build the embedded study, train mappers on your own data, measure, and check folders.",
)
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """Run the command line; a person's mistake is one sentence and exit code 2."""
    try:
        app()
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
    finally:  # under `accelerate launch`: a process that ends inside its group may be aborted
        if "torch" in sys.modules:
            from torch import distributed

            if distributed.is_available() and distributed.is_initialized():
                distributed.destroy_process_group()


if __name__ == "__main__":
    main()

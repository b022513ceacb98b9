"""The `dlq` command. One file per verb, heavy imports inside it, so that help is instant."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from cli import doctor, gc, init, ls, plan, report, resume, show, sql, status, submit
from cli.common import Answer, deliver
from cli.errors import SIGINT, explain

EPILOG = "Exit codes: 0 done, 1 cells failed, 2 usage or grid, 3 resumable, 4 environment, 130 Ctrl-C."

app = typer.Typer(
    name="dlq",
    help="Benchmark post-training quantization of masked-diffusion language models, on Ray.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (init, plan, submit, resume, status, report, sql, show, ls, doctor, gc):
    app.command(module.__name__.rpartition(".")[2])(module.command)


def _version(wanted: bool) -> None:
    if wanted:
        from dlq import __version__

        print(f"dlq {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Benchmark post-training quantization of masked-diffusion language models, on Ray."""


def run(arguments: Sequence[str]) -> int:
    """Carry out one command line; returns the exit code."""
    try:
        code = get_command(app).main(list(arguments), prog_name="dlq", standalone_mode=False)
    except typer.Abort:
        return SIGINT
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        return deliver(Answer(None, (), explain(error)), "--json" in arguments)
    return int(code or 0)


def main() -> None:
    """Entry point of the console script."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # an ASCII terminal still gets its table
    code = run(sys.argv[1:])
    with contextlib.suppress(BrokenPipeError):  # `dlq ... | head`
        sys.stdout.flush()
        sys.stderr.flush()
    # Nothing is left to do, and C++ threads of libraries may abort a process that tears itself down.
    os._exit(code)


if __name__ == "__main__":
    main()

"""What all verbs share: the answer they give, the options they take, and how an exception becomes an exit code.

A verb is a function that returns an Answer. While it runs, stdout is stderr: whatever a library prints there is
chatter. Afterwards the answer goes to the real stdout, as text or, with --json, in one versioned envelope.
"""

from __future__ import annotations

import functools
import inspect
import json as jsons
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TextIO

import typer

from cli.errors import SIGINT, Problem, explain
from cli.plainjson import plain
from cli.render import Part, show
from dlq.chatter import stdout_is_chatter

SCHEMA = 1

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store", "-s", envvar="DLQ_STORE", help="Folder of the results (default: the grid's, or runs)."
    ),
]
GridOption = Annotated[str, typer.Option("--grid", "-g", help="The grid file, YAML.", show_default=False)]
SweepArgument = Annotated[
    str | None,
    typer.Argument(help="Sweep, by id or the beginning of one (default: the latest).", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON envelope instead of text.")]
DebugOption = Annotated[
    bool, typer.Option("--debug", envvar="DLQ_DEBUG", help="Show the traceback of every error.")
]


@dataclass(frozen=True)
class Answer:
    """What a verb found out: `data` for --json, `parts` for people; a `problem` decides the exit code."""

    data: Any
    parts: Sequence[Part] = ()
    problem: Problem | None = None


def verb(body: Callable[..., Answer]) -> Callable[..., int]:
    """Make a Typer command of a function that returns an Answer: adds --json and --debug, maps exceptions."""

    @functools.wraps(body)
    def run(*arguments: Any, json: bool, debug: bool, **options: Any) -> int:
        try:
            with stdout_is_chatter():
                answer = body(*arguments, **options)
        except (KeyboardInterrupt, typer.Abort) as error:
            if isinstance(error, typer.Abort):  # Ctrl-C or end of input at a question, whose line it leaves open
                print(file=sys.stderr)
            answer = Answer(None, (), Problem("interrupted", "interrupted", "", SIGINT))
        except Exception as error:
            problem = explain(error)
            if debug or not problem.known:
                traceback.print_exc()
            answer = Answer(None, (), problem)
        return deliver(answer, json)

    extra = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
        for name, option in (("json", JsonOption), ("debug", DebugOption))
    ]
    signature = inspect.signature(body, eval_str=True)
    parameters = [*signature.parameters.values(), *extra]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # what Typer reads
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def deliver(answer: Answer, as_json: bool) -> int:
    """Print an answer and its problem; returns the exit code."""
    problem = answer.problem
    if problem:
        complain(problem)
    try:
        if as_json:
            sys.stdout.write(envelope(answer) + "\n")
        else:
            show(answer.parts, sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return problem.exit if problem else 0


def envelope(answer: Answer) -> str:
    """{"schema", "ok", "data", "error"} as one line of JSON."""
    problem = answer.problem
    error = {"code": problem.code, "message": problem.message, "hint": problem.hint} if problem else None
    whole = {"schema": SCHEMA, "ok": problem is None, "data": plain(answer.data), "error": error}
    return jsons.dumps(whole, allow_nan=False)


def complain(problem: Problem, file: TextIO | None = None) -> None:
    """`dlq: error: ...` on stderr, one line."""
    hint = f" ({problem.hint})" if problem.hint and problem.hint not in problem.message else ""
    print(f"dlq: error: {problem.message}{hint}", file=file or sys.stderr)


def say(message: str) -> None:
    """One line of chatter."""
    print(message, file=sys.stderr, flush=True)

"""`dlq report`: the result table as text, Markdown or one HTML file that needs nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.common import Answer, StoreOption, SweepArgument, say, verb
from cli.render import Part, markdown
from dlq.errors import UsageError
from dlq.places import find_sweep, open_store

if TYPE_CHECKING:
    from dlq.results import Results
    from storage.artifacts import Store
    from storage.sweeps import Sweep

FormatOption = Annotated[
    Literal["text", "markdown", "html"], typer.Option("--format", "-f", help="Kind of report.")
]
OutputOption = Annotated[
    str | None, typer.Option("--output", "-o", help="File to write (default: stdout).", show_default=False)
]


@verb
def command(
    sweep: SweepArgument = None,
    store: StoreOption = None,
    format: FormatOption = "text",
    output: OutputOption = None,
) -> Answer:
    """Print the result table of a sweep: scores, differences from full precision, bits, seconds."""
    from dlq.results import results_of

    opened = open_store(store)
    found = find_sweep(opened, sweep)
    results = results_of(found, opened)
    data = {"sweep": found.id, "results": results}
    parts = _parts(results, found, opened, format)
    if output is None:
        return Answer(data, parts)
    _write(output, parts)
    say(f"wrote {output}")
    return Answer({**data, "path": output}, [output])


def _parts(results: Results, sweep: Sweep, store: Store, format: str) -> list[Part]:
    from cli.tables import markdown_table, notes, text_parts

    if format == "markdown":
        return [markdown(markdown_table(results)), "", notes(results)]
    if format == "html":
        from cli.page import page

        return [page(results, sweep, store)]
    return text_parts(results)


def _write(output: str, parts: list[Part]) -> None:
    from cli.render import show

    try:
        with open(output, "w", encoding="utf-8") as file:
            show(parts, file)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise UsageError(f"cannot write {Path(output)}: {error.strerror}") from None

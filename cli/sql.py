"""`dlq sql`: one reading statement over the tables of a sweep, or of a whole store."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from cli.common import Answer, StoreOption, verb
from cli.plainjson import plain
from cli.render import Part, Table, csv_text
from dlq.places import open_store, query_sweep

FormatOption = Annotated[
    Literal["table", "csv", "json"], typer.Option("--format", "-f", help="How rows are printed.")
]
OnlyOption = Annotated[
    str | None,
    typer.Option(
        "--sweep", help="Sweep, by id or the beginning of one (default: the latest).", show_default=False
    ),
]
AllOption = Annotated[bool, typer.Option("--all", help="Query everything in the store, whatever sweep it is of.")]


@verb
def command(
    query: Annotated[
        str, typer.Argument(help="SELECT ... FROM runs, cells, tasks, layers, activations, samples, scores")
    ],
    store: StoreOption = None,
    sweep: OnlyOption = None,
    everything: AllOption = False,
    format: FormatOption = "table",
) -> Answer:
    """Query the tables of the latest sweep with SQL (DuckDB, read-only); --sweep: another, --all: the store."""
    found = query_sweep(open_store(store), query, sweep, everything)
    columns = list(found.column_names)
    rows = [list(row) for row in zip(*(column.to_pylist() for column in found.columns), strict=True)]
    return Answer({"columns": columns, "rows": rows}, [_text(columns, rows, format)])


def _text(columns: list[str], rows: list[list[object]], format: str) -> Part:
    if format == "csv":
        return csv_text(columns, rows)
    if format == "json":
        return json.dumps([dict(zip(columns, plain(row), strict=True)) for row in rows], indent=1)
    numeric = frozenset(
        name for i, name in enumerate(columns) if any(isinstance(row[i], int | float) for row in rows)
    )
    return Table(columns, [[_cell(value) for value in row] for row in rows], right=numeric)


def _cell(value: object) -> object:
    """Floats to six significant digits: the others are noise on a screen, and csv and json have them."""
    return f"{value:.6g}" if isinstance(value, float) else value

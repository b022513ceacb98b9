"""Rows to Parquet and back, through the one schema of each table.

Nothing is inferred: a column that is unknown, a value of another type or a missing identity column is refused
with one line, because what Parquet readers make of a guessed type differs from file to file. Pages have checksums,
which pyarrow verifies when reading; the SHA-256 in the manifest is what the store itself relies on.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.commit import full_disk_is_clear
from storage.errors import TableError
from storage.schemas import REQUIRED, SCHEMA_VERSION, TABLES

ARROW: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "double": pa.float64(),
    "string": pa.string(),
    "timestamp": pa.timestamp("us"),
    "list<int32>": pa.list_(pa.int32()),
    "list<string>": pa.list_(pa.string()),
}


def _integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


FITS: dict[str, Callable[[Any], bool]] = {
    "bool": lambda value: isinstance(value, bool),
    "int32": _integer,
    "int64": _integer,
    "double": lambda value: isinstance(value, Real) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "timestamp": lambda value: isinstance(value, datetime) and value.tzinfo is not None,
    "list<int32>": lambda value: isinstance(value, (list, tuple)) and all(map(_integer, value)),
    "list<string>": lambda value: isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value),
}


def schema(name: str) -> pa.Schema:
    """The Arrow schema of a table. Raises TableError for an unknown one."""
    fields = [pa.field(column, ARROW[kind]) for column, (kind, _) in columns(name).items()]
    return pa.schema(fields, {"dlq.table": name, "dlq.schema_version": str(SCHEMA_VERSION)})


def columns(name: str) -> dict[str, tuple[str, str]]:
    """Column -> (type, meaning) of a table. Raises TableError for an unknown one."""
    if name not in TABLES:
        raise TableError(f"unknown table {name!r}{_nearest(name, TABLES)}")
    return TABLES[name]


def table(name: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows as an Arrow table; absent columns are null. Raises TableError naming row and column."""
    listed = list(rows)
    for number, row in enumerate(listed):
        _check_row(name, number, row)
    arrays = []
    for column, (kind, _) in columns(name).items():
        values = [row.get(column) for row in listed]
        if column == "schema_version":
            values = [SCHEMA_VERSION] * len(listed)
        arrays.append(_array(name, column, kind, values))
    return pa.Table.from_arrays(arrays, schema=schema(name))


def _check_row(name: str, number: int, row: Mapping[str, Any]) -> None:
    known = columns(name)
    for column, value in row.items():
        if column not in known:
            raise TableError(f"table {name} has no column {column!r}{_nearest(column, known)}")
        kind = known[column][0]
        if value is not None and not FITS[kind](value):
            raise TableError(f"{name}.{column} in row {number} must be {kind}, not {value!r}")
    absent = sorted(column for column in REQUIRED[name] if row.get(column) is None)
    if absent:
        raise TableError(f"{name}.{absent[0]} in row {number} must not be missing")


def _array(name: str, column: str, kind: str, values: list[Any]) -> pa.Array:
    try:
        return pa.array(values, ARROW[kind])
    except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
        raise TableError(f"{name}.{column} does not fit {kind}: {error}") from error


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def table_bytes(name: str, rows: Iterable[Mapping[str, Any]]) -> bytes:
    """The Parquet file of some rows; equal rows give equal bytes with one version of pyarrow."""
    sink = pa.BufferOutputStream()
    pq.write_table(table(name, rows), sink, compression="zstd", write_page_checksum=True)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def write_table(path: Path, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows to `path`, a file in a commit's staging directory (not synced here: the commit does that)."""
    with full_disk_is_clear(path.parent, path.name):
        path.write_bytes(table_bytes(name, rows))


def read_table(source: Path | bytes, name: str) -> pa.Table:
    """A table as written by any version of its schema, in today's: columns it lacked are null, others dropped.

    Raises TableError if it is not a Parquet file of that table.
    """
    try:
        found = pq.read_table(
            pa.BufferReader(source) if isinstance(source, bytes) else source, page_checksum_verification=True
        )
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"not a readable {name} table: {error}") from error
    if (found.schema.metadata or {}).get(b"dlq.table") != name.encode():
        raise TableError(f"not a {name} table")
    wanted = schema(name)
    present = set(found.column_names)
    arrays = [
        found[field.name].cast(field.type) if field.name in present else pa.nulls(len(found), field.type)
        for field in wanted
    ]
    return pa.Table.from_arrays(arrays, schema=wanted)

"""SQL over everything in a store, with the door closed behind it.

Tables are loaded into an in-memory DuckDB from files that verified manifests list, never from a glob; then access
to files, network, extensions and settings is switched off for good, and only one reading statement is run, in a
read-only transaction. What is loaded is a copy: no statement can change the store. Does not limit the time or
memory that a query takes.
"""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from storage.artifacts import Artifact, Store
from storage.errors import QueryError, QueryRefused, StorageError
from storage.schemas import TABLES
from storage.sweeps import sweeps
from storage.tables import table

if TYPE_CHECKING:
    from pathlib import Path

    Connection = duckdb.DuckDBPyConnection

DUCKDB = {
    "bool": "boolean",
    "int32": "integer",
    "int64": "bigint",
    "double": "double",
    "string": "varchar",
    "timestamp": "timestamp",
    "list<int32>": "integer[]",
    "list<string>": "varchar[]",
}
LOCK = (
    "set temp_directory = ''",  # a large sort must not spill into the working directory
    "set enable_external_access = false",  # files, network, extensions, variables of this program
    "set lock_configuration = true",
)
HINT = {
    "MULTI": "a PIVOT must list its columns: PIVOT ... ON task IN ('a', 'b') USING ...",
    "EXPLAIN": "drop the EXPLAIN",
}


def query(store: Store, sql: str, keys: Collection[str] | None = None, sweep: str | None = None) -> pa.Table:
    """Run one reading statement over the tables of the store.

    `keys` limits tasks, layers, activations, samples and scores to those artifacts, `sweep` limits runs and cells
    to that sweep. Raises QueryRefused for anything but one SELECT-like statement (SELECT, FROM, WITH, VALUES,
    DESCRIBE, SUMMARIZE, SHOW), QueryError if it fails.
    """
    _refuse_unless_reading(sql)
    connection = connect(store, _tables_in(sql), keys, sweep)
    try:
        connection.execute("begin transaction read only")
        return connection.sql(sql).to_arrow_table()
    except duckdb.Error as error:
        raise QueryError(_one_line(error)) from error
    finally:
        connection.close()


def connect(
    store: Store,
    tables: Iterable[str] = tuple(TABLES),
    keys: Collection[str] | None = None,
    sweep: str | None = None,
) -> Connection:
    """A locked-down in-memory database holding the named tables; absent data gives empty tables."""
    connection = duckdb.connect(":memory:")
    wanted = list(tables)
    _create(connection, wanted)
    _load_artifacts(connection, store, set(wanted), keys)
    _load_sweeps(connection, store, set(wanted), sweep)
    _lock(connection)
    return connection


def _lock(connection: Connection) -> None:
    for statement in LOCK:
        connection.execute(statement)


def _create(connection: Connection, names: Iterable[str]) -> None:
    for name in names:
        listed = ", ".join(f'"{column}" {DUCKDB[kind]}' for column, (kind, _) in TABLES[name].items())
        connection.execute(f"create table {name} ({listed})")


def _load_artifacts(connection: Connection, store: Store, wanted: set[str], keys: Collection[str] | None) -> None:
    if wanted <= {"runs", "cells"}:
        return
    files: dict[str, list[Path]] = defaultdict(list)
    tasks = []
    for artifact in store.artifacts():
        if keys is not None and artifact.key not in keys:
            continue
        tasks.append(_task_row(artifact))
        for name in sorted(wanted & set(artifact.manifest.tables)):
            file = artifact.manifest.tables[name]
            if store.sound(artifact, file):
                files[name].append(artifact.file(file))
    for name, paths in files.items():
        _load_files(connection, name, paths)
    if "tasks" in wanted:
        _insert(connection, "tasks", table("tasks", tasks))


def _load_files(connection: Connection, name: str, paths: list[Path]) -> None:
    """Columns are matched by name; `artifact` comes from the directory, which is the key."""
    known = [column for column in TABLES[name] if column != "artifact"]
    try:
        connection.execute(
            f"insert into {name} by name "
            "select regexp_extract(filename, '([0-9a-f]+)/[^/]+$', 1) as artifact, "
            "columns(lambda c: list_contains($known, c)) "
            "from read_parquet($files, union_by_name = true, filename = true)",
            {"known": known, "files": [str(path) for path in paths]},
        )
    except duckdb.Error as error:
        raise StorageError(f"cannot load table {name}: {_one_line(error)}") from error


def _task_row(artifact: Artifact) -> dict[str, Any]:
    manifest = artifact.manifest
    return {
        "key": artifact.key,
        "kind": manifest.kind,
        "spec": _json(manifest.spec),
        "inputs": _json(manifest.inputs),
        "facts": _json(manifest.facts),
        "seconds": manifest.facts.get("seconds"),
        "peak_memory_bytes": manifest.facts.get("peak_memory_bytes"),
        "bytes": manifest.size,
        "host": manifest.host,
        "pid": manifest.pid,
        "created_at": datetime.fromisoformat(manifest.created_at),
    }


def _load_sweeps(connection: Connection, store: Store, wanted: set[str], only: str | None) -> None:
    for sweep in sweeps(store) if wanted & {"runs", "cells"} else []:
        if only is not None and sweep.id != only:
            continue
        try:
            if "cells" in wanted:
                _insert(connection, "cells", sweep.cells())
            if "runs" in wanted:
                _insert(connection, "runs", table("runs", sweep.runs()))
        except StorageError as error:
            warnings.warn(f"left out: {error}", stacklevel=2)


def _insert(connection: Connection, name: str, rows: pa.Table) -> None:
    connection.register("arriving", rows)
    connection.execute(f"insert into {name} by name select * from arriving")
    connection.unregister("arriving")


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _refuse_unless_reading(sql: str) -> None:
    try:
        kinds = [statement.type.name for statement in duckdb.extract_statements(sql)]
    except duckdb.Error as error:
        raise QueryError(_one_line(error)) from error
    if len(kinds) != 1:
        raise QueryRefused(f"one SELECT statement is wanted, not {len(kinds)} statements")
    if kinds[0] != "SELECT":
        hint = HINT.get(kinds[0], "results can be read here, not changed")
        raise QueryRefused(f"only SELECT is allowed, not {kinds[0]}: {hint}")


def _tables_in(sql: str) -> list[str]:
    """The tables that a statement reads; all of them if that cannot be told. Others will not exist for it."""
    if "query" in sql.lower():  # query('...') and query_table('...') name tables at run time
        return list(TABLES)
    with duckdb.connect(":memory:") as connection:
        _create(connection, TABLES)
        _lock(connection)
        try:
            named = connection.get_table_names(sql)
        except duckdb.Error:
            named = set()
    return [name for name in TABLES if name in named] or list(TABLES)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).partition("\nLINE ")[0].split())

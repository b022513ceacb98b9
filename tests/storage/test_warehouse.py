"""SQL: right rows from listed files only, and nothing but reading."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.artifacts import Store
from storage.errors import QueryError, QueryRefused, StorageError
from storage.schemas import TABLES
from storage.sweeps import Sweep
from storage.tables import schema, write_table
from storage.warehouse import connect, query


def key(number: int) -> str:
    return f"{number % 256:02x}{number:030x}"


def commit_scores(store: Store, number: int, *rows: dict[str, Any]) -> None:
    name = "scores.parquet"
    facts = {"seconds": number / 2, "peak_memory_bytes": 1000 + number}
    with store.commit(key(number), "score", {"n": number}, {"e": "x"}, facts, {"scores": name}) as folder:
        write_table(folder / name, "scores", [{"cell": "c", "task": "t", "metric": "acc", **row} for row in rows])


@pytest.fixture
def filled(store: Store) -> Store:
    """Three score artifacts of 1, 2 and 3 rows, one sweep, one run."""
    for number in range(3):
        rows = [{"cell": f"c{number}", "task": f"t{row}", "value": number + row / 10} for row in range(number + 1)]
        commit_scores(store, number, *rows)
    sweep = Sweep(store.root, "night")
    sweep.write("", [{"cell": "c0", "method": "gptq"}, {"cell": "c1"}], {"keys": [key(0), key(1)]})
    sweep.end_run(sweep.start_run(name="n"), "done")
    return store


def rows(store: Store, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in query(store, sql).to_pylist()]


def test_every_row_is_there_once(filled: Store) -> None:
    found = rows(filled, "select cell, task, value, artifact from scores order by cell, task")
    assert found == [(f"c{n}", f"t{r}", n + r / 10, key(n)) for n in range(3) for r in range(n + 1)]


def test_tables_join(filled: Store) -> None:
    found = rows(filled, "select cells.method, count(*) from scores join cells using (cell) group by 1 order by 1")
    assert found == [("gptq", 1), (None, 2)]


def test_tasks_come_from_the_manifests(filled: Store) -> None:
    size = (filled.path(key(2)) / "scores.parquet").stat().st_size
    sql = f"select kind, spec, inputs, seconds, peak_memory_bytes, bytes, pid from tasks where key = '{key(2)}'"
    assert rows(filled, sql) == [("score", '{"n":2}', '{"e":"x"}', 1.0, 1002, size, os.getpid())]
    assert rows(filled, "select spec->>'n' from tasks order by 1") == [("0",), ("1",), ("2",)]
    assert rows(filled, "select count(*) from tasks where created_at > '2020-01-01'") == [(3,)]


def test_runs(filled: Store) -> None:
    sql = "select sweep, name, status, store, finished_at >= started_at from runs"
    assert rows(filled, sql) == [("night", "n", "done", str(filled.root), True)]


def test_a_selection_of_artifacts(filled: Store) -> None:
    sql = "select cell, count(*) from scores group by 1 order by 1"
    found = query(filled, sql, keys={key(0), key(2)}).to_pylist()
    assert [tuple(row.values()) for row in found] == [("c0", 1), ("c2", 3)]
    assert query(filled, "from tasks", keys={key(1)})["key"].to_pylist() == [key(1)]


def test_runs_and_cells_of_one_sweep(filled: Store) -> None:
    day = Sweep(filled.root, "day")
    day.write("", [{"cell": "c9"}], {"keys": []})
    day.start_run(name="d")
    for sql in ("select distinct sweep from cells", "select distinct sweep from runs"):
        assert sorted(query(filled, sql)["sweep"].to_pylist()) == ["day", "night"]
        assert query(filled, sql, sweep="day")["sweep"].to_pylist() == ["day"]
        assert query(filled, sql, sweep="night")["sweep"].to_pylist() == ["night"]


@pytest.mark.parametrize("name", list(TABLES))
def test_empty_tables_have_their_columns(store: Store, name: str) -> None:
    found = query(store, f"from {name}")
    assert found.num_rows == 0 and found.schema.names == schema(name).names
    assert found.schema.types == schema(name).types


@pytest.mark.parametrize(
    "sql",
    [
        "select count(*) from scores",
        "from scores select count(*);",
        "with x as (from scores) select count(*) from x",
        "select (select count(*) from main.scores)",
        'select count(*) from "Scores" -- quoted, another case',
        "select count(*) from query_table('scores')",
        "select count(*) from query('from sco' || 'res')",
        "select count(*) from scores where exists (from query_table('cells'))",
        "select count(*) from (pivot scores on task in ('t0') using first(value) group by cell, task)",
        "select estimated_size from duckdb_tables() where table_name = 'scores'",
    ],
)
def test_however_a_table_is_named_it_is_loaded(filled: Store, sql: str) -> None:
    assert rows(filled, sql) == [(6,)]


def test_describing(filled: Store) -> None:
    assert sorted(rows(filled, "show tables")) == sorted((name,) for name in TABLES)
    assert [row[0] for row in rows(filled, "describe scores")] == list(TABLES["scores"])
    counts = {row[0]: row[-2] for row in rows(filled, "summarize scores")}
    assert counts["value"] == 6


def test_files_that_no_manifest_lists_do_not_count(filled: Store) -> None:
    (filled.path(key(0)) / "extra.parquet").write_bytes(b"PAR1 torn")
    (filled.root / "objects" / "ab").mkdir(exist_ok=True)
    pq.write_table(pa.table({"cell": ["intruder"]}), filled.root / "objects" / "ab" / "scores.parquet")
    (filled.root / "_tmp" / "half").mkdir()
    (filled.root / "_tmp" / "half" / "scores.parquet").write_bytes(b"PAR1")
    assert rows(filled, "select count(*) from scores") == [(6,)]


def test_a_flipped_bit_in_a_table_is_not_data(filled: Store) -> None:
    path = filled.path(key(2)) / "scores.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    assert rows(filled, "select cell, count(*) from scores group by 1 order by 1") == [("c0", 1), ("c1", 2)]
    assert [reason for _, reason in filled.quarantined()] == ["scores.parquet does not match its SHA-256"]


def test_files_of_older_and_newer_schemas_together(filled: Store) -> None:
    """Fewer columns, more, another order, a narrower type: matched by name, never by the first file's schema."""
    odd = pa.table(
        {"invented_later": ["x"], "value": pa.array([0.25], pa.float32()), "metric": ["m"], "cell": ["odd"]}
    )
    with filled.commit(key(0xAB), "score", {}, {}, {}, {"scores": "s.parquet"}) as folder:
        pq.write_table(odd, folder / "s.parquet")
    found = rows(filled, "select cell, metric, value, task, artifact from scores where cell = 'odd'")
    assert found == [("odd", "m", 0.25, None, key(0xAB))]
    assert rows(filled, "select count(*), count(task) from scores") == [(7, 6)]


def test_a_damaged_sweep_is_left_out_with_a_warning(filled: Store) -> None:
    Sweep(filled.root, "other").write("", [{"cell": "c9"}], {})
    (filled.root / "sweeps/night/cells.parquet").write_bytes(b"torn")
    with pytest.warns(UserWarning, match="left out: cells.parquet of sweep 'night'"):
        assert rows(filled, "select sweep, cell from cells") == [("other", "c9")]


# -- the closed door ---------------------------------------------------------------------------------------------


@pytest.fixture
def surroundings(filled: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a file worth stealing; afterwards nothing there may have changed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.csv").write_text("password\nhunter2\n")
    pq.write_table(pa.table({"password": ["hunter2"]}), tmp_path / "secret.parquet")
    before = tree(tmp_path)
    yield tmp_path
    assert tree(tmp_path) == before


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "sql",
    [
        "insert into scores (cell) values ('x')",
        "update scores set value = 1",
        "delete from scores",
        "drop table scores",
        "truncate scores",
        "create table mine as from scores",
        "create macro f() as 1",
        "copy scores to 'out.parquet'",
        "copy scores from 'secret.csv'",
        "copy (select 1) to 'out.csv'",
        "export database 'out'",
        "import database 'out'",
        "attach 'out.duckdb' as other",
        "attach ':memory:' as other",
        "use memory",
        "detach memory",
        "install httpfs",
        "load httpfs",
        "force install json from community",
        "set enable_external_access = true",
        "set threads = 1",
        "reset lock_configuration",
        "pragma enable_profiling",
        "pragma database_list",
        "call pragma_version()",
        "checkpoint",
        "vacuum",
        "begin",
        "prepare x as select 1",
        "execute x",
        "explain analyze select 1",
        "explain copy (select 1) to 'out.csv'",
        "create secret s (type http)",
        "comment on table scores is 'mine'",
        "pivot scores on task using first(value)",
        "select 1; select 2",
        "select 1; drop table scores",
        "",
        "-- nothing",
    ],
)
def test_anything_but_one_reading_statement_is_refused(filled: Store, surroundings: Path, sql: str) -> None:
    with pytest.raises(QueryRefused) as caught:
        query(filled, sql)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 150


@pytest.mark.parametrize(
    "sql",
    [
        "from 'secret.csv'",
        "from 'secret.parquet'",
        "from read_csv('secret.csv')",
        "from read_parquet('secret.parquet')",
        "from read_text('secret.csv')",
        "from read_blob('secret.csv')",
        "from read_json('secret.csv')",
        "from glob('*')",
        "from sniff_csv('secret.csv')",
        "from parquet_metadata('secret.parquet')",
        "from query('from ''secret.csv''')",
        "from 'https://example.org/x.parquet'",
        "select * from scores union all by name from read_csv('secret.csv')",
        "with x as (insert into scores (cell) values ('x') returning *) from x",
        "with x as (delete from scores returning *) from x",
        "with x as (update scores set value = 1 returning *) from x",
        "select st_point(1, 2)",
        "from postgres_scan('host=localhost', 'public', 'x')",
    ],
)
def test_reading_statements_cannot_reach_outside(filled: Store, surroundings: Path, sql: str) -> None:
    with pytest.raises(QueryError) as caught:
        query(filled, sql)
    assert "hunter2" not in str(caught.value) and "\n" not in str(caught.value)
    assert rows(filled, "select count(*) from scores") == [(6,)]


def test_an_open_connection_is_locked_too(filled: Store, surroundings: Path) -> None:
    with connect(filled) as connection:
        for sql in (
            "copy scores to 'out.parquet'",
            "from 'secret.csv'",
            "attach 'out.duckdb'",
            "set enable_external_access = true",
            "reset enable_external_access",
            "set lock_configuration = false",
            "set temp_directory = '.'",
            "install httpfs",
            "load httpfs",
            "export database 'out'",
        ):
            with pytest.raises(duckdb.Error):
                connection.execute(sql)
        assert connection.execute("select count(*) from scores").fetchall() == [(6,)]


def test_python_variables_are_not_tables(filled: Store) -> None:
    mine = pa.table({"x": [1]})
    assert duckdb.connect().sql("from mine").fetchall() == [tuple(*mine.to_pydict().values())]  # not locked
    with connect(filled) as connection, pytest.raises(duckdb.Error, match="mine"):
        connection.sql("from mine")


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("selec 1", "syntax error"),
        ("select * from score", "scores"),
        ("select valeu from scores", "value"),
        ("select sum(task) from scores", "sum"),
    ],
)
def test_mistakes_are_one_helpful_line(filled: Store, sql: str, message: str) -> None:
    with pytest.raises(QueryError, match=message) as caught:
        query(filled, sql)
    assert "\n" not in str(caught.value) and not isinstance(caught.value, QueryRefused)


def test_a_table_file_that_is_no_parquet_is_an_error_not_an_omission(filled: Store) -> None:
    with filled.commit(key(9), "score", {}, {}, {}, {"scores": "s.parquet"}) as folder:
        (folder / "s.parquet").write_bytes(b"whole, hashed, and nonsense")
    with pytest.raises(StorageError, match="cannot load table scores"):
        query(filled, "from scores")

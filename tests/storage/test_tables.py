"""Rows go through Parquet unchanged, or are refused with the place."""

from __future__ import annotations

import math
import tempfile
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quant.recipe import FIELDS
from storage.errors import StorageFull, TableError
from storage.schemas import ACTIVATIONS, CELLS, LAYERS, RECIPE, REQUIRED, SCORES, TABLES
from storage.tables import ARROW, FITS, read_table, schema, table_bytes, write_table
from storage.warehouse import DUCKDB

INT32 = st.integers(-(2**31), 2**31 - 1)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int32": INT32,
    "int64": st.integers(-(2**63), 2**63 - 1),
    "double": st.floats(),
    "string": st.text(),
    "timestamp": st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC)),
    "list<int32>": st.lists(INT32, max_size=5),
    "list<string>": st.lists(st.text(), max_size=3),
}
SCORE = {"cell": "c", "task": "t", "metric": "acc"}
SAMPLE = {"task": "t", "doc_id": 1, "kind": "generate"}


def rows_of(name: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    fields = {column: VALUES[kind] for column, (kind, _) in TABLES[name].items() if column != "schema_version"}
    required = {column: fields.pop(column) for column in REQUIRED[name]}
    optional = {column: st.none() | values for column, values in fields.items()}
    return st.lists(st.fixed_dictionaries(required, optional=optional), max_size=4)


def same(found: object, given_value: object) -> bool:
    if isinstance(given_value, float) and isinstance(found, float):
        both_nan = math.isnan(found) and math.isnan(given_value)
        return both_nan or (found == given_value and math.copysign(1, found) == math.copysign(1, given_value))
    if isinstance(given_value, datetime):
        return found == given_value.replace(tzinfo=None)
    return type(found) is type(given_value) and found == given_value


@pytest.mark.parametrize("name", list(TABLES))
@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_rows_come_back_as_they_went_in(name: str, data: st.DataObject) -> None:
    rows = data.draw(rows_of(name))
    found = read_table(table_bytes(name, rows), name).to_pylist()
    assert len(found) == len(rows)
    for row, back in zip(rows, found, strict=True):
        assert list(back) == list(TABLES[name])
        assert back.pop("schema_version") == 1
        assert all(same(value, row.get(column)) for column, value in back.items()), (row, back)


@given(rows_of("samples"))
@settings(max_examples=15, deadline=None)
def test_duckdb_reads_the_same(rows: list[dict[str, Any]]) -> None:
    """A second reader, with none of our code, of the file as it is on disk."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "samples.parquet"
        write_table(path, "samples", rows)
        asked = "select doc_id, choice, text, tokens, loglikelihood from read_parquet(?)"
        found = duckdb.connect().execute(asked, [str(path)]).fetchall()
    names = ("doc_id", "choice", "text", "tokens", "loglikelihood")
    assert len(found) == len(rows)
    for row, back in zip(rows, found, strict=True):
        assert all(same(value, row.get(name)) for name, value in zip(names, back, strict=True))


def test_equal_rows_are_equal_bytes() -> None:
    rows = [{**SCORE, "value": n / 7} for n in range(100)]
    assert table_bytes("scores", rows) == table_bytes("scores", [dict(reversed(row.items())) for row in rows])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**SCORE, "valeu": 1.0}, "no column 'valeu'; did you mean 'value'?"),
        ({**SCORE, "wbits": 2.5}, r"scores\.wbits in row 1 must be int32, not 2\.5"),
        ({**SCORE, "wbits": 2.0}, "must be int32"),
        ({**SCORE, "wbits": True}, "must be int32"),
        ({**SCORE, "wbits": 2**31}, r"scores\.wbits does not fit int32"),
        ({**SCORE, "symmetric": 1}, "must be bool"),
        ({**SCORE, "value": "0.5"}, "must be double"),
        ({**SCORE, "value": True}, "must be double"),
        ({**SCORE, "model": b"bytes"}, "must be string"),
        ({**SCORE, "model": "\ud800"}, "does not fit string"),
        ({**SCORE, "task": None}, r"scores\.task in row 1 must not be missing"),
        ({"cell": "c", "task": "t"}, r"scores\.metric in row 1 must not be missing"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(TableError, match=message) as caught:
        write_table(tmp_path / "scores.parquet", "scores", [SCORE, row])
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_lists_and_times_are_checked_inside() -> None:
    for tokens in ([1, 2.5], [1, "2"], "12", 5, [True]):
        with pytest.raises(TableError, match="must be list<int32>"):
            table_bytes("samples", [{**SAMPLE, "tokens": tokens}])
    run = {"run": "r", "sweep": "s"}
    with pytest.raises(TableError, match="must be timestamp"):
        table_bytes("runs", [{**run, "started_at": datetime(2026, 1, 1)}])  # of which time zone?
    east = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=5)))
    found = read_table(table_bytes("runs", [{**run, "started_at": east}]), "runs")
    assert found["started_at"].to_pylist() == [datetime(2026, 1, 1, 7)]


def test_numbers_of_numpy_are_numbers() -> None:
    row = {**SCORE, "wbits": np.int64(3), "value": np.float32(0.5), "stderr": np.float64(0.25), "n": np.int32(7)}
    found = read_table(table_bytes("scores", [row]), "scores").to_pylist()[0]
    assert (found["wbits"], found["value"], found["stderr"], found["n"]) == (3, 0.5, 0.25, 7)


def test_an_older_file_reads_with_nulls_and_a_newer_one_without_its_extras(tmp_path: Path) -> None:
    """A column that was added later, one that will be, and one of a narrower type."""
    path = tmp_path / "scores.parquet"
    columns = {"cell": ["c"], "value": [0.5], "wbits": pa.array([3], pa.int8()), "invented_later": [1]}
    old = pa.table(columns).replace_schema_metadata({"dlq.table": "scores"})
    pq.write_table(old, path)
    (row,) = read_table(path, "scores").to_pylist()
    assert {name: value for name, value in row.items() if value is not None} == {
        "cell": "c",
        "value": 0.5,
        "wbits": 3,
    }
    assert list(row) == list(SCORES)


def test_only_its_own_kind_of_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_table(path, "samples", [])
    with pytest.raises(TableError, match="not a scores table"):
        read_table(path, "scores")
    for junk in (b"", b"PAR1", b"not parquet at all"):
        with pytest.raises(TableError, match="not a readable"):
            read_table(junk, "scores")
    with pytest.raises(TableError, match="unknown table 'score'; did you mean 'scores'"):
        schema("score")


def test_a_flipped_value_does_not_pass_for_data() -> None:
    """Page checksums: no flipped bit anywhere in the file gives other rows than the written ones."""
    rows = [{**SCORE, "value": n / 7, "stderr": 0.1} for n in range(50)]
    data = table_bytes("scores", rows)
    wanted = read_table(data, "scores")
    start = data.index(b"\x28\xb5\x2f\xfd")  # the first zstd frame: page data
    for place in range(start, start + 12):
        changed = bytearray(data)
        changed[place] ^= 0x04
        with pytest.raises(TableError):
            read_table(bytes(changed), "scores")
    assert read_table(data, "scores") == wanted


def test_every_type_is_known_everywhere() -> None:
    used = {kind for columns in TABLES.values() for kind, _ in columns.values()}
    assert used <= set(ARROW) and set(ARROW) == set(FITS) == set(DUCKDB) == set(VALUES)
    assert all(REQUIRED[name] <= set(columns) for name, columns in TABLES.items())


def test_types_of_version_1_stay() -> None:
    """Columns may be added; what was published keeps its name and type, or old files stop being readable."""
    scores = {"cell": "string", "task": "string", "metric": "string", "value": "double", "stderr": "double"}
    scores |= {"n": "int64", "delta": "double", "p_value": "double", "flips": "int64", "baseline": "string"}
    scores |= {"method": "string", "wbits": "int32", "abits": "int32", "group_size": "int32", "symmetric": "bool"}
    assert scores.items() <= {column: kind for column, (kind, _) in SCORES.items()}.items()


def test_every_field_of_a_recipe_has_its_column() -> None:
    assert set(FIELDS) == set(RECIPE)
    assert set(RECIPE) <= set(CELLS) & set(SCORES)
    assert set(RECIPE) - {"method"} <= set(LAYERS)


def test_labels_stay_out_of_what_sweeps_share() -> None:
    """A label is not part of a key: what one sweep calls a layer would be read in another's table."""
    decides = {"calibration_samples", "calibration_length", "calibration_seed", "packing", "prefix_ratio"}
    decides |= {"masking", "propagation"}
    for shared in (LAYERS, ACTIVATIONS):
        assert not {"method", "calibration"} & set(shared)
        assert decides <= set(shared)
    assert decides | {"calibration"} <= set(CELLS) & set(SCORES)
    assert {name: SCORES[name][0] for name in ("document_limit", "higher_is_better", "calibration_seed")} == {
        "document_limit": "int32",
        "higher_is_better": "bool",
        "calibration_seed": "int64",
    }


def test_a_table_for_which_there_is_no_room(full_disk: Path) -> None:
    noise = np.random.default_rng(0).integers(33, 123, 3_000_000, np.uint8).tobytes().decode()
    with pytest.raises(StorageFull):
        write_table(full_disk / "samples.parquet", "samples", [{**SAMPLE, "text": noise}])

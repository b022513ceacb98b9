"""Which rows SQL sees: those of the latest sweep, of another, or all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Dlq = Callable[..., Any]
Finished = tuple[Path, Path]
SCORES = "select count(*), count(distinct cell) from scores where metric in ('acc', 'exact_match')"
LAYERS = "select distinct wbits from layers order by 1"
CELLS = "select distinct sweep from cells"
RUNS = "select distinct sweep from runs"


@pytest.fixture
def two(dlq: Dlq, finished: Finished, tmp_path: Path) -> tuple[str, str]:
    """Ids of two sweeps in ./store: the finished one of three cells, then one of full precision and rtn alone."""
    import yaml

    shutil.copytree(finished[1], "store")
    grid = yaml.safe_load(finished[0].read_text())
    grid["methods"] = grid["methods"][:1]
    Path("fewer.yaml").write_text(yaml.safe_dump(grid))
    first = dlq("ls", "sweeps", "--store", "store", "--json").json["data"][0]["sweep"]
    told = dlq("submit", "--grid", "fewer.yaml", "--store", "store", "--local", "--json").json["data"]
    assert told["summary"]["computed"] == 0  # only what the first sweep has
    return first, told["sweep"]


def rows(dlq: Dlq, sql: str, *options: str) -> list[list[Any]]:
    told = dlq("sql", sql, "--store", "store", "--json", *options)
    assert told.code == 0, told.err
    found: list[list[Any]] = told.json["data"]["rows"]
    return found


def test_the_latest_sweep_is_meant(dlq: Dlq, two: tuple[str, str]) -> None:
    assert rows(dlq, SCORES) == [[4, 2]]
    assert rows(dlq, LAYERS) == [[4]]
    assert rows(dlq, CELLS) == rows(dlq, RUNS) == [[two[1]]]


def test_another_sweep(dlq: Dlq, two: tuple[str, str]) -> None:
    assert rows(dlq, SCORES, "--sweep", two[0]) == [[6, 3]]
    assert rows(dlq, LAYERS, "--sweep", two[0]) == [[2], [4]]
    assert rows(dlq, CELLS, "--sweep", two[0]) == rows(dlq, RUNS, "--sweep", two[0]) == [[two[0]]]


def test_everything(dlq: Dlq, two: tuple[str, str]) -> None:
    from storage.artifacts import Store

    with Store("store").commit("ab" * 16, "score", {}, {}, {}, {}) as folder:
        (folder / "planned-by-nobody").write_bytes(b"x")
    one = "select count(*) from tasks where key = 'abababababababababababababababab'"
    assert (rows(dlq, one), rows(dlq, one, "--all")) == ([[0]], [[1]])
    assert rows(dlq, SCORES, "--all") == [[6, 3]]
    assert sorted(rows(dlq, CELLS, "--all")) == sorted(rows(dlq, RUNS, "--all")) == sorted([[i] for i in two])


def test_both_choices_at_once(dlq: Dlq, two: tuple[str, str]) -> None:
    told = dlq("sql", CELLS, "--store", "store", "--all", "--sweep", two[0])
    assert told.code == 2
    assert "exclude each other" in told.complaint


def test_a_notebook_means_the_same(two: tuple[str, str]) -> None:
    import dlq as library

    runs = library.open("store")
    assert runs.query(CELLS)["sweep"].to_pylist() == [two[1]]
    assert runs.query(CELLS, two[0])["sweep"].to_pylist() == [two[0]]
    assert sorted(runs.query(CELLS, everything=True)["sweep"].to_pylist()) == sorted(two)


def test_help_says_which_rows(dlq: Dlq) -> None:
    told = " ".join(dlq("sql", "--help").out.split())
    assert "latest sweep" in told and "--all" in told and "--sweep" in told


def test_layers_are_joined_to_cells_through_the_inputs_of_scores(dlq: Dlq, two: tuple[str, str]) -> None:
    """The label of a method is in cells alone; a score's task names the blocks that it stands on."""
    sql = """
    select c.method, count(*) from (
        select distinct s.cell, block.value ->> '$' as artifact
        from scores s join tasks t on t.key = s.artifact, json_each(t.inputs) block where block.key like 'block%'
    ) join layers using (artifact) join cells c using (cell) group by 1 order by 1
    """
    assert rows(dlq, sql) == [["rtn", 21]]
    assert rows(dlq, sql, "--sweep", two[0]) == [["gptq", 21], ["rtn", 21]]

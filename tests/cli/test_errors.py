"""What a user can get wrong: one line with the place, the right exit code, and nothing left behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.errors import ENVIRONMENT, USAGE

Dlq = Callable[..., Any]
Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metods": []}, ["unknown key", "did you mean 'methods'"]),
        ({"methods": [{"method": "gptqq"}]}, ["methods[0].method", 'unknown method "gptqq"', '"gptq"']),
        ({"methods": [{"method": "gptq", "wbits": "two"}]}, ["methods[0].wbits", "integer"]),
        ({"methods": [{"method": "gptq", "group_size": 48}]}, ["methods[0].group_size", "48"]),
        ({"models": ["no/such/model"]}, ["models[0]", "no/such/model"]),
        ({"tasks": ["arithmetik"]}, ["tasks[0]", "arithmetik", "did you mean"]),
        ({"tasks": "arithmetic"}, ["tasks", "list"]),
        ({"evaluation": {"sampels": 4}}, ["evaluation.sampels", "did you mean 'samples'"]),
        ({"resources": {"evaluate": {"replicas": 0}}}, ["resources.evaluate.replicas", "greater"]),
    ],
)
@pytest.mark.parametrize("verb", ["plan", "submit"])
def test_bad_grids(dlq: Dlq, grid_file: Write, verb: str, changes: dict[str, Any], words: list[str]) -> None:
    grid = grid_file(**changes)
    told = dlq(verb, "--grid", grid, *(["--local"] if verb == "submit" else []))
    assert told.code == USAGE
    assert told.out == ""
    line = told.complaint.removeprefix("dlq: error: ")
    assert line.startswith(f"{grid}:"), line
    assert line.removeprefix(f"{grid}:").partition(":")[0].isdigit(), line
    for word in words:
        assert word in line
    assert not Path("runs").exists()


def test_yaml_that_is_none(dlq: Dlq, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("models: [a\nmethods: {")
    told = dlq("plan", "--grid", "bad.yaml", "--json")
    assert told.code == USAGE
    assert told.json["error"]["code"] == "grid"
    assert told.json["error"]["message"].startswith("bad.yaml:2: not valid YAML")


def test_a_grid_that_is_not_there(dlq: Dlq) -> None:
    told = dlq("plan", "--grid", "none.yaml")
    assert told.code == USAGE
    assert "dlq init" in told.complaint


@pytest.mark.parametrize(
    "verb", [["status"], ["resume"], ["report"], ["sql", "select 1"], ["ls", "cells"], ["gc"]]
)
def test_no_store_yet(dlq: Dlq, verb: list[str]) -> None:
    told = dlq(*verb)
    assert told.code == USAGE
    assert "there is no store at runs" in told.complaint
    assert not Path("runs").exists()


def test_an_empty_store(dlq: Dlq) -> None:
    from storage.artifacts import Store

    Store("runs")
    told = dlq("status")
    assert told.code == USAGE
    assert "no sweep" in told.complaint


def test_a_store_that_cannot_be_made(dlq: Dlq, small_grid: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = dlq("submit", "--grid", small_grid, "--local", "--store", tmp_path / "file" / "store")
    assert told.code == ENVIRONMENT
    assert "cannot use" in told.complaint


def test_a_folder_of_something_else_is_no_store(dlq: Dlq, small_grid: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("precious")
    told = dlq("submit", "--grid", small_grid, "--local", "--store", tmp_path / "home")
    assert told.code == ENVIRONMENT
    assert "thesis.tex" in told.complaint
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "not an address"])
def test_a_cluster_that_does_not_answer(dlq: Dlq, small_grid: Path, address: str) -> None:
    started = time.monotonic()
    told = dlq("submit", "--grid", small_grid, "--address", address)
    assert told.code == ENVIRONMENT
    assert "--address" in told.complaint
    assert time.monotonic() - started < 20
    assert "dlq resume" in dlq("status").out  # registered, whole, and nothing computed


@pytest.mark.parametrize(
    "sql",
    [
        "copy scores to 'out.csv'",
        "attach 'other.db'",
        "drop table scores",
        "select 1; select 2",
        "insert into scores (cell) values ('x')",
        "set enable_external_access = true",
        "select * from read_text('/etc/hostname')",
        "select * from 'small.yaml'",
        "select nonsense from scores",
        "selec 1",
    ],
)
def test_refused_sql(dlq: Dlq, finished: tuple[Path, Path], sql: str) -> None:
    told = dlq("sql", sql, "--store", finished[1])
    assert told.code == USAGE
    assert told.complaint
    assert told.out == ""
    assert not Path("out.csv").exists()


def test_init_does_not_overwrite(dlq: Dlq) -> None:
    assert dlq("init").code == 0
    Path("grid.yaml").write_text("mine")
    told = dlq("init")
    assert told.code == USAGE
    assert "exists" in told.complaint
    assert Path("grid.yaml").read_text() == "mine"
    assert dlq("init", "no/such/folder/grid.yaml").code == USAGE


def test_unknown_names(dlq: Dlq, finished: tuple[Path, Path]) -> None:
    store = finished[1]
    for arguments in (["status", "nosuch"], ["show", "zzz"], ["show", "ffffffffffff"], ["report", "nosuch"]):
        told = dlq(*arguments, "--store", store)
        assert told.code == USAGE
        assert arguments[-1] in told.complaint
    assert dlq("plan", "--grid", finished[0], "--explain", "zzz").code == USAGE
    assert dlq("report", "--store", store, "-o", "no/such/folder/report.txt").code == USAGE

"""Methods as cells of a sweep: each runs, none is its neighbour, and the rows say what ran."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from storage.artifacts import Store
from storage.warehouse import query

W4A8 = {"wbits": 4, "abits": 8}
METHODS = [
    {"method": "awq", "wbits": 3, "group_size": 32},
    {"method": "smoothquant", **W4A8},
    {"method": "quarot", **W4A8},
    {"method": "duquant", **W4A8, "rotation_block": 32},
    {"method": "duquant", **W4A8, "rotation_block": 32, "rounding": "gptq", "act_order": True},
    {"method": "quarot", **W4A8, "propagation": "sequential"},
]


@pytest.mark.slow
def test_methods_run_in_a_sweep(
    tools: SimpleNamespace, grid_file: Callable[..., Path], tmp_path: Path, workspace: Path
) -> None:
    tasks = [{"task": str(workspace / "choice.yaml"), "limit": 8, "shards": 2}]
    summary, _ = tools.run_local(grid_file(methods=METHODS, tasks=tasks), tmp_path / "store")
    assert not summary.failures, summary.failures
    store = Store(tmp_path / "store", create=False)
    rows = query(
        store,
        """select transform, rounding, propagation, count(*) as layers, bool_and(finite) as finite,
           count(distinct layer) as names, avg(relative_output_error_held_out) as error,
           avg(relative_output_error_held_out / relative_output_error) as ratio, max(linear_bits) as bits
           from layers group by all order by all""",
    ).to_pylist()
    assert [(row["transform"], row["rounding"], row["propagation"]) for row in rows] == [
        ("awq", "nearest", "parallel"),
        ("duquant", "gptq", "parallel"),
        ("duquant", "nearest", "parallel"),
        ("quarot", "gptq", "parallel"),
        ("quarot", "gptq", "sequential"),
        ("smoothquant", "nearest", "parallel"),
    ]
    for row in rows:
        assert (row["layers"], row["names"], row["finite"]) == (21, 7, True)
        assert 0 < row["error"] < 0.3
        assert row["bits"] < 6
    totals = query(store, "select sum(loglikelihood) as total from samples group by artifact").to_pylist()
    assert len({row["total"] for row in totals}) == 2 * (len(METHODS) + 1)  # two shards, and full precision

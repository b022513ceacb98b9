"""What a run would do, told without torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

Dlq = Callable[..., Any]
Finished = tuple[Path, Path]


def test_plan_before_and_after(dlq: Dlq, finished: Finished) -> None:
    grid, store = finished
    before = dlq("plan", "--grid", grid, "--json").json["data"]
    counts = {row["kind"]: (row["total"], row["done"], row["todo"]) for row in before["tasks"]}
    # 3 blocks; 2 recipes; 2 tasks x 2 shards x 3 cells; 3 cells x 2 tasks
    assert counts == {
        "calibrate": (3, 0, 3), "quantize": (6, 0, 6), "requests": (2, 0, 2), "evaluate": (12, 0, 12),
        "score": (6, 0, 6),
    }  # fmt: skip
    assert not Path("runs").exists()
    after = dlq("plan", "--grid", grid, "--store", store, "--json").json["data"]
    assert sum(row["todo"] for row in after["tasks"]) == 0
    assert [(cell["done"], cell["of"]) for cell in after["cells"]] == [(2, 2)] * 3
    assert after["sweep"] == before["sweep"]
    text = dlq("plan", "--grid", grid, "--store", store).out
    assert "nothing to do" in text and "\x1b" not in text


def test_plan_explains_a_cell(dlq: Dlq, finished: Finished) -> None:
    grid, store = finished
    cells = dlq("plan", "--grid", grid, "--json").json["data"]["cells"]
    gptq = next(cell["cell"] for cell in cells if cell["method"] == "gptq")
    told = dlq("plan", "--grid", grid, "--store", store, "--explain", gptq[:6], "--json").json["data"]
    assert told["cell"]["wbits"] == 2
    kinds = [task["kind"] for task in told["tasks"]]
    # its own blocks, statistics and answers, and the baseline's answers; not the other recipe's
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "calibrate": 3, "quantize": 3, "requests": 2, "evaluate": 8, "score": 2,
    }  # fmt: skip
    assert all(task["done"] for task in told["tasks"])


def test_plan_loads_no_torch(finished: Finished, process: SimpleNamespace) -> None:
    arguments = ["plan", "--grid", str(finished[0]), "--store", str(finished[1])]
    heavy = "print([m for m in ('torch', 'ray', 'lm_eval', 'duckdb') if m in sys.modules])"
    code = f"from cli.app import run; run({arguments!r}); import sys; {heavy}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, env=process.environment(), cwd=finished[0].parent,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_the_starter_grid_can_be_planned(dlq: Dlq) -> None:
    dlq("init")
    told = dlq("plan", "--grid", "grid.yaml", "--json")
    assert told.code == 0
    assert len(told.json["data"]["cells"]) == 1 + 4

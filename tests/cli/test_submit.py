"""Running sweeps of a tiny random model: again, wider, failing, interrupted, changed, on Ray."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from cli.errors import FAILED_CELLS, RESUMABLE, SIGINT

Dlq = Callable[..., Any]
Write = Callable[..., Path]
Finished = tuple[Path, Path]
CELLS = [{"method": "rtn", "wbits": 4, "group_size": 32}, {"method": "gptq", "wbits": 2, "group_size": 32}]


def test_submitting_again_does_nothing(dlq: Dlq, finished: Finished) -> None:
    grid, store = finished
    before = {p: p.stat().st_mtime_ns for p in (store / "objects").rglob("*")}
    told = dlq("submit", "--grid", grid, "--store", store, "--json")
    assert told.code == 0
    summary = told.json["data"]["summary"]
    assert (summary["computed"], summary["pending"], summary["failures"]) == (0, 0, [])
    assert {p: p.stat().st_mtime_ns for p in (store / "objects").rglob("*")} == before


def test_a_run_says_what_it_ran_on(dlq: Dlq, finished: Finished, tmp_path: Path) -> None:
    """The second run has nothing to do, and so starts no Ray."""
    shutil.copytree(finished[1], tmp_path / "store")
    assert dlq("submit", "--grid", finished[0], "--store", "store").code == 0
    told = dlq("sql", "select executor from runs order by started_at", "--store", "store", "--json")
    assert told.json["data"]["rows"][0] == ["local"]
    assert told.json["data"]["rows"][-1] == ["ray"]


def test_a_new_recipe_reuses_the_rest(dlq: Dlq, finished: Finished, tmp_path: Path) -> None:
    import yaml

    grid = yaml.safe_load(finished[0].read_text())
    grid["methods"] = [*CELLS, {"method": "rtn", "wbits": 3, "group_size": 32}]
    (tmp_path / "wider.yaml").write_text(yaml.safe_dump(grid))
    shutil.copytree(finished[1], tmp_path / "store")
    told = dlq("submit", "--grid", "wider.yaml", "--store", "store", "--local", "--json").json["data"]["summary"]
    assert told["computed"] == 3 + 2 * 2 + 2  # blocks, shards, scores of the one new cell
    assert len(dlq("ls", "sweeps", "--store", "store", "--json").json["data"]) == 2


def test_failed_cells(dlq: Dlq, grid_file: Write, workspace: Path, tmp_path: Path) -> None:
    shutil.copytree(workspace / "model", tmp_path / "poisoned")
    state = load_file(tmp_path / "poisoned" / "model.safetensors")
    state["model.transformer.blocks.2.up_proj.weight"][3, 5] = float("nan")
    save_file(state, tmp_path / "poisoned" / "model.safetensors")
    tasks = [{"task": str(workspace / "choice.yaml"), "limit": 4, "shards": 1}]
    grid = grid_file(models=[str(tmp_path / "poisoned")], methods=CELLS[:1], tasks=tasks)
    told = dlq("submit", "--grid", grid, "--local")
    assert told.code == FAILED_CELLS
    assert "cells failed" in told.complaint
    assert "block 2 up_proj" in told.err
    status = dlq("status")
    assert status.code == 0
    assert "block 2 up_proj" in status.out
    assert dlq("submit", "--grid", grid, "--local", "--json").json["error"]["code"] == "cells_failed"


def submit_and_signal(
    process: SimpleNamespace, grid: Path, store: Path, number: signal.Signals
) -> tuple[int, str]:
    """Start a submit, send a signal once the first task has started, and wait for the end."""
    running = subprocess.Popen(
        process.command("submit", "--grid", grid, "--store", store, "--local"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=process.environment(), cwd=grid.parent,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not any('"start"' in p.read_text() for p in store.glob("sweeps/*/events.jsonl")):
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    running.send_signal(number)
    _, err = running.communicate(timeout=60)
    return running.returncode, err


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, SIGINT), (signal.SIGTERM, RESUMABLE)])
def test_a_signal_drains_and_resume_goes_on(
    dlq: Dlq, process: SimpleNamespace, small_grid: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    store = tmp_path / "interrupted"
    found, err = submit_and_signal(process, small_grid, store, number)
    assert found == code, err
    assert "dlq resume" in err.splitlines()[-1]
    assert "finishing what is in flight" in err
    assert "Traceback" not in err
    status = dlq("status", "--store", store, "--json").json["data"]
    assert status["state"] == "interrupted"
    assert 0 < status["todo"] < 29
    told = dlq("resume", "--store", store, "--local", "--json")
    assert told.code == 0
    assert told.json["data"]["summary"]["computed"] == status["todo"]
    assert dlq("status", "--store", store, "--json").json["data"]["state"] == "done"


def test_a_changed_model_is_not_resumed(dlq: Dlq, workspace: Path, finished: Finished, tmp_path: Path) -> None:
    import yaml

    shutil.copytree(workspace / "model", tmp_path / "model")
    grid = yaml.safe_load(finished[0].read_text())
    grid["models"] = [str(tmp_path / "model")]
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    shutil.copytree(finished[1], tmp_path / "store")
    assert dlq("submit", "--grid", "grid.yaml", "--store", "store", "--local").code == 0
    state = load_file(tmp_path / "model" / "model.safetensors")
    state["model.transformer.ln_f.weight"] += 1
    save_file(state, tmp_path / "model" / "model.safetensors")
    told = dlq("resume", "--store", "store", "--local")
    assert told.code == 2
    assert "changed since" in told.complaint


@pytest.mark.ray
@pytest.mark.slow
def test_submit_on_ray_gives_the_same_numbers(
    finished: Finished, process: SimpleNamespace, tmp_path: Path
) -> None:
    submit = process.command("submit", "--grid", finished[0], "--store", tmp_path / "ray", "--json")
    done = subprocess.run(
        submit, capture_output=True, text=True, env=process.environment(), cwd=tmp_path, timeout=300
    )
    assert done.returncode == 0, done.stderr
    on_ray = json.loads(done.stdout)["data"]["results"]["rows"]  # stdout holds the envelope and nothing else
    report = process.command("report", "--store", finished[1], "--json")
    local = subprocess.run(
        report, capture_output=True, text=True, env=process.environment(), cwd=tmp_path, check=True
    )
    rows = json.loads(local.stdout)["data"]["results"]["rows"]

    def numbers(found: list[dict[str, object]]) -> list[list[object]]:
        return sorted([r[k] for k in ("artifact", "metric", "value", "stderr", "delta", "n")] for r in found)

    assert numbers(on_ray) == numbers(rows)
    assert numbers(rows)

"""Real SIGKILL, really resumed: after any death the tables equal those of an undisturbed run."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from storage.artifacts import Store

sys.path.insert(0, str(Path(__file__).parent))
import crash_child  # beside this file, and found by the fork server through sys.path

pytestmark = [pytest.mark.slow, pytest.mark.chaos]
Rows = dict[str, list[dict[str, Any]]]

# Place and pass, chosen so that they fall into different kinds of task; the sweep has 20 tasks or so.
DEATHS = [
    "sweep.register:1", "replace.written:2", "replace.renamed:3", "driver.start:1", "driver.start:9",
    "driver.end:1", "driver.end:14", "append.written:5", "append.done:30", "commit.staged:3", "commit.filled:6",
    "commit.synced:8", "commit.sealed:11", "commit.renamed:13", "commit.done:16", "requests.computed:1",
    "calibrate.start:2", "calibrate.computed:3", "quantize.computed:2", "evaluate.computed:3", "score.computed:1",
]  # fmt: skip


@pytest.fixture(scope="module")
def small_text(tiny_grid_text: str) -> str:
    """Two cells, one of them sequential: every kind of task, few of each."""
    grid = yaml.safe_load(tiny_grid_text)
    grid["methods"] = [{"method": "gptq", "wbits": 2, "group_size": 32, "propagation": "sequential"}]
    return yaml.safe_dump(grid, sort_keys=False)


@pytest.fixture(scope="module")
def expected(tools: SimpleNamespace, small_text: str, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    root = tmp_path_factory.mktemp("expected")
    (root / "grid.yaml").write_text(small_text)
    summary, _ = tools.run_local(root / "grid.yaml", root / "store")
    assert not summary.failures
    return tools.contents(root / "store")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[str], str], int]:
    """Run dlq in a process of its own, forked from a server that has the heavy imports; returns the exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["torch", "lm_eval.evaluator", "datasets", "workers.units", "cli.app", "duckdb"]
    )
    log = tmp_path_factory.mktemp("log") / "output"

    def start(arguments: list[str], crash_at: str = "") -> int:
        process = context.Process(target=crash_child.dlq, args=(arguments, crash_at, str(log)))
        process.start()
        process.join(240)
        assert process.exitcode is not None, log.read_text()[-2000:]
        return process.exitcode

    return start


@pytest.mark.parametrize("death", DEATHS)
def test_killed_anywhere_and_resumed(
    run: Callable[..., int], tools: SimpleNamespace, small_text: str, expected: Rows, tmp_path: Path, death: str
) -> None:
    grid, root = tmp_path / "grid.yaml", tmp_path / "store"
    grid.write_text(small_text)
    submit = ["submit", "--grid", str(grid), "--store", str(root), "--local", "--yes"]
    assert run(submit, death) == -signal.SIGKILL
    registered = any(root.glob("sweeps/*/plan.json"))
    again = ["resume", "--store", str(root), "--local"] if registered else submit
    assert run(again) == 0
    assert tools.contents(root) == expected
    store = Store(root)
    assert all(map(store.has, list(store.keys())))


def test_killed_again_and_again(
    run: Callable[..., int], tools: SimpleNamespace, small_text: str, expected: Rows, tmp_path: Path
) -> None:
    """Each life commits one artifact more, then dies."""
    grid, root = tmp_path / "grid.yaml", tmp_path / "store"
    grid.write_text(small_text)
    submit = ["submit", "--grid", str(grid), "--store", str(root), "--local", "--yes"]
    deaths = 0
    while run(submit, "commit.done:4") == -signal.SIGKILL:
        deaths += 1
        assert deaths < 20
    assert deaths >= 4
    assert tools.contents(root) == expected


def dlq(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "cli.app", *arguments]
    return subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


# Each actor dies at its n-th pass; n is small enough that one of two actors gets there, large enough that
# replacements rarely do.
ACTOR_DEATHS = ["calibrate.computed:3", "quantize.start:6", "quantize.computed:7", "evaluate.computed:10"]


@pytest.mark.ray
@pytest.mark.parametrize("death", ACTOR_DEATHS)
def test_an_actor_killed_in_the_middle(
    tools: SimpleNamespace, tiny_grid_text: str, undisturbed: Rows, tmp_path: Path, death: str
) -> None:
    """The run itself gets over it: the attempt is lost, counted, and made again by a new actor."""
    grid, root = tmp_path / "grid.yaml", tmp_path / "store"
    grid.write_text(tiny_grid_text)
    driver = dlq("submit", "--grid", str(grid), "--store", str(root), "--yes", DLQ_CRASH_AT=death)
    assert driver.wait(240) == 0
    events = [e for s in (root / "sweeps").iterdir() for e in _events(root, s.name)]
    kinds = {e["key"]: e["kind"] for e in events if e["event"] == "start"}
    lost = [kinds[e["key"]] for e in events if e.get("status") == "lost"]
    assert lost
    assert set(lost) == {death.partition(".")[0]}
    starts = [e["key"] for e in events if e["event"] == "start"]
    assert len(starts) == len(set(starts)) + len(lost)
    assert tools.contents(root) == undisturbed


@pytest.mark.ray
@pytest.mark.parametrize("death", ["driver.start:15", "driver.end:40"])
def test_the_driver_killed_on_ray_and_resumed(
    tools: SimpleNamespace, tiny_grid_text: str, undisturbed: Rows, tmp_path: Path, death: str
) -> None:
    grid, root = tmp_path / "grid.yaml", tmp_path / "store"
    grid.write_text(tiny_grid_text)
    first = dlq("submit", "--grid", str(grid), "--store", str(root), "--yes", DLQ_CRASH_AT=death)
    assert first.wait(240) == -signal.SIGKILL
    before = set(Store(root).keys())
    assert 10 <= len(before) < 71
    assert dlq("resume", "--store", str(root)).wait(240) == 0
    assert before <= set(Store(root).keys())
    assert tools.contents(root) == undisturbed


def _events(root: Path, sweep: str) -> list[dict[str, Any]]:
    from storage.sweeps import Sweep

    return list(Sweep(root, sweep).events())

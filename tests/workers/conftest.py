"""Running sweeps and reading everything they produced."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.executor import Outcome
from pipeline.plan import make_plan
from pipeline.scheduler import Scheduler
from pipeline.tasks import Task
from storage.artifacts import Store
from storage.warehouse import query
from workers.local import LocalExecutor
from workers.sweep import Summary, run_sweep

SAMPLES = """select model_hash, recipe, task, doc_id, choice, kind, context_hash, loglikelihood, text, tokens,
             target_length from samples order by all"""
SCORES = """select * exclude (artifact, seconds) from scores order by all"""
LAYERS = """select * exclude (artifact, seconds) from layers order by all"""


class Silent:
    """A listener that only counts."""

    def __init__(self) -> None:
        self.started: list[str] = []

    def begin(self, scheduler: Scheduler) -> None:
        """Nothing to say."""

    def start(self, task: Task, attempt: int) -> None:
        self.started.append(task.kind)

    def end(self, task: Task, outcome: Outcome, scheduler: Scheduler) -> None:
        """Nothing to say."""


def run_local(grid: Path, root: Path) -> tuple[Summary, Silent]:
    """Run a grid in-process."""
    store, listener = Store(root), Silent()
    summary = run_sweep(make_plan(str(grid)), grid.read_text(), store, lambda: LocalExecutor(store), listener)
    return summary, listener


def contents(root: Path) -> dict[str, list[dict[str, Any]]]:
    """Every score, sample and layer row of a store, without what may differ (places, seconds)."""
    store = Store(root, create=False)
    return {
        name: query(store, sql).to_pylist()
        for name, sql in (("scores", SCORES), ("samples", SAMPLES), ("layers", LAYERS))
    }


@pytest.fixture(scope="session")
def tools() -> SimpleNamespace:
    """run_local, contents, Silent."""
    return SimpleNamespace(run_local=run_local, contents=contents, Silent=Silent)


@pytest.fixture(scope="session")
def finished(tiny_grid_text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which the tiny grid ran once, in-process, without any trouble. Read-only: copy it to break it."""
    root = tmp_path_factory.mktemp("undisturbed")
    grid = root / "grid.yaml"
    grid.write_text(tiny_grid_text)
    summary, _ = run_local(grid, root / "store")
    assert not summary.failures, summary.failures
    return root / "store"


@pytest.fixture(scope="session")
def undisturbed(finished: Path) -> dict[str, list[dict[str, Any]]]:
    """Contents of the finished store."""
    return contents(finished)

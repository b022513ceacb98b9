"""One run of a sweep: what is missing is computed, every start and end is logged, and the verdict summed up.

Nothing needs saving at the end or on a signal: each task is committed when it is done. Ray starts only if there
is work for it. Does not protect against two drivers at once beyond a warning: they would only do work twice.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

from pipeline.cells import Cell
from pipeline.executor import Executor, Outcome
from pipeline.plan import Plan
from pipeline.scheduler import Scheduler, State, drive
from pipeline.tasks import Task
from storage.artifacts import Store
from storage.crash import point
from storage.sweeps import Sweep


class Listener(Protocol):
    """Hears how a run goes: for progress bars and lines."""

    def begin(self, scheduler: Scheduler) -> None:
        """The run starts with this much to do."""

    def start(self, task: Task, attempt: int) -> None:
        """An attempt starts."""

    def end(self, task: Task, outcome: Outcome, scheduler: Scheduler) -> None:
        """An attempt ended."""


@dataclass(frozen=True)
class Failure:
    """A task given up, in words."""

    key: str
    task: str
    error: str


@dataclass(frozen=True)
class Summary:
    """How a run ended. `pending`: tasks not finished because the run was interrupted."""

    sweep: str
    computed: int
    reused: int
    failures: list[Failure]
    failed_cells: list[str]
    pending: int
    fatal: str
    seconds: float
    retried: int = 0
    other_driver: str = ""


def run_sweep(
    plan: Plan,
    grid_text: str,
    store: Store,
    make_executor: Callable[[], Executor],
    listener: Listener,
    stopping: Callable[[], bool] = lambda: False,
    executor: str = "",
) -> Summary:
    """Run what is missing of a plan. The first thing written is the plan itself, so that `resume` can find it.

    executor: what kind it is, for the runs table.
    """
    started = time.perf_counter()
    store.sweep_litter()
    sweep = register(plan, grid_text, store)
    scheduler = Scheduler(plan.tasks, plan.targets(), store.has, plan.grid.resources.attempts)
    with sweep.driving() as other:
        facts = {**versions(), "executor": executor} if executor else versions()
        run = sweep.start_run(name=plan.grid.name, **facts, tasks_total=len(scheduler.state))
        listener.begin(scheduler)
        status = "failed"
        try:
            _drive(scheduler, make_executor, sweep, listener, stopping)
            status = _status(scheduler)
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            sweep.end_run(run, status, **_counts(scheduler))
    return _summary(
        plan, scheduler, time.perf_counter() - started, f"{other.host} pid {other.pid}" if other else ""
    )


def register(plan: Plan, grid_text: str, store: Store) -> Sweep:
    """Write the sweep (grid, cells, keys) into the store; the same sweep again changes nothing that matters."""
    sweep = Sweep(store.root, plan.id)
    names = [p.task.name for p in plan.task_plans]
    rows = [_cell_row(cell, plan.baseline(cell).id, names) for cell in plan.cells]
    tasks = {key: task.kind for key, task in plan.tasks.items()}
    scores = [[cell, name, key] for (cell, name), key in plan.scores.items()]
    point("sweep.register")
    sweep.write(grid_text, rows, {"name": plan.grid.name, "tasks": tasks, "scores": scores})
    return sweep


def _cell_row(cell: Cell, baseline: str, tasks: Iterable[str]) -> dict[str, Any]:
    from storage.schemas import CELLS

    columns = {k: v for k, v in cell.columns().items() if k in CELLS}
    return {**columns, "is_baseline": cell.recipe is None, "baseline": baseline, "tasks": list(tasks)}


def _drive(
    scheduler: Scheduler,
    make_executor: Callable[[], Executor],
    sweep: Sweep,
    listener: Listener,
    stopping: Callable[[], bool],
) -> None:
    if not scheduler.ready():
        return

    def tell(event: str, task: Task, attempt: int, outcome: Outcome | None) -> None:
        point(f"driver.{event}")
        if outcome is None:
            sweep.append("start", key=task.key, kind=task.kind, attempt=attempt)
            listener.start(task, attempt)
        else:
            details = {"error": outcome.error, "trace": outcome.trace} if outcome.error else {}
            sweep.append("end", key=task.key, attempt=attempt, status=outcome.status, **details)
            listener.end(task, outcome, scheduler)

    executor = make_executor()
    try:
        drive(scheduler, executor, tell, stopping)
    finally:
        executor.close()


def versions() -> dict[str, str]:
    """Versions of what computes, as columns of the runs table."""
    found = {"python_version": platform.python_version(), "platform": platform.platform()}
    for name in ("dlq", "torch", "ray", "lm_eval"):
        try:
            found[f"{name}_version"] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _counts(scheduler: Scheduler) -> dict[str, int]:
    done, reused = scheduler.count(State.DONE), len(scheduler.reused)
    return {"tasks_done": done - reused, "tasks_reused": reused, "tasks_failed": scheduler.count(State.FAILED)}


def _status(scheduler: Scheduler) -> str:
    if scheduler.fatal:
        return "stopped"
    if scheduler.count(State.WAITING):
        return "interrupted"
    return "failed" if scheduler.count(State.FAILED) else "done"


def _summary(plan: Plan, scheduler: Scheduler, seconds: float, other: str) -> Summary:
    failed = [key for key, state in scheduler.state.items() if state is State.FAILED]
    missing = {key for key, state in scheduler.state.items() if state in (State.FAILED, State.BLOCKED)}
    cells = [cell.id for cell in plan.cells if missing & set(plan.tasks_of(cell.id))]
    counts = _counts(scheduler)
    return Summary(
        sweep=plan.id,
        computed=counts["tasks_done"],
        reused=counts["tasks_reused"],
        failures=[Failure(k, plan.tasks[k].describe(), scheduler.errors.get(k, "")) for k in failed],
        failed_cells=cells,
        pending=scheduler.count(State.WAITING),
        fatal=scheduler.fatal,
        seconds=seconds,
        retried=sum(tries - 1 for tries in scheduler.tries.values()),
        other_driver=other,
    )

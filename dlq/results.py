"""The result table of a sweep as data: cells in the order of the grid, one score per task, and their average.

Everything comes from the `scores` table, limited to what this sweep plans. The average over tasks treats tasks as
independent: its standard error is the root of the summed squares over their number, and its interval takes each
task's as symmetric. A cell that lacks a task has no average.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dlq.labels import labels

if TYPE_CHECKING:
    from storage.artifacts import Store
    from storage.sweeps import Sweep

MAIN_METRICS = ("acc", "exact_match", "pass@1", "pass_at_1", "f1")  # the first that a task has is shown
Z95 = 1.959964  # two-sided 95 % quantile of the normal distribution

SCORES = (
    "select artifact, cell, task, metric, shots, value, stderr, n, baseline, delta, delta_low, delta_high, "
    "p_value, flips, higher_is_better, code_bits, linear_bits, model_bytes, seconds from scores"
)


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error, and its difference from full precision with a 95 % interval.

    higher_is_better is None where that is unknown, or where an average mixes both directions.
    """

    value: float | None
    stderr: float | None = None
    delta: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    metric: str = ""
    higher_is_better: bool | None = None

    @property
    def verdict(self) -> str:
        """'better' or 'worse' than full precision, or '' where the interval does not tell."""
        if self.low is None or self.high is None or self.higher_is_better is None or self.low <= 0 <= self.high:
            return ""
        return "better" if (self.low > 0) == self.higher_is_better else "worse"


@dataclass(frozen=True)
class CellResult:
    """One cell: its columns, its main score per task, what it costs."""

    cell: str
    label: str
    model: str
    is_baseline: bool
    columns: dict[str, Any]
    scores: dict[str, Estimate]
    average: Estimate | None
    code_bits: float | None
    linear_bits: float | None
    seconds: float | None


@dataclass(frozen=True)
class Results:
    """A sweep's result table. `metrics`: the metric shown per task. `rows`: all scores, every metric."""

    sweep: str
    name: str
    tasks: list[str]
    metrics: dict[str, str]
    cells: list[CellResult]
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """Scores that are planned and not there."""
        return sum(task not in cell.scores for cell in self.cells for task in self.tasks)


def results_of(sweep: Sweep, store: Store) -> Results:
    """Read the results of a sweep, as far as they are there. Raises StorageError."""
    from storage.warehouse import query

    plan = sweep.plan()
    keys = {key: (cell, task) for cell, task, key in plan["scores"]}
    tasks = list(dict.fromkeys(task for _, task in keys.values()))
    rows = query(store, SCORES, set(keys)).to_pylist()
    metrics = {task: _main_metric([r["metric"] for r in rows if r["task"] == task]) for task in tasks}
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["metric"] == metrics[row["task"]]:
            found.setdefault(keys[row["artifact"]][0], []).append(row)
    columns = sweep.cells().to_pylist()
    names = labels(columns)
    cells = [_cell(c, names[c["cell"]], found.get(c["cell"], []), tasks) for c in columns]
    return Results(sweep.id, plan["name"], tasks, metrics, cells, rows)


def _main_metric(names: Sequence[str]) -> str:
    plain = {name.partition(",")[0]: name for name in reversed(names)}
    return next((plain[name] for name in MAIN_METRICS if name in plain), names[0] if names else "")


def _cell(columns: dict[str, Any], label: str, rows: list[dict[str, Any]], tasks: list[str]) -> CellResult:
    scores = {row["task"]: _estimate(row) for row in rows}
    complete = [scores[task] for task in tasks if task in scores]
    seconds = [row["seconds"] for row in rows if row["seconds"] is not None]
    return CellResult(
        cell=columns["cell"],
        label=label,
        model=columns["model"],
        is_baseline=bool(columns["is_baseline"]),
        columns=columns,
        scores=scores,
        average=average(complete) if len(complete) == len(tasks) else None,
        code_bits=next((r["code_bits"] for r in rows if r["code_bits"] is not None), None),
        linear_bits=next((r["linear_bits"] for r in rows if r["linear_bits"] is not None), None),
        seconds=sum(seconds) if seconds else None,
    )


def _estimate(row: Mapping[str, Any]) -> Estimate:
    own = row["baseline"] == row["cell"]
    low, change, high = (None, None, None) if own else (row["delta_low"], row["delta"], row["delta_high"])
    return Estimate(
        row["value"], row["stderr"], change, low, high, row["n"], row["metric"], row["higher_is_better"]
    )


def average(scores: Sequence[Estimate]) -> Estimate | None:
    """The mean over tasks with its standard error; None if there is none, or a score is not a number."""
    values = [score.value for score in scores]
    if not scores or any(value is None for value in values):
        return None
    count = len(scores)
    mean = sum(v for v in values if v is not None) / count
    errors = [score.stderr for score in scores]
    stderr = None if None in errors else math.sqrt(sum(e * e for e in errors if e is not None)) / count
    directions = {score.higher_is_better for score in scores}
    direction = directions.pop() if len(directions) == 1 else None
    if any(s.delta is None or s.low is None or s.high is None for s in scores):
        return Estimate(mean, stderr, higher_is_better=direction)
    delta = sum(s.delta or 0.0 for s in scores) / count
    half = math.sqrt(sum(((s.high or 0.0) - (s.low or 0.0)) ** 2 / 4 for s in scores)) / count
    return Estimate(mean, stderr, delta, delta - half, delta + half, higher_is_better=direction)

"""Cells -> the task graph of a sweep, every task once, in a fixed order."""

from __future__ import annotations

from dataclasses import dataclass, field

from evaluation.spec import EvaluationSettings
from models.files import Model
from pipeline.cells import Cell, TaskPlan, expand_cells, expand_tasks
from pipeline.fingerprint import fingerprint
from pipeline.grid import Grid, read_grid
from pipeline.tasks import BuildRequests, Calibrate, Evaluate, Quantize, Score, Task
from pipeline.yamlfile import YamlFile
from quant.recipe import Recipe


@dataclass
class Plan:
    """A sweep as plain data: what it will show (cells x tasks) and what must be computed for it."""

    grid: Grid
    cells: list[Cell]
    task_plans: list[TaskPlan]
    tasks: dict[str, Task] = field(default_factory=dict)
    scores: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Identity of the sweep: its scores, in any order; submitting it again is the same sweep."""
        return fingerprint("sweep", sorted(self.scores.values()))[:12]

    def targets(self) -> list[str]:
        """Everything that fills a table: scores, answers, quantized blocks. Statistics are means to that."""
        return [key for key, task in self.tasks.items() if task.kind != "calibrate"]

    def tasks_of(self, cell: str) -> list[str]:
        """Keys of the Score tasks of one cell."""
        return [key for (owner, _), key in self.scores.items() if owner == cell]

    def baseline(self, cell: Cell) -> Cell:
        """The full-precision cell of the same weights and evaluation."""
        wanted = (cell.model.identity(), cell.settings)
        return next(c for c in self.cells if c.recipe is None and (c.model.identity(), c.settings) == wanted)

    def add(self, task: Task) -> str:
        """Put a task into the graph unless its equal is there; returns its key."""
        self.tasks.setdefault(task.key, task)
        return task.key


def make_plan(path: str) -> Plan:
    """Read a grid and plan it. Raises GridError, one line, for anything wrong with it."""
    grid, source = read_grid(path)
    return plan_grid(grid, source)


def plan_grid(grid: Grid, source: YamlFile) -> Plan:
    """The plan of a validated grid."""
    plan = Plan(grid, expand_cells(grid, source), expand_tasks(grid, source))
    for cell in plan.cells:
        blocks = quantized_blocks(plan, cell)
        for task_plan in plan.task_plans:
            _add_score(plan, cell, blocks, task_plan)
    return plan


def quantized_blocks(plan: Plan, cell: Cell) -> tuple[str, ...]:
    """Keys of the Quantize tasks of a cell, block by block; empty for full precision."""
    if cell.recipe is None or cell.calibration is None or cell.propagation is None:
        return ()
    model, calibration, way = cell.model, cell.calibration, cell.propagation
    calibrating, quantizing = (plan.grid.resources.calibrate.threads, plan.grid.resources.quantize.threads)
    statistics, before, keys = None, None, []
    for block in range(model.spec.layers):
        calibrate = Calibrate(model, calibration, way, block, statistics, before, threads=calibrating)
        statistics = plan.add(calibrate)
        quantize = Quantize(model, cell.recipe, block, statistics, calibration, way, threads=quantizing)
        keys.append(plan.add(quantize))
        before = keys[-1] if way == "sequential" else None
    return tuple(keys)


def _answers(
    plan: Plan,
    model: Model,
    recipe: Recipe | None,
    blocks: tuple[str, ...],
    task: TaskPlan,
    settings: EvaluationSettings,
) -> tuple[str, tuple[str, ...]]:
    requests = plan.add(BuildRequests(task.task, model, settings))
    threads, shards = plan.grid.resources.evaluate.threads, task.shards
    keys = [
        plan.add(Evaluate(model, recipe, blocks, task.task, requests, settings, i, shards, threads=threads))
        for i in range(shards)
    ]
    return requests, tuple(keys)


def _add_score(plan: Plan, cell: Cell, blocks: tuple[str, ...], task: TaskPlan) -> None:
    baseline = plan.baseline(cell)
    requests, answers = _answers(plan, cell.model, cell.recipe, blocks, task, cell.settings)
    _, reference = _answers(plan, cell.model, None, (), task, baseline.settings)
    score = Score(
        cell=cell.id,
        columns=tuple(sorted({**cell.columns(), "baseline": baseline.id}.items())),
        task=task.task,
        settings=cell.settings,
        requests=requests,
        answers=answers,
        baseline=reference,
        blocks=blocks,
        model=cell.model,
    )
    plan.scores[cell.id, task.task.name] = plan.add(score)

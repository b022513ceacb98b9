"""`dlq plan`: what a grid asks for, what the store already holds of it, and what is left to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.common import Answer, GridOption, StoreOption, verb
from cli.render import Part, Table
from cli.tables import count_table
from dlq.errors import UsageError
from dlq.labels import labels
from dlq.places import committed, read_plan, store_if_there
from dlq.standing import counts_of_plan

if TYPE_CHECKING:
    from pipeline.cells import Cell
    from pipeline.plan import Plan
    from storage.artifacts import Store

Explain = Annotated[str | None, typer.Option("--explain", metavar="CELL", help="Show all there is to one cell.")]


@verb
def command(grid: GridOption, store: StoreOption = None, explain: Explain = None) -> Answer:
    """Show cells and tasks of a grid: total, done, to do. Loads no model and starts nothing."""
    made, _ = read_plan(grid)
    found = store_if_there(store, made.grid.store)
    if explain:
        return _explain(made, _cell(made, explain), found)
    counts = counts_of_plan(made, found)
    cells = cell_rows(made, found)
    root = str(found.root) if found else None
    data = {"sweep": made.id, "name": made.grid.name, "store": root, "cells": cells, "tasks": counts}
    todo = sum(count.todo for count in counts)
    last = (
        f"next: dlq submit --grid {grid}" if todo else f"nothing to do; `dlq report {made.id}` shows the results"
    )
    where = f"store: {root}" if root else "store: not there yet"
    head = f"sweep {made.id} ({made.grid.name}): {len(made.cells)} cells x {len(made.task_plans)} tasks; {where}"
    return Answer(data, [head, _cell_table(cells), count_table(counts), last])


def cell_rows(plan: Plan, store: Store | None) -> list[dict[str, Any]]:
    """Cells with their columns, label, and how many of their scores are there."""
    columns = [{**cell.columns(), "is_baseline": cell.recipe is None} for cell in plan.cells]
    names = labels(columns)
    rows = []
    for row in columns:
        keys = plan.tasks_of(str(row["cell"]))
        done = sum(committed(store, key) for key in keys)
        rows.append({"cell": row["cell"], "label": names[str(row["cell"])], "done": done, "of": len(keys), **row})
    return rows


def _cell_table(rows: list[dict[str, Any]]) -> Table:
    names = ("wbits", "abits", "group_size", "calibration", "propagation")
    cells = [
        [r["cell"][:6], r["model"], r["label"], *(r.get(n) for n in names), f"{r['done']}/{r['of']}"] for r in rows
    ]
    heads = ("cell", "model", "recipe", "wbits", "abits", "group", "calibration", "propagation", "scores")
    return Table(heads, cells, right=frozenset({"wbits", "abits", "group", "scores"}))


def _cell(plan: Plan, wanted: str) -> Cell:
    found = [cell for cell in plan.cells if cell.id.startswith(wanted)]
    if len(found) != 1:
        what = "more than one cell begins" if found else "no cell begins"
        raise UsageError(f"{what} with {wanted!r}", "`dlq plan` without --explain lists them")
    return found[0]


def _explain(plan: Plan, cell: Cell, store: Store | None) -> Answer:
    columns = {name: value for name, value in cell.columns().items() if value is not None}
    needed: dict[str, bool] = {}
    todo = list(plan.tasks_of(cell.id))
    while todo:
        key = todo.pop()
        if key not in needed:
            needed[key] = committed(store, key)
            todo.extend(plan.tasks[key].inputs().values())
    order = [key for key in plan.tasks if key in needed]
    tasks = [
        {"key": key, "kind": plan.tasks[key].kind, "task": plan.tasks[key].describe(), "done": needed[key]}
        for key in order
    ]
    parts: list[Part] = [
        Table(("field", "value"), list(columns.items()), f"cell {cell.id}"),
        Table(
            ("key", "task", "done"),
            [[str(t["key"])[:12], t["task"], "yes" if t["done"] else "no"] for t in tasks],
            "everything it is made from, full precision for its comparison included",
        ),
    ]
    return Answer({"cell": columns, "tasks": tasks}, parts)

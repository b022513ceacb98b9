"""`dlq ls`: what there is to use, and what a store holds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from cli.common import Answer, StoreOption, verb
from cli.render import Table
from dlq.places import find_sweep, open_store

What = Literal["methods", "models", "tasks", "sweeps", "cells"]


@verb
def command(
    what: Annotated[What, typer.Argument(help="What to list.")],
    store: StoreOption = None,
    sweep: Annotated[
        str | None, typer.Option("--sweep", help="For cells: of which sweep (default: latest).")
    ] = None,
) -> Answer:
    """List methods, models, tasks, sweeps or cells."""
    if what == "methods":
        return _listing(_methods())
    if what == "models":
        return _listing(_models())
    if what == "tasks":
        return _listing(_tasks())
    return _listing(_sweeps(store) if what == "sweeps" else _cells(store, sweep))


def _listing(rows: list[dict[str, Any]]) -> Answer:
    columns = list(rows[0]) if rows else ["nothing"]
    return Answer(rows, [Table(columns, [list(row.values()) for row in rows])])


def _methods() -> list[dict[str, Any]]:
    from quant.registry import METHODS

    return [{"method": name, "summary": preset.summary} for name, preset in METHODS.items()]


def _models() -> list[dict[str, Any]]:
    """Models that can be named: the bundled one; and which families a folder or hub name may hold."""
    from models.families import FAMILIES
    from models.files import BUNDLED, read_model
    from models.spec import ModelError

    try:
        spec = read_model(BUNDLED).spec
        what = f"ships with dlq: {spec.family}, {spec.layers} blocks of {spec.hidden_size}"
    except ModelError as error:
        what = f"not usable: {error}"
    rows = [{"model": BUNDLED, "what": what}]
    for family in FAMILIES.values():
        types = ", ".join(sorted(family.model_types))
        rows.append({"model": "FOLDER or OWNER/NAME", "what": f"family {family.name} (model_type {types})"})
    return rows


def _tasks() -> list[dict[str, Any]]:
    from evaluation.spec import list_tasks, resolve_task

    return [{"task": name, "kind": resolve_task(name).kind} for name in list_tasks()]


def _sweeps(option: str | None) -> list[dict[str, Any]]:
    from dlq.standing import standing
    from storage.errors import StorageError
    from storage.sweeps import sweeps

    store = open_store(option)
    rows = []
    for sweep in sweeps(store):
        try:
            now = standing(sweep, store)
            row = {
                "sweep": sweep.id,
                "name": now.name,
                "state": now.state,
                "cells": len(now.cells),
                "to do": now.todo,
            }
        except StorageError as error:
            row = {"sweep": sweep.id, "name": None, "state": str(error), "cells": None, "to do": None}
        rows.append(row)
    return rows


def _cells(option: str | None, wanted: str | None) -> list[dict[str, Any]]:
    from dlq.labels import labels
    from dlq.standing import standing

    store = open_store(option)
    sweep = find_sweep(store, wanted)
    cells = sweep.cells().to_pylist()
    names, done = labels(cells), standing(sweep, store).cells
    return [
        {
            "cell": cell["cell"],
            "model": cell["model"],
            "recipe": names[cell["cell"]],
            "scores": "{}/{}".format(*done.get(cell["cell"], (0, 0))),
        }
        for cell in cells
    ]

"""`dlq show`: all there is about one method, task, cell or artifact."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.common import Answer, StoreOption, verb
from cli.render import Part, Table
from dlq.errors import UsageError
from dlq.places import open_store

if TYPE_CHECKING:
    from storage.artifacts import Store

WORST = 10


@verb
def command(
    name: Annotated[
        str, typer.Argument(help="A method, a task, a cell or an artifact key (or its first digits).")
    ],
    store: StoreOption = None,
) -> Answer:
    """Show a method's fields, a task's definition, a cell's scores and worst layers, or an artifact's manifest."""
    from evaluation.spec import list_tasks
    from quant.registry import METHODS

    if name in METHODS:
        return _method(name)
    if name in list_tasks():
        return _task(name)
    if not set(name) <= set("0123456789abcdef"):
        raise UsageError(f"no method, task, cell or artifact is called {name!r}", "`dlq ls methods|tasks|cells`")
    opened = open_store(store)
    return _cell(name, opened) or _artifact(name, opened)


def _method(name: str) -> Answer:
    from quant.recipe import resolve
    from quant.registry import METHODS

    recipe = resolve({"method": name})
    fields = {key: value for key, value in recipe.fields().items() if value is not None}
    parts: list[Part] = [f"{name}: {METHODS[name].summary}", Table(("field", "default"), list(fields.items()))]
    documents = {}
    for component in ("transform", "rounding", "allocation"):
        chosen = getattr(recipe, component)
        documents[f"{component} {chosen.name}"] = inspect.getdoc(type(chosen)) or ""
    parts += [f"{title}\n{text}\n" for title, text in documents.items()]
    return Answer({"method": name, "summary": METHODS[name].summary, "fields": fields, "parts": documents}, parts)


def _task(name: str) -> Answer:
    from evaluation.catalog import read_task
    from evaluation.spec import resolve_task

    spec, config = resolve_task(name), read_task(name).config
    rows = [("kind", spec.kind), ("content", spec.content[:16])]
    rows += [(key, str(value)) for key, value in config.items()]
    return Answer({"task": spec, "config": config}, [Table(("field", "value"), rows, name)])


def _cell(wanted: str, store: Store) -> Answer | None:
    """The newest sweep's view of the cell; None if no cell begins like that."""
    from dlq.results import results_of
    from storage.sweeps import sweeps

    for sweep in reversed(sweeps(store)):
        ids = sorted({cell for cell, _, _ in sweep.plan()["scores"] if cell.startswith(wanted)})
        if len(ids) > 1:
            raise UsageError(f"{len(ids)} cells begin with {wanted!r}: {', '.join(ids)}")
        if ids:
            results = results_of(sweep, store)
            found = next(cell for cell in results.cells if cell.cell == ids[0])
            scores = [row for row in results.rows if row["cell"] == ids[0]]
            return _cell_answer(found.label, found.columns, scores, _layers(store, sweep.id, ids[0]))
    return None


def _cell_answer(
    label: str, columns: dict[str, Any], scores: list[dict[str, Any]], layers: list[dict[str, Any]]
) -> Answer:
    known = {key: value for key, value in columns.items() if value is not None and key != "schema_version"}
    shown = (
        "task",
        "metric",
        "value",
        "stderr",
        "n",
        "delta",
        "delta_low",
        "delta_high",
        "p_value",
        "flips",
        "seconds",
    )
    numeric = frozenset(shown[2:])
    errors = ("block", "layer", "relative_output_error", "relative_output_error_held_out", "rtn_output_error")
    parts: list[Part] = [Table(("field", "value"), list(known.items()), f"cell {columns['cell']}: {label}")]
    parts.append(Table(shown, [[_short(row[n]) for n in shown] for row in scores], "scores", numeric))
    if layers:
        rows = [[_short(row[n]) for n in errors] for row in layers[:WORST]]
        parts.append(Table(errors, rows, f"worst {len(rows)} of {len(layers)} layers", frozenset(errors[2:])))
    return Answer({"cell": known, "label": label, "scores": scores, "layers": layers}, parts)


def _layers(store: Store, sweep: str, cell: str) -> list[dict[str, Any]]:
    """Layers of a cell, the one with the largest output error first: those of the blocks its scores stand on."""
    from storage.sweeps import Sweep
    from storage.warehouse import query

    blocks: set[str] = set()
    for owner, _, key in Sweep(store.root, sweep).plan()["scores"]:
        if owner == cell and (store.path(key) / "manifest.json").is_file():
            inputs = store.open(key, verify=False).manifest.inputs
            blocks |= {value for role, value in inputs.items() if role.startswith("block")}
    if not blocks:
        return []
    order = "select * exclude (schema_version) from layers order by relative_output_error desc, block, layer"
    rows: list[dict[str, Any]] = query(store, order, blocks).to_pylist()
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def _artifact(wanted: str, store: Store) -> Answer:
    held = store.keys()
    keys = [key for key in held if key.startswith(wanted)]
    if len(keys) != 1:
        what = f"{len(keys)} artifacts begin" if keys else "no cell or artifact begins"
        raise UsageError(f"{what} with {wanted!r}", "`dlq ls cells`, or `dlq sql 'select key, kind from tasks'`")
    artifact = store.open(keys[0])
    manifest = artifact.manifest
    about = [("kind", manifest.kind), ("path", artifact.path), ("bytes", manifest.size)]
    about += [("created", manifest.created_at), ("host", manifest.host)]
    about += [(f"fact {name}", str(value)) for name, value in manifest.facts.items()]
    about += [(f"input {name}", value) for name, value in manifest.inputs.items()]
    about += [(f"spec {name}", str(value)) for name, value in manifest.spec.items()]
    files = [[name, payload.size, payload.sha256[:16]] for name, payload in manifest.payloads.items()]
    parts = [
        Table(("field", "value"), about, f"artifact {artifact.key}: whole"),
        Table(("payload", "bytes", "sha256"), files, right=frozenset({"bytes"})),
    ]
    return Answer({"path": artifact.path, "manifest": manifest}, parts)


def _short(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value

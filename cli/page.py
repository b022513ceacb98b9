"""The HTML report: one file, no network, no scripts. Everything is escaped by the template engine.

Labels and error texts may come from anywhere; they are cleaned as for a terminal and then escaped.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.tables import delta, named, notes, number, score
from dlq.results import CellResult, Estimate, Results
from dlq.text import clean, clean_lines

if TYPE_CHECKING:
    from storage.artifacts import Store
    from storage.sweeps import Sweep

TEMPLATES = Path(__file__).parent / "templates"
WORST = 10


def page(results: Results, sweep: Sweep, store: Store) -> str:
    """The whole report of a sweep. Raises StorageError."""
    runs = [
        _text(run, ("run", "status", "started_at", "finished_at", "host", "dlq_version")) for run in sweep.runs()
    ]
    extra = {"runs": runs, "grid": clean_lines(sweep.grid()), "layers": _worst_layers(sweep, store)}
    return _render("report.html", results, extra)


def _render(name: str, results: Results, extra: dict[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    engine = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    about = {"name": clean(results.name), "sweep": results.sweep, "tasks": [clean(t) for t in results.tasks]}
    rows = [_row(results, cell) for cell in results.cells]
    return engine.get_template(name).render(**about, rows=rows, notes=notes(results), **extra)


def _row(results: Results, cell: CellResult) -> dict[str, Any]:
    scores = [cell.scores.get(task) for task in results.tasks] + [cell.average]
    return {
        "cell": cell.cell,
        "name": clean(named(results, cell)),
        "scores": [_score(estimate) for estimate in scores],
        "code_bits": number(cell.code_bits, 2) or "–",
        "linear_bits": number(cell.linear_bits, 2) or "–",
        "seconds": number(cell.seconds, 1) or "–",
    }


def _score(estimate: Estimate | None) -> dict[str, str]:
    """Text of one score, and whether its interval says better or worse than full precision."""
    text, change, verdict = score(estimate), delta(estimate), estimate.verdict if estimate else ""
    return {"text": (text or "–").replace("±", " ± "), "delta": change or "", "verdict": verdict}


def _worst_layers(sweep: Sweep, store: Store) -> list[dict[str, str]]:
    from storage.warehouse import query

    columns = ("transform", "rounding", "wbits", "block", "layer", "relative_output_error", "rtn_output_error")
    sql = (
        f"select {', '.join(columns)} from layers order by relative_output_error desc, block, layer limit {WORST}"
    )
    rows = query(store, sql, set(sweep.plan()["tasks"])).to_pylist()
    return [_text(row, columns) for row in rows]


def _text(row: dict[str, Any], columns: tuple[str, ...]) -> dict[str, str]:
    values = {name: row.get(name) for name in columns}
    return {
        name: "–" if value is None else f"{value:.4f}" if isinstance(value, float) else clean(value)
        for name, value in values.items()
    }

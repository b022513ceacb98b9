"""What a notebook does with a store: the results of a sweep as a table, SQL, and running a grid from a cell.

The same views as the command line, which is built on them. Keeps no connection: every call reads what is committed
by then.
"""

from __future__ import annotations

import contextlib
import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlq.places import DEFAULT, find_sweep, open_store, query_sweep, read_plan
from dlq.text import clean

if TYPE_CHECKING:
    from pathlib import Path

    from dlq.results import CellResult, Results
    from dlq.standing import Standing
    from storage.artifacts import Store


@dataclass(frozen=True)
class Report:
    """The result table of one sweep: in a notebook it shows itself; `results` is the data behind it."""

    results: Results

    def rows(self) -> list[dict[str, Any]]:
        """One row per cell: label, score per task, average, bits per weight."""
        return [self._row(cell) for cell in self.results.cells]

    def _row(self, cell: CellResult) -> dict[str, Any]:
        scores = {task: _words(cell.scores.get(task)) for task in self.results.tasks}
        bits = "" if cell.linear_bits is None else f"{cell.linear_bits:.2f}"
        return {"model": cell.model, "recipe": cell.label, **scores, "average": _words(cell.average), "bits": bits}

    def _repr_html_(self) -> str:
        rows = self.rows()
        head = "".join(f"<th>{_escaped(name)}</th>" for name in rows[0]) if rows else ""
        body = "".join("<tr>" + "".join(f"<td>{_escaped(v)}</td>" for v in row.values()) + "</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _words(estimate: Any) -> str:
    """'0.567 ± 0.039 (−0.120 [−0.150, −0.090])'."""
    if estimate is None or estimate.value is None:
        return ""
    text = f"{estimate.value:.3f}"
    text += f" ± {estimate.stderr:.3f}" if estimate.stderr is not None else ""
    if estimate.delta is not None and estimate.low is not None and estimate.high is not None:
        text += f" ({estimate.delta:+.3f} [{estimate.low:.3f}, {estimate.high:.3f}])"
    return text.replace("-", "−")


def _escaped(value: object) -> str:
    return html.escape(clean(value))


@dataclass(frozen=True)
class Runs:
    """A store, opened for reading."""

    store: Store

    def report(self, sweep: str | None = None) -> Report:
        """Results of a sweep, the latest one by default. Raises UsageError for an unknown one."""
        from dlq.results import results_of

        return Report(results_of(find_sweep(self.store, sweep), self.store))

    def status(self, sweep: str | None = None) -> Standing:
        """How far a sweep is."""
        from dlq.standing import standing

        return standing(find_sweep(self.store, sweep), self.store)

    def query(self, sql: str, sweep: str | None = None, everything: bool = False) -> Any:
        """A pyarrow.Table with the rows of one SELECT over the latest sweep, another one, or everything."""
        return query_sweep(self.store, sql, sweep, everything)


def open(path: str | Path = DEFAULT) -> Runs:
    """The store at `path`. Raises UsageError when there is none, StorageError when it cannot be read."""
    return Runs(open_store(str(path)))


def query(sql: str, store: str | Path = DEFAULT) -> Any:
    """`open(store).query(sql)`: the latest sweep."""
    return open(store).query(sql)


def submit(
    grid: str | Path, store: str | Path | None = None, address: str | None = None, local: bool = False
) -> Report:
    """Run what is missing of a grid and return its results, with what failed left out.

    Raises GridError, ClusterError, StorageError; KeyboardInterrupt when the run was interrupted, to be continued
    by calling it again.
    """
    from dlq.progress import Lines
    from dlq.running import execute

    plan, text = read_plan(str(grid))
    opened = open_store(str(store) if store is not None else None, plan.grid.store, create=True)
    with contextlib.closing(Lines()) as hears:
        ending = execute(plan, text, opened, hears, local, address)
    if ending.signal:
        raise KeyboardInterrupt
    return Runs(opened).report(plan.id)

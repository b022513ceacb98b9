"""Results and progress as tables: numbers with their uncertainty, differences with their interval."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from cli.render import Part, Table
from dlq.results import CellResult, Estimate, Results
from dlq.standing import Count

WIDE_TASKS = 5  # more tasks than this do not fit beside each other


def number(value: float | None, digits: int = 3) -> str | None:
    """Fixed digits, with a real minus sign."""
    return None if value is None else f"{value:.{digits}f}".replace("-", "−")


def score(estimate: Estimate | None, digits: int = 3) -> str | None:
    """'0.567±0.039'."""
    if estimate is None or estimate.value is None:
        return None
    error = f"±{estimate.stderr:.{digits}f}" if estimate.stderr is not None else ""
    return f"{number(estimate.value, digits)}{error}"


def delta(estimate: Estimate | None, digits: int = 3) -> str | None:
    """'−0.120 [−0.150, −0.090]', or None for full precision itself."""
    if estimate is None or estimate.delta is None:
        return None
    signed = f"{estimate.delta:+.{digits}f}".replace("-", "−")
    if estimate.low is None or estimate.high is None:
        return signed
    return f"{signed} [{number(estimate.low, digits)}, {number(estimate.high, digits)}]"


def narrow_delta(estimate: Estimate | None) -> str | None:
    """The same on two narrow lines: '−0.120' and '[−.150,−.090]'."""
    text = delta(estimate)
    return text and re.sub(r"\b0\.(?=[^\[]*\])", ".", text).replace(", ", ",").replace(" [", "\n[")


def text_parts(results: Results) -> list[Part]:
    """Two tables for a terminal: scores and costs; differences from full precision."""
    if len(results.tasks) > WIDE_TASKS:
        return [long_table(results), notes(results)]
    return [score_table(results), delta_table(results), notes(results)]


def named(results: Results, cell: CellResult) -> str:
    """A cell's label, with the model's name where there are several."""
    several = len({c.model for c in results.cells}) > 1
    return f"{cell.model} {cell.label}" if several else cell.label


def score_table(results: Results) -> Table:
    """Score ± standard error per task, their average, bits per quantized weight, seconds of evaluation."""
    heads = (*results.tasks, "average", "bits", "s")
    rows = [
        [
            named(results, cell),
            *(score(cell.scores.get(task)) for task in results.tasks),
            score(cell.average),
            number(cell.linear_bits, 2),
            number(cell.seconds, 1),
        ]
        for cell in results.cells
    ]
    return Table(("recipe", *heads), rows, f"score ± standard error: {results.name}", frozenset(heads))


def delta_table(results: Results) -> Table:
    """Paired difference from full precision with its 95 % interval, on the same documents and masks."""
    heads = (*results.tasks, "average")
    rows = [
        [
            named(results, cell),
            *(narrow_delta(cell.scores.get(task)) for task in results.tasks),
            narrow_delta(cell.average),
        ]
        for cell in results.cells
        if not cell.is_baseline
    ]
    title = "difference from full precision [95 % interval], paired"
    return Table(("recipe", *heads), rows, title, frozenset(heads))


def long_table(results: Results) -> Table:
    """One row per cell and task."""
    rows = []
    for cell in results.cells:
        for task in (*results.tasks, "average"):
            estimate = cell.average if task == "average" else cell.scores.get(task)
            rows.append(
                [named(results, cell), task, score(estimate), delta(estimate), number(cell.linear_bits, 2)]
            )
    heads = ("score", "delta", "bits")
    return Table(("recipe", "task", *heads), rows, results.name, frozenset(heads))


def notes(results: Results) -> str:
    """What the columns mean, and what is missing."""
    shown = ", ".join(f"{task}: {metric}" for task, metric in results.metrics.items() if metric)
    lines = [f"metrics: {shown}" if shown else "no scores yet"]
    lines.append("bits: stored bits per quantized weight, metadata included; s: seconds of evaluation")
    if results.missing:
        lines.append(f"{results.missing} scores are not there (yet): `dlq status` says why")
    return "\n".join(lines)


def markdown_table(results: Results) -> Table:
    """One wide table, for a README."""
    heads = (*results.tasks, "average", "bits/weight codes", "bits/weight stored", "seconds")
    rows: list[Sequence[object]] = []
    for cell in results.cells:
        scores = [cell.scores.get(task) for task in results.tasks] + [cell.average]
        texts = ["\n".join(filter(None, (_spaced(s), delta(s)))) or None for s in scores]
        costs = [number(cell.code_bits, 2), number(cell.linear_bits, 2), number(cell.seconds, 1)]
        rows.append([named(results, cell), *texts, *costs])
    return Table(("recipe", *heads), rows, "", frozenset(heads))


def _spaced(estimate: Estimate | None) -> str | None:
    text = score(estimate)
    return text.replace("±", " ± ") if text else None


def count_table(counts: Iterable[Count]) -> Table:
    """total, done and to do by kind of task."""
    rows = [[c.kind, c.total, c.done + c.spare, c.todo] for c in counts]
    rows.append(["all", *(sum(row[i] for row in rows) for i in (1, 2, 3))])  # type: ignore[misc]  # numbers there
    return Table(("tasks", "total", "done", "to do"), rows, right=frozenset({"total", "done", "to do"}))

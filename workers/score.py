"""Score: one row per metric of a cell on a task, from committed answers, paired with full precision."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from evaluation.answer import Answer
from evaluation.paired import paired
from evaluation.requests import Request
from evaluation.scoring import Score as Scored
from evaluation.scoring import score as score_answers
from models.spec import ModelSpec
from pipeline.tasks import Score
from storage.artifacts import Store
from storage.tables import read_table, write_table
from workers.evaluate import read_requests
from workers.loading import Memory

KEPT_BYTES = 2  # embeddings, head, norms and biases stay in 16 bits


def score(task: Score, store: Store, memory: Memory, folder: Path, facts: dict[str, Any]) -> None:
    """Write scores.parquet into `folder`."""
    requests = read_requests(store, task.requests)
    answers = read_answers(store, task.answers)
    own = score_answers(task.task, requests, answers)
    base = own if task.baseline == task.answers else _baseline(task, store, requests)
    shared = {
        **dict(task.columns),
        **sizes(store, task.blocks, task.model.spec),
        "task": task.task.name,
        "shots": task.task.shots,
        "document_limit": task.task.limit,
        "seconds": math.fsum(a.seconds for a in answers),
    }
    write_table(folder / "scores.parquet", "scores", [{**shared, **row} for row in _rows(own, base)])


def _baseline(task: Score, store: Store, requests: list[Request]) -> Scored:
    return score_answers(task.task, requests, read_answers(store, task.baseline))


def read_answers(store: Store, keys: Iterable[str]) -> list[Answer]:
    """Answers of the given Evaluate artifacts."""
    tables = (read_table(store.open(key).file("samples.parquet"), "samples") for key in keys)
    return [Answer.from_row(row) for table in tables for row in table.to_pylist()]


def _rows(own: Scored, base: Scored) -> list[dict[str, Any]]:
    rows = []
    for metric in own.metrics:
        row: dict[str, Any] = {
            "metric": metric.name,
            "value": metric.value,
            "stderr": metric.stderr,
            "n": metric.n,
            "higher_is_better": metric.higher_is_better,
        }
        if metric.name in own.values:
            pair = paired(own.values[metric.name], base.values[metric.name])
            row |= {"delta": pair.delta, "delta_low": pair.low, "delta_high": pair.high}
            row |= {"p_value": pair.p_value, "flips": pair.flips}
        rows.append(row)
    return rows


def sizes(store: Store, blocks: Iterable[str], spec: ModelSpec) -> dict[str, Any]:
    """code_bits and linear_bits per quantized weight, and bytes of the whole model with the rest in 16 bits."""
    facts = [store.open(key, verify=False).manifest.facts for key in blocks]
    linear = spec.layers * sum(n_out * n_in for n_out, n_in in spec.linears().values())
    kept = KEPT_BYTES * (parameters(spec) - linear)
    if not facts:
        return {"code_bits": 16.0, "linear_bits": 16.0, "model_bytes": kept + KEPT_BYTES * linear}
    total = {name: sum(fact[name] for fact in facts) for name in ("weights", "code_bytes", "linear_bytes")}
    return {
        "code_bits": 8 * total["code_bytes"] / total["weights"],
        "linear_bits": 8 * total["linear_bytes"] / total["weights"],
        "model_bytes": kept + total["linear_bytes"],
    }


def parameters(spec: ModelSpec) -> int:
    """Number of parameters of the whole model."""
    inside = sum(math.prod(shape) for shape in spec.block_shapes().values())
    return spec.layers * inside + sum(math.prod(shape) for shape in spec.outside_shapes().values())

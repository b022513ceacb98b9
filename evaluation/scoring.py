"""Scores from committed answers: lm-eval's own filters, metrics and standard errors, by replay.

No model is needed, so a new metric costs no model time. dlq adds `gold_nll`, the mean negative log-likelihood
per token of the right choice: it still moves where accuracy is saturated or at chance. Tasks that run code written
by the model are refused. Does not protect against metrics that keep state between documents.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.answer import Answer
from evaluation.harness import load_task, quiet
from evaluation.requests import Request
from evaluation.spec import LIKELIHOOD, TaskError, TaskSpec

GOLD_NLL = "gold_nll"


@dataclass(frozen=True)
class Metric:
    """A score over n documents; stderr is None where lm-eval gives none.

    name: as lm-eval's, 'acc', or 'exact_match,strict-match' where the task names its filters.
    """

    name: str
    value: float
    stderr: float | None
    n: int
    higher_is_better: bool


@dataclass(frozen=True)
class Score:
    """metrics, and metric name -> document -> value for those that have a value per document."""

    metrics: list[Metric]
    values: dict[str, dict[int, float]]


def score(task: TaskSpec, requests: Sequence[Request], answers: Iterable[Answer]) -> Score:
    """Metrics of one task. Raises TaskError when an answer is missing, or the task now asks something else."""
    given = {a.key: a for a in answers}
    loaded = load_task(task)
    results = _evaluate(loaded, task, requests, given)
    values = _per_document(results["samples"][task.name])
    metrics = _metrics(results, task.name)
    if task.kind == LIKELIHOOD and loaded.config.doc_to_choice is not None:
        values[GOLD_NLL] = _gold_nll(loaded, task, given)
        metrics.append(_mean_metric(GOLD_NLL, values[GOLD_NLL], higher_is_better=False))
    return Score(metrics, values)


def _evaluate(loaded: Any, task: TaskSpec, requests: Sequence[Request], given: Mapping[Any, Answer]) -> Any:
    with quiet():
        from lm_eval.evaluator import evaluate

        from evaluation.bridge import replay

        return evaluate(
            lm=replay(requests, given.values()),
            task_dict={"tasks": {task.name: loaded}},
            limit=task.limit,
            log_samples=True,
            bootstrap_iters=1000,
        )


def _metrics(results: Any, name: str) -> list[Metric]:
    row = results["results"][name]
    better = results["higher_is_better"][name]
    found = [key for key in row if "," in key and not key.partition(",")[0].endswith("_stderr")]
    metrics = []
    for key in found:
        metric, _, filter_ = key.partition(",")
        stderr = row.get(f"{metric}_stderr,{filter_}")
        metrics.append(
            Metric(
                name=_label(metric, filter_),
                value=float(row[key]),
                stderr=float(stderr) if isinstance(stderr, int | float) else None,
                n=int(results["n-samples"][name]["effective"]),
                higher_is_better=bool(better.get(metric, True)),
            )
        )
    return metrics


def _label(metric: str, filter_: str) -> str:
    return metric if filter_ == "none" else f"{metric},{filter_}"


def _per_document(samples: Iterable[Mapping[str, Any]]) -> dict[str, dict[int, float]]:
    values: dict[str, dict[int, float]] = {}
    for sample in samples:
        for metric in sample["metrics"]:
            value = sample[metric]
            if isinstance(value, int | float | np.number):
                values.setdefault(_label(metric, sample["filter"]), {})[int(sample["doc_id"])] = float(value)
    return values


def _gold_nll(loaded: Any, task: TaskSpec, given: Mapping[Any, Answer]) -> dict[int, float]:
    result = {}
    for doc_id, doc in loaded.doc_iterator(limit=task.limit):
        answers = [given[task.name, doc_id, choice] for choice in _gold(loaded, doc)]
        if not answers:
            raise TaskError(f"task {task.name!r}, document {doc_id}: the right choice is not among the options")
        result[int(doc_id)] = min(-float(a.loglikelihood or 0.0) / a.target_length for a in answers)
    return result


def _gold(loaded: Any, doc: Any) -> list[int]:
    """Numbers of the right choices of a document, as lm-eval reads them."""
    choices = loaded.doc_to_choice(doc)
    gold = loaded.doc_to_text(doc) if loaded.multiple_input else loaded.doc_to_target(doc)
    numbers = [choices.index(g) if isinstance(g, str) and g in choices else g for g in _as_list(gold)]
    return [n for n in numbers if isinstance(n, int) and 0 <= n < len(choices)]


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _mean_metric(name: str, values: Mapping[int, float], higher_is_better: bool) -> Metric:
    numbers = np.array(list(values.values()))
    n = len(numbers)
    stderr = float(numbers.std(ddof=1) / math.sqrt(n)) if n > 1 else None
    return Metric(name, float(numbers.mean()), stderr, n, higher_is_better)

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluation.answer import Answer, answer
from evaluation.bridge import in_process
from evaluation.harness import load_task
from evaluation.requests import Request, build_requests
from evaluation.scoring import Score, score
from evaluation.spec import EvaluationSettings, TaskError, TaskSpec, resolve_task
from evaluation.tokenizer import Tokenizer
from models.checkpoint import load_model

SETTINGS = EvaluationSettings(batch_size=4)


def answered(requests: list[Request], reply: Callable[[Request], dict[str, Any]]) -> list[Answer]:
    """Made-up answers."""
    empty = {"loglikelihood": None, "text": None, "tokens": None, "target_length": len, "seconds": 0.0}
    return [Answer(*r.key, r.kind, **{**empty, "target_length": len(r.target_ids), **reply(r)}) for r in requests]


def metric(result: Score, name: str) -> tuple[float, float | None, int]:
    found = next(m for m in result.metrics if m.name == name)
    return found.value, found.stderr, found.n


def test_multiple_choice_equals_a_count_by_hand(
    tasks: Path, folder: Path, colours_docs: list[dict[str, Any]]
) -> None:
    task = resolve_task(str(tasks / "colours.yaml"))
    requests = build_requests(task, folder, SETTINGS)
    values = {r.key: -((r.doc_id * 7 + r.choice * 5) % 11) - 0.5 for r in requests}
    result = score(task, requests, answered(requests, lambda r: {"loglikelihood": values[r.key]})[::-1])

    def mine(doc: int, choice: int, per_character: bool) -> float:
        size = len(colours_docs[doc]["choices"][choice]) if per_character else 1
        return values["colours", doc, choice] / size

    for name, per_character in (("acc", False), ("acc_norm", True)):
        right = []
        for i, doc in enumerate(colours_docs):
            best = max(range(4), key=lambda c: mine(i, c, per_character))
            right.append(float(best == doc["gold"]))
        mean = sum(right) / 20
        assert metric(result, name) == pytest.approx((mean, math.sqrt(mean * (1 - mean) / 19), 20))
        assert result.values[name] == dict(enumerate(right))
        assert 0 < mean < 1
    lengths = {r.key: len(r.target_ids) for r in requests}
    gold = [("colours", i, doc["gold"]) for i, doc in enumerate(colours_docs)]
    nll = {key[1]: -values[key] / lengths[key] for key in gold}
    assert result.values["gold_nll"] == pytest.approx(nll)
    mean = sum(nll.values()) / 20
    spread = math.sqrt(sum((v - mean) ** 2 for v in nll.values()) / 19 / 20)
    assert metric(result, "gold_nll") == pytest.approx((mean, spread, 20))
    assert [m.higher_is_better for m in result.metrics] == [True, True, False]


def test_generation_goes_through_the_filters_of_the_task(tasks: Path, folder: Path) -> None:
    task = resolve_task(str(tasks / "sums.yaml"))
    requests = build_requests(task, folder, SETTINGS)
    texts = ["six", " six of them", "five", ""]
    result = score(task, requests, answered(requests, lambda r: {"text": texts[r.doc_id % 4]}))
    assert metric(result, "exact_match,whole")[0] == pytest.approx(3 / 9)
    assert metric(result, "exact_match,first-word")[0] == pytest.approx(5 / 9)
    assert result.values["exact_match,first-word"] == {d: float(d % 4 < 2) for d in range(9)}


def test_limit_and_shots_are_replayed(tasks: Path, folder: Path) -> None:
    task = resolve_task(str(tasks / "colours.yaml"), shots=1, limit=5)
    requests = build_requests(task, folder, SETTINGS)
    result = score(task, requests, answered(requests, lambda r: {"loglikelihood": -1.0 - r.choice}))
    assert metric(result, "acc")[2] == 5 and set(result.values["gold_nll"]) == set(range(5))


def test_missing_and_foreign_answers_are_refused(tasks: Path, folder: Path) -> None:
    task = resolve_task(str(tasks / "colours.yaml"))
    requests = build_requests(task, folder, SETTINGS)
    answers = answered(requests, lambda r: {"loglikelihood": -1.0})
    lost = requests[7].key
    with pytest.raises(TaskError, match=f"document {lost[1]}: no answer for option {lost[2]}"):
        score(task, requests, [a for a in answers if a.key != lost])
    other = [replace(r, context=r.context + " so") if r.key == lost else r for r in requests]
    with pytest.raises(TaskError, match=f"document {lost[1]}: option {lost[2]} was not what"):
        score(task, other, answers)
    with pytest.raises(TaskError, match="is another answer now"):
        score(task, [replace(r, continuation=" red") for r in requests], answers)


@pytest.mark.parametrize("name", ["colours", "sums"])
def test_lm_eval_with_the_model_in_process_gives_the_same_scores(tasks: Path, folder: Path, name: str) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    task: TaskSpec = resolve_task(str(tasks / f"{name}.yaml"))
    model, tokenizer = load_model(folder), Tokenizer(folder)
    requests = build_requests(task, folder, SETTINGS)
    replayed = score(task, requests, answer(model, tokenizer, requests, SETTINGS))
    direct = simple_evaluate(
        model=in_process(model, tokenizer, SETTINGS),
        tasks=[load_task(task)],
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
    )
    shown = direct["results"][name]
    for m in replayed.metrics:
        if m.name != "gold_nll":
            assert shown[m.name if "," in m.name else f"{m.name},none"] == m.value
    given = {(s["doc_id"], i): r[0] for s in direct["samples"][name] for i, r in enumerate(s["resps"])}
    for a in answer(model, tokenizer, requests, SETTINGS):
        assert given[a.doc_id, a.choice] == (a.text if a.loglikelihood is None else (a.loglikelihood, False))

"""dlq as a model of lm-eval: one LM class over a function from requests to answers.

The function may fan out to replicas, run a model in this process, or look up answers that were committed before;
lm-eval's own evaluate() then filters, scores and aggregates. lm-eval's response cache is never used: it does not
know one model from another. Does not protect against `use_cache` being given to simple_evaluate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lm_eval.api.model import LM

from evaluation.answer import Answer, answer
from evaluation.requests import Key, Request, batched, check_fits, encode
from evaluation.spec import EvaluationSettings, TaskError
from evaluation.tokenizer import Tokenizer
from models.transformer import MaskedDiffusionLM

Answers = Callable[[Sequence[Request]], Sequence[Answer]]
Prepare = Callable[[Sequence[Any]], Sequence[Request]]


class DiffusionLM(LM):  # type: ignore[misc]  # lm_eval has no type information
    """answers: whole batches of requests -> their answers, in any order. prepare: lm-eval Instances -> requests.

    Usable wherever lm-eval takes a model object: evaluate(lm=...), simple_evaluate(model=...).
    """

    def __init__(self, answers: Answers, prepare: Prepare) -> None:
        super().__init__()
        self._answers, self._prepare = answers, prepare

    def _ask(self, instances: Sequence[Any]) -> list[Answer]:
        requests = self._prepare(instances)
        found = {a.key: a for a in self._answers(requests)}
        keys = [_key(instance) for instance in instances]
        for key in keys:
            if key not in found:
                raise TaskError("task {!r}, document {}: no answer for option {}".format(*key))
        return [found[key] for key in keys]

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """(log-likelihood, False) each: a greedy check costs a forward pass per token and no metric needs it."""
        return [(float(a.loglikelihood or 0.0), False) for a in self._ask(requests)]

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Generated texts, cut at the first EOS or stop string."""
        return [a.text or "" for a in self._ask(requests)]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """Refused: perplexity of whole texts is not defined for this estimator."""
        raise TaskError("tasks that score whole texts are not supported by diffusion models here")


def replay(requests: Iterable[Request], answers: Iterable[Answer]) -> DiffusionLM:
    """An LM that gives committed answers, and refuses when lm-eval now asks something else than was answered."""
    asked = {r.key: r for r in requests}
    given = list(answers)

    def prepare(instances: Sequence[Any]) -> list[Request]:
        return [_same(asked, instance) for instance in instances]

    return DiffusionLM(lambda _: given, prepare)


def in_process(model: MaskedDiffusionLM, tokenizer: Tokenizer, settings: EvaluationSettings) -> DiffusionLM:
    """An LM that runs `model` here, for lm_eval.simple_evaluate(model=in_process(...), tasks=[...])."""

    def prepare(instances: Sequence[Any]) -> list[Request]:
        requests = batched(encode(instances, tokenizer, model.spec), settings.batch_size)
        check_fits(requests, model.spec, settings)
        return requests

    return DiffusionLM(lambda requests: answer(model, tokenizer, requests, settings), prepare)


def _key(instance: Any) -> Key:
    return (str(instance.task_name), int(instance.doc_id), int(instance.idx))


def _same(asked: dict[Key, Request], instance: Any) -> Request:
    key = _key(instance)
    request = asked.get(key)
    context, continuation = instance.args
    if request is None or request.context != context:
        raise TaskError("task {!r}, document {}: option {} was not what the model was asked".format(*key))
    if isinstance(continuation, str) and request.continuation != continuation:
        raise TaskError("task {!r}, document {}: option {} is another answer now".format(*key))
    return request

"""What is asked of a model: lm-eval's instances, tokenised once, in canonical batches.

A batch is fixed by the request set alone (documents by kind, length and number, cut every `batch_size`; all
choices of one document together), never by shards or replicas, so each forward pass has the same rows wherever it
runs and results are equal to the last bit. Nothing is truncated: what does not fit the context is an error.
Does not protect against requests answered with another model's tokenizer: the key of the artifact does.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from evaluation.harness import build_instances, load_task
from evaluation.spec import GENERATE, LIKELIHOOD, LONGEST_ENUMERATED, EvaluationSettings, TaskError, TaskSpec
from evaluation.tokenizer import Tokenizer
from models.spec import ModelSpec, read_spec

DEFAULT_MAX_GEN_TOKS = 256  # lm-eval's, for a task that states none
Key = tuple[str, int, int]


@dataclass(frozen=True)
class Request:
    """One question to a model.

    choice: number of the answer option (0 for generation). kind: 'loglikelihood' of target_ids after prompt_ids,
    or 'generate' from prompt_ids up to one of the strings `until`. batch: number of its batch, which holds
    batch_requests requests in all; they must be answered together.
    """

    task: str
    doc_id: int
    choice: int
    kind: str
    context: str
    continuation: str
    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...] = ()
    until: tuple[str, ...] = ()
    max_gen_toks: int = 0
    batch: int = 0
    batch_requests: int = 0

    @property
    def key(self) -> Key:
        return (self.task, self.doc_id, self.choice)


def build_requests(task: TaskSpec, folder: str | Path, settings: EvaluationSettings) -> list[Request]:
    """All requests of a task for the checkpoint in `folder` (tokenizer.json and config.json), batch by batch.

    Only `settings.for_requests()` is looked at: cells with other settings share the result, and `answer` holds
    the rest against it. Raises TaskError, naming task and document, for what no settings could answer.
    """
    spec = read_spec(folder)
    instances = build_instances(load_task(task), task.limit)
    requests = batched(encode(instances, Tokenizer(folder), spec), settings.batch_size)
    for request in requests:
        _check_length(request, len(request.target_ids) or 1, spec.context_length)
    return requests


def encode(instances: Sequence[Any], tokenizer: Tokenizer, spec: ModelSpec) -> list[Request]:
    """lm-eval Instances -> requests, in the same order, not yet batched."""
    prefix = () if spec.bos_id is None else (spec.bos_id,)
    blank = [_blank(instance) for instance in instances]
    scored = [r for r in blank if r.kind == LIKELIHOOD]
    written = [r for r in blank if r.kind == GENERATE]
    pairs = iter(tokenizer.encode_pairs([(r.context, r.continuation) for r in scored]))
    prompts = iter(tokenizer.encode([r.context for r in written]))
    result = []
    for request in blank:
        ids, target = next(pairs) if request.kind == LIKELIHOOD else (next(prompts), ())
        result.append(replace(request, prompt_ids=prefix + ids, target_ids=target))
    return result


def _blank(instance: Any) -> Request:
    task, doc_id, repeats = str(instance.task_name), int(instance.doc_id), instance.repeats or 1
    if repeats != 1:
        raise TaskError(f"task {task!r} asks for {repeats} answers per document, dlq gives one")
    if instance.request_type == LIKELIHOOD:
        context, continuation = instance.args
        return Request(task, doc_id, int(instance.idx), LIKELIHOOD, context, continuation, ())
    if instance.request_type != "generate_until":
        raise TaskError(f"task {task!r} needs {instance.request_type!r}, which dlq does not support")
    context, options = instance.args
    until = options.get("until") or []
    return Request(
        task,
        doc_id,
        int(instance.idx),
        GENERATE,
        context,
        "",
        (),
        until=(until,) if isinstance(until, str) else tuple(until),
        max_gen_toks=int(options.get("max_gen_toks", DEFAULT_MAX_GEN_TOKS)),
    )


def batched(requests: Iterable[Request], batch_size: int) -> list[Request]:
    """Requests in canonical order with their batch numbers filled in; batch_size counts documents."""
    documents: dict[tuple[str, str, int], list[Request]] = {}
    for request in requests:
        documents.setdefault((request.task, request.kind, request.doc_id), []).append(request)
    result: list[Request] = []
    number = 0
    for _, group in itertools.groupby(sorted(documents.items(), key=_order), key=lambda item: item[0][:2]):
        while members := list(itertools.islice(group, batch_size)):
            batch = [r for _, document in members for r in sorted(document, key=lambda r: r.choice)]
            result += [replace(r, batch=number, batch_requests=len(batch)) for r in batch]
            number += 1
    return result


def _order(item: tuple[tuple[str, str, int], list[Request]]) -> tuple[str, str, int, int]:
    (task, kind, doc_id), document = item
    longest = max(len(r.prompt_ids) + len(r.target_ids) for r in document)
    return task, kind, longest, doc_id


def check_fits(requests: Iterable[Request], spec: ModelSpec, settings: EvaluationSettings) -> None:
    """Raise TaskError for the first request that this model and these settings cannot answer in full."""
    for request in requests:
        length = len(request.target_ids)
        if request.kind == GENERATE:
            length = settings.canvas(request.max_gen_toks).gen_length
        elif settings.estimator == "enumerate" and length > LONGEST_ENUMERATED:
            raise TaskError(
                f"{_where(request)}: {length} tokens are too many for estimator 'enumerate' "
                f"(at most {LONGEST_ENUMERATED})",
                "estimator",
            )
        if spec.shift and not request.prompt_ids:
            raise TaskError(f"{_where(request)}: a {spec.family} model needs at least one token before the answer")
        _check_length(request, length, spec.context_length)


def _check_length(request: Request, length: int, context_length: int) -> None:
    """Raise TaskError unless the prompt and `length` tokens of answer fit."""
    if request.kind == LIKELIHOOD and not request.target_ids:
        raise TaskError(f"{_where(request)}: answer option {request.choice} has no tokens")
    total = len(request.prompt_ids) + length
    if total > context_length:
        raise TaskError(
            f"{_where(request)}: prompt and answer take {total} tokens, the model's context is {context_length}; "
            "ask for fewer shots or a shorter answer"
        )


def _where(request: Request) -> str:
    return f"task {request.task!r}, document {request.doc_id}"


def batches(requests: Iterable[Request]) -> dict[int, list[Request]]:
    """Batch number -> its requests, in order. Raises TaskError for a batch that is not whole."""
    result: dict[int, list[Request]] = {}
    for request in requests:
        result.setdefault(request.batch, []).append(request)
    for number, members in result.items():
        if len(members) != members[0].batch_requests:
            raise TaskError(f"batch {number} has {len(members)} of its {members[0].batch_requests} requests")
    return result


def save_requests(path: str | Path, requests: Iterable[Request]) -> None:
    """One JSON object per line."""
    with Path(path).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(r), ensure_ascii=False) + "\n" for r in requests)


def load_requests(path: str | Path) -> list[Request]:
    """The inverse of save_requests."""
    with Path(path).open(encoding="utf-8") as file:
        return [from_row(json.loads(line)) for line in file]


def from_row(row: Mapping[str, Any]) -> Request:
    """A request from its plain fields; lists become tuples."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
    return Request(**fields)

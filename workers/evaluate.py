"""Requests and Evaluate: lm-eval's questions built once, and answered shard by shard by replicas that pull work.

A shard is a run of whole canonical batches, so how many shards there are changes no bit of any answer.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from evaluation.answer import answer
from evaluation.requests import Request, batches, build_requests, load_requests, save_requests
from evaluation.tokenizer import Tokenizer
from pipeline.fingerprint import fingerprint
from pipeline.tasks import BuildRequests, Evaluate
from storage.artifacts import Store
from storage.tables import write_table
from workers.loading import Memory

REQUESTS = "requests.jsonl"


def build(task: BuildRequests, store: Store, memory: Memory, folder: Path, facts: dict[str, Any]) -> None:
    """Write requests.jsonl into `folder`. Raises TaskError for a document that does not fit the context."""
    requests = build_requests(task.task, task.model.folder, task.settings)
    save_requests(folder / REQUESTS, requests)
    facts["requests"] = len(requests)


def read_requests(store: Store, key: str) -> list[Request]:
    """All requests of a BuildRequests artifact, in canonical order."""
    return load_requests(store.open(key).file(REQUESTS))


def evaluate(task: Evaluate, store: Store, memory: Memory, folder: Path, facts: dict[str, Any]) -> None:
    """Write samples.parquet, one row per request of this shard, into `folder`."""
    requests = shard_of(read_requests(store, task.requests), task.shard, task.shards)
    model = memory.assembled(store, task.model, task.recipe, dict(enumerate(task.blocks)))
    answers = answer(model, Tokenizer(task.model.folder), requests, task.settings)
    recipe = fingerprint("cell", task.recipe.canonical())[:12] if task.recipe else None
    contexts = {request.key: hashlib.sha256(request.context.encode()).hexdigest()[:16] for request in requests}
    own = {"model_hash": task.model.weights, "recipe": recipe}
    rows = [{**own, **a.to_row(), "context_hash": contexts[a.key]} for a in answers]
    write_table(folder / "samples.parquet", "samples", rows)
    facts["requests"] = len(rows)


def shard_of(requests: list[Request], shard: int, shards: int) -> list[Request]:
    """Piece `shard` of `shards`: consecutive whole batches, pieces as even as whole batches allow."""
    groups = list(batches(requests).values())
    first, last = shard * len(groups) // shards, (shard + 1) * len(groups) // shards
    return [request for group in groups[first:last] for request in group]

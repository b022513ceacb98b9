"""Answers of one model to whole batches of requests.

Pure in (weights, requests, settings): which batches are answered together, in which order and where changes no
bit. Does not protect against another number of torch threads, which may round matrix products differently.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evaluation.likelihood import Target, loglikelihoods
from evaluation.masks import make_masks
from evaluation.requests import Key, Request, batches, check_fits
from evaluation.sampler import SamplerSettings, generate
from evaluation.spec import GENERATE, EvaluationSettings
from evaluation.tokenizer import Tokenizer
from models.transformer import MaskedDiffusionLM


@dataclass(frozen=True)
class Answer:
    """loglikelihood in nats, or text (cut at the first EOS and stop string) and tokens (cut at the first EOS).

    target_length: tokens scored, or size of the canvas. seconds: an even share of the batch's wall time.
    """

    task: str
    doc_id: int
    choice: int
    kind: str
    loglikelihood: float | None
    text: str | None
    tokens: tuple[int, ...] | None
    target_length: int
    seconds: float

    @property
    def key(self) -> Key:
        return (self.task, self.doc_id, self.choice)

    def to_row(self) -> dict[str, Any]:
        """Plain values for a table."""
        return {**asdict(self), "tokens": None if self.tokens is None else list(self.tokens)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Answer:
        """The inverse of to_row; columns that are not an answer's are left out."""
        fields = {name: row[name] for name in cls.__dataclass_fields__}
        return cls(**{**fields, "tokens": None if row["tokens"] is None else tuple(row["tokens"])})


def answer(
    model: MaskedDiffusionLM, tokenizer: Tokenizer, requests: Iterable[Request], settings: EvaluationSettings
) -> list[Answer]:
    """Answers in the order of the requests, which must be whole batches (TaskError otherwise)."""
    asked = list(requests)
    check_fits(asked, model.spec, settings)
    found: dict[Key, Answer] = {}
    for members in batches(asked).values():
        started = time.perf_counter()
        kind = _generated if members[0].kind == GENERATE else _scored
        rows = kind(model, tokenizer, members, settings)
        seconds = (time.perf_counter() - started) / len(members)
        found |= {r.key: _answer(r, row, seconds) for r, row in zip(members, rows, strict=True)}
    return [found[request.key] for request in asked]


def _answer(request: Request, row: Mapping[str, Any], seconds: float) -> Answer:
    empty = {"loglikelihood": None, "text": None, "tokens": None, "target_length": len(request.target_ids)}
    return Answer(request.task, request.doc_id, request.choice, request.kind, seconds=seconds, **{**empty, **row})


def _scored(
    model: MaskedDiffusionLM, tokenizer: Tokenizer, members: Sequence[Request], settings: EvaluationSettings
) -> list[dict[str, Any]]:
    targets = []
    for request in members:
        seed = (settings.seed, request.task, request.doc_id)
        masks = make_masks(settings.estimator, len(request.target_ids), settings.samples, seed)
        targets.append(Target(request.prompt_ids, request.target_ids, masks))
    values = loglikelihoods(model, targets, settings.cfg_scale, settings.tokens_per_forward)
    return [{"loglikelihood": value} for value in values]


def _generated(
    model: MaskedDiffusionLM, tokenizer: Tokenizer, members: Sequence[Request], settings: EvaluationSettings
) -> list[dict[str, Any]]:
    until, limit = members[0].until, members[0].max_gen_toks
    if any((r.until, r.max_gen_toks) != (until, limit) for r in members):
        return [_generated(model, tokenizer, [r], settings)[0] for r in members]
    canvas = settings.canvas(limit)
    sampler = SamplerSettings(canvas, settings.remasking, settings.temperature, settings.cfg_scale)
    answers = generate(
        model,
        [r.prompt_ids for r in members],
        sampler,
        seeds=[f"{settings.seed}/{r.task}/{r.doc_id}" for r in members],
        stop=(lambda tokens: any(s in tokenizer.decode(tokens) for s in until)) if until else None,
    )
    return [_kept(tokens, until, canvas.gen_length, model.spec.eos_id, tokenizer) for tokens in answers]


def _kept(
    tokens: Sequence[int], until: Sequence[str], length: int, eos_id: int, tokenizer: Tokenizer
) -> dict[str, Any]:
    ids = list(tokens)
    ids = ids[: ids.index(eos_id)] if eos_id in ids else ids
    text = tokenizer.decode(ids)
    for stop in until:
        text = text.split(stop)[0]
    return {"text": text, "tokens": tuple(ids), "target_length": length}

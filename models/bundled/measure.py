"""Quick scores of a model on the bundled tasks, for watching training and for the model card.

A small stand-alone scorer (models may not import evaluation): stratified likelihood and plain low-confidence
generation. Published tables come from `evaluation`, whose numbers differ by Monte-Carlo noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from models.bundled.corpus import ANSWER, TASKS, Corpus
from models.bundled.vocabulary import EOS_ID, MASK_ID, VOCABULARY, encode
from models.transformer import MaskedDiffusionLM

Item = dict[str, Any]
Predict = Callable[[Tensor, Tensor | None, Tensor], Tensor]


def by_length(items: Sequence[Item]) -> list[list[Item]]:
    """Items whose questions have the same number of tokens, so that no batch needs padding."""
    groups: dict[int, list[Item]] = {}
    for item in items:
        groups.setdefault(len(encode(item["question"])), []).append(item)
    return list(groups.values())


@torch.no_grad()
def choice_accuracy(predict: Predict, items: Sequence[Item], draws: int) -> float:
    """Share of items whose right choice has the largest stratified Monte-Carlo likelihood."""
    right = 0
    for group in by_length(items):
        prompts = torch.tensor([encode(item["question"]) for item in group])
        answers = torch.tensor([[encode(choice) for choice in item["choices"]] for item in group])
        score = torch.zeros(answers.shape[:2])
        for draw in range(draws):
            score += likelihood(predict, prompts, answers, draw, draws)
        right += int((score.argmax(1) == torch.tensor([item["label"] for item in group])).sum())
    return right / len(items)


def likelihood(predict: Predict, prompts: Tensor, answers: Tensor, draw: int, draws: int) -> Tensor:
    """One draw of log-likelihood [items, choices]: k of the l answer tokens masked, weighted l / k."""
    items, choices, length = answers.shape
    generator = torch.Generator().manual_seed(draw)
    count = max(1, -int(-length * (draw + 1) // draws))
    keep = torch.rand(items, length, generator=generator).argsort(1).argsort(1) >= count
    masked = ~keep[:, None].expand(items, choices, length)
    seen = answers.masked_fill(masked, MASK_ID)
    rows = torch.cat([prompts[:, None].expand(-1, choices, -1), seen], 2).flatten(0, 1)
    where = torch.zeros_like(rows, dtype=torch.bool)
    where[:, -length:] = masked.flatten(0, 1)
    logs = predict(rows, None, where).log_softmax(-1).gather(1, answers[masked][:, None])
    return logs.view(items, choices, count).sum(2) * (length / count)


@torch.no_grad()
def generate(predict: Predict, prompts: Tensor) -> Tensor:
    """ANSWER tokens after each prompt [B, L], unmasking the most confident one per step."""
    rows = torch.cat([prompts, torch.full((len(prompts), ANSWER), MASK_ID)], 1)
    for _ in range(ANSWER):
        where = rows == MASK_ID
        probabilities = predict(rows, None, where).softmax(-1)
        confidence, tokens = (t.view(len(rows), -1) for t in probabilities.max(-1))
        best = confidence.argmax(1, keepdim=True)
        position = where.nonzero()[:, 1].view(len(rows), -1).gather(1, best)
        rows.scatter_(1, position, tokens.gather(1, best))
    return rows[:, -ANSWER:]


def generation_accuracy(predict: Predict, items: Sequence[Item]) -> float:
    """Share of items whose generated answer, cut at the first full stop, is exactly right."""
    right = 0
    for group in by_length(items):
        rows = generate(predict, torch.tensor([encode(item["question"]) for item in group]))
        right += sum(final(row) == item["answer"] for row, item in zip(rows.tolist(), group, strict=True))
    return right / len(items)


def final(ids: list[int]) -> str:
    """The answer in generated tokens: after 'so' if there is one, up to the first full stop or end of text."""
    words = [VOCABULARY[i] if i < len(VOCABULARY) else "" for i in ids]
    for stop in (".", VOCABULARY[EOS_ID]):
        words = words[: words.index(stop)] if stop in words else words
    return " ".join(words).rpartition("so ")[2]


def scores(model: MaskedDiffusionLM, corpus: Corpus, count: int, draws: int) -> dict[str, float]:
    """Accuracy per task over `count` items."""
    out = {}
    for task in TASKS:
        items = corpus.items(task, count)
        if "choices" in items[0]:
            out[task] = choice_accuracy(model.predict, items, draws)
        else:
            out[task] = generation_accuracy(model.predict, items)
    return out

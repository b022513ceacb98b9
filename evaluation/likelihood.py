"""Log-likelihoods of targets after prompts under a masked-diffusion LM.

All noised inputs of a batch are laid out first; identical ones (choices that share context and mask, repeated
draws) go through the model once, rows of one length go together, and the LM head runs at masked target positions
only. Sums are float64 in an order fixed by the batch. Does not protect against another batch composition giving
other last bits: the composition is part of a request, see `evaluation.requests`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.guidance import guided
from evaluation.masks import Masks
from models.transformer import MaskedDiffusionLM

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Target:
    """A target to score after a prompt, and the masks to do it with."""

    prompt: Ids
    target: Ids
    masks: Masks


@dataclass(frozen=True)
class Use:
    """One term of an estimate: weight · Σ log p(tokens) goes to target number `owner`."""

    owner: int
    weight: float
    tokens: Ids


@dataclass
class Row:
    """One distinct noised input, the positions to predict (columns) and who needs them."""

    ids: Ids
    prompt_length: int
    columns: Ids
    uses: list[Use] = field(default_factory=list)


def loglikelihoods(
    model: MaskedDiffusionLM, targets: Sequence[Target], cfg_scale: float = 0.0, tokens_per_forward: int = 8192
) -> list[float]:
    """Estimated log p(target | prompt) of each target, in nats."""
    totals = np.zeros(len(targets))
    with torch.inference_mode():
        for rows in forwards(layout(targets, model.spec.mask_id), tokens_per_forward):
            owners, terms = _terms(model, rows, cfg_scale)
            np.add.at(totals, owners, terms)
    return [float(total) for total in totals]


def layout(targets: Sequence[Target], mask_id: int) -> list[Row]:
    """The distinct noised inputs that the targets need, in order of first need."""
    rows: dict[tuple[int, Ids, Ids], Row] = {}
    prompts: dict[Ids, int] = {}
    for owner, item in enumerate(targets):
        prompt_number = prompts.setdefault(item.prompt, len(prompts))
        for mask, weight in zip(item.masks.masks.tolist(), item.masks.weights.tolist(), strict=True):
            noised = tuple(mask_id if hide else t for hide, t in zip(mask, item.target, strict=True))
            hidden = tuple(i for i, hide in enumerate(mask) if hide)
            row = rows.get((prompt_number, noised, hidden))
            if row is None:
                start = len(item.prompt)
                row = Row(item.prompt + noised, start, tuple(start + i for i in hidden))
                rows[prompt_number, noised, hidden] = row
            row.uses.append(Use(owner, weight, tuple(item.target[i] for i in hidden)))
    return list(rows.values())


def forwards(rows: Sequence[Row], tokens_per_forward: int) -> Iterator[list[Row]]:
    """Rows by length, cut so that rows x longest stays within tokens_per_forward (one row always fits)."""
    current: list[Row] = []
    for row in sorted(rows, key=lambda row: len(row.ids)):
        if current and (len(current) + 1) * len(row.ids) > tokens_per_forward:
            yield current
            current = []
        current.append(row)
    if current:
        yield current


def _terms(
    model: MaskedDiffusionLM, rows: Sequence[Row], cfg_scale: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Owner and weighted log-probability of every scored token of one forward pass."""
    device = model.embedding.weight.device
    shape = (len(rows), max(len(row.ids) for row in rows))
    ids = torch.full(shape, model.spec.pad_id, dtype=torch.int64)
    attention, where, prompt = (torch.zeros(shape, dtype=torch.bool) for _ in range(3))
    lines: list[int] = []
    tokens: list[int] = []
    owners: list[int] = []
    weights: list[float] = []
    line = 0
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        attention[i, : len(row.ids)] = True
        prompt[i, : row.prompt_length] = True
        where[i, list(row.columns)] = True
        for use in row.uses:
            lines += range(line, line + len(row.columns))
            tokens += use.tokens
            owners += [use.owner] * len(row.columns)
            weights += [use.weight] * len(row.columns)
        line += len(row.columns)
    ids, attention, where, prompt = (t.to(device) for t in (ids, attention, where, prompt))
    logp = guided(model, ids, attention, where, prompt, cfg_scale).log_softmax(-1)
    picked = logp[torch.tensor(lines, device=device), torch.tensor(tokens, device=device)]
    return np.array(owners), picked.double().cpu().numpy() * np.array(weights)

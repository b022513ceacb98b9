"""Generation by iterative unmasking (LLaDA, arXiv 2502.09992, algorithms 4 and 5), batched over prompts.

A canvas of masks follows each prompt; blocks are filled from left to right, and in each step the most confident
open positions of the block keep their token for good. Greedy at temperature 0, else Gumbel-max in float64.
Confidences are fp32 softmax values whatever the model's dtype, ties go to the leftmost position, random numbers
come from each prompt's own stream, so an answer does not depend on its neighbours in the batch. Exact savings: the
LM head runs at open positions of the block only, steps that commit nothing run no forward pass, and a row whose
kept text can no longer change leaves the batch. [MASK] is never given as an answer: the official code may commit
it, which leaves a hole.
Does not protect against near-ties that another batch shape or machine rounds differently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.guidance import guided
from evaluation.spec import Canvas
from models.masking import generator
from models.transformer import MaskedDiffusionLM

Stop = Callable[[list[int]], bool]


@dataclass(frozen=True)
class SamplerSettings:
    """See `evaluation.spec.EvaluationSettings`; padding is the side on which shorter prompts are padded."""

    canvas: Canvas
    remasking: str = "low_confidence"
    temperature: float = 0.0
    cfg_scale: float = 0.0
    padding: str = "left"


def schedule(masks: int, steps: int) -> list[int]:
    """Positions committed by each step that commits any: masks // steps, one more in the first masks mod steps."""
    base, extra = divmod(masks, steps)
    return [n for n in (base + (i < extra) for i in range(steps)) if n]


class State:
    """Canvases of the rows still being written: ids, attention, prompt [B, L] and the answers' start [B, 1]."""

    def __init__(
        self,
        model: MaskedDiffusionLM,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[object],
        settings: SamplerSettings,
    ) -> None:
        device = model.embedding.weight.device
        longest, length = max(map(len, prompts)), settings.canvas.gen_length
        shape = (len(prompts), longest + length)
        ids = torch.full(shape, model.spec.pad_id, dtype=torch.int64)
        real, prompt = (torch.zeros(shape, dtype=torch.bool) for _ in range(2))
        start = torch.zeros(len(prompts), 1, dtype=torch.int64)
        for i, tokens in enumerate(prompts):
            first = longest - len(tokens) if settings.padding == "left" else 0
            start[i] = end = first + len(tokens)
            ids[i, first:end] = torch.tensor(tokens, dtype=torch.int64)
            ids[i, end : end + length] = model.spec.mask_id
            prompt[i, first:end] = True
            real[i, first : end + length] = True
        self.ids, self.attention, self.prompt, self.start = (t.to(device) for t in (ids, real, prompt, start))
        self.rows = list(range(len(prompts)))
        self.streams = [generator("generation", seed) for seed in seeds]

    def answers(self, length: int) -> Tensor:
        """The answers as they stand, [B, length]."""
        columns = self.start + torch.arange(length, device=self.start.device)
        return self.ids.gather(1, columns)

    def keep(self, wanted: Sequence[int]) -> None:
        """Go on with these rows of the batch only."""
        index = torch.tensor(wanted, dtype=torch.int64, device=self.ids.device)
        self.ids, self.attention = self.ids[index], self.attention[index]
        self.prompt, self.start = self.prompt[index], self.start[index]
        self.rows = [self.rows[i] for i in wanted]
        self.streams = [self.streams[i] for i in wanted]


def generate(
    model: MaskedDiffusionLM,
    prompts: Sequence[Sequence[int]],
    settings: SamplerSettings,
    seeds: Sequence[object] | None = None,
    early_stop: bool = True,
    stop: Stop | None = None,
) -> list[list[int]]:
    """Answers, token ids without the prompt, to prompts of any lengths.

    seeds: one per prompt, for random numbers (default: its place). early_stop: end an answer at its first EOS, or
    where `stop(tokens so far, all committed)` is true; the full canvas would hold the same up to there.
    Without early_stop every answer has gen_length tokens.
    """
    if not prompts:
        return []
    state = State(model, prompts, range(len(prompts)) if seeds is None else seeds, settings)
    done: dict[int, list[int]] = {}
    canvas = settings.canvas
    with torch.inference_mode():
        for block in range(canvas.blocks):
            offsets = torch.arange(canvas.block_length, device=state.ids.device) + block * canvas.block_length
            opened = state.start + offsets
            for count in schedule(canvas.block_length, canvas.steps // canvas.blocks):
                opened = _step(model, state, opened, count, settings)
                if early_stop:
                    opened = _retire(model, state, opened, canvas.gen_length, stop, done)
                if not state.rows:
                    return [done[i] for i in range(len(prompts))]
    done |= dict(zip(state.rows, state.answers(canvas.gen_length).tolist(), strict=True))
    return [done[i] for i in range(len(prompts))]


def _step(model: MaskedDiffusionLM, state: State, opened: Tensor, count: int, settings: SamplerSettings) -> Tensor:
    """Commit the `count` most confident of the open columns [B, m] of each row; the rest, [B, m - count]."""
    where = torch.zeros_like(state.attention).scatter_(1, opened, True)
    logits = guided(model, state.ids, state.attention, where, state.prompt, settings.cfg_scale)
    logits = logits.view(*opened.shape, -1)
    tokens = _choose(logits, model.spec.mask_id, settings.temperature, state.streams)
    if settings.remasking == "random":
        confidence = _uniform(state.streams, opened.shape[1:]).to(logits.device)
    else:
        confidence = logits.softmax(-1).gather(-1, tokens[..., None])[..., 0]
    order = confidence.sort(dim=-1, descending=True, stable=True).indices
    chosen, left = order[:, :count], order[:, count:].sort(dim=-1).values
    state.ids.scatter_(1, opened.gather(1, chosen), tokens.gather(1, chosen))
    return opened.gather(1, left)


def _choose(logits: Tensor, mask_id: int, temperature: float, streams: Sequence[torch.Generator]) -> Tensor:
    """A token for every open position: logits [B, m, V] -> [B, m]."""
    banned = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
    banned[mask_id] = True
    if temperature == 0:
        return logits.masked_fill(banned, -torch.inf).argmax(-1)
    u = _uniform(streams, logits.shape[1:]).to(logits.device)
    noisy = logits.double() - temperature * torch.log(-torch.log(u))
    return noisy.masked_fill(banned, -torch.inf).argmax(-1)


def _uniform(streams: Sequence[torch.Generator], shape: Sequence[int]) -> Tensor:
    """U(0, 1) in float64, [B, *shape], row i from stream i."""
    return torch.stack([torch.rand(tuple(shape), generator=g, dtype=torch.float64) for g in streams])


def _retire(
    model: MaskedDiffusionLM,
    state: State,
    opened: Tensor,
    length: int,
    stop: Stop | None,
    done: dict[int, list[int]],
) -> Tensor:
    """Move rows whose kept text is final from the batch to `done`; the open columns of the others."""
    wanted = []
    for i, answer in enumerate(state.answers(length).tolist()):
        committed = answer.index(model.spec.mask_id) if model.spec.mask_id in answer else length
        kept = answer[:committed]
        if model.spec.eos_id in kept:
            done[state.rows[i]] = kept[: kept.index(model.spec.eos_id) + 1]
        elif stop is not None and stop(kept):
            done[state.rows[i]] = kept
        else:
            wanted.append(i)
    if len(wanted) == len(state.rows):
        return opened
    state.keep(wanted)
    return opened[torch.tensor(wanted, dtype=torch.int64, device=opened.device)]

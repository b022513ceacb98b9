"""Predictions of a model at chosen positions, with or without classifier-free guidance."""

from __future__ import annotations

import torch
from torch import Tensor

from models.transformer import MaskedDiffusionLM


def guided(
    model: MaskedDiffusionLM,
    ids: Tensor,
    attention: Tensor | None,
    where: Tensor,
    prompt: Tensor,
    cfg_scale: float,
) -> Tensor:
    """Logits [n, vocab] fp32 at the positions `where` of ids; ids, attention, where, prompt are [B, L].

    cfg_scale w > 0: u + (w + 1)(c - u), with u from the same row whose prompt tokens (`prompt` bool) are masked
    (arXiv 2502.09992, sec. 2.4, after arXiv 2410.18514).
    """
    conditional = model.predict(ids, attention, where)
    if cfg_scale == 0:
        return conditional
    blind = torch.where(prompt, model.spec.mask_id, ids)
    unconditional = model.predict(blind, attention, where)
    return unconditional + (cfg_scale + 1) * (conditional - unconditional)

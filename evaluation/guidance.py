"""Predictions of a model at chosen positions, with or without classifier-free guidance.

Does not protect against logits that are finite and wrong.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.transformer import MaskedDiffusionLM


class NotFinite(ValueError):
    """A model that predicts NaN or infinity; one line. Scored as if nothing were wrong, it would look ordinary."""


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
    (arXiv 2502.09992, sec. 2.4, after arXiv 2410.18514). Raises NotFinite for NaN or infinite logits.
    """
    logits = model.predict(ids, attention, where)
    if cfg_scale:
        blind = torch.where(prompt, model.spec.mask_id, ids)
        unconditional = model.predict(blind, attention, where)
        logits = unconditional + (cfg_scale + 1) * (logits - unconditional)
    if not bool(logits.isfinite().all()):
        bad, dtype = int((~logits.isfinite()).any(-1).sum()), str(model.head.weight.dtype).removeprefix("torch.")
        raise NotFinite(
            f"the model's logits are not finite at {bad} of {len(logits)} positions: "
            f"its weights are broken, or activations overflow {dtype}"
        )
    return logits

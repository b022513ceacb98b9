"""The noising process: which tokens of a calibration sequence are replaced by [MASK].

Masks derive from (calibration seed, sample id) only, never from order, batch or rank, so any worker rebuilds
the same ones. The absorbing process of LLaDA (arXiv 2502.09992, eq. 3): a mask ratio t per sequence, each
token masked independently with probability t.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def generator(*parts: object) -> torch.Generator:
    """A CPU generator seeded by SHA-256 of the given parts, the same in every process."""
    text = "\x1f".join(str(part) for part in parts)
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(seed)


def mask_pattern(masking: str, seed: int, sample: int, length: int, prefix_ratio: float = 0.0) -> Tensor:
    """Which of `length` tokens of one sample are masked, bool [length].

    masking: 'none' (fully visible, as autoregressive calibration) or 'uniform' (t ~ U(0, 1) per sample).
    prefix_ratio: share of leading tokens that always stay visible and play the prompt.
    """
    if masking == "none":
        return torch.zeros(length, dtype=torch.bool)
    rng = generator("calibration mask", seed, sample)
    ratio = torch.rand((), generator=rng)
    masked = torch.rand(length, generator=rng) < ratio
    masked[: int(prefix_ratio * length)] = False
    return masked


def apply_masks(ids: Tensor, mask_id: int, masking: str, seed: int, prefix_ratio: float = 0.0) -> Tensor:
    """Noised copy of ids [N, L]; row i is sample i."""
    rows = [mask_pattern(masking, seed, i, ids.shape[1], prefix_ratio) for i in range(len(ids))]
    return ids.masked_fill(torch.stack(rows), mask_id)

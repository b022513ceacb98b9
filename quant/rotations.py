"""Rotations of one block of channels that flatten given rows, found greedily and kept as the steps that led there.

The step with axis d is R_d: an orthogonal matrix R̂ with index 0 and d exchanged in rows and columns, where
R̂ = R0·diag(1, Q), the first row of R0 is constant 1/√B, and Q is a random rotation, drawn once per search. It
spreads channel d over all others. Everything random comes from the integer hash of quant.statistics, so that equal
seeds give equal steps anywhere; a rotation rebuilt with another linear algebra library may differ in the last bits
of float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from quant.lazy import torch
from quant.statistics import hash_positions


def search_rotation(
    rows: torch.Tensor, seed: int, steps: int, by_row: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """The axes, uint8 [k ≤ steps], that give rows [m, B ≤ 256] the smallest max − min, and the rows so rotated.

    Each step takes as axis the channel of the largest magnitude (`by_row`: the number of its row, modulo B).
    """
    width, step = rows.shape[1], _step(rows.shape[1], seed).to(rows)
    best, least, axes = rows, _range(rows), list[int]()
    kept = 0
    for _ in range(steps):
        row, channel = divmod(int(rows.abs().argmax()), width)
        axes.append(row % width if by_row else channel)
        rows = rows @ _exchanged(step, axes[-1])
        found = _range(rows)
        if found < least:
            best, least, kept = rows, found, len(axes)
    return torch.tensor(axes[:kept], dtype=torch.uint8), best


def stepwise_rotation(width: int, seed: int, axes: Sequence[int]) -> torch.Tensor:
    """R = R_{d1} · R_{d2} ..., float64 [width, width], for the axes d of a search with this seed."""
    rotation, step = torch.eye(width, dtype=torch.float64), _step(width, seed)
    for axis in axes:
        rotation = rotation @ _exchanged(step, axis)
    return rotation


def zigzag(peaks: torch.Tensor, width: int) -> torch.Tensor:
    """The channel each place takes, int64 [n]: sorted by peaks [n], dealt to n/width blocks in snake order."""
    dealt = peaks.argsort(descending=True, stable=True).reshape(width, -1)
    dealt[1::2] = dealt[1::2].flip(1)
    return dealt.T.reshape(-1)


def _range(rows: torch.Tensor) -> float:
    low, high = rows.aminmax()
    return float(high - low)


def _exchanged(step: torch.Tensor, axis: int) -> torch.Tensor:
    order = torch.arange(len(step), device=step.device)
    order[0], order[axis] = axis, 0
    return step[order][:, order]


@lru_cache(maxsize=64)
def _step(width: int, seed: int) -> torch.Tensor:
    """R̂, float64 [width, width]."""
    normal = torch.full((width,), width**-0.5, dtype=torch.float64)
    normal[0] -= 1
    base = torch.eye(width, dtype=torch.float64) - 2 * torch.outer(normal, normal) / normal.dot(normal)
    rest, signs = torch.linalg.qr(_gaussian(width - 1, seed))
    base[:, 1:] = base[:, 1:] @ (rest * signs.diagonal().sign())
    return base


def _gaussian(size: int, seed: int) -> torch.Tensor:
    """Standard normal float64 [size, size] from hashed positions (Box and Muller)."""
    words = hash_positions(torch.arange(2 * size * size), seed)
    uniform = ((words >> 11) & ((1 << 53) - 1)).double().add_(0.5) / 2.0**53
    radius, angle = uniform.reshape(2, size, size)
    return (-2 * radius.log()).sqrt() * (2 * torch.pi * angle).cos()

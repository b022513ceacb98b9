"""AWQ's clip search: how far to cut the largest weights of a group before its range is taken."""

from __future__ import annotations

from quant.lazy import torch
from quant.weights import WeightGrid

_STEPS = 10
_STEP = 0.05


def clip_weights(weight: torch.Tensor, grid: WeightGrid, gram: torch.Tensor) -> torch.Tensor:
    """weight [n_out, n_in] with every group cut to ±m (Lin et al., arXiv 2306.00978; their released search):

        m = argmin Σ_tokens (Σ_j x_j (ŵ_j − w_j))²    over m = max|w|·(1, .95, ... .55), the first minimum winning

    per row and group, ŵ on `grid` after the cut. The sum over tokens is eᵀ H_g e with the group's diagonal block
    of gram [n_in, n_in], so all calibration tokens count. Float32 arithmetic: a cut group is symmetric, −lo/s
    falls half-way between integers, and the zero point hangs on the last bits.
    """
    rows, features = weight.shape
    width = features if grid.group_size == -1 else grid.group_size
    groups = weight.float().reshape(rows, -1, width)
    blocks = gram.reshape(features // width, width, -1, width).diagonal(dim1=0, dim2=2).movedim(-1, 0)
    peak = groups.abs().amax(2, keepdim=True)
    limit, least = peak, torch.full_like(peak, float("inf"))
    for step in range(_STEPS):
        tried = peak * (1 - step * _STEP)
        missed = grid.nearest(_cut(groups, tried).reshape(rows, -1)).reshape(groups.shape).sub_(groups)
        error = (missed.transpose(0, 1) @ blocks).transpose(0, 1).mul_(missed).sum(2, keepdim=True)
        limit = torch.where(error < least, tried, limit)
        least = torch.minimum(error, least)
    return _cut(groups, limit).reshape(rows, features)


def _cut(groups: torch.Tensor, limit: torch.Tensor) -> torch.Tensor:
    return torch.minimum(torch.maximum(groups, -limit), limit)

"""The triangular factor that GPTQ needs, with damping.

Does not protect against a Gram matrix that is finite but meaningless; callers check finiteness first.
"""

from __future__ import annotations

from quant.errors import SolveFailed
from quant.lazy import torch

# Up to this size float64 costs well under a second, and results do not hang on the last bits of the accumulation.
DOUBLE_UP_TO = 1024
_RETRIES = 3


def inverse_factor(gram: torch.Tensor, damping: float) -> tuple[torch.Tensor, float]:
    """Upper triangular U, float32 [n, n], with (H + λ·mean(diag H)·I)⁻¹ = Uᵀ·U, and the λ that was used.

    gram is H, [n, n] symmetric, not changed. λ starts at `damping`. Matrices up to 1024 are factored in
    float64, larger ones in float32 and, if that breaks down, in float64 with the same λ; only then λ grows
    tenfold, three times at most. U is unique, and is found without forming the inverse: reversing rows and
    columns, chol gives H = M·Mᵀ with M upper triangular, and U = M⁻¹. Cost about 4n³/3 operations. Raises
    SolveFailed when nothing works.
    """
    if gram.shape[0] > DOUBLE_UP_TO:
        factor = _factor(gram, damping, torch.float32)
        if factor is not None:
            return factor, damping
    for retry in range(_RETRIES + 1):
        used = damping * 10**retry
        factor = _factor(gram, used, torch.float64)
        if factor is not None:
            return factor.float(), used
    raise SolveFailed(
        f"the {gram.shape[0]}x{gram.shape[0]} Gram matrix stays indefinite with damping up to {used:g};"
        " raise damping or calibrate on more tokens"
    )


def _factor(gram: torch.Tensor, damping: float, dtype: torch.dtype) -> torch.Tensor | None:
    reversed_gram = gram.to(dtype).flip(0, 1)
    reversed_gram.diagonal().add_(damping * gram.diagonal().double().mean().item())
    lower, failed = torch.linalg.cholesky_ex(reversed_gram)
    if failed.item():
        return None
    del reversed_gram
    upper = lower.flip(0, 1)
    del lower  # at the widths of real down-projections every matrix here is a gigabyte
    factor = torch.linalg.solve_triangular(
        upper, torch.eye(len(gram), dtype=dtype, device=gram.device), upper=True
    )
    return factor if torch.isfinite(factor).all() else None

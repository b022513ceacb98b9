"""The triangular factor against numpy, and what happens when the matrix is not positive definite."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quant.errors import PoisonedLayer, SolveFailed
from quant.solve import DOUBLE_UP_TO, inverse_factor


def test_factor_is_the_cholesky_factor_of_the_inverse() -> None:
    x = np.random.default_rng(0).standard_normal((100, 40))
    gram = x.T @ x
    damped = gram + 0.05 * np.mean(np.diag(gram)) * np.eye(40)
    expected = np.linalg.cholesky(np.linalg.inv(damped)).T
    factor, used = inverse_factor(torch.tensor(gram, dtype=torch.float32), 0.05)
    assert used == 0.05
    assert np.abs(factor.numpy() - expected).max() < 1e-5 * np.abs(expected).max()
    assert torch.equal(factor, factor.triu())


def shifted(size: int, lowest: float) -> torch.Tensor:
    """A symmetric matrix with unit diagonal mean whose smallest eigenvalue is `lowest`, the others equal."""
    share = (1 - lowest) / size
    other = (size - lowest) / (size - 1)
    ones = torch.full((size, size), 1.0 / size)
    assert share > 0
    return other * (torch.eye(size) - ones) + lowest * ones


def test_damping_grows_tenfold_until_it_works() -> None:
    _, used = inverse_factor(shifted(32, -0.5), 0.01)
    assert used == pytest.approx(1.0)
    _, used = inverse_factor(shifted(32, -0.05), 0.01)
    assert used == pytest.approx(0.1)


def test_hopeless_matrices_are_one_clear_error() -> None:
    with pytest.raises(SolveFailed, match="indefinite with damping up to 10") as caught:
        inverse_factor(shifted(32, -50.0), 0.01)
    assert isinstance(caught.value, PoisonedLayer)
    assert "\n" not in str(caught.value)


def test_large_matrices_fall_back_to_float64_before_damping_grows() -> None:
    size, damping = DOUBLE_UP_TO + 8, 1e-8
    gram = torch.ones(size, size)
    damped = gram + damping * torch.eye(size)
    assert torch.linalg.cholesky_ex(damped).info.item() > 0, "float32 must break down for this to test anything"
    factor, used = inverse_factor(gram, damping)
    assert used == damping
    assert torch.isfinite(factor).all()


def test_large_matrices_agree_with_numpy_in_float32() -> None:
    size = DOUBLE_UP_TO + 8
    x = np.random.default_rng(1).standard_normal((2 * size, size)).astype(np.float32)
    gram = torch.tensor(x.T @ x)
    factor, _ = inverse_factor(gram, 0.01)
    damped = gram.double().numpy() + 0.01 * gram.diagonal().double().mean().item() * np.eye(size)
    product = factor.double().numpy() @ damped @ factor.double().numpy().T
    assert np.abs(product - np.eye(size)).max() < 1e-3

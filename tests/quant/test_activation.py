"""Per-token activation quantizers against a loop over tokens and groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.activation import Activation
from quant.errors import RecipeError


def naive(x: np.ndarray, quantizer: Activation) -> np.ndarray:
    width = x.shape[-1] if quantizer.activation_group_size == -1 else quantizer.activation_group_size
    levels, half = 2**quantizer.abits - 1, 2 ** (quantizer.abits - 1)
    found = []
    for values in x.reshape(-1, width):
        lo, hi = values.min() * quantizer.activation_clip_ratio, values.max() * quantizer.activation_clip_ratio
        if quantizer.activation_symmetric:
            step = max(abs(lo), abs(hi)) / (half - 1)
            found.append(step * np.clip(np.round(values / step), -half, half - 1))
            continue
        if quantizer.activation_group_size == -1:
            lo, hi = min(lo, 0), max(hi, 0)
        step = (hi - lo) / levels
        zero = np.round(-lo / step)
        found.append(step * (np.clip(np.round(values / step) + zero, 0, levels) - zero))
    return np.stack(found).reshape(x.shape)


@pytest.mark.parametrize("abits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group_size", [-1, 32, 128])
@pytest.mark.parametrize("clip", [1.0, 0.9])
def test_equals_the_definition(abits: int, symmetric: bool, group_size: int, clip: float) -> None:
    quantizer = Activation(abits, symmetric, group_size, clip)
    x = np.random.default_rng(1).standard_normal((3, 5, 256)) + 2.5
    x[1, 2, 7] = 80.0
    x = x.astype(np.float32).astype(np.float64)
    found = quantizer.quantize(torch.tensor(x, dtype=torch.float32)).double().numpy()
    assert np.isclose(found, naive(x, quantizer), rtol=1e-4, atol=1e-5).mean() > 0.999
    assert np.linalg.norm(found - naive(x, quantizer)) < 1e-2 * np.linalg.norm(x - naive(x, quantizer))


def test_sixteen_bits_change_nothing() -> None:
    x = torch.randn(2, 6)
    assert Activation(16).quantize(x) is x


@given(
    seed=st.integers(0, 10**6),
    abits=st.sampled_from([4, 8]),
    symmetric=st.booleans(),
    group_size=st.sampled_from([-1, 32]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
@settings(max_examples=80, deadline=None)
def test_tokens_do_not_see_each_other(
    seed: int, abits: int, symmetric: bool, group_size: int, dtype: torch.dtype
) -> None:
    x = torch.tensor(np.random.default_rng(seed).standard_normal((7, 64)) * 3).to(dtype)
    quantizer = Activation(abits, symmetric, group_size)
    together = quantizer.quantize(x)
    assert together.dtype is dtype
    assert torch.equal(together, torch.cat([quantizer.quantize(row[None]) for row in x]))
    span = x.float().amax(1, keepdim=True) - x.float().amin(1, keepdim=True)
    assert bool(((together - x).float().abs() <= span / (2**abits - 2) + 0.02 * x.float().abs()).all())


def test_zero_tokens_and_huge_values_stay_finite() -> None:
    x = torch.zeros(2, 64)
    x[1] = 3e38
    for symmetric in (True, False):
        found = Activation(4, symmetric).quantize(x)
        assert torch.equal(found[0], torch.zeros(64))
        assert torch.isfinite(found).all()


def test_each_field_changes_the_output() -> None:
    x = torch.tensor(np.random.default_rng(0).standard_normal((4, 64)), dtype=torch.float32)
    plain = Activation(4).quantize(x)
    for other in (Activation(8), Activation(4, False), Activation(4, True, 32), Activation(4, True, -1, 0.9)):
        assert not torch.equal(other.quantize(x), plain)


def test_groups_must_divide() -> None:
    with pytest.raises(RecipeError, match="activation_group_size 128 does not divide"):
        Activation(8, True, 128).quantize(torch.zeros(1, 192))

"""Grids against a naive float64 transcription of their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.errors import RecipeError
from quant.rounding.nearest import Nearest
from quant.weights import GRIDS, WeightGrid, check_divides

Parameters = tuple[float, float]


def naive_parameters(lo: float, hi: float, bits: int, grid: str) -> Parameters:
    """Scale and zero of one group, straight from the definition; sym_restricted with its zero at 2^(b-1)."""
    levels, half = 2**bits - 1, 2 ** (bits - 1)
    if lo == hi == 0:
        lo, hi = -1.0, 1.0
    if grid == "asym_with_zero":
        lo, hi = min(lo, 0.0), max(hi, 0.0)
        return (hi - lo) / levels, float(np.round(-lo / ((hi - lo) / levels)))
    if grid == "asym_minmax":
        scale = max(hi - lo, 1e-5) / levels
        return scale, float(np.round(-lo / scale))
    peak = max(abs(lo), abs(hi))
    return (2 * peak / levels if grid == "sym_full" else peak / (half - 1)), float(half)


def naive_round(group: np.ndarray, bits: int, grid: str, shrink: float = 1.0) -> np.ndarray:
    scale, zero = naive_parameters(shrink * group.min(), shrink * group.max(), bits, grid)
    return scale * (np.clip(np.round(group / scale) + zero, 0, 2**bits - 1) - zero)


def nearest(weight: torch.Tensor, grid: WeightGrid) -> torch.Tensor:
    return Nearest().quantize(weight, grid, None).dequantize()


@pytest.mark.parametrize("weight_grid", GRIDS)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group_size", [-1, 32, 64, 128])
def test_nearest_equals_the_definition(bits: int, group_size: int, weight_grid: str) -> None:
    weight = torch.tensor(np.random.default_rng(bits).standard_normal((5, 256)), dtype=torch.float32)
    grid = WeightGrid(bits, group_size, weight_grid, scale_dtype="float32")
    groups = weight.double().numpy().reshape(-1, 256 if group_size == -1 else group_size)
    expected = np.stack([naive_round(group, bits, weight_grid) for group in groups]).reshape(5, 256)
    original = weight.double().numpy()
    found = nearest(weight, grid).double().numpy()
    # The negative peak of sym_full lies half-way between two levels: either is nearest, so errors are compared.
    assert np.abs(np.abs(found - original) - np.abs(expected - original)).max() < 1e-5
    assert np.isclose(found, expected, atol=1e-5).mean() > 0.97


@pytest.mark.parametrize("weight_grid", GRIDS)
@pytest.mark.parametrize("bits", [2, 4])
def test_mse_clip_takes_the_best_of_all_eighty_ranges(bits: int, weight_grid: str) -> None:
    heavy = np.random.default_rng(3).standard_t(3, (6, 64))
    weight = torch.tensor(heavy, dtype=torch.float32)
    found = nearest(weight, WeightGrid(bits, 32, weight_grid, mse_clip=True, scale_dtype="float32")).numpy()
    groups = weight.double().numpy().reshape(-1, 32)
    gains = []
    for group, result in zip(groups, found.reshape(-1, 32), strict=True):
        tried = [naive_round(group, bits, weight_grid, 1 - i / 100) for i in range(80)]
        losses = [np.sum(np.abs(candidate - group) ** 2.4) for candidate in tried]
        assert np.sum(np.abs(result - group) ** 2.4) == pytest.approx(min(losses), rel=1e-4)
        gains.append(losses[0] / min(losses))
    assert max(gains) > 1.1, "heavy tails must be worth clipping somewhere"


@pytest.mark.parametrize("mse_clip", [False, True])
def test_groups_of_zeros_have_the_range_of_one(mse_clip: bool) -> None:
    steps = {"asym_with_zero": 2 / 15, "asym_minmax": 2 / 15, "sym_full": 2 / 15, "sym_restricted": 1 / 7}
    for weight_grid, step in steps.items():
        grid = WeightGrid(4, 32, weight_grid, mse_clip, scale_dtype="float32")
        scale, _ = grid.parameters(torch.zeros(1, 32))  # every clip is equally good: the first, none, is kept
        assert scale.item() == pytest.approx(step)


def test_symmetric_grids_differ_at_the_positive_peak() -> None:
    weight = torch.tensor([[1.0, -0.25, 0.5, -0.75]])
    full = nearest(weight, WeightGrid(2, -1, "sym_full"))
    restricted = nearest(weight, WeightGrid(2, -1, "sym_restricted"))
    assert full[0, 0] == pytest.approx(2 / 3, abs=1e-3)  # 2 bits: levels −2..1 times 2/3, the peak is cut
    assert restricted[0, 0] == 1.0


@pytest.mark.parametrize("weight_grid", GRIDS)
def test_one_sided_groups_keep_their_size(weight_grid: str) -> None:
    positive = torch.linspace(0.5, 1.5, 64).reshape(2, 32)
    for weight in (positive, -positive):
        found = nearest(weight, WeightGrid(4, 32, weight_grid))
        step = {"asym_with_zero": 0.1, "asym_minmax": 1 / 15, "sym_full": 0.2, "sym_restricted": 1.5 / 7}
        # sym_full cuts the positive peak by half a step on top of the rounding
        assert (found - weight).abs().max() <= step[weight_grid] * 0.51


@pytest.mark.parametrize("weight_grid", GRIDS)
@pytest.mark.parametrize("value", [0.0, 1e-9, 1e-6, 1e-3, 1.0, 1e3])
def test_constant_groups_stay_finite_and_close(value: float, weight_grid: str) -> None:
    weight = torch.full((3, 32), value)
    found = nearest(weight, WeightGrid(4, 32, weight_grid))
    assert torch.isfinite(found).all()
    # half a step, and fifteen times the rounding of a scale below the normal range of fp16
    assert (found - weight).abs().max() <= 0.08 * value + 15 * 2.0**-25


@given(
    bits=st.sampled_from([2, 3, 4, 8]),
    weight_grid=st.sampled_from(GRIDS),
    seed=st.integers(0, 10**6),
    exponent=st.integers(-6, 4),
    shift=st.floats(-3, 3),
)
@settings(max_examples=150, deadline=None)
def test_error_is_half_a_step_inside_the_range(
    bits: int, weight_grid: str, seed: int, exponent: int, shift: float
) -> None:
    noise = np.random.default_rng(seed).standard_normal((3, 64)) + shift
    weight = torch.tensor(noise * 10.0**exponent, dtype=torch.float32)
    grid = WeightGrid(bits, 32, weight_grid)
    scale, zero = grid.parameters(weight)
    codes = Nearest().quantize(weight, grid, None)
    step, offset = (part.double().repeat_interleave(32, 1) for part in (scale, zero))
    inside = (weight >= step * (0 - offset)) & (weight <= step * (2**bits - 1 - offset))
    error = (codes.dequantize().double() - weight.double()).abs()
    slack = 1e-5 * weight.abs().max().item()
    assert bool((error[inside] <= step[inside] / 2 + slack).all())
    assert inside.double().mean() > 0.3
    assert torch.equal(scale, scale.half().float()), "codes must be found on the stored scale"


def test_group_sizes_that_do_not_divide_are_named() -> None:
    check_divides(64, 192)
    check_divides(-1, 7)
    with pytest.raises(RecipeError, match=r"128 does not divide the 192 .* -1, 32, 64$") as caught:
        check_divides(128, 192)
    assert caught.value.field == "group_size"
    with pytest.raises(RecipeError, match="does not divide"):
        WeightGrid(4, 128).parameters(torch.zeros(2, 192))


@pytest.mark.parametrize("weight_grid", GRIDS)
def test_clip_ratio_shrinks_both_ends_of_the_range(weight_grid: str) -> None:
    weight = torch.tensor(np.random.default_rng(8).standard_normal((4, 64)), dtype=torch.float32)
    grid = WeightGrid(4, -1, weight_grid, weight_clip_ratio=0.8, scale_dtype="float32")
    expected = np.stack([naive_round(row, 4, weight_grid, 0.8) for row in weight.double().numpy()])
    assert np.isclose(nearest(weight, grid).numpy(), expected, atol=1e-5).mean() > 0.97

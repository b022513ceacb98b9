"""GPTQ against explicit inverse-Hessian elimination in float64, column by column, and against brute force."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from quant.errors import PoisonedLayer
from quant.rounding.gptq import GPTQ
from quant.rounding.nearest import Nearest
from quant.statistics import LayerStatistics, StatisticsCollector
from quant.weights import WeightGrid

BLOCK = 128
RESTRICTED = "sym_restricted"


def parameters(groups: np.ndarray, bits: int, grid: str) -> tuple[np.ndarray, np.ndarray]:
    """Scale (rounded to fp16) and zero of each row of `groups`, by the definitions of the grids."""
    levels, half = 2**bits - 1, 2 ** (bits - 1)
    lo, hi = groups.min(1), groups.max(1)
    if grid == "asym_with_zero":
        lo, hi = np.minimum(lo, 0), np.maximum(hi, 0)
    empty = (lo == 0) & (hi == 0)
    lo, hi = np.where(empty, -1, lo), np.where(empty, 1, hi)
    peak = np.maximum(np.abs(lo), np.abs(hi))
    scale = {"sym_full": 2 * peak / levels, RESTRICTED: peak / (half - 1)}.get(grid, (hi - lo) / levels)
    scale = np.float16(scale).astype(float)
    return scale, np.round(-lo / scale) if grid.startswith("asym") else np.full_like(scale, half)


def naive_gptq(weight: np.ndarray, gram: np.ndarray, grid: WeightGrid, method: GPTQ) -> np.ndarray:
    """Ŵ [n_out, n_in]: eliminate one column of the inverse Hessian at a time, no blocks, no Cholesky factor."""
    hessian, w = gram.copy(), weight.copy()
    width = w.shape[1] if grid.group_size == -1 else grid.group_size
    dead = np.diag(hessian) == 0
    hessian[dead, dead] = 1
    first = w.copy()
    w[:, dead] = 0
    if grid.group_size != -1:
        first = w.copy()
    order = np.argsort(-np.diag(hessian), kind="stable") if method.act_order else np.arange(w.shape[1])
    hessian = hessian + method.damping * np.mean(np.diag(hessian)) * np.eye(len(hessian))
    inverse = np.linalg.inv(hessian[np.ix_(order, order)])
    w = w[:, order]
    found = np.zeros_like(w)
    for i, column in enumerate(order):
        if i % BLOCK == 0:
            snapshot = w.copy()
        if grid.group_size == -1 or method.static_groups:
            group = first[:, column // width * width : (column // width + 1) * width]
        else:
            group = snapshot[:, i // width * width : (i // width + 1) * width]
        scale, zero = parameters(group, grid.wbits, grid.weight_grid)
        codes = np.clip(np.round(w[:, i] / scale) + zero, 0, 2**grid.wbits - 1)
        found[:, i] = scale * (codes - zero)
        error = (w[:, i] - found[:, i]) / inverse[i, i]
        w[:, i:] -= np.outer(error, inverse[i, i:])
        inverse = inverse - np.outer(inverse[:, i], inverse[i, :]) / inverse[i, i]
    restored = np.zeros_like(found)
    restored[:, order] = found
    return restored


def output_error(weight: np.ndarray, found: np.ndarray, gram: np.ndarray) -> float:
    missed = weight - found
    return float(np.sqrt(np.sum((missed @ gram) * missed) / np.sum((weight @ gram) * weight)))


CASES = [
    *(({"wbits": bits}, {}) for bits in (2, 3, 4, 8)),
    *(({"wbits": 3, "group_size": size}, {}) for size in (-1, 32, 64)),
    *(({"weight_grid": name}, {}) for name in ("asym_minmax", "sym_full", RESTRICTED)),
    ({"wbits": 3, "weight_grid": RESTRICTED, "group_size": -1}, {"act_order": True}),
    ({"wbits": 3}, {"act_order": True}),
    ({"wbits": 3, "group_size": 32}, {"act_order": True}),
    ({"wbits": 3}, {"static_groups": True}),
    ({"wbits": 2, "group_size": 64}, {"act_order": True, "static_groups": True}),
    ({"wbits": 4}, {"damping": 0.1}),
]


@pytest.mark.parametrize(("of_grid", "of_method"), CASES)
def test_equals_naive_elimination(layer: Any, of_grid: dict[str, Any], of_method: dict[str, Any]) -> None:
    grid, method = WeightGrid(**of_grid), GPTQ(**of_method)
    weight = layer.weight.double().numpy()
    expected = naive_gptq(weight, layer.gram, grid, method)
    found = method.quantize(layer.weight, grid, layer.statistics).dequantize().double().numpy()
    same = np.isclose(found, expected, rtol=1e-5, atol=1e-7).mean()
    assert same > 0.99  # a code that sits on a tie may differ between float32 and float64
    error = output_error(weight, found, layer.gram)
    assert error == pytest.approx(output_error(weight, expected, layer.gram), rel=3e-3)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group_size", [-1, 128, 32])
@pytest.mark.parametrize("act_order", [False, True])
def test_beats_nearest_on_correlated_inputs(layer: Any, bits: int, group_size: int, act_order: bool) -> None:
    grid = WeightGrid(bits, group_size)
    weight = layer.weight.double().numpy()
    gptq = GPTQ(act_order=act_order).quantize(layer.weight, grid, layer.statistics).dequantize()
    nearest = Nearest().quantize(layer.weight, grid, None).dequantize()
    errors = [output_error(weight, found.double().numpy(), layer.gram) for found in (gptq, nearest)]
    assert errors[0] < errors[1]
    if bits > 2:
        assert errors[0] < 0.8 * errors[1]


def statistics_of(gram: np.ndarray) -> LayerStatistics:
    """Statistics of tokens whose Gram matrix is exactly `gram` (up to float32)."""
    collector = StatisticsCollector(len(gram))
    collector.add(torch.tensor(np.linalg.cholesky(gram).T, dtype=torch.float32))
    return collector.finish()


@pytest.mark.parametrize("correlation", [-0.95, -0.4, 0.0, 0.7, 0.99])
def test_two_columns_are_optimal_given_the_first(correlation: float) -> None:
    weight = np.random.default_rng(5).standard_normal((40, 2))
    damping, gram = 1e-6, np.array([[2.0, correlation * 2], [correlation * 2, 2.0]])
    grid = WeightGrid(2, -1, "sym_full")
    codes = GPTQ(damping=damping).quantize(torch.tensor(weight), grid, statistics_of(gram))
    nearest = Nearest().quantize(torch.tensor(weight), grid, None)
    for row in range(len(weight)):
        step = codes.scale[row].item()
        missed = {
            pair: weight[row] - step * (np.array(pair) - 2) for pair in itertools.product(range(4), repeat=2)
        }
        loss = {pair: float(error @ gram @ error) for pair, error in missed.items()}
        chosen, plain = tuple(codes.codes[row].tolist()), tuple(nearest.codes[row].tolist())
        assert chosen[0] == plain[0]
        assert loss[chosen] == pytest.approx(min(loss[chosen[0], second] for second in range(4)), rel=1e-4)
        assert min(loss.values()) - 1e-9 <= loss[chosen] <= loss[plain] * (1 + 1e-4)


def test_uncorrelated_inputs_leave_nothing_to_compensate() -> None:
    weight = torch.tensor(np.random.default_rng(2).standard_normal((8, 64)), dtype=torch.float32)
    gram = np.diag(np.linspace(1, 3, 64))
    for group_size in (-1, 32):
        grid = WeightGrid(3, group_size)
        found = GPTQ().quantize(weight, grid, statistics_of(gram))
        assert torch.equal(found.codes, Nearest().quantize(weight, grid, None).codes)


def test_dead_columns_become_zero_and_group_numbers_follow_the_order(layer: Any) -> None:
    grid = WeightGrid(4, 64)
    found = GPTQ(act_order=True).quantize(layer.weight, grid, layer.statistics)
    assert found.dequantize()[:, 131].abs().max() == 0
    diagonal = np.diag(layer.gram).copy()
    diagonal[131] = 1
    ranks = np.argsort(np.argsort(-diagonal, kind="stable"), kind="stable")
    assert found.group_index is not None
    assert found.group_index.tolist() == (ranks // 64).tolist()
    static = GPTQ(act_order=True, static_groups=True).quantize(layer.weight, grid, layer.statistics)
    assert static.group_index is None


@pytest.mark.parametrize("features", [1, 2, 100, 130])
def test_widths_that_are_no_multiple_of_a_block(features: int) -> None:
    rng = np.random.default_rng(features)
    x = rng.standard_normal((2 * features + 2, features)) @ (np.eye(features) + 0.1)
    weight = torch.tensor(rng.standard_normal((4, features)), dtype=torch.float32)
    grid = WeightGrid(4, -1)
    found = GPTQ().quantize(weight, grid, statistics_of(x.T @ x)).dequantize().double().numpy()
    expected = naive_gptq(weight.double().numpy(), x.T @ x, grid, GPTQ())
    assert np.isclose(found, expected, rtol=1e-4, atol=1e-6).mean() > 0.98


def test_inputs_are_not_changed(layer: Any) -> None:
    weight, gram = layer.weight.clone(), layer.statistics.gram.clone()
    GPTQ(act_order=True).quantize(layer.weight, WeightGrid(3, 64), layer.statistics)
    assert torch.equal(weight, layer.weight)
    assert torch.equal(gram, layer.statistics.gram)


def test_statistics_are_needed() -> None:
    with pytest.raises(PoisonedLayer, match="statistics"):
        GPTQ().quantize(torch.zeros(2, 32), WeightGrid(4, 32), None)

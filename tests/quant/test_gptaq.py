"""GPTAQ against explicit inverses of every trailing Gram matrix in float64, column by column."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from quant.errors import PoisonedLayer
from quant.rounding.gptaq import GPTAQ
from quant.rounding.gptq import GPTQ
from quant.statistics import LayerStatistics, StatisticsCollector
from quant.weights import WeightGrid


def naive_gptaq(weight: np.ndarray, x: np.ndarray, full: np.ndarray, bits: int, method: GPTAQ) -> np.ndarray:
    """Ŵ on the sym_restricted grid of whole rows: trailing columns solved for afresh after every column."""
    hessian, cross, w = x.T @ x, (full - x).T @ x, weight.copy()
    half = 2 ** (bits - 1)
    scale = np.float16(np.abs(w).max(1) / (half - 1)).astype(float)
    dead = np.diag(hessian) == 0
    hessian[dead, dead] = 1
    w[:, dead] = 0
    order = np.argsort(-np.diag(hessian), kind="stable") if method.act_order else np.arange(len(hessian))
    hessian += method.damping * np.mean(np.diag(hessian)) * np.eye(len(hessian))
    hessian, cross, w = hessian[np.ix_(order, order)], cross[np.ix_(order, order)], w[:, order]
    found = np.zeros_like(w)
    for i in range(len(order)):
        found[:, i] = scale * np.clip(np.round(w[:, i] / scale), -half, half - 1)
        rest = slice(i + 1, None)
        inverse = torch.linalg.inv(torch.tensor(hessian[rest, rest])).numpy()
        w[:, rest] += np.outer(w[:, i] - found[:, i], hessian[i, rest] @ inverse)
        w[:, rest] += method.gptaq_alpha * np.outer(w[:, i], cross[i, rest] @ inverse)
    restored = np.zeros_like(found)
    restored[:, order] = found
    return restored


@pytest.mark.parametrize(("bits", "fields"), [(3, {}), (4, {"gptaq_alpha": 1.0}), (2, {"act_order": True})])
def test_equals_naive_elimination(layer: Any, bits: int, fields: dict[str, Any]) -> None:
    method = GPTAQ(**fields)
    columns = slice(60, 220)  # more than one block, with the dead column
    weight, x, full = (part[:, columns] for part in (layer.weight, layer.calibration, layer.full))
    collector = StatisticsCollector(160)
    collector.add(x, full)
    found = method.quantize(weight, WeightGrid(bits, -1, "sym_restricted"), collector.finish()).dequantize()
    expected = naive_gptaq(*(part.double().numpy() for part in (weight, x, full)), bits, method)
    assert np.isclose(found.double().numpy(), expected, rtol=1e-5, atol=1e-7).mean() > 0.99


@pytest.mark.parametrize("fields", [{}, {"act_order": True}, {"static_groups": True, "damping": 0.1}])
def test_equal_inputs_make_it_gptq(layer: Any, fields: dict[str, Any]) -> None:
    same = replace(layer.statistics, cross=torch.zeros_like(layer.statistics.gram))
    expected = GPTQ(**fields).quantize(layer.weight, WeightGrid(3, 64), layer.statistics)
    for method, statistics in ((GPTAQ(**fields), same), (GPTAQ(**fields, gptaq_alpha=0.0), layer.statistics)):
        found = method.quantize(layer.weight, WeightGrid(3, 64), statistics)
        assert torch.equal(found.codes, expected.codes)
        assert torch.equal(found.scale, expected.scale)


def drifted(layer: Any) -> tuple[torch.Tensor, LayerStatistics]:
    """Inputs that a quantized prefix shrank and mixed, as the same linear map for every token."""
    mix = torch.tensor(np.random.default_rng(0).standard_normal((256, 256)), dtype=torch.float32) / 160
    full = layer.calibration + layer.calibration @ mix
    collector = StatisticsCollector(256)
    collector.add(layer.calibration, full)
    return full, collector.finish()


@pytest.mark.parametrize("bits", [3, 4])
def test_outputs_come_closer_to_those_of_full_precision(layer: Any, bits: int) -> None:
    full, statistics = drifted(layer)
    wanted = full.double() @ layer.weight.double().T

    def error(method: GPTQ) -> float:
        found = method.quantize(layer.weight, WeightGrid(bits, 128), statistics).dequantize().double()
        return float((layer.calibration.double() @ found.T - wanted).norm() / wanted.norm())

    assert error(GPTAQ(gptaq_alpha=1.0)) < error(GPTAQ()) < error(GPTQ())


def test_the_cross_matrix_is_needed(layer: Any) -> None:
    with pytest.raises(PoisonedLayer, match="cross matrix"):
        GPTAQ().quantize(layer.weight, WeightGrid(), replace(layer.statistics, cross=None))


def test_cross_is_summed_over_batches_and_kept(layer: Any) -> None:
    collector = StatisticsCollector(256)
    for part in (slice(0, 100), slice(100, 320)):
        collector.add(layer.calibration[part], layer.full[part])
    statistics = LayerStatistics.from_tensors(collector.finish().to_tensors())
    x, full = layer.calibration.double(), layer.full.double()
    expected = (full - x).T @ x
    assert statistics.cross is not None
    assert (statistics.cross.double() - expected).norm() < 1e-5 * expected.norm()
    with pytest.raises(ValueError, match="every batch"):
        collector.add(layer.calibration)

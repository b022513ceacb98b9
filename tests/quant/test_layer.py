"""One layer through a recipe: the report against errors computed from the tokens, and layers that fail."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from quant.errors import PoisonedLayer, RecipeError, SolveFailed
from quant.layer import quantize_layer
from quant.protocols import Site
from quant.recipe import resolve
from quant.registry import ROUNDINGS, TRANSFORMS
from quant.statistics import StatisticsCollector
from quant.transforms.smoothquant import SmoothScale

REPORT = {
    "relative_output_error",
    "relative_output_error_held_out",
    "rtn_output_error",
    "relative_weight_error",
    "damping_used",
    "dead_columns",
    "clipped_fraction",
    "finite",
    "worse_than_rtn",
    "code_bits",
    "linear_bits",
    "seconds",
}


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


@pytest.mark.parametrize("rounding", sorted(ROUNDINGS))
@pytest.mark.parametrize("transform", sorted(TRANSFORMS))
@pytest.mark.parametrize("abits", [16, 4])
def test_the_report_is_true(layer: Any, rounding: str, transform: str, abits: int) -> None:
    recipe = resolve({"method": "rtn", "rounding": rounding, "transform": transform, "wbits": 4, "abits": abits})
    packed, report = quantize_layer(layer.weight, recipe, layer.statistics)
    assert set(report) == REPORT
    x, w, held_out = (part.double() for part in (layer.calibration, layer.weight, layer.held_out))
    effective = packed.effective().double()
    assert report["relative_output_error"] == pytest.approx(relative(x @ effective.T, x @ w.T), rel=1e-3)
    plain = quantize_layer(layer.weight, resolve({"method": "rtn", "wbits": 4}), None)[0].dequantize().double()
    assert report["rtn_output_error"] == pytest.approx(relative(x @ plain.T, x @ w.T), rel=1e-3)
    run = recipe.activation.quantize(packed.transform.apply_input(layer.held_out)).double()
    output = run @ packed.dequantize().double().T
    assert report["relative_output_error_held_out"] == pytest.approx(relative(output, held_out @ w.T), rel=1e-3)
    assert report["dead_columns"] == 1
    assert report["finite"] is True
    assert report["damping_used"] == (None if rounding == "nearest" else 0.01)
    assert report["worse_than_rtn"] == (report["relative_output_error"] > report["rtn_output_error"])


def test_without_statistics_only_the_weights_are_measured(layer: Any) -> None:
    packed, report = quantize_layer(layer.weight, resolve({"method": "rtn"}), None)
    assert set(report) == REPORT
    assert report["relative_output_error"] is None
    assert report["dead_columns"] is None
    assert report["relative_weight_error"] == pytest.approx(relative(packed.dequantize(), layer.weight), rel=1e-4)
    assert report["worse_than_rtn"] is False


def test_clipping_is_counted() -> None:
    weight = torch.zeros(1, 32)
    weight[0, :4] = torch.tensor([1.0, 0.9, 0.1, -1.0])

    def clipped(weight: torch.Tensor, **fields: object) -> object:
        recipe = resolve({"method": "rtn", "wbits": 2, "group_size": 32, **fields})
        return quantize_layer(weight, recipe, None)[1]["clipped_fraction"]

    assert clipped(weight, weight_grid="asym_minmax") == 0  # at most half a step is rounding, not clipping
    assert clipped(weight, weight_grid="sym_full") == 0
    heavy = torch.full((1, 32), 0.15)
    heavy[0, 0] = 1.0
    assert clipped(heavy) == 0
    assert clipped(heavy, mse_clip=True) == 1 / 32


def test_worse_than_nearest_is_flagged(layer: Any) -> None:
    recipe = resolve({"method": "rtn", "transform": "smoothquant"})
    bad = SmoothScale(torch.tensor([0.8, 1.25] * 128, dtype=torch.float16))
    report = quantize_layer(layer.weight, recipe, layer.statistics, bad)[1]
    assert report["rtn_output_error"] < report["relative_output_error"] < 2 * report["rtn_output_error"]
    assert report["worse_than_rtn"] is True
    plain = resolve({"method": "rtn"})
    assert quantize_layer(layer.weight, plain, layer.statistics)[1]["worse_than_rtn"] is False


@pytest.mark.parametrize("method", ["rtn", "gptq"])
@pytest.mark.parametrize("wbits", [2, 3, 4, 8])
@pytest.mark.parametrize("tokens", [1, 3])
def test_degenerate_layers_stay_finite(method: str, wbits: int, tokens: int) -> None:
    weight = torch.zeros(6, 64)
    weight[1] = 0.5
    weight[2, 0] = 1e-7
    weight[3] = torch.linspace(-1, 1, 64)
    weight[4, 5] = 1e4
    collector = StatisticsCollector(64)
    inputs = torch.zeros(tokens, 64)
    inputs[:, ::2] = torch.linspace(1, 300, 32)
    collector.add(inputs)
    recipe = resolve({"method": method, "wbits": wbits, "group_size": 32})
    packed, report = quantize_layer(weight, recipe, collector.finish())
    assert torch.isfinite(packed.dequantize()).all()
    assert report["finite"] is True
    assert all(value is None or np.isfinite(value) for value in report.values())
    assert not packed.dequantize()[0].any()


def test_a_layer_of_zeros_is_exact(layer: Any) -> None:
    packed, report = quantize_layer(torch.zeros(4, 256), resolve({"method": "gptq"}), layer.statistics)
    assert not packed.dequantize().any()
    assert report["relative_output_error"] == 0
    assert report["relative_weight_error"] == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_poison_is_refused(layer: Any, value: float) -> None:
    weight = layer.weight.clone()
    weight[3, 4] = value
    with pytest.raises(PoisonedLayer, match="weight holds values that are not finite"):
        quantize_layer(weight, resolve({"method": "rtn"}), None)
    collector = StatisticsCollector(256)
    tokens = layer.calibration.clone()
    tokens[5, 6] = value
    collector.add(tokens)
    with pytest.raises(PoisonedLayer, match="calibration inputs"):
        quantize_layer(layer.weight, resolve({"method": "gptq"}), collector.finish())


def test_missing_and_foreign_statistics_are_refused(layer: Any) -> None:
    with pytest.raises(PoisonedLayer, match="needs calibration statistics"):
        quantize_layer(layer.weight, resolve({"method": "gptq"}), None)
    with pytest.raises(ValueError, match="256 features for a layer with 128 inputs"):
        quantize_layer(layer.weight[:, :128], resolve({"method": "gptq"}), layer.statistics)
    with pytest.raises(RecipeError, match="group_size 128 does not divide the 96"):
        quantize_layer(layer.weight[:, :96], resolve({"method": "rtn"}), None)
    broken = dataclasses.replace(layer.statistics, gram=-layer.statistics.gram)
    with pytest.raises(SolveFailed):
        quantize_layer(layer.weight, resolve({"method": "gptq"}), broken)


def test_a_shared_transform_is_used_as_given(layer: Any) -> None:
    recipe = resolve({"method": "rtn", "transform": "smoothquant", "wbits": 8, "abits": 8})
    weights = {"a": layer.weight, "b": 5 * layer.weight}
    fitted = recipe.transform.fit(Site(weights, layer.statistics), recipe.weights)["a"]
    packed, _ = quantize_layer(layer.weight, recipe, layer.statistics, fitted)
    assert packed.transform is fitted


def test_smoothing_helps_where_activations_have_outliers(layer: Any) -> None:
    def held_out(**fields: object) -> float:
        recipe = resolve({"method": "rtn", "wbits": 8, "abits": 8, "group_size": -1, **fields})
        return quantize_layer(layer.weight, recipe, layer.statistics)[1]["relative_output_error_held_out"]

    assert held_out(transform="smoothquant") < 0.7 * held_out()


def test_results_do_not_depend_on_the_run(layer: Any) -> None:
    recipe = resolve({"method": "gptq", "wbits": 3, "act_order": True})
    first, second = (quantize_layer(layer.weight, recipe, layer.statistics) for _ in range(2))
    for name, tensor in first[0].to_tensors().items():
        assert torch.equal(tensor, second[0].to_tensors()[name])

"""What every transform must keep: the layer's output, and the statistics of the inputs it makes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from quant.errors import PoisonedLayer
from quant.protocols import FittedTransform, Site
from quant.registry import TRANSFORMS
from quant.statistics import StatisticsCollector
from quant.transforms.identity import Identity
from quant.transforms.scaling import ChannelScale
from quant.transforms.smoothquant import SmoothQuant
from quant.weights import WeightGrid

GRID = WeightGrid()


def fit(name: str, layer: Any) -> FittedTransform:
    """The transform of a layer with every kind of neighbour."""
    gain = layer.weight.abs().amax(0) + 0.1
    site = Site({"only": layer.weight}, layer.statistics, gain=gain, writes={"only": 16})
    return TRANSFORMS[name]().fit(site, GRID)["only"]


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_the_layer_computes_the_same(layer: Any, name: str) -> None:
    fitted = fit(name, layer)
    plain = layer.calibration.double() @ layer.weight.double().T
    turned = fitted.apply_input(layer.calibration).double() @ fitted.apply_weight(layer.weight).double().T
    assert (turned - plain).norm() < 1e-6 * plain.norm()
    rounded = fitted.apply_output(fitted.apply_weight(layer.weight))
    restored = fitted.restore_weight(fitted.restore_output(rounded))
    assert (restored - layer.weight).norm() < 3e-5 * layer.weight.norm()  # unequal scales were mixed on the way


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_statistics_are_those_of_the_transformed_inputs(layer: Any, name: str) -> None:
    fitted = fit(name, layer)
    found = fitted.apply_statistics(layer.statistics)
    collector = StatisticsCollector(layer.weight.shape[1], sample_rows=64, seed=1)
    collector.add(fitted.apply_input(layer.calibration), fitted.apply_input(layer.full))
    collector.add_held_out(fitted.apply_input(layer.held_out))
    expected = collector.finish()
    assert found.tokens == expected.tokens
    if not isinstance(fitted, ChannelScale | Identity):  # ranges of mixed channels are those of the sample
        sample = StatisticsCollector(layer.weight.shape[1])
        sample.add(fitted.apply_input(layer.statistics.sample))
        seen = sample.finish()
        expected = replace(expected, absmax=seen.absmax, mean_abs=seen.mean_abs)
    for part in ("gram", "absmax", "mean_abs", "sample", "held_out", "cross"):
        a, b = getattr(found, part), getattr(expected, part)
        assert (a - b).norm() < 1e-5 * b.norm(), part


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_stored_transforms_come_back(layer: Any, name: str) -> None:
    fitted = fit(name, layer)
    again = TRANSFORMS[name].from_tensors(fitted.to_tensors())
    assert torch.equal(again.restore_output(layer.weight), fitted.restore_output(layer.weight))
    assert again.name == name
    assert torch.equal(again.apply_input(layer.calibration), fitted.apply_input(layer.calibration))


@pytest.mark.parametrize("alpha", [0.3, 0.5, 1.0])
def test_smoothquant_scales(layer: Any, alpha: float) -> None:
    weights = {"a": layer.weight, "b": 3 * layer.weight.flip(0), "c": layer.weight[:5]}
    fitted = SmoothQuant(alpha).fit(Site(weights, layer.statistics), GRID)
    assert fitted["a"] is fitted["b"] is fitted["c"]
    found = fitted["a"].channel_scale.double().numpy()
    activation = np.maximum(np.abs(layer.calibration.double().numpy()).max(0), 1e-5)
    weight = np.maximum(np.abs(3 * layer.weight.double().numpy()).max(0), 1e-5)
    expected = np.maximum(activation**alpha / weight ** (1 - alpha), 0.01)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_smoothquant_needs_statistics() -> None:
    with pytest.raises(PoisonedLayer, match="statistics"):
        SmoothQuant().fit(Site({"only": torch.ones(2, 2)}), GRID)

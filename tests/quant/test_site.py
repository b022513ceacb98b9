"""Layers that share an input: one transform for all, the same numbers as layer by layer, and who is blamed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from quant.errors import PoisonedLayer
from quant.layer import quantize_layer
from quant.protocols import Site
from quant.recipe import resolve
from quant.site import quantize_site
from quant.statistics import LayerStatistics


def site_of(layer: Any, statistics: LayerStatistics | None = None, **others: torch.Tensor) -> Site:
    return Site({"q_proj": layer.weight, "k_proj": 2 * layer.weight[:16], **others}, statistics)


def test_without_transform_layers_are_independent(layer: Any) -> None:
    recipe = resolve({"method": "gptq", "wbits": 3})
    site = site_of(layer, layer.statistics)
    for name, (packed, report) in quantize_site(site, recipe).items():
        alone, expected = quantize_layer(site.weights[name], recipe, layer.statistics)
        assert torch.equal(packed.dequantize(), alone.dequantize())
        assert report["relative_output_error"] == expected["relative_output_error"]


def test_layers_share_the_scale_of_the_largest_weights(layer: Any) -> None:
    recipe = resolve({"method": "smoothquant"})
    done = quantize_site(site_of(layer, layer.statistics), recipe)
    scale = done["q_proj"][0].transform.to_tensors()["channel_scale"].double()
    assert torch.equal(done["k_proj"][0].transform.to_tensors()["channel_scale"].double(), scale)
    peak = torch.maximum(layer.weight.abs().amax(0), 2 * layer.weight[:16].abs().amax(0)).double()
    activation = layer.calibration.double().abs().amax(0).clamp(min=1e-5)
    torch.testing.assert_close(scale, (activation / peak).sqrt().clamp(min=0.01), rtol=1e-3, atol=0)


def test_the_layer_at_fault_is_named(layer: Any) -> None:
    broken = layer.weight.clone()
    broken[0, 0] = float("nan")
    with pytest.raises(PoisonedLayer, match="v_proj: the weight holds"):
        quantize_site(site_of(layer, layer.statistics, v_proj=broken), resolve({"method": "smoothquant"}))
    with pytest.raises(PoisonedLayer, match="needs calibration statistics"):
        quantize_site(site_of(layer), resolve({"method": "smoothquant"}))
    with pytest.raises(ValueError, match="one width"):
        quantize_site(site_of(layer, o_proj=layer.weight[:, :128]), resolve({"method": "rtn"}))

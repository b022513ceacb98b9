"""AWQ's two searches against naive float64 searches over tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from quant.errors import PoisonedLayer
from quant.layer import quantize_layer
from quant.protocols import Site
from quant.recipe import resolve
from quant.rounding.clipping import clip_weights
from quant.rounding.nearest import Nearest
from quant.site import quantize_site
from quant.transforms.awq import AWQ
from quant.weights import WeightGrid


def naive_round(weight: np.ndarray, bits: int, width: int) -> np.ndarray:
    """asym_minmax with the zero point clamped, scale rounded to float16, group by group."""
    groups = weight.reshape(-1, width)
    lo, hi = groups.min(1, keepdims=True), groups.max(1, keepdims=True)
    scale = np.float16(np.maximum(hi - lo, 1e-5) / (2**bits - 1)).astype(float)
    zero = np.clip(np.round(-lo / scale), 0, 2**bits - 1)
    return (scale * (np.clip(np.round(groups / scale) + zero, 0, 2**bits - 1) - zero)).reshape(weight.shape)


def grid_of(bits: int, group_size: int) -> WeightGrid:
    return WeightGrid(bits, group_size, "asym_minmax", clamp_zero=True)


def scale_of(layer: Any, weights: dict[str, torch.Tensor], grid: WeightGrid, **fields: bool) -> np.ndarray:
    fitted = AWQ(**fields).fit(Site(weights, layer.statistics), grid)
    assert len({id(scale) for scale in fitted.values()}) == 1
    return next(iter(fitted.values())).channel_scale.double().numpy()


@pytest.mark.parametrize(("bits", "group_size"), [(2, 128), (3, 32), (4, 64), (4, -1)])
def test_scale_search_takes_the_best_exponent_of_all_layers_together(
    layer: Any, bits: int, group_size: int
) -> None:
    weights = {"a": layer.weight, "b": 3 * layer.weight[:9].roll(5, 1)}
    x = layer.calibration.double().numpy()
    mean, errors, scales = np.abs(x).mean(0), [], []
    for step in range(20):
        scale = np.maximum(mean ** (step / 20), 1e-4)
        scale /= np.sqrt(scale.max() * scale.min())
        scales.append(np.float16(scale).astype(float))
        error = 0.0
        for weight in weights.values():
            w = weight.double().numpy()
            found = naive_round(w * scales[-1], bits, 256 if group_size == -1 else group_size) / scales[-1]
            error += float(np.sum((x @ (found - w).T) ** 2))
        errors.append(error)
    found = scale_of(layer, weights, grid_of(bits, group_size))
    nearby = [step for step in range(20) if errors[step] < 1.002 * min(errors)]
    assert any(np.allclose(found, scales[step], rtol=2e-3) for step in nearby)
    assert errors[0] > 1.1 * min(errors), "a scale must be worth having"


def test_without_search_no_channel_is_scaled(layer: Any) -> None:
    assert (scale_of(layer, {"a": layer.weight}, grid_of(4, 128), scale_search=False) == 1).all()


@pytest.mark.parametrize(("bits", "group_size"), [(2, 64), (3, 128), (4, 32), (4, -1)])
def test_clip_search_takes_the_best_of_ten_limits(layer: Any, bits: int, group_size: int) -> None:
    width = 256 if group_size == -1 else group_size
    weight, x = layer.weight[:12].double().numpy(), layer.calibration.double().numpy()
    clipped = clip_weights(layer.weight[:12], grid_of(bits, group_size), layer.statistics.gram).double().numpy()
    gains = []
    for start in range(0, 256, width):
        part, inputs = weight[:, start : start + width], x[:, start : start + width]
        found = clipped[:, start : start + width]
        for row in range(12):
            tried = [np.abs(part[row]).max() * (1 - step / 20) for step in range(10)]
            cut = [np.clip(part[row], -limit, limit) for limit in tried]
            errors = [np.sum((inputs @ (naive_round(c[None], bits, width)[0] - part[row])) ** 2) for c in cut]
            chosen = np.sum((inputs @ (naive_round(found[row][None], bits, width)[0] - part[row])) ** 2)
            assert any(np.allclose(found[row], c, rtol=1e-5) for c in cut)
            # Cut groups put the zero point half-way between two integers: float32 may land on either.
            assert chosen <= 1.3 * min(errors) + 1e-6
            gains.append((errors[0] + 1e-9) / (chosen + 1e-9))
    assert np.median(gains) > 1.05, "clipping must be worth it somewhere"


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_each_search_lowers_the_error(layer: Any, bits: int) -> None:
    def error(scale_search: bool, clip_search: bool) -> Any:
        fields = {"scale_search": scale_search, "clip_search": clip_search}
        recipe = resolve({"method": "awq", "wbits": bits, **fields})
        return quantize_layer(layer.weight, recipe, layer.statistics)[1]["relative_output_error"]

    plain = error(False, False)
    assert error(True, False) < plain
    assert error(False, True) < plain
    assert error(True, True) < min(error(True, False), error(False, True))


def test_score_layers_keep_their_range(layer: Any) -> None:
    recipe = resolve({"method": "awq", "wbits": 3, "scale_search": False})
    site = Site({"q_proj": layer.weight, "v_proj": layer.weight}, layer.statistics, frozenset({"q_proj"}))
    done = {name: packed.dequantize() for name, (packed, _) in quantize_site(site, recipe).items()}
    assert torch.equal(done["q_proj"], recipe.weights.nearest(layer.weight))
    assert not torch.equal(done["v_proj"], done["q_proj"])


def test_statistics_are_needed(layer: Any) -> None:
    with pytest.raises(PoisonedLayer, match="statistics"):
        AWQ().fit(Site({"a": layer.weight}), grid_of(4, 128))
    with pytest.raises(PoisonedLayer, match="statistics"):
        Nearest(clip_search=True).quantize(layer.weight, grid_of(4, 128), None)

"""DuQuant's searches against naive float64 ones, and what they buy on inputs with outliers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from quant.errors import PoisonedLayer
from quant.layer import quantize_layer
from quant.protocols import Site
from quant.recipe import resolve
from quant.rotations import search_rotation, stepwise_rotation, zigzag
from quant.transforms.duquant import BlockRotations, DuQuant
from quant.weights import WeightGrid


def fit(layer: Any, **fields: Any) -> BlockRotations:
    return DuQuant(**fields).fit(Site({"only": layer.weight}, layer.statistics), WeightGrid())["only"]


@pytest.mark.parametrize("width", [16, 128])
def test_steps_spread_one_channel_over_all(width: int) -> None:
    step = stepwise_rotation(width, 3, [0]).numpy()
    np.testing.assert_allclose(step @ step.T, np.eye(width), atol=1e-13)
    np.testing.assert_allclose(step[:, 0], width**-0.5, atol=1e-13)  # the random part leaves the first axis alone
    assert np.linalg.norm(step[0]) == pytest.approx(1)
    assert np.abs(step[0]).max() < 0.8
    other = stepwise_rotation(width, 3, [5]).numpy()
    order = np.arange(width)
    order[[0, 5]] = 5, 0
    np.testing.assert_array_equal(other, step[np.ix_(order, order)])
    assert not np.allclose(step, stepwise_rotation(width, 4, [0]).numpy())


@pytest.mark.parametrize("by_row", [False, True])
def test_search_keeps_the_flattest_prefix_of_greedy_steps(by_row: bool) -> None:
    rows = np.random.default_rng(0).standard_normal((40, 32))
    rows[:, 7] *= 20
    rows[3, 19] = 300
    current, ranges, axes = rows.copy(), [np.ptp(rows)], []
    for _ in range(12):
        row, channel = np.unravel_index(np.abs(current).argmax(), current.shape)
        axes.append(int(row % 32 if by_row else channel))
        current = current @ stepwise_rotation(32, 9, [axes[-1]]).numpy()
        ranges.append(np.ptp(current))
    kept = int(np.argmin(ranges))
    found, rotated = search_rotation(torch.tensor(rows), 9, 12, by_row)
    assert found.tolist() == axes[:kept]
    assert kept > 0
    rotation = stepwise_rotation(32, 9, found.tolist()).numpy()
    np.testing.assert_allclose(rotated.numpy(), rows @ rotation, atol=1e-9)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(32), atol=1e-12)
    assert np.ptp(rows @ rotation) < 0.6 * np.ptp(rows)


def test_flat_rows_are_left_alone() -> None:
    found, rotated = search_rotation(torch.ones(4, 16), 0, 8)
    assert found.tolist() == [] or np.ptp(rotated.numpy()) == 0


def test_zigzag_deals_channels_in_snake_order() -> None:
    peaks = torch.tensor([5.0, 1, 8, 3, 7, 2, 6, 4, 0, 9, 11, 10])
    # sorted: 10 11 9 2 | 4 6 0 7 | 3 5 1 8, dealt to three blocks of four: 0 1 2, 2 1 0, 0 1 2, 2 1 0
    assert zigzag(peaks, 4).tolist() == [10, 6, 0, 8, 11, 4, 7, 1, 9, 2, 3, 5]


def test_the_transform_is_its_four_factors(layer: Any) -> None:
    fitted = fit(layer, rotation_block=64, rotation_steps=20)
    x = layer.held_out.double().numpy() / fitted.channel_scale.double().numpy()
    first, second = (
        np.kron(np.eye(4), stepwise_rotation(64, seed, steps.tolist()).numpy())
        for seed, steps in ((0, fitted.first), (1, fitted.second))
    )
    expected = (x @ first)[:, fitted.permutation.long().numpy()] @ second
    found = fitted.apply_input(layer.held_out).double().numpy()
    assert np.linalg.norm(found - expected) < 1e-6 * np.linalg.norm(expected)
    batched = fitted.apply_input(layer.held_out.reshape(4, 10, 256)).reshape(40, 256)
    assert torch.allclose(batched, fitted.apply_input(layer.held_out), rtol=1e-5, atol=1e-5)


def test_smoothing_can_be_left_out(layer: Any) -> None:
    fitted = fit(layer, alpha=0.0)
    assert fitted.channel_scale is None
    assert "channel_scale" not in fitted.to_tensors()
    assert not torch.equal(fit(layer, alpha=0.0, rotation_seed=1).apply_input(layer.held_out), layer.held_out)


def test_tokens_flatten(layer: Any) -> None:
    def spread(x: torch.Tensor) -> float:
        return float((x.amax(1) - x.amin(1)).mean() / x.std(1).mean())

    for pivot in ("channel", "row"):
        turned = fit(layer, alpha=0.0, rotation_pivot=pivot).apply_input(layer.held_out)
        assert spread(turned) < 0.7 * spread(layer.held_out)


def test_a_massive_token_outside_the_sample_is_seen(layer: Any) -> None:
    absmax = layer.statistics.absmax.clone()
    absmax[40] = 1e4
    statistics = replace(layer.statistics, absmax=absmax)
    fitted = DuQuant(alpha=0.0).fit(Site({"a": layer.weight}, statistics), WeightGrid())["a"]
    massive = torch.zeros(1, 256)
    massive[0, 40] = 1e4
    assert fitted.apply_input(massive).abs().max() < 3e3


@pytest.mark.parametrize("abits", [8, 4])
def test_rotation_recovers_what_nearest_loses(layer: Any, abits: int) -> None:
    def held_out(**fields: Any) -> Any:
        recipe = resolve(
            {"group_size": -1, "activation_symmetric": False, "wbits": abits, "abits": abits, **fields}
        )
        return quantize_layer(layer.weight, recipe, layer.statistics)[1]["relative_output_error_held_out"]

    plain, rotated = held_out(method="rtn"), held_out(method="duquant")
    assert rotated < 0.5 * plain
    assert held_out(method="duquant", rounding="gptq") < rotated
    assert held_out(method="quarot", symmetric=True) < 0.5 * plain


def test_statistics_are_needed(layer: Any) -> None:
    with pytest.raises(PoisonedLayer, match="statistics"):
        DuQuant().fit(Site({"a": layer.weight}), WeightGrid())

"""Bit packing, bit for bit; sizes against the formulas of b + (s + z)/g."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from quant.layer import quantize_layer
from quant.packing import PackedLinear, pack_bits, unpack_bits
from quant.recipe import resolve
from quant.registry import METHODS
from quant.rounding.nearest import Nearest
from quant.transforms.identity import Identity
from quant.weights import GRIDS, WeightGrid


@given(
    bits=st.integers(1, 8),
    rows=st.integers(1, 5),
    count=st.integers(1, 70),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=300, deadline=None)
def test_any_codes_survive(bits: int, rows: int, count: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 2**bits, (rows, count), dtype=np.uint8)
    packed = pack_bits(torch.tensor(codes), bits)
    assert packed.dtype == torch.uint8
    assert packed.shape == (rows, -(-count * bits // 8))
    assert torch.equal(unpack_bits(packed, bits, count), torch.tensor(codes))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_stream_is_lowest_bits_first(bits: int) -> None:
    codes = [(5 * i + 3) % 2**bits for i in range(16)]
    number = sum(code << (bits * place) for place, code in enumerate(codes))
    expected = number.to_bytes(2 * bits, "little")
    assert bytes(pack_bits(torch.tensor([codes], dtype=torch.uint8), bits)[0].tolist()) == expected


@given(
    bits=st.sampled_from([2, 3, 4, 8]),
    weight_grid=st.sampled_from(GRIDS),
    group_size=st.sampled_from([-1, 32, 64]),
    shape=st.tuples(st.integers(1, 9), st.sampled_from([64, 192])),
    shift=st.floats(-5, 5),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=120, deadline=None)
def test_packing_loses_nothing_that_was_measured(
    bits: int, weight_grid: str, group_size: int, shape: tuple[int, int], shift: float, seed: int
) -> None:
    weight = torch.tensor(np.random.default_rng(seed).standard_normal(shape) + shift, dtype=torch.float32)
    grid = WeightGrid(bits, group_size, weight_grid)
    rounded = Nearest().quantize(weight, grid, None)
    packed = PackedLinear.pack(rounded, grid, Identity())
    assert torch.equal(packed.dequantize(), rounded.dequantize())
    again = PackedLinear.from_tensors(load(save(packed.to_tensors())), json.loads(json.dumps(packed.meta())))
    assert torch.equal(again.dequantize(), rounded.dequantize())
    assert again.meta() == packed.meta()
    assert packed.dequantize(torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("value", [300.0, -4e4])
def test_zeros_of_groups_far_from_zero_fit_their_field(value: float) -> None:
    weight = torch.full((2, 32), value) + torch.linspace(0, 1e-2, 32)
    grid = WeightGrid(8, 32, "asym_minmax")
    packed = PackedLinear.pack(Nearest().quantize(weight, grid, None), grid, Identity())
    assert (packed.dequantize() - weight).abs().max() < abs(value) / 16000


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_sizes_equal_the_hand_formulas(bits: int, group_size: int) -> None:
    weight = torch.randn(48, 256, generator=torch.Generator().manual_seed(0))
    per_weight = {
        "asym_with_zero": bits + (16 + bits) / group_size,
        "asym_minmax": bits + (16 + 16) / group_size,
        "sym_full": bits + 16 / group_size,
        "sym_restricted": bits + 16 / group_size,
    }
    for weight_grid, expected in per_weight.items():
        recipe = resolve({"method": "rtn", "wbits": bits, "group_size": group_size, "weight_grid": weight_grid})
        packed, report = quantize_layer(weight, recipe, None)
        assert packed.bits().code == report["code_bits"] == bits
        assert packed.bits().linear == report["linear_bits"] == pytest.approx(expected, abs=1e-12)


def test_sizes_of_known_schemes() -> None:
    weight = torch.randn(64, 4096, generator=torch.Generator().manual_seed(0))
    known = {(2, 128): 2.140625, (3, 128): 3.1484375, (4, 128): 4.15625, (2, 64): 2.28125, (2, 32): 2.5625}
    for (bits, group_size), expected in known.items():
        recipe = resolve({"method": "rtn", "wbits": bits, "group_size": group_size})
        assert quantize_layer(weight, recipe, None)[0].bits().linear == expected
    per_channel = resolve({"method": "rtn", "wbits": 2, "group_size": -1})
    assert quantize_layer(weight, per_channel, None)[0].bits().linear == 2 + (16 + 2) / 4096


def test_metadata_of_orders_and_transforms_is_counted(layer: Any) -> None:
    rows = layer.weight.shape[0]

    def bits(**fields: object) -> float:
        recipe = resolve({"method": "gptq", "group_size": 64, "symmetric": True, **fields})
        return quantize_layer(layer.weight, recipe, layer.statistics)[0].bits().linear

    assert bits() == 4 + 16 / 64
    assert bits(act_order=True) == pytest.approx(4 + 16 / 64 + 16 / rows)
    assert bits(act_order=True, static_groups=True) == 4 + 16 / 64
    assert bits(method="awq", symmetric=False) == pytest.approx(4 + (16 + 4) / 64 + 16 / rows)
    assert bits(transform="smoothquant") == pytest.approx(4 + 16 / 64 + 16 / rows)


def test_stored_layers_of_every_kind_come_back(layer: Any) -> None:
    for fields in (
        {"method": "gptq", "wbits": 3, "group_size": 32, "act_order": True},
        {"method": "gptq", "wbits": 2, "transform": "smoothquant", "weight_grid": "asym_minmax"},
        *({"method": name} for name in sorted(METHODS)),
    ):
        packed, _ = quantize_layer(layer.weight, resolve(fields), layer.statistics)
        again = PackedLinear.from_tensors(load(save(packed.to_tensors())), json.loads(json.dumps(packed.meta())))
        assert torch.equal(again.dequantize(), packed.dequantize())
        assert torch.equal(again.effective(), packed.effective())
        assert again.transform.name == packed.transform.name
        assert sum(tensor.nbytes for tensor in again.to_tensors().values()) * 8 == pytest.approx(
            packed.bits().linear * layer.weight.numel()
        )

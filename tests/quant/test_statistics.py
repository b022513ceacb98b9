"""Streaming statistics against numpy on all tokens at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from quant.statistics import LayerStatistics, StatisticsCollector

TOKENS = np.random.default_rng(11).standard_normal((300, 12)) * np.linspace(0.1, 9, 12)


def collect(x: np.ndarray, cuts: list[int], rows: int = 40, seed: int = 3) -> LayerStatistics:
    collector = StatisticsCollector(x.shape[1], rows, seed)
    for part in np.split(x, sorted(cuts)):
        collector.add(torch.tensor(part, dtype=torch.float32))
        collector.add_held_out(torch.tensor(part, dtype=torch.float32))
    return collector.finish()


@given(cuts=st.lists(st.integers(0, 300), max_size=8))
@settings(max_examples=60, deadline=None)
def test_streaming_equals_one_shot(cuts: list[int]) -> None:
    found, once = collect(TOKENS, cuts), collect(TOKENS, [])
    assert torch.equal(found.sample, once.sample)
    assert torch.equal(found.held_out, once.held_out)
    assert torch.equal(found.absmax, once.absmax)
    assert found.tokens == once.tokens == 300
    scale = np.abs(TOKENS.T @ TOKENS).max()
    assert np.abs(found.gram.double().numpy() - TOKENS.T @ TOKENS).max() < 1e-5 * scale
    np.testing.assert_allclose(found.mean_abs.numpy(), np.abs(TOKENS).mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.absmax.numpy(), np.abs(TOKENS).max(0), rtol=1e-6)


def positions(sample: torch.Tensor) -> list[int]:
    """Where in the stream the rows of a sample of the tokens 0, 1, 2, ... stood."""
    return [int(row) for row in sample[:, 0].tolist()]


def test_the_sample_is_uniform_without_repeats_and_in_order() -> None:
    stream = np.arange(60, dtype=np.float64)[:, None]
    counts = np.zeros(60)
    for seed in range(600):
        chosen = positions(collect(stream, [], rows=20, seed=seed).sample)
        assert chosen == sorted(set(chosen))
        assert len(chosen) == 20
        counts[chosen] += 1
    # 600 draws with probability 1/3: mean 200, standard deviation 11.5; five of them for 60 positions
    assert np.abs(counts - 200).max() < 5 * 11.6


def test_seeds_and_the_two_samples_differ() -> None:
    stream = np.arange(200, dtype=np.float64)[:, None]
    first, second = collect(stream, [], seed=0), collect(stream, [], seed=1)
    samples = {tuple(positions(rows)) for s in (first, second) for rows in (s.sample, s.held_out)}
    assert len(samples) == 4


def test_short_streams_keep_every_row() -> None:
    found = collect(TOKENS[:7], [3])
    np.testing.assert_allclose(found.sample.numpy(), TOKENS[:7], rtol=1e-6)


def test_held_out_rows_touch_nothing_else() -> None:
    plain, with_held_out = StatisticsCollector(12, 40), StatisticsCollector(12, 40)
    for collector in (plain, with_held_out):
        collector.add(torch.tensor(TOKENS))
    with_held_out.add_held_out(1000 * torch.tensor(TOKENS))
    first, second = plain.finish(), with_held_out.finish()
    assert first.held_out.shape == (0, 12)
    for name in ("gram", "absmax", "mean_abs", "sample"):
        assert torch.equal(getattr(first, name), getattr(second, name))


def test_leading_dimensions_and_low_precision_are_accepted() -> None:
    collector = StatisticsCollector(12, 40, 3)
    collector.add(torch.tensor(TOKENS).reshape(3, 100, 12).bfloat16())
    assert collector.finish().tokens == 300
    assert collector.finish().gram.dtype == torch.float32


def test_tensors_round_trip() -> None:
    found = collect(TOKENS, [100])
    again = LayerStatistics.from_tensors(load(save(found.to_tensors())))
    assert again.tokens == found.tokens
    for name, tensor in found.to_tensors().items():
        assert torch.equal(again.to("cpu").to_tensors()[name], tensor)


def test_errors() -> None:
    with pytest.raises(ValueError, match="no tokens"):
        StatisticsCollector(4).finish()
    empty = StatisticsCollector(4)
    empty.add(torch.zeros(0, 4))
    with pytest.raises(ValueError, match="no tokens"):
        empty.finish()
    with pytest.raises(ValueError, match="4 features"):
        StatisticsCollector(4).add(torch.zeros(3, 5))

"""The noising process: its law, its independence of order, and what stays visible."""

from __future__ import annotations

import torch

from models.masking import apply_masks, mask_pattern


def test_none_masks_nothing() -> None:
    assert not mask_pattern("none", 0, 0, 100).any()


def test_uniform_ratios_are_uniform() -> None:
    """Kolmogorov-Smirnov distance of 2,000 realised ratios from U(0, 1), 1 % level plus the 1/sqrt(L) blur."""
    ratios = torch.stack([mask_pattern("uniform", 3, i, 4096).float().mean() for i in range(2000)]).sort().values
    expected = (torch.arange(2000) + 0.5) / 2000
    assert (ratios - expected).abs().max() < 1.63 / 2000**0.5 + 0.5 / 4096**0.5


def test_positions_are_exchangeable_and_independent_given_the_ratio() -> None:
    masks = torch.stack([mask_pattern("uniform", 1, i, 64) for i in range(4000)]).float()
    assert (masks.mean(0) - 0.5).abs().max() < 5 * 0.5 / 4000**0.5
    # P(both masked) = E[t^2] = 1/3 for independent draws at one ratio, 1/4 if positions had ratios of their own.
    both = (masks[:, ::2] * masks[:, 1::2]).mean()
    assert abs(float(both) - 1 / 3) < 0.01


def test_a_sample_does_not_depend_on_the_others() -> None:
    ids = torch.arange(60).reshape(6, 10)
    everything = apply_masks(ids, 99, "uniform", 5)
    assert torch.equal(everything[:2], apply_masks(ids[:2], 99, "uniform", 5))
    assert not torch.equal(everything, apply_masks(ids, 99, "uniform", 6))


def test_the_prefix_stays_visible() -> None:
    masks = torch.stack([mask_pattern("uniform", 2, i, 40, prefix_ratio=0.25) for i in range(200)])
    assert not masks[:, :10].any()
    assert masks[:, 10:].any(0).all()

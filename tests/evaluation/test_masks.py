from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation.masks import Masks, enumerate_masks, generator, make_masks, stratified_counts, stratified_masks
from evaluation.spec import TaskError


@pytest.mark.parametrize("length", [1, 2, 3, 5, 6, 7, 12, 20])
@pytest.mark.parametrize("samples", [1, 3, 8, 32])
def test_count_law_is_exactly_uniform(length: int, samples: int) -> None:
    # frac(u + j/N) L is piecewise constant between multiples of 1/(L N), so mid-points of that grid are exact.
    cells = length * samples
    counts = np.array([stratified_counts(length, samples, (i + 0.5) / cells) for i in range(cells)])
    for column in counts.T:
        assert np.bincount(column, minlength=length + 1)[1:].tolist() == [samples] * length


@pytest.mark.parametrize(("length", "samples"), [(3, 8), (12, 8), (5, 5), (7, 128)])
def test_counts_are_stratified(length: int, samples: int) -> None:
    for u in np.linspace(0, 1, 37, endpoint=False):
        frequency = np.bincount(stratified_counts(length, samples, u), minlength=length + 1)[1:]
        assert frequency.sum() == samples and frequency.max() - frequency.min() <= 1


def test_counts_stay_in_range_at_the_edges() -> None:
    for length in range(1, 200):
        counts = stratified_counts(length, 8, np.nextafter(1.0, 0.0))
        assert counts.min() >= 1 and counts.max() <= length


@pytest.mark.parametrize("length", [1, 2, 4, 7])
def test_enumeration_has_every_mask_with_its_exact_weight(length: int) -> None:
    made = enumerate_masks(length)
    found = {tuple(np.flatnonzero(m)): w for m, w in zip(made.masks, made.weights, strict=True)}
    expected = {
        subset: float(Fraction(1, k * comb(length, k)))
        for k in range(1, length + 1)
        for subset in combinations(range(length), k)
    }
    assert found == expected


def test_enumeration_refuses_long_targets() -> None:
    with pytest.raises(TaskError, match="at most 12 tokens, one has 13"):
        make_masks("enumerate", 13, 8, (0,))


def test_auto_enumerates_when_that_is_no_dearer() -> None:
    assert len(make_masks("auto", 3, 7, (0,)).masks) == 7
    assert np.array_equal(make_masks("auto", 3, 7, (0,)).weights, enumerate_masks(3).weights)
    assert np.array_equal(make_masks("auto", 3, 6, (0,)).weights, make_masks("stratified", 3, 6, (0,)).weights)


@pytest.mark.parametrize("length", [4, 6, 10])
def test_stratified_estimates_any_function_of_the_mask_without_bias(length: int) -> None:
    g = generator("g", length).normal(size=length)

    def value(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.where(masks, g, 0).sum(axis=1) * masks.sum(axis=1) ** 2  # not linear, not symmetric

    def z_score(draws: list[Masks]) -> float:
        estimates = np.array([m.weights @ value(m.masks) for m in draws])
        return float(abs(estimates.mean() - expected) / estimates.std() * np.sqrt(len(draws)))

    exact = enumerate_masks(length)
    expected = float(exact.weights @ value(exact.masks))
    assert z_score([stratified_masks(length, 8, generator("draw", i)) for i in range(4000)]) < 4
    assert z_score([official_draw(length, 8, generator("draw", i)) for i in range(4000)]) > 6  # the check can fail


def official_draw(length: int, samples: int, rng: np.random.Generator) -> Masks:
    """The count law of the published LLaDA evaluator, which rounds half to even: off by up to a half."""
    steps = np.arange(samples) * length / samples
    counts = (np.round(rng.integers(1, length + 1) + steps).astype(int) - 1) % length + 1
    masks = np.array([np.isin(np.arange(length), rng.permutation(length)[:k]) for k in counts])
    return Masks(masks, length / (counts * samples))


def test_subsets_of_one_size_are_uniform() -> None:
    seen: dict[tuple[int, ...], int] = {}
    for i in range(6000):
        for mask in stratified_masks(4, 1, generator("subset", i)).masks:
            if mask.sum() == 2:
                key = tuple(np.flatnonzero(mask).tolist())
                seen[key] = seen.get(key, 0) + 1
    n = sum(seen.values())
    chi2 = sum((count - n / 6) ** 2 / (n / 6) for count in seen.values())
    assert len(seen) == 6 and chi2 < 20.5  # 99.9 % quantile with 5 degrees of freedom


def test_identical_draws_are_merged() -> None:
    single = make_masks("stratified", 1, 8, (0, "t", 1))
    assert single.masks.tolist() == [[True]] and single.weights == pytest.approx([1.0], rel=1e-15)
    many = make_masks("stratified", 3, 500, (0, "t", 1))
    assert len(many.masks) == 7
    counts = many.masks.sum(axis=1)
    assert sum(many.weights * counts) == pytest.approx(3, rel=1e-12)  # Σ w |m| = L, whatever the draw


def test_draws_depend_on_their_seed_alone() -> None:
    def draw(*seed: object) -> list[list[bool]]:
        return make_masks("stratified", 9, 4, seed).masks.tolist()

    assert draw(0, "t", 3) == draw(0, "t", 3)
    assert len({str(draw(*s)) for s in ((0, "t", 3), (1, "t", 3), (0, "u", 3), (0, "t", 4))}) == 4


def test_the_stream_has_not_changed() -> None:
    """Stored results name their masks by seed only: another stream would silently redraw them."""
    made = make_masks("stratified", 5, 4, (0, "facts", 7))
    assert ["".join("01"[int(b)] for b in m) for m in made.masks] == STREAM


STREAM: list[str] = ["01000", "01110", "11110", "11111"]

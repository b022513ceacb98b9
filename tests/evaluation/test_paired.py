from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from evaluation.masks import generator
from evaluation.paired import bootstrap_interval, mcnemar, paired


def test_interval_equals_the_closed_form_for_normal_data() -> None:
    x = generator("normal").normal(0.3, 2.0, size=400)
    low, high = bootstrap_interval(x, resamples=20_000)
    half = 1.959964 * x.std() / sqrt(len(x))  # the bootstrap's variance divides by n
    assert (low, high) == pytest.approx((x.mean() - half, x.mean() + half), abs=0.03 * half)


def test_interval_equals_resampling_one_document_at_a_time() -> None:
    x = np.array([1.0] * 9 + [-1.0] * 4 + [0.0] * 37)
    rng = generator("naive")
    naive = [x[rng.integers(0, 50, 50)].mean() for _ in range(20_000)]
    assert bootstrap_interval(x, 20_000) == pytest.approx(tuple(np.quantile(naive, [0.025, 0.975])), abs=0.011)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = generator("coverage")
    hits = 0
    for _ in range(400):
        low, high = bootstrap_interval(rng.choice([-1.0, 0.0, 1.0], size=200, p=[0.1, 0.7, 0.2]), 1000)
        hits += low <= 0.1 <= high
    assert 0.91 < hits / 400 < 0.98


def test_interval_is_seeded_and_bounded_in_memory() -> None:
    x = generator("many").normal(size=9000)
    assert bootstrap_interval(x, 2000, seed=1) == bootstrap_interval(x, 2000, seed=1)
    assert bootstrap_interval(x, 2000, seed=1) != bootstrap_interval(x, 2000, seed=2)
    half = 1.96 * x.std() / sqrt(9000)
    assert bootstrap_interval(x, 2000) == pytest.approx((x.mean() - half, x.mean() + half), abs=0.1 * half)


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (0, 0, 1.0),
        (5, 5, 1.0),
        (0, 5, 2 / 32),
        (1, 8, 2 * (1 + 9) / 512),
        (12, 3, 2 * (1 + 15 + 105 + 455) / 2**15),
    ],
)
def test_mcnemar_by_hand(gained: int, lost: int, p: float) -> None:
    assert mcnemar(gained, lost) == pytest.approx(p, rel=1e-12)
    assert mcnemar(lost, gained) == mcnemar(gained, lost)


def test_mcnemar_of_many_documents() -> None:
    z = (5150 - 4850 - 1) / sqrt(10_000)  # with continuity correction
    expected = 2 * 0.5 * (1 - erf(z / sqrt(2)))
    assert mcnemar(4850, 5150) == pytest.approx(expected, rel=0.01)
    assert mcnemar(0, 14_000) == 0.0


def erf(x: float) -> float:
    from math import erf as exact

    return exact(x)


def test_pairs() -> None:
    base = {0: 1.0, 1: 0.0, 2: 1.0, 3: 1.0, 4: 0.0}
    own = {4: 0.0, 3: 0.0, 2: 1.0, 1: 1.0, 0: 0.0}
    result = paired(own, base)
    assert (result.n, result.delta, result.gained, result.lost, result.flips) == (5, -0.2, (1,), (0, 3), 3)
    assert result.p_value == 1.0 and result.low < -0.2 < result.high
    same = paired(base, base)
    assert (same.delta, same.low, same.high, same.flips, same.p_value) == (0, 0, 0, 0, 1)


def test_values_that_are_no_verdicts_have_no_p() -> None:
    result = paired({0: 1.5, 1: 0.2}, {0: 1.0, 1: 0.1})
    assert result.p_value is None and result.delta == pytest.approx(0.3)


def test_other_documents_are_refused() -> None:
    with pytest.raises(ValueError, match="same documents"):
        paired({0: 1.0}, {1: 1.0})
    with pytest.raises(ValueError, match="at least one"):
        paired({}, {})

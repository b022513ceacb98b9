"""Two cells on the same documents: the difference, its interval, and who flipped. numpy only.

Pairing removes what both cells share (hard documents, and here also the Monte-Carlo masks). Does not protect
against comparing many cells: with 20 comparisons one 95 % interval is expected to miss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000


@dataclass(frozen=True)
class Paired:
    """delta = mean(value - baseline) over n documents; low, high: its 95 % interval.

    p_value: exact McNemar test of no difference, None for values other than 0 and 1. gained, lost: documents whose
    value rose or fell.
    """

    n: int
    delta: float
    low: float
    high: float
    p_value: float | None
    gained: tuple[int, ...]
    lost: tuple[int, ...]

    @property
    def flips(self) -> int:
        return len(self.gained) + len(self.lost)


def paired(
    values: Mapping[int, float], baseline: Mapping[int, float], resamples: int = RESAMPLES, seed: int = 0
) -> Paired:
    """Compare two cells, each given as document -> value. ValueError when the documents are not the same."""
    if values.keys() != baseline.keys() or not values:
        raise ValueError("a paired comparison needs the same documents on both sides, at least one")
    documents = sorted(values)
    difference = np.array([values[d] - baseline[d] for d in documents], dtype=np.float64)
    low, high = bootstrap_interval(difference, resamples, seed)
    gained = tuple(d for d, x in zip(documents, difference, strict=True) if x > 0)
    lost = tuple(d for d, x in zip(documents, difference, strict=True) if x < 0)
    binary = all(v in (0.0, 1.0) for v in (*values.values(), *baseline.values()))
    p_value = mcnemar(len(gained), len(lost)) if binary else None
    return Paired(len(documents), float(difference.mean()), low, high, p_value, gained, lost)


def bootstrap_interval(
    difference: NDArray[np.float64], resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `difference` [n], seeded."""
    rng = np.random.Generator(np.random.PCG64(seed))
    tail = (1 - level) / 2
    low, high = np.quantile(_resampled_means(difference, resamples, rng), [tail, 1 - tail])
    return float(low), float(high)


def _resampled_means(x: NDArray[np.float64], resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    n = len(x)
    distinct, counts = np.unique(x, return_counts=True)
    if len(distinct) <= 8:  # right/wrong metrics: how often each value is taken is one multinomial draw
        return rng.multinomial(n, counts / n, size=resamples) @ distinct / n
    rows = max(1, 4_000_000 // n)  # bounds memory to about 64 MB
    starts = range(0, resamples, rows)
    return np.concatenate([x[rng.integers(0, n, (min(rows, resamples - s), n))].mean(axis=1) for s in starts])


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided McNemar test (binomial, p = 1/2) on the numbers of discordant documents; 1.0 for none."""
    n = gained + lost
    tail = term = 1
    for k in range(min(gained, lost)):
        term = term * (n - k) // (k + 1)  # the binomial coefficient n over k + 1, exact
        tail += term
    return min(1.0, 2 * tail / 2**n)

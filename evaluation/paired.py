"""Two cells on the same documents: the difference, its interval, and who flipped. numpy only.

Pairing removes what both cells share (hard documents, and here also the Monte-Carlo masks). Does not protect
against comparing many cells: with 20 comparisons one 95 % interval is expected to miss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb

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
    """Percentile bootstrap interval of the mean of `difference` [n], seeded.

    Resampling n documents is one multinomial draw of how often each distinct value is taken, which for right/wrong
    metrics are three numbers instead of n.
    """
    distinct, counts = np.unique(difference, return_counts=True)
    n, rng = len(difference), np.random.Generator(np.random.PCG64(seed))
    rows = max(1, 4_000_000 // len(distinct))  # bounds memory to about 32 MB
    means = [
        rng.multinomial(n, counts / n, size=min(rows, resamples - done)) @ distinct / n
        for done in range(0, resamples, rows)
    ]
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided McNemar test (binomial, p = 1/2) on the numbers of discordant documents; 1.0 for none."""
    n = gained + lost
    tail = sum(comb(n, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / 2**n)

"""Which target tokens are masked when a likelihood is estimated, and with what weight: pure numpy.

For a target of L tokens, the log-likelihood bound of a masked-diffusion LM (arXiv 2502.09992, eq. 6) is

    E over l uniform in 1..L and m a uniform subset of l tokens of  (L / l) · Σ_{i in m} log p(x_i | rest)

Every estimator is a list of (mask, weight) whose weighted sum of Σ log p estimates this. Draws depend on
(seed, task, doc_id, L) only: all choices of one length in a document, and every model and bit-width, see the
same masks (common random numbers), so the Monte-Carlo noise cancels in their differences.
Does not protect against numpy changing its PCG64 stream, which it promises not to do.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from evaluation.spec import LONGEST_ENUMERATED, TaskError


@dataclass(frozen=True)
class Masks:
    """masks: bool [n, L], distinct and not empty. weights: float64 [n]; identical draws are one, weights added."""

    masks: NDArray[np.bool_]
    weights: NDArray[np.float64]


def generator(*parts: object) -> np.random.Generator:
    """A numpy generator seeded by SHA-256 of the given parts, the same in every process."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def make_masks(estimator: str, length: int, samples: int, seed: tuple[object, ...]) -> Masks:
    """Masks for a target of `length` tokens. `auto` enumerates where that takes no more than `samples` passes.

    Raises TaskError for `enumerate` beyond LONGEST_ENUMERATED tokens.
    """
    if estimator == "enumerate" or (estimator == "auto" and 2**length - 1 <= samples):
        return enumerate_masks(length)
    return stratified_masks(length, samples, generator("likelihood mask", *seed, length))


def stratified_counts(length: int, samples: int, u: float) -> NDArray[np.int64]:
    """Numbers of masked tokens x_j = 1 + floor(L · frac(u + j / N)), j < N = samples: int64 [N].

    For u uniform in [0, 1) each x_j is exactly uniform in 1..L, unlike the rounding of the official evaluator.
    """
    points = np.mod(u + np.arange(samples) / samples, 1.0)
    return 1 + np.minimum((length * points).astype(np.int64), length - 1)


def stratified_masks(length: int, samples: int, rng: np.random.Generator) -> Masks:
    """`samples` draws: stratified counts, a uniform subset for each, weight L / (count · samples).

    Subset j uses numbers that neither `samples` nor the other draws shift.
    """
    counts = stratified_counts(length, samples, float(rng.random()))
    ranks = rng.random((samples, length)).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    return _merge(ranks < counts[:, None], length / (counts * samples))


def enumerate_masks(length: int) -> Masks:
    """All 2^L - 1 masks with their exact weights 1 / (l · C(L, l)); the sum has no Monte-Carlo error."""
    if length > LONGEST_ENUMERATED:
        raise TaskError(
            f"estimator 'enumerate' needs targets of at most {LONGEST_ENUMERATED} tokens, one has {length}",
            "estimator",
        )
    masks = (np.arange(1, 2**length)[:, None] >> np.arange(length)) % 2 == 1
    per_count = [0.0, *(1 / (k * comb(length, k)) for k in range(1, length + 1))]
    return Masks(masks, np.array(per_count, dtype=np.float64)[masks.sum(axis=1)])


def _merge(masks: NDArray[np.bool_], weights: NDArray[np.float64]) -> Masks:
    distinct, place = np.unique(masks, axis=0, return_inverse=True)
    total = np.zeros(len(distinct))
    np.add.at(total, place.reshape(-1), weights)
    return Masks(distinct, total)

"""Hadamard matrices, built rather than tabulated, and products with them that never form the large ones.

A Hadamard matrix H of order n has entries ±1 and H Hᵀ = n·I, so H/√n is a rotation that spreads one outlier over
all channels. Orders 2^k come from Sylvester's doubling; others are H_m ⊗ H_{2^k} with the smallest m that one of
Paley's constructions gives (J. Math. Phys. 12, 1933), from the quadratic character χ of a field of q elements:

    Paley I    q ≡ 3 mod 4, m = q + 1      H = I + S,   S = [[0, 1ᵀ], [−1, χ(a − b)]]
    Paley II   q ≡ 1 mod 4, m = 2(q + 1)   each 0 of [[0, 1ᵀ], [1, χ(a − b)]] becomes [[1, −1], [−1, −1]],
                                           each ±1 becomes ±[[1, 1], [1, −1]]

with q a prime or the square of one. That covers 12, 20, 28, 36, 40, 52, 60, 108, 140, 148 times any power of two,
and so every width of LLaDA and Dream; not every multiple of 4 (92 and 116 are missing).

On CUDA the factor 2^k is left to the package fast_hadamard_transform where it is installed (extra `cuda`); results
then differ in the last bits of float32. Does not protect against the loss of outliers in half precision: products
are formed in float32 (float64 for float64 inputs) and cast back.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec

from quant.errors import PoisonedLayer
from quant.lazy import torch
from quant.statistics import hash_positions

_WIDEST = 64  # powers of two are applied in factors up to this order: small matrix products, few passes


class NoHadamard(PoisonedLayer):
    """No construction here gives a Hadamard matrix of this order."""


def hadamard(order: int) -> torch.Tensor:
    """A Hadamard matrix [order, order], float32, of ±1. Raises NoHadamard where none can be built."""
    base, twos = split_order(order)
    matrix = _base(base)
    for _ in range(twos):
        matrix = torch.kron(matrix, torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
    return matrix


@lru_cache(maxsize=64)
def split_order(order: int) -> tuple[int, int]:
    """(m, k) with order = m·2^k and m the smallest order a construction gives. Raises NoHadamard."""
    if order > 0:
        power = order & -order
        twos = power.bit_length() - 1
        if order == power:
            return 1, twos
        for used in range(twos - 2, -1, -1):  # every base is a multiple of 4
            if _paley(order >> used) is not None:
                return order >> used, used
    raise NoHadamard(
        f"no Hadamard matrix of order {order} is known here; orders are 2^k or 12, 20, 28, 36 ... times 2^k"
    )


def apply_hadamard(x: torch.Tensor, transpose: bool = False) -> torch.Tensor:
    """x H/√n for x [..., n] (x Hᵀ/√n with `transpose`, its inverse), in x's dtype. Raises NoHadamard.

    About n·(m + 64·k/6) multiplications per row instead of n².
    """
    base, twos = split_order(x.shape[-1])
    wide = x if x.dtype == torch.float64 else x.float()
    doubled = wide.reshape(-1, base, 2**twos)
    if doubled.is_cuda and doubled.dtype == torch.float32 and find_spec("fast_hadamard_transform"):
        doubled = import_module("fast_hadamard_transform").hadamard_transform(doubled.contiguous())
    else:
        doubled = _apply_sylvester(doubled, twos)
    if base > 1:
        matrix = _base(base).to(doubled)
        doubled = (matrix if transpose else matrix.T) @ doubled
    return (doubled * x.shape[-1] ** -0.5).reshape(x.shape).to(x.dtype)


def random_signs(features: int, seed: int) -> torch.Tensor:
    """int8 [features] of ±1, the same for equal (features, seed) on every machine."""
    return (2 * (hash_positions(torch.arange(features), seed) & 1) - 1).to(torch.int8)


def _apply_sylvester(x: torch.Tensor, twos: int) -> torch.Tensor:
    """x [..., 2^twos] times the Sylvester matrix: H_{ab} = H_a ⊗ H_b, one small factor at a time."""
    shape, width = x.shape, _WIDEST.bit_length() - 1
    for done in range(0, twos, width):
        factor = hadamard(2 ** min(width, twos - done)).to(x)
        x = (factor @ x.reshape(-1, len(factor), 2**done)).reshape(shape)
    return x


@lru_cache(maxsize=16)
def _base(order: int) -> torch.Tensor:
    build = _paley(order)
    return torch.ones(1, 1) if build is None else build()


def _paley(order: int) -> Callable[[], torch.Tensor] | None:
    """How to build this order by Paley I or II, None where neither does."""
    if order % 4:
        return None
    if (order - 1) % 4 == 3 and _is_prime(order - 1):
        return lambda: _paley_one(_character(order - 1, 1))
    field, prime = order // 2 - 1, round((order // 2 - 1) ** 0.5)
    if field % 4 == 1 and _is_prime(field):
        return lambda: _paley_two(_character(field, 1))
    if field % 4 == 1 and prime**2 == field and _is_prime(prime):
        return lambda: _paley_two(_character(prime, 2))
    return None


def _paley_one(character: torch.Tensor) -> torch.Tensor:
    return _bordered(character, -1.0) + torch.eye(len(character) + 1)


def _paley_two(character: torch.Tensor) -> torch.Tensor:
    conference = _bordered(character, 1.0)
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    return torch.kron(conference, signs) + torch.kron(
        torch.eye(len(conference)), torch.tensor([[1.0, -1], [-1, -1]])
    )


def _bordered(character: torch.Tensor, left: float) -> torch.Tensor:
    """[[0, 1ᵀ], [left·1, χ]]."""
    bordered = torch.nn.functional.pad(character, (1, 0, 1, 0))
    bordered[0, 1:], bordered[1:, 0] = 1.0, left
    return bordered


def _character(prime: int, power: int) -> torch.Tensor:
    """χ(a − b) [q, q] over the field of q = prime^power elements, power 1 or 2 (prime odd).

    In the quadratic extension by √r an element u + v·√r is a square exactly if its norm u² − r·v² is one in the
    field of `prime` elements.
    """
    values = torch.full((prime,), -1.0)
    values[torch.arange(prime) ** 2 % prime] = 1.0
    values[0] = 0.0
    elements = torch.arange(prime)
    difference = (elements[:, None] - elements) % prime
    if power == 1:
        return values[difference]
    non_residue = int((values == -1).nonzero()[0])
    first, second = (torch.cartesian_prod(elements, elements)[:, part] for part in (0, 1))
    u, v = ((part[:, None] - part) % prime for part in (first, second))
    return values[(u * u - non_residue * v * v) % prime]


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))

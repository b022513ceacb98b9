"""Hadamard matrices: orthogonal in exact integers, products against the full matrix in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quant.hadamard import NoHadamard, apply_hadamard, hadamard, random_signs, split_order

BASES = (12, 20, 28, 36, 40, 52, 60, 108, 140, 148)
ORDERS = [1, 2, 4, 8, 64, 512, *BASES, *(2 * n for n in BASES), *(8 * n for n in BASES)]


@pytest.mark.parametrize("order", ORDERS)
def test_rows_are_orthogonal(order: int) -> None:
    matrix = hadamard(order).numpy()
    assert set(np.unique(matrix)) <= {-1.0, 1.0}
    exact = matrix.astype(np.float64)  # sums of up to 1184 ones are exact
    assert np.array_equal(exact @ exact.T, order * np.eye(order))
    assert np.array_equal(exact.T @ exact, order * np.eye(order))


@pytest.mark.parametrize("order", [1, 2, 32, 128, 256, 12, 28, 52, 148, 384, 296, 1152])
def test_fast_products_equal_the_matrix(order: int) -> None:
    x = torch.tensor(np.random.default_rng(order).standard_normal((3, 2, order)))
    matrix = hadamard(order).double().numpy() / np.sqrt(order)
    np.testing.assert_allclose(apply_hadamard(x).numpy(), x.numpy() @ matrix, atol=1e-12)
    np.testing.assert_allclose(apply_hadamard(x, transpose=True).numpy(), x.numpy() @ matrix.T, atol=1e-12)
    single = apply_hadamard(x.float())
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), x.numpy() @ matrix, atol=2e-6 * np.sqrt(order))


@pytest.mark.parametrize("order", [4096, 3584, 12288, 18944])
def test_widths_of_real_models_come_back(order: int) -> None:
    x = torch.tensor(np.random.default_rng(1).standard_normal((2, order)), dtype=torch.float32)
    turned = apply_hadamard(x)
    assert turned.norm() == pytest.approx(float(x.norm()), rel=1e-5)
    assert (turned - x).norm() > 0.1 * x.norm()
    assert (apply_hadamard(turned, transpose=True) - x).abs().max() < 1e-5


def test_one_outlier_is_spread_evenly() -> None:
    x = torch.zeros(1, 768)
    x[0, 5] = 100.0
    assert torch.allclose(apply_hadamard(x).abs(), torch.full((1, 768), 100 / 768**0.5))


def test_the_smallest_base_goes_outside() -> None:
    assert [split_order(n) for n in (4096, 3584, 12288, 18944, 80, 104)] == [
        (1, 12),
        (28, 7),
        (12, 10),
        (148, 7),
        (20, 2),
        (52, 1),
    ]
    assert torch.equal(hadamard(24), torch.kron(hadamard(12), hadamard(2)))


@pytest.mark.parametrize("order", [0, -4, 3, 6, 92, 188])
def test_orders_without_construction_are_refused(order: int) -> None:
    with pytest.raises(NoHadamard, match=f"order {order} "):
        hadamard(order)


def test_signs_are_balanced_and_seeded() -> None:
    signs = random_signs(4096, 3)
    assert torch.equal(signs, random_signs(4096, 3))
    assert not torch.equal(signs, random_signs(4096, 4))
    assert set(signs.tolist()) == {-1, 1}
    assert abs(int(signs.sum())) < 300


@pytest.mark.cuda
def test_the_cuda_package_gives_the_same_product() -> None:
    pytest.importorskip("fast_hadamard_transform")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for order in (512, 384, 3584):
        x = torch.tensor(np.random.default_rng(order).standard_normal((7, order)), dtype=torch.float32)
        assert (apply_hadamard(x.cuda()).cpu() - apply_hadamard(x)).abs().max() < 1e-4

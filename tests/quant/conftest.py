"""A layer with outlier columns, correlated inputs and a dead input, small enough for naive float64 oracles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from quant.statistics import LayerStatistics, StatisticsCollector


@dataclass(frozen=True)
class Layer:
    weight: torch.Tensor  # [48, 256]
    calibration: torch.Tensor  # [320, 256]
    held_out: torch.Tensor  # [40, 256]
    statistics: LayerStatistics
    full: torch.Tensor  # [320, 256], the calibration tokens in a full-precision model

    @property
    def gram(self) -> np.ndarray:
        x = self.calibration.double().numpy()
        return x.T @ x


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def layer() -> Layer:
    rng = np.random.default_rng(7)
    features = 256
    gain = rng.uniform(0.3, 1.5, features)
    gain[[3, 77, 200]] *= 12
    gain[131] = 0
    mix = np.eye(features) + 0.4 * rng.standard_normal((features, features)) / 8
    tokens = (rng.standard_normal((360, features)) @ mix) * gain
    weight = rng.standard_normal((48, features)) * rng.uniform(0.5, 1.5, (48, 1)) * 0.05
    weight[:, [10, 90]] *= 4
    weight[:, 131] = 0.5  # the dead input holds the peak of its group
    x = torch.tensor(tokens, dtype=torch.float32)
    full = x + torch.tensor(0.1 * rng.standard_normal(tokens.shape) * gain, dtype=torch.float32)
    collector = StatisticsCollector(features, sample_rows=64, seed=1)
    collector.add(x[:320], full[:320])
    collector.add_held_out(x[320:])
    return Layer(torch.tensor(weight, dtype=torch.float32), x[:320], x[320:], collector.finish(), full[:320])

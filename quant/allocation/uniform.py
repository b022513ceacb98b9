"""Uniform allocation: every layer and every group gets the recipe's bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from quant.lazy import torch

if TYPE_CHECKING:
    from quant.statistics import LayerStatistics
    from quant.weights import WeightGrid


@dataclass(frozen=True)
class Uniform:
    """wbits everywhere. Costs no metadata and no search; cannot spend bits where a layer is sensitive."""

    name: ClassVar[str] = "uniform"
    needs_statistics: ClassVar[bool] = False

    def allocate(self, grid: WeightGrid, weight: torch.Tensor, statistics: LayerStatistics | None) -> WeightGrid:
        """The recipe's own grid, whatever the layer."""
        return grid

"""Round-to-nearest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from quant.lazy import torch
from quant.weights import Codes

if TYPE_CHECKING:
    from quant.statistics import LayerStatistics
    from quant.weights import WeightGrid


@dataclass(frozen=True)
class Nearest:
    """Each weight takes its nearest level, whatever the inputs: |ŵ − w| ≤ s/2 inside the range of the grid.

    Needs no calibration. The baseline that every other rounding is held against.
    """

    name: ClassVar[str] = "nearest"
    needs_statistics: ClassVar[bool] = False

    def quantize(self, weight: torch.Tensor, grid: WeightGrid, statistics: LayerStatistics | None) -> Codes:
        """Codes of weight [n_out, n_in]; statistics are not used. Raises RecipeError when groups do not fit."""
        scale, zero = grid.parameters(weight)
        return Codes(grid.encode(weight, scale, zero), scale, zero)

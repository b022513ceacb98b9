"""Round-to-nearest, plain or after a search for the best range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from quant.errors import PoisonedLayer
from quant.lazy import torch
from quant.rounding.clipping import clip_weights
from quant.weights import Codes

if TYPE_CHECKING:
    from quant.statistics import LayerStatistics
    from quant.weights import WeightGrid


@dataclass(frozen=True)
class Nearest:
    """Each weight takes its nearest level: |ŵ − w| ≤ s/2 inside the range of the grid.

    Needs no calibration as it stands. The baseline that every other rounding is held against.

    clip_search: AWQ's search (arXiv 2306.00978) cuts the largest weights of each group where that lowers the
        output error on calibration tokens; see quant.rounding.clipping. Query and key projections are left
        alone, as there: their errors meet in a product that the search does not see. Raises PoisonedLayer
        without statistics.
    """

    name: ClassVar[str] = "nearest"

    clip_search: bool = False

    @property
    def needs_statistics(self) -> bool:
        """Only to search."""
        return self.clip_search

    def quantize(self, weight: torch.Tensor, grid: WeightGrid, statistics: LayerStatistics | None) -> Codes:
        """Codes of weight [n_out, n_in]. Raises RecipeError when groups do not fit."""
        if self.clip_search:
            if statistics is None:
                raise PoisonedLayer("clip_search needs calibration statistics")
            weight = clip_weights(weight, grid, statistics.gram.to(weight.device))
        scale, zero = grid.parameters(weight)
        return Codes(grid.encode(weight, scale, zero), scale, zero)

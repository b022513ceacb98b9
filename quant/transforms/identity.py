"""The identity transform: inputs and weights stay in the coordinates of the checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from quant.lazy import torch

if TYPE_CHECKING:
    from quant.protocols import Site
    from quant.statistics import LayerStatistics
    from quant.weights import WeightGrid


@dataclass(frozen=True)
class Identity:
    """T = I: both the choice and the fitted map, since there is nothing to fit, store or compute."""

    name: ClassVar[str] = "identity"
    needs_statistics: ClassVar[bool] = False

    def check_features(self, features: int) -> None:
        """Any width will do."""

    def fit(self, site: Site, grid: WeightGrid) -> dict[str, Identity]:
        """Itself for every layer."""
        return dict.fromkeys(site.weights, self)

    @staticmethod
    def from_tensors(tensors: dict[str, torch.Tensor]) -> Identity:
        """Itself; there are no tensors."""
        return Identity()

    def apply_input(self, x: torch.Tensor) -> torch.Tensor:
        """x."""
        return x

    def apply_weight(self, weight: torch.Tensor) -> torch.Tensor:
        """weight."""
        return weight

    def restore_weight(self, weight: torch.Tensor) -> torch.Tensor:
        """weight."""
        return weight

    def apply_output(self, weight: torch.Tensor) -> torch.Tensor:
        """weight."""
        return weight

    def restore_output(self, weight: torch.Tensor) -> torch.Tensor:
        """weight."""
        return weight

    def apply_statistics(self, statistics: LayerStatistics) -> LayerStatistics:
        """statistics."""
        return statistics

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """Nothing."""
        return {}

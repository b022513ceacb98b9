"""AWQ's scales: channels with large activations get finer weights, by as much as a search finds useful."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from quant.errors import PoisonedLayer
from quant.lazy import torch
from quant.transforms.scaling import ChannelScale

if TYPE_CHECKING:
    from quant.protocols import Site
    from quant.statistics import LayerStatistics
    from quant.weights import WeightGrid

STEPS = 20
_SMALLEST = 1e-4


@dataclass(frozen=True)
class AWQ:
    """Diagonal transform T = diag(1/s) (Lin et al., arXiv 2306.00978, equations 4 and 5):

        s = a^r / sqrt(max a^r · min a^r),   a_j = mean|x_j|,   r = argmin Σ ‖X Wᵀ − X (Q(W·diag(s))·diag(1/s))ᵀ‖²

    over r = 0, .05 ... .95, the first minimum winning, with a^r at least 1e-4. Q rounds to nearest on the recipe's
    grid (without its mse_clip); the sum is over the layers that share the input. The error is taken at the outputs
    of these linear layers, over all calibration tokens through their Gram matrix; the original inspects the output
    of the whole attention or MLP where it can.

    scale_search: false leaves every channel as it is, for clip search alone.

    Arithmetic is float32, s is kept in float16 per layer. Costs 20 roundings and n_in²·n_out products each. Raises
    PoisonedLayer without statistics.
    """

    name: ClassVar[str] = "awq"
    needs_statistics: ClassVar[bool] = True

    scale_search: bool = True

    def check_features(self, features: int) -> None:
        """Any width will do."""

    def fit(self, site: Site, grid: WeightGrid) -> dict[str, AwqScale]:
        """One set of scales [n_in] for all layers of the site."""
        if site.statistics is None:
            raise PoisonedLayer("awq needs calibration statistics")
        candidates = _candidates(site.statistics, STEPS if self.scale_search else 1)
        weights = [weight.float() for weight in site.weights.values()]
        grid = replace(grid, mse_clip=False)
        gram = site.statistics.gram
        found, least = candidates[0], float("inf")
        for scale in candidates if self.scale_search else ():
            error = sum(_output_error(weight, scale.float(), grid, gram) for weight in weights)
            if error < least:
                found, least = scale, error
        return dict.fromkeys(site.weights, AwqScale(found))

    @staticmethod
    def from_tensors(tensors: dict[str, torch.Tensor]) -> AwqScale:
        """Stored scales. Raises KeyError when they are missing."""
        return AwqScale(tensors["channel_scale"])


@dataclass(frozen=True, eq=False)
class AwqScale(ChannelScale):
    """AWQ's scales."""

    name: ClassVar[str] = "awq"


def _candidates(statistics: LayerStatistics, steps: int) -> list[torch.Tensor]:
    """s of each exponent, float16 [n_in]."""
    powers = [(statistics.mean_abs ** (step / STEPS)).clamp(min=_SMALLEST) for step in range(steps)]
    return [(power / (power.max() * power.min()).sqrt()).to(torch.float16) for power in powers]


def _output_error(weight: torch.Tensor, scale: torch.Tensor, grid: WeightGrid, gram: torch.Tensor) -> float:
    scaled = weight * scale
    missed = grid.nearest(scaled).sub_(scaled).div_(scale)
    return float((missed @ gram).mul_(missed).sum(dtype=torch.float64))

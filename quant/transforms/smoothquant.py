"""SmoothQuant: move the size of outlier channels from activations into weights, one factor per channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from quant.errors import PoisonedLayer, check_interval
from quant.lazy import torch
from quant.transforms.scaling import ChannelScale

if TYPE_CHECKING:
    from quant.protocols import Site
    from quant.weights import WeightGrid

_SMALLEST_PEAK = 1e-5
_SMALLEST_SCALE, _LARGEST_SCALE = 0.01, 65504.0


@dataclass(frozen=True)
class SmoothQuant:
    """Diagonal transform T = diag(1/s) (Xiao et al., arXiv 2211.10438, equation 4):

        s_j = max|x_j|^alpha / max|W_j|^(1 − alpha)        y = (x/s) · (W·diag(s))ᵀ

    max|x_j| is over calibration tokens, max|W_j| over the rows of all layers that share the input; both at
    least 1e-5, s between .01 and 65504. alpha near 1 flattens activations and burdens the weights; .5 shares
    the difficulty. s is kept in float16 per layer and x is divided at run time, so any layer can be smoothed;
    folding s into the norm in front of it gives the same numbers. Raises PoisonedLayer without statistics.
    """

    name: ClassVar[str] = "smoothquant"
    needs_statistics: ClassVar[bool] = True

    alpha: float = 0.5

    def __post_init__(self) -> None:
        check_interval("alpha", self.alpha, 0.0, 1.0)

    def check_features(self, features: int) -> None:
        """Any width will do."""

    def fit(self, site: Site, grid: WeightGrid) -> dict[str, SmoothScale]:
        """One set of scales [n_in] for all layers of the site."""
        return dict.fromkeys(site.weights, SmoothScale(smoothing_scale(site, self.alpha)))

    @staticmethod
    def from_tensors(tensors: dict[str, torch.Tensor]) -> SmoothScale:
        """Stored scales. Raises KeyError when they are missing."""
        return SmoothScale(tensors["channel_scale"])


@dataclass(frozen=True, eq=False)
class SmoothScale(ChannelScale):
    """SmoothQuant's scales."""

    name: ClassVar[str] = "smoothquant"


def smoothing_scale(site: Site, alpha: float) -> torch.Tensor:
    """SmoothQuant's s of a site, float16 [n_in]. Raises PoisonedLayer without statistics."""
    if site.statistics is None:
        raise PoisonedLayer("smoothing needs calibration statistics")
    peaks = torch.stack([weight.float().abs().amax(0) for weight in site.weights.values()]).amax(0)
    activation = site.statistics.absmax.to(peaks.device).clamp(min=_SMALLEST_PEAK) ** alpha
    scale = activation / peaks.clamp(min=_SMALLEST_PEAK) ** (1 - alpha)
    return scale.clamp(_SMALLEST_SCALE, _LARGEST_SCALE).to(torch.float16)

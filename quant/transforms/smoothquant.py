"""SmoothQuant: move the size of outlier channels from activations into weights, one factor per channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from quant.errors import PoisonedLayer, check_interval
from quant.lazy import torch

if TYPE_CHECKING:
    from quant.statistics import LayerStatistics

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

    def fit(self, statistics: LayerStatistics | None, weights: Sequence[torch.Tensor]) -> ChannelScale:
        """The scales [n_in] of the layers `weights`, each [n_out, n_in]."""
        if statistics is None:
            raise PoisonedLayer("smoothquant needs calibration statistics")
        peaks = torch.stack([weight.float().abs().amax(0) for weight in weights]).amax(0)
        activation = statistics.absmax.to(peaks.device).clamp(min=_SMALLEST_PEAK) ** self.alpha
        scale = activation / peaks.clamp(min=_SMALLEST_PEAK) ** (1 - self.alpha)
        return ChannelScale(scale.clamp(_SMALLEST_SCALE, _LARGEST_SCALE).to(torch.float16))

    @staticmethod
    def from_tensors(tensors: dict[str, torch.Tensor]) -> ChannelScale:
        """Stored scales. Raises KeyError when they are missing."""
        return ChannelScale(tensors["channel_scale"])


@dataclass(frozen=True, eq=False)
class ChannelScale:
    """x → x/s with s = channel_scale, float16 [n_in]."""

    name: ClassVar[str] = "smoothquant"

    channel_scale: torch.Tensor

    def apply_input(self, x: torch.Tensor) -> torch.Tensor:
        """x/s, in x's type."""
        return (x.float() / self._scale(x)).to(x.dtype)

    def apply_weight(self, weight: torch.Tensor) -> torch.Tensor:
        """W·diag(s), float32."""
        return weight.float() * self._scale(weight)

    def restore_weight(self, weight: torch.Tensor) -> torch.Tensor:
        """W·diag(1/s), float32."""
        return weight.float() / self._scale(weight)

    def apply_statistics(self, statistics: LayerStatistics) -> LayerStatistics:
        """Every statistic of x/s, exactly: all of them scale with the channels."""
        scale = self._scale(statistics.gram)
        return replace(
            statistics,
            gram=statistics.gram / scale / scale.unsqueeze(1),
            absmax=statistics.absmax / scale,
            mean_abs=statistics.mean_abs / scale,
            sample=statistics.sample / scale,
            held_out=statistics.held_out / scale,
        )

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """The scales."""
        return {"channel_scale": self.channel_scale}

    def _scale(self, other: torch.Tensor) -> torch.Tensor:
        return self.channel_scale.to(other.device, torch.float32)

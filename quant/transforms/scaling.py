"""A positive factor per input channel: what SmoothQuant and AWQ both come down to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from quant.lazy import torch

if TYPE_CHECKING:
    from quant.statistics import LayerStatistics


@dataclass(frozen=True, eq=False)
class ChannelScale:
    """x → x/s with s = channel_scale, float16 [n_in], positive. Subclasses name the method that found s."""

    name: ClassVar[str]

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

    def apply_output(self, weight: torch.Tensor) -> torch.Tensor:
        """weight."""
        return weight

    def restore_output(self, weight: torch.Tensor) -> torch.Tensor:
        """weight."""
        return weight

    def apply_statistics(self, statistics: LayerStatistics) -> LayerStatistics:
        """Every statistic of x/s, exactly: all of them scale with the channels."""
        scale = self._scale(statistics.gram)
        return replace(
            statistics,
            gram=statistics.gram / scale / scale.unsqueeze(1),
            cross=None if statistics.cross is None else statistics.cross / scale / scale.unsqueeze(1),
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

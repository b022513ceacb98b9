"""Quantizers of the inputs of a linear layer, found anew for every token while the model runs."""

from __future__ import annotations

from dataclasses import dataclass

from quant.errors import check_choice, check_interval
from quant.lazy import torch
from quant.weights import GROUP_SIZES, check_divides, scale_and_zero, to_codes

ACTIVATION_BITS = (4, 8, 16)


@dataclass(frozen=True)
class Activation:
    """Per-token dynamic round-to-nearest of activations, as in SmoothQuant (2211.10438) and QuaRot (2404.00456).

        x̂ = s·(clamp(round(x/s) + z) − z),   s and z from the range of one token, or of one group of its channels

    abits 16 leaves activations alone. activation_symmetric: the grid is `sym_restricted`; otherwise
    `asym_with_zero` for whole tokens and `asym_minmax` for groups (a group's range need not hold zero).
    activation_group_size −1 is the whole token; smaller groups isolate outlier channels and cost a scale
    each. activation_clip_ratio times both ends of the range comes first: it trades the largest values for a
    finer step, and hurts at 8 bits.

    Ranges and scales are float32 and never stored. Values are fake-quantized (floats on the grid): this
    measures quality, it does not run integer kernels. Non-finite inputs give non-finite outputs.
    """

    abits: int = 16
    activation_symmetric: bool = True
    activation_group_size: int = -1
    activation_clip_ratio: float = 1.0

    def __post_init__(self) -> None:
        check_choice("abits", self.abits, ACTIVATION_BITS)
        check_choice("activation_group_size", self.activation_group_size, GROUP_SIZES)
        check_interval("activation_clip_ratio", self.activation_clip_ratio, 0.0, 1.0)

    @property
    def active(self) -> bool:
        """Whether anything is quantized at all."""
        return self.abits < 16

    @property
    def grid(self) -> str:
        """Name of the grid in use (quant.weights)."""
        if self.activation_symmetric:
            return "sym_restricted"
        return "asym_with_zero" if self.activation_group_size == -1 else "asym_minmax"

    def quantize(self, x: torch.Tensor) -> torch.Tensor:
        """Fake-quantized x [..., n], same shape and dtype; x itself when abits is 16.

        Raises RecipeError when activation_group_size does not divide n.
        """
        if not self.active:
            return x
        check_divides(self.activation_group_size, x.shape[-1], "activation_group_size")
        width = x.shape[-1] if self.activation_group_size == -1 else self.activation_group_size
        groups = x.float().reshape(-1, width)
        lo, hi = (end * self.activation_clip_ratio for end in torch.aminmax(groups, dim=1, keepdim=True))
        scale, zero = scale_and_zero(lo, hi, self.abits, self.grid)
        quantized = to_codes(groups, scale, zero, self.abits).sub_(zero).mul_(scale)
        return quantized.reshape(x.shape).to(x.dtype)

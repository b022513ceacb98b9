"""The four choices that make a method, as the layer sees them: y = Qa(x T) · Qw(T⁻¹ Wᵀ).

A choice is a frozen dataclass (its fields are recipe fields); adding one means one file and one line in
quant.registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

from quant.lazy import torch

if TYPE_CHECKING:
    from quant.statistics import LayerStatistics
    from quant.weights import Codes, WeightGrid


@dataclass(frozen=True, eq=False)
class Site:
    """The linear layers that read one tensor of a block, and so must share what is done to it.

    weights: layer name -> [n_out, n_in]. statistics: of the shared input, None where nothing needs them.
    unclipped: layers whose weights must not be cut by a search that looks at one layer's output at a time.
    gain: [n_in], of the norm that the input comes out of, where there is one. inside: the input is not the
    (normed) residual stream. writes: layer -> −1 where its outputs are added to the residual stream, the head
    size where they are summed over tokens head by head.
    """

    weights: Mapping[str, torch.Tensor]
    statistics: LayerStatistics | None = None
    unclipped: frozenset[str] = frozenset()
    gain: torch.Tensor | None = None
    inside: bool = False
    writes: Mapping[str, int] = field(default_factory=dict)


class FittedTransform(Protocol):
    """An invertible map x → xT of a layer's inputs, and the matching maps of weights and statistics."""

    name: ClassVar[str]

    def apply_input(self, x: torch.Tensor) -> torch.Tensor:
        """x T for x [..., n_in]."""
        ...

    def apply_weight(self, weight: torch.Tensor) -> torch.Tensor:
        """(T⁻¹ Wᵀ)ᵀ, so that apply_input(x) · apply_weight(W)ᵀ = x Wᵀ."""
        ...

    def restore_weight(self, weight: torch.Tensor) -> torch.Tensor:
        """The inverse of apply_weight: a weight back in the original input coordinates."""
        ...

    def apply_output(self, weight: torch.Tensor) -> torch.Tensor:
        """The rows of weight [n_out, n_in] in the basis they are rounded in."""
        ...

    def restore_output(self, weight: torch.Tensor) -> torch.Tensor:
        """The inverse of apply_output."""
        ...

    def apply_statistics(self, statistics: LayerStatistics) -> LayerStatistics:
        """Statistics of xT from those of x: H' = Tᵀ H T."""
        ...

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """What running the layer needs of T; counted in its bits."""
        ...


class Transform(Protocol):
    """How to choose T."""

    name: ClassVar[str]
    needs_statistics: ClassVar[bool]

    def check_features(self, features: int) -> None:
        """Raise RecipeError where a layer of `features` inputs cannot be transformed."""
        ...

    def fit(self, site: Site, grid: WeightGrid) -> Mapping[str, FittedTransform]:
        """T for each layer of the site, the same on the input side; the weights will be rounded on `grid`."""
        ...

    @staticmethod
    def from_tensors(tensors: dict[str, torch.Tensor]) -> FittedTransform:
        """A stored T."""
        ...


class Rounding(Protocol):
    """How to turn a weight into codes."""

    name: ClassVar[str]

    @property
    def needs_statistics(self) -> bool:
        """Whether quantize must see calibration statistics."""
        ...

    def quantize(self, weight: torch.Tensor, grid: WeightGrid, statistics: LayerStatistics | None) -> Codes:
        """Codes of weight [n_out, n_in] on `grid`; statistics are those of the layer's (transformed) inputs."""
        ...


class Allocation(Protocol):
    """How to share out bits."""

    name: ClassVar[str]
    needs_statistics: ClassVar[bool]

    def allocate(self, grid: WeightGrid, weight: torch.Tensor, statistics: LayerStatistics | None) -> WeightGrid:
        """The grid of this layer, given the one the recipe asks for on average."""
        ...

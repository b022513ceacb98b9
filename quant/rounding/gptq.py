"""GPTQ: round column by column, and let the columns still to come make up for the error made so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from quant.errors import PoisonedLayer, check_interval
from quant.lazy import torch
from quant.solve import inverse_factor
from quant.weights import Codes, expand_groups, to_codes

if TYPE_CHECKING:
    from quant.statistics import LayerStatistics
    from quant.weights import WeightGrid

BLOCK = 128  # columns whose mutual corrections are applied at once; every group size divides it


@dataclass(frozen=True)
class GPTQ:
    """Optimal-brain rounding of W [n_out, n_in] under ‖X Wᵀ − X Ŵᵀ‖² (Frantar et al., arXiv 2210.17323).

    With H = Σ x xᵀ + λ·mean(diag H)·I and H⁻¹ = Uᵀ U (U upper triangular), for each column i in turn

        ŵ_i = Q(w_i),   e_i = (w_i − ŵ_i)/U_ii,   W[:, i+1:] −= e_i · U[i, i+1:]

    with the corrections beyond the current block of 128 columns applied once per block (algorithm 1).

    act_order: columns in order of decreasing diag H (before damping), so that the important ones find room to be
        corrected. Groups are then consecutive *in that order*, and a group number per column is stored.
    static_groups: group parameters come from the original weight in its own column order, before any correction,
        and no group numbers are needed. Without it a group takes the weights as they stand when the block that
        holds it begins. No effect with group_size −1, where parameters always come from the original row.
    damping: λ; larger trusts calibration less. See quant.solve for what happens when a factorization breaks down.

    Columns whose inputs are always zero get H_jj = 1 and weight zero. Float32 arithmetic with the factor from
    float64 up to n_in 1024; about 2·n_in²·n_out + 4·n_in³/3 operations, memory five n_in × n_in and three
    n_out × n_in matrices. Raises PoisonedLayer without statistics, SolveFailed when no factor exists,
    RecipeError when groups do not fit.
    """

    name: ClassVar[str] = "gptq"
    needs_statistics: ClassVar[bool] = True

    act_order: bool = False
    static_groups: bool = False
    damping: float = 0.01

    def __post_init__(self) -> None:
        check_interval("damping", self.damping, 0.0, 10.0)

    def quantize(self, weight: torch.Tensor, grid: WeightGrid, statistics: LayerStatistics | None) -> Codes:
        """Codes of weight [n_out, n_in] for the inputs that statistics describe."""
        if statistics is None:
            raise PoisonedLayer("gptq needs calibration statistics")
        gram = statistics.gram.to(weight.device, torch.float32).clone()
        dead = gram.diagonal() == 0
        gram.diagonal()[dead] = 1
        original = weight.float()
        alive = original.masked_fill(dead, 0)
        order = _order(gram, self.act_order)
        if self.act_order:
            gram = gram[order.unsqueeze(1), order]
        factor, used = inverse_factor(gram, self.damping)
        del gram
        passed_on = self.passed_on(statistics, factor, order)
        groups = self._fixed_groups(original, alive, grid)
        columns = alive[:, order].T.contiguous()
        codes, scale, zero = _sweep(columns, factor, passed_on, grid, groups, order)
        index = None if groups is not None or not self.act_order else _group_index(order, grid.group_size)
        in_place = torch.empty_like(codes).index_copy_(0, order, codes).T.contiguous()
        return Codes(in_place, scale, zero, index, used)

    def passed_on(
        self, statistics: LayerStatistics, factor: torch.Tensor, order: torch.Tensor
    ) -> torch.Tensor | None:
        """What later columns take over from each column besides its error, [n_in, n_in]; nothing here."""
        return None

    def _fixed_groups(
        self, original: torch.Tensor, alive: torch.Tensor, grid: WeightGrid
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Scale and zero [n_out, groups] where they are settled before the sweep, else None."""
        if grid.group_size == -1:
            return grid.parameters(original)
        return grid.parameters(alive) if self.static_groups else None


def _order(gram: torch.Tensor, act_order: bool) -> torch.Tensor:
    if act_order:
        return gram.diagonal().argsort(descending=True, stable=True)
    return torch.arange(gram.shape[0], device=gram.device)


def _group_index(order: torch.Tensor, group_size: int) -> torch.Tensor:
    """Group of each column in its own place, [n_in]: its rank in `order` divided by the group size."""
    ranks = torch.arange(len(order), device=order.device)
    return torch.empty_like(order).index_copy_(0, order, ranks // group_size)


def _sweep(
    columns: torch.Tensor,
    factor: torch.Tensor,
    passed_on: torch.Tensor | None,
    grid: WeightGrid,
    groups: tuple[torch.Tensor, torch.Tensor] | None,
    order: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes uint8 [n_in, n_out] of `columns` (overwritten) in sweep order, and scale, zero [n_out, groups]."""
    codes = torch.empty(columns.shape, dtype=torch.uint8, device=columns.device)
    found = []
    for start in range(0, len(columns), BLOCK):
        stop = min(start + BLOCK, len(columns))
        block = columns[start:stop]
        if groups is None:
            scale, zero = grid.parameters(block.T)
            found.append((scale, zero))
            expanded = [expand_groups(part, stop - start, None).T.contiguous() for part in (scale, zero)]
        else:
            width = len(columns) // groups[0].shape[1]
            expanded = [part.T[order[start:stop] // width] for part in groups]
        inside = None if passed_on is None else passed_on[start:stop, start:stop]
        errors = _sweep_block(
            block, factor[start:stop, start:stop], inside, expanded, grid.wbits, codes[start:stop]
        )
        columns[stop:].addmm_(factor[start:stop, stop:].T, errors, alpha=-1)
        if passed_on is not None:
            columns[stop:].addmm_(passed_on[start:stop, stop:].T, block)
    if groups is not None:
        return codes, *groups
    return codes, torch.cat([scale for scale, _ in found], 1), torch.cat([zero for _, zero in found], 1)


def _sweep_block(
    block: torch.Tensor,
    factor: torch.Tensor,
    passed_on: torch.Tensor | None,
    parameters: list[torch.Tensor],
    bits: int,
    codes: torch.Tensor,
) -> torch.Tensor:
    """Errors e [b, n_out] of one block of columns [b, n_out]; corrects the block and fills its codes."""
    scales, zeros = parameters
    errors = torch.empty_like(block)
    pivots = factor.diagonal().tolist()
    for i, pivot in enumerate(pivots):
        quantized = to_codes(block[i], scales[i], zeros[i], bits)
        codes[i] = quantized
        error = torch.sub(block[i], quantized.sub_(zeros[i]).mul_(scales[i]), out=errors[i]).div_(pivot)
        block[i + 1 :].addr_(factor[i, i + 1 :], error, alpha=-1)
        if passed_on is not None:
            block[i + 1 :].addr_(passed_on[i, i + 1 :], block[i])
    return errors

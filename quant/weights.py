"""Integer grids: which real values b-bit codes stand for, and which grid a group of weights gets.

Every grid is affine with unsigned codes, ŵ = s·(q − z), q in 0..n, n = 2^b − 1, rounding half to even. For
the values of one group, lo and hi are their smallest and largest, and an all-zero group counts as −1..1:

    asym_with_zero   s = (hi − lo)/n with lo = min(lo, 0), hi = max(hi, 0)   z = round(−lo/s), kept in b bits
    asym_minmax      s = (hi − lo)/n, hi − lo at least 1e-5                  z = round(−lo/s), kept in 16 bits;
                                                                             clamp_zero: in 0..n, kept in b bits
    sym_full         s = 2·max|w|/n                                          z = 2^(b−1), not kept
    sym_restricted   s = max|w|/(2^(b−1) − 1)                                z = 2^(b−1), not kept

`sym_full` cuts the largest positive weight (to 7/7.5 of it at 4 bits, 1/1.5 at 2 bits) and spends a level on
a negative end that may be empty; `sym_restricted` cuts nothing and leaves the lowest level nearly unused.
They are different recipes.

Scales are rounded to their stored type *before* zeros and codes are found, so what is measured is what is
stored. Limits: in fp16 a scale lies between 2^-24 and 65504; smaller weights become zero, larger ones are
cut. An `asym_minmax` group far from zero gets a scale of at least max|w|/32000 so that its zero fits 16 bits.
Non-finite values are not checked here (quantize_layer does).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from quant.errors import RecipeError, check_choice, check_interval
from quant.lazy import torch

GRIDS = ("asym_with_zero", "asym_minmax", "sym_full", "sym_restricted")
SYMMETRIC_GRIDS = ("sym_full", "sym_restricted")
BITS = (2, 3, 4, 8)
GROUP_SIZES = (-1, 32, 64, 128)

_SMALLEST_RANGE = 1e-5
_LARGEST_ZERO = 32000.0
_CLIP_STEPS = 80
_CLIP_NORM = 2.4
_CHUNK = 1 << 18  # values searched at a time: they and their temporaries stay in the cache


def check_divides(group_size: int, features: int, field: str = "group_size") -> None:
    """Raise RecipeError, listing the sizes that fit, unless groups of `group_size` fill `features` columns."""
    if group_size == -1 or features % group_size == 0:
        return
    fitting = ", ".join(str(size) for size in GROUP_SIZES if size == -1 or features % size == 0)
    raise RecipeError(
        f"{field} {group_size} does not divide the {features} input features of a layer; sizes that do: {fitting}",
        field,
    )


def scale_and_zero(
    lo: torch.Tensor, hi: torch.Tensor, bits: int, grid: str, scale_dtype: str = "float32"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Step s (exact in `scale_dtype`) and zero z of groups with the ranges lo..hi; float32, shaped like lo."""
    empty = (lo == 0) & (hi == 0)
    lo, hi = torch.where(empty, -1.0, lo), torch.where(empty, 1.0, hi)
    if grid == "asym_with_zero":
        lo, hi = lo.clamp(max=0), hi.clamp(min=0)
    peak = torch.maximum(lo.abs(), hi.abs())
    levels, half = 2**bits - 1, 2 ** (bits - 1)
    if grid == "sym_full":
        scale = 2 * peak / levels
    elif grid == "sym_restricted":
        scale = peak / (half - 1)
    elif grid == "asym_minmax":
        scale = torch.maximum((hi - lo).clamp(min=_SMALLEST_RANGE) / levels, peak / _LARGEST_ZERO)
    else:
        scale = (hi - lo) / levels
    scale = _stored(scale, scale_dtype)
    if grid in SYMMETRIC_GRIDS:
        return scale, torch.full_like(scale, half)
    zero = torch.round(-lo / scale)
    return scale, zero.clamp(0, levels) if grid == "asym_with_zero" else zero


def to_codes(values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, bits: int) -> torch.Tensor:
    """Nearest codes of `values`, as floats 0..2^bits − 1; scale and zero broadcast against values."""
    return (torch.round(values / scale) + zero).clamp_(0, 2**bits - 1)


@dataclass(frozen=True, eq=False)
class Codes:
    """A rounded weight before packing, and how it came about.

    codes uint8 [n_out, n_in]; scale, zero float32 [n_out, groups]; group_index int64 [n_in] (group of each
    column) or None when groups are consecutive columns; damping_used is the relative damping that worked,
    None without a solve.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor
    group_index: torch.Tensor | None = None
    damping_used: float | None = None

    def expand(self, parameter: torch.Tensor) -> torch.Tensor:
        """A [n_out, groups] parameter as one value per weight, [n_out, n_in]."""
        return expand_groups(parameter, self.codes.shape[1], self.group_index)

    def dequantize(self) -> torch.Tensor:
        """ŵ = s·(q − z), float32 [n_out, n_in]."""
        return (self.codes.float() - self.expand(self.zero)) * self.expand(self.scale)


def expand_groups(parameter: torch.Tensor, features: int, group_index: torch.Tensor | None) -> torch.Tensor:
    """[n_out, groups] -> [n_out, features], by group_index [features] or by consecutive columns."""
    if group_index is not None:
        return parameter[:, group_index]
    return parameter.repeat_interleave(features // parameter.shape[1], dim=1)


@dataclass(frozen=True)
class WeightGrid:
    """The grid of a weight matrix: wbits per code, group_size input columns per scale (−1: the whole row).

    weight_clip_ratio: both ends of a group's range times this, a fixed trade of the largest weights for a finer
    step (DuQuant); it costs accuracy at 8 bits.
    mse_clip (as in GPTQ's and QuaRot's code): both ends of a group's range times p = 1, .99, ... .21; the
    first p with the smallest Σ|ŵ − w|^2.4 is kept. Trades the few largest weights for a finer step.
    clamp_zero: `asym_minmax` zeros stay within the codes, as in AWQ's code: cheaper to keep, wrong for groups far
    from zero. The other grids' zeros always do.
    scale_dtype is not a recipe field: float32 exists to compare with implementations that keep their scales
    in float32.
    """

    wbits: int = 4
    group_size: int = 128
    weight_grid: str = "asym_with_zero"
    mse_clip: bool = False
    weight_clip_ratio: float = 1.0
    clamp_zero: bool = False
    scale_dtype: str = field(default="float16", metadata={"internal": True})

    def __post_init__(self) -> None:
        check_choice("wbits", self.wbits, BITS)
        check_choice("group_size", self.group_size, GROUP_SIZES)
        check_choice("weight_grid", self.weight_grid, GRIDS)
        check_interval("weight_clip_ratio", self.weight_clip_ratio, 0.0, 1.0)
        check_choice("scale_dtype", self.scale_dtype, ("float16", "float32"))

    @property
    def narrow_zero(self) -> bool:
        """Whether zeros fit into wbits."""
        return self.clamp_zero or self.weight_grid != "asym_minmax"

    @property
    def symmetric(self) -> bool:
        """Whether the grid is centred on zero (and stores no zero points)."""
        return self.weight_grid in SYMMETRIC_GRIDS

    def parameters(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and zero, float32 [n_out, groups], of weight [n_out, n_in] in groups of consecutive columns.

        Raises RecipeError when the group size does not divide n_in.
        """
        check_divides(self.group_size, weight.shape[1])
        width = weight.shape[1] if self.group_size == -1 else self.group_size
        groups = weight.float().reshape(-1, width)
        lo, hi = (end * self.weight_clip_ratio for end in groups.aminmax(dim=1))
        found = self._clipped(groups, lo, hi) if self.mse_clip else self._affine(lo, hi)
        scale, zero = (part.reshape(weight.shape[0], -1) for part in found)
        return scale, zero

    def encode(self, weight: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
        """Nearest codes, uint8 [n_out, n_in], of weight under the parameters [n_out, groups]."""
        groups = weight.float().reshape(*scale.shape, -1)
        codes = to_codes(groups, scale.unsqueeze(-1), zero.unsqueeze(-1), self.wbits)
        return codes.to(torch.uint8).reshape(weight.shape)

    def nearest(self, weight: torch.Tensor) -> torch.Tensor:
        """weight [n_out, n_in] rounded to its own grid, float32. Raises RecipeError when groups do not fit."""
        scale, zero = self.parameters(weight)
        groups = weight.float().reshape(*scale.shape, -1)
        scale, zero = scale.unsqueeze(-1), zero.unsqueeze(-1)
        return to_codes(groups, scale, zero, self.wbits).sub_(zero).mul_(scale).reshape(weight.shape)

    def _affine(self, lo: torch.Tensor, hi: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scale, zero = scale_and_zero(lo, hi, self.wbits, self.weight_grid, self.scale_dtype)
        return scale, zero.clamp(0, 2**self.wbits - 1) if self.clamp_zero else zero

    def _clipped(
        self, groups: torch.Tensor, lo: torch.Tensor, hi: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = max(1, _CHUNK // groups.shape[1])
        slices = [slice(start, start + rows) for start in range(0, len(groups), rows)]
        parts = [self._search(groups[part], lo[part], hi[part]) for part in slices]
        return torch.cat([scale for scale, _ in parts]), torch.cat([zero for _, zero in parts])

    def _search(
        self, groups: torch.Tensor, lo: torch.Tensor, hi: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        best_scale, best_zero = self._affine(lo, hi)
        best = torch.full_like(best_scale, float("inf"))
        for step in range(_CLIP_STEPS):
            shrink = 1 - step / 100
            scale, zero = self._affine(shrink * lo, shrink * hi)
            codes = to_codes(groups, scale.unsqueeze(1), zero.unsqueeze(1), self.wbits)
            found = codes.sub_(zero.unsqueeze(1)).mul_(scale.unsqueeze(1))
            error = found.sub_(groups).abs_().pow_(_CLIP_NORM).sum(1)
            better = error < best
            best = torch.where(better, error, best)
            best_scale = torch.where(better, scale, best_scale)
            best_zero = torch.where(better, zero, best_zero)
        return best_scale, best_zero


def _stored(scale: torch.Tensor, scale_dtype: str) -> torch.Tensor:
    """`scale` rounded to its stored type and back to float32, kept away from zero and infinity."""
    if scale_dtype == "float32":
        return scale.clamp(min=torch.finfo(torch.float32).tiny)
    return scale.clamp(2.0**-24, 65504.0).to(torch.float16).float()

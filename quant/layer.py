"""One linear layer through a recipe: transform, allocate, round, pack, and measure what came out.

Protects against non-finite weights and statistics (PoisonedLayer) and shapes that do not belong together.
Does not protect against statistics of another layer of the same width.
"""

from __future__ import annotations

import math
import time

from quant.errors import PoisonedLayer
from quant.lazy import torch
from quant.packing import PackedLinear
from quant.protocols import FittedTransform, Site
from quant.recipe import Recipe
from quant.rounding.nearest import Nearest
from quant.statistics import LayerStatistics
from quant.weights import Codes, WeightGrid

Report = dict[str, float | int | bool | None]


def quantize_layer(
    weight: torch.Tensor,
    recipe: Recipe,
    statistics: LayerStatistics | None,
    transform: FittedTransform | None = None,
) -> tuple[PackedLinear, Report]:
    """Quantize weight [n_out, n_in] by `recipe` for the inputs that `statistics` describe.

    statistics may be None where the recipe needs none. transform: a map fitted elsewhere, for layers that must
    share one; by default the recipe's is fitted to this layer. The report (None where it takes statistics):

    - relative_output_error: ‖X Wᵀ − X Ŵᵀ‖/‖X Wᵀ‖ over calibration tokens, from the Gram matrix; weights alone
    - relative_output_error_held_out: ‖X Wᵀ − Y‖/‖X Wᵀ‖ over held-out rows, Y as the layer runs, with Qa
    - rtn_output_error: the first error for plain round-to-nearest on the same grid, without transform
    - worse_than_rtn: whether the first exceeds it (False without statistics)
    - relative_weight_error: ‖W − Ŵ‖/‖W‖ in the transformed coordinates
    - clipped_fraction: share of (transformed) weights more than half a step outside the range of their grid
    - damping_used (None without a solve), dead_columns, finite, code_bits, linear_bits, seconds

    Raises PoisonedLayer (SolveFailed among them) for a layer that cannot be quantized, RecipeError for a group
    size that does not divide n_in, ValueError for statistics of another width.
    """
    started = time.perf_counter()
    _check(weight, recipe, statistics)
    weight = weight.detach().float()
    fitted = transform or recipe.transform.fit(Site({"": weight}, statistics), recipe.weights)[""]
    turned = fitted.apply_weight(weight)
    seen = None if statistics is None else fitted.apply_statistics(statistics)
    wanted = fitted.apply_output(turned)
    grid = recipe.allocation.allocate(recipe.weights, wanted, seen)
    rounded = recipe.rounding.quantize(wanted, grid, seen)
    packed = PackedLinear.pack(rounded, grid, fitted)
    report = _weight_report(wanted, rounded, packed)
    report |= _output_report(weight, turned, packed, recipe, statistics, seen)
    return packed, report | {"seconds": time.perf_counter() - started}


def _check(weight: torch.Tensor, recipe: Recipe, statistics: LayerStatistics | None) -> None:
    features = weight.shape[1]
    recipe.check_features(features)
    if not torch.isfinite(weight).all():
        raise PoisonedLayer("the weight holds values that are not finite")
    check_statistics(recipe, statistics, features)


def check_statistics(recipe: Recipe, statistics: LayerStatistics | None, features: int) -> None:
    """Raise PoisonedLayer or ValueError unless `recipe` can use `statistics` for layers of `features` inputs."""
    if statistics is None:
        if recipe.needs_statistics:
            raise PoisonedLayer("the recipe needs calibration statistics and there are none")
        return
    if statistics.gram.shape != (features, features):
        raise ValueError(f"statistics of {len(statistics.gram)} features for a layer with {features} inputs")
    if not statistics.tokens:
        raise PoisonedLayer("the calibration statistics hold no tokens")
    if not torch.isfinite(statistics.gram).all():
        raise PoisonedLayer("the calibration inputs hold values that are not finite, or too large to square")


def _weight_report(wanted: torch.Tensor, rounded: Codes, packed: PackedLinear) -> Report:
    found = packed.unpack().dequantize()
    bits = packed.bits()
    return {
        "relative_weight_error": _ratio((found - wanted).norm().item(), wanted.norm().item()),
        "clipped_fraction": _clipped_fraction(wanted, rounded, packed.grid),
        "damping_used": rounded.damping_used,
        "finite": bool(torch.isfinite(found).all()),
        "code_bits": bits.code,
        "linear_bits": bits.linear,
    }


def _output_report(
    weight: torch.Tensor,
    turned: torch.Tensor,
    packed: PackedLinear,
    recipe: Recipe,
    statistics: LayerStatistics | None,
    seen: LayerStatistics | None,
) -> Report:
    report: Report = dict.fromkeys(
        ("relative_output_error", "relative_output_error_held_out", "rtn_output_error", "dead_columns")
    )
    if statistics is None or seen is None:
        return report | {"worse_than_rtn": False}
    found = packed.dequantize()
    size = output_energy(weight, statistics.gram)
    error = math.sqrt(_ratio(output_energy(turned - found, seen.gram), size))
    rtn = error
    if recipe.rounding != Nearest() or turned is not weight:
        missed = weight - packed.grid.nearest(weight)
        rtn = math.sqrt(_ratio(output_energy(missed, statistics.gram), size))
    report |= {"relative_output_error": error, "rtn_output_error": rtn, "worse_than_rtn": error > rtn}
    report["dead_columns"] = int((statistics.gram.diagonal() == 0).sum())
    report["relative_output_error_held_out"] = _held_out_error(weight, found, packed, recipe, statistics)
    return report


def output_energy(weight: torch.Tensor, gram: torch.Tensor) -> float:
    """‖X Wᵀ‖² = Σ (W H)∘W of weight [n_out, n_in] from H = XᵀX [n_in, n_in]."""
    products = (weight @ gram.to(weight.device, torch.float32)).mul_(weight)
    return max(float(products.sum(dtype=torch.float64)), 0.0)


def _held_out_error(
    weight: torch.Tensor,
    found: torch.Tensor,
    packed: PackedLinear,
    recipe: Recipe,
    statistics: LayerStatistics,
) -> float | None:
    if not len(statistics.held_out):
        return None
    rows = statistics.held_out.to(weight.device).float()
    wanted = rows @ weight.T
    output = recipe.activation.quantize(packed.transform.apply_input(rows)) @ found.T
    return _ratio((output - wanted).norm().item(), wanted.norm().item())


def _clipped_fraction(turned: torch.Tensor, rounded: Codes, grid: WeightGrid) -> float:
    places = (turned / rounded.expand(rounded.scale)).add_(rounded.expand(rounded.zero))
    # Symmetric grids put peaks exactly half a step outside; the margin keeps rounding noise from deciding.
    outside = (places < -0.51) | (places > 2**grid.wbits - 0.49)
    return float(outside.double().mean())


def _ratio(error: float, size: float) -> float:
    """error/size, with 0/0 = 0: a layer of zeros is reproduced exactly."""
    return error / size if size else (0.0 if not error else math.inf)

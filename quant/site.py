"""All linear layers that read one input through a recipe, under one transform.

Query, key and value (gate and up) see the same tensor: a scale or rotation of it must be fitted to all of them
at once, or the layers would no longer be what one folded norm and one online transform can run.
"""

from __future__ import annotations

from dataclasses import replace

from quant.errors import PoisonedLayer
from quant.layer import Report, check_statistics, quantize_layer
from quant.lazy import torch
from quant.packing import PackedLinear
from quant.protocols import Site
from quant.recipe import Recipe
from quant.rounding.nearest import Nearest


def quantize_site(site: Site, recipe: Recipe) -> dict[str, tuple[PackedLinear, Report]]:
    """Every layer of the site as quantize_layer leaves it, with the transform fitted to all of them together.

    Raises what quantize_layer raises; PoisonedLayer names the layer. ValueError when the layers differ in width.
    """
    widths = {weight.shape[1] for weight in site.weights.values()}
    if len(widths) != 1:
        raise ValueError(f"layers that share an input have one width, not {sorted(widths)}")
    recipe.check_features(*widths)
    check_statistics(recipe, site.statistics, *widths)
    for name, weight in site.weights.items():
        if not torch.isfinite(weight).all():
            raise PoisonedLayer(f"{name}: the weight holds values that are not finite")
    fitted = recipe.transform.fit(site, recipe.weights)
    done = {}
    for name, weight in site.weights.items():
        try:
            done[name] = quantize_layer(weight, _recipe_of(name, site, recipe), site.statistics, fitted[name])
        except PoisonedLayer as error:
            raise type(error)(f"{name}: {error}") from None
    return done


def _recipe_of(name: str, site: Site, recipe: Recipe) -> Recipe:
    if name in site.unclipped and isinstance(recipe.rounding, Nearest):
        return replace(recipe, rounding=replace(recipe.rounding, clip_search=False))
    return recipe

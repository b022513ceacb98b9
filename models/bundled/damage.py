"""How much quantization hurts the shipped model, for its card: a quick look through the real quantizers.

All statistics come from the full-precision model (parallel propagation), one calibration set, one seed; the
comparisons that count, with intervals, are those of a sweep.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from models.bundled.corpus import Corpus
from models.bundled.measure import scores
from models.bundled.outliers import blocks_of, inputs_of
from models.bundled.vocabulary import MASK_ID, encode
from models.quantized import quantize_block
from models.spec import SITES
from models.transformer import MaskedDiffusionLM
from quant.layer import quantize_layer
from quant.recipe import resolve
from quant.statistics import LayerStatistics, StatisticsCollector

CALIBRATION_ROWS = 128
CELLS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    *((f"RTN W{bits}", "masked", {"method": "rtn", "wbits": bits}) for bits in (4, 3, 2)),
    *((f"GPTQ W{bits}", "masked", {"method": "gptq", "wbits": bits}) for bits in (4, 3, 2)),
    *((f"GPTQ W{bits}", "visible", {"method": "gptq", "wbits": bits}) for bits in (4, 3, 2)),
    *((f"RTN W{bits}A{bits}", "masked", {"method": "rtn", "wbits": bits, "abits": bits}) for bits in (8, 4)),
)


def calibration_ids(corpus: Corpus, masking: str) -> Tensor:
    """Rows of calibration text, every token visible or masked at a ratio drawn per row."""
    ids = torch.tensor([encode(text) for text in corpus.calibration(CALIBRATION_ROWS)])
    generator = torch.Generator().manual_seed(0)
    ratio = torch.rand(len(ids), 1, generator=generator)
    hidden = torch.rand(ids.shape, generator=generator) < ratio
    return ids.masked_fill(hidden, MASK_ID) if masking == "masked" else ids


def statistics(model: MaskedDiffusionLM, ids: Tensor) -> list[dict[str, LayerStatistics]]:
    """Per block, the statistics of each site that linear layers read."""
    found = []
    for block in blocks_of(model):
        sites = {}
        for layer in ("q_proj", "o_proj", "up_proj", "down_proj"):
            rows = inputs_of(model, block.get_submodule(layer), ids).flatten(0, 1)
            collector = StatisticsCollector(rows.shape[1])
            collector.add(rows)
            sites[SITES[layer]] = collector.finish()
        found.append(sites)
    return found


def quantized(
    model: MaskedDiffusionLM, found: list[dict[str, LayerStatistics]], fields: dict[str, Any]
) -> MaskedDiffusionLM:
    """A copy of the model with every block quantized per output channel."""
    recipe = resolve({**fields, "group_size": -1})
    model = copy.deepcopy(model)
    for block, sites in zip(blocks_of(model), found, strict=True):
        layers = {
            name: quantize_layer(block.get_submodule(name).get_parameter("weight"), recipe, sites[site])[0]
            for name, site in SITES.items()
        }
        quantize_block(block, layers, recipe.activation)
    return model


@torch.no_grad()
def damage(
    model: MaskedDiffusionLM, corpus: Corpus, count: int, draws: int
) -> dict[tuple[str, str], dict[str, float]]:
    """(recipe, calibration) -> scores over `count` items per task."""
    found = {masking: statistics(model, calibration_ids(corpus, masking)) for masking in ("masked", "visible")}
    return {
        (label, masking): scores(quantized(model, found[masking], fields), corpus, count, draws)
        for label, masking, fields in CELLS
    }

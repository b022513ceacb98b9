"""Quantize: every linear layer of one block through one recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from models.quantized import block_tensors, sites
from pipeline.cells import calibration_columns
from pipeline.tasks import Quantize
from quant.errors import PoisonedLayer
from quant.packing import PackedLinear
from quant.site import quantize_site
from storage.artifacts import Store
from storage.tables import write_table
from workers.calibrate import read_statistics
from workers.loading import Memory, checkpoint_of


def quantize(task: Quantize, store: Store, memory: Memory, folder: Path, facts: dict[str, Any]) -> None:
    """Write block.safetensors, block.json and layers.parquet into `folder`.

    Raises PoisonedLayer, naming block and layer, when a layer cannot be quantized or comes out not finite.
    """
    statistics = read_statistics(store.open(task.statistics).file("statistics.safetensors"))
    block = checkpoint_of(task.model).block(task.block).to(task.model.device)
    layers: dict[str, PackedLinear] = {}
    rows = []
    for site in sites(block, statistics):
        try:
            done = quantize_site(site, task.recipe)
        except PoisonedLayer as error:
            raise PoisonedLayer(f"block {task.block} {error}") from None
        for name, (layers[name], report) in done.items():
            if not report["finite"]:
                raise PoisonedLayer(f"block {task.block} {name}: the quantized weight is not finite")
            rows.append({**_labels(task, name, site.weights[name].shape), **report})
    # Cloned, because layers of one site may share tensors, and safetensors refuses that.
    tensors = {name: t.cpu().contiguous().clone() for name, t in block_tensors(layers).items()}
    save_file(tensors, folder / "block.safetensors")
    meta = {"recipe": task.recipe.canonical(), "layers": {name: p.meta() for name, p in layers.items()}}
    (folder / "block.json").write_text(json.dumps(meta, sort_keys=True))
    write_table(folder / "layers.parquet", "layers", rows)
    facts.update(_sizes(layers))


def _labels(task: Quantize, layer: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """What decided a row. Labels are not among it: an artifact is shared by all who call it something else."""
    recipe = {name: value for name, value in task.recipe.fields().items() if name != "method"}
    return {
        **recipe,
        **calibration_columns(task.calibration),
        "propagation": task.propagation,
        "model_hash": task.model.weights,
        "block": task.block,
        "layer": layer,
        "rows": shape[0],
        "columns": shape[1],
    }


def _sizes(layers: dict[str, PackedLinear]) -> dict[str, int]:
    """Weights, and bytes of codes and of everything stored, summed over the block."""
    return {
        "weights": sum(p.in_features * p.out_features for p in layers.values()),
        "code_bytes": sum(p.codes.nbytes for p in layers.values()),
        "linear_bytes": sum(t.nbytes for p in layers.values() for t in p.to_tensors().values()),
    }

"""What a worker keeps in memory between tasks: at most one assembled model, and how it is put together.

Does not protect against a model larger than the device: that is an out-of-memory error of the task.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from models.checkpoint import Checkpoint, assemble
from models.files import Model
from models.quantized import quantize_block, read_block
from models.transformer import Block, MaskedDiffusionLM
from quant.recipe import Recipe
from storage.artifacts import Store


def dtype_of(model: Model) -> torch.dtype:
    """The torch dtype a grid names."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[model.dtype]


def checkpoint_of(model: Model) -> Checkpoint:
    """The streamed checkpoint of a model, in its dtype."""
    return Checkpoint(model.folder, dtype_of(model))


def quantized_block(store: Store, checkpoint: Checkpoint, index: int, key: str, recipe: Recipe) -> Block:
    """Block `index` as the Quantize task `key` left it."""
    artifact = store.open(key)
    meta = json.loads(artifact.file("block.json").read_text())
    layers = read_block(artifact.file("block.safetensors"), meta["layers"])
    return quantize_block(checkpoint.block(index), layers, recipe.activation)


@dataclass
class Memory:
    """One worker's cache: the last model it assembled, named by what it was made from."""

    name: str = ""
    model: MaskedDiffusionLM | None = None

    def assembled(
        self, store: Store, model: Model, recipe: Recipe | None, blocks: Mapping[int, str]
    ) -> MaskedDiffusionLM:
        """The whole model, full precision where `blocks` names nothing, on its device."""
        name = json.dumps([model.identity(), recipe.canonical() if recipe else None, sorted(blocks.items())])
        if self.model is None or self.name != name:
            self.name, self.model = "", None  # free the old one before the new one is made
            checkpoint = checkpoint_of(model)
            built = [self._block(store, checkpoint, i, recipe, blocks) for i in range(model.spec.layers)]
            self.model = assemble(checkpoint, built).to(model.device)
            self.name = name
        return self.model

    def _block(
        self, store: Store, checkpoint: Checkpoint, index: int, recipe: Recipe | None, blocks: Mapping[int, str]
    ) -> Block:
        if recipe is None or index not in blocks:
            return checkpoint.block(index)
        return quantized_block(store, checkpoint, index, blocks[index], recipe)

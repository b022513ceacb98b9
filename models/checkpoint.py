"""Checkpoints on disk: sharded safetensors read tensor by tensor, in the layout of the model's own family.

Files are memory-mapped, so loading one block touches that block's bytes only. Does not protect against
weights that change while a sweep runs: their hash is taken once, when the sweep is planned.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from models.families import FAMILIES
from models.files import SINGLE, header, weight_files
from models.spec import ModelError, read_spec
from models.transformer import Block, MaskedDiffusionLM


class Checkpoint:
    """A checkpoint folder, read block by block.

    Errors: ModelError for files that are missing or unreadable, and for a tensor that is missing.
    """

    def __init__(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        self.folder, self.dtype = Path(folder), dtype
        self.spec = read_spec(self.folder)
        self.family = FAMILIES[self.spec.family]
        self._file_of = {key: path for path in weight_files(self.folder) for key in header(path)}

    def tensor(self, key: str) -> Tensor:
        """One tensor by its key in the file, cast to the checkpoint's dtype."""
        if key not in self._file_of:
            raise ModelError(f"{self.folder} has no tensor {key}")
        with safe_open(self._file_of[key], framework="pt") as file:
            return file.get_tensor(key).to(self.dtype)

    def block(self, index: int) -> Block:
        """Block `index` with its weights, on the CPU, frozen; nothing else is read."""
        with torch.device("meta"):
            block = Block(self.spec)
        names = self.spec.block_shapes()
        state = {name: self.tensor(self.family.block_key(index, name)) for name in names}
        block.load_state_dict(state, assign=True)
        return block.requires_grad_(False).eval()

    def outside(self) -> dict[str, Tensor]:
        """embedding.weight, norm.weight and, unless tied, head.weight."""
        return {name: self.tensor(self.family.outside[name]) for name in self.spec.outside_shapes()}


def assemble(checkpoint: Checkpoint, blocks: list[Block]) -> MaskedDiffusionLM:
    """A whole model from ready blocks and the checkpoint's embedding, final norm and head."""
    outside = {k: nn.Parameter(v, requires_grad=False) for k, v in checkpoint.outside().items()}
    with torch.device("meta"):
        model = MaskedDiffusionLM(checkpoint.spec)
    model.embedding.weight = outside["embedding.weight"]
    model.norm.weight = outside["norm.weight"]
    model.head.weight = outside.get("head.weight", outside["embedding.weight"])
    model.blocks = nn.ModuleList(blocks)
    return model.eval()


def load_model(folder: str | Path, dtype: torch.dtype = torch.float32) -> MaskedDiffusionLM:
    """A whole full-precision model in memory, on the CPU, frozen."""
    checkpoint = Checkpoint(folder, dtype)
    return assemble(checkpoint, [checkpoint.block(i) for i in range(checkpoint.spec.layers)])


def save_checkpoint(
    model: MaskedDiffusionLM,
    folder: str | Path,
    config: Mapping[str, Any],
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write a model in its family's layout: `config` as config.json, the weights as one safetensors file."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    family = FAMILIES[model.spec.family]
    state = {}
    for name, tensor in model.state_dict().items():
        if name == "head.weight" and model.spec.tied:
            continue
        _, _, rest = name.partition("blocks.")
        index, _, inner = rest.partition(".")
        key = family.block_key(int(index), inner) if rest else family.outside[name]
        state[key] = tensor.detach().to(dtype).contiguous().clone()
    save_file(state, folder / SINGLE, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(dict(config), indent=2, sort_keys=True) + "\n")

"""Checkpoints on disk: sharded safetensors read tensor by tensor, in the layout of the model's own family.

Only safetensors and JSON are read; pickled weights are refused. Files are memory-mapped, so loading one block
touches that block's bytes only. Does not protect against weights changed while they are being read:
`weights_hash` is taken once, when a sweep is planned.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.families import FAMILIES
from models.spec import ModelError, ModelSpec, read_spec
from models.transformer import Block, MaskedDiffusionLM

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint in name order; ModelError when there are none."""
    if (folder / INDEX).exists():
        index = json.loads((folder / INDEX).read_text())
        files = sorted({folder / name for name in index["weight_map"].values()})
    else:
        files = [folder / SINGLE]
    missing = [f.name for f in files if not f.is_file()]
    if missing:
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        hint = "; pickled weights are not read, convert them to safetensors" if pickled else ""
        raise ModelError(f"{folder} lacks the weights {', '.join(missing)}{hint}")
    return files


def weights_hash(folder: str | Path) -> str:
    """SHA-256 over config.json and every weight file: the identity of a model in all keys."""
    digest = hashlib.sha256()
    for path in [Path(folder) / "config.json", *weight_files(Path(folder))]:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


class Checkpoint:
    """A checkpoint folder, read block by block.

    Errors: ModelError for files that are missing or unreadable, for a tensor that is missing or of another
    shape than the config says.
    """

    def __init__(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        self.folder, self.dtype = Path(folder), dtype
        self.spec = read_spec(self.folder)
        self.family = FAMILIES[self.spec.family]
        self._file_of = {key: path for path in weight_files(self.folder) for key in _keys(path)}

    def tensor(self, key: str, shape: tuple[int, ...] | None = None) -> Tensor:
        """One tensor by its file key, in the checkpoint's dtype."""
        if key not in self._file_of:
            raise ModelError(f"{self.folder} has no tensor {key}")
        with safe_open(self._file_of[key], framework="pt") as file:
            tensor = file.get_tensor(key)
        if shape is not None and tuple(tensor.shape) != shape:
            raise self._wrong_shape(key, tuple(tensor.shape), shape)
        return tensor.to(self.dtype)

    def block(self, index: int) -> Block:
        """Block `index` with its weights, on the CPU; nothing else is read."""
        with torch.device("meta"):
            block = Block(self.spec)
        shapes = block_shapes(self.spec)
        state = {n: self.tensor(self.family.block_key(index, n), shape) for n, shape in shapes.items()}
        block.load_state_dict(state, assign=True)
        return block.requires_grad_(False).eval()

    def outside(self) -> dict[str, Tensor]:
        """embedding.weight, norm.weight and, unless tied, head.weight."""
        return {
            name: self.tensor(self.family.outside[name], s) for name, s in outside_shapes(self.spec).items()
        }

    def check(self) -> None:
        """Read every tensor's header: raises ModelError for the first one missing or of another shape."""
        expected = {self.family.outside[n]: shape for n, shape in outside_shapes(self.spec).items()}
        for index in range(self.spec.layers):
            for name, shape in block_shapes(self.spec).items():
                expected[self.family.block_key(index, name)] = shape
        for key, shape in expected.items():
            if key not in self._file_of:
                raise ModelError(f"{self.folder} has no tensor {key}")
            with safe_open(self._file_of[key], framework="pt") as file:
                found = tuple(file.get_slice(key).get_shape())
            if found != shape:
                raise self._wrong_shape(key, found, shape)

    def _wrong_shape(self, key: str, found: tuple[int, ...], expected: tuple[int, ...]) -> ModelError:
        return ModelError(f"{key} in {self.folder} is {list(found)}, config.json says {list(expected)}")


def outside_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that belong to no block."""
    table = (spec.vocab_size, spec.hidden_size)
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": table, "norm.weight": (spec.hidden_size,)}
    return shapes if spec.tied else {**shapes, "head.weight": table}


def block_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Shapes of one block's tensors by dlq's names, such as 'q_proj.weight'."""
    with torch.device("meta"):
        return {name: tuple(p.shape) for name, p in Block(spec).named_parameters()}


def _keys(path: Path) -> Iterator[str]:
    try:
        with safe_open(path, framework="pt") as file:
            yield from file.keys()
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a readable safetensors file: {error}") from None


def load_model(folder: str | Path, dtype: torch.dtype = torch.float32) -> MaskedDiffusionLM:
    """A whole model in memory, on the CPU, frozen."""
    checkpoint = Checkpoint(folder, dtype)
    with torch.device("meta"):
        model = MaskedDiffusionLM(checkpoint.spec)
    return fill_model(model, checkpoint, [checkpoint.block(i) for i in range(checkpoint.spec.layers)])


def fill_model(model: MaskedDiffusionLM, checkpoint: Checkpoint, blocks: list[Block]) -> MaskedDiffusionLM:
    """Put ready blocks, and the checkpoint's embedding, norm and head, into a model built on `meta`."""
    outside = checkpoint.outside()
    head = outside.get("head.weight", outside["embedding.weight"])
    model.embedding.weight = torch.nn.Parameter(outside["embedding.weight"], requires_grad=False)
    model.norm.weight = torch.nn.Parameter(outside["norm.weight"], requires_grad=False)
    model.head.weight = torch.nn.Parameter(head, requires_grad=False)
    model.blocks = torch.nn.ModuleList(blocks)
    return model.eval()


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
        if name.startswith("blocks."):
            _, index, rest = name.split(".", 2)
            key = family.block_key(int(index), rest)
        elif name == "head.weight" and model.spec.tied:
            continue
        else:
            key = family.outside[name]
        state[key] = tensor.detach().to(dtype).contiguous().clone()
    save_file(state, folder / SINGLE, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(dict(config), indent=2, sort_keys=True) + "\n")

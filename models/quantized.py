"""A block that runs with quantized weights and activations, rebuilt from packed layers.

Weights are dequantized once when the block is built; quality is measured, no integer kernel runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from models.spec import NORMS, RESIDUAL_LAYERS, SCORE_LAYERS, SITES
from models.transformer import Block
from quant.activation import Activation
from quant.packing import PackedLinear
from quant.protocols import Site
from quant.statistics import LayerStatistics


class QuantizedLinear(nn.Module):
    """y = Qa(x T) · Ŵᵀ + b; takes the place of an nn.Linear.

    Inputs are transformed and quantized in their own dtype; the weight is held dequantized in `dtype`.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self, packed: PackedLinear, activation: Activation, bias: Tensor | None, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.register_buffer("weight", packed.dequantize(dtype), persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.transform, self.activation = packed.transform, activation

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.activation.quantize(self.transform.apply_input(x)), self.weight, self.bias)


def sites(block: Block, statistics: Mapping[str, LayerStatistics]) -> Iterator[Site]:
    """What the quantizers see of a block, one Site per tensor that its linear layers read."""
    writes = {"v_proj": block.head_dim, **dict.fromkeys(RESIDUAL_LAYERS, -1)}
    for site in dict.fromkeys(SITES.values()):
        layers = [layer for layer, read in SITES.items() if read == site]
        norm = NORMS.get(site)
        yield Site(
            weights={layer: block.get_submodule(layer).get_parameter("weight").detach() for layer in layers},
            statistics=statistics[site].to(block.q_proj.weight.device),
            unclipped=SCORE_LAYERS,
            gain=None if norm is None else block.get_submodule(norm).get_parameter("weight").detach(),
            inside=norm is None,
            writes=writes,
        )


def quantize_block(block: Block, layers: Mapping[str, PackedLinear], activation: Activation) -> Block:
    """Replace the named linear layers of `block`, in place.

    Raises KeyError, listing them, when a linear layer of the block has no packed counterpart: a layer that
    silently stays in full precision would falsify the bits of the whole cell.
    """
    linears = {name for name, module in block.named_children() if isinstance(module, nn.Linear)}
    if linears != set(layers):
        raise KeyError(f"layers left unquantized or unknown: {sorted(linears ^ set(layers))}")
    for name, packed in layers.items():
        linear = block.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        setattr(block, name, QuantizedLinear(packed, activation, linear.bias, linear.weight.dtype))
    return block


def block_tensors(layers: Mapping[str, PackedLinear]) -> dict[str, Tensor]:
    """Stored tensors of a packed block: '<layer>.<part>' -> tensor."""
    return {f"{layer}.{part}": t for layer, packed in layers.items() for part, t in packed.to_tensors().items()}


def read_block(path: Path, meta: Mapping[str, Mapping[str, Any]]) -> dict[str, PackedLinear]:
    """The inverse of `block_tensors`, from a safetensors file and the layers' meta."""
    stored = load_file(path)
    layers = {}
    for layer, details in meta.items():
        parts = {k.removeprefix(f"{layer}."): t for k, t in stored.items() if k.startswith(f"{layer}.")}
        layers[layer] = PackedLinear.from_tensors(parts, details)
    return layers

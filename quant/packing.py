"""Packed storage of a quantized linear layer, and its exact size.

Codes are a bit stream, lowest bits first: eight b-bit codes in b bytes, so 3-bit codes really take 3 bits.
Nothing is kept that can be computed. Does not protect against damaged bytes: the storage room's hashes do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quant.lazy import torch
from quant.protocols import FittedTransform
from quant.registry import TRANSFORMS
from quant.weights import Codes, WeightGrid

_TRANSFORM_PREFIX = "transform."


@dataclass(frozen=True)
class Bits:
    """Bits per weight: `code` counts the codes alone, `linear` everything the layer stores but its bias."""

    code: float
    linear: float


def pack_bits(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """uint8 codes [rows, n], each below 2^bits, as uint8 [rows, ceil(n·bits/8)]; bits 1..8."""
    rows, count = codes.shape
    padded = torch.nn.functional.pad(codes, (0, -count % 8)).reshape(rows, -1, 8)
    words = torch.zeros(padded.shape[:2], dtype=torch.int64, device=codes.device)
    for place in range(8):
        words |= padded[:, :, place].long() << (bits * place)
    stream = torch.stack([(words >> (8 * byte)) & 255 for byte in range(bits)], dim=2).to(torch.uint8)
    return stream.reshape(rows, -1)[:, : (count * bits + 7) // 8].contiguous()


def unpack_bits(packed: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """The inverse of pack_bits: uint8 codes [rows, count]."""
    rows, width = packed.shape
    stream = torch.nn.functional.pad(packed, (0, -width % bits)).reshape(rows, -1, bits)
    words = torch.zeros(stream.shape[:2], dtype=torch.int64, device=packed.device)
    for byte in range(bits):
        words |= stream[:, :, byte].long() << (8 * byte)
    mask = 2**bits - 1
    codes = torch.stack([(words >> (bits * place)) & mask for place in range(8)], dim=2).to(torch.uint8)
    return codes.reshape(rows, -1)[:, :count].contiguous()


@dataclass(frozen=True, eq=False)
class PackedLinear:
    """The stored weight of y = Qa(x T) · Ŵᵀ, Ŵ [n_out, n_in] in the coordinates of the transform T.

    codes: packed uint8 [n_out, bytes]. scale: float16 [n_out, groups]. zero: None on symmetric grids; packed
    uint8 [1, bytes] with wbits per zero on `asym_with_zero`, and on `asym_minmax` with clamp_zero; else int16
    [n_out, groups].
    group_index: int16 [n_in] where groups are not consecutive columns, else None. The bias is not touched and
    not kept here.
    """

    grid: WeightGrid
    in_features: int
    codes: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor | None
    group_index: torch.Tensor | None
    transform: FittedTransform

    @property
    def out_features(self) -> int:
        """n_out."""
        return self.scale.shape[0]

    @classmethod
    def pack(cls, rounded: Codes, grid: WeightGrid, transform: FittedTransform) -> PackedLinear:
        """Pack codes that were found on `grid` (their scales already fit its scale_dtype)."""
        index = rounded.group_index
        return cls(
            grid=grid,
            in_features=rounded.codes.shape[1],
            codes=pack_bits(rounded.codes, grid.wbits),
            scale=rounded.scale.to(getattr(torch, grid.scale_dtype)).contiguous(),
            zero=_pack_zero(rounded.zero, grid),
            group_index=None if index is None else index.to(torch.int16),
            transform=transform,
        )

    def unpack(self) -> Codes:
        """The codes with float32 scales and zeros, as they were packed."""
        index = self.group_index
        return Codes(
            codes=unpack_bits(self.codes, self.grid.wbits, self.in_features),
            scale=self.scale.float(),
            zero=self._zeros(),
            group_index=None if index is None else index.long(),
        )

    def dequantize(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Ŵ [n_out, n_in] with inputs in the coordinates of T (the factor of Qa(x T)) and outputs in the
        checkpoint's, float32 unless dtype says otherwise."""
        return self.transform.restore_output(self.unpack().dequantize()).to(dtype or torch.float32)

    def effective(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Ŵ [n_out, n_in] in the coordinates of the checkpoint, for comparison with the original weight."""
        return self.transform.restore_weight(self.dequantize()).to(dtype or torch.float32)

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """Everything that is stored, by name; meta() completes it."""
        tensors = {
            "codes": self.codes,
            "scale": self.scale,
            "zero": self.zero,
            "group_index": self.group_index,
        }
        kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        return kept | {_TRANSFORM_PREFIX + name: part for name, part in self.transform.to_tensors().items()}

    def meta(self) -> dict[str, object]:
        """Plain JSON values that from_tensors needs besides the tensors."""
        return {
            "in_features": self.in_features,
            "wbits": self.grid.wbits,
            "group_size": self.grid.group_size,
            "weight_grid": self.grid.weight_grid,
            "mse_clip": self.grid.mse_clip,
            "weight_clip_ratio": self.grid.weight_clip_ratio,
            "clamp_zero": self.grid.clamp_zero,
            "scale_dtype": self.grid.scale_dtype,
            "transform": self.transform.name,
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> PackedLinear:
        """The inverse of to_tensors and meta. Raises KeyError when something is missing."""
        details = dict(meta)
        in_features, name = details.pop("in_features"), details.pop("transform")
        of_transform = {
            key.removeprefix(_TRANSFORM_PREFIX): part
            for key, part in tensors.items()
            if key.startswith(_TRANSFORM_PREFIX)
        }
        return cls(
            grid=WeightGrid(**details),
            in_features=int(in_features),
            codes=tensors["codes"],
            scale=tensors["scale"],
            zero=tensors.get("zero"),
            group_index=tensors.get("group_index"),
            transform=TRANSFORMS[str(name)].from_tensors(of_transform),
        )

    def bits(self) -> Bits:
        """Bits per weight from the bytes of the stored tensors."""
        weights = self.out_features * self.in_features
        total = sum(tensor.nbytes for tensor in self.to_tensors().values())
        return Bits(code=8 * self.codes.nbytes / weights, linear=8 * total / weights)

    def _zeros(self) -> torch.Tensor:
        if self.zero is None:
            return torch.full_like(self.scale, 2 ** (self.grid.wbits - 1), dtype=torch.float32)
        if not self.grid.narrow_zero:
            return self.zero.float()
        return unpack_bits(self.zero, self.grid.wbits, self.scale.numel()).reshape(self.scale.shape).float()


def _pack_zero(zero: torch.Tensor, grid: WeightGrid) -> torch.Tensor | None:
    if grid.symmetric:
        return None
    if not grid.narrow_zero:
        return zero.to(torch.int16)
    return pack_bits(zero.to(torch.uint8).reshape(1, -1), grid.wbits)

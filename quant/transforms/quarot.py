"""QuaRot: rotate inputs, weights and outputs by Hadamard matrices so that no channel stands out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from quant.errors import RecipeError, check_interval
from quant.hadamard import NoHadamard, apply_hadamard, random_signs, split_order
from quant.lazy import torch
from quant.statistics import transformed

if TYPE_CHECKING:
    from quant.protocols import Site
    from quant.statistics import LayerStatistics
    from quant.weights import WeightGrid

_NONE = -1  # no random signs
_WHOLE = -1  # all output channels are one block


@dataclass(frozen=True)
class QuaRot:
    """Randomised Hadamard rotations (Ashkboos et al., arXiv 2404.00456), layer by layer.

    The published form rotates the residual stream by Q = diag(±1)·H/√d, merges Q and the norm gains g into the
    weights, rotates the heads of v, and applies Hadamards to the inputs of the output and down projections while
    the model runs. Here each layer undoes at its ends what its neighbours would have been given. That makes the
    same codes, the same quantized activations and the same function, and mixes with layers of other recipes:

        layers that read a norm (q, k, v, gate, up)           T = diag(1/g)·Q
        layers that read the inside of a block (o, down)      T = H/√n
        rows of layers that write the residual (o, down)      rounded in the basis Q
        rows of layers that write heads (v)                   rounded in the basis H/√head_dim of each head

    Rows are rotated back where weights are dequantized, so biases stay as they are, also those of v. Embeddings
    are not centred: that is right for LayerNorm only. A layer without known neighbours gets T = Q and keeps its
    rows.

    rotation_seed: of the signs of Q, one Q per width and seed, so equal for all layers of a model.

    The gain is kept beside the codes and x is divided by it at run time; a fused model stores neither. Channels
    with gain zero are divided by one. Ranges of rotated inputs come from the sampled tokens. Raises NoHadamard for
    widths that quant.hadamard cannot build.
    """

    name: ClassVar[str] = "quarot"
    needs_statistics: ClassVar[bool] = False

    rotation_seed: int = 0

    def __post_init__(self) -> None:
        check_interval("rotation_seed", self.rotation_seed, -1, 2**31)

    def check_features(self, features: int) -> None:
        """Raise RecipeError unless a Hadamard matrix of this width can be built."""
        try:
            split_order(features)
        except NoHadamard as error:
            raise RecipeError(f"transform quarot: {error}", "transform") from None

    def fit(self, site: Site, grid: WeightGrid) -> dict[str, Rotation]:
        """One rotation of the inputs; that of the outputs is each layer's own."""
        gain = None if site.gain is None else torch.where(site.gain == 0, 1, site.gain)
        seed = _NONE if site.inside else self.rotation_seed
        rotations = {}
        for name in site.weights:
            block = site.writes.get(name, 0)
            rotations[name] = Rotation(seed, gain, block, self.rotation_seed if block == _WHOLE else _NONE)
        return rotations

    @staticmethod
    def from_tensors(tensors: dict[str, torch.Tensor]) -> Rotation:
        """A stored rotation. Raises KeyError when it is missing."""
        seed, block, output_seed = tensors["rotation"].tolist()
        return Rotation(seed, tensors.get("gain"), block, output_seed)


@dataclass(frozen=True, eq=False)
class Rotation:
    """x → x·diag(1/gain)·diag(signs)·H/√n, and rows of the weight in a rotated basis.

    seed, output_seed: of the signs, −1 for none. block: rows per rotated block, −1 for all, 0 for no rotation.
    """

    name: ClassVar[str] = "quarot"

    seed: int
    gain: torch.Tensor | None
    block: int
    output_seed: int

    def apply_input(self, x: torch.Tensor) -> torch.Tensor:
        """x T, in x's type."""
        wide = x.float() if self.gain is None else x.float() / self.gain.to(x.device, torch.float32)
        return apply_hadamard(_signed(wide, self.seed)).to(x.dtype)

    def apply_weight(self, weight: torch.Tensor) -> torch.Tensor:
        """W·diag(gain)·Q, float32."""
        wide = weight.float() if self.gain is None else weight.float() * self.gain.to(weight.device)
        return apply_hadamard(_signed(wide, self.seed))

    def restore_weight(self, weight: torch.Tensor) -> torch.Tensor:
        """W·Qᵀ·diag(1/gain), float32."""
        turned = _signed(apply_hadamard(weight.float(), transpose=True), self.seed)
        return turned if self.gain is None else turned / self.gain.to(weight.device)

    def apply_output(self, weight: torch.Tensor) -> torch.Tensor:
        """Qᵀ·W on the rows of weight [n_out, n_in]."""
        if not self.block:
            return weight
        return (
            apply_hadamard(_signed(self._blocks(weight), self.output_seed)).reshape(weight.T.shape).T.contiguous()
        )

    def restore_output(self, weight: torch.Tensor) -> torch.Tensor:
        """Q·W on the rows of weight [n_out, n_in]."""
        if not self.block:
            return weight
        turned = _signed(apply_hadamard(self._blocks(weight), transpose=True), self.output_seed)
        return turned.reshape(weight.T.shape).T.contiguous()

    def apply_statistics(self, statistics: LayerStatistics) -> LayerStatistics:
        """Statistics of x T: sums exactly, ranges from the sample."""
        return transformed(statistics, self.apply_input)

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """Seeds and block, and the gain where there is one."""
        kept = {"rotation": torch.tensor([self.seed, self.block, self.output_seed])}
        return kept if self.gain is None else kept | {"gain": self.gain}

    def _blocks(self, weight: torch.Tensor) -> torch.Tensor:
        rows, columns = weight.shape
        return weight.float().T.reshape(columns, -1, rows if self.block == _WHOLE else self.block)


def _signed(x: torch.Tensor, seed: int) -> torch.Tensor:
    return x if seed == _NONE else x * _signs(x.shape[-1], seed, str(x.device))


@lru_cache(maxsize=32)
def _signs(features: int, seed: int, device: str) -> torch.Tensor:
    return random_signs(features, seed).to(device, torch.float32)

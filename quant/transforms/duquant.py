"""DuQuant: smooth, then rotate, permute and rotate again in blocks of channels, steered by their outliers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from quant.errors import PoisonedLayer, RecipeError, check_choice, check_interval
from quant.lazy import torch
from quant.rotations import search_rotation, stepwise_rotation, zigzag
from quant.statistics import LayerStatistics, transformed
from quant.transforms.smoothquant import smoothing_scale

if TYPE_CHECKING:
    from quant.protocols import Site
    from quant.weights import WeightGrid

BLOCKS = (16, 32, 64, 128, 256)
_SPIKES = 32  # channels whose extreme token may be missing from the sample


@dataclass(frozen=True)
class DuQuant:
    """T = diag(1/s) · blocks(R1) · P · blocks(R2) (Lin et al., arXiv 2406.01721, equations 3 to 6).

    s is SmoothQuant's scale. R1 and R2 are rotations of `rotation_block` channels, each one matrix for all blocks,
    found greedily on calibration tokens (quant.rotations); P deals channels, sorted by their largest magnitude
    after R1, to the blocks in zigzag order, so that blocks are equally hard.

    alpha: of the smoothing, as in SmoothQuant; 0 leaves it out. rotation_steps: greedy steps of each search at
    most; the prefix with the smallest range is kept, so more never hurts on the sample. rotation_pivot: a step
    takes as its axis the channel of the largest entry (`channel`, the paper) or that entry's row number (`row`,
    the released code, which also clips: weight_clip_ratio .8, activation_clip_ratio .9). rotation_seed: of the
    random part of the steps.

    At run time a division, two products with block matrices and one gather per input. Kept are s, P and the axes
    of the steps, one byte each; rotations are rebuilt from them. Raises PoisonedLayer without statistics,
    RecipeError where rotation_block does not divide n_in.
    """

    name: ClassVar[str] = "duquant"
    needs_statistics: ClassVar[bool] = True

    alpha: float = 0.5
    rotation_block: int = 128
    rotation_steps: int = 256
    rotation_pivot: str = "channel"
    rotation_seed: int = 0

    def __post_init__(self) -> None:
        check_interval("alpha", self.alpha, -1e-9, 1.0)
        check_choice("rotation_block", self.rotation_block, BLOCKS)
        check_interval("rotation_steps", self.rotation_steps, 0, 4096)
        check_choice("rotation_pivot", self.rotation_pivot, ("channel", "row"))
        check_interval("rotation_seed", self.rotation_seed, -1, 2**31)

    def check_features(self, features: int) -> None:
        """Raise RecipeError unless blocks fill the features."""
        if features % self.rotation_block:
            fitting = ", ".join(str(block) for block in BLOCKS if features % block == 0) or "none"
            raise RecipeError(
                f"rotation_block {self.rotation_block} does not divide the {features} input features of a layer;"
                f" sizes that do: {fitting}",
                "rotation_block",
            )

    def fit(self, site: Site, grid: WeightGrid) -> dict[str, BlockRotations]:
        """One transform for all layers of the site."""
        if site.statistics is None:
            raise PoisonedLayer("duquant needs calibration statistics")
        rows = _search_rows(site.statistics)
        scale = smoothing_scale(site, self.alpha) if self.alpha else None
        if scale is not None:
            rows = rows / scale.float()
        blocks, seeds = rows.reshape(-1, self.rotation_block), (2 * self.rotation_seed, 2 * self.rotation_seed + 1)
        search = self.rotation_steps, self.rotation_pivot == "row"
        first, blocks = search_rotation(blocks, seeds[0], *search)
        permutation = zigzag(blocks.reshape(rows.shape).abs().amax(0), self.rotation_block)
        second, _ = search_rotation(
            blocks.reshape(rows.shape)[:, permutation].reshape(-1, self.rotation_block), seeds[1], *search
        )
        kept = torch.tensor([self.rotation_block, *seeds])
        return dict.fromkeys(site.weights, BlockRotations(scale, permutation.to(torch.int16), first, second, kept))

    @staticmethod
    def from_tensors(tensors: dict[str, torch.Tensor]) -> BlockRotations:
        """A stored transform. Raises KeyError when a part is missing."""
        names = ("permutation", "first", "second", "rotation")
        return BlockRotations(tensors.get("channel_scale"), *(tensors[name] for name in names))


@dataclass(frozen=True, eq=False)
class BlockRotations:
    """x → ((x/s · blocks(R1))[permutation]) · blocks(R2).

    channel_scale: s, float16 [n_in] or None. permutation int16 [n_in]: where each channel comes from. first,
    second: uint8, axes of the steps of R1 and R2. rotation int64 [3]: block size and the two seeds.
    """

    name: ClassVar[str] = "duquant"

    channel_scale: torch.Tensor | None
    permutation: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor
    rotation: torch.Tensor

    def apply_input(self, x: torch.Tensor) -> torch.Tensor:
        """x T, in x's type."""
        scaled = x.float() if self.channel_scale is None else x.float() / self._scale(x)
        return self._rotate(scaled).to(x.dtype)

    def apply_weight(self, weight: torch.Tensor) -> torch.Tensor:
        """W T⁻ᵀ, float32."""
        return self._rotate(weight.float() if self.channel_scale is None else weight.float() * self._scale(weight))

    def restore_weight(self, weight: torch.Tensor) -> torch.Tensor:
        """The inverse of apply_weight, float32."""
        first, second = self._rotations(weight)
        order = self.permutation.to(weight.device).long().argsort()
        turned = _blockwise(_blockwise(weight.float(), second.T)[..., order], first.T)
        return turned if self.channel_scale is None else turned / self._scale(weight)

    def apply_output(self, weight: torch.Tensor) -> torch.Tensor:
        """weight."""
        return weight

    def restore_output(self, weight: torch.Tensor) -> torch.Tensor:
        """weight."""
        return weight

    def apply_statistics(self, statistics: LayerStatistics) -> LayerStatistics:
        """Statistics of x T: sums exactly, ranges from the sample."""
        return transformed(statistics, self.apply_input)

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """Everything above."""
        names = ("channel_scale", "permutation", "first", "second", "rotation")
        parts = {name: getattr(self, name) for name in names}
        return {name: part for name, part in parts.items() if part is not None}

    def _rotate(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self._rotations(x)
        return _blockwise(_blockwise(x, first)[..., self.permutation.to(x.device).long()], second)

    def _rotations(self, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        block, *seeds = self.rotation.tolist()
        found = (
            _rebuilt(block, seed, tuple(steps.tolist()), str(other.device))
            for seed, steps in zip(seeds, (self.first, self.second), strict=True)
        )
        return next(found), next(found)

    def _scale(self, other: torch.Tensor) -> torch.Tensor:
        assert self.channel_scale is not None
        return self.channel_scale.to(other.device, torch.float32)


@lru_cache(maxsize=512)
def _rebuilt(block: int, seed: int, steps: tuple[int, ...], device: str) -> torch.Tensor:
    return stepwise_rotation(block, seed, steps).to(device, torch.float32)


def _blockwise(x: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    return (x.reshape(*x.shape[:-1], -1, len(rotation)) @ rotation).reshape(x.shape)


def _search_rows(statistics: LayerStatistics) -> torch.Tensor:
    """The sample, and for channels that were much larger elsewhere one row with that peak alone.

    Massive activations sit in one channel of very few tokens; a sample without them hides what DuQuant is for.
    """
    sample = statistics.sample
    excess = statistics.absmax.to(sample.device) > 1.5 * sample.abs().amax(0)
    peaks = torch.where(excess, statistics.absmax.to(sample.device), 0.0)
    values, channels = peaks.topk(min(_SPIKES, len(peaks)))
    spikes = torch.zeros(len(values), len(peaks), device=sample.device)
    spikes[torch.arange(len(values)), channels] = values
    return torch.cat([sample, spikes[values > 0]])

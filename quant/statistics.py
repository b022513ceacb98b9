"""What calibration remembers of the inputs of a linear layer: enough for every recipe, so one pass serves all.

Tokens stream through a StatisticsCollector in any batch sizes. Sums may differ in their last bits with the
batching (the order of float32 additions); which rows are sampled never does. Non-finite tokens are not
refused here: they make the Gram matrix non-finite, and quantize_layer refuses that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

from quant.lazy import torch


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """Statistics of the inputs x [tokens, n] of one linear layer (or of several that share their input).

    gram [n, n] float32: Σ x xᵀ over tokens, not normalised. absmax, mean_abs [n] float32: largest and mean
    |x| per channel. tokens: how many. sample [≤ rows, n] float32: seeded rows of the same tokens, for
    searches that need tokens. held_out [≤ rows, n] float32: rows of other tokens, never fitted to. cross [n, n]
    float32: Σ (x̃ − x) xᵀ with x̃ the inputs of the full-precision model for the same tokens, where they were
    watched too, else None.
    """

    gram: torch.Tensor
    absmax: torch.Tensor
    mean_abs: torch.Tensor
    tokens: int
    sample: torch.Tensor
    held_out: torch.Tensor
    cross: torch.Tensor | None = None

    def to(self, device: str | torch.device) -> LayerStatistics:
        """The same statistics on `device`."""
        moved = {name: tensor.to(device) for name, tensor in self._tensors().items()}
        return LayerStatistics(**moved, tokens=self.tokens)

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """Everything as contiguous CPU tensors (tokens: int64 [1]), ready for safetensors."""
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self._tensors().items()}
        return {**tensors, "tokens": torch.tensor([self.tokens], dtype=torch.int64)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> LayerStatistics:
        """The inverse of to_tensors. Raises KeyError when one that is not optional is missing."""
        needed = [field.name for field in fields(cls) if field.name not in ("tokens", "cross")]
        kept = {name: tensors[name] for name in needed}
        return cls(**kept, tokens=int(tensors["tokens"].item()), cross=tensors.get("cross"))

    def _tensors(self) -> dict[str, torch.Tensor]:
        parts = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "tokens"}
        return {name: part for name, part in parts.items() if part is not None}


def transformed(statistics: LayerStatistics, apply: Callable[[torch.Tensor], torch.Tensor]) -> LayerStatistics:
    """Statistics of xT for apply(x) = xT on rows [..., n]: sums exactly (Tᵀ H T), absmax and mean_abs from the
    sample. That misses the rarest tokens: absmax comes out too small where one token is extreme.
    """
    sample = apply(statistics.sample)
    return LayerStatistics(
        gram=_conjugate(statistics.gram, apply),
        absmax=sample.abs().amax(0),
        mean_abs=sample.abs().mean(0),
        tokens=statistics.tokens,
        sample=sample,
        held_out=apply(statistics.held_out),
        cross=None if statistics.cross is None else _conjugate(statistics.cross, apply),
    )


def _conjugate(matrix: torch.Tensor, apply: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Tᵀ M T from apply(M) = M T alone."""
    return apply(apply(matrix).T).T.contiguous()


class StatisticsCollector:
    """Streams tokens into LayerStatistics; sums live on the device of the first tokens.

    The sample is the `sample_rows` tokens with the smallest hash of (seed, position in the stream): a uniform
    sample without replacement that does not depend on batching, in stream order. held-out rows are sampled by
    the same rule.
    """

    def __init__(self, features: int, sample_rows: int = 256, seed: int = 0) -> None:
        self.features = features
        self.tokens = 0
        self._gram: torch.Tensor | None = None
        self._absmax: torch.Tensor | None = None
        self._sum_abs: torch.Tensor | None = None
        self._cross: torch.Tensor | None = None
        self._sample = _RowSample(features, sample_rows, 2 * seed)
        self._held_out = _RowSample(features, sample_rows, 2 * seed + 1)

    def add(self, x: torch.Tensor, full: torch.Tensor | None = None) -> None:
        """Count x [tokens, features] (any leading dimensions, any float type).

        full: the same tokens in the full-precision model, given with every call or with none (ValueError).
        """
        rows = self._rows(x)
        if self.tokens and (full is None) != (self._cross is None):
            raise ValueError("full-precision inputs must come with every batch of tokens or with none")
        if self._gram is None or self._absmax is None or self._sum_abs is None:
            self._gram = torch.zeros(self.features, self.features, device=rows.device)
            self._absmax = torch.zeros(self.features, device=rows.device)
            self._sum_abs = torch.zeros(self.features, dtype=torch.float64, device=rows.device)
        if not len(rows):
            return
        if full is not None:
            if self._cross is None:
                self._cross = torch.zeros_like(self._gram)
            self._cross.addmm_((self._rows(full) - rows).T, rows)
        magnitude = rows.abs()
        self._gram.addmm_(rows.T, rows)
        self._absmax = torch.maximum(self._absmax, magnitude.amax(0))
        self._sum_abs += magnitude.sum(0, dtype=torch.float64)
        self.tokens += len(rows)
        self._sample.add(rows)

    def add_held_out(self, x: torch.Tensor) -> None:
        """Offer x [tokens, features] to the held-out rows; it touches no other statistic."""
        self._held_out.add(self._rows(x))

    def finish(self) -> LayerStatistics:
        """The statistics so far. Raises ValueError when no tokens were added."""
        if self._gram is None or self._absmax is None or self._sum_abs is None or not self.tokens:
            raise ValueError("no tokens were added to the layer statistics")
        return LayerStatistics(
            gram=self._gram,
            absmax=self._absmax,
            mean_abs=(self._sum_abs / self.tokens).float(),
            tokens=self.tokens,
            sample=self._sample.rows,
            held_out=self._held_out.rows,
            cross=self._cross,
        )

    def _rows(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] != self.features:
            raise ValueError(f"expected tokens of {self.features} features, got shape {tuple(x.shape)}")
        return x.detach().reshape(-1, self.features).float()


class _RowSample:
    """The `size` rows of a stream with the smallest keyed hash of their position, in stream order."""

    def __init__(self, features: int, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.seen = 0
        self.rows = torch.zeros(0, features)
        self._keys = torch.zeros(0, dtype=torch.int64)

    def add(self, rows: torch.Tensor) -> None:
        positions = torch.arange(self.seen, self.seen + len(rows))
        self.seen += len(rows)
        keys = torch.cat([self._keys, hash_positions(positions, self.seed)])
        chosen = keys.argsort(stable=True)[: self.size].sort().values
        new = chosen[chosen >= len(self._keys)] - len(self._keys)
        old = chosen[chosen < len(self._keys)]
        self.rows = torch.cat([self.rows[old].to(rows.device), rows[new.to(rows.device)]])
        self._keys = keys[chosen]


def hash_positions(positions: torch.Tensor, seed: int) -> torch.Tensor:
    """A well-mixed int64 per (seed, position), the same anywhere: splitmix64, whose products are meant to wrap."""
    word = positions * _signed(0x9E3779B97F4A7C15) + _signed(seed * 0xD1B54A32D192ED03)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        word = (word ^ _shift_right(word, shift)) * _signed(factor)
    return word ^ _shift_right(word, 31)


def _shift_right(word: torch.Tensor, count: int) -> torch.Tensor:
    return (word >> count) & ((1 << (64 - count)) - 1)


def _signed(word: int) -> int:
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >> 63 else word

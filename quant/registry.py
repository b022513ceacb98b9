"""Every named choice of this room. A new method is a file of its own and one line here.

Importing this module loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from quant.allocation.uniform import Uniform
from quant.protocols import Allocation, Rounding, Transform
from quant.rounding.gptaq import GPTAQ
from quant.rounding.gptq import GPTQ
from quant.rounding.nearest import Nearest
from quant.transforms.awq import AWQ
from quant.transforms.duquant import DuQuant
from quant.transforms.identity import Identity
from quant.transforms.quarot import QuaRot
from quant.transforms.smoothquant import SmoothQuant

TRANSFORMS: dict[str, type[Transform]] = {cls.name: cls for cls in (Identity, SmoothQuant, AWQ, QuaRot, DuQuant)}
ROUNDINGS: dict[str, type[Rounding]] = {cls.name: cls for cls in (Nearest, GPTQ, GPTAQ)}
ALLOCATIONS: dict[str, type[Allocation]] = {cls.name: cls for cls in (Uniform,)}


@dataclass(frozen=True)
class Preset:
    """A named method: a line about it, the flat fields it sets, and what grid `symmetric: true` means for it."""

    summary: str
    defaults: Mapping[str, object] = field(default_factory=dict)
    symmetric_grid: str = "sym_full"


METHODS: dict[str, Preset] = {
    "rtn": Preset("round to nearest; with abits below 16 also of the inputs, per token", {"rounding": "nearest"}),
    "gptq": Preset("GPTQ: column-wise rounding with second-order correction", {"rounding": "gptq"}),
    "gptaq": Preset(
        "GPTAQ: GPTQ towards the full-precision outputs; needs calibration on quantized inputs",
        {"rounding": "gptaq"},
    ),
    "awq": Preset(
        "AWQ: scales that make salient channels finer, then clipped round-to-nearest, both searched",
        {"transform": "awq", "clip_search": True, "weight_grid": "asym_minmax", "clamp_zero": True},
    ),
    "quarot": Preset(
        "QuaRot: Hadamard rotations, then clipped GPTQ per row and activations per token; W4A4, symmetric",
        {
            "transform": "quarot",
            "rounding": "gptq",
            "abits": 4,
            "group_size": -1,
            "weight_grid": "sym_restricted",
            "mse_clip": True,
        },
        symmetric_grid="sym_restricted",
    ),
    "duquant": Preset(
        "DuQuant: smoothing, zigzag permutation and searched block rotations; W4A4, per row and token",
        {"transform": "duquant", "abits": 4, "group_size": -1, "activation_symmetric": False},
    ),
    "smoothquant": Preset(
        "SmoothQuant: a scale per channel moves outliers from activations into weights; W8A8, per row and token",
        {"transform": "smoothquant", "wbits": 8, "abits": 8, "group_size": -1, "activation_symmetric": False},
    ),
}

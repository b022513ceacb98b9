"""GPTAQ: GPTQ that aims at the outputs of the full-precision model rather than at those of its own inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from quant.errors import PoisonedLayer, check_interval
from quant.lazy import torch
from quant.rounding.gptq import GPTQ

if TYPE_CHECKING:
    from quant.statistics import LayerStatistics


@dataclass(frozen=True)
class GPTAQ(GPTQ):
    """GPTQ under ‖X Ŵᵀ − X̃ Wᵀ‖² (Li et al., arXiv 2504.02692): x̃ is what full-precision layers would have sent.

    With D = Σ (x̃ − x) xᵀ and GPTQ's factor U, each column i also passes on what it owes to the changed inputs,

        W[:, i+1:] += w_i · P[i, i+1:],   P = gptaq_alpha · [D Uᵀ]_{strictly upper} · U

    (row i of P is D[i, F]·(H_FF)⁻¹ for the columns F after i), w_i being the column before it is rounded.

    gptaq_alpha: how much of that debt is passed on; 1 is the derivation, .25 what the released code uses, 0 is
    GPTQ. Other fields as in GPTQ. Needs statistics with a cross matrix, which only calibration behind quantized
    blocks can gather, both models reading the same masked tokens; with equal inputs (D = 0) it is GPTQ. Two more
    n_in × n_in matrices and 4·n_in³ operations than GPTQ. Raises PoisonedLayer without the cross matrix.
    """

    name: ClassVar[str] = "gptaq"

    gptaq_alpha: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval("gptaq_alpha", self.gptaq_alpha, -1e-9, 1.0)

    def passed_on(
        self, statistics: LayerStatistics, factor: torch.Tensor, order: torch.Tensor
    ) -> torch.Tensor | None:
        """P [n_in, n_in] in sweep order."""
        if statistics.cross is None:
            raise PoisonedLayer(
                "gptaq needs the cross matrix of full-precision and quantized inputs, which these statistics lack;"
                " use rounding gptq, or collect statistics with both inputs"
            )
        cross = statistics.cross.to(factor)[order.unsqueeze(1), order]
        return (cross @ factor.T).triu_(1) @ factor * self.gptaq_alpha

"""Naming methods must not cost an import of torch."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import quant.recipe, quant.registry, quant.protocols, quant.packing, quant.layer, quant.statistics
recipe = quant.recipe.resolve({"method": "gptq", "wbits": 3, "act_order": True})
recipe.canonical(), recipe.fields(), recipe.check_features(256)
assert "torch" not in sys.modules, "torch was imported"
from quant.lazy import torch
import torch as real
assert torch.zeros is real.zeros
"""


def test_recipes_are_checked_without_torch() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr

"""`torch`, imported at its first use.

Recipes are checked by the command line and the planner, which must start fast and may run where torch is
missing, yet the same files hold the mathematics. `from quant.lazy import torch` serves both: naming a method
costs nothing, running it imports the library. Does not protect against code that touches `torch.` while a
module is being imported; a test does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch as torch
else:

    class _Torch:
        def __getattr__(self, name: str) -> object:
            import torch as module

            return getattr(module, name)

    torch = _Torch()

__all__ = ["torch"]

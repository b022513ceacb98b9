"""dlq in a notebook or a program: a few names, loaded when they are first used.

    import dlq
    runs = dlq.open("runs")                       # a store: runs.report(), runs.query("select ..."), runs.status()
    dlq.submit("grid.yaml", local=True)           # what `dlq submit` does; shows the result table
    packed, row = dlq.quantize_layer(weight, dlq.resolve({"method": "gptq", "wbits": 3}), statistics)

`import dlq` itself loads nothing but this file.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlq.notebook import Report, Runs, open, query, submit
    from evaluation.spec import EvaluationSettings, resolve_task
    from models.checkpoint import load_model, save_checkpoint
    from models.files import locate, read_model
    from pipeline.plan import make_plan
    from pipeline.plan import make_plan as plan
    from quant.layer import quantize_layer
    from quant.recipe import Recipe, resolve
    from quant.registry import METHODS
    from quant.statistics import LayerStatistics, StatisticsCollector
    from storage.artifacts import Store

    __version__: str

__all__ = [
    "METHODS",
    "EvaluationSettings",
    "LayerStatistics",
    "Recipe",
    "Report",
    "Runs",
    "StatisticsCollector",
    "Store",
    "load_model",
    "locate",
    "make_plan",
    "open",
    "plan",
    "quantize_layer",
    "query",
    "read_model",
    "resolve",
    "resolve_task",
    "save_checkpoint",
    "submit",
]

_HOME = {
    "EvaluationSettings": "evaluation.spec",
    "LayerStatistics": "quant.statistics",
    "METHODS": "quant.registry",
    "Recipe": "quant.recipe",
    "Report": "dlq.notebook",
    "Runs": "dlq.notebook",
    "StatisticsCollector": "quant.statistics",
    "Store": "storage.artifacts",
    "load_model": "models.checkpoint",
    "locate": "models.files",
    "make_plan": "pipeline.plan",
    "open": "dlq.notebook",
    "plan": "pipeline.plan",
    "quantize_layer": "quant.layer",
    "query": "dlq.notebook",
    "read_model": "models.files",
    "resolve": "quant.recipe",
    "resolve_task": "evaluation.spec",
    "save_checkpoint": "models.checkpoint",
    "submit": "dlq.notebook",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOME:
        raise AttributeError(f"module 'dlq' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), "make_plan" if name == "plan" else name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("dlq")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0+unknown"

"""Short names of cells for tables: what a recipe is, plus only those fields that tell it from its like."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from quant.recipe import FIELDS

Row = Mapping[str, Any]

BASE = ("method", "wbits", "abits", "group_size", "symmetric")  # in every label, where they say something
DETAILS = ("calibration", "propagation", *(name for name in FIELDS if name not in BASE))
SETTINGS = (
    "dtype",
    "device",
    "estimator",
    "samples",
    "steps",
    "gen_length",
    "block_length",
    "remasking",
    "temperature",
    "cfg_scale",
    "batch_size",
    "tokens_per_forward",
    "seed",
)


def labels(cells: Iterable[Row]) -> dict[str, str]:
    """Cell id -> label. Rows are those of the `cells` table."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for cell in cells:
        groups[str(cell["model"]), _base(cell)].append(cell)
    named = {}
    for (_, base), alike in groups.items():
        telling = [name for name in (*DETAILS, *SETTINGS) if len({str(c.get(name)) for c in alike}) > 1]
        for cell in alike:
            named[str(cell["cell"])] = " ".join([base, *filter(None, (_detail(n, cell.get(n)) for n in telling))])
    return named


def bits(cell: Row) -> str:
    """'W3' or 'W4A8'."""
    abits = cell.get("abits")
    return f"W{cell.get('wbits')}" + (f"A{abits}" if abits and abits < 16 else "")


def _base(cell: Row) -> str:
    if cell.get("is_baseline") or cell.get("method") == "full_precision":
        return "full precision"
    group = cell.get("group_size")
    parts = [str(cell["method"]), bits(cell), f"g{group}" if group and group > 0 else ""]
    return " ".join(filter(None, [*parts, "sym" if cell.get("symmetric") else ""]))


def _detail(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return name if value else f"no {name}"
    return f"{name}={value:g}" if isinstance(value, int | float) else str(value)

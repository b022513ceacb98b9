"""The one place where keys are made: SHA-256 of canonical JSON.

Equal keys mean equal work, whoever asked for it and in whatever order. A value that has no single canonical
form (NaN, a set, an object) is refused, because two spellings of one thing would be two keys.
Does not protect against a change of code: bump the kind's epoch when its results change.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

SCHEMA = 1

# One counter per kind of task; bumping it makes old results of that kind, and all that use them, stale.
EPOCHS = {"calibrate": 1, "quantize": 1, "requests": 1, "evaluate": 1, "score": 1, "cell": 1, "sweep": 1}


def canonical(value: Any) -> str:
    """Canonical JSON of plain data: sorted keys, no spaces. Raises TypeError or ValueError for anything else."""
    _check(value, "$")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def fingerprint(kind: str, spec: Any) -> str:
    """Key of a piece of work: 32 hex digits of SHA-256 over schema, kind, code epoch and spec."""
    text = canonical({"schema": SCHEMA, "kind": kind, "epoch": EPOCHS[kind], "spec": spec})
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _check(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{where}: key {key!r} is not a string")
            _check(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check(item, f"{where}[{index}]")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where}: {value} has no canonical form")
    elif not isinstance(value, str | int | bool | None):
        raise TypeError(f"{where}: {type(value).__name__} has no canonical form")
